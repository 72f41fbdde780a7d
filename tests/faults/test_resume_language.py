"""Language models go on as if they had never been stopped: packed rows beside an adapter, and preferences."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.test_resume import outcome, send

Run = Callable[..., tuple[int, str, str]]
RUNS = {
    "packed rows with an adapter": ("+recipe=llm_instruct", "trainer.packing=true", "adapter=lora", "adapter.dropout=0.2"),
    "preferences": ("+recipe=llm_dpo", "model.config.attention_dropout=0.2"),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_a_resumed_run_is_the_same_bit_for_bit(name: str, llmft: Run, here: Path, at_step: Any) -> None:
    words = ["finetune", *RUNS[name], "smoke=true", "trainer.save_every=2", "trainer.eval_every=2"]
    code, _, err = llmft(*words, "run.dir=whole")
    assert code == 0, err
    at_step(5, send(signal.SIGTERM))
    assert llmft(*words, "run.dir=stopped")[0] == 75
    code, _, err = llmft(*words, "run.dir=stopped", "resume=true")
    assert code == 0, err
    assert outcome(here / "stopped") == outcome(here / "whole")
