"""`llmft eval RUN`: score a finished run, on its own data or on other data."""

from pathlib import Path

from llmft import tasks
from llmft.commands import ensemble
from llmft.commands.session import check_inputs, check_labels, quiet, read
from llmft.models.generate import set_generation
from llmft.models.trained import load_trained
from llmft.reporting import console
from llmft.reporting.data_facts import data_facts
from llmft.reporting.lines import phase
from llmft.reporting.reports import write_reports
from llmft.runs.environment import environment
from llmft.runs.folder import Run
from llmft.schema.config import Config
from llmft.tasks.optional import Notes
from llmft.training.evaluation import Split, score
from llmft.training.features import encode
from llmft.training.hardware import detect


def run(config: Config) -> Run:
    """Score the validation and test rows with the model of `config.run.source`.

    Raises:
        UserError: if there is no finished model, or the data are not what it can answer; nothing is written then.
    """
    if config.ensemble:
        return ensemble.run(config, config.ensemble)
    quiet()
    Run.check(config)
    source = Path(str(config.run.source))
    hardware = detect(config.hardware)
    task = tasks.build(config.task)
    phase("loading", str(source))
    model, task = load_trained(source, task, hardware.device, config.model.trust_remote_code)
    set_generation(model, config.generation, config.seed)
    data = read(config.dataset, task, ("validation", "test"))
    check_labels(task, data)
    if isinstance(task, Notes):
        data.notes += [note for name, rows in data.splits.items() for note in task.notes_on(rows, name)]
    splits = {name: Split(rows, encode(task, rows)) for name, rows in data.splits.items()}
    check_inputs(task, model, config.model.name, splits)
    run = Run.create(config)
    facts = environment() | {"command": "eval", "source": str(source), "hardware": str(hardware), "data": data.digests}
    facts["metric"] = config.headline
    facts["rows_sha256"] = data.rows_sha256
    facts["dataset"] = data_facts(task, splits, data.notes)
    if task.target and (thresholds := task.target.label_thresholds()):
        facts["thresholds"] = thresholds
    with run.alone(), run.recorded(facts):
        console.announce(config, task, model, splits, data.notes, "", hardware, run)
        metrics = {
            name: score(task, model, name, split, config.trainer.eval_batch_size, run) for name, split in splits.items()
        }
        run.write_json("metrics.json", metrics)
        write_reports(config, task, run)
    console.conclude(config, metrics, run)
    return run
