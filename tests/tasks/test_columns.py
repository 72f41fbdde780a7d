"""What the columns of a table are taken for, and what becomes of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from pydantic import ValidationError

from llmft.commands.label import with_label
from llmft.config.load import load
from llmft.schema.problem import UserError
from llmft.tasks.tables.columns import TableColumns, learn_columns
from llmft.tasks.tables.config import Tabular as Options
from llmft.tasks.tables.number_columns import form_of, numbers_of
from llmft.tasks.tables.tabular import TableState, Tabular
from llmft.tasks.targets.single_label import SingleLabel

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str], Path]
ROWS = 40
TABLE = {
    "id": [1000 + row for row in range(ROWS)],
    "age": [row % 7 for row in range(ROWS)],
    "town": ["x" if row % 2 else "y" for row in range(ROWS)],
    "opened": [f"{row % 28 + 1:02}.01.2024" for row in range(ROWS)],
    "version": [1] * ROWS,
    "nothing": [None, "?"] * (ROWS // 2),
    "remark": [f"remark {row}" for row in range(ROWS)],
}


def rows(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def learnt(columns: dict[str, list[Any]] = TABLE, **options: Any) -> TableColumns:
    return learn_columns(rows(columns), Options(**options))


def test_columns_are_told_apart_and_said() -> None:
    assert learnt().notes() == [
        "columns: 1 number: age; 1 category: town; 1 date: opened (DD.MM.YYYY)",
        "left out: id (it numbers the rows), version (always '1'), nothing (always empty), "
        "remark (no value stands in 2 rows)",
    ]


WISHES = {
    "an id that is wanted": ({"numbers": ["id"]}, "numbers", ["id", "age"]),
    "numbers as categories": ({"categories": ["age"]}, "categories", ["age", "town"]),
    "dates as categories": ({"categories": ["opened"]}, "categories", ["town", "opened"]),
    "a constant that is wanted": ({"categories": ["version"]}, "categories", ["town", "version"]),
    "years as dates": ({"dates": ["opened"]}, "dates", ["opened"]),
    "a column to leave out": ({"ignore": ["town"]}, "categories", []),
    "values that stand in one row": ({"min_count": 1}, "categories", ["town", "remark"]),
}


@pytest.mark.parametrize("name", WISHES)
def test_the_user_knows_better(name: str) -> None:
    options, kind, expected = WISHES[name]
    assert list(getattr(learnt(**options), kind)) == expected


NUMBERING = {
    "from 0": (range(40), True),
    "downwards": (range(40, 0, -1), True),
    "with a share gone to other splits": ([n for n in range(50) if n % 4], True),
    "sorted, but far apart": (range(0, 400, 10), False),
    "in any order": ([*range(20, 40), *range(20)], False),
    "too few to tell": (range(10), False),
    "halves": ([n / 2 for n in range(40)], False),
}


@pytest.mark.parametrize("name", NUMBERING)
def test_what_numbers_the_rows_is_no_feature(name: str) -> None:
    values, expected = NUMBERING[name]
    table = {"n": list(values), "other": [n % 2 for n in range(len(values))]}
    assert ("n" in learnt(table).left_out) == expected


def test_a_table_of_such_a_column_alone_keeps_it() -> None:
    assert list(learnt({"x": list(range(40)), "same": ["a"] * 40}).numbers) == ["x"]


def test_a_table_without_anything_to_learn_says_why() -> None:
    with pytest.raises(UserError, match=r"no column is left to learn from: same \(always 'a'\), x \(task.ignore\)"):
        learnt({"same": ["a"] * 4, "x": [1, 2, 3, 4]}, ignore=["x"])


def test_a_column_is_of_one_kind() -> None:
    with pytest.raises(
        ValidationError, match="numbers, categories, dates, texts and ignore must name a column once, got 'age' twice"
    ):
        Options(numbers=["age"], ignore=["age"])


@pytest.mark.parametrize("key", ["numbers", "categories", "dates", "ignore"])
def test_a_column_that_is_not_there_is_named(key: str) -> None:
    with pytest.raises(UserError, match="there is no column 'colour'"):
        learnt(**{key: ["colour"]})


def test_rare_and_unseen_values_are_one() -> None:
    columns = learnt({"town": ["x"] * 3 + ["y"] * 2 + ["z"]})
    assert columns.categories == {"town": ["x", "y"]}
    found = columns.encode(rows({"town": ["y", "x", "z", "new", None]}))
    assert found.categories.tolist() == [[2], [1], [0], [0], [0]]


def test_dates_become_numbers_and_holes_are_marked() -> None:
    columns = learnt({"day": ["2024-01-01", "2024-01-03", None, "2024-01-01", "2024-01-03"]})
    assert columns.num_numbers == 5
    found = columns.encode(rows({"day": ["2024-01-03", "", "2024-01-05"]}))
    assert found.numbers[:, 0].tolist() == [1.0, 0.0, 3.0]  # 2 January is the mean, and a day the deviation
    assert found.missing.tolist() == [[0.0] * 5, [1.0] * 5, [0.0] * 5]
    assert (found.numbers[1] == 0).all()
    assert learnt({"day": ["2024-01-01 10:00", "2024-01-02"]}).num_numbers == 7


def test_a_date_that_is_none_is_named_by_row() -> None:
    columns = learnt({"day": ["01.02.2024", "01.03.2024"], "n": [1, 2]})
    table = rows({"day": ["02/01/2024", None, "02.02.2024"], "n": ["1", "one", None]})
    split = Dataset.from_dict({"id": ["t:1", "t:2", "t:3"], "features": table})
    assert [(problem.key, problem.what) for problem in columns.check(split, "test")] == [
        ("t:1", "day is '02/01/2024', not a date like DD.MM.YYYY (test)"),
        ("t:2", "n is 'one', not a number (test)"),
    ]


def test_a_category_is_the_same_as_a_whole_number_and_as_a_fraction() -> None:
    rows = [{"code": code} for code in (1, 1, 2, 2)]
    columns = learn_columns(rows, Options(categories=["code"]))
    written = columns.encode([{"code": cell} for cell in (1, 1.0, "1", 2.0, 3.5)]).categories.tolist()
    assert written == [[1], [1], [1], [2], [0]]


def test_the_state_of_an_older_run_is_read(here: Path) -> None:
    """Before there were dates, scales other than the standard one, and columns that are left out."""
    older = {"format": 1, "labels": ["a", "b"], "numbers": {"n": [2.0, 0.5]}, "categories": {"c": ["x"]}}
    (here / "task.json").write_text(json.dumps(older))
    state = TableState.load(here)
    assert state.target == SingleLabel(["a", "b"])
    found = state.columns.encode([{"n": "3", "c": "x"}])
    assert (found.numbers.tolist(), found.categories.tolist()) == ([[2.0]], [[1]])


GUESSES = {
    "its name": ("Class,a,b", [], "label: 'Class', by its name"),
    "the first of its names": ("y,target,b", [], "label: 'target', by its name"),
    "its place": ("a,b,left", [], "label: 'left', the last column"),
    "columns that are spoken for": ("a,b,left", ["task.ignore=[left]", "task.numbers=[b]"], "label: 'a', the last column"),
    "features that are named": ("a,b,left", ["dataset.columns.features=[left,a]"], "label: 'b', the last column"),
    "no guess, for there is a label": ("a,label,b", [], ""),
    "no guess, for one is named": ("a,b,left", ["dataset.columns.label=a"], ""),
}  # fmt: skip


@pytest.mark.parametrize("by", GUESSES)
def test_the_label_is_guessed_by(by: str, write: Write) -> None:
    header, more, said = GUESSES[by]
    write("t.csv", f"{header}\n1,2,3\n")
    config = load("finetune", ["+recipe=tabular_mlp", "dataset=csv", "dataset.train=t.csv", *more])
    found, notes = with_label(config)
    assert [note.partition(";")[0] for note in notes] == ([said] if said else [])
    if said:
        assert f"label: {found.dataset.columns['label']!r}" in said
    assert with_label(found) == (found, [])


@pytest.mark.parametrize("words", [["dataset.train=none.csv"], ["dataset.train=t.csv", "dataset.encoding=utf-16"]])
def test_nothing_is_guessed_of_a_file_that_cannot_be_read(words: list[str], write: Write) -> None:
    write("t.csv", "a,b\n1,2")
    config = load("finetune", ["+recipe=tabular_mlp", "dataset=csv", *words])
    assert with_label(config) == (config, [])


def test_a_guessed_label_is_kept(llmft: Run, write: Write, here: Path) -> None:
    lines = [f"{row % 5},{row % 3},{'yes' if row % 2 else 'no'}" for row in range(60)]
    write("t.csv", "\n".join(["a,b,left", *lines]) + "\n")
    words = ("+recipe=tabular_linear", "smoke=true", "dataset=csv", "dataset.train=t.csv", "dataset.max_overlap=1")
    code, out, err = llmft("finetune", *words, "run.dir=run")
    assert code == 0, err
    assert "label: 'left', the last column" in out
    assert "tabular, 2 labels: no, yes" in out
    # Now it is known: a file whose last column is another.
    write("new.csv", f"a,b,left,more\n{lines[0]},0\n{lines[1]},1\n")
    code, _, err = llmft("eval", "run", "dataset=csv", "dataset.test=new.csv", "run.dir=again")
    assert code == 0, err
    assert "is finished" in llmft("finetune", *words, "run.dir=run", "resume=true")[1]


NOT_THE_LABEL = {
    "a group": ("a,left,who", ["dataset.columns.group=who"], "left"),
    "a column with a use": ("a,left,who", ["task.ignore=[who]"], "left"),
    "the last where one is called so": ("Label,a,b", [], "Label"),
}


@pytest.mark.parametrize("name", NOT_THE_LABEL)
def test_what_plays_another_part_is_not_guessed(name: str, write: Write) -> None:
    header, words, label = NOT_THE_LABEL[name]
    write("t.csv", f"{header}\n1,2,3\n")
    config, _ = with_label(load("finetune", ["+recipe=tabular_linear", "dataset=csv", "dataset.train=t.csv", *words]))
    assert config.dataset.columns["label"] == label


def test_the_label_of_a_sweep_is_guessed_once(llmft: Run, write: Write) -> None:
    write("t.csv", "a,b,left\n" + "".join(f"{row % 5},{row % 3},{row % 2}\n" for row in range(60)))
    words = ("+recipe=tabular_linear", "smoke=true", "dataset=csv", "dataset.train=t.csv", "dataset.max_overlap=1")
    code, out, err = llmft("finetune", "-m", *words, "seed=0,1")
    assert code == 0, err
    assert out.count("label: 'left', the last column") == 1


FORMS = {
    "digits": (["12", "9500", "1e3"], "1234.5", "", [12, 9500, 1000]),
    "groups of thousands": (["9,500", "12", "1,234,567.5"], "1,234.5", "", [9500, 12, 1234567.5]),
    "groups of India": (["1,23,456", "12,34,567.5"], "1,234.5", "", [123456, 1234567.5]),
    "a comma for the decimals": (["12,5", "0,125", "3"], "1.234,5", "", [12.5, 0.125, 3]),
    "points for thousands": (["1.200,50", "1.200", "7"], "1.234,5", "", [1200.5, 1200, 7]),
    "spaces": (["1 200", "12\u202f000,5"], "1 234,5", "", [1200, 12000.5]),
    "apostrophes": (["1'200.50", "7"], "1'234.5", "", [1200.5, 7]),
    "dollars": (["$489", "$1,200.50", "-$5", "7"], "1,234.5", "$", [489, 1200.5, -5, 7]),
    "euros": (["1.200,50 €", "€7"], "1.234,5", "€", [1200.5, 7]),
    "rupees and yuan alike": (["¥5", "12¥"], "1234.5", "¥", [5, 12]),
    "percent": (["12%", "7.5 %", "0"], "1234.5", "%", [12, 7.5, 0]),
    "flags": ([True, "FALSE", 1, "0"], "true/false", "", [1, 0, 1, 0]),
}


@pytest.mark.parametrize("name", FORMS)
def test_numbers_are_read_as_they_are_written(name: str) -> None:
    cells, style, sign, numbers = FORMS[name]
    assert form_of(cells) == ({"style": style, "sign": sign}, len(cells))
    assert numbers_of(cells, form_of(cells)[0]).tolist() == numbers


UNREAD = {
    "either a thousand or one and a fifth": ["€1.200", "€3.500"],
    "two currencies": ["$5", "€5"],
    "some percent": ["12%", "0.5"],
    "half a number": ["1.5万", "2万"],
    "underscores": ["1_01", "1_02"],
    "two decimals": ["1.2.3", "1,2,3"],
}


@pytest.mark.parametrize("name", UNREAD)
def test_what_is_not_clear_is_no_number(name: str) -> None:
    assert form_of(UNREAD[name])[1] < 2


def test_a_number_of_json_is_one_whatever_the_text_would_be() -> None:
    assert numbers_of([1.234, "1.234"], {"style": "1.234,5", "sign": ""}).tolist() == [1.234, 1234]


def test_how_numbers_were_read_is_said_and_kept() -> None:
    columns = learnt({"pay": ["$9,500", "$12,000"] * 10, "town": ["a", "b"] * 10})
    assert columns.notes()[-1] == "pay is read as numbers: '$9,500' is 9500"
    assert columns.encode([{"pay": "$12,000.0", "town": "a"}, {"pay": 9500, "town": "b"}]).numbers[:, 0].tolist() == [
        1,
        -1,
    ]


CODES = {
    "postal codes": (["02134", "10115", None, " 00501"], "'02134' is 2134"),
    "months": (["08", "12", "0.75", "0"], None),
    "numbers of JSON": ([2134, 10115, 0.0125, 0], None),
}


@pytest.mark.parametrize("name", CODES)
def test_numbers_that_begin_with_zero_may_be_codes(name: str) -> None:
    cells, example = CODES[name]
    table = {"zip": cells * 5, "town": ["a", "b"] * 10}
    hint = "if the zeros count, write task.categories=[zip]"
    expected = [f"zip is read as numbers: {example}; {hint}"] if example else []
    assert (list(learnt(table).numbers), learnt(table).remarks) == (["zip"], expected)
    assert learnt(table, categories=["town"]).remarks == [note.replace("[zip]", "[town,zip]") for note in expected]
    assert learnt(table, categories=["zip"]).remarks == learnt(table, numbers=["zip"]).remarks == []


NEARLY = {
    "a dash": (
        ["1", "2", "3", "—"] * 10,
        "x: 30 of 40 cells are numbers, the others are such as '—', so that it is a category; if they stand for no value, write task.missing=['—']",
    ),
    "another unit": (
        [*map(str, range(30)), "1.5万", "2万", "3万"],
        "x: 30 of 33 cells are numbers, the others are such as '1.5万', '2万', '3万', so that it is a category; if they stand for no value, write task.missing=['1.5万','2万']",
    ),
    "many words": (["1", "2", "a", "b", "c"] * 8, None),
    "dates and a word": (
        ["2024-01-01", "2024-02-01", "2024-03-01", "unknown"] * 5,
        "x: 15 of 20 cells are dates, the others are such as 'unknown', so that it is a category; if they stand for no value, write task.missing=['unknown']",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NEARLY)
def test_a_column_of_numbers_but_for_a_few_cells_is_named(name: str) -> None:
    cells, note = NEARLY[name]
    columns = learnt({"x": cells, "town": ["a", "b"] * (len(cells) // 2) + ["a"] * (len(cells) % 2)})
    assert columns.remarks == ([note] if note else [])


def test_marks_of_ones_own_are_missing() -> None:
    cells = ["1", "—", "3", "-1"] * 10
    columns = learnt({"x": cells, "town": ["a", "b", "—", "b"] * 10}, missing=["—", "-1"])
    assert (list(columns.numbers), columns.categories) == (["x"], {"town": ["b", "a"]})
    found = columns.encode([{"x": "—", "town": "—"}, {"x": -1, "town": "b"}, {"x": 3, "town": "a"}])
    assert (found.missing[:, 0].tolist(), found.categories[:, 0].tolist()) == ([1, 1, 0], [0, 1, 2])
    assert columns.check(Dataset.from_dict({"id": ["t:1"], "features": [{"x": "—", "town": "a"}]}), "test") == []


SUSPICIOUS = {
    "rising": ([n * 10 for n in range(40)], "it rises from row to row"),
    "falling": ([-n / 3 for n in range(40)], "it falls from row to row"),
    "drawn without repeats": ([n * 37 % 101 for n in range(101)], "no two rows have the same, and hardly a number is left out"),
    "with repeats": ([n % 50 for n in range(100)], None),
    "far apart": ([n * 7919 % 100003 for n in range(100)], None),
}  # fmt: skip


@pytest.mark.parametrize("name", SUSPICIOUS)
def test_a_column_that_may_number_the_rows_is_named(name: str) -> None:
    cells, why = SUSPICIOUS[name]
    columns = learnt({"x": cells, "town": ["a", "b"] * (len(cells) // 2) + ["a"] * (len(cells) % 2)})
    expected = [f"x may be no feature: {why}; to leave it out, write task.ignore=[x]"] if why else []
    assert (list(columns.numbers), columns.remarks) == (["x"], expected)
    assert learnt({"x": cells, "y": cells[::-1]}, numbers=["x"]).remarks[:1] != expected or not expected


def test_lists_are_refused_by_name_or_left_out() -> None:
    table = {"vec": ["[0.1, 0.2]", "[0.3, 0.4]"] * 5, "n": [1, 2] * 5}
    with pytest.raises(UserError, match=r"vec holds lists, such as \[0.1, 0.2\], .* task.ignore=\[vec\]"):
        learnt(table)
    assert learnt(table, ignore=["vec"]).left_out == {"vec": "task.ignore"}
    assert list(learnt(table, categories=["vec"]).categories) == ["vec"]


def test_parts_of_an_object_are_named_together() -> None:
    table = {"who.age": [1, 2] * 5, "who.zip": ["a", "b"] * 5, "n": [1, 2] * 5}
    assert list(learnt(table, ignore=["who"]).left_out) == ["who.age", "who.zip"]


def test_values_that_are_mostly_new_are_said() -> None:
    columns = learnt({"town": ["Ulm", "Bonn"] * 5, "n": [1, 2] * 5})

    def notes(*towns: Any) -> list[str]:
        rows = [{"town": town, "n": 1} for town in towns]
        return columns.notes_of_rows(Dataset.from_dict({"id": list(map(str, towns)), "features": rows}), "test")

    assert notes("Ulm", "Kiel") == notes(None, "NA", "Bonn") == []
    assert notes("Jena", "Kiel", "Ulm", None) == [
        "test: 2 of 3 values of town are new, such as 'Jena'; those of training are 'Ulm', 'Bonn'"
    ]


def test_a_run_of_an_earlier_version_answers_as_it_was_trained(here: Path) -> None:
    """It kept categories with their spaces, `True` for true, `#N/A` for a value, and took true for 1 in numbers."""
    older = {"format": 2, "target": {"problem": "single_label", "labels": ["a", "b"]}, "numbers": {"flag": [0.0, 1.0]}}
    older |= {"categories": {"c": [" Ulm", "True", "#N/A", "3.0"]}, "dates": {}, "scaling": "standard", "left_out": {}}
    (here / "task.json").write_text(json.dumps(older))
    columns = TableState.load(here).columns
    cells = ["Ulm", True, "true", "#N/A", 3, "3.0", "new", None]
    found = columns.encode([{"flag": True, "c": cell} for cell in cells])
    assert found.categories[:, 0].tolist() == [1, 2, 2, 3, 4, 4, 0, 0]
    assert found.numbers[0].tolist() == [1.0]


def test_bins_are_learnt_of_what_a_model_sees(here: Path) -> None:
    """Of scaled numbers and of each part of a date, those that are missing left out; they are kept with the state."""
    days = [f"2024-0{month}-01" for month in range(1, 7)]
    columns = learnt({"n": [0, 10, None, 20, 20, 30], "day": days}, bins=4)
    mean, deviation = columns.numbers["n"]
    assert columns.bin_edges[0] == pytest.approx([(value - mean) / deviation for value in (0, 10, 20, 30)], abs=1e-6)
    assert len(columns.bin_edges) == columns.num_numbers == 6
    state = TableState(SingleLabel(["x", "y"]), columns)
    state.save(here)
    again = TableState.load(here)
    assert again.columns.bin_edges == columns.bin_edges
    assert Tabular(Options()).with_state(again).model_kwargs()["bin_edges"] == columns.bin_edges
    assert "bin_edges" not in Tabular(Options()).with_state(TableState(state.target, learnt())).model_kwargs()


@pytest.mark.parametrize(("cell", "wrong"), [(1e300, True), ("-1e40", True), (1e12, False), (None, False)])
@pytest.mark.parametrize("scaling", ["standard", "quantile"])
def test_a_number_that_float32_cannot_hold_is_its_row_s_error(cell: Any, wrong: bool, scaling: Any) -> None:
    """Scores of it would be NaN; on a scale of quantiles, which ends, it is one of the largest."""
    found = learnt(scaling=scaling)
    table = Dataset.from_dict(
        {"id": ["t:1", "t:2"], "features": [TABLE_ROW | {"age": "3"}, TABLE_ROW | {"age": cell and str(cell)}]}
    )
    problems = found.check(table, "test")  # type: ignore[arg-type]
    assert [problem.key for problem in problems] == ["t:2"] * (wrong and scaling == "standard")
    if problems:
        near = "not a number within 1e+15 standard deviations of those of training"
        assert problems[0].what == f"age is {str(cell)!r}, {near} (test)"


TABLE_ROW = {"id": "1", "town": "x", "opened": "01.01.2024", "version": "1", "nothing": "", "remark": "a"}
