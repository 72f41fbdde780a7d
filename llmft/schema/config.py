"""The whole config of a command."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SerializeAsAny
from pydantic_core import PydanticCustomError

from llmft.schema.augmentation import AugmentConfig
from llmft.schema.command import COMMANDS
from llmft.schema.dataset import DatasetConfig
from llmft.schema.execution import HardwareConfig, SearchConfig, SweepConfig, TrackingConfig, TrainerConfig
from llmft.schema.inference import ChatConfig, EnsembleConfig, ExportConfig, GenerationConfig, PredictConfig
from llmft.schema.metric import known_metric
from llmft.schema.model import AdapterConfig, ModelConfig
from llmft.schema.optimizer import OptimizerConfig, SchedulerConfig
from llmft.schema.section import Section
from llmft.schema.serving import ServeConfig
from llmft.schema.tasks import TaskConfig, task_names, task_type

# Valid as part of a folder's name on Linux, macOS, and Windows: 64 characters, no separators, no dot at the ends.
NAME = r"^[^\W_](?:[\w.-]{0,62}\w)?$"


def _by_name(value: Any) -> Any:
    """Check the section `task` against the section class of the task that it names."""
    if not isinstance(value, dict):
        return value
    found = task_type(str(value.get("name")))
    if found is None:
        raise PydanticCustomError(
            "no_task", "no task called {name}", {"name": value.get("name"), "options": task_names()}
        )
    return found.model_validate(value)


YOURS = {
    "csv": "YOUR.csv",
    "json": "YOUR.jsonl",
    "excel": "YOUR.xlsx",
    "parquet": "YOUR.parquet",
    "arrow": "YOUR.arrow",
    "sqlite": "YOUR.db",
    "conll": "YOUR.conll",
    "squad": "YOUR.json",
    "folder": "YOUR_FOLDER",
    "images": "YOUR_FOLDER",
    "idx": "[YOUR_IMAGES,YOUR_LABELS]",
    "cifar": "YOUR.bin",
    "masks": "YOUR_FOLDER",
    "runs": "YOUR.csv",
    "coco": "YOUR.json",
    "coco_masks": "YOUR.json",
    "voc": "YOUR_FOLDER",
    "yolo": "YOUR_FOLDER",
    "boxes": "YOUR.csv",
}
"""Files of these formats: new rows most likely come in the format of the training rows."""


Metric = Annotated[str, AfterValidator(known_metric)]


class RunConfig(Section):
    """The folder of the run."""

    dir: str | None = None
    """Folder of this run; it must not contain a run yet. Unset: `outputs/NAME/STAMP-xxxx`, a new folder per run."""

    source: str | None = None
    """The run that this command works from: the path after `llmft eval`."""


class FigureConfig(Section):
    """A result of a recipe on data that do not come with llmft."""

    metric: Metric
    """The metric that was measured."""

    data: str
    """The data, and the rows that were scored."""

    mean: float
    """The mean over the seeds 0, 1, and 2."""

    range: tuple[float, float]
    """The lowest and the highest of them."""

    words: str = ""
    """What was typed besides the recipe and the data."""


class ExpectConfig(Section):
    """The result that a recipe promises, and how it was measured."""

    metric: Metric
    """The metric that was measured on the test split."""

    at_least: float
    """The promised value of the metric, or a better one."""

    data: str
    """The data that it was measured on."""

    seed: int
    """The seed of the measured run."""

    hardware: str
    """The hardware of the measured run."""

    minutes: float = Field(gt=0)
    """Duration of the measured run in minutes."""

    figures: list[FigureConfig] = Field(default_factory=list)
    """Results on other data, each the mean of three seeds."""


class Config(Section):
    """The composed, checked config of one command."""

    command: Literal[tuple(COMMANDS)]  # type: ignore[valid-type]
    """The command that the config is for."""

    name: str = Field(default="run", pattern=NAME)
    """Name of the run; its folder lies in `outputs/NAME`. Letters of any script, digits, `.`, `-`, and `_`, at most
    64."""

    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of random initial weights, the order of training rows, and dropout. Run several seeds to see how much of a
    result is chance."""

    resume: bool = False
    """Resume the run in `run.dir`, or the newest run of this `name`, from its last intact checkpoint."""

    smoke: bool = False
    """A test of the config in seconds: a tiny random model of the same architecture, synthetic rows unless files are
    named, a few steps."""

    show: int | None = Field(default=None, ge=1)
    """Print this many training rows as the model sees them, with the tokens that are trained on marked, and stop."""

    run: RunConfig = RunConfig()
    task: Annotated[SerializeAsAny[TaskConfig], BeforeValidator(_by_name)]
    model: ModelConfig
    adapter: AdapterConfig = AdapterConfig()
    dataset: DatasetConfig
    augment: AugmentConfig = AugmentConfig()
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
    serve: ServeConfig = ServeConfig()
    search: SearchConfig | None = None
    ensemble: EnsembleConfig | None = None
    expect: ExpectConfig | None = None
    """The result that a recipe promises, and how it was measured."""

    @property
    def metric_for_best(self) -> str:
        """The validation metric that selects the best checkpoint."""
        return self.trainer.metric_for_best or self.task.metric

    @property
    def headline(self) -> str:
        """The metric to show first: `metric_for_best`, or the headline of the task if that is the loss."""
        return self.task.headline if self.metric_for_best == "loss" else self.metric_for_best

    @property
    def own_files(self) -> str:
        """The override that names new rows to evaluate: in the format of the training rows, else in the usual format of
        the task."""
        form = self.dataset.format
        return f"dataset={form} dataset.test={YOURS[form]}" if form in YOURS else self.task.files

    @property
    def trains(self) -> bool:
        """Whether the command trains a model."""
        return COMMANDS[self.command].trains
