"""A task and an architecture of somebody else's package, found by entry points."""

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from llmft.schema.problem import UserError
from llmft.tasks import optional
from llmft.tasks.objective import Objective
from llmft.tasks.targets.target import Target
from llmft.tasks.task import RENAMED, RowScore, State, Task

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str], Path]

MODULE = '''
from typing import ClassVar, Literal
from llmft.tasks.tables.config import Tabular as Section
from llmft.tasks.tables.tabular import Tabular


class ShoutConfig(Section):
    """A table whose labels are shouted."""

    name: Literal["shout"] = "shout"
    """A table whose labels are shouted."""

    loudness: int = 1
    """How loud."""


class Shout(Tabular):
    config = ShoutConfig

    def synthetic_rows(self, rows, seed):
        found = super().synthetic_rows(rows, seed)
        return found | {"label": [label.upper() + "!" * self.options.loudness for label in found["label"]]}
'''


@pytest.fixture
def package(install: Callable[..., None]) -> None:
    install("shout_package", MODULE, "shout", "shout_package:Shout")


def test_a_task_of_another_package_is_trained_and_scored(package: None, llmft: Run, here: Path) -> None:
    words = ("+recipe=tabular_mlp", "smoke=true", "run.dir=run", "task.name=shout", "++task.loudness=2")
    code, out, err = llmft("finetune", *words)
    assert code == 0, err
    assert "shout, 2 labels: HEAVY!!, LIGHT!!" in out
    assert llmft("eval", "run", "run.dir=again")[0] == 0


def test_its_keys_are_checked_like_ours(package: None, llmft: Run) -> None:
    code, _, err = llmft("finetune", "+recipe=tabular_mlp", "task.name=shout", "++task.loudnes=2")
    assert code == 2
    assert "Did you mean task.loudness?" in err


def test_without_the_package_the_known_tasks_are_named(llmft: Run) -> None:
    code, _, err = llmft("finetune", "+recipe=tabular_mlp", "task.name=shout")
    assert code == 2
    assert "no task called shout" in err
    assert "tabular, text_classification" in err


def test_a_metric_of_its_own_has_a_direction_that_no_other_contradicts(package: None, llmft: Run, write: Write) -> None:
    words = ("+recipe=tabular_mlp", "smoke=true", "task.name=shout", "trainer.metric_for_best=ears", "--cfg", "job")
    code, _, err = llmft("finetune", *words)
    assert (code, "must be a metric, got ears" in err) == (2, True)
    declared = MODULE.replace("    loudness", '    own_metrics: ClassVar = {"ears": True}\n    loudness')
    assert declared != MODULE
    write("site/shout_package.py", declared)
    sys.modules.pop("shout_package", None)
    code, _, err = llmft("finetune", *words)
    assert code == 0, err
    write("site/shout_package.py", declared.replace('"ears": True', '"perplexity": True'))
    sys.modules.pop("shout_package", None)
    code, _, err = llmft("finetune", *words)
    assert code == 2
    assert "shout_package:Shout" in err
    assert (
        "own_metrics must have False for perplexity, which llmft knows, got True. Give your metric another name." in err
    )


def refused(body: str) -> str:
    """What is said of a task with these methods."""
    with pytest.raises(UserError) as caught:
        exec(f"{MODULE}\n{textwrap.indent(body, '    ')}", {"__name__": "shout_package"})
    return str(caught.value)


def test_a_task_of_an_older_version_is_told_the_new_names(package: None, llmft: Run, write: Write) -> None:
    """Else its methods would never be called, and the defaults would answer in their place."""
    old = MODULE.replace("def synthetic_rows(self, rows, seed)", "def synthetic(self, rows, seed)")
    old += "    state = dict\n\n    def encode(self, rows, state):\n        return {}\n"
    write("site/shout_package.py", old)
    code, _, err = llmft("finetune", "+recipe=tabular_mlp", "smoke=true", "task.name=shout")
    assert code == 2
    assert "shout_package.Shout" in err
    assert "synthetic is now called synthetic_rows" in err
    assert "encode takes no state: what was learned is self.state" in err
    assert "the class of the state is now called state_class" in err


@pytest.mark.parametrize("name", RENAMED)
def test_each_method_of_an_older_version_has_its_place(name: str) -> None:
    found = refused(f"def {name}(self):\n    return None")
    assert f"shout_package.Shout  {name} {RENAMED[name]}" in found
    # What it is called now, or what it is a part of, is there.
    places = (Task, State, RowScore, Target, Objective, *vars(optional).values())
    new = RENAMED[name].removeprefix("is now ").partition(";")[0]
    if new.startswith(("called ", "a part of ")):
        method = new.removeprefix("called ").removeprefix("a part of ").split()[0].strip(",")
        assert any(hasattr(place, method) for place in places), method


def test_a_state_saves_and_loads_its_fields() -> None:
    assert "state_class must inherit llmft.tasks.task.State" in refused("state_class = dict")


@pytest.mark.parametrize(
    ("now", "before"),
    [
        ("llmft.tasks.tables.config import", "llmft.schema.tasks.tabular import"),
        ("llmft.tasks.tables.tabular import", "llmft.tasks.tabular import"),
    ],
)
def test_a_task_that_imports_from_an_older_place_is_told_the_new_one(
    package: None, llmft: Run, write: Write, now: str, before: str
) -> None:
    assert now in MODULE
    write("site/shout_package.py", MODULE.replace(now, before))
    code, _, err = llmft("finetune", "+recipe=tabular_mlp", "smoke=true", "task.name=shout")
    assert code == 2
    assert f"imports {before.split()[0]}, which has moved" in err
    assert "Import llmft.tasks.tables.tabular for the task and llmft.tasks.tables.config for its section." in err
