"""Which value wins if several places set a key, as data for `llmft explain` and docs/config.md."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Layer:
    """A kind of place that sets keys."""

    where: str
    """The kind of place, for the table in docs/config.md."""
    why: str
    """Why it wins over the layers before it."""


LAYERS = {
    "default": Layer("the default of the key, in `llmft/schema` or `llmft/tasks`", "No other place sets it."),
    "option": Layer(
        "the option of a group, `GROUP/NAME.yaml` in `configs`",
        "The option of a group wins over the default of a key.",
    ),
    "recipe": Layer("a recipe", "A recipe wins over the options of groups and over recipes that it includes."),
    "path": Layer("a `model.path` set by a recipe or typed", "Values for another model do not apply to this path."),
    "own": Layer(
        "an `optimizer` or `scheduler` chosen on the command line",
        "It brings its own values, which replace those that a recipe sets for another one.",
    ),
    "run": Layer(
        "for `eval`, `predict`, `chat` and `export`: `RUN/config.yaml`",
        "A command that works from a run uses the run's value.",
    ),
    "again": Layer("a group chosen again for a run, such as `dataset=csv`", "The option replaces the run's section."),
    "word": Layer("`KEY=VALUE` on the command line", "The command line wins over recipes and options."),
    "implied": Layer(
        "what follows from a file on the command line, such as `dataset=json`", "The file determines how it is read."
    ),
    "swept": Layer(
        "`hydra.sweeper.params` of a recipe, in the jobs of a sweep", "A job of a sweep uses the swept value."
    ),
    "derived": Layer("what follows from other keys, such as `name` from the task", "No file and no override sets it."),
    "smoke": Layer("`smoke=true`", "smoke=true makes the model, the data, and the number of steps small."),
}
"""From the weakest to the strongest."""


@dataclass(frozen=True)
class Group:
    """The rules for the section of one group."""

    which: str = ""
    """The key that identifies the option. If a recipe sets it itself, choosing another option on the command line has
    no effect, which is an error."""
    own_values: bool = False
    """Whether an option chosen on the command line replaces the values of a recipe."""
    kept: tuple[str, ...] = ()
    """The parts of a run's section that stay if the group is chosen again."""
    rule: str = ""
    """The rules in words; empty if only LAYERS applies."""


GROUPS = {
    "task": Group(which="name"),
    "model": Group(
        which="path",
        rule="A new `model.path` resets `name`, `sha256`, `architecture`, `init`, and `config`, which the option or "
        "the recipe had set for another model. Keys set together with it apply.",
    ),
    "adapter": Group(which="name"),
    "augment": Group(which="name", own_values=True, rule="As for `optimizer`."),
    "dataset": Group(
        which="format",
        # The columns and the cleaning that the model was trained with.
        kept=("columns", "clean", "ignore"),
        rule="Files on the command line choose the option that reads them, unless one is chosen. `eval`, `predict`, "
        "and `export` on other data keep the run's `columns`, `clean`, and `ignore`, except for keys that are typed.",
    ),
    "optimizer": Group(
        which="name",
        own_values=True,
        rule="An option chosen on the command line brings its own values, which replace those that a recipe sets for "
        "another optimizer. Keys on the command line win over both.",
    ),
    "scheduler": Group(which="name", own_values=True, rule="As for `optimizer`."),
}


@dataclass(frozen=True)
class Setting:
    """One place that sets a key."""

    key: str
    value: Any
    """The value as written there; references are texts."""
    place: str
    """`FILE:LINE`, or `command line`."""
    layer: str
    """A key of LAYERS."""
    by: str = ""
    """The override that it comes from, such as `optimizer=sgd`."""


def history(settings: list[Setting], key: str) -> list[Setting]:
    """The settings of one key, the last one wins. Includes settings of a table around it that contain the key."""
    found = []
    for setting in settings:
        if setting.key == key:
            found.append(setting)
        elif key.startswith(f"{setting.key}.") and setting.place == COMMAND_LINE:
            value = setting.value
            for part in key.removeprefix(f"{setting.key}.").split("."):
                value = value.get(part) if isinstance(value, dict) else None
            if value is not None:
                found.append(Setting(key, value, setting.place, setting.layer, setting.by))
    return found


@dataclass(frozen=True)
class Origin:
    """Where dotted keys were set."""

    of: Callable[[str], str]
    """`command line` or `FILE:LINE`. Takes 0.4 s, so that only error messages call it."""
    given: frozenset[str] = frozenset()
    """The keys set on the command line."""
    chosen: frozenset[str] = frozenset()
    """The groups whose option the command line chooses."""

    def __call__(self, key: str) -> str:
        """Where `key` was set."""
        return self.of(key)

    def typed(self, key: str) -> bool:
        """Whether the command line sets the key, or a table around it."""
        return any(key == word or key.startswith(f"{word}.") for word in self.given)
