"""The section `task`: what every task has, and how a task is found: in tasks/FAMILY/config.py, or by an entry point."""

from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from llmft.schema.metric import METRICS, METRICS_OF
from llmft.schema.problem import Problem, UserError
from llmft.schema.section import Section

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


class TaskConfig(Section):
    """What every task has."""

    name: str
    """The task: what goes in, what comes out, how it is scored."""

    tiny: ClassVar[dict[str, Any]] = {}
    """Sizes of the random model that `smoke=true` trains."""

    tiny_of: ClassVar[dict[str, dict[str, Any]]] = {}
    """The same for architectures that call their sizes otherwise."""

    of_data: ClassVar[tuple[str, ...]] = ("labels", "class_weights")
    """Keys that speak of the user's own rows: `smoke=true` forgets them together with the rows."""

    small: ClassVar[dict[str, Any]] = {}
    """Keys that `smoke=true` changes, such as lengths that its few rows would not fill."""

    length: ClassVar[str] = "max_length"
    """The key that says how long inputs are."""

    pretrains: ClassVar[bool] = False
    """Whether it learns from raw text, so that `llmft pretrain` takes it."""

    exports: ClassVar[bool] = True
    """Whether `llmft export` can write its models: those that answer with one forward pass, a row of numbers a row."""

    streams: ClassVar[bool] = True
    """Whether `dataset.streaming` can feed it: it makes one feature of a row, so that an epoch can be counted."""

    packs: ClassVar[bool] = False
    """Whether its loss is a mean over tokens, each with a label of its own: `trainer.packing` may move them."""

    refers: ClassVar[bool] = False
    """Whether its loss compares with the first weights, by `Task.first_answers`."""

    prefixes: ClassVar[bool] = True
    """Whether `adapter=prefix` goes with it: with a head that reads the sentence, not with one that writes it."""

    files: ClassVar[str] = "dataset=csv dataset.test=YOUR.csv"
    """How rows of one's own are named, most often."""

    then: ClassVar[str] = ""
    """What one does next with a run, `{run}`, after `llmft`. Unset: it is scored on other rows."""

    answered: ClassVar[tuple[str, ...]] = ("answer", "scores", "error")
    """What stands in an answer of `llmft predict`, so that no column may be kept under its name."""

    @property
    def generates(self) -> bool:
        """Whether it writes texts token by token, which takes many times as long as a loss.

        Where the loss picks the best checkpoint, evaluations of training compute that alone. The processes of a run
        make unequal numbers of passes.
        """
        return False

    @property
    def metric(self) -> str:
        """The metric that picks the best checkpoint unless `trainer.metric_for_best` says otherwise."""
        return "loss"

    @property
    def headline(self) -> str:
        """The metric that people read first, where the loss picks the best checkpoint."""
        return self.metric

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that the task can have."""
        return tuple(METRICS_OF.get(self.name, METRICS))


# Sizes under the names that transformers maps to each architecture's own (DistilBERT calls `hidden_size` `dim`).
TINY_TRANSFORMER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


@cache
def task_types() -> dict[str, type[TaskConfig]]:
    """The tasks of this package by name, out of the `config.py` of each family: its sections whose `name` is given."""
    found: dict[str, type[TaskConfig]] = {}
    for family in iter_modules([str(Path(__file__).parents[1] / "tasks")]):
        if not family.ispkg:
            continue
        module = import_module(f"llmft.tasks.{family.name}.config")
        for member in vars(module).values():
            if isinstance(member, type) and issubclass(member, TaskConfig) and member.__module__ == module.__name__:
                name = member.model_fields["name"].default
                if isinstance(name, str):  # what several tasks share has none
                    found[name] = member
    return dict(sorted(found.items()))


def task_type(name: str) -> type[TaskConfig] | None:
    """The section of the task called `name`: ours, or the `config` of an entry point in the group `llmft.tasks`."""
    if name in (ours := task_types()):
        return ours[name]
    found = plugins("llmft.tasks").get(name)
    return _loaded(found).config if found else None


def _loaded(point: "EntryPoint") -> Any:
    """The class that an entry point names.

    Raises:
        UserError: where its package imports a task from where version 0.1.0 had it, with the place of today.
    """
    try:
        return point.load()
    except ModuleNotFoundError as error:
        missing = error.name or ""
        section = task_types().get(missing.rpartition(".")[2])
        if not missing.startswith("llmft.") or section is None:
            raise
        hint = f"Import {section.__module__.removesuffix('config')}{missing.rpartition('.')[2]} for the task and "
        hint += f"{section.__module__} for its section."
        raise UserError(Problem(point.value, f"imports {missing}, which has moved", hint=hint)) from error


def task_names() -> list[str]:
    """Every task that can be named, those of other packages included."""
    return [*task_types(), *sorted(plugins("llmft.tasks"))]


@cache
def plugins(group: Literal["llmft.tasks", "llmft.models"]) -> "dict[str, EntryPoint]":
    """Entry points by name. Looked up once: reading the metadata of a hundred packages takes 20 ms."""
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=group)}
