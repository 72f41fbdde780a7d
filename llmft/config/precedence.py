"""Which value wins where several places set a key, as data for `llmft explain` and docs/config.md; who set it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Layer:
    """A kind of place that sets keys."""

    where: str
    """Where such a value stands."""
    why: str
    """Why it wins over those before it."""


LAYERS = {
    "default": Layer("the default of the key, in `llmft/schema` or `llmft/tasks`", "Nothing else sets it."),
    "option": Layer(
        "the option of a group, `GROUP/NAME.yaml` in `configs`",
        "The option of a group wins over the default of a key.",
    ),
    "recipe": Layer("a recipe", "A recipe wins over the options of groups, and over the recipes that it starts from."),
    "path": Layer("a `model.path` of one's own", "What is known of another model does not hold for this path."),
    "own": Layer(
        "an `optimizer` or `scheduler` chosen on the command line",
        "It has its own values, and not those that a recipe has for another one.",
    ),
    "run": Layer(
        "for `eval`, `predict`, `chat` and `export`: `RUN/config.yaml`",
        "A command that works from a run takes the run's value.",
    ),
    "again": Layer("a group chosen again for a run, such as `dataset=csv`", "The option replaces the run's section."),
    "word": Layer("`KEY=VALUE` on the command line", "The command line wins over recipes and options."),
    "implied": Layer(
        "what a file named on the command line stands for, such as `dataset=json`", "The file says how it is read."
    ),
    "swept": Layer(
        "`hydra.sweeper.params` of a recipe, in the jobs of a sweep", "A job of a sweep has the sweep's value."
    ),
    "derived": Layer("what follows from other keys, such as `name` from the task", "No place sets it."),
    "smoke": Layer("`smoke=true`", "smoke=true makes the model, the data and the number of steps small."),
}
"""From the weakest to the strongest."""


@dataclass(frozen=True)
class Group:
    """What holds for the section of one group."""

    which: str = ""
    """The key that says which option it is. A recipe that sets it itself leaves a choice of the command line no
    effect, which is refused."""
    own_values: bool = False
    """Whether an option that the command line chooses brings its values in place of those of a recipe."""
    kept: tuple[str, ...] = ()
    """What a run keeps of the section where the group is chosen again."""
    rule: str = ""
    """The same for people; empty where nothing but LAYERS holds."""


GROUPS = {
    "task": Group(which="name"),
    "model": Group(
        which="path",
        rule="A `model.path` forgets what the option or the recipe knew of another model: `name`, `sha256`, "
        "`architecture`, `init` and `config`. Keys that stand beside it count.",
    ),
    "adapter": Group(which="name"),
    "dataset": Group(
        which="format",
        # The columns, those left out, and how texts were mended for the model.
        kept=("columns", "clean", "ignore"),
        rule="Files on the command line choose the option that reads them, unless one is chosen. `eval`, `predict` and "
        "`export` on other data keep the run's `columns`, `clean` and `ignore`, except for what is typed.",
    ),
    "optimizer": Group(
        which="name",
        own_values=True,
        rule="An option chosen on the command line has its own values, and not those that a recipe has for another "
        "optimizer; keys on the command line count.",
    ),
    "scheduler": Group(which="name", own_values=True, rule="As for `optimizer`."),
}


@dataclass(frozen=True)
class Setting:
    """One place that sets a key."""

    key: str
    value: Any
    """As it stands there, references as texts."""
    place: str
    """`FILE:LINE`, or `command line`."""
    layer: str
    """A name of LAYERS."""
    by: str = ""
    """The word that brought it, such as `optimizer=sgd`."""


def history(settings: list[Setting], key: str) -> list[Setting]:
    """The settings of one key, in the order in which they win; those of a table around it too, where they name it."""
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
    """`command line` or `FILE:LINE`. Working it out takes 0.4 s, so that only messages ask for it."""
    given: frozenset[str] = frozenset()
    """The keys of the command line."""
    chosen: frozenset[str] = frozenset()
    """The groups of which the command line names an option."""

    def __call__(self, key: str) -> str:
        """Where `key` was set."""
        return self.of(key)

    def typed(self, key: str) -> bool:
        """Whether a person gave the key, or a table around it, on the command line."""
        return any(key == word or key.startswith(f"{word}.") for word in self.given)
