"""llmft from Python: the commands of the command line, with the same overrides and checks, and errors as exceptions.

The command line calls the same function (`work`), so that both behave alike. Imports no torch before there is work to
do.
"""

import gc
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmft.config.folders import config_dir, config_dir_words
from llmft.schema.command import COMMANDS
from llmft.schema.problem import Failure, Problem, Stopped, UserError

if TYPE_CHECKING:
    from llmft.schema.config import Config
    from llmft.schema.job import Job, Space

ELSEWHERE = {
    "pretrain": "llmft.commands.finetune",
    "export": "llmft.exports.export",
    "predict": "llmft.predictions.predict",
    "serve": "llmft.serving.serve",
}
"""Command -> its module, for commands without a file in `commands/`."""

__all__ = [
    "Failure",
    "Model",
    "Outcome",
    "Stopped",
    "UserError",
    "eval",
    "export",
    "finetune",
    "load",
    "monitor",
    "pretrain",
]


@dataclass(frozen=True)
class Outcome:
    """The result of a command."""

    folder: Path
    """The run folder; for a sweep, the folder that contains its runs."""
    metrics: dict[str, Any]
    """The content of RUN/metrics.json, by split; for a sweep, of summary.json; for an export, of export.json."""


def finetune(*words: str) -> Outcome:
    """`llmft finetune` with these overrides: `finetune("+recipe=bert_textcls", "dataset.train=mine.csv")`.

    Raises:
        UserError: for a wrong config or wrong data; `problems` lists each with its place.
        Failure: if the run failed.
        Stopped: if a signal stopped it, after a checkpoint was saved.
    """
    return _outcome("finetune", words)


def pretrain(*words: str) -> Outcome:
    """`llmft pretrain` with these overrides. Raises as `finetune` does."""
    return _outcome("pretrain", words)


def eval(run: "str | Path | Outcome", *words: str) -> Outcome:
    """`llmft eval RUN` with these overrides: evaluate a run on other data. Raises as `finetune` does."""
    return _outcome("eval", (_named(run), *words))


def export(run: "str | Path | Outcome", *words: str) -> Outcome:
    """`llmft export RUN` with these overrides: write its model for another runtime. Raises as `finetune` does."""
    return _outcome("export", (_named(run), *words))


def monitor(run: "str | Path | Outcome", *words: str) -> Outcome:
    """`llmft monitor RUN` with these overrides: compare rows with those of the run. Raises as `finetune` does."""
    return _outcome("monitor", (_named(run), *words))


class Model:
    """The model of a finished run or of an export, loaded to answer rows; `load` returns one."""

    def __init__(self, run: "str | Path | Outcome", *words: str) -> None:
        from llmft.config.load import load as config_of

        self.config = config_of("predict", [_named(run), *words])
        self._predict: Any = import_module("llmft.predictions.predict")
        self._answering = self._predict.ready(self.config)

    def predict(self, rows: "Sequence[str | Mapping[str, Any]]") -> list[dict[str, Any]]:
        """The answer to each text or row, as `llmft predict` writes it: `answer`, and for most tasks `scores`.

        Args:
            rows: texts, or a mapping from column to cell for each row.

        Returns:
            One answer per row, in the order of the rows. A row that cannot be answered has `error` in place of an
                answer.
        """
        if isinstance(rows, str | Mapping):
            raise TypeError("predict takes a list of texts or rows: write predict([...])")
        answers: list[dict[str, Any]] = self._predict.answer(self.config, self._answering, rows)
        return answers


def load(run: "str | Path | Outcome", *words: str) -> Model:
    """Load the model of a finished run to answer many rows: `load("tickets").predict(["It broke."])`.

    Args:
        run: a folder, the name of a run, or the result of `finetune`.
        words: overrides as after `llmft predict RUN`, such as `generation=sample`.

    Raises:
        UserError: if there is no finished model.
    """
    return Model(run, *words)


