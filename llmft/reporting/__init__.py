"""What a run says of itself: lines on the terminal, the model card, the report."""

from llmft.reporting.reports import write_reports

__all__ = ["write_reports"]
