"""Entities by the commands: every form of input, streams, a frozen encoder, an adapter, what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str | bytes], Path]
TEXT = "Barack Obama visited 北京!"
TOKENS = ["Barack", "Obama", "visited", "北", "京", "!"]


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def spans_file(rows: int) -> str:
    """Texts with spans, in columns of names of their own."""
    found = ({"内容": f"Ann {i} met 李{i}.", "found": [{"start": 0, "end": 3, "label": "人"}]} for i in range(rows))
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A run that was trained on words, and one on texts."""
    from llmft.cli import main

    folder = tmp_path_factory.mktemp("runs")
    (folder / "a.jsonl").write_text(spans_file(20), encoding="utf-8")
    words = ("finetune", "+recipe=bert_ner", "smoke=true", "trainer.max_steps=1", "optimizer.lr=0.01")
    columns = ("dataset.columns.text=内容", "dataset.columns.spans=found")
    assert main([*words, f"run.dir={folder}/words"]) == 0
    assert main([*words, "dataset=json", f"dataset.train={folder}/a.jsonl", *columns, f"run.dir={folder}/texts"]) == 0
    return {name: str(folder / name) for name in ("words", "texts")}


@pytest.mark.parametrize("run", ["words", "texts"])
def test_every_form_of_input_is_answered_alike(run: str, runs: dict[str, str], llmft: Run, write: Write) -> None:
    write("a.txt", f"{TEXT}\n")
    write("a.conll", "-DOCSTART- O\n\n" + "".join(f"{token}\tO\n" for token in TOKENS))
    write("words.conll", "\n".join(TOKENS) + "\n")
    write("a.jsonl", json.dumps({"tokens": TOKENS}) + "\n")
    write("a.csv", f'tokens\n"{" ".join(TOKENS)}"\n')
    found = {}
    for word in (
        f"predict.text={TEXT}",
        *(f"predict.input=a.{end}" for end in ("txt", "conll", "jsonl", "csv")),
        "predict.input=words.conll",
    ):
        code, out, err = llmft("predict", runs[run], word)
        assert code == 0, err
        (found[word],) = lines(out)
    text, conll = found[f"predict.text={TEXT}"], found["predict.input=a.conll"]
    assert (text["tokens"], conll["id"], found["predict.input=words.conll"]["id"]) == (
        TOKENS,
        "a.conll:3",
        "words.conll:1",
    )
    assert len({json.dumps([answer["tokens"], answer["tags"]]) for answer in found.values()}) == 1
    # In a text the letters are counted as they stand; words have a space between them.
    for answer, whole in ((text, TEXT), (conll, " ".join(TOKENS))):
        assert answer["answer"], "the model says something"
        for entity in answer["answer"]:
            assert whole[entity["start"] : entity["end"]] == entity["text"]
            assert 0 < entity["score"] <= 1


