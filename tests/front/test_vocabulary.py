"""What is read from the source is what pydantic says."""

from typing import Any, get_args

import pytest

from llmft.config.check import keys
from llmft.config.docs import descriptions
from llmft.front.vocabulary import vocabulary
from llmft.schema.config import Config
from llmft.schema.section import section_of
from llmft.schema.tasks import task_types


def fields(task: Any) -> dict[str, tuple[str, Any]]:
    """Each plain key: its text, and its default."""
    found = {}
    for key in keys(Config, task=task):
        *path, name = key.split(".")
        section: Any = Config
        for part in path:
            section = task if part == "task" else section_of(section.model_fields[part].annotation)
        field = section.model_fields[name]
        if name != "task" and not section_of(field.annotation):
            default = None if field.is_required() else field.get_default(call_default_factory=True)
            found[key] = (" ".join(descriptions(section).get(name, "").split()), default)
    return found


def test_every_key_is_known_and_no_other() -> None:
    assert set(vocabulary()) == {key for task in task_types().values() for key in fields(task)}


@pytest.mark.parametrize("task", task_types())
def test_texts_and_defaults(task: str) -> None:
    for key, (text, default) in fields(task_types()[task]).items():
        if not key.startswith("task."):
            assert vocabulary()[key].text == text, key
            shown = list(default) if isinstance(default, tuple) else default
            shown = str(shown).lower() if isinstance(shown, bool) else str(shown)
            assert vocabulary()[key].default in (shown, ""), key
            assert vocabulary()[key].default or default in (None, "", {}, []) or isinstance(default, list | dict), key


def test_values() -> None:
    known = vocabulary()
    assert known["hardware.precision"].values == get_args(
        Config.model_fields["hardware"].annotation.model_fields["precision"].annotation
    )  # type: ignore[union-attr]
    assert known["smoke"].values == ("true", "false")
    assert known["trainer.eval_every"].values == ("epoch",)
    assert known["optimizer.lr"].values == ()
