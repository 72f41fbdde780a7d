"""`llmft explain`: the value, every place that set it in the order in which they win, and the rule."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmft.config.folders import PACKAGE
from llmft.config.load import load
from llmft.config.precedence import GROUPS, LAYERS
from llmft.front.explain import run
from llmft.front.help import WIDTH
from llmft.runs.folder import as_recipe
from llmft.schema.command import COMMANDS
from llmft.schema.config import Config

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str], Path]
PARENT = "# @package _global_\ndefaults:\n  - override /optimizer: lion\noptimizer:\n  lr: 0.2\n"
CHILD = "# @package _global_\ndefaults:\n  - parent\n  - _self_\nseed: ${trainer.epochs}\noptimizer:\n  lr: 0.3\n"


@pytest.fixture(autouse=True)
def mine(write: Write) -> None:
    write("recipes/parent.yaml", PARENT)
    write("recipes/child.yaml", CHILD)
    write("recipes/r.yaml", "dataset:\n  columns: {label: score}\n")


def places(*words: str) -> list[tuple[Any, str]]:
    """The value and the place of each setting of one key; a line of the package by its file alone."""
    (fact,) = run(list(words))
    return [(one["value"], one["place"]) for one in fact["set"] if one["layer"] != "default"]


LION = (1e-5, "configs/optimizer/lion.yaml:3")
SGD = (0.01, "configs/optimizer/sgd.yaml:3")
CASES: dict[str, list[tuple[Any, str]]] = {
    "optimizer.lr": [(5e-5, "configs/optimizer/adamw.yaml:3")],
    "optimizer.lr +recipe=parent": [LION, (0.2, "recipes/parent.yaml:5")],
    "optimizer.lr recipes/parent.yaml": [LION, (0.2, "recipes/parent.yaml:5")],
    "optimizer.lr +recipe=child": [LION, (0.2, "recipes/parent.yaml:5"), (0.3, "recipes/child.yaml:7")],
    "optimizer.lr +recipe=parent optimizer.lr=1": [LION, (0.2, "recipes/parent.yaml:5"), (1, "command line")],
    "optimizer.lr +recipe=parent optimizer=sgd": [SGD, (0.2, "recipes/parent.yaml:5"), SGD],
    "optimizer.lr pretrain": [(5e-5, "configs/optimizer/adamw.yaml:3")],
    "optimizer.l1": [],
    "seed +recipe=child": [("${trainer.epochs}", "recipes/child.yaml:5")],
    "model.architecture model.path=x": [("bert", "configs/model/minilm.yaml:4"), (None, "command line")],
    "dataset.columns.text dataset=csv dataset.train=a.csv dataset.columns={text:b}": [("b", "command line")],
    "trainer.log_every smoke=true": [(1, "command line")],
    "dataset.columns.label +recipe=r": [("score", "recipes/r.yaml:2")],
    "name": [("text_classification", "")],
    "dataset.columns.text": [],
}


@pytest.mark.parametrize("words", CASES)
def test_every_place_is_named_in_the_order_in_which_they_win(words: str) -> None:
    asked = words.split(" ")
    assert places(*asked) == CASES[words]


SECTIONS = [name for name in Config.model_fields if name not in ("expect", "command", *COMMANDS)]


@pytest.mark.parametrize(
    "words",
    [
        ["+recipe=child"],
        ["+recipe=bert_textcls", "optimizer=sgd", "trainer.epochs=9"],
        ["dataset=csv", "dataset.train=a.csv"],
        ["+recipe=llm_dpo", "search=tpe"],
        ["+recipe=tabular_mlp", "model.path=x"],
        ["+recipe=bert_ner", "smoke=true"],
    ],
)
def test_the_last_place_has_the_value(words: list[str]) -> None:
    """Property: the value is that of the checked configuration, and the last place, a default too, has it."""
    config = load("finetune", words).model_dump(mode="json")
    for fact in run([*SECTIONS, *words]):
        found: Any = config
        for part in fact["key"].split("."):
            found = found[part]
        last = fact["set"][-1]
        assert fact["value"] == found
        assert (last["value"] or None) == (found or None) or "${" in str(last["value"]), fact
        assert last["place"] or last["layer"] != "word"


def test_what_is_printed(llmft: Run) -> None:
    code, out, _ = llmft("explain", "lr", "+recipe=parent", "optimizer.lr=3e-5")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "optimizer.lr = 3e-05"
    assert lines[1].startswith("    Peak learning rate. ")
    lines = lines[lines.index("set by, the last one wins") - 2 :]
    at, line = lines[3].split()[1].split(":")
    assert "lr: float" in (PACKAGE.parent / at).read_text().splitlines()[int(line) - 1], "where the default stands"
    assert lines[3].endswith("  default")
    assert [line.split() for line in lines[5:8]] == [
        ["0.2", "recipes/parent.yaml:5", "+recipe=parent"],
        ["3e-05", "command", "line"],
        ["why"],
    ]
    assert lines[8:] == ["  The command line wins over recipes and options."]
    out = llmft("explain", "trainer", "optimizer.lr", "+recipe=parent")[1]
    assert "\ntrainer.max_steps = null " in out
    assert all(len(line) <= WIDTH for line in out.splitlines())
    code, out, _ = llmft("explain", "seed", "--json")
    assert json.loads(out)["result"][0]["set"] == [{"value": 0, "place": run(["seed"])[0]["set"][0]["place"], "layer": "default", "by": ""}]  # fmt: skip


def test_a_run_has_its_own_values(write: Write) -> None:
    file = write("run/config.yaml", as_recipe(load("finetune", ["optimizer.lr=0.5", "dataset.columns={text: body}"])))
    line = next(n for n, text in enumerate(file.read_text().splitlines(), 1) if text == "  lr: 0.5")
    assert places("optimizer.lr", "run") == [(0.5, f"run/config.yaml:{line}")]
    assert places("optimizer.lr", "predict", "run")[0][0] == 0.5
    words = ["run", "dataset=csv", "dataset.test=new.csv"]
    test = places("dataset.test", *words)
    assert [place for _, place in test][-1] == "command line"
    assert places("dataset.format", *words)[-1] == ("csv", "configs/dataset/csv.yaml:3")
    assert [value for value, _ in places("dataset.columns.text", *words)] == ["body"], "columns are kept"
    assert places("seed", "run", "seed=4")[-1] == (4, "command line")


WRONG = {
    "": "explain  needs a key (command line). Write llmft explain",
    "lrr": "lrr  no such key (command line). Did you mean optimizer.lr?",
    "optimizer.lrr": "optimizer.lrr  no such key for task=text_classification (command line). Did you mean optimizer.lr",
    "task.beta": "task.beta  no such key for task=text_classification (command line). It is a key of task=preference.",
    "seed nosuch": "nosuch  no such folder, and no run of this name",
    "seed -m": "-m  no such flag",
    "seed optimizer.lrr=1": "optimizer.lrr  no such key (command line). Did you mean optimizer.lr?",
    "seed trainer.epochs=${nope}": "trainer.epochs  ${nope} refers to no key (command line)",
}


@pytest.mark.parametrize("words", WRONG)
def test_what_cannot_be_explained(words: str, llmft: Run) -> None:
    code, out, err = llmft("explain", *words.split())
    assert (code, out) == (2, "")
    assert WRONG[words] in err


def test_a_key_of_one_task_is_explained_for_it() -> None:
    assert run(["task.beta", "task=preference"])[0]["value"] > 0


def test_the_rules_stand_in_the_documentation() -> None:
    page = (PACKAGE.parent / "docs/config.md").read_text(encoding="utf-8")
    for layer in LAYERS.values():
        assert f"| {layer.where} | {layer.why} |" in page
    assert all(f"| `{name}` | {group.rule} |" in page for name, group in GROUPS.items() if group.rule)


def test_every_layer_is_one_that_something_uses(write: Write) -> None:
    write("a.json", '[{"text": "a", "label": "b"}]')
    write("run/config.yaml", yaml.safe_dump(load("finetune", []).model_dump(mode="json")))
    seen = set()
    for words in (["optimizer", "name"], ["optimizer.lr", "+recipe=parent", "optimizer=sgd"], ["model.init", "model.path=x"], ["seed", "run", "seed=3"], ["dataset.format", "run", "dataset=csv", "dataset.test=a.csv"], ["dataset.format", "dataset.train=a.json"], ["trainer.max_steps", "smoke=true"]):  # fmt: skip
        seen |= {one["layer"] for fact in run(words) for one in fact["set"]}
    assert seen == set(LAYERS) - {"swept"}
