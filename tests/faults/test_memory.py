"""Memory that runs out: looked for before training, and never a silent restart. Names in brackets: the faults of the
reliability table."""

import inspect
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from llmft.runs import checkpoints
from tests.faults.test_resume import SMOKE, outcome, send

Run = Callable[..., tuple[int, str, str]]
ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory."),
    MemoryError(),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
]


@pytest.fixture
def room_for(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Exception], list[int]]:
    """A device that has room for so many rows at once in training; the sizes of all batches that were tried."""

    def limit(rows: int, error: Exception) -> list[int]:
        plain = transformers.BertForSequenceClassification.forward
        tried: list[int] = []

        def forward(self: Any, input_ids: torch.Tensor, **keys: Any) -> Any:
            if self.training:
                tried.append(len(input_ids))
                if len(input_ids) > rows:
                    raise error
            return plain(self, input_ids, **keys)

        forward.__signature__ = inspect.signature(plain)  # type: ignore[attr-defined]
        monkeypatch.setattr(transformers.BertForSequenceClassification, "forward", forward)
        return tried

    return limit


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_r16_a_batch_that_does_not_fit_is_halved_and_accumulated(
    error: Exception, llmft: Run, here: Path, room_for: Any
) -> None:
    assert llmft(*SMOKE, "run.dir=asked", "trainer.batch_size=2", "trainer.accumulation=4")[0] == 0
    tried = room_for(3, error)
    code, out, err = llmft(*SMOKE, "run.dir=found")
    assert code == 0, err
    assert tried[:3] == [8, 4, 2]
    assert set(tried[3:]) == {2}
    assert "8 rows do not fit into memory at once: batches of 2, 4 of them a step, which trains the same" in out
    for found, asked in zip(outcome(here / "found"), outcome(here / "asked"), strict=True):
        assert found == asked, "from the initial weights, with the same rows in a step"
    assert json.loads((here / "found/metrics.json").read_text())["train"]["batch_size"] == 2


def test_r16_a_resumed_run_takes_the_batch_that_it_had(llmft: Run, here: Path, room_for: Any, at_step: Any) -> None:
    assert llmft(*SMOKE, "run.dir=asked", "trainer.batch_size=4", "trainer.accumulation=2")[0] == 0
    room_for(4, ERRORS[0])
    at_step(3, send(signal.SIGTERM))
    assert llmft(*SMOKE, "run.dir=run")[0] == 75
    code, out, _ = llmft(*SMOKE, "run.dir=run", "resume=true")
    assert code == 0
    assert "batches of 4, 2 of them a step" in out
    assert outcome(here / "run") == outcome(here / "asked")


def test_r16_a_row_that_does_not_fit_alone(llmft: Run, here: Path, room_for: Any) -> None:
    room_for(0, ERRORS[0])
    code, _, err = llmft(*SMOKE, "run.dir=run")
    assert code == 1
    assert "out of memory before the first step, even for a single row" in err
    assert "task.max_length=64" in err


def test_trying_leaves_no_trace(llmft: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (*SMOKE, "model.config.hidden_dropout_prob=0.3")
    assert llmft(*words, "run.dir=tried")[0] == 0
    monkeypatch.setattr("llmft.training.train.find_batch_size", lambda *_: 8)
    assert llmft(*words, "run.dir=not")[0] == 0
    assert outcome(here / "tried") == outcome(here / "not")


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_r17_memory_that_runs_out_later_names_what_would_fit(
    error: Exception, llmft: Run, here: Path, at_step: Any
) -> None:
    def exhaust(**_: Any) -> None:
        raise error

    at_step(3, exhaust)
    code, _, err = llmft(*SMOKE, "run.dir=run")
    assert code == 1
    assert "out of memory after step 3" in err
    for way in ("trainer.batch_size=4 trainer.accumulation=2", "task.max_length=64", "hardware.precision=bf16"):
        assert way in err
    assert checkpoints.latest(here / "run/checkpoints")[0] == here / "run/checkpoints/checkpoint-2"
