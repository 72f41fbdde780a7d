"""The story of a run from top to bottom: check, prepare, build, record, fit, save, evaluate, compare, report, conclude.

Every command tells a part of it, in this order:

    finetune, pretrain, a job of a sweep   all of it
    one of several processes               all but what the command did for them: record, conclude (llmft/worker.py)
    eval                                   check, load, read, record, evaluate, report, conclude
    export                                 check, load, read, and then its own (exports/export.py)
"""

import inspect
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import TrainerCallback, set_seed

from llmft import tasks
from llmft.commands.label import with_label
from llmft.commands.prepare import Prepared, check_labels, prepare
from llmft.data.committed import set_file_modes
from llmft.data.corpus import load_corpus
from llmft.data.passages import Passages, named_passages, read_passages
from llmft.data.pipeline import Data, load
from llmft.data.source import Rows
from llmft.models import adapters, tokenizers
from llmft.models.build import build
from llmft.models.generate import set_generation
from llmft.models.layers import checkpoint_layers
from llmft.models.trained import Exported, load_trained
from llmft.models.weights import check_shardable, full_state_dict
from llmft.reporting import console
from llmft.reporting.data_facts import data_facts
from llmft.reporting.lines import phase, quiet
from llmft.reporting.reports import write_reports
from llmft.reporting.trains import trains
from llmft.runs import checkpoints
from llmft.runs.ending import StopAtOnce
from llmft.runs.environment import environment, peak_memory, seconds_since_start
from llmft.runs.folder import Run
from llmft.runs.index import nearest_names
from llmft.schema.config import Config
from llmft.schema.dataset import DatasetConfig
from llmft.schema.execution import HardwareConfig
from llmft.schema.problem import Problem, UserError
from llmft.tasks.optional import Calibrates, Notes, ReadsCorpus
from llmft.tasks.task import Answer, Task
from llmft.training.batches import check_packing
from llmft.training.comparisons import baseline, importance, wants_importance
from llmft.training.contrastive import tune_encoder
from llmft.training.evaluation import Experiment, Prediction, Split, predict, score, with_corpus_vectors
from llmft.training.features import encode
from llmft.training.fit import fit, fits
from llmft.training.frozen import cached_encoder, is_frozen, train_head, with_reference
from llmft.training.hardware import detect
from llmft.training.introspection import asking
from llmft.training.memory import advice_for_scoring, enough_memory
from llmft.training.merging import keep_and_merge
from llmft.training.optimization import parameter_groups, planned_steps, scheduler_notes, steps_per_epoch
from llmft.training.processes import all_gather, from_rank0
from llmft.training.reference import write_reference
from llmft.training.trackers import check_trackers, tracked


