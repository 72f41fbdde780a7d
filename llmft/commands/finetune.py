"""`llmft finetune` and `llmft pretrain`: train a model on data, score it, and leave a run folder."""

import time
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel, TrainerCallback, set_seed

from llmft.commands.label import with_label
from llmft.commands.launch import launch
from llmft.commands.prepare import Prepared, prepare
from llmft.commands.session import check_inputs, quiet
from llmft.data.committed import readable
from llmft.models import adapters, tokenizers
from llmft.models.build import build
from llmft.models.generate import set_generation
from llmft.models.layers import checkpoint_layers
from llmft.models.weights import check_shardable, full_state_dict
from llmft.reporting import console
from llmft.reporting.data_facts import data_facts
from llmft.reporting.lines import phase
from llmft.reporting.reports import write_reports
from llmft.reporting.trains import trains
from llmft.runs import checkpoints
from llmft.runs.ending import StopAtOnce
from llmft.runs.environment import environment, peak_memory, seconds_since_start
from llmft.runs.folder import Run
from llmft.runs.index import nearest_names
from llmft.schema.config import Config
from llmft.schema.problem import Problem, UserError
from llmft.tasks.optional import Calibrates
from llmft.training.batches import check_packing
from llmft.training.comparisons import baseline, importance, wants_importance
from llmft.training.evaluation import predict, score
from llmft.training.fit import fit, fits
from llmft.training.frozen import cached_encoder, is_frozen, with_reference
from llmft.training.hardware import Hardware, detect
from llmft.training.memory import advice_for_scoring, enough_memory
from llmft.training.merging import keep_and_merge
from llmft.training.optimization import parameter_groups, planned_steps, scheduler_notes, steps_per_epoch
from llmft.training.processes import all_gather
from llmft.training.trackers import check_trackers, tracked
from llmft.training.train import train


def run(config: Config, prepared: Prepared | None = None, callbacks: Sequence[TrainerCallback] = ()) -> Run:
    """Train, evaluate and record.

    Args:
        prepared: the data, where a sweep has prepared them for several runs.
        callbacks: who else hears of training, such as a search; of a run in one process.

    Raises:
        UserError: if the data or the model are not as the configuration says; nothing is written then.
    """
    quiet()
    config, notes = with_label(config)
    run = Run.to_resume(config) if config.resume else None
    if run is None:
        Run.check(config)
        if config.resume:
            notes = [*notes, begins_anew(config)]
    elif run.manifest.get("status") == "done":
        if not config.trainer.keep_finished:
            checkpoints.remove(run.folder)
        print(f"{run.folder} is finished: its scores are in metrics.json, and report.html shows them")
        return run
    hardware = detect(config.hardware)
    check_trackers(config.tracking)
    adapters.check_package(config.adapter)
    prepared = prepared or prepare(config)
    phase("loading", config.model.name)
    model = first_weights(config, prepared, notes := [*notes])
    if run is None:
        run = Run.create(config)
    else:
        run.check_data(prepared.data.digests)
    with run.alone():
        work(config, prepared, model, hardware, run, notes, callbacks)
    return run


def begins_anew(config: Config) -> str:
    """A note that `resume=true` has found no run: a name may be mistyped."""
    if config.run.dir:
        return f"resume=true: there is no run in {config.run.dir} yet, and this one starts from scratch"
    what = f"resume=true: there is no earlier run called {config.name}, and this one starts from scratch"
    return f"{what}. {nearest_names(config.name)}".removesuffix(". ")


def first_weights(config: Config, prepared: Prepared, notes: list[str] | None = None) -> PreTrainedModel:
    """The model as training starts from it: pretrained or random, the same for the same seed.

    Args:
        notes: what the user should know of it is put here, a line each.

    Raises:
        UserError: if the weights are missing, or the model does not take what the task feeds it.
    """
    set_seed(config.seed)
    needed = prepared.task.model_kwargs()
    model = build(config.model, prepared.task.head, needed, f"task.{config.task.length}", notes)
    set_generation(model, config.generation, config.seed)
    check_inputs(prepared.task, model, config.model.name, prepared.splits)
    if fits(model):
        if config.model.first_weights == "pretrained":
            what = "is a fitted model, and fitting begins anew with every run"
            raise UserError(Problem("model.path", what, hint="Leave it out, and write model=boosting."))
        return model
    if notes is not None and (own := getattr(prepared.task.state, "tokenizer", None)):
        rows = prepared.splits["train"].rows
        texts = [prepared.task.format_input(rows[number]) for number in range(min(32, len(rows)))]
        note = tokenizers.as_others_load(own, model.config, texts)
        notes += [note] if note else []
    parameter_groups(config.optimizer, model)  # optimizer.layer_decay and muon want layers
    adapted = adapters.adapt(model, config.adapter, needed.get("max_position_embeddings"))
    if config.hardware.strategy == "fsdp":
        check_shardable(model)
    if config.trainer.gradient_checkpointing:
        checkpoint_layers(model)
    if config.trainer.packing:
        check_packing(adapters.trained_part(adapted), config.model.name)
    return adapted


