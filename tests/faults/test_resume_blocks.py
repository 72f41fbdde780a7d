"""A language model that was stopped goes on bit for bit: blocks, masks and pairs depend on (seed, epoch, block) alone."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.test_resume import outcome, send

Run = Callable[..., tuple[int, str, str]]
EVERY = ("smoke=true", "trainer.save_every=2", "trainer.eval_every=2")
RUNS = {
    "causal": ["+recipe=gpt_clm", "trainer.accumulation=2", "trainer.batch_size=4"],
    "pairs, two workers": ["+recipe=bert_mlm_nsp", "trainer.workers=2", "model.config.hidden_dropout_prob=0.2"],
    "spans": ["+recipe=t5_span"],
}


@pytest.mark.parametrize("name", RUNS)
def test_a_resumed_run_is_the_same_bit_for_bit(name: str, llmft: Run, here: Path, at_step: Any) -> None:
    """Stopped in the first epoch, and in the second, which cuts the text elsewhere; about three steps an epoch."""
    words = ["pretrain", *RUNS[name], *EVERY]
    code, _, err = llmft(*words, "run.dir=whole")
    assert code == 0, err
    for step in (1, 5):
        at_step(step, send(signal.SIGTERM))
        assert llmft(*words, f"run.dir=stopped-{step}")[0] == 75
        code, _, err = llmft(*words, f"run.dir=stopped-{step}", "resume=true")
        assert code == 0, err
        assert outcome(here / f"stopped-{step}") == outcome(here / "whole")
