"""From files to checked splits: every fault of the data is said before a model is loaded."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pyarrow
import pyarrow.parquet
import pytest

from llmft.data.binary_tables import ParquetFile
from llmft.data.checks import empty_targets, overlaps, without_empty
from llmft.data.pipeline import load
from llmft.data.source import Table
from llmft.schema.column import Column
from llmft.schema.dataset import DatasetConfig
from llmft.schema.problem import UserError

Write = Callable[..., Path]


class Texts:
    """A task as the data see it."""

    columns: ClassVar = {"text": Column("text"), "text_pair": Column("text", required=False), "label": Column("label")}

    def synthetic_rows(self, rows: int, seed: int) -> dict[str, list[Any]]:
        return {"text": [f"t{seed}-{i}" for i in range(rows)], "label": ["a", "b"] * (rows // 2)}


def csv(rows: list[tuple[str, ...]], header: str = "text,label") -> str:
    return "\n".join([header, *(",".join(row) for row in rows)]) + "\n"


ROWS = [(f"text {i}", str(i % 2)) for i in range(40)]


def of(**keys: Any) -> DatasetConfig:
    return DatasetConfig.model_validate({"format": "csv", **keys})


def test_what_has_no_file_is_taken_from_train(write: Write) -> None:
    write("a.csv", csv(ROWS))
    data = load(of(train="a.csv"), Texts())
    assert {name: len(rows) for name, rows in data.splits.items()} == {"train": 32, "validation": 4, "test": 4}
    assert all(rows["label"][:].count("0") == len(rows) / 2 for rows in data.splits.values()), "stratified"
    assert sorted(id for rows in data.splits.values() for id in rows["id"]) == sorted(
        f"a.csv:{i}" for i in range(2, 42)
    )
    again = load(of(train="a.csv"), Texts())
    other = load(of(train="a.csv", split={"seed": 1}), Texts())
    assert [again[name]["id"][:] == data[name]["id"][:] for name in data.splits] == [True] * 3
    assert other["test"]["id"][:] != data["test"]["id"][:]


def test_a_share_of_zero_makes_no_split(write: Write) -> None:
    write("a.csv", csv(ROWS))
    assert list(load(of(train="a.csv", split={"validation": 0, "test": 0}), Texts()).splits) == ["train"]


def test_equal_inputs_stay_on_one_side(write: Write) -> None:
    write("a.csv", csv([(f"Same  {i // 4}" if i % 2 else f"same {i // 4}", "01"[i % 8 > 3]) for i in range(80)]))
    data = load(of(train="a.csv", split={"validation": 0.2, "test": 0.2}), Texts())
    seen = [{text.casefold().replace("  ", " ") for text in rows["text"]} for rows in data.splits.values()]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])


def test_files_folders_patterns_and_lists(write: Write) -> None:
    for name in ("d/a.csv", "d/b.csv", "d/e/a.csv"):
        write(name, csv([(name, "x"), (name + "!", "y")]))
    write("d/notes.txt", "no data")
    none = {"validation": 0, "test": 0}
    for train, ids in {
        "d": ["a.csv:2", "a.csv:3", "b.csv:2", "b.csv:3"],
        "d/*.csv": ["a.csv:2", "a.csv:3", "b.csv:2", "b.csv:3"],
        "d/**/a.csv": ["d/a.csv:2", "d/a.csv:3", "e/a.csv:2", "e/a.csv:3"],
    }.items():
        assert load(of(train=train, split=none), Texts())["train"]["id"][:] == ids
    assert len(load(of(train=["d/a.csv", "d/e"], split=none), Texts())["train"]) == 4


def test_max_rows_is_of_each_split_and_seeded(write: Write) -> None:
    write("a.csv", csv(ROWS))
    data = load(of(train="a.csv", max_rows=4), Texts())
    assert {name: len(rows) for name, rows in data.splits.items()} == {"train": 4, "validation": 4, "test": 4}
    assert data["train"]["id"][:] == load(of(train="a.csv", max_rows=4), Texts())["train"]["id"][:]


def test_roles_map_to_columns_in_any_script(write: Write) -> None:
    write("a.csv", csv(ROWS, "文本,标签"))
    assert load(of(train="a.csv", columns={"text": "文本", "label": "标签"}), Texts())["train"].column_names == [
        "id",
        "text",
        "label",
    ]


def test_parquet_and_json_are_read(write: Write, here: Path) -> None:
    table = {"text": [f"t{i}" for i in range(40)], "label": [i % 2 for i in range(40)]}
    pyarrow.parquet.write_table(pyarrow.table(table), here / "a.parquet")
    write("a.jsonl", "".join(f'{{"text": "t{i}", "label": {str(bool(i % 2)).lower()}}}\n' for i in range(40)))
    assert set(load(of(format="parquet", train="a.parquet"), Texts())["train"]["label"]) == {"0", "1"}
    assert set(load(of(format="json", train="a.jsonl"), Texts())["train"]["label"]) == {"true", "false"}


def test_sets_of_scikit_learn_are_read() -> None:
    class Table:
        columns: ClassVar = {"features": Column("features"), "label": Column("label")}

        def synthetic(self, rows: int, seed: int) -> dict[str, list[Any]]:
            raise NotImplementedError

    data = load(of(format="sklearn", train="breast_cancer", columns={"label": "target"}), Table())
    assert sum(len(rows) for rows in data.splits.values()) == 569
    assert set(data["train"]["label"]) == {"benign", "malignant"}
    assert len(data["train"][0]["features"]) == 30


def files(write: Write, **texts: str) -> dict[str, str]:
    for name, text in texts.items():
        write(f"{name}.csv", text)
    return {name: f"{name}.csv" for name in texts}


TWO = [("good day", "1"), ("bad day", "0")]
NO_SHARES = {"validation": 0, "test": 0}
FAULTS: dict[str, tuple[dict[str, Any], dict[str, str], str]] = {
    "no such file": ({"train": "nope.csv"}, {}, "dataset.train  must be a file, got nope.csv, which does not exist"),
    "empty file": ({}, {"train": ""}, "dataset.train  has 0 rows"),
    "header only": ({}, {"train": "text,label\n"}, "dataset.train  has 0 rows"),
    "empty test": ({}, {"train": csv(ROWS), "test": "text,label\n"}, "dataset.test  has 0 rows"),
    "missing column": ({}, {"train": csv(TWO, "txt,label")}, "train has no column 'text'; it has txt, label. Did you mean dataset.columns.text=txt?"),
    "wrong role": ({"columns": {"tokens": "a"}}, {"train": csv(TWO)}, "dataset.columns.tokens  the task has no such role. Its roles are text, text_pair, label."),
    "missing pair": ({"columns": {"text_pair": "b"}}, {"train": csv(TWO)}, "train has no column 'b'"),
    "missing label": ({}, {"train": csv([*TWO, ("x", "")])}, "train.csv:4             has no label (train)"),
    "a label that can be left out": ({}, {"train": csv([*TWO, ("x", "")])}, "dataset.drop_unlabeled  set it to true to leave rows without"),
    "both at once": ({}, {"train": csv([*TWO, ("x", ""), (" ", "1")]), "test": csv([("y", "")])}, "3 problems in the data"),
    "empty text": ({}, {"train": csv([*TWO, ("  ", "1")])}, "has an empty text (train)"),
    "short row": ({}, {"train": csv([*TWO, ("x",)])}, "train.csv:4  1 field, fewer than the 2 of the header"),
    "same file": ({"train": "train.csv", "test": "train.csv"}, {"train": csv(TWO)}, "has the same bytes"),
    "same bytes": ({}, {"train": csv(TWO), "test": csv(TWO)}, "dataset.test  test.csv has the same bytes as train.csv of train"),
    "leaks by name": ({"split": NO_SHARES}, {"train": csv(ROWS), "test": csv([("TEXT  3", "1"), ("text 4", "0"), ("new", "1")])}, "2 of the 3 rows of test are also in train, such as test.csv:2 (train.csv:5), test.csv:3 (train.csv:6). Metrics would be too good: dataset.clean.leaks=true leaves them out of train, or dataset.max_overlap=1 allows them."),
    "leak": ({"split": NO_SHARES}, {"train": csv(ROWS), "test": csv([("TEXT  3", "1"), ("new", "1")])}, "1 of the 2 rows of test is also in train"),
    "many texts as labels": ({}, {"train": csv([(f"text {i}", f"kind {i}") for i in range(40)])}, "leaves validation without rows: train has 40. Write dataset.validation=FILE, or add rows to train.\n"),
    "one row": ({}, {"train": csv(TWO[:1])}, "dataset.split.validation  leaves validation without rows: train has 1. Write dataset.validation=FILE, or add rows to train."),
    "numbers as labels": ({}, {"train": csv([(f"text {i}", f"{i}.5") for i in range(40)])}, "It has 40 labels. Are they numbers? Write task.problem=regression."),
}  # fmt: skip


ANSWERS = {
    "text": Column("text", target=True),
    "texts": Column("texts", target=True),
    "tags": Column("json", target=True, blank=True),
    "talk": Column("json"),
}


@pytest.mark.parametrize(
    ("columns", "problems"),
    [
        ({"text": ["a", " ", None]}, {1: "has an empty text", 2: "has no text"}),
        ({"texts": [["a"], [], ["a", ""], None]}, {1: "has an empty texts", 2: "has an empty texts", 3: "has no texts"}),
        ({"tags": ['""', "[]", None]}, {}),
        ({"talk": ['"a"', '""', "[]", '{"a": ""}', '[{"role": "user", "content": "a"}]']}, {1: "has an empty talk"}),
        (
            {"talk": ['[{"role": "user", "content": ""}]', '[{"from": "gpt", "value": null}]', '[{"content": "", "tool_calls": [1]}]']},
            dict.fromkeys((0, 1), "has a message without a text"),
        ),
    ],
)  # fmt: skip
def test_what_is_to_be_written_must_not_be_empty(columns: dict[str, list[Any]], problems: dict[int, str]) -> None:
    table = Table(columns, [f"a:{row}" for row, _ in enumerate(next(iter(columns.values())))])
    assert empty_targets(table, ANSWERS) == problems
    kept, told = without_empty(table, ANSWERS, "train", drop=True)
    assert (len(kept), told) == (len(table) - len(problems), [])
    _, told = without_empty(table, ANSWERS, "train", drop=False)
    assert [problem.what for problem in told] == [f"{what} (train)" for what in problems.values()]


def test_columns_that_are_not_read_are_named_and_can_be_ignored(write: Write) -> None:
    write("a.jsonl", '{"text": "a", "label": "x", "source": 1, "id": "q", "split": "t", "score": 2}\n' * 3)
    keys = {"format": "json", "train": "a.jsonl", "split": NO_SHARES}
    assert "train: columns that are not read: source, score" in load(of(**keys), Texts()).notes
    assert "train: columns that are not read: score" in load(of(**keys, ignore=["source"]), Texts()).notes
    with pytest.raises(UserError, match="has no column 'label'"):
        load(of(**keys, ignore=["label"]), Texts())


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_data_is_named(name: str, write: Write) -> None:
    keys, texts, what = FAULTS[name]
    with pytest.raises(UserError) as error:
        load(of(**files(write, **texts) | keys), Texts())
    assert what in str(error.value)


JSON_FAULTS = {
    "a number for a text": (
        '{"text": 1, "label": "a"}\n{"text": "b", "label": "b"}\n',
        "a.jsonl:1  text is 1, not a text",
    ),
    "two kinds of label": (
        '{"text": "a", "label": 1}\n{"text": "b", "label": 0}\n{"text": "c", "label": "1"}\n',
        "a.jsonl:3  label is '1', unlike the others: 2 of type int and 1 of type str",
    ),
    "no class": ('{"text": "a", "label": 1.5}\n', "a.jsonl:1  label is 1.5, not a class"),
    "a missing key": ('{"text": "a", "label": 1}\n{"label": 0}\n', "a.jsonl:2           has an empty text"),
}


@pytest.mark.parametrize("name", JSON_FAULTS)
def test_a_fault_of_json_rows_is_named(name: str, write: Write) -> None:
    text, what = JSON_FAULTS[name]
    write("a.jsonl", text.replace("None", "null"))
    with pytest.raises(UserError) as error:
        load(of(format="json", train="a.jsonl"), Texts())
    assert what in str(error.value)


def test_cells_of_parquet_are_those_of_csv(here: Path) -> None:
    cells = {"text": [b"Ulm", "\u00e9".encode(), None, b""], "score": [0.1, None, -3.0, 1e-30], "blob": [b"\xff"] * 4}
    types = {"text": pyarrow.binary(), "score": pyarrow.float32(), "blob": pyarrow.large_binary()}
    columns = {name: pyarrow.array(values, types[name]) for name, values in cells.items()}
    pyarrow.parquet.write_table(pyarrow.table(columns), here / "a.parquet")
    ((_, found),) = ParquetFile(here / "a.parquet", "a.parquet").chunks()
    assert found.columns == {
        "text": ["Ulm", "\u00e9", None, ""],
        "score": [0.1, None, -3.0, 1e-30],
        "blob": [b"\xff"] * 4,
    }


def test_a_truncated_parquet_file_is_named(write: Write, here: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"] * 1000}), here / "a.parquet")
    write("b.parquet", (here / "a.parquet").read_bytes()[:200])
    with pytest.raises(UserError, match=r"b\.parquet  is not a complete parquet file"):
        load(of(format="parquet", train="b.parquet"), Texts())


def test_problems_of_all_files_come_at_once(write: Write) -> None:
    write("a.csv", "text,label\nx\n")
    write("b.csv", "text,label\na,b,c\n")
    with pytest.raises(UserError) as error:
        load(of(train="a.csv", test="b.csv"), Texts())
    assert [problem.key for problem in error.value.problems] == ["a.csv:2", "b.csv:2"]


def test_small_overlap_repeats_and_contradictions_are_notes(write: Write) -> None:
    train = [(f"text {i}", str(i % 2)) for i in range(300)]
    write("train.csv", csv([*train, ("Text 5", "1"), ("text 7", "0")]))
    write("test.csv", csv([*((f"new {i}", "1") for i in range(199)), ("TEXT 9", "1")]))
    data = load(of(train="train.csv", test="test.csv", split=NO_SHARES), Texts())
    assert data.notes == [
        "train: 2 of 302 rows repeat an earlier input",
        "train: 1 input has more than one label",
        "1 of the 200 rows of test is also in train",
    ]


def test_overlap_can_be_allowed_and_empty_rows_dropped(write: Write) -> None:
    keys = files(write, train=csv([*ROWS, (" ", "1")]), test=csv([("text 1", "1"), ("", "0")]))
    data = load(of(**keys, split=NO_SHARES, max_overlap=1, drop_empty=True), Texts())
    assert {name: len(rows) for name, rows in data.splits.items()} == {"train": 40, "test": 1}
    assert "train: 1 row with an empty text was left out" in data.notes


@pytest.mark.parametrize(
    ("name", "keys", "note"),
    [
        ("sst2", {"train": "train.csv", "validation": "dev.csv", "test": "test.csv"}, "2 of the 1821 rows of test are also in train"),
        ("chnsenticorp", {"train": "train.tsv", "test": "test.tsv", "columns": {"text": "text_a"}, "max_overlap": 1}, "rows of test are also in train"),
    ],
)  # fmt: skip
def test_real_files(name: str, keys: dict[str, Any], note: str, shared: Callable[[str], Path]) -> None:
    data = load(of(path=str(shared(name)), **keys), Texts())
    assert any(note in line for line in data.notes)
    assert len(data["train"]) in (6920, 6300)


def test_the_real_chinese_set_leaks_and_that_is_an_error(shared: Callable[[str], Path]) -> None:
    keys = {"train": "train.tsv", "test": "test.tsv", "columns": {"text": "text_a"}}
    with pytest.raises(UserError, match="rows of test are also in train"):
        load(of(path=str(shared("chnsenticorp")), **keys), Texts())


class Cells(Texts):
    """A task that reads a table."""

    columns: ClassVar = {"features": Column("features"), "label": Column("label", missing=())}


FEW_INPUTS = [("AB"[i % 2], "xy"[i // 2 % 2], "no" if i % 5 else "buy") for i in range(200)]


def test_rows_of_a_table_with_few_different_inputs_are_draws(write: Write) -> None:
    """Four inputs, 50 rows each: a tenth of the rows of each label goes to validation and test, from all inputs."""
    write("ab.csv", csv(FEW_INPUTS, "variant,device,label"))
    data = load(of(train="ab.csv"), Cells())
    assert {name: len(rows) for name, rows in data.splits.items()} == {"train": 160, "validation": 20, "test": 20}
    assert [rows["label"][:].count("buy") for rows in data.splits.values()] == [32, 4, 4]
    assert data.notes == [
        "train: 200 rows with 4 different inputs: equal rows are separate observations, so splits may share inputs"
    ]
    folds = [
        load(of(train="ab.csv", folds=5, fold=fold, split={"validation": 0}), Cells())["test"]["id"][:]
        for fold in range(5)
    ]
    assert sorted(row for fold in folds for row in fold) == sorted(f"ab.csv:{line}" for line in range(2, 202))
    write("test.csv", csv(FEW_INPUTS[:10], "variant,device,label"))
    assert len(load(of(train="ab.csv", test="test.csv"), Cells())["test"]) == 10, "other draws, not copies"


def test_groups_of_such_a_table_stay_together(write: Write) -> None:
    write("ab.csv", csv([(*row, str(i // 20)) for i, row in enumerate(FEW_INPUTS)], "variant,device,label,who"))
    data = load(of(train="ab.csv", columns={"group": "who"}), Cells())
    assert {name: len(rows) for name, rows in data.splits.items()} == {"train": 160, "validation": 20, "test": 20}
    lines = [[int(id.partition(":")[2]) - 2 for id in rows["id"]] for rows in data.splits.values()]
    groups = [{line // 20 for line in part} for part in lines]
    assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])


def test_all_rows_may_be_shared_if_max_overlap_is_1() -> None:
    """Repeated rows of the larger split are more than the smaller one has."""
    keys, sizes = {"train": ["a"], "test": ["a"] * 5}, {"train": 1, "test": 5}
    assert overlaps(keys, sizes, 1.0) == (["5 of the 5 rows of test are also in train"], [])
    assert len(overlaps(keys, sizes, 0.99)[1]) == 1


def test_what_to_do_about_rows_that_stand_in_two_splits_names_the_key_that_helps() -> None:
    sizes, ids = dict.fromkeys(("train", "validation", "test"), 2), {}
    _, problems = overlaps({"train": ["a", "b"], "validation": ["a", "c"], "test": ["c", "d"]}, sizes, 0.01, ids)
    told = {problem.key: problem for problem in problems}
    assert told["dataset.validation"].what == "1 of the 2 rows of validation is also in train"
    assert (
        "dataset.clean.leaks=true leaves them out of train, or dataset.max_overlap=1" in told["dataset.validation"].hint
    )
    assert told["dataset.test"].what == "1 of the 2 rows of test is also in validation"
    hint = "remove them from validation or test (dataset.clean.leaks is for train only), or dataset.max_overlap=1"
    assert hint in told["dataset.test"].hint


def test_a_leak_into_a_split_that_is_taken_from_train_is_cleaned_out_of_train(write: Write) -> None:
    """Then all that the hint says must be typed: `train` itself is the file that shares rows with validation."""
    write("train.csv", csv([(f"text {i}", str(i % 2)) for i in range(40)]))
    write("validation.csv", csv([(f"TEXT {i}", str(i % 2)) for i in range(40)]))
    keys = {"train": "train.csv", "validation": "validation.csv", "split": {"validation": 0, "test": 0.5}}
    with pytest.raises(UserError) as error:
        load(of(**keys), Texts())
    told = {problem.key: problem.hint for problem in error.value.problems}
    hint = "dataset.clean.leaks=true leaves them out of train, from which test is taken, or dataset.max_overlap=1"
    assert hint in told["dataset.test"]
    write("validation.csv", csv([(f"TEXT {i}", str(i % 2)) for i in range(20)]))
    data = load(of(**keys, clean={"leaks": True}), Texts())
    assert {name: len(rows) for name, rows in data.splits.items()} == {"train": 10, "validation": 20, "test": 10}


def test_a_group_may_be_a_part_of_an_object(write: Write) -> None:
    rows = [{"who": {"name": f"p{i // 4}", "age": i}, "label": "ab"[i % 2]} for i in range(80)]
    write("a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    write("b.jsonl", "".join(json.dumps(row) + "\n" for row in [{"who": {"name": "q", "age": 99}, "label": "a"}] * 2))
    data = load(of(format="json", train="a.jsonl", test="b.jsonl", columns={"group": "who.name"}), Cells())
    parts = [{rows["group"] for rows in data[name]} for name in ("train", "validation", "test")]
    assert not parts[0] & parts[1]
    assert parts[2] == {"q"}
    assert {key for name in data.splits for row in data[name]["features"] for key in row} == {"who.age"}


def test_a_split_that_few_texts_leave_empty_says_why(write: Write) -> None:
    write("a.csv", csv([("same", "a"), ("other", "b")] * 10))
    with pytest.raises(UserError, match=r"It has 2 different inputs; equal ones stay in one split. Name files"):
        load(of(train="a.csv"), Texts())


def test_marks_in_the_label_of_a_table_are_named_by_row(write: Write) -> None:
    write("a.csv", csv([("1", "p"), ("2", "NA"), ("3", "?"), ("4", "n"), ("5", "nan")], "a,label"))
    with pytest.raises(UserError) as error:
        load(of(train="a.csv"), Cells())
    found = [(problem.key, problem.what) for problem in error.value.problems]
    assert found[:-1] == [(f"a.csv:{line}", "has no label (train)") for line in (3, 4, 6)]
    assert found[-1][0] == "dataset.drop_unlabeled"