@dataclass
class Session(Experiment):
    """One run of a command while it works. Each method fills in what those after it read."""

    prepared: Prepared | None = None
    """The data, where a sweep has prepared them for several runs."""
    callbacks: Sequence[TrainerCallback] = ()
    """Who else hears of training, such as a search; of a run in one process."""
    earlier: Run | None = None
    """The run that goes on: one that is resumed, or one that several processes share."""
    data: Data = field(init=False)
    passages: Passages | None = None
    """The corpus that is searched, where the command reads one: a run that is loaded may have its own."""
    notes: list[str] = field(default_factory=list)
    """What the user should know, a line each."""
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What metrics.json will say."""
    answered: Prediction | None = None
    """The validation answers of the weights that were trained, where training has computed them."""

    def check(self) -> None:
        """Look at all that can be wrong before data are read.

        Raises:
            UserError: if the folder, the machine or a package is not as the configuration needs it.
        """
        quiet()
        config = self.config
        if config.trains:
            config, notes = with_label(config)
            self.config, self.notes = config, [*notes]
            if config.resume and not self.earlier:
                self.earlier = Run.to_resume(config)
                self.notes += [] if self.earlier else [_starts_anew(config)]
            check_trackers(config.tracking)
            adapters.check_package(config.adapter)
        if not self.earlier:
            Run.check(config)
        # An export is written and compared on the processor, whatever trained the model.
        self.hardware = detect(HardwareConfig(device="cpu") if config.command == "export" else config.hardware)

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to do of the run that was to be resumed."""
        return self.earlier is not None and self.earlier.manifest.get("status") == "done"

    def prepare(self) -> None:
        """Read, check, split and encode the rows, with a task that is fitted to them.

        Raises:
            UserError: with what is wrong with the data, or if they are not those that an earlier session had.
        """
        self.prepared = self.prepared or prepare(self.config)
        self.task, self.data, self.splits = self.prepared.task, self.prepared.data, self.prepared.splits
        self.known_batch_size = self.prepared.known_batch_size
        if self.config.dataset.corpus:  # before training, which does not read it: a mistake in it would come too late
            self.passages = read_passages(self.config.dataset)
            self.data = _with_corpus(self.data, self.passages)  # the prepared one may be that of several jobs
        if self.earlier:
            self.earlier.check_data(self.data.digests)

    def build(self) -> None:
        """Make the model as training starts from it: pretrained or random, the same for the same seed.

        Raises:
            UserError: if the weights are missing, or the model does not take what the task feeds it.
        """
        config, task = self.config, self.task
        phase("loading", config.model.name)
        set_seed(config.seed)
        needed = task.model_kwargs()
        model = build(config.model, task.head, needed, f"task.{config.task.length}", self.notes)
        set_generation(model, config.generation, config.seed)
        check_inputs(task, model, config.model.name, self.splits)
        if fits(model):
            if config.model.first_weights == "pretrained":
                what = "must be empty for a model that is fitted: every run fits it from the start"
                raise UserError(Problem("model.path", what, hint="Write model=boosting without model.path."))
            self.model = model
            return
        if own := getattr(task.state, "tokenizer", None):
            rows = self.splits["train"].rows
            texts = [task.format_input(rows[number]) for number in range(min(32, len(rows)))]
            note = tokenizers.as_others_load(own.pretrained, model.config, texts)
            self.notes += [note] if note else []
        parameter_groups(config.optimizer, model)  # optimizer.layer_decay and muon want layers
        self.model = adapters.adapt(model, config.adapter, needed.get("max_position_embeddings"))
        if config.hardware.strategy == "fsdp":
            check_shardable(model)
        if config.trainer.gradient_checkpointing:
            checkpoint_layers(model)
        if config.trainer.packing:
            check_packing(adapters.trained_part(self.model), config.model.name)

    def load(self, source: Path) -> None:
        """Take the model and the task of a finished run, or of an export, in the place of `build`.

        Raises:
            UserError: if there is no finished model.
        """
        config = self.config
        phase("loading", str(source))
        task = tasks.build(config.task)
        self.model, self.task = load_trained(source, task, self.hardware.device, config.model.trust_remote_code)
        self.passages = named_passages(config, source)
        if self.passages and isinstance(self.task, ReadsCorpus):
            self.task = self.task.with_corpus(self.passages)
        set_generation(self.model, config.generation, config.seed)

    def read(self) -> None:
        """Read, check and encode the validation and test rows, in the place of `prepare`.

        Raises:
            UserError: with every problem of the data, or if the model does not take them.
        """
        self.accept(read(self.config.dataset, self.task))

    def accept(self, data: Data) -> None:
        """Check rows that were read against the task and the model, and encode them.

        Raises:
            UserError: for labels that the task has not learned, or a model that does not take such rows.
        """
        self.data = _with_corpus(data, self.passages) if self.passages else data
        check_labels(self.task, data)
        self.splits = {name: Split(rows, encode(self.task, rows)) for name, rows in data.splits.items()}
        if self.splits:
            check_inputs(self.task, self.model, self.config.model.name, self.splits)

    @contextmanager
    def record(self) -> Iterator[None]:
        """Make the folder, say what will happen, keep manifest.json while it does, and say what came of it.

        Raises:
            UserError: if the folder cannot be made, or another process is at work in it.
        """
        config, task = self.config, self.task
        self.run = self.earlier or Run.create(config)
        self.notes += self.data.notes
        with self.run.alone():
            facts = environment() | {"command": config.command, "hardware": str(self.hardware)}
            facts |= {"data": self.data.digests, "metric": config.headline, "rows_sha256": self.data.rows_sha256}
            if config.trains:
                self.notes += task.state.notes
                facts |= self._plan()
            else:
                if isinstance(task, Notes):
                    self.notes += [
                        note for name, rows in self.data.splits.items() for note in task.notes_on(rows, name)
                    ]
                facts |= {"source": config.run.source} | self._thresholds()
            facts["dataset"] = data_facts(task, self.splits, self.notes)
            with self.run.recorded(facts):
                console.announce(self, self.notes, self.prepared.origin if self.prepared else "")
                yield
            self.conclude()

    def _plan(self) -> dict[str, Any]:
        """What the manifest says of a training that is ahead."""
        config = self.config
        facts: dict[str, Any] = {"seeds": {"run": config.seed, "split": config.dataset.split.seed}}
        if fits(self.model):
            return facts
        examples = self.splits["train"].examples
        total = planned_steps(config, examples)
        self.notes += scheduler_notes(config, total)
        facts["trains"] = trains(self.model, config.model.unfreeze)
        return facts | {"planned_steps": {"epoch": steps_per_epoch(config, examples), "total": total}}

    def work(self) -> None:
        """Train the model, score it, and write all that the folder is to hold.

        Several processes do it together, and the first of them writes and tells trackers.
        """
        with tracked(self.config, self.run) as trackers:
            self.fit()
            with StopAtOnce(self.run.again), enough_memory(lambda: advice_for_scoring(self.config)):
                self.save()
                self.evaluate()
                self.compare()
                self.report()
            trackers.scores(self.metrics)

    def fit(self) -> None:
        """Train the model to its best weights, by gradients or by a `fit` of its own."""
        from llmft.training.train import train  # transformers' Trainer: 0.4 s that predict and eval need not wait for

        start = time.perf_counter()
        learner = adapters.trained_part(self.model)
        entry = self.prepared.entry if self.prepared else None
        tuning = tune_encoder(self) if self.config.task.tunes_encoder else {}
        if self.config.model.head_epochs and not checkpoints.latest(self.run.folder / "checkpoints")[0]:
            train_head(self, entry)  # once: a checkpoint has the weights that came of it
        with cached_encoder(self, entry) as ready:
            encoding = {"encoder_seconds": time.perf_counter() - start} if is_frozen(learner) else {}
            ready = with_reference(self, ready)
            facts = fit(self) if fits(learner) else train(self, ready, self.callbacks)
            # The scores of the best weights are those of training's own evaluation, where it ran the same model on the
            # same features: half of what scoring costs a short run. A merged adapter and kept vectors round otherwise.
            same = self.model is learner and ready.get("validation") is self.splits.get("validation")
            answered = facts.pop("answered", None)
            self.answered = answered if same else None
        self.metrics["train"] = facts | encoding | tuning

    def save(self) -> None:
        """Merge an adapter, calibrate the task on validation rows, and write RUN/model."""
        config, run = self.config, self.run
        if config.adapter.name != "none":
            phase("merging", f"the adapter {config.adapter.name} into {config.model.name}")
            self.model, merging = keep_and_merge(self)
            self.metrics["train"] |= merging
        if self.passages and isinstance(self.task, ReadsCorpus):
            phase("searching", f"{len(self.passages):,} passages")
            self.task, self.answered = self.task.with_corpus(self.passages), None
            self.task = with_corpus_vectors(self.task, self.model, config.trainer.eval_batch_size)
            scored = {name: split.rows for name, split in self.splits.items() if name != "train"}
            self.splits |= {name: Split(rows, encode(self.task, rows)) for name, rows in scored.items()}
        if "validation" in self.splits and isinstance(self.task, Calibrates) and self.task.calibrates:
            validation, size = self.splits["validation"], config.trainer.eval_batch_size
            self.answered = self.answered or predict(self.task, self.model, validation.features, size)
            self.task = self.task.calibrate(self.answered.outputs, validation.rows)
        weights = full_state_dict(self.model)
        phase("writing", str(run.model))
        if run.writes:
            adapters.save_model(self.model, run.model, weights)
            self.task.save(run.model)
            set_file_modes(run.folder)

    def evaluate(self) -> None:
        """Score the validation and test rows, and keep the answers to them. The first split becomes the reference."""
        scored = [name for name in ("validation", "test") if name in self.splits]
        for name in scored:
            self.metrics[name], answers = score(self, name, self.answered if name == "validation" else None)
            if self.config.trains and self.run.writes and name == scored[0]:
                salt = self.data.rows_sha256.get(name, "")
                write_reference(self.task, self.splits, name, answers, salt, self.run.model)
        if "train" in self.metrics:
            took = self.metrics["train"].pop("earlier_seconds") + seconds_since_start()
            self.metrics["train"] |= {"peak_memory_bytes": max(all_gather(peak_memory())), "total_seconds": took}

    def compare(self) -> None:
        """Put a simple model beside the trained one, and find which columns matter, where either is wanted."""
        config, splits, prepared = self.config, self.splits, self.prepared
        assert prepared
        if not self.run.writes:
            return
        if beside := baseline(config, prepared.task, self.model, splits, prepared.first):
            self.metrics["train"]["baseline_seconds"] = beside.seconds
            self.metrics["baseline"] = {"name": beside.name, **beside.scores}
        seen = next((name for name in ("validation", "test") if name in splits), None)
        if seen and wants_importance(config, prepared.first):
            start, size = time.perf_counter(), config.trainer.eval_batch_size
            if columns := importance(self.task, self.model, splits[seen], config.headline, size):
                self.metrics["importance"] = {"split": seen, "metric": config.headline, "columns": columns}
                self.metrics["train"]["importance_seconds"] = time.perf_counter() - start

    def report(self) -> None:
        """Write metrics.json, the pages, and what the manifest says of the trained model."""
        run = self.run
        run.write_json("metrics.json", self.metrics)
        if not run.writes:
            while self._asked(None) is not None:
                pass
            return
        if self.config.trains:
            rows = {name: len(split) for name, split in self.splits.items()}
            run.note(weights=run.weights_digest(), rows=rows, **self._thresholds())
        write_reports(self.config, self.task, run, self.splits, asking(self.task, self.model, self._ask))
        self._asked(None)

    def _ask(self, rows: Rows) -> list[Answer]:
        """The answers of the model to rows, such as those of the report with a part hidden."""
        return self._asked(rows) or []

    def _asked(self, rows: Rows | None) -> list[Answer] | None:
        """The answers to the rows of rank 0, with the help of all other processes: each may have a part of the model.

        Args:
            rows: None where there are no more of them, and in the other processes.
        """
        if (found := from_rank0(lambda: rows)) is None:
            return None
        features = encode(self.task, found)
        return predict(self.task, self.model, features, self.config.trainer.eval_batch_size).answers

    def _thresholds(self) -> dict[str, Any]:
        """What the manifest says of scores from which a label is given, where there are any."""
        thresholds = self.task.target.label_thresholds() if self.task.target else {}
        return {"thresholds": thresholds} if thresholds else {}

    def conclude(self) -> None:
        """Print the scores, where everything is, and what to type next."""
        if self.config.trains and self.hardware.nodes > 1:
            self.run.note(status="begun")
            console.start_on_nodes(self.hardware, self.run)
            return
        # A run that was killed before its status is `done` goes on from its checkpoints.
        if self.config.trains and not self.config.trainer.keep_finished:
            checkpoints.remove(self.run.folder)
        console.conclude(self.config, self.metrics or self.run.metrics(), self.run)


