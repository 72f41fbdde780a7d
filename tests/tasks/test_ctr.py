"""Clicks: ids, lists, histories, the models that read them, and data that are not fit for it."""

import json
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from llmft import tasks
from llmft.config.load import load as compose
from llmft.data.pipeline import Data, load
from llmft.models.build import build
from llmft.schema.problem import UserError
from llmft.tasks.tables import id_columns
from llmft.tasks.tables.click_columns import ClickLog
from llmft.tasks.tables.id_columns import Counts, IdColumn, separator_of, stable_hash
from llmft.tasks.task import Task
from llmft.training.features import encode

Run = Callable[..., tuple[int, str, str]]
PLAIN = ("task=ctr", "model=deepfm", "dataset=csv", "dataset.split.validation=0", "dataset.split.test=0")


def write(text: str, file: str = "t.csv") -> str:
    Path(file).write_text(text, encoding="utf-8")
    return f"dataset.train={file}"


def fitted(text: str, *words: str) -> tuple[Task[Any], Data]:
    """The task after it has read a file, and its rows."""
    config = compose("finetune", [*PLAIN, write(text), "dataset.columns.label=click", *words])
    task = tasks.build(config.task)
    data = load(config.dataset, task)
    task = task.fit(data["train"], config.model)
    problems = task.check(data["train"], "train")
    if problems:
        raise UserError(problems, "the data")
    return task, data


def test_ids_of_values_that_are_known_unknown_and_missing() -> None:
    column = IdColumn(values=["001", "NA", "3"])
    assert column.ids(["001", "1", "NA", 3, "3.0", 3.0, "", None, float("nan"), " 001 "]) == [
        2,
        1,
        3,
        4,
        4,
        4,
        0,
        0,
        0,
        2,
    ]
    assert column.size == 4


def test_a_hash_is_the_same_everywhere_and_ten_million_values_take_the_memory_of_their_buckets() -> None:
    assert stable_hash("user 1") % 1000 == 18
    assert stable_hash("用户") % 1000 == 383
    column = IdColumn(buckets=1000)
    ids = column.ids([f"u{number}" for number in range(5000)])
    assert min(ids) >= 2
    assert max(ids) <= 1001
    assert len(set(ids)) > 980
    assert column.size == 1001
    assert column.ids([None, ""]) == [0, 0]


def test_what_was_seen_does_not_grow_without_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(id_columns, "MOST", 100)
    column = IdColumn(buckets=10)
    for start in range(0, 2000, 50):
        column.ids([f"u{number}" for number in range(start, start + 50)])
    assert len(column._seen) <= 200
    counts = Counts()
    counts.add(map(str, range(101)))
    counts.add(["a", "a"])
    assert (counts.many, counts.kept(1)) == (True, [])


LISTS = {"a|b": "|", "a b": " ", "a, b": ",", "a;b|c": "|", '["a", "b"]': "|", "a": "|"}


def test_lists_of_any_separator_and_of_json() -> None:
    assert {text: separator_of([text]) for text in LISTS} == LISTS
    column = IdColumn(values=["a", "b", "c"], width=2, separator="|")
    cells = ["a|b|c", '["b", "c"]', "x", "", None, "|c"]
    assert column.encode(cells).tolist() == [[2, 3], [3, 4], [1, 0], [0, 0], [0, 0], [4, 0]]
    history = IdColumn(values=["a", "b", "c"], width=2, separator=" ", latest=True)
    assert history.encode(["a b c", "a", ""]).tolist() == [[4, 3], [2, 0], [0, 0]]


def test_a_history_is_strictly_before_its_row() -> None:
    """Of u: 2 at 1.0, then 3 and 4 at one moment, 5 later, in a file that runs backwards."""
    users = ["u", "u", "u", "u", "v", None]
    log = ClickLog.of(users, numpy.array([9.0, 5.0, 5.0, 1.0, 0.5, 2.0]), [5, 3, 4, 2, 9, 7])
    times = numpy.array([1.0, 1.5, 5.0, 9.0, numpy.nan, 100.0])
    assert log.before(["u"] * 6, times, 3).tolist() == [[0] * 3, [2, 0, 0], [2, 0, 0], [4, 3, 2], [5, 4, 3], [5, 4, 3]]
    assert log.before(["v", "w", None], numpy.array([9.0, 9.0, 9.0]), 2).tolist() == [[9, 0], [0, 0], [0, 0]]
    assert log.ties == 1


