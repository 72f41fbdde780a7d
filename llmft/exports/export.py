"""`llmft export RUN`: the model of a finished run in the form of another runtime, compared with the original."""

import random
import shutil
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from llmft.commands.session import Session, read
from llmft.data.committed import commit
from llmft.data.files import digest
from llmft.exports import parity
from llmft.exports.programs import Named, write
from llmft.metrics.drift import FILE as REFERENCE
from llmft.models import adapters
from llmft.models.trained import load_trained
from llmft.reporting.reports import module_of, pages
from llmft.runs.environment import environment
from llmft.runs.exported import FACTS, FILES, is_export, require
from llmft.runs.folder import Run, whole
from llmft.schema.config import Config
from llmft.schema.inference import EXTRAS
from llmft.schema.problem import Problem, UserError, plural
from llmft.tasks.optional import HasExample
from llmft.tasks.task import read_facts
from llmft.training.features import FeatureSet, encode

SAMPLED = 1000
"""Rows of train that int8 looks at where there are no validation rows."""
WEIGHTS = {".safetensors", ".onnx", ".data", ".pt2", ".xml", ".bin"}


def run(config: Config) -> Run:
    """Write the model of `config.run.source`, load it back, and compare the two on rows of test or validation.

    Raises:
        UserError: if there is no finished model, no rows to compare on, or a package is missing.
        Failure: if the model cannot be written in this format, or what was written is not the original.
    """
    require(config.export.format)
    session = Session(config)
    session.check()
    source = Path(str(config.run.source))
    _check_source(source)
    session.load(source)
    session.read()
    name = next((name for name in ("test", "validation") if name in session.splits), None)
    if name is None:
        raise UserError(Problem("dataset.test", "must be given: the export is compared with the original on its rows"))
    task, model, split = session.task, session.model, session.splits[name]
    of, seen = _seen(session, name)
    _announce(session, f"{name} {len(split):,}", f"{plural(min(len(seen), parity.CALIBRATED), 'rows')} of {of}")
    with (
        whole(config) as session.run,
        session.run.recorded(environment() | {"command": "export", "source": str(source)}),
    ):
        run = session.run
        run.model.mkdir()
        task.save(run.model)
        if (source / "model" / REFERENCE).is_file():  # what a service compares its rows with
            shutil.copyfile(source / "model" / REFERENCE, run.model / REFERENCE)
        batches, rows = parity.samples(task, seen), parity.singles(task, seen, config.seed)
        written = write(Named(model, task), batches, parity.longest(seen), config.export, run.model, rows)
        facts = {
            "version": 1,
            "format": config.export.format,
            "precision": config.export.precision,
            "source": str(source),
            "parameters": model.num_parameters(),
            **written,
            **({"calibrated": {"split": of, "rows": len(rows)}} if "quantization" in written else {}),
            "packages": packages(config.export.format),
            "bytes": sizes(source / "model", run.model),
            "sha256": {file.name: digest(file) for file in sorted(run.model.iterdir())},
        }
        commit(run.model)
        run.write_json(FACTS, facts)
        exported, _ = load_trained(run.folder, task, "cpu", trust_remote_code=True)  # written a moment ago
        facts["parity"] = parity.compare(session, exported, name)
        parity.check(facts["parity"])
        facts["latency_ms"] = parity.latencies(task, model, exported, split.features)
        run.write_json(FACTS, facts)
        _write_card(session, facts)
    _conclude(config, facts, run)
    return run


def _check_source(source: Path) -> None:
    """Raise UserError for a folder whose model has no other form: an export, or a model with a prefix."""
    if is_export(source):
        raise UserError(Problem(str(source), "is an export itself", "command line", "Name the run that it is of."))
    if (source / "model" / adapters.BASE).is_dir():
        what = "has a prefix beside its model, which no other runtime knows and no merging removes"
        hint = "Train with another adapter, such as adapter=lora."
        raise UserError(Problem(str(source), what, "command line", hint))


