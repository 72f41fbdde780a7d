"""What the tests of faults share."""

from collections.abc import Callable
from typing import Any

import pytest

from llmft.training.callbacks import Progress


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[..., None]], None]:
    """Do something at the end of a training step, once."""

    def plan(step: int, act: Callable[..., None]) -> None:
        plain = Progress.on_step_end

        def on_step_end(self: Progress, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            plain(self, args, state, control, **kwargs)
            if state.global_step == step:
                monkeypatch.setattr(Progress, "on_step_end", plain)
                act(**kwargs)

        monkeypatch.setattr(Progress, "on_step_end", on_step_end)

    return plan
