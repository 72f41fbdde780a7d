"""From interactions to the rows of users: order, splits, filters, and what is told of rows that do not count."""

from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmft import tasks
from llmft.config.load import load as compose
from llmft.data.interactions import core, leave_one_out, ratio, rounded
from llmft.data.pipeline import Data, load
from llmft.schema.problem import UserError

TIMES = "user,item,rating,time\n"
ROWS = "u,a,5,1\nu,b,1,2\nu,c,4,3\nv,a,5,9\nv,b,3,5\nw,a,2,1\n"


def read(here: Path, text: str, *words: str, name: str = "rows.csv", format: str = "csv") -> Data:
    (here / name).write_text(text, encoding="utf-8")
    recipe = ["+recipe=recsys_bpr", f"dataset={format}", f"dataset.train={name}", *words]
    config = compose("finetune", recipe)
    return load(config.dataset, tasks.build(config.task))


def rows(data: Data, split: str) -> list[tuple[Any, ...]]:
    """user, history, and what was held out."""
    found = data.splits[split]
    return list(zip(found["user"], found["items"], found["relevant"], strict=True))


def test_the_last_of_each_user_is_held_out_by_time_and_not_by_place(here: Path) -> None:
    data = read(here, TIMES + ROWS)
    assert rows(data, "train") == [("u", ["a"], None), ("v", ["b"], None), ("w", ["a"], None)]
    assert rows(data, "validation") == [("u", ["a"], ["b"])]  # v has two: train and test
    assert rows(data, "test") == [("u", ["a", "b"], ["c"]), ("v", ["b"], ["a"])]
    assert "test: 1 held-out item is not in train: they cannot be listed, and count as misses" in data.notes


def test_equal_times_keep_the_order_of_the_file_and_are_counted(here: Path) -> None:
    data = read(here, TIMES + "u,a,1,7\nu,b,1,7\nu,c,1,7\nv,a,1,1\nv,b,1,2\nv,c,1,3\n")
    assert rows(data, "test")[0] == ("u", ["a", "b"], ["c"])
    assert any("50.0% of the rows share user and time" in note and "1 of 2 users" in note for note in data.notes)


@pytest.mark.parametrize("size", range(1, 40))
def test_shares_are_rounded_as_recbole_does(size: int) -> None:
    """Its own code, for 80/10/10."""
    counts = [int(part * size + 1e-9) for part in (0.8, 0.1, 0.1)]
    counts[0] = size - counts[1] - counts[2]
    for number in (2, 1):
        if counts[0] <= 1:
            break
        if 0 < 0.1 * size < 1 - 1e-9:
            counts[number] += 1
            counts[0] -= 1
    assert rounded(size, [0.1, 0.1]) == counts


def test_rounded_by_hand() -> None:
    assert [rounded(size, [0.1, 0.1]) for size in (10, 5, 2, 1)] == [[8, 1, 1], [3, 1, 1], [1, 0, 1], [1, 0, 0]]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_every_user_keeps_something_in_train(users: list[int], seed: int) -> None:
    own = numpy.sort(numpy.array(users))
    for parts in (leave_one_out(own, ["validation", "test"]), ratio(own, [0.2, 0.2], seed)):
        assert set(own[parts == 0]) == set(own)
        assert set(parts) <= {0, 1, 2}
    last = leave_one_out(own, ["validation", "test"])
    for user in set(users):
        mine = last[own == user].tolist()
        assert mine == [0] * (len(mine) - 2) + [1, 2] if len(mine) > 2 else mine in ([0], [0, 2])


def test_without_times_the_order_of_the_file_counts(here: Path) -> None:
    data = read(here, "u c\nu a\nv a\nu b\n", name="pairs.txt", format="ratings")
    assert rows(data, "test") == [("u", ["c", "a"], ["b"])]
    assert any("have no times" in note for note in data.notes)


def test_a_core_is_stable() -> None:
    """Without d, u3 has one item too few; without u3, c has one user too few."""
    users = numpy.array(["u1", "u1", "u2", "u2", "u3", "u3", "u1"])
    items = numpy.array(["a", "b", "a", "b", "c", "d", "c"])
    assert core(users, items, 2, 2).tolist() == [True, True, True, True, False, False, False]
    assert core(users, items, 1, 1).all()


def test_likes_repeats_and_a_core_are_counted(here: Path) -> None:
    more = "u,a,5,4\nx,z,5,1\n"
    data = read(here, TIMES + ROWS + more, "task.like_from=3", "task.min_per_user=2", "dataset.split.validation=0")
    assert rows(data, "train") == [("u", ["c"], None), ("v", ["b"], None)]
    notes = "\n".join(data.notes)
    assert "train: 2 rows have a rating below task.like_from=3, and do not count" in notes
    assert "train: 1 row has a user and an item that another row has, too: the last one counts" in notes
    assert "train: 1 row was left out, until all have task.min_per_user=2" in notes


def test_repeats_count_where_they_are_wanted(here: Path) -> None:
    text = "user,item,time\nu,a,1\nu,b,2\nu,a,3\n"
    assert rows(read(here, text, "task.repeat=true"), "test") == [("u", ["a", "b"], ["a"])]
    assert rows(read(here, text), "test") == [("u", ["a"], ["b"])]


