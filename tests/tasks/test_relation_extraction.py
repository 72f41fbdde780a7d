"""Relation extraction: the markers in the tokens, what is cut, what is refused, and the way from files to answers."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from llmft.config.load import load as compose
from llmft.schema.model import ModelConfig, TokenizerConfig
from llmft.schema.problem import UserError
from llmft.tasks.text import config as sections
from llmft.tasks.text.entity_markers import read
from llmft.tasks.text.relation_extraction import RelationExtraction

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str | bytes], Path]
TEXTS = ["the <e1>fire</e1> came from <e2>dry straw</e2> .", "<e2>闪电</e2> 引起 <e1>大火</e1> é 👩 sep e1"] * 2


def task_of(**keys: Any) -> RelationExtraction:
    return RelationExtraction(sections.RelationExtraction(**keys))


def rows_of(*rows: dict[str, Any]) -> Dataset:
    return Dataset.from_list([{"id": f"a.csv:{number}", **row} for number, row in enumerate(rows, 2)])


@pytest.fixture
def task() -> RelationExtraction:
    labels = ["A(e1,e2)", "A(e2,e1)"] * 2
    train = rows_of(*({"text": text, "label": label} for text, label in zip(TEXTS, labels, strict=True)))
    return task_of().fit(train, ModelConfig(tokenizer=TokenizerConfig(size=200)))


def tokens(task: RelationExtraction, row: dict[str, Any], length: int = 128) -> str:
    """What the model reads of a row."""
    task.state.max_length = length
    rows = rows_of(row)
    assert task.check(rows, "test") == []
    features = task.encode(rows[:])
    ids = features["input_ids"][0]
    assert features["length"] == [len(ids)]
    return " ".join(task.state.tokenizer.convert_ids_to_tokens(ids)) + " *" * features["cut"][0]


ENCODED = [
    ({"text": TEXTS[0]}, 128, "[CLS] the [E1] fire [/E1] came from [E2] dry straw [/E2] . [SEP]"),
    ({"text": TEXTS[0]}, 13, "[CLS] the [E1] fire [/E1] came from [E2] dry straw [/E2] . [SEP]"),
    ({"text": TEXTS[0]}, 12, "[CLS] [E1] fire [/E1] came from [E2] dry straw [/E2] . [SEP] *"),
    ({"text": TEXTS[0]}, 11, "[CLS] [E1] fire [/E1] came from [E2] dry straw [/E2] [SEP] *"),
    # Room is left on both sides, and what one side does not need the other gets.
    ({"text": "the the the <e1>fire</e1> <e2>straw</e2> from from from"}, 10, "[CLS] the [E1] fire [/E1] [E2] straw [/E2] from [SEP] *"),
    ({"text": "<e1>fire</e1> <e2>straw</e2> from from from"}, 10, "[CLS] [E1] fire [/E1] [E2] straw [/E2] from from [SEP] *"),
    ({"text": "the the the <e1>fire</e1> <e2>straw</e2>"}, 10, "[CLS] the the [E1] fire [/E1] [E2] straw [/E2] [SEP] *"),
    ({"text": "the FIRE, straw", "head": "[10, 15]", "tail": "[4, 8]"}, 128, "[CLS] the [E2] fire [/E2] [UNK] [E1] straw [/E1] [SEP]"),
    # Within a word the marker goes around all of it: no word is read in two halves. Two may share one.
    ({"text": "straw", "head": "[0, 3]", "tail": "[3, 5]"}, 128, "[CLS] [E1] [E2] straw [/E1] [/E2] [SEP]"),
    ({"text": "<e1> fire </e1>from<e2> straw </e2>"}, 128, "[CLS] [E1] fire [/E1] from [E2] straw [/E2] [SEP]"),
    ({"text": TEXTS[1]}, 128, "[CLS] [E2] 闪 电 [/E2] 引 起 [E1] 大 火 [/E1] e 👩 sep e1 [SEP]"),
    ({"text": "e\u0301 <e1>👩</e1> <e2>大</e2>"}, 128, "[CLS] e [E1] 👩 [/E1] [E2] 大 [/E2] [SEP]"),
    # Letters of a text are not markers.
    ({"text": "[SEP] <e1>[E1]</e1> <e2>e1</e2>"}, 128, "[CLS] [UNK] sep [UNK] [E1] [UNK] e1 [UNK] [/E1] [E2] e1 [/E2] [SEP]"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "length", "expected"), ENCODED)
def test_markers_stand_around_the_entities(
    row: dict[str, Any], length: int, expected: str, task: RelationExtraction
) -> None:
    assert tokens(task, row, length) == expected


def test_a_tokenizer_of_bytes_keeps_its_tokens() -> None:
    """Its tokens begin with the space before a word, and several make one character."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        ["the fire came from dry straw"] * 9, 400, special_tokens=["<s>", "<pad>"], show_progress=False
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", pad_token="<pad>")
    tokenizer.save_pretrained("bpe")
    train = rows_of(*({"text": TEXTS[0], "label": label} for label in "ab"))
    task = task_of().fit(train, ModelConfig(tokenizer=TokenizerConfig(path="bpe")))
    found = task.encode(rows_of({"text": "the <e1>fire</e1> came from <e2>火</e2> straw"})[:])
    assert task.state.tokenizer.convert_ids_to_tokens(found["input_ids"][0]) == (
        ["the", "[E1]", "Ġfire", "[/E1]", "Ġcame", "Ġfrom", "Ġ", "[E2]", "ç", "ģ", "«", "[/E2]", "Ġstraw"]
    )