def _seen(session: Session, compared: str) -> tuple[str, FeatureSet]:
    """The split whose rows an export is made with, and its features.

    Validation; without it, for int8, a seeded sample of train; else the rows that it is compared on.
    """
    if "validation" in session.splits:
        return "validation", session.splits["validation"].features
    if session.config.export.precision == "int8":
        # int8 learns ranges from rows: not from those that say what it lost, where there are others.
        rows = read(session.config.dataset, session.task, ("train",)).splits.get("train")
        if rows is not None:
            drawn = random.Random(session.config.seed).sample(range(len(rows)), min(SAMPLED, len(rows)))
            return "train", encode(session.task, rows.select(drawn))
    return compared, session.splits[compared].features


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


def _announce(session: Session, rows: str, calibrated: str) -> None:
    """Print what will happen."""
    config = session.config
    print(f"llmft export: {config.name}")
    print(f"  task      {config.task.name}")
    print(f"  model     {config.model.name} ({session.model.config.model_type}) of {config.run.source}")
    print(f"  format    {config.export.format}, {config.export.precision}")
    print(f"  compared  on {config.dataset.display_name}: {rows} rows")
    if config.export.precision == "int8":
        print(f"  ranges    of {calibrated}")
    sys.stdout.flush()


def _conclude(config: Config, facts: Mapping[str, Any], run: Run) -> None:
    """Print how small, fast and exact the export is, where it lies, and the next command to type."""
    print()
    for name, text in _lines(facts).items():
        print(f"  {name:<9} {text}")
    print(f"  folder    {run.folder}")
    trust = " model.trust_remote_code=true" if facts["format"] == "pt2" else ""
    print(f"  check     llmft eval {run.folder} {config.own_files}{trust}")
    print(f"  next      llmft serve {run.folder}{trust}")


def _lines(facts: Mapping[str, Any]) -> dict[str, str]:
    """What there is to say of an export, in a line each."""
    parity, size, latency = facts["parity"], facts["bytes"], facts["latency_ms"]
    metric = parity["metric"]
    found = {
        "size": f"{size['exported'] / 1e6:,.2f} MB, {_times(size['ratio'], 'smaller', 'larger')} than the original",
        "speed": "; ".join(
            f"{_rows(batch)} {batch['exported']:.2f} ms, {_times(batch['ratio'], 'faster', 'slower')}"
            for batch in latency["batches"]
        )
        + f" ({latency['threads']} thread{'s' if latency['threads'] > 1 else ''})",
        "answers": ("" if parity["equal_answers"] is None else f"{parity['equal_answers']:.1%} are equal, ")
        + f"outputs differ by {parity['difference']:.1e} at most (limit {parity['limit']:g}) "
        f"over {plural(parity['rows'], 'rows')} of {parity['split']}",
    }
    if metric.get("loss") is not None:
        found[metric["name"]] = f"{metric['exported']:.4f}, originally {metric['original']:.4f}"
    return found


def _times(ratio: float, more: str, less: str) -> str:
    return f"{ratio:.2f} times {more}" if ratio >= 1 else f"{1 / ratio:.2f} times {less}"


def _rows(batch: Mapping[str, Any]) -> str:
    rows, *sides = next(iter(batch["inputs"].values()))
    return " x ".join(map(str, (rows, *sides))) if sides else plural(rows, "rows")


def _write_card(session: Session, facts: Mapping[str, Any]) -> None:
    """Write README.md of an export folder: what it is, and lines that answer a row without llmft."""
    task, run = session.task, session.run
    card = pages().get_template("export.md.jinja")
    filled = {"config": session.config, "facts": facts, "head": task.head, "module": module_of(run)}
    filled |= {"file": FILES.get(facts["format"]), "learned": read_facts(run.model), "lines": _lines(facts)}
    filled["formula"] = task.target.formula() if task.target else ""
    filled["row"] = task.example_row() if isinstance(task, HasExample) else None
    run.write_text("README.md", card.render(filled))