def test_own_files_say_what_is_held_out(here: Path) -> None:
    (here / "test.csv").write_text("user,item,time\nu,b,9\nu,a,9\nnew,a,9\n")
    data = read(here, "user,item,time\nu,a,1\nv,b,2\n", "dataset.test=test.csv", "dataset.split.validation=0")
    assert rows(data, "test") == [("new", [], ["a"]), ("u", ["a"], ["b"])]
    notes = "\n".join(data.notes)
    assert "test: 1 user has no row in train, and get the most popular items" in notes
    assert "test: 1 row has an item that their user had before, and are not scored" in notes


def test_the_latest_of_all_are_held_out(here: Path) -> None:
    text = "user,item,time\n" + "".join(f"u{n % 3},i{n},2024-01-{n + 1:02}\n" for n in range(10))
    data = read(here, text, "dataset.split.by=time")
    held = [item for _, _, items in rows(data, "test") for item in items]
    assert held == ["i9"]


FORMS = {
    "u.data": ("ratings", "196\t242\t3\t881250949\n186\t302\t3\t891717742\n196\t1\t5\t881250950\n"),
    "ratings.dat": ("ratings", "196::242::3::881250949\n186::302::3::891717742\n196::1::5::881250950\n"),
    "pairs.txt": ("ratings", "196 242\n186 302\n196 1\n"),
    "own.inter": ("atomic", "user_id:token\titem_id:token\trating:float\n196\t242\t3\n186\t302\t3\n196\t1\t5\n"),
    "own.jsonl": (
        "json",
        '{"user": 196, "item": 242, "time": 1.5}\n{"user": 186, "item": 302, "time": 2}\n{"user": 196, "item": 1, "time": 3}\n',
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_has_the_same_rows(name: str, here: Path) -> None:
    """Ids are texts, also those that JSON has as numbers."""
    format, text = FORMS[name]
    data = read(here, text, "dataset.split.by=null", "dataset.split.test=0.5", name=name, format=format)
    found = {
        (user, *items)
        for split in ("train", "test")
        for user, *_, items in [(r[0], r[2] or r[1]) for r in rows(data, split)]
    }
    assert found == {("186", "302"), ("196", "242"), ("196", "1")}


def test_items_have_the_texts_beside_them(here: Path) -> None:
    (here / "own.item").write_text("item_id:token\ttitle:token_seq\tyear:float\n242\tHeat\t1995\n1\tUp\t\n")
    data = read(
        here,
        FORMS["own.inter"][1],
        "dataset.split.by=null",
        "dataset.split.test=0",
        "dataset.split.validation=0",
        name="own.inter",
        format="atomic",
    )
    assert dict(zip(data["train"]["user"], data["train"]["texts"], strict=True)) == {
        "186": [""],
        "196": ["Heat, 1995", "Up"],
    }


def test_ids_that_look_like_gaps_and_numbers_are_texts(here: Path) -> None:
    data = read(here, "user,item,time\nNA,001,1\nnull,1,2\nNA,null,3\n", "dataset.split.validation=0")
    assert rows(data, "train") == [("NA", ["001"], None), ("null", ["1"], None)]


BAD = {
    "times that are texts": (TIMES + "u,a,1,1\nu,b,1,soon\nu,c,1,3\n", (), "rows.csv:3  the time must be a number"),
    "a rating off the scale": (
        TIMES + ROWS,
        ("task.scale=[2,5]",),
        "rows.csv:3  the rating must be from 2 to 5, got 1",
    ),
    "a time that is empty": (
        TIMES + "u,a,1,1\nu,b,1,\n",
        (),
        "rows.csv:3  the time must be a number, as others are, got ''",
    ),
    "one user with one item": (TIMES + "u,a,1,1\n", (), "no user with two interactions"),
    "no times": ("user,item\nu,a\nu,b\n", ("dataset.split.by=time",), "time needs times"),
    "another way": (TIMES + ROWS, ("dataset.split.by=day",), "must be a way to split interactions, got day"),
    "likes without ratings": ("user,item,time\nu,a,1\nu,b,2\n", ("task.like_from=4",), "rating"),
    "nothing is liked": (TIMES + ROWS, ("task.like_from=6",), "has no interaction that counts"),
    "an empty user": (TIMES + ",a,1,1\nu,b,1,2\n", (), "has no user (train)"),
    "no items": ("user,product\nu,a\n", (), "dataset.columns.item"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_rows_are_refused_by_place(case: str, here: Path) -> None:
    text, words, expected = BAD[case]
    with pytest.raises(UserError) as error:
        read(here, text, *words)
    assert expected in str(error.value)


def test_a_line_with_other_cells_is_named(here: Path) -> None:
    with pytest.raises(UserError, match=r"u.data:2.* must have 4 cells, got 3"):
        read(here, "1\t2\t3\t4\n1\t2\t3\n", name="u.data", format="ratings")
    with pytest.raises(UserError, match=r"must name fields with types, such as user_id:token"):
        read(here, "user\titem\n1\t2\n", name="own.inter", format="atomic")