REFUSED = [
    ({"text": "the <e1>fire</e1>"}, "a.csv:2", "has no <e2> and no </e2> (test). Write <e1>..</e1> and <e2>..</e2> around the two entities"),
    ({"text": "the fire", "head": None, "tail": None}, "a.csv:2", "has no <e1> and no </e1>"),
    ({"text": "<e1>fire</e1> from from from from <e2>straw</e2>"}, "a.csv:2", "has entities too far apart for task.max_length=10: they need 12"),
    ({"text": "<e1>\u200b</e1> from <e2>straw</e2>"}, "a.csv:2", "has an e1 that the tokenizer leaves out"),
    ({"text": TEXTS[0], "label": "B"}, "a.csv:2", "must have a label of training ("),
]  # fmt: skip


@pytest.mark.parametrize(("row", "key", "what"), REFUSED)
def test_what_cannot_be_encoded_is_refused(row: dict[str, Any], key: str, what: str, task: RelationExtraction) -> None:
    task.state.max_length = 10
    good = (
        dict.fromkeys(row)
        | {"text": "<e1>fire</e1> <e2>straw</e2>"}
        | ({"label": "A(e1,e2)"} if "label" in row else {})
    )
    problems = task.check(rows_of(row, good), "test")
    assert any(problem.key == key and what in str(problem) for problem in problems)
    assert all(problem.key == key for problem in problems)


def test_the_official_score_is_of_labels_with_directions(task: RelationExtraction) -> None:
    rows = rows_of({"label": "A(e1,e2)"}, {"label": "A(e2,e1)"})
    answers = [{"answer": "A(e1,e2)", "scores": {"A(e1,e2)": 0.9, "A(e2,e1)": 0.1}}] * 2
    assert task.score(answers, rows)["semeval_f1"] == pytest.approx(0.5)
    plain = task_of().fit(rows_of({"text": TEXTS[0], "label": "a"}, {"text": TEXTS[1], "label": "b"}), ModelConfig())
    answers = [{"answer": "a", "scores": {"a": 0.9, "b": 0.1}}] * 2
    assert "semeval_f1" not in plain.score(answers, rows_of({"label": "a"}, {"label": "b"}))


