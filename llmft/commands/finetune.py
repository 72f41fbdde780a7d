"""`llmft finetune`: train a model on data, score it, and leave a run folder."""

from transformers import set_seed

from llmft import tasks
from llmft.commands.session import check_inputs, check_labels, quiet
from llmft.data.load import load
from llmft.models.build import build
from llmft.reporting import console, write_reports
from llmft.runs.environment import environment, peak_memory, seconds_since_start
from llmft.runs.folder import Run
from llmft.schema.config import Config
from llmft.training.evaluation import Split, score
from llmft.training.features import encode
from llmft.training.hardware import detect
from llmft.training.trainer import train


def run(config: Config) -> Run:
    """Train, evaluate and record.

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
    task = tasks.build(config.task)
    data = load(config.dataset, task)
    state = task.fit(data["train"], config.model)
    check_labels(task, state, data)
    set_seed(config.seed)
    model = build(config.model, task.head, task.needed(state))
    splits = {name: Split(rows, encode(task, state, rows)) for name, rows in data.splits.items()}
    check_inputs(task, state, model, config.model.name, splits)
    if run is None:
        run = Run.create(config)
    else:
        run.check_data(data.digests)
    facts = environment() | {"command": "finetune", "hardware": str(hardware), "data": data.digests}
    facts["seeds"] = {"run": config.seed, "split": config.dataset.split.seed}
    with run.alone(), run.recorded(facts):
        console.announce(config, task, model, splits, data.notes, hardware, run)
        metrics = {"train": train(config, task, state, model, splits, hardware, run)}
        model.save_pretrained(run.model)
        state.save(run.model)
        for name in ("validation", "test"):
            if name in splits:
                metrics[name] = score(task, state, model, name, splits[name], config.trainer.eval_batch_size, run)
        metrics["train"] |= {
            "peak_memory_bytes": peak_memory(),
            "total_seconds": metrics["train"].pop("earlier_seconds") + seconds_since_start(),
        }
        run.write_json("metrics.json", metrics)
        run.note(weights=run.weights_digest(), rows={name: len(split.rows) for name, split in splits.items()})
        write_reports(config, task, run)
    console.conclude(config, metrics, run)
    return run
