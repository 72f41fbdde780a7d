"""The whole configuration of a command."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny
from pydantic_core import PydanticCustomError

from llmft.schema.command import COMMANDS
from llmft.schema.dataset import DatasetConfig
from llmft.schema.execution import HardwareConfig, SearchConfig, SweepConfig, TrackingConfig, TrainerConfig
from llmft.schema.inference import ChatConfig, EnsembleConfig, ExportConfig, GenerationConfig, PredictConfig
from llmft.schema.metric import METRICS
from llmft.schema.model import AdapterConfig, ModelConfig
from llmft.schema.optimizer import OptimizerConfig, SchedulerConfig
from llmft.schema.section import Section
from llmft.schema.tasks import TaskConfig, task_names, task_type

# What may become part of a folder's name.
NAME = r"^[^\W_](?:[\w.-]{0,62}\w)?$"


def _by_name(value: Any) -> Any:
    """Check the section `task` against the model of the task that it names."""
    if not isinstance(value, dict):
        return value
    found = task_type(str(value.get("name")))
    if found is None:
        raise PydanticCustomError(
            "no_task", "no task called {name}", {"name": value.get("name"), "options": task_names()}
        )
    return found.model_validate(value)


ENDINGS = {
    "csv": "csv",
    "json": "jsonl",
    "excel": "xlsx",
    "parquet": "parquet",
    "sqlite": "db",
    "conll": "conll",
    "squad": "json",
}
"""How files of these formats end: who trained on one has more of its kind."""


class RunConfig(Section):
    """The folder of the run."""

    dir: str | None = None
    """Folder of this run; it must not hold a run yet. Unset: `outputs/NAME/STAMP-xxxx`."""

    source: str | None = None
    """The run that this command works from: the path after `llmft eval`."""


class ExpectConfig(Section):
    """What a recipe promises."""

    metric: Literal[tuple(METRICS)]  # type: ignore[valid-type]
    """The metric."""

    at_least: float
    """Its value on the test split, no worse than this."""

    data: str
    """On which data."""

    seed: int
    """With which seed it was measured."""

    hardware: str
    """On what it was measured."""

    minutes: float = Field(gt=0)
    """How long it took there."""


class Config(Section):
    """Every choice of one command."""

    command: Literal[tuple(COMMANDS)]  # type: ignore[valid-type]
    """The command."""

    name: str = Field(default="run", pattern=NAME)
    """What the run is called; its folder lies below `outputs/NAME`. Letters of any script, digits, `.`, `-` and `_`."""

    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the first weights, the order of rows, and dropout."""

    resume: bool = False
    """Go on with the run in `run.dir`, or with the newest one of this `name`, from its last good checkpoint."""

    smoke: bool = False
    """A tiny random model of the same architecture, synthetic rows, a few steps: does the recipe run at all?"""

    show: int | None = Field(default=None, ge=1)
    """Print so many training rows as the model sees them, with what is trained marked, and do nothing else."""

    run: RunConfig = RunConfig()
    task: Annotated[SerializeAsAny[TaskConfig], BeforeValidator(_by_name)]
    model: ModelConfig
    adapter: AdapterConfig = AdapterConfig()
    dataset: DatasetConfig
    optimizer: OptimizerConfig = OptimizerConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    trainer: TrainerConfig = TrainerConfig()
    hardware: HardwareConfig = HardwareConfig()
    tracking: TrackingConfig = TrackingConfig()
    sweep: SweepConfig = SweepConfig()
    generation: GenerationConfig = GenerationConfig()
    export: ExportConfig = ExportConfig()
    predict: PredictConfig = PredictConfig()
    chat: ChatConfig = ChatConfig()
    search: SearchConfig | None = None
    ensemble: EnsembleConfig | None = None
    expect: ExpectConfig | None = None
    """The result that a recipe promises, with how it was measured."""

    @property
    def metric_for_best(self) -> str:
        """The validation metric that picks the best checkpoint."""
        return self.trainer.metric_for_best or self.task.metric

    @property
    def headline(self) -> str:
        """The metric that people read first: the one that picks, or the task's own where that is the loss."""
        return self.task.headline if self.metric_for_best == "loss" else self.metric_for_best

    @property
    def own_files(self) -> str:
        """How to name other rows to score: in the format that was trained on, else in the one the task reads most."""
        form = self.dataset.format
        return f"dataset={form} dataset.test=YOUR.{ENDINGS[form]}" if form in ENDINGS else self.task.files

    @property
    def trains(self) -> bool:
        """Whether the command makes a model out of training rows."""
        return COMMANDS[self.command].trains
