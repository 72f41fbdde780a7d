"""Nothing is executed from a checkpoint, a model or a configuration. Names in brackets: the faults of the reliability
table."""

import os
import pickle
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmft.runs import checkpoints
from tests.faults.test_resume import SMOKE, send

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str], Path]


class Evil:
    """A pickle of it makes the file `canary` when it is loaded."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.canary}",)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_x1_a_pickle_in_a_checkpoint_is_not_run(name: str, llmft: Run, here: Path, at_step: Any) -> None:
    """Even with a manifest that goes with it."""
    at_step(3, send(signal.SIGTERM))
    assert llmft(*SMOKE, "run.dir=run")[0] == 75
    checkpoint = here / "run/checkpoints/checkpoint-3"
    (checkpoint / name).write_bytes(pickle.dumps(Evil(here / "canary")))
    checkpoints.commit(checkpoint)
    assert checkpoints.fault(checkpoint) == ""
    code, _, err = llmft(*SMOKE, "run.dir=run", "resume=true")
    assert code == 1
    assert "checkpoint-3 holds more than numbers, and is not loaded" in err
    assert not (here / "canary").exists()
    pickle.loads(pickle.dumps(Evil(here / "canary")))
    assert (here / "canary").exists(), "the payload is one"


def test_x1_a_pickle_beside_a_model_is_not_run(llmft: Run, here: Path) -> None:
    assert llmft("finetune", "+recipe=bert_textcls", "smoke=true", "run.dir=run")[0] == 0
    (here / "run/model/model.safetensors").unlink()
    for name in ("pytorch_model.bin", "training_args.bin", "adapter_model.bin"):
        (here / "run/model" / name).write_bytes(pickle.dumps(Evil(here / "canary")))
    assert llmft("eval", "run", "run.dir=again")[0] == 2
    assert llmft("finetune", "+recipe=bert_textcls", "model.path=run/model", "run.dir=more")[0] == 2
    assert not (here / "canary").exists()


def test_x3_code_that_comes_with_a_model_is_not_run(llmft: Run, here: Path, write: Write) -> None:
    for file, kind in (("config.json", '"own.Own"'), ("tokenizer_config.json", '["own.Own", null]')):
        write(
            f"evil/{file}", f'{{"model_type": "own", "auto_map": {{"AutoConfig": "own.Own", "AutoTokenizer": {kind}}}}}'
        )
    write("evil/own.py", f"open({str(here / 'canary')!r}, 'w').close()")
    code, _, err = llmft("finetune", "+recipe=bert_textcls", "model.path=evil")
    assert code == 2
    assert "model.trust_remote_code=true" in err
    assert not (here / "canary").exists()


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "what"),
    [(BOMB, "must have at most 50 YAML aliases, got 72"), ("x: " + "y" * 10_000_000, "must be at most 256 kB")],
    ids=["aliases", "10 MB"],
)
def test_x6_a_bomb_is_refused_before_it_is_read(text: str, what: str, llmft: Run, write: Write) -> None:
    write("recipes/bomb.yaml", f"# @package _global_\n{text}")
    start = time.perf_counter()
    code, _, err = llmft("finetune", "+recipe=bomb")
    assert (code, time.perf_counter() - start < 1) == (2, True)
    assert what in err
