"""`dataset.split.by`: the latest rows are test, and nothing of a later split is as early as anything of an earlier one."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmft import tasks
from llmft.config.load import load as compose
from llmft.data.pipeline import Data, load
from llmft.data.splitting import by_time
from llmft.schema.problem import UserError

Write = Callable[[str, str], Path]

SHARES = {"validation": 0.2, "test": 0.2}
CASES = {
    "ten different times": ([3, 1, 2, 5, 4, 9, 8, 7, 6, 0], [1, 2, 0, 4, 3, 9], [8, 7], [6, 5]),
    "one time is half of the rows": ([1, 2, 3, 4, 5, 5, 5, 5, 5, 6], [0, 1, 2, 3], [4, 5, 6, 7, 8], [9]),
    "all but the first are alike": ([1, 2, 2, 2, 2, 2, 2, 2, 2, 2], [0], [], [1, 2, 3, 4, 5, 6, 7, 8, 9]),
}


@pytest.mark.parametrize("name", CASES)
def test_rows_by_hand(name: str) -> None:
    times, train, validation, test = CASES[name]
    found = by_time(times, SHARES)
    assert found == {"train": sorted(train), "validation": sorted(validation), "test": sorted(test)}


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.floats(0.01, 0.4), st.floats(0.01, 0.4))
@settings(max_examples=60, deadline=None)
def test_no_split_is_as_early_as_one_before_it(times: list[float], validation: float, test: float) -> None:
    found = by_time(times, {"validation": validation, "test": test})
    assert sorted(row for rows in found.values() for row in rows) == list(range(len(times)))
    assert found["train"]
    spans = [[times[row] for row in found[name]] for name in ("train", "validation", "test") if found[name]]
    for earlier, later in pairwise(spans):
        assert max(earlier) < min(later)


def loaded(*words: str) -> Data:
    config = compose("finetune", ["dataset=csv", "dataset.train=t.csv", *words])
    return load(config.dataset, tasks.build(config.task))


@pytest.mark.parametrize("form", ["%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y %H:%M", "%j"])
def test_dates_of_any_form_and_numbers(form: str, write: Write) -> None:
    from datetime import datetime, timedelta

    start = datetime(2024, 1, 15)
    days = [(i * 37) % 100 for i in range(100)]  # not in the order of the file
    said = [(start + timedelta(days=day)).strftime(form) for day in days]
    write("t.csv", "n,when,label\n" + "".join(f"{i},{when},{i % 2}\n" for i, when in enumerate(said)))
    data = loaded(
        "+recipe=tabular_linear", "dataset.split.by=when", "dataset.split.validation=0.1", "dataset.split.test=0.2"
    )
    of = {name: [days[int(row["n"])] for row in data[name]["features"]] for name in ("train", "validation", "test")}
    assert {name: len(found) for name, found in of.items()} == {"train": 70, "validation": 10, "test": 20}
    assert max(of["train"]) < min(of["validation"]) <= max(of["validation"]) < min(of["test"])
    first, last = said[days.index(80)], said[days.index(99)]
    assert any(note.startswith("split by when: train ") and f"test {first} to {last}" in note for note in data.notes)
    assert "time" not in " ".join(data["train"].column_names)


def test_the_column_of_texts_is_read(write: Write) -> None:
    write("t.csv", "text,when,label\n" + "".join(f"text {i},{2000 + i},{'ab'[i % 2]}\n" for i in range(20)))
    data = loaded(
        "+recipe=bert_textcls", "dataset.split.by=when", "dataset.split.test=0.2", "dataset.split.validation=0"
    )
    assert data["test"]["text"][:] == [f"text {i}" for i in range(16, 20)]
    assert not any("not read" in note for note in data.notes)
    assert set(data["test"].column_names) == {"text", "label", "id"}


def test_cells_that_say_no_time_are_named(write: Write) -> None:
    rows = ["2024-01-01", "", "soon", "2024-01-04", *(f"2024-02-{day:02}" for day in range(1, 20))]
    write("t.csv", "text,when,label\n" + "".join(f"text {i},{when},{'ab'[i % 2]}\n" for i, when in enumerate(rows)))
    with pytest.raises(UserError) as error:
        loaded("+recipe=bert_textcls", "dataset.split.by=when")
    assert [(p.key, str(p)) for p in error.value.problems] == [
        ("t.csv:3", "when is empty, not a date like YYYY-MM-DD (dataset.split.by)"),
        ("t.csv:4", "when is 'soon', not a date like YYYY-MM-DD (dataset.split.by)"),
    ]
    with pytest.raises(UserError, match=r"no column 'wen'.*Did you mean 'when'"):
        loaded("+recipe=bert_textcls", "dataset.split.by=wen")


REFUSED = {
    ("dataset.folds=5", "dataset.fold=0"): "does not work with dataset.folds",
    ("dataset.columns.group=who",): "does not work with a group column",
    ("dataset.split.stratify=true",): "does not work with dataset.split.stratify",
    ("dataset.split.validation=0", "dataset.split.test=0"): "no split is taken from train",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_does_not_go_with_it_is_refused(words: tuple[str, ...]) -> None:
    data = ("dataset=csv", "dataset.train=t.csv", "dataset.split.by=when")
    with pytest.raises(UserError, match=REFUSED[words]):
        compose("finetune", ["+recipe=tabular_linear", *data, *words])