SMALL = ("+recipe=bert_relation", "smoke=true", "trainer.max_steps=2", "dataset.max_overlap=1")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run on rows whose entities are given by their characters."""
    from llmft.cli import main

    folder = tmp_path_factory.mktemp("relation")
    rows = [
        {
            "words": f"the fire {i} came from straw",
            "a": [4, 8],
            "b": [[21 + (i > 9), 26 + (i > 9)], [0, 3]][i % 2],
            "is": "yn"[i % 2],
        }
        for i in range(20)
    ]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = "dataset.columns={text: words, head: a, tail: b, label: is}"
    data = ("dataset=json", f"dataset.train={folder}/a.jsonl", columns)
    assert main(["finetune", *SMALL, *data, f"run.dir={folder}/run"]) == 0
    return str(folder / "run")


def test_entities_by_characters_are_shown_in_reports(run: str, llmft: Run, here: Path) -> None:
    lines = (Path(run) / "predictions/test.jsonl").read_text().splitlines()
    assert all("[fire]₁" in json.loads(line)["input"] for line in lines)
    card, page = (Path(run) / "README.md").read_text(), (Path(run) / "report.html").read_text()
    assert "relation extraction" in page
    assert "relation_extraction" in card or "relation extraction" in card


def test_rows_are_answered_one_by_one(run: str, llmft: Run, write: Write, here: Path) -> None:
    good = {"words": "the fire came from straw", "a": [4, 8], "b": [19, 24]}
    rows = [good, good | {"a": [4, 80]}, good | {"b": None}, good | {"words": "the <e1>fire</e1>"}, {"a": [0, 1]}, good]
    write("new.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    code, out, _ = llmft("predict", run, "predict.input=new.jsonl")
    assert code == 0
    found = [json.loads(line) for line in out.splitlines()]
    assert found[0]["scores"].keys() == {"n", "y"}
    # They share a batch, and the last digit of float32 may differ between its rows.
    assert found[0]["answer"] == found[5]["answer"]
    assert found[0]["scores"] == pytest.approx(found[5]["scores"], abs=1e-7)
    what = [
        "has the head [4, 80]",
        "has head alone",
        "has marks in its text and head and tail beside it",
        "no column 'words'",
    ]
    assert [part in row["error"] for part, row in zip(what, found[1:5], strict=True)] == [True] * 4, found


def test_a_marked_text_is_answered(llmft: Run, write: Write, here: Path) -> None:
    rows = [
        f'"The <e{1 + i % 2}>fire</e{1 + i % 2}>, {i}, ate <e{2 - i % 2}>straw</e{2 - i % 2}>.",{"yn"[i % 2]}'
        for i in range(20)
    ]
    write("a.csv", "text,label\n" + "\n".join(rows) + "\n")
    code, _, err = llmft("finetune", *SMALL, "dataset=csv", "dataset.train=a.csv", "run.dir=run", "model=minilm")
    assert code == 0, err
    code, out, err = llmft("predict", "run", "predict.text=The <e1>fire</e1> was caused by <e2>lightning</e2>.")
    assert code == 0, err
    assert json.loads(out)["answer"] in ("n", "y")
    code, out, err = llmft("predict", "run", "predict.text=no marks")
    assert (code, json.loads(out)["error"][:11]) == (1, "has no <e1>")


def test_markers_of_pretrained_weights_are_the_same_after_a_stop(llmft: Run, here: Path) -> None:
    """Beside an adapter a checkpoint does not hold them: they must be drawn again as they were."""
    words = ("finetune", *SMALL, "model=minilm", "adapter=lora", "trainer.eval_every=1", "trainer.save_every=1")
    assert llmft(*words, "run.dir=whole")[0] == 0
    assert llmft(*words, "run.dir=parts", "trainer.keep_finished=true")[0] == 0
    for name in ("model", "checkpoints/checkpoint-2", "adapter"):
        shutil.rmtree(here / "parts" / name)
    manifest = here / "parts/manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"status": "stopped"}))
    code, out, err = llmft(*words, "run.dir=parts", "resume=true")
    assert code == 0, err
    assert "resumes   after step 1" in out
    whole, parts = ((here / name / "model/model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert whole == parts


FAULTS = {
    "all at once": (
        "text,label\n<e1>a</e1> <e2>b</e2>,x\n<e1>a</e1> b,y\n<e1>a <e2>b</e2></e1>,x\n",
        "text,label\n<e1></e1> <e2>b</e2>,x\n",
        ("a.csv:3  has no <e2> and no </e2> (train)", "a.csv:4  has entities that overlap (train)", "b.csv:2  has nothing in e1 (test)"),
    ),
    "spans": (
        'text,head,tail,label\na b,"[0, 1]","[2, 9]",x\na b,"[0, 1]",two,y\n',
        "text,head,tail,label\n<e1>a</e1> <e2>b</e2>,,,x\na b,\"[0, 1]\",,x\n",
        ("a.csv:2  has the tail [2, 9]", 'a.csv:3  has the tail "two", which is not [start, end]', "b.csv:3  has head alone (test)"),
    ),
    "one split by characters": (
        'text,head,tail,label\na b,"[0, 1]","[2, 3]",x\nb a,"[0, 1]","[2, 3]",y\n',
        "text,label\n<e1>a</e1> <e2>b</e2>,x\n",
        ("dataset.columns.head  must be in all splits or in none, got it in train and not in test",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("streaming", ["false", "true"])
@pytest.mark.parametrize("name", FAULTS)
def test_bad_files_are_named_by_line(name: str, streaming: str, llmft: Run, write: Write, here: Path) -> None:
    train, test, texts = FAULTS[name]
    write("a.csv", train)
    write("b.csv", test)
    files = ("dataset=csv", "dataset.train=a.csv", "dataset.test=b.csv", "dataset.split.validation=0")
    more = ("dataset.max_rows=null", f"dataset.streaming={streaming}", "dataset.split.stratify=false")
    code, _, err = llmft("finetune", "+recipe=bert_relation", "smoke=true", *files, *more, "run.dir=run")
    assert code == 2
    for text in texts:
        assert text in " ".join(err.replace("  ", "\0").split(" ")).replace("\0", "  "), err
    assert not (here / "run").exists()


def test_other_problems_are_refused(llmft: Run) -> None:
    with pytest.raises(UserError, match="must be 'single_label', got 'regression'"):
        compose("finetune", ["+recipe=bert_relation", "task.problem=regression"])
    config = compose("finetune", ["+recipe=bert_relation"])
    assert (config.task.metric, "semeval_f1" in config.task.metrics) == ("f1", True)


PAGE = (Path(__file__).parents[2] / "docs/relations.md").read_text(encoding="utf-8")


def test_the_commands_of_the_page_work(llmft: Run, write: Write, here: Path) -> None:
    ways = ("e1,e2", "e2,e1")
    rows = [(f"The <e1>fire {i}</e1> met <e2>straw</e2>.", f"Cause-Effect({ways[i % 2]})") for i in range(40)]
    write("marked.csv", "text,label\n" + "".join(f'{text},"{label}"\n' for text, label in rows))
    spans = (
        {"sentence": f"fire {i} straw", "head": [0, 4], "tail": [8, 13], "relation": "ab"[i % 2]} for i in range(10, 50)
    )
    write("spans.jsonl", "".join(json.dumps(row) + "\n" for row in spans))
    examples = [f'{i}\t"{text}"\n{label}\nComment:\n\n' for i, (text, label) in enumerate(rows)]
    write("TRAIN_FILE.TXT", "".join(examples[:30]))
    write("TEST_FILE_FULL.TXT", "".join(examples[30:]))
    lines = re.findall("^    (llmft .*)$", PAGE, re.MULTILINE)
    assert len(lines) == 5
    for line in lines:
        words = shlex.split(line)[1:]
        if words[0] == "predict":
            words[1] = str(next((here / "outputs/bert_relation").iterdir()))
        else:
            words += ["smoke=true", "trainer.max_steps=1"]
        code, out, err = llmft(*words)
        assert code == 0, f"{line}\n{err}"
        assert out


def test_the_row_of_the_page_is_one() -> None:
    row = json.loads(re.findall(r'^    (\{"sentence".*)$', PAGE, re.MULTILINE)[0])
    found = read(row["sentence"], json.dumps(row["head"]), json.dumps(row["tail"]))
    assert str(found) == "The [fire]₁ was caused by [lightning]₂."


@pytest.mark.parametrize("format", ["safetensors", pytest.param("onnx", marks=pytest.mark.slow)])
def test_an_export_answers_as_its_run_does(format: str, llmft: Run, here: Path) -> None:
    assert llmft("finetune", "+recipe=bert_relation", "smoke=true", "run.dir=run")[0] == 0
    code, _, err = llmft("export", "run", f"export.format={format}", "export.max_loss=1", "run.dir=out")
    assert code == 0, err
    texts = ["predict.text=tavo <e1>smith</e1> osk <e2>blade</e2>"]
    first, second = (json.loads(llmft("predict", source, *texts)[1]) for source in ("run", "out"))
    assert second["scores"] == pytest.approx(first["scores"], abs=1e-5)
