"""The section `task`: what all tasks share, and where a task is found: tasks/FAMILY/config.py, or an entry point."""

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

IGNORED = -100  # the label of a token that is not trained on; the default ignore_index of torch's cross entropy
IGNORED_PIXEL = 255  # in masks, the index of a pixel without a label, as Pascal VOC and COCO have it


class TaskConfig(Section):
    """What all tasks share."""

    name: str
    """The task: the kind of input, answer, and metrics."""

    tiny: ClassVar[dict[str, Any]] = {}
    """Sizes of the random model that `smoke=true` trains."""

    tiny_of: ClassVar[dict[str, dict[str, Any]]] = {}
    """Architecture -> sizes, for architectures whose keys have other names."""

    tiny_sizes: ClassVar[dict[str, int]] = {}
    """`model.sizes` for all other architectures, in place of `tiny`: for tasks whose architectures share no keys."""

    of_data: ClassVar[tuple[str, ...]] = ("labels", "class_weights")
    """Keys that depend on the user's rows. `smoke=true` drops them together with the rows."""

    small: ClassVar[dict[str, Any]] = {}
    """Keys that `smoke=true` changes, such as lengths that its few rows would not reach."""

    length: ClassVar[str] = "max_length"
    """The key that limits the length of inputs."""

    pretrains: ClassVar[bool] = False
    """Whether the task learns from raw text, so that `llmft pretrain` accepts it."""

    exports: ClassVar[bool] = True
    """Whether `llmft export` can write its models: only those that answer with one forward pass and a row of numbers
    per row."""

    images: ClassVar[bool] = False
    """Whether its inputs are images, which the section `augment` changes in training, and of which `llmft predict`
    takes files and folders."""

    streams: ClassVar[bool] = True
    """Whether `dataset.streaming` works: only if each row becomes exactly one feature, so that the steps of an epoch
    can be counted."""

    searches: ClassVar[bool] = False
    """Whether it finds passages in `dataset.corpus`; see `ReadsCorpus` in tasks/optional.py."""

    packs: ClassVar[bool] = False
    """Whether `trainer.packing` works: only if the loss is a mean over tokens that each have a label."""

    refers: ClassVar[bool] = False
    """Whether its loss compares the model with its weights before training, by `Task.first_answers`."""

    prefixes: ClassVar[bool] = True
    """Whether `adapter=prefix` works: with a head that reads the input, not with one that generates text."""

    decoding: ClassVar[tuple[str, ...]] = ()
    """Keys that predict, eval, and serve may set anew, since they choose answers among what the model says."""

    files: ClassVar[str] = "dataset=csv dataset.test=YOUR.csv"
    """The usual override that names the user's own rows."""

    then: ClassVar[str] = ""
    """The command to suggest after training, without `llmft`; `{run}` stands for the run. Unset: `eval` on other
    rows."""

    own_metrics: ClassVar[dict[str, bool]] = {}
    """For a task of another package: metrics that llmft does not know -> whether larger values are better. So that one
    of them can be `trainer.metric_for_best`."""

    answered: ClassVar[tuple[str, ...]] = ("answer", "scores", "error")
    """The fields of an answer in `llmft predict`. A column of the same name cannot be kept."""

    @property
    def compares_rows(self) -> bool:
        """Whether the loss compares the rows of a batch, so that two halves of a batch are not the same step.
        Such a task has a key `chunk`, which saves memory instead."""
        return False

    @property
    def generates(self) -> bool:
        """Whether it generates texts token by token, which takes many times as long as computing the loss.

        If the loss selects the best checkpoint, evaluations during training compute only the loss. Generation
        takes a different number of forward passes in each process.
        """
        return False

    @property
    def tunes_encoder(self) -> bool:
        """Whether the encoder is tuned on pairs of rows before the head is trained, see training/contrastive.py."""
        return False

    @property
    def metric(self) -> str:
        """The metric that selects the best checkpoint if `trainer.metric_for_best` is unset."""
        return "loss"

    @property
    def headline(self) -> str:
        """The metric to show first if the loss selects the best checkpoint."""
        return self.metric

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that the task can report."""
        return tuple(METRICS_OF.get(self.name, METRICS))


# transformers maps these names to those of each architecture (`hidden_size` is `dim` in DistilBERT).
TINY_TRANSFORMER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


@cache
def task_types() -> dict[str, type[TaskConfig]]:
    """Task name -> section class of the tasks of this package: the classes with a default `name` in each family's
    `config.py`."""
    found: dict[str, type[TaskConfig]] = {}
    for family in iter_modules([str(Path(__file__).parents[1] / "tasks")]):
        if not family.ispkg:
            continue
        module = import_module(f"llmft.tasks.{family.name}.config")
        for member in vars(module).values():
            if isinstance(member, type) and issubclass(member, TaskConfig) and member.__module__ == module.__name__:
                name = member.model_fields["name"].default
                if isinstance(name, str):  # a base class that several tasks share has no default name
                    found[name] = member
    return dict(sorted(found.items()))


def task_type(name: str) -> type[TaskConfig] | None:
    """The section class of the task called `name`: one of ours, or `config` of an entry point in the group
    `llmft.tasks`. None if there is no such task.

    Raises:
        UserError: for a package that does not fit this version, or that gives a metric of llmft another direction.
    """
    if name in (ours := task_types()):
        return ours[name]
    if (point := plugins("llmft.tasks").get(name)) is None:
        return None
    section: type[TaskConfig] = _loaded(point).config
    for metric, larger in section.own_metrics.items():
        if METRICS.setdefault(metric, larger) != larger:
            what = f"own_metrics must have {not larger} for {metric}, which llmft knows, got {larger}"
            raise UserError(Problem(point.value, what, hint="Give your metric another name."))
    return section


def _loaded(point: "EntryPoint") -> Any:
    """The class that an entry point names.

    Raises:
        UserError: its package imports a module from its place in version 0.1.0; the error names the present one.
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
    """The names of all tasks, those of other packages included."""
    return [*task_types(), *sorted(plugins("llmft.tasks"))]


@cache
def plugins(group: Literal["llmft.tasks", "llmft.models"]) -> "dict[str, EntryPoint]":
    """Entry points by name, cached: reading the metadata of a hundred packages takes 20 ms."""
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=group)}