def work(command: str, words: list[str], multirun: bool = False, fork: bool = True) -> Any:
    """Run a command after all checks. Returns what the command returned: a Run, facts, or None.

    Args:
        fork: whether the jobs of a sweep may be forked from this process.
    """
    if command == "chat" and words and words[0].startswith(("http://", "https://")):
        return import_module("llmft.commands.remote").run(words)
    jobs = planned(command, words, multirun)
    gc.enable()
    first = (jobs[0] if isinstance(jobs, list) else jobs.first).config
    if first.show:
        return import_module("llmft.commands.show").run(first)
    if not isinstance(jobs, list):
        return import_module("llmft.sweeps.trials").run(
            jobs, shlex.join(["llmft", command, *config_dir_words(), *words]), fork
        )
    if jobs[0].values:
        return import_module("llmft.sweeps.jobs").run(
            jobs, shlex.join(["llmft", command, "-m", *config_dir_words(), *words]), fork
        )
    _look(first)
    return import_module(ELSEWHERE.get(command, f"llmft.commands.{command}")).run(first)


def _look(config: "Config") -> None:
    """Print which files will be read, and raise UserError for missing ones, before the import of torch takes
    seconds."""
    if config.command == "predict":
        from llmft.data.files import check_is_file

        file = config.predict.input
        if file not in (None, "-") and not config.task.images:  # which takes folders and patterns too
            check_is_file(str(file), "predict.input")
    if config.command in ("predict", "chat", "serve"):  # they do not read the training rows
        return
    from llmft.data.read import files_of
    from llmft.reporting.lines import phase

    sources = {split: getattr(config.dataset, split) for split in ("train", "validation", "test")}
    problems: list[Problem] = []
    files: list[Path] = []
    for split, source in sources.items():
        try:
            files += files_of(config.dataset, split, source) if source else []
        except UserError as error:
            problems += [] if config.resume else error.problems  # resuming a finished run reads no rows
    if problems:
        raise UserError(problems, "the data")
    names = ", ".join(file.name for file in files) if len(files) <= 3 else f"{len(files):,} files"
    phase("reading", names or config.dataset.display_name)


def planned(command: str, words: list[str], multirun: bool) -> "list[Job] | Space":
    """What there is to run: one job without values, the jobs of a sweep, or a search."""
    if COMMANDS[command].needs_run:
        from llmft.config.load import load as config_of
        from llmft.schema.job import Job

        return [Job({}, config_of(command, words))]
    from llmft.config.grid import plan

    return plan(command, words, multirun)


def _outcome(command: str, words: Sequence[str]) -> Outcome:
    multirun = "-m" in words
    with config_dir([word for word in words if word != "-m"]) as rest:
        if strange := [word for word in rest if word.startswith("-")]:
            raise UserError(Problem(strange[0], "is a flag for the command line only", "Python"))
        from llmft.runs.environment import start_clock

        start_clock()
        found = work(command, rest, multirun, fork=not _has_computed())
    facts = facts_of(found)
    return Outcome(Path(facts["folder"]), facts["metrics"])


def _has_computed() -> bool:
    """Whether this process may have threads of torch or a GPU, without which a forked job hangs or fails.

    A notebook may have trained before it starts a sweep; a process of the command line has not.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    # A first gradient after an export starts threads on any machine: findings/fake_tensors_before_the_first_gradient.sh
    # shows it. Only Linux, which has /proc, forks.
    names = (file.read_text() for file in Path("/proc/self/task").glob("*/comm"))
    return (
        torch.get_num_threads() > 1
        or torch.cuda.is_initialized()
        or any(name.startswith("pt_autograd") for name in names)
    )


def facts_of(found: Any) -> dict[str, Any]:
    """What a command returned, as `--json` prints it."""
    if found is None or isinstance(found, dict):
        return found or {}
    exported = found.folder / "export.json"
    file = exported if exported.is_file() else found.folder / "metrics.json"
    metrics = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return {"folder": str(found.folder), "metrics": metrics}


def _named(run: "str | Path | Outcome") -> str:
    return str(run.folder if isinstance(run, Outcome) else run)
