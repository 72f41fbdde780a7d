"""What a search has tried and what it tries next: Optuna's samplers and pruners, over a journal in the search's folder.

A search that was killed goes on as it would have: what is drawn depends on (seed, number of the trial, the trials
before it), and not on a generator that went with the process.
"""

import json
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

import optuna
from filelock import lock_descriptor
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llmft.schema.execution import TRIALS, SearchConfig
from llmft.schema.job import Dimension
from llmft.schema.problem import Problem, Pruned, UserError

NAME = "search"
WHOLE = 100  # how far along a trial is, in percent of its steps: trials of other lengths can be compared
EARLY = WHOLE // 10  # until then a score says more of the first weights than of the settings
Report = Callable[[int, float], bool]
"""(percent of the trial's steps, score) -> whether to give the trial up."""
STATES = {TrialState.COMPLETE: "done", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


@dataclass(frozen=True)
class Trial:
    """One point of the space."""

    number: int
    """From 0 on, in the order in which they were drawn."""
    words: dict[str, str]
    """The value of each key, as one types it."""
    status: str
    """`running`, `done`, `pruned` or `failed`."""
    value: float | None
    """The score of a trial that is done."""
    curve: dict[int, float]
    """The validation score by how far along the trial was, in percent of its steps."""


class Study:
    """All trials of a search. One process holds it; those of the trials use `join`."""

    def __init__(self, config: SearchConfig, dimensions: list[Dimension], more_is_better: bool, file: Path) -> None:
        """Go on with the trials in `file`, or begin it. The caller sees to it that nobody else does."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.config, self.file = config, file
        self.dimensions = {dimension.key: dimension for dimension in dimensions}
        _without_torn_line(file)
        self._study = optuna.create_study(
            storage=_storage(file),
            study_name=NAME,
            load_if_exists=True,
            direction="maximize" if more_is_better else "minimize",
            pruner=_pruner(config),
        )
        self._spaces = {dimension.key: _distribution(dimension) for dimension in dimensions}
        if config.name == "grid" and not self._study.get_trials(deepcopy=False):
            for words in product(*(dimension.choices for dimension in dimensions)):
                self._study.enqueue_trial(dict(zip(self.dimensions, words, strict=True)))

    def bind(self, facts: dict[str, Any]) -> None:
        """Note what all trials share.

        Raises:
            UserError: if earlier trials were of something else, with all that differs.
        """
        before = self._study.user_attrs.get("facts", facts)
        changed = [
            Problem(key, f"was {before.get(key)!r} in this search and is {facts.get(key)!r} now")
            for key in sorted(before.keys() | facts.keys())
            if before.get(key) != facts.get(key)
        ]
        if changed:
            raise UserError([*changed, Problem("run.dir", "holds another search", hint="Name another folder.")])
        self._study.set_user_attr("facts", json.loads(json.dumps(facts)))

    @property
    def size(self) -> int:
        """How many trials there are to be."""
        if self.config.name != "grid":
            return self.config.trials or TRIALS
        whole = len(self._study.get_trials(deepcopy=False))
        return min(self.config.trials or whole, whole)

    @property
    def trials(self) -> list[Trial]:
        """All that were drawn, in their order."""
        return [
            Trial(
                number=trial.number,
                words={key: self.dimensions[key].format(value) for key, value in trial.params.items()},
                status=STATES.get(trial.state, "running"),
                value=trial.value if trial.state == TrialState.COMPLETE else None,
                curve=dict(trial.intermediate_values),
            )
            for trial in self._study.get_trials(deepcopy=False)
            if trial.state != TrialState.WAITING
        ]

    def ask(self) -> Trial:
        """Draw the next trial."""
        number = len(self.trials)
        self._study.sampler = _sampler(self.config, number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._study.ask(fixed_distributions=self._spaces)
        return self.trials[number]

    def done(self, number: int, value: float) -> None:
        """Note the score of a trial."""
        self._study.tell(number, value)

    def pruned(self, number: int) -> None:
        """Note that a trial was given up."""
        self._study.tell(number, state=TrialState.PRUNED)

    def failed(self, number: int) -> None:
        """Note that a trial has no score."""
        self._study.tell(number, state=TrialState.FAIL)

    def importance(self) -> dict[str, float]:
        """The share of each key in how far the scores of the finished trials lie apart, the largest first.

        By fANOVA (Hutter, Hoos and Leyton-Brown 2014); nothing where there are fewer than two such trials a key.
        """
        done = [trial.value for trial in self.trials if trial.status == "done"]
        if len(self.dimensions) < 2 or len(done) < 2 * len(self.dimensions) or len(set(done)) < 2:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=self.config.seed)
        found = optuna.importance.get_param_importances(self._study, evaluator=evaluator)
        return {key: float(share) for key, share in found.items()}


def join(file: Path, number: int, config: SearchConfig) -> Report:
    """What a trial tells its scores to, in the trial's own process: the journal of a search that another holds."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(storage=_storage(file), study_name=NAME, pruner=_pruner(config))
    trial = optuna.trial.Trial(study, study.get_trials(deepcopy=False)[number]._trial_id)

    def report(percent: int, value: float) -> bool:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a trial that was resumed tells some scores twice
            trial.report(value, percent)
            return percent < WHOLE and trial.should_prune()

    return report


class Pruning(TrainerCallback):
    """Stops a trial once what it reports to says so."""

    def __init__(self, metric: str, report: Report) -> None:
        self.metric, self.report = metric, report

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        **_: Any,
    ) -> None:
        percent, score = round(100 * state.global_step / state.max_steps), metrics[f"eval_{self.metric}"]
        if math.isfinite(score) and self.report(percent, score):
            raise Pruned(f"{self.metric} {score:.4f} after {percent}% of its steps")


def _storage(file: Path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(file), lock_obj=_Lock(file)))


def _distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.choices:
        return CategoricalDistribution(dimension.choices)
    if dimension.step:
        return IntDistribution(int(dimension.low), int(dimension.high), step=dimension.step)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _sampler(config: SearchConfig, number: int) -> optuna.samplers.BaseSampler:
    """A sampler whose draw depends on the seed, the number of the trial, and the trials before it."""
    seed = int(sha256(f"{config.seed} {number}".encode()).hexdigest()[:8], 16)
    if config.name == "tpe":
        return optuna.samplers.TPESampler(seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)


def _pruner(config: SearchConfig) -> optuna.pruners.BasePruner:
    if config.pruner == "median":
        return optuna.pruners.MedianPruner(n_warmup_steps=EARLY)
    if config.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=WHOLE // 9, max_resource=WHOLE)
    return optuna.pruners.NopPruner()


def _without_torn_line(file: Path) -> None:
    """Cut off what a killed process had not written to its end; Optuna would append to it."""
    if file.is_file() and (data := file.read_bytes()) and not data.endswith(b"\n"):
        file.write_bytes(data[: data.rfind(b"\n") + 1])


class _Lock(JournalFileOpenLock):
    """A lock on the journal that goes with its process: Optuna's own outlives one that was killed."""

    def __init__(self, file: Path) -> None:
        self.file = file.with_name(f".{file.name}.lock")  # not the journal itself: Windows could not read it then
        self.stream: Any = None

    def acquire(self) -> bool:
        self.stream = self.file.open("a")
        return lock_descriptor(self.stream.fileno(), poll_interval=0.01)

    def release(self) -> None:
        self.stream.close()
