"""`llmft export RUN`: the model of a finished run in the form of another runtime, compared with the original."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from llmft import tasks
from llmft.commands.session import check_inputs, check_labels, quiet
from llmft.data.committed import commit
from llmft.data.files import digest
from llmft.data.load import load
from llmft.export import parity
from llmft.export.latency import latencies
from llmft.export.programs import write
from llmft.models import adapters
from llmft.models.trained import FACTS, is_export, load_trained, require
from llmft.reporting import export as console
from llmft.reporting.lines import phase
from llmft.runs.environment import environment
from llmft.runs.folder import Run, whole
from llmft.schema.config import Config
from llmft.schema.export import EXTRAS
from llmft.schema.problem import Problem, UserError
from llmft.training.evaluation import Split
from llmft.training.features import encode

WEIGHTS = {".safetensors", ".onnx", ".data", ".pt2", ".xml", ".bin"}


def run(config: Config) -> Run:
    """Write the model of `config.run.source`, load it back, and compare the two on rows of test or validation.

    Raises:
        UserError: if there is no finished model, no rows to compare on, or a package is missing.
        Failure: if the model can't be written in this format, or what was written is not the original.
    """
    quiet()
    require(config.export.format)
    Run.check(config)
    source = Path(str(config.run.source))
    if is_export(source):
        raise UserError(Problem(str(source), "is an export itself", "command line", "Name the run that it is of."))
    if (source / "model" / adapters.BASE).is_dir():
        what = "has a prefix beside its model, which no other runtime knows and no merging removes"
        hint = "Train with another adapter, such as adapter=lora."
        raise UserError(Problem(str(source), what, "command line", hint))
    task = tasks.build(config.task)
    phase("loading", str(source))
    model, task = load_trained(source, task, "cpu", config.model.trust_remote_code)
    data = load(config.dataset, task, splits=("validation", "test"))
    name = next((name for name in ("test", "validation") if name in data.splits), None)
    if name is None:
        raise UserError(Problem("dataset.test", "must be given: the export is compared with the original on its rows"))
    check_labels(task, data)
    split = Split(data[name], encode(task, data[name]))
    check_inputs(task, model, config.model.name, {name: split})
    console.announce(config, task, model, f"{name} {len(split):,}")
    with whole(config) as run, run.recorded(environment() | {"command": "export", "source": str(source)}):
        run.model.mkdir()
        task.save(run.model)
        # int8 learns from rows which layers to keep: not from those that say what it lost, where there are others.
        seen = encode(task, data["validation"]) if "validation" in data.splits else split.features
        batches = parity.samples(task, seen)
        written = write(model, batches, parity.longest(seen), config.export, run.model, task.export_outputs)
        facts = {
            "version": 1,
            "format": config.export.format,
            "precision": config.export.precision,
            "source": str(source),
            "parameters": model.num_parameters(),
            **written,
            "packages": packages(config.export.format),
            "bytes": sizes(source / "model", run.model),
            "sha256": {file.name: digest(file) for file in sorted(run.model.iterdir())},
        }
        commit(run.model)
        run.write_json(FACTS, facts)
        exported, _ = load_trained(run.folder, task, "cpu", trust_remote_code=True)  # written a moment ago
        facts["parity"] = parity.compare(config, task, model, exported, name, split)
        parity.check(facts["parity"])
        facts["latency_ms"] = latencies(task, model, exported, split.features)
        run.write_json(FACTS, facts)
        console.write_card(config, task, facts, run)
    console.conclude(config, facts, run)
    return run


def packages(format: str) -> dict[str, str]:
    """The versions that wrote a format."""
    return {name: version(name) for name in ("torch", "transformers", *EXTRAS.get(format, ("", ()))[1])}


def sizes(original: Path, exported: Path) -> dict[str, Any]:
    """Bytes of the weights, and how many times smaller they have become."""
    before, after = (
        sum(file.stat().st_size for file in folder.iterdir() if file.suffix in WEIGHTS)
        for folder in (original, exported)
    )
    return {"original": before, "exported": after, "ratio": before / after}
