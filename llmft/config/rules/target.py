"""Rules of the keys that say what is answered: what one problem has and another has not."""

from llmft.config.origin import Origin
from llmft.schema.config import Config
from llmft.schema.metric import METRICS
from llmft.schema.problem import Problem
from llmft.tasks.targets.config import TargetConfig

LOSSES = {
    "single_label": ("cross_entropy", "focal"),
    "multi_label": ("cross_entropy", "focal"),
    "regression": ("mse", "mae", "huber"),
}
OF_LABELS = ("labels", "class_weights", "label_smoothing", "threshold", "calibrate")


def _metric_is_of_the_problem(config: Config, origin: Origin) -> list[Problem]:
    key, metric = "trainer.metric_for_best", config.trainer.metric_for_best
    if not metric or metric not in METRICS or metric in config.task.metrics:
        return []
    kind = getattr(config.task, "problem", config.task.name)
    hint = f"They are {', '.join(config.task.metrics)}."
    return [Problem(key, f"{metric} is no metric of {kind}", origin(key), hint)]


def _keys_are_of_the_problem(config: Config, origin: Origin) -> list[Problem]:
    task = config.task
    if not isinstance(task, TargetConfig):
        return []
    problems = []
    if task.loss and task.loss not in (fitting := LOSSES[task.problem]):
        hint = f"Choose {', '.join(fitting[:-1])} or {fitting[-1]}."
        problems.append(Problem("task.loss", f"{task.loss} is no loss of {task.problem}", origin("task.loss"), hint))
    elif task.loss == "focal" and task.label_smoothing:
        key = "task.label_smoothing"
        problems.append(Problem(key, "is of cross_entropy, and task.loss is focal", origin(key), "Leave out one."))
    for key, used, wanted in (
        ("separator", task.problem == "multi_label", "task.problem=multi_label"),
        ("focal_gamma", task.loss == "focal", "task.loss=focal"),
    ):
        if not used and origin.typed(f"task.{key}"):
            problems.append(
                Problem(f"task.{key}", f"is read with {wanted} alone", origin(f"task.{key}"), "Leave it out.")
            )
    if task.problem == "regression":
        defaults = {key: TargetConfig.model_fields[key].default for key in OF_LABELS}
        problems += [
            Problem(
                f"task.{key}", "is of labels, and task.problem is regression", origin(f"task.{key}"), "Leave it out."
            )
            for key, default in defaults.items()
            if getattr(task, key) != default
        ]
    return problems


def _there_is_something_to_tune_on(config: Config, origin: Origin) -> list[Problem]:
    task, dataset = config.task, config.dataset
    if not isinstance(task, TargetConfig) or dataset.validation or dataset.split.validation or config.command == "eval":
        return []
    return [
        Problem(f"task.{key}", "is learnt from validation rows, and there are none", origin(f"task.{key}"))
        for key, wanted in (("calibrate", task.calibrate), ("threshold", isinstance(task.threshold, str)))
        if wanted
    ]


RULES = (
    _metric_is_of_the_problem,
    _keys_are_of_the_problem,
    _there_is_something_to_tune_on,
)