def test_no_row_has_its_own_click_and_seconds_are_told_apart() -> None:
    """Seconds since 1970 as float32 would be one moment in two minutes."""
    rng = numpy.random.default_rng(0)
    times = 1.7e9 + rng.integers(0, 100, 200)
    users = [f"u{number}" for number in rng.integers(0, 5, 200)]
    items = list(range(2, 202))
    found = ClickLog.of(users, times, items).before(users, times, 200)
    for row in range(200):
        expected = {items[other] for other in range(200) if users[other] == users[row] and times[other] < times[row]}
        assert set(found[row].tolist()) - {0} == expected


CLICKS = """user,item,when,genres,price,click
ann,a,3,x|y,1.5,1
ann,b,1,x,2.5,1
ann,c,2,y,,0
bob,a,9,,3.5,1
bob,b,8,z,1.0,0
ann,c,4,x|y|z,2.0,1
bob,c,10,x,0.5,0
"""
ROLES = ("task.user=user", "task.item=item", "task.time=when", "task.lists=[genres]", "task.min_count=1")


def test_a_row_has_what_its_user_clicked_before(here: Path) -> None:
    task, data = fitted(CLICKS, *ROLES, "task.max_history=2")
    columns = task.state.columns
    assert list(columns.ids) == ["user", "item", "genres", "clicked before"]
    assert columns.ids["item"].values == ["c", "a", "b"], "by count, then by name"
    assert list(columns.numbers) == ["price"], "the time is no feature"
    found = task.encode(data["train"][:])["categories"]
    # b (4) at 1, a (3) at 3, c (2) at 4 by ann; a at 9 by bob.
    assert [row[-2:] for row in found] == [[4, 0], [0, 0], [4, 0], [0, 0], [0, 0], [3, 4], [3, 0]]
    row = {"user": "ann", "item": "a"}
    (now,) = task.for_inference().encode({"features": [row]})["categories"]
    assert now[-2:] == [2, 3], "without a time, all clicks are earlier"


def test_a_history_of_the_file_shares_the_ids_of_the_item_and_is_cut_to_the_latest(here: Path) -> None:
    text = "item,seen,click\na,b,1\nb,a b a c,0\na,,1\nb,a b,0\n"
    task, data = fitted(text, "task.item=item", "task.history=seen", "task.min_count=1", "task.max_history=3")
    assert task.state.columns.ids["item"].values == ["b", "a", "c"]
    assert [row[1:] for row in task.encode(data["train"][:])["categories"]] == [
        [2, 0, 0],
        [4, 3, 2],
        [0] * 3,
        [2, 3, 0],
    ]
    assert any(
        "1 row has more than 3 values of seen, of which the latest are read" in note for note in task.state.notes
    )
    assert task.model_kwargs()["field_sizes"] == [4, 0]


@pytest.mark.parametrize("name", ["click_lr", "fm", "wide_deep", "deepfm", "dcn", "din"])
def test_models_are_finite_learn_and_ignore_padding(name: str, here: Path) -> None:
    task, data = fitted(CLICKS, *ROLES)
    config = compose("finetune", [*PLAIN, f"model={name}", write(CLICKS)])
    torch.manual_seed(0)
    model = build(config.model, task.head, task.model_kwargs())
    assert not model.table.weight[0].any()
    batch = task.objective.collate(encode(task, data["train"]).__getitems__(list(range(7))))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    losses = []
    for _ in range(30):
        loss = task.objective.loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(0.69, abs=0.1)
    assert losses[-1] < 0.3
    model.eval()
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    logits = model(**inputs).logits
    assert not logits[:, 0].any()
    # Fields without any id are zero, after training and from a file.
    model.save_pretrained("model")
    model = type(model).from_pretrained("model")
    assert torch.equal(model(**inputs).logits, logits)
    empty = {**inputs, "categories": torch.zeros_like(inputs["categories"])}
    places = model.config.num_numbers
    assert not model.fields(**empty)[:, places:].any()


