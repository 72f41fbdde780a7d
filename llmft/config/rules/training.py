"""Rules over the keys that say how a model learns: optimizer, schedule, steps, checkpoints."""

from llmft.config.origin import Origin
from llmft.schema.config import Config
from llmft.schema.metric import METRICS
from llmft.schema.optimizer import READ_BY
from llmft.schema.problem import Problem


def _best_checkpoint_can_be_kept(config: Config, origin: Origin) -> list[Problem]:
    trainer = config.trainer
    problems = []
    if trainer.eval_every != trainer.save_every and (
        "epoch" in (trainer.eval_every, trainer.save_every) or trainer.save_every % trainer.eval_every  # type: ignore[operator]
    ):
        problems.append(
            Problem(
                "trainer.save_every",
                f"{trainer.save_every} is no multiple of trainer.eval_every={trainer.eval_every}",
                origin("trainer.save_every"),
                "The best checkpoint is picked among those that were scored: "
                f"write trainer.eval_every={trainer.save_every}, too.",
            )
        )
    if trainer.metric_for_best and trainer.metric_for_best not in METRICS:
        problems.append(
            Problem(
                "trainer.metric_for_best",
                f"no metric called {trainer.metric_for_best}",
                origin("trainer.metric_for_best"),
                f"They are {', '.join(METRICS)}.",
            )
        )
    for key in ("eval_every", "save_every"):
        if isinstance(every := getattr(trainer, key), int) and every < 1:
            problems.append(Problem(f"trainer.{key}", f"{every} is not at least 1", origin(f"trainer.{key}")))
    return problems


def _momentum_to_look_along(config: Config, origin: Origin) -> list[Problem]:
    if config.optimizer.nesterov and not config.optimizer.momentum:
        return [
            Problem("optimizer.nesterov", "looks along a momentum, and there is none", origin("optimizer.nesterov"))
        ]
    return []


def _keys_are_read(config: Config, origin: Origin) -> list[Problem]:
    """`optimizer.momentum=0.5` with AdamW would change nothing."""
    problems = []
    for section, keys in READ_BY.items():
        name = getattr(config, section).name
        for key, readers in keys.items():
            if name not in readers and origin.typed(f"{section}.{key}"):
                what = f"{name} does not read it"
                *first, last = readers
                hint = f"{', '.join(first)} and {last} do." if first else f"{last} does."
                problems.append(Problem(f"{section}.{key}", what, origin(f"{section}.{key}"), hint))
    return problems


def _steps_between_falls(config: Config, origin: Origin) -> list[Problem]:
    key, every = "scheduler.every", config.scheduler.every
    return [Problem(key, f"{every} is not at least 1", origin(key))] if isinstance(every, int) and every < 1 else []


def _plateau_has_scores(config: Config, origin: Origin) -> list[Problem]:
    dataset = config.dataset
    scored = dataset.validation or dataset.split.validation or dataset.format == "synthetic"
    if config.scheduler.name == "plateau" and not scored:
        what = "plateau follows the scores of the validation split, and there is none"
        return [Problem("scheduler.name", what, origin("scheduler.name"), "Write dataset.split.validation=0.1.")]
    return []


def _all_rows_are_one_step(config: Config, origin: Origin) -> list[Problem]:
    key, trainer = "trainer.accumulation", config.trainer
    if trainer.batch_size == "all" and trainer.accumulation > 1:
        what = "trainer.batch_size=all is every row in one step already"
        return [Problem(key, what, origin(key), "Leave it out.")]
    return []


def _a_stream_has_steps_of_its_own(config: Config, origin: Origin) -> list[Problem]:
    key = "trainer.batch_size"
    if config.trainer.batch_size == "all" and config.dataset.streaming:
        what = "the rows of a step are shuffled together in memory, which is what dataset.streaming avoids"
        return [Problem(key, what, origin(key), "Write a number of rows, or dataset.streaming=false.")]
    return []


def _rows_can_be_packed(config: Config, origin: Origin) -> list[Problem]:
    key = "trainer.packing"
    if config.trainer.packing and not config.task.packs and config.trains:
        what = f"the loss of {config.task.name} is not one of single tokens"
        return [Problem(key, what, origin(key), "Leave it out; trainer.group_by_length=true saves padding too.")]
    return []


def _rows_are_there_before_training(config: Config, origin: Origin) -> list[Problem]:
    key = "dataset.streaming"
    if config.dataset.streaming and config.task.refers and config.trains:
        what = f"{config.task.name} asks the first weights about all rows before training"
        return [Problem(key, what, origin(key), "Write dataset.streaming=false.")]
    return []


RULES = (
    _best_checkpoint_can_be_kept,
    _momentum_to_look_along,
    _keys_are_read,
    _steps_between_falls,
    _plateau_has_scores,
    _all_rows_are_one_step,
    _a_stream_has_steps_of_its_own,
    _rows_can_be_packed,
    _rows_are_there_before_training,
)
