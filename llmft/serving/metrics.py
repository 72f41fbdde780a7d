"""What the service tells of itself: hooks that the other modules call."""

from typing import TYPE_CHECKING, Any

from llmft.data.source import Rows
from llmft.schema.serving import ServeConfig
from llmft.tasks.task import Answer

if TYPE_CHECKING:
    from fastapi import FastAPI


class Watch:
    """Takes what happens; see each method."""

    def __init__(self, config: ServeConfig) -> None:
        self.config = config

    def request(self, route: str, code: int, seconds: float) -> None:
        """A request has ended."""

    def rejected(self, reason: str) -> None:
        """A request was refused."""

    def batch(self, name: str, rows: int, waited: float, seconds: float) -> None:
        """A model has computed rows together."""

    def answered(self, served: Any, ids: list[str], rows: Rows, answers: list[Answer], tokens: int, cut: int) -> None:
        """Rows were answered.

        Args:
            ids: one a row, by which feedback names it.
            tokens: of all rows together.
            cut: how many rows lost some of their tokens.
        """

    def loaded(self, served: Any) -> None:
        """A model was loaded, and answers from now on."""

    def load_failed(self, name: str) -> None:
        """A model could not be loaded."""

    def routes(self, app: "FastAPI", models: Any) -> None:
        """Add the routes that show what was taken."""