def work(
    config: Config,
    prepared: Prepared,
    model: PreTrainedModel,
    hardware: Hardware,
    run: Run,
    notes: Sequence[str] = (),
    callbacks: Sequence[TrainerCallback] = (),
) -> None:
    """Train `model`, score it, and leave everything in the run's folder; `notes` are printed with what will happen."""
    facts = environment() | {"command": config.command, "hardware": str(hardware), "data": prepared.data.digests}
    facts["metric"] = config.headline
    facts["rows_sha256"] = prepared.data.rows_sha256
    facts["seeds"] = {"run": config.seed, "split": config.dataset.split.seed}
    task = prepared.task
    notes = [*notes, *prepared.data.notes, *task.state.notes]
    if not fits(model):
        facts["trains"] = trains(model, config.model.unfreeze)
        examples = prepared.splits["train"].examples
        total = planned_steps(config, examples)
        facts["planned_steps"] = {"epoch": steps_per_epoch(config, examples), "total": total}
        notes += scheduler_notes(config, total)
    facts["dataset"] = data_facts(task, prepared.splits, notes)
    with run.recorded(facts):
        console.announce(config, task, model, prepared.splits, notes, prepared.origin, hardware, run)
        if hardware.nodes > 1:
            pass  # they are started where they are
        elif hardware.processes == 1:
            train_and_score(config, prepared, model, hardware, run, callbacks)
        else:
            launch(run, hardware.processes, hardware.threads)
    if hardware.nodes > 1:
        run.note(status="begun")
        console.start_on_nodes(hardware, run)
    else:
        if not config.trainer.keep_finished:  # a run that was killed before its status is `done` goes on from them
            checkpoints.remove(run.folder)
        console.conclude(config, run.metrics(), run)


def train_and_score(
    config: Config,
    prepared: Prepared,
    model: PreTrainedModel,
    hardware: Hardware,
    run: Run,
    callbacks: Sequence[TrainerCallback] = (),
) -> None:
    """Train `model` and score it; several processes do it together, and the first of them writes and tells trackers."""
    with tracked(config, run) as trackers:
        trackers.scores(scores(config, prepared, model, hardware, run, callbacks))


def scores(
    config: Config,
    prepared: Prepared,
    model: PreTrainedModel,
    hardware: Hardware,
    run: Run,
    callbacks: Sequence[TrainerCallback],
) -> dict[str, dict[str, Any]]:
    """What metrics.json says of `model`, which is trained for it."""
    task, splits = prepared.task, prepared.splits
    start = time.perf_counter()
    learner = adapters.trained_part(model)
    with cached_encoder(config, task, learner, splits, hardware, prepared.entry) as ready:
        encoding = {"encoder_seconds": time.perf_counter() - start} if is_frozen(learner) else {}
        ready = with_reference(config, task, learner, ready, hardware)
        learn = fit if fits(learner) else train
        metrics = {"train": learn(config, task, learner, ready, hardware, run, callbacks) | encoding}
        # The scores of the best weights are those of training's own evaluation, where it ran the same model on the
        # same features: half of what scoring costs a short run. A merged adapter and kept vectors round otherwise.
        same = model is learner and ready.get("validation") is splits.get("validation")
        answered = found if (found := metrics["train"].pop("answered", None)) and same else None
    with StopAtOnce(run.again), enough_memory(lambda: advice_for_scoring(config)):
        if config.adapter.name != "none":
            phase("merging", f"the adapter {config.adapter.name} into {config.model.name}")
            model, merging = keep_and_merge(config, task, model, splits, run)
            metrics["train"] |= merging
        if "validation" in splits and isinstance(task, Calibrates) and task.calibrates:
            size = config.trainer.eval_batch_size
            answered = answered or predict(task, model, splits["validation"].features, size)
            task = task.calibrate(answered.outputs, splits["validation"].rows)
        weights = full_state_dict(model)
        phase("writing", str(run.model))
        if run.writes:
            adapters.save_model(model, run.model, weights)
            task.save(run.model)
            readable(run.folder)
        for name in ("validation", "test"):
            if name in splits:
                before = answered if name == "validation" else None
                metrics[name] = score(task, model, name, splits[name], config.trainer.eval_batch_size, run, before)
        metrics["train"] |= {
            "peak_memory_bytes": max(all_gather(peak_memory())),
            "total_seconds": metrics["train"].pop("earlier_seconds") + seconds_since_start(),
        }
        if run.writes and (beside := baseline(config, prepared.task, model, splits, prepared.first)):
            metrics["train"]["baseline_seconds"] = beside.seconds
            metrics["baseline"] = {"name": beside.name, **beside.scores}
        seen = next((name for name in ("validation", "test") if name in splits), None)
        if run.writes and seen and wants_importance(config, prepared.first):
            start, size = time.perf_counter(), config.trainer.eval_batch_size
            columns = importance(task, model, splits[seen], config.headline, size)
            if columns:
                metrics["importance"] = {"split": seen, "metric": config.headline, "columns": columns}
                metrics["train"]["importance_seconds"] = time.perf_counter() - start
        run.write_json("metrics.json", metrics)
        if run.writes:
            run.note(weights=run.weights_digest(), rows={name: len(split) for name, split in splits.items()})
            if task.target and (thresholds := task.target.label_thresholds()):
                run.note(thresholds=thresholds)
            write_reports(config, task, run)
    return metrics