def _with_corpus(data: Data, passages: Passages) -> Data:
    return replace(data, notes=[*data.notes, *passages.notes], digests=data.digests | passages.digests)


def _starts_anew(config: Config) -> str:
    """A note that `resume=true` has found no run: a name may be mistyped."""
    if config.run.dir:
        return f"resume=true: there is no run in {config.run.dir} yet, and this one starts from scratch"
    what = f"resume=true: there is no earlier run called {config.name}, and this one starts from scratch"
    return f"{what}. {nearest_names(config.name)}".removesuffix(". ")


def read(dataset: DatasetConfig, task: Task[Any], splits: tuple[str, ...] = ("validation", "test")) -> Data:
    """The rows of some splits, checked; files of a corpus go once they are mapped into memory.

    Raises:
        UserError: with every problem of the data.
    """
    if not task.corpus:
        try:
            return load(dataset, task, splits)
        except UserError as error:
            raise UserError([_without_labels(problem, task) for problem in error.problems], error.subject) from error
    with TemporaryDirectory(prefix="llmft-", ignore_cleanup_errors=True) as folder:
        return load_corpus(dataset, task, Path(folder), splits)


def _without_labels(problem: Problem, task: Task[Any]) -> Problem:
    """The problem; where it is a column of labels that is not there, with the command that does without."""
    labels = {f"dataset.columns.{role}" for role, spec in task.columns.items() if not spec.is_input}
    if problem.key not in labels or "has no column" not in problem.what:
        return problem
    more = "To answer rows without it: llmft predict RUN predict.input=FILE."
    return problem._replace(hint=f"{problem.hint} {more}".strip())


def check_inputs(task: Task[Any], model: torch.nn.Module, name: str, splits: dict[str, Split]) -> None:
    """Raise UserError for a model that does not take what the task feeds it, such as a table to a BERT."""
    batch = task.objective.collate([next(iter(splits.values())).features[0]])
    forward = adapters.unwrap(model).forward
    taken = model.takes if isinstance(model, Exported) else inspect.signature(forward).parameters
    if strange := [key for key in batch if key not in taken and key not in task.objective.own_keys]:
        what = f"{name} ({type(model).__name__}) does not take {', '.join(strange)}"
        raise UserError(Problem("model", what, hint=f"Choose a model for {task.config.model_fields['name'].default}."))
