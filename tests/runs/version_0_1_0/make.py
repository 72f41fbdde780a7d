"""How the runs of this folder were made: `python make.py done`, `python make.py stopped`, by llmft 0.1.0 at f9d1400."""

import os
import signal
import sys
from typing import Any

from llmft.cli import main
from llmft.training.callbacks import Progress

TINY = "{hidden_size: 8, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 16}"
WORDS = ["finetune", "+recipe=bert_textcls", "dataset=csv", "dataset.train=train.csv", "dataset.test=test.csv"]
WORDS += ["dataset.max_overlap=1", "dataset.split.validation=0.25", "dataset.cache=false", "hardware=cpu"]
WORDS += ["hardware.precision=fp32", "model=random", "model.architecture=bert", "model.tokenizer.size=120"]
WORDS += [f"model.config={TINY}", "task.max_length=16", "trainer.epochs=3", "trainer.batch_size=4", "seed=7"]


def stop_after_four(self: Progress, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
    """Of nine steps."""
    plain(self, args, state, control, **kwargs)
    if state.global_step == 4:
        os.kill(os.getpid(), signal.SIGTERM)


plain = Progress.on_step_end
if sys.argv[1] == "stopped":
    Progress.on_step_end = stop_after_four  # type: ignore[method-assign]
sys.exit(main([*WORDS, "optimizer.lr=1e-2", f"run.dir={sys.argv[1]}"]))