def test_bad_rows_are_errors_and_others_are_answered(runs: dict[str, str], llmft: Run, write: Write) -> None:
    rows = [{"tokens": TOKENS}, {"tokens": [1]}, {"tokens": []}, {"words": ["a"]}, {"text": TEXT}]
    write("a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    code, out, _ = llmft("predict", runs["words"], "predict.input=a.jsonl")
    assert code == 0
    found = lines(out)
    assert [answer.get("error", "") for answer in found] == [
        "",
        "tokens is [1], not a list of texts",
        "has an empty text",
        "this row has no column 'tokens' or 'text'; it has words. Write dataset.columns.tokens=COLUMN.",
        "",
    ]
    assert found[0]["tags"] == found[4]["tags"]
    write("b.conll", b"Ann\nBob\n\n\xff\n")
    _, out, _ = llmft("predict", runs["words"], "predict.input=b.conll")
    assert [(answer["id"], answer.get("error")) for answer in lines(out)] == [
        ("b.conll:1", None),
        ("b.conll:4", "is not utf-8; it looks like cp1252: write dataset.encoding=cp1252"),
    ]


def test_columns_that_can_be_kept(runs: dict[str, str], llmft: Run) -> None:
    row = "predict.row={tokens: [Ann, ran], tags: [O, O], page: 7}"
    code, _, err = llmft("predict", runs["words"], row, "predict.keep=[tags]")
    assert code == 2
    assert "tags is already a field of each answer" in err
    code, out, err = llmft("predict", runs["words"], row, "predict.keep=[page]")
    assert code == 0, err
    assert lines(out)[0]["page"] == "7"


def test_predictions_say_what_is_right(runs: dict[str, str]) -> None:
    for name, text in (("texts", "Ann"), ("words", None)):
        for row in lines((Path(runs[name]) / "predictions/test.jsonl").read_text(encoding="utf-8")):
            for entity in (*row["label"], *row["answer"]):
                assert row["input"][entity["start"] : entity["end"]] == entity["text"]
            assert text is None or [entity["text"] for entity in row["label"]] == [text]
    page = (Path(runs["texts"]) / "report.html").read_text(encoding="utf-8")
    assert "Ann (人)" in page
    assert "wrong or missed" in page
    assert "dataset=json dataset.test=YOUR.jsonl" in (Path(runs["texts"]) / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "words",
    [
        ("dataset.streaming=true", "trainer.workers=0"),
        ("model.freeze=encoder",),
        ("adapter=lora",),
        ("dataset.clean.duplicates=first",),
        ("dataset.folds=2", "dataset.fold=1", "dataset.test=null"),
    ],
    ids=lambda words: words[0],
)
def test_what_else_training_can_do(words: tuple[str, ...], llmft: Run, write: Write, here: Path) -> None:
    for name, first in (("train", 0), ("dev", 40), ("test", 50)):
        rows = range(first, first + (40 if name == "train" else 10))
        write(f"{name}.conll", "".join(f"Ann{i}\tB-per\nLee\tI-per\nran\tO\n{i}\tO\n\n" for i in rows))
    files = ("dataset=conll", "dataset.train=train.conll", "dataset.validation=dev.conll", "dataset.test=test.conll")
    code, out, err = llmft("finetune", "+recipe=bert_ner", "smoke=true", *files, *words, "run.dir=run")
    assert code == 0, err
    if words == ("model.freeze=encoder",):
        assert "the frozen encoder runs in every epoch: its head reads more than one vector of a row" in out
    metrics = json.loads((here / "run/metrics.json").read_text())
    assert metrics["test"]["per_class"]["per"]["support"] > 0


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("eval", "RUN", "OTHER", "ensemble=mean"), "token_classification has others"),
        (("finetune", "+recipe=bert_ner", "dataset.clean.unicode=true"), "these rows have theirs inside tokens, tags"),
        (("finetune", "+recipe=bert_ner", "dataset.clean.quality=true"), "these rows have theirs inside tokens, tags"),
        (("finetune", "+recipe=bert_ner", "dataset.clean.min_characters=2"), "have theirs inside tokens, tags"),
        (("finetune", "+recipe=bert_ner", "dataset.clean.near_duplicates=0.9"), "have theirs inside tokens, tags"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_is_refused(words: tuple[str, ...], what: str, runs: dict[str, str], llmft: Run) -> None:
    named = {"RUN": runs["words"], "OTHER": runs["texts"]}
    code, _, err = llmft(*(named.get(word, word) for word in words))
    assert code == 2
    assert what in err


def test_wnut_can_be_read(shared: Callable[[str], Path]) -> None:
    from llmft.data.annotated import open_conll, spans, to_bio
    from llmft.data.source import Table

    file = shared("wnut17") / "train.conll"
    whole = Table()
    for _, table in open_conll(file, file.name, "utf-8").chunks():
        whole.extend(table)
    entities = sum(len(spans(to_bio(tags))) for tags in whole.columns["tags"])
    assert (len(whole), sum(map(len, whole.columns["tokens"])), entities) == (3394, 62730, 1975)
