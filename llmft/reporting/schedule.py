"""A picture of the learning rate: as it was planned, and as it was."""

from llmft.reporting.charts import Line, chart
from llmft.runs.folder import Run
from llmft.schema.config import Config
from llmft.training.optimization import planned


def schedule(config: Config, run: Run) -> list[str]:
    """The chart of a run that trained, or none."""
    logged = [(event["step"], event["lr"]) for event in run.events() if "lr" in event]
    if not logged:
        return []
    lines = [Line("learning rate", logged, "b")]
    if plan := planned(config, **run.manifest["planned_steps"]):
        lines.insert(0, Line("as planned", plan, "a"))
    return [chart(lines, "step", "learning rate by step")]
