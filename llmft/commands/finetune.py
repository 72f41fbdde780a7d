"""`llmft finetune`: train a model on data, score it, and leave a run folder."""

import time

from transformers import PreTrainedModel, set_seed

from llmft.commands.launch import launch
from llmft.commands.prepare import Prepared, prepare
from llmft.commands.session import check_inputs, quiet
from llmft.models.build import build
from llmft.reporting import console
from llmft.reporting.reports import write_reports
from llmft.reporting.trains import trains
from llmft.runs.environment import environment, peak_memory, seconds_since_start
from llmft.runs.folder import Run
from llmft.runs.signals import StopAtOnce
from llmft.schema.config import Config
from llmft.training.evaluation import score
from llmft.training.frozen import frozen, is_frozen
from llmft.training.hardware import Hardware, detect
from llmft.training.memory import advice_for_scoring, enough_memory
from llmft.training.optimizers import groups
from llmft.training.processes import gather
from llmft.training.steps import steps_of_epoch, steps_of_run
from llmft.training.train import train


def run(config: Config, prepared: Prepared | None = None) -> Run:
    """Train, evaluate and record.

    Args:
        prepared: the data, where a sweep has prepared them for several runs.

    Raises:
        UserError: if the data or the model are not as the configuration says; nothing is written then.
    """
    quiet()
    run = Run.to_resume(config) if config.resume else None
    if run is None:
        Run.check(config)
    elif run.manifest.get("status") == "done":
        print(f"{run.folder} is finished: its scores are in metrics.json, and report.html shows them")
        return run
    hardware = detect(config.hardware)
    prepared = prepared or prepare(config)
    model = first_weights(config, prepared)
    if run is None:
        run = Run.create(config)
    else:
        run.check_data(prepared.data.digests)
    with run.alone():
        work(config, prepared, model, hardware, run)
    return run


def first_weights(config: Config, prepared: Prepared) -> PreTrainedModel:
    """The model as training starts from it: pretrained or random, the same for the same seed.

    Raises:
        UserError: if the weights are missing, or the model does not take what the task feeds it.
    """
    set_seed(config.seed)
    model = build(config.model, prepared.task.head, prepared.task.needed(prepared.state))
    check_inputs(prepared.task, prepared.state, model, config.model.name, prepared.splits)
    groups(config.optimizer, model)  # optimizer.layer_decay wants layers
    return model


def work(config: Config, prepared: Prepared, model: PreTrainedModel, hardware: Hardware, run: Run) -> None:
    """Train `model`, score it, and leave everything in the run's folder."""
    facts = environment() | {"command": "finetune", "hardware": str(hardware), "data": prepared.data.digests}
    facts["seeds"] = {"run": config.seed, "split": config.dataset.split.seed}
    facts["trains"] = trains(model, config.model.unfreeze)
    examples = prepared.splits["train"].examples
    facts["planned_steps"] = {"epoch": steps_of_epoch(config, examples), "total": steps_of_run(config, examples)}
    with run.recorded(facts):
        console.announce(
            config, prepared.task, model, prepared.splits, prepared.data.notes, prepared.origin, hardware, run
        )
        if hardware.processes == 1:
            train_and_score(config, prepared, model, hardware, run)
        else:
            launch(run, hardware.processes, hardware.threads)
    console.conclude(config, run.metrics(), run)


def train_and_score(config: Config, prepared: Prepared, model: PreTrainedModel, hardware: Hardware, run: Run) -> None:
    """Train `model` and score it; several processes do it together, and the first of them writes."""
    task, state, splits = prepared.task, prepared.state, prepared.splits
    start = time.perf_counter()
    with frozen(config, task, state, model, splits, hardware, prepared.entry) as ready:
        encoding = {"encoder_seconds": time.perf_counter() - start} if is_frozen(model) else {}
        metrics = {"train": train(config, task, state, model, ready, hardware, run) | encoding}
    with StopAtOnce(run.again), enough_memory(lambda: advice_for_scoring(config)):
        if run.writes:
            model.save_pretrained(run.model)
            state.save(run.model)
        for name in ("validation", "test"):
            if name in splits:
                metrics[name] = score(task, state, model, name, splits[name], config.trainer.eval_batch_size, run)
        metrics["train"] |= {
            "peak_memory_bytes": max(gather(peak_memory())),
            "total_seconds": metrics["train"].pop("earlier_seconds") + seconds_since_start(),
        }
        run.write_json("metrics.json", metrics)
        if run.writes:
            run.note(weights=run.weights_digest(), rows={name: len(split) for name, split in splits.items()})
            write_reports(config, task, run)
