"""`llmft runs`: the list, the comparison of made predictions, what is removed and freed. No model is trained here."""

import json
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from llmft.config.load import load
from llmft.data.cache import Entry
from llmft.runs.folder import as_recipe
from llmft.runs.listing import leftovers, listing
from llmft.runs.lock import held
from llmft.schema.config import Config

Run = Callable[..., tuple[int, str, str]]
Make = Callable[..., Path]


@cache
def configured(recipe: str, words: tuple[str, ...]) -> Config:
    return load("finetune", [f"+recipe={recipe}", *words])


@pytest.fixture
def make(here: Path) -> Make:
    """A run folder with these answers to its test rows: (input, label, answer)."""

    def run(
        folder: str,
        rows: list[tuple[str, Any, Any]] | None = None,
        words: tuple[str, ...] = (),
        status: str = "done",
        scores: dict[str, float] | None = None,
        command: str = "finetune",
        recipe: str = "bert_textcls",
    ) -> Path:
        path = here / folder
        (path / "checkpoints/checkpoint-1").mkdir(parents=True)
        (path / "checkpoints/checkpoint-1/optimizer.pt").write_bytes(b"x" * 1000)
        config = configured(recipe, words).model_copy(update={"command": command})
        (path / "config.yaml").write_text(as_recipe(config))
        (path / "manifest.json").write_text(json.dumps({"status": status, "command": command}))
        if rows is not None:
            lines = [
                {"id": f"t.csv:{i}", "input": row[0], "label": row[1], "answer": row[2]}
                for i, row in enumerate(rows, 2)
            ]
            (path / "predictions").mkdir()
            (path / "predictions/test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        if status == "done":
            (path / "model").mkdir()
            (path / "metrics.json").write_text(
                json.dumps({"train": {"seconds": 1.0}, "test": scores or {"accuracy": 0.5}})
            )
            event = {"step": 1, "split": "train", "loss": 0.5}
            (path / "events.jsonl").write_text(json.dumps(event) + "\n")
        return path

    return run


def answers(both: int, first: int, second: int, neither: int) -> tuple[list[Any], list[Any]]:
    """Rows of which `both` are right in two runs, and so many in one of them alone."""
    right = [(True, True)] * both + [(True, False)] * first + [(False, True)] * second + [(False, False)] * neither
    runs = [[(f"text {n}", "a", "a" if pair[k] else "b") for n, pair in enumerate(right)] for k in (0, 1)]
    return runs[0], runs[1]


def compared(llmft: Run, *words: str) -> dict[str, Any]:
    code, out, err = llmft("runs", "compare", *words, "--json")
    assert code == 0, err
    facts: dict[str, Any] = json.loads(out)["result"]
    return facts


def test_twenty_to_ten_is_no_difference(llmft: Run, make: Make) -> None:
    one, other = answers(250, 20, 10, 20)
    make("outputs/a/20260101-000000-0000", one, ("optimizer.lr=1e-5",), scores={"accuracy": 0.9, "loss": 0.3})
    make("outputs/b/20260101-000000-0000", other, ("optimizer.lr=3e-5",), scores={"accuracy": 0.8667, "loss": 0.2})
    code, out, err = llmft("runs", "compare", "a", "b")
    assert (code, err) == (0, "")
    assert (
        "20 rows right only in the first, 10 only in the second; p = 0.099 (exact McNemar): no difference that these rows can show"
        in out
    )
    facts = compared(llmft, "a", "b")
    (test,) = facts["tests"]
    assert (facts["rows"], test["metric"], test["only_first"], test["only_second"]) == (300, "accuracy", 20, 10)
    assert test["p"] == pytest.approx(0.0987371, abs=1e-6)
    assert test["worse"] is None
    assert test["scores"] == pytest.approx([0.9, 260 / 300])
    assert facts["config"] == {"optimizer.lr": [1e-5, 3e-5]}
    assert facts["scores"] == {"test": {"accuracy": [0.9, 0.8667], "loss": [0.3, 0.2]}}
    page = Path(facts["page"]).read_text()
    assert all(
        text in page for text in ("optimizer.lr", "3e-05", "p = 0.099", "text 250", "30 rows", "train loss by step")
    )


def test_nine_to_none_names_the_worse(llmft: Run, make: Make) -> None:
    one, other = answers(280, 9, 0, 11)
    make("outputs/a/20260101-000000-0000", one)
    make("outputs/b/20260101-000000-0000", other)
    code, out, _ = llmft("runs", "compare", "a", "b", "html=mine.html")
    assert (code, Path("mine.html").is_file()) == (0, True)
    assert "p = 0.0039 (exact McNemar): b/20260101-000000-0000 is worse" in out
    (test,) = compared(llmft, "b", "a")["tests"]
    assert (test["worse"], test["p"]) == ("b/20260101-000000-0000", pytest.approx(2 / 512))
    code, _, err = llmft("runs", "compare", "a", "b", "html=mine.html")
    assert (code, "is there already" in err) == (2, True)


def test_three_runs_are_three_tests_each_adjusted(llmft: Run, make: Make) -> None:
    one, other = answers(280, 9, 0, 11)
    for name, rows in (("a", one), ("b", other), ("c", one)):
        make(f"outputs/{name}/20260101-000000-0000", rows)
    tests = compared(llmft, "a", "b", "c")["tests"]
    assert [test["p_adjusted"] for test in tests] == pytest.approx([6 / 512, 1.0, 6 / 512])


OTHER = {
    "another order": lambda rows: rows[::-1],
    "the first ones": lambda rows: rows[:-1],
    "another text": lambda rows: [*rows[:5], ("another", "a", "a"), *rows[6:]],
    "another label": lambda rows: [*rows[:5], (rows[5][0], "b", "a"), *rows[6:]],
}
SAID = {
    "another order": "the same ones in another order",
    "the first ones": "299 and not 300",
    "another text": "row 6 (t.csv:7) is not that of the other",
    "another label": "row 6",
}


@pytest.mark.parametrize("case", OTHER)
def test_other_rows_are_refused(case: str, llmft: Run, make: Make) -> None:
    one, other = answers(250, 20, 10, 20)
    make("outputs/a/20260101-000000-0000", one)
    make("outputs/b/20260101-000000-0000", OTHER[case](other))
    code, _, err = llmft("runs", "compare", "a", "b")
    assert code == 2
    assert "has answered other rows of test than outputs/a/20260101-000000-0000" in err
    assert SAID[case] in err


def test_numbers_are_compared_by_a_bootstrap(llmft: Run, make: Make) -> None:
    words = ("task.problem=regression",)
    rows = [(f"text {n}", float(n), float(n)) for n in range(200)]
    make("outputs/a/20260101-000000-0000", [(t, y, a + 0.1 * (n % 5)) for n, (t, y, a) in enumerate(rows)], words)
    make("outputs/b/20260101-000000-0000", [(t, y, a + 0.1 * (n % 7)) for n, (t, y, a) in enumerate(rows)], words)
    (test,) = compared(llmft, "a", "b")["tests"]
    # Mean errors: 0.2 exactly, and (28 whole sevens of 2.1, then 0 + 0.1 + 0.2 + 0.3) / 200 = 0.297.
    assert test["scores"] == pytest.approx([0.2, 0.297])
    assert (test["metric"], test["test"]) == ("mae", "paired bootstrap")
    low, high = test["interval"]
    assert low < 0.097 < high
    assert test["worse"] == "b/20260101-000000-0000", "less is better"
    assert test["p"] < 0.001


def test_what_can_not_be_compared_is_said(llmft: Run, make: Make) -> None:
    make("outputs/a/20260101-000000-0000", answers(5, 0, 0, 0)[0])
    make("outputs/none/20260101-000000-0000")
    numbers = [(f"text {n}", "a", 1.0) for n in range(5)]
    make("outputs/numbers/20260101-000000-0000", [(t, 1.0, a) for t, _, a in numbers], ("task.problem=regression",))
    for words, what in {
        ("a",): "needs two runs or more",
        ("a", "a"): "name the same run twice",
        ("a", "aa"): "no run of this name",
        ("a", "none"): "no answers to the same split",
        ("a", "numbers"): "other rows of test",
        ("a", "none", "htm=x"): "Did you mean html?",
        ("a", "none", "--page"): "no such flag",
    }.items():
        code, _, err = llmft("runs", "compare", *words)
        assert (code, what in err) == (2, True), (words, err)


@pytest.fixture
def several(make: Make) -> None:
    make("outputs/tickets/20260101-000000-0000", scores={"accuracy": 0.7, "loss": 0.3})
    make("outputs/tickets/20260103-000000-0000", scores={"accuracy": 0.9, "loss": 0.6})
    make("outputs/tickets/sweep-1/lr-1", scores={"accuracy": 0.8, "loss": 0.1})
    os.utime("outputs/tickets/sweep-1/lr-1/config.yaml", (1767312000, 1767312000))  # 2 January 2026
    make("outputs/评论/20260104-000000-0000", status="failed")
    make("outputs/评论/20260105-000000-0000", command="eval", scores={"accuracy": 0.6})


def test_runs_are_found_sorted_and_described(llmft: Run, several: None) -> None:
    def runs(*words: str) -> list[str]:
        code, out, err = llmft("runs", *words, "--json")
        assert code == 0, err
        return [one["run"] for one in json.loads(out)["result"]]

    newest = ["评论/20260105-000000-0000", "评论/20260104-000000-0000", "tickets/20260103-000000-0000"]
    assert runs() == [*newest, "tickets/sweep-1/lr-1", "tickets/20260101-000000-0000"]
    best = ["tickets/20260103-000000-0000", "tickets/sweep-1/lr-1", "tickets/20260101-000000-0000"]
    assert runs("name=tickets", "sort=accuracy") == best
    assert runs("sort=loss")[:3] == [
        "tickets/sweep-1/lr-1",
        "tickets/20260101-000000-0000",
        "tickets/20260103-000000-0000",
    ]
    assert runs("status=failed") == runs("评论", "finetune") == ["评论/20260104-000000-0000"]
    assert runs("command=eval") == ["评论/20260105-000000-0000"]
    assert runs("nothing") == []
    code, out, _ = llmft("runs", "tickets")
    assert (code, "accuracy 0.9000" in out, "3 runs, " in out) == (0, True, True)
    lines = llmft("runs")[1].splitlines()[:6]
    wide = [sum(2 if ord(char) > 0x2E80 else 1 for char in line[: line.index("2026-01")]) for line in lines[1:]]
    assert len(set(wide)) == 1, "columns stand under each other in any script"
    assert "2026-01-04 00:00" in lines[2]
    code, _, err = llmft("runs", "sort=acuracy")
    assert (code, "Did you mean sort=accuracy?" in err) == (2, True)
    assert "Did you mean status?" in llmft("runs", "stats=done")[2]


def test_a_list_needs_no_torch_and_reads_broken_folders(make: Make, several: None, here: Path) -> None:
    (here / "outputs/tickets/20260101-000000-0000/manifest.json").write_text("{")
    (here / "outputs/tickets/20260103-000000-0000/config.yaml").write_text("a: [")
    found = listing(Path("outputs"), [], {}, "name")
    assert len(found) == 5
    assert {one["status"] for one in found} == {"killed", "done", "failed"}


def test_a_run_is_removed_once_a_person_agrees(llmft: Run, several: None, here: Path) -> None:
    run = "tickets/20260101-000000-0000"
    code, out, err = llmft("runs", "remove", run)
    assert (code, " kB" in out, "Write yes=true to confirm" in err) == (2, True, True)
    assert (here / "outputs" / run).is_dir()
    assert "is not the folder of one run" in llmft("runs", "remove", "tickets", "yes=true")[2]
    with held(here / "outputs" / run, "a test"):
        assert "is in use by a running process" in llmft("runs", "remove", run, "yes=true")[2]
    code, out, _ = llmft("runs", "remove", run, "--yes")
    assert (code, "removed, " in out, (here / "outputs" / run).exists()) == (0, True, False)
    (here / "outputs/tickets/sweep-1/summary.json").write_text("{}")
    assert llmft("runs", "remove", "tickets/sweep-1", "yes=true")[0] == 0
    assert [folder.name for folder in (here / "outputs/tickets").iterdir()] == ["20260103-000000-0000"]


def test_clean_says_and_then_frees(llmft: Run, make: Make, several: None, here: Path) -> None:
    shutil.rmtree(here / "outputs/评论/20260104-000000-0000")
    make("outputs/kept/20260101-000000-0000", words=("trainer.keep_finished=true",))
    old = make("outputs/old/20200101-000000-0000", status="stopped")
    half = here / "outputs/old/.20200101-000000-0000-0123abcd"
    mine = here / "outputs/old/.ipynb_checkpoints"
    for folder in (half, mine):
        folder.mkdir()
        os.utime(folder, (0, 0))
    entry = Entry("prepared", {"a": "b"})
    assert entry.publish(lambda folder: None)
    found = leftovers(Path("outputs"))
    kinds = [one["kind"] for one in found]
    assert (kinds.count("checkpoints"), kinds.count("unfinished"), kinds.count("cache")) == (4, 2, 1)
    assert all(one["bytes"] == 1000 for one in found if one["kind"] == "checkpoints")
    code, out, _ = llmft("runs", "clean")
    assert (code, "nothing was removed" in out) == (0, True)
    assert leftovers(Path("outputs")) == found
    assert llmft("runs", "clean", "checkpoints", "yes=true")[0] == 0
    assert {one["kind"] for one in leftovers(Path("outputs"))} == {"unfinished", "cache"}
    with held(old, "a test"):
        assert [Path(one["folder"]) for one in leftovers(here / "outputs") if one["kind"] == "unfinished"] == [half]
    assert llmft("runs", "clean", "--yes")[0] == 0
    assert leftovers(Path("outputs")) == []
    assert (old.exists(), half.exists(), mine.exists(), entry.folder.exists()) == (False, False, True, False)
    assert (here / "outputs/kept/20260101-000000-0000/checkpoints").is_dir()
    assert llmft("runs", "clean")[1] == "nothing to free\n"
    assert "Did you mean cache?" in llmft("runs", "clean", "cach")[2]
    code, _, err = llmft("runs", "clean", "days=x")
    assert (code, "must be a number, got 'x'" in err) == (2, True)
