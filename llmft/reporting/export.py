"""What `llmft export` prints, and the card of what it wrote."""

from collections.abc import Mapping
from typing import Any

from llmft.models.trained import FILES
from llmft.reporting.reports import module_of, pages
from llmft.runs.folder import Run
from llmft.schema.config import Config
from llmft.schema.problem import plural
from llmft.tasks.task import Task, read_facts


def announce(config: Config, task: Task[Any], model: Any, rows: str) -> None:
    """Print what will happen."""
    print(f"llmft export: {config.name}")
    print(f"  task      {config.task.name}")
    print(f"  model     {config.model.name} ({model.config.model_type}) of {config.run.source}")
    print(f"  format    {config.export.format}, {config.export.precision}")
    print(f"  compared  on {config.dataset.called}: {rows} rows", flush=True)


def conclude(config: Config, facts: Mapping[str, Any], run: Run) -> None:
    """Print how small, fast and exact the export is, where it lies, and the next command to type."""
    print()
    for name, text in lines(facts).items():
        print(f"  {name:<9} {text}")
    print(f"  folder    {run.folder}")
    trust = " model.trust_remote_code=true" if facts["format"] == "pt2" else ""
    print(f"  next      llmft eval {run.folder} {config.own_files}{trust}")


def lines(facts: Mapping[str, Any]) -> dict[str, str]:
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
    rows, *length = next(iter(batch["inputs"].values()))
    return f"{rows} x {length[0]}" if length else plural(rows, "rows")


def write_card(config: Config, task: Task[Any], facts: Mapping[str, Any], run: Run) -> None:
    """Write README.md of an export folder: what it is, and lines that answer a row without llmft."""
    card = pages().get_template("export.md.jinja")
    told = {"config": config, "facts": facts, "head": task.head, "module": module_of(run), "lines": lines(facts)}
    told |= {"file": FILES.get(facts["format"]), "formula": task.formula(), "row": task.example_row()}
    told["learnt"] = read_facts(run.model)
    run.write_text("README.md", card.render(told))
