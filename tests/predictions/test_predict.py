"""`llmft predict RUN`: every way in and out, bad rows among good ones, and the answers of eval."""

import csv
import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from llmft.cli import main
from llmft.predictions.answering import Answering

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str | bytes], Path]
Piped = Callable[[bytes], None]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A finished run of each kind. The texts have columns of their own."""
    folder = tmp_path_factory.mktemp("runs")
    rows = [(f"tavo {'lumo' if i % 2 else 'mirk'} {i}", "good" if i % 2 else "bad", f"osk {i}") for i in range(40)]
    for name, header in {"text": "Body,Class,x", "pair": "text,label,text_pair"}.items():
        (folder / f"{name}.csv").write_text(f"{header}\n" + "".join(f"{','.join(row)}\n" for row in rows))
    words = {
        "text": [f"dataset.train={folder}/text.csv", "dataset.columns={text: Body, label: Class}"],
        "pair": [f"dataset.train={folder}/pair.csv"],
        "table": [],
    }
    for name, more in words.items():
        recipe = "tabular_mlp" if name == "table" else "bert_textcls"
        data = ["dataset=csv", *more, "dataset.max_overlap=1"] if more else []
        small = ["smoke=true", "trainer.max_steps=2", f"run.dir={folder}/{name}"]
        assert main(["finetune", f"+recipe={recipe}", *small, *data]) == 0
    return {name: str(folder / name) for name in words}


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch, here: Path) -> Piped:
    """Let bytes come by standard input."""

    def pipe(data: bytes) -> None:
        (here / "stdin").write_bytes(data)
        monkeypatch.setattr("sys.stdin", (here / "stdin").open())

    return pipe


def read(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


FILES: dict[str, bytes] = {
    "a.csv": 'Body,more\n很好,1\nlumo,2\n"two\nlines",3\n'.encode(),
    "a.tsv": "more\tBody\n1\t很好\n2\tlumo\n3\ttwo lines\n".encode(),
    "a.jsonl": '{"Body": "很好"}\n\n{"Body": "lumo"}\n{"Body": "two\\nlines"}\n'.encode(),
    "a.json": '[{"Body": "很好"}, {"Body": "lumo"}, {"Body": "two\\nlines"}]'.encode(),
    "a.txt": "\ufeff很好\r\nlumo\r\ntwo lines".encode(),
}
FILES["a.log"] = FILES["a.jsonl"]
PLACES = {
    "a.log": [1, 3, 4],
    "a.csv": [2, 3, 4],
    "a.tsv": [2, 3, 4],
    "a.jsonl": [1, 3, 4],
    "a.json": [1, 2, 3],
    "a.txt": [1, 2, 3],
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_has_the_same_answers(
    name: str, runs: dict[str, str], llmft: Run, write: Write, piped: Piped
) -> None:
    write(name, FILES[name])
    code, out, err = llmft("predict", runs["text"], f"predict.input={name}")
    assert code == 0, err
    unread = "note: columns that are not read: more\n" if name in ("a.csv", "a.tsv") else ""
    assert err == f"{unread}3 rows were answered\n"
    assert [answer["id"] for answer in read(out)] == [f"{name}:{place}" for place in PLACES[name]]
    alone = [read(llmft("predict", runs["text"], f"predict.text={text}")[1])[0] for text in ("很好", "'two lines'")]
    for one, other in zip((read(out)[0], read(out)[2]), alone, strict=True):
        assert one["scores"] == pytest.approx(other["scores"], abs=2e-6)

    piped(FILES[name])
    words = ["predict.input_format=tsv"] if name == "a.tsv" else []
    code, again, err = llmft("predict", runs["text"], *words)
    assert code == 0, err
    for one, other in zip(read(again), read(out), strict=True):
        assert one["id"] == other["id"].replace(name, "stdin")
        assert one["scores"] == pytest.approx(other["scores"], abs=2e-6), "which rows share a batch is up to the pipe"


def test_a_text_is_answered_letter_by_letter(runs: dict[str, str], llmft: Run, write: Write, piped: Piped) -> None:
    texts = ["I paid ${price} for it", "null", "${model.name} was great", "true", "1e3", "[tavo]"]
    write("a.jsonl", "".join(json.dumps({"Body": text}) + "\n" for text in texts))
    piped(b"")
    asked = read(llmft("predict", runs["text"], "predict.input=a.jsonl")[1])
    for text, expected in zip(texts, asked, strict=True):
        for words in ([f"predict.text={text}"], [f"predict.row={json.dumps({'Body': text})}"]):
            code, out, err = llmft("predict", runs["text"], *words)
            assert code == 0, err
            assert read(out)[0]["scores"] == pytest.approx(expected["scores"], abs=2e-6)


def test_parquet(runs: dict[str, str], llmft: Run, here: Path) -> None:
    pyarrow.parquet.write_table(
        pyarrow.table({"Body": ["lumo", None], "id": [7, 8], "x": [float("nan"), 1.0]}), here / "a.parquet"
    )
    code, out, _ = llmft("predict", runs["text"], "predict.input=a.parquet", "predict.keep=[x]")
    assert code == 0
    assert [(answer["id"], answer["x"]) for answer in read(out)] == [(7, None), (8, 1.0)]
    assert read(out)[1]["error"] == "has an empty text"


def test_answers_are_those_of_eval(runs: dict[str, str], llmft: Run, write: Write, here: Path) -> None:
    """To the last digit: the same rows share the same batches."""
    rows = "".join(f"{'bad' if i % 3 else 'good'},{'osk ' * (i % 7)}{i}\n" for i in range(150))
    write("new.csv", "Class,Body\n" + rows)
    assert llmft("eval", runs["text"], "dataset=csv", "dataset.test=new.csv", "run.dir=scored")[0] == 0
    assert llmft("predict", runs["text"], "predict.input=new.csv", "predict.output=answers.jsonl")[:2] == (0, "")
    scored = read((here / "scored/predictions/test.jsonl").read_text())
    answers = read((here / "answers.jsonl").read_text())
    keys = ("id", "answer", "scores")
    assert answers == [{key: row[key] for key in keys} for row in scored]
    assert not (here / "outputs").exists()
    assert not list(here.glob(".*.part"))


def test_answers_for_a_table_are_those_of_eval(runs: dict[str, str], llmft: Run, write: Write, here: Path) -> None:
    rows = "".join(
        f"{i / 7},{'' if i % 5 == 0 else i},{'red' if i % 3 else 'green'},{'heavy' if i % 2 else 'light'}\n"
        for i in range(90)
    )
    write("new.csv", "weight,size,colour,label\n" + rows)
    assert llmft("eval", runs["table"], "dataset=csv", "dataset.test=new.csv", "run.dir=scored")[0] == 0
    scored = read((here / "scored/predictions/test.jsonl").read_text())
    answers = read(llmft("predict", runs["table"], "predict.input=new.csv")[1])
    assert answers == [{key: row[key] for key in ("id", "answer", "scores")} for row in scored]


BAD = {
    b"Body,x\nlumo,1\nshort\nlumo,2\n": {"stdin:3": "1 field, fewer than the 2 of the header"},
    b'Body,x\nlumo,1\n"open,2\nlumo,3\n': {"stdin:3": "a quote that opens here is never closed"},
    b"Body,x\nlumo,1\n\xff\xfe,2\n": {"stdin:3": "is not utf-8"},
    b"Body,x\nlumo,1\n  ,2\n": {"stdin:3": "has an empty text"},
    b"lumo\na\0b\n": {"stdin:2": "holds a NUL character"},
    b'{"Body": "lumo"}\n{"Body": 1}\n{"body": "x"}\n{"Body": "x"\n[]\n{"Body": "\\ud800"}\n': {
        "stdin:2": "Body is 1, not a text",
        "stdin:3": "this row has no column 'Body'; it has body. Did you mean dataset.columns.text=body?",
        "stdin:4": "is not JSON: Expecting ',' delimiter at column 13",
        "stdin:5": "is not a JSON object",
        "stdin:6": "holds half of a surrogate pair",
    },
}


@pytest.mark.parametrize("data", BAD)
def test_a_bad_row_is_an_error_and_the_others_are_answered(
    data: bytes, runs: dict[str, str], llmft: Run, piped: Piped
) -> None:
    piped(data)
    code, out, err = llmft("predict", runs["text"])
    errors = {answer["id"]: answer["error"] for answer in read(out) if "error" in answer}
    assert code == 0, err
    assert list(errors) == list(BAD[data])
    assert all(errors[place].startswith(what) for place, what in BAD[data].items()), errors
    assert f"answered, {len(errors)} could not be, such as stdin:" in err
    assert any("answer" in answer for answer in read(out))


def test_bad_rows_of_a_table(runs: dict[str, str], llmft: Run, piped: Piped) -> None:
    piped(b'{"weight": 1, "size": null, "colour": "red"}\n{"weight": "x", "size": 1, "colour": 1}\n{"weight": 1}\n')
    code, out, _ = llmft("predict", runs["table"])
    first, second, third = read(out)
    assert code == 0
    assert first["answer"] in ("heavy", "light")
    assert second["error"] == "weight is 'x', not a number (this row)"
    assert third["answer"] in ("heavy", "light"), "a key that JSON leaves out is a missing value, as in training"
    code, alone, _ = llmft("predict", runs["table"], "predict.row={weight: 1, size: null, colour: red}")
    assert read(alone)[0] == {**first, "id": "row"}


@pytest.mark.parametrize("odd", ["[1]", '"x"', '{"a": 1}', "true", "null"])
def test_an_odd_cell_costs_its_own_row_alone(odd: str, runs: dict[str, str], llmft: Run, piped: Piped) -> None:
    """Wherever it stands, and whatever types the others have."""
    good = ['{"weight": 1, "size": 2}', '{"weight": "1.5", "size": 2}', '{"weight": 2.5, "size": 1}']
    lines = [f'{{"weight": {odd}, "size": 2}}', *good, f'{{"weight": {odd}, "size": 1}}', *good]
    piped("\n".join(lines).encode())
    answers = read(llmft("predict", runs["table"])[1])
    for place in (0, 1, 4):
        piped(lines[place].encode())
        alone = read(llmft("predict", runs["table"])[1])[0]
        assert ("error" in answers[place], answers[place].get("answer")) == ("error" in alone, alone.get("answer"))
    assert not any("error" in answers[place] for place in (1, 2, 3, 5, 6, 7))


def test_csv_answers_have_a_column_a_score(runs: dict[str, str], llmft: Run, write: Write, here: Path) -> None:
    write("new.csv", 'Body,id,note\n,7,"a, b"\nlumo,,c\nosk,9,很好\n')
    words = ("predict.input=new.csv", "predict.keep=[note, id]")
    assert llmft("predict", runs["text"], *words, "predict.output=a.CSV")[0] == 0
    rows = list(csv.DictReader((here / "a.CSV").open(encoding="utf-8", newline="")))
    assert list(rows[0]) == ["id", "note", "answer", "scores.bad", "scores.good", "error"]
    assert [row["id"] for row in rows] == ["7", "new.csv:3", "9"]
    assert [row["note"] for row in rows] == ["a, b", "c", "很好"]
    assert (rows[0]["error"], rows[0]["answer"], rows[1]["error"]) == ("has an empty text", "", "")
    same = [answer for answer in read(llmft("predict", runs["text"], *words)[1]) if "scores" in answer]
    assert [float(row["scores.good"]) for row in rows[1:]] == [answer["scores"]["good"] for answer in same]


def test_pairs(runs: dict[str, str], llmft: Run, piped: Piped) -> None:
    code, out, _ = llmft("predict", runs["pair"], "predict.text=lumo", "predict.text_pair=osk")
    assert code == 0
    piped(b"text,text_pair\nlumo,osk\n")
    assert read(llmft("predict", runs["pair"])[1])[0]["scores"] == read(out)[0]["scores"]
    code, _, err = llmft("predict", runs["pair"], "predict.text=lumo")
    assert code == 2
    assert "predict.input  the input has no second text, and the model was trained with one" in err


def test_columns_can_be_named(runs: dict[str, str], llmft: Run, piped: Piped) -> None:
    piped(b"words;y\nlumo;1\n")
    assert llmft("predict", runs["text"], "dataset.columns.text=words")[0] == 0


def test_a_pipe_is_utf_8_whatever_the_training_files_were(
    runs: dict[str, str], llmft: Run, piped: Piped, write: Write, here: Path
) -> None:
    shutil.copytree(runs["text"], here / "run")
    config = here / "run" / "config.yaml"
    config.write_text(
        config.read_text(encoding="utf-8").replace("encoding: utf-8", "encoding: gb18030"), encoding="utf-8"
    )
    text = '{"Body": "lumo 太差了，真的太差了"}\n'
    piped(text.encode())
    code, out, _ = llmft("predict", "run")
    assert code == 0
    wanted = read(out)[0]["scores"]
    write("gb.jsonl", text.encode("gb18030"))
    words = ("predict.input=gb.jsonl", "predict.output=a.csv", "predict.encoding=utf-8-sig", "predict.keep=[Body]")
    assert llmft("predict", "run", *words)[0] == 0, "a file that is not UTF-8 is what the training files were"
    assert (here / "a.csv").read_bytes().startswith("\ufeffid,Body,answer".encode())
    (row,) = csv.DictReader((here / "a.csv").open(encoding="utf-8-sig", newline=""))
    assert (row["Body"], float(row["scores.good"])) == ("lumo 太差了，真的太差了", wanted["good"])
    piped(text.encode("gb18030"))
    code, _, err = llmft("predict", "run")
    assert (code, "stdin:1 is not utf-8; it looks like gb18030: write dataset.encoding=gb18030" in err) == (1, True)
    piped(text.encode("gb18030"))
    assert read(llmft("predict", "run", "dataset.encoding=gb18030")[1])[0]["scores"] == wanted


REFUSED = {
    "predict.input=none.csv": "predict.input  must be a file, got none.csv, which does not exist",
    "predict.input=.": "predict.input  must be a file, got the folder .",
    "predict.text=a predict.row={a:1}": "only one input can be answered, got predict.text and predict.row",
    "predict.text_pair=b": "needs the first text of the pair (command line). Write predict.text=TEXT too.",
    "predict.input_format=parquet": "parquet can only be read from a file",
    "predict.text=a predict.keep=[error]": "error is already a field of each answer",
    "predict.input=new.csv predict.keep=[c]": "predict.keep  the input has no column 'c'; it has a, b",
    "predict.input=new.csv": "the input has no column 'Body'; it has a, b. Write dataset.columns.text=COLUMN.",
    "predict.input=twice.csv": "two columns are called 'a'",
    "predict.input=gb.csv": "gb.csv:1  is not utf-8; it looks like gb18030: write dataset.encoding=gb18030",
    "predict.text=a predict.output=a.csv predict.encoding=nonsense": "predict.encoding  there is no encoding nonsense",
    "predict.input=cut.parquet": "is not a complete parquet file",
    "predict.input=cut.json": "is not JSON: ",
    "predict.text=a predict.output=new.csv": "new.csv is there already; nothing is written over",
    "predict.text=a predict.output=no/a.csv": "there is no folder no",
    "dataset=csv dataset.test=new.csv": "is fixed by training; predict accepts predict, generation, dataset.columns",
    "run.dir=x predict.text=a": "is fixed by training; predict accepts",
    "hardware.processes=2 predict.text=a": "predict works in one process",
}


@pytest.mark.parametrize("words", REFUSED)
def test_a_wish_that_cannot_be_met_is_explained(words: str, runs: dict[str, str], llmft: Run, write: Write) -> None:
    write("new.csv", "a,b\n1,2\n")
    write("twice.csv", "a,a\n1,2\n")
    write("gb.csv", "内容,类别\n".encode("gb18030"))
    write("cut.parquet", b"PAR1")
    write("cut.json", '[{"Body": ')
    code, out, err = llmft("predict", runs["text"], *words.split())
    assert (code, out) == (2, ""), err
    assert REFUSED[words] in err


def test_a_table_is_no_text(runs: dict[str, str], llmft: Run, write: Write) -> None:
    write("a.txt", "lumo\n")
    for words, what in {
        "predict.text=a": "tabular reads rows with columns, not a text. Write predict.row={COLUMN: VALUE, ...}.",
        "predict.input=a.txt": "this run reads tables, and txt has no columns",
        "predict.row={colours: red}": "predict.input  has no column 'weight', 'size', 'colour', which training had",
    }.items():
        code, _, err = llmft("predict", runs["table"], words)
        assert code == 2
        assert what in err


def test_no_good_row_is_a_failure_and_no_row_is_none(
    runs: dict[str, str], llmft: Run, piped: Piped, here: Path
) -> None:
    piped(b'{"Body": ""}\n{}\n')
    code, _, err = llmft("predict", runs["text"], "predict.output=a.csv")
    assert code == 1
    assert "failed: none of 2 rows could be answered, such as stdin:1 has an empty text" in err
    assert (here / "a.csv").read_text().splitlines()[:2] == ["id,error", "stdin:1,has an empty text"]
    piped(b"")
    assert llmft("predict", runs["text"])[:2] == (0, "")


def test_a_signal_leaves_no_part_of_a_file(
    runs: dict[str, str], llmft: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Answering, "answer", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # else a mistake ends the tests
    try:
        code, _, err = llmft("predict", runs["text"], "predict.text=good", "predict.output=a.jsonl")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (code, err) == (130, "\ninterrupted\n")
    assert list(here.iterdir()) == []


def test_nobody_waits_at_a_terminal_without_a_word(
    runs: dict[str, str], llmft: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal())
    code, _, err = llmft("predict", runs["text"])
    assert code == 2
    assert "predict.input  must be given" in err


def test_the_first_answer_comes_before_the_input_ends(runs: dict[str, str]) -> None:
    """And a reader that has seen enough ends it without a word."""
    pipes = [os.pipe() for _ in range(3)]
    ours = [pipes[0][1], pipes[1][0], pipes[2][0]]
    if (child := os.fork()) == 0:  # a new Python would import torch for 7 s
        try:
            for end in ours:
                os.close(end)
            for number, end in enumerate((pipes[0][0], pipes[1][1], pipes[2][1])):
                os.dup2(end, number)
                os.close(end)
            sys.stdin, sys.stdout, sys.stderr = (open(n, mode) for n, mode in enumerate("rww"))  # noqa: PTH123, SIM115
            code = main(["predict", runs["text"]])
            sys.stderr.flush()
            os._exit(code)
        finally:
            os._exit(9)
    for end in (pipes[0][0], pipes[1][1], pipes[2][1]):
        os.close(end)
    with open(ours[0], "wb", buffering=0) as stdin, open(ours[2], "rb") as stderr:  # noqa: PTH123
        with open(ours[1], "rb") as stdout:  # noqa: PTH123
            stdin.write("很好\n".encode())
            assert json.loads(stdout.readline())["id"] == "stdin:1"
        stdin.write(b"lumo\n")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
        assert stderr.read() == b"reading standard input as txt\n"


def test_a_file_is_whole_or_is_not_there(
    runs: dict[str, str], llmft: Run, write: Write, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmft.predictions.answering import Answering

    def fails(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Answering, "answer", fails)
    code, _, err = llmft("predict", runs["text"], "predict.text=a", "predict.output=a.jsonl")
    assert (code, err) == (1, "failed: a.jsonl: No space left on device\n")
    assert list(here.iterdir()) == []


def test_a_column_that_a_row_leaves_out_is_missing(runs: dict[str, str], llmft: Run, piped: Piped) -> None:
    whole = "predict.row={weight: 1.5, size: null, colour: red}"
    code, out, err = llmft("predict", runs["table"], whole)
    assert (code, err) == (0, "")
    same = read(out)[0]["scores"]
    for row in (
        "{weight: 1.5, colour: red}",
        '{"colour": "red", "weight": 1.5}',
        "{weight: '1.50', colour: ' red', sise: 3}",
    ):
        code, out, err = llmft("predict", runs["table"], f"predict.row={row}")
        assert (code, read(out)[0]["scores"]) == (0, same)
        typed = "; training had no column 'sise'" if "sise" in row else ""
        assert err == f"note: the input has no column 'size', which counts as missing{typed}\n"
    piped(b'{"weight": 1.5, "colour": "red"}\n{"weight": "1.5", "colour": "red", "size": "NA"}\n')
    code, out, err = llmft("predict", runs["table"])
    assert [answer["scores"] for answer in read(out)] == [pytest.approx(same, abs=2e-6)] * 2
    assert "note" not in err, "one of the rows has it"


def test_new_values_and_rows_of_other_columns_are_said(runs: dict[str, str], llmft: Run, write: Write) -> None:
    code, _, err = llmft("predict", runs["table"], "predict.row={weight: 1, size: 2, colour: 绿}")
    new = "colour has the new value '绿'; those of training are"
    assert (code, err.partition(" 'red'")[0].partition(" 'blue'")[0]) == (0, f"note: the input: {new}")
    code, _, err = llmft("predict", runs["table"], "predict.row={farbe: red}")
    assert (code, "has no column 'weight', 'size', 'colour', which training had" in err) == (2, True)
    write("new.csv", "weight,colour\n1,red\n")
    code, _, err = llmft("predict", runs["table"], "predict.input=new.csv")
    assert (code, "has no column 'size', which training had" in err) == (2, True)