def test_fm_is_the_sum_over_all_pairs() -> None:
    from llmft.models.click_models import factorized

    vectors = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    pairs = sum((vectors[:, i] * vectors[:, j]).sum(dim=1) for i in range(5) for j in range(i))
    assert torch.allclose(factorized(vectors), torch.as_tensor(pairs), atol=1e-5)


@pytest.mark.parametrize("streaming", [False, True])
def test_streamed_rows_have_the_ids_and_histories_of_all(
    streaming: bool, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmft.commands.prepare import prepare
    from llmft.data import stream

    monkeypatch.setattr(stream, "SAMPLE", 3)
    write(CLICKS.replace("ann", "eve"), "v.csv")
    words = [
        *PLAIN[:3],
        write(CLICKS),
        "dataset.columns.label=click",
        "dataset.validation=v.csv",
        "dataset.max_overlap=1",
    ]
    words += ["dataset.split.test=0", *ROLES, f"dataset.streaming={streaming}"]
    prepared = prepare(compose("finetune", words))
    columns = prepared.task.state.columns
    assert columns.ids["item"].values == ["c", "a", "b"]
    assert columns.log.times.tolist() == [1, 3, 4, 9] or columns.log.times.tolist() == [9, 1, 3, 4]


def test_a_column_of_too_many_values_is_hashed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmft.tasks.tables import click_columns

    monkeypatch.setattr(id_columns, "MOST", 5)
    monkeypatch.setattr(click_columns, "BUCKETS", 8)
    rows = "".join(f"d{number},{number % 2},{number % 2}\n" for number in range(20))
    task, _ = fitted(f"device,kind,click\n{rows}", "task.categories=[device,kind]")
    assert {name: column.buckets for name, column in task.state.columns.ids.items()} == {"device": 8, "kind": 0}
    assert any(
        "device has more than" in note and "task.hash_buckets={device: BUCKETS}" in note for note in task.state.notes
    )


BAD = {
    "a label of another kind": (
        CLICKS.replace("0.5,0", "0.5,2"), (), "t.csv:8 must be 0 or 1, got '2'; train has 3 different labels For ratings, write task.like_from",
    ),
    "labels of words": ("item,click\na,no\nb,yes\na,yes\n", (), "must be 0 or 1, got 'no'.* If 'yes' is the click, write task.labels=\\[no,yes\\]"),
    "one class": ("item,click\na,0\nb,0\na,0\n", (), "train has one label only, '0'; clicks are learned from both"),
    "ratings that are words": ("item,click\na,5\nb,good\n", ("task.like_from=4",), "t.csv:3 click is 'good', not a number"),
    "times of text": (CLICKS.replace(",9,", ",soon,"), ROLES, "t.csv:5 when is 'soon', not a number .train..* task.time=when decides"),
    "times that are all text": ("user,item,when,click\na,b,noon,1\na,c,dawn,0\n", ROLES[:3], "task.time 'when' must have numbers or dates, got 'noon'"),
    "a row without a time": (CLICKS.replace(",9,", ",,"), ROLES, "t.csv:5 when is '', not a number"),
    "no such column": (CLICKS, ("task.user=who",), "task.user there is no column 'who'"),
    "a history without an item": (CLICKS, ("task.history=genres",), "history needs item"),
    "a time alone": (CLICKS, ("task.time=when",), "time is for the history, which needs user and item"),
    "two roles": (CLICKS, ("task.user=user", "task.item=user"), "'user' must have one role"),
    "lists that nobody named": ('tags,click\n"[1, 2]",0\n"[2]",1\n', (), "tags holds lists"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_data_that_are_not_fit(name: str, here: Path) -> None:
    import re

    text, words, expected = BAD[name]
    with pytest.raises(UserError) as error:
        fitted(text, *words)
    shown = " ".join(" ".join(map(str, (p.key, p.what, p.hint))) for p in error.value.problems)
    assert re.search(expected, shown), shown


def test_an_id_is_not_read_as_a_number(here: Path) -> None:
    rows = "".join(f"{10_000 + 7 * (n % 150)},{n % 120},{n % 90 + 10},{n % 7}.5,{n % 2}\n" for n in range(300))
    task, _ = fitted(f"user_id,shop,userAge,price,click\n{rows}")
    assert list(task.state.columns.ids) == ["user_id"]
    notes = " ".join(task.state.notes)
    assert "read as ids by their names, not as numbers: user_id (task.numbers=[user_id] if not)" in notes
    assert "shop is read as numbers, of which there are 120 different whole numbers" in notes
    assert "userAge is read as numbers, of" not in notes
    task, _ = fitted(f"user_id,shop,userAge,price,click\n{rows}", "task.numbers=[user_id]")
    assert not task.state.columns.ids


def test_ratings_are_clicks_from_a_number_on(here: Path) -> None:
    _, data = fitted("item,click\na,5\nb,3.5\na,4\nb,1\n", "task.like_from=4")
    assert data["train"]["label"][:] == ["1", "0", "1", "0"]


def test_a_run_from_ratings_with_dates_to_answers(llmft: Run, here: Path) -> None:
    """User, item, and time of a file without a header; GAUC; predictions with and without a time."""
    rng = numpy.random.default_rng(0)
    rows = [
        f"u{rng.integers(6)}\ti{rng.integers(9)}\t2024-0{1 + n // 60}-{1 + n % 28:02d}\t{1 + n % 5}\n"
        for n in range(240)
    ]
    Path("r.tsv").write_text("".join(rows))
    words = ["task=ctr", "model=din", "dataset.train=r.tsv", "dataset.header=[who,what,when,stars]", "task.user=who"]
    words += ["task.item=what", "task.time=when", "task.like_from=4", "dataset.columns.label=stars", "optimizer=adam"]
    words += [
        "dataset.split.by=when",
        "dataset.max_overlap=1",
        "trainer.max_steps=3",
        "hardware.device=cpu",
        "run.dir=run",
    ]
    code, out, err = llmft("finetune", *words, "task.importance=false")
    assert code == 0, err
    assert "1 history: clicked before (of 20)" in out
    assert "logistic regression" in out
    metrics = json.loads(Path("run/metrics.json").read_text())["test"]
    assert 1 <= metrics["gauc_users"] <= 6
    assert 0 <= metrics["gauc"] <= 1
    assert metrics["log_loss"] == pytest.approx(metrics["loss"], abs=1e-6)
    code, out, err = llmft("predict", "run", "predict.row={who: u1, what: i2}", "predict.explain=true")
    assert code == 0, err
    answer = json.loads(out)
    assert {part["column"] for part in answer["explanation"]["parts"]} == {"who", "what"}
    assert answer["answer"] in ("0", "1")
    code, out, err = llmft("predict", "run", "predict.row={who: u1, what: i2, when: soon}")
    assert "when is 'soon', not a date like YYYY-MM-DD" in out + err


def test_ten_million_values_are_encoded_in_seconds_and_bounded_memory() -> None:
    """A hundredth of them: hashing is 1 µs a value."""
    column, start = IdColumn(buckets=1000), time.process_time()
    column.encode([f"{number:x}" for number in range(100_000)])
    assert time.process_time() - start < 3


@pytest.mark.parametrize("page", ["clicks.md", "clicks.zh-CN.md"])
def test_the_commands_of_the_guide_are_configurations(page: str, here: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / page).read_text(encoding="utf-8")
    commands = [shlex.split(line) for line in text.splitlines() if line.startswith("llmft finetune ")]
    assert len(commands) == 5
    for words in commands:
        compose("finetune", words[2:])
