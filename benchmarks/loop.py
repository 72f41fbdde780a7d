"""The training loop beside a bare one: same model, same batches, same precision, in turn; medians.

    python benchmarks/loop.py [KEY=VALUE ...]      such as dataset.path=... dataset.format=csv dataset.train=train.csv

One epoch of at least 1,600 rows. The bare loop is what one would write by hand: forward, backward, clip, step.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import get_scheduler, set_seed

from llmft import tasks
from llmft.commands.session import quiet
from llmft.config.load import load as compose
from llmft.data.load import load
from llmft.models.build import build
from llmft.runs.folder import Run
from llmft.training.evaluation import Split
from llmft.training.features import encode
from llmft.training.hardware import detect
from llmft.training.optimizers import optimizer
from llmft.training.sampler import EpochSampler
from llmft.training.trainer import train

ROUNDS = 6
WORDS = [
    "+recipe=bert_textcls",
    "trainer.epochs=1",
    "trainer.batch_size=32",
    "dataset.max_rows=1600",
    "trainer.log_every=1000",
]
# Training alone: no validation split, and one checkpoint, which train() counts apart.
ALONE = ["dataset.validation=null", "dataset.test=null", "dataset.split.validation=0", "dataset.split.test=0"]


def main() -> None:
    """Print the seconds of both loops and their ratio."""
    quiet()
    config = compose("finetune", [*WORDS, *ALONE, *sys.argv[1:]])
    task = tasks.build(config.task)
    data = load(config.dataset, task)
    state = task.fit(data["train"], config.model)
    hardware = detect(config.hardware)
    features = encode(task, state, data["train"])
    splits = {"train": Split(data["train"], features)}

    def fresh() -> torch.nn.Module:
        set_seed(config.seed)
        return build(config.model, task.head, task.needed(state)).to(hardware.device)

    def ours() -> float:
        with tempfile.TemporaryDirectory() as folder:
            return float(train(config, task, state, fresh(), splits, hardware, Run(Path(folder)))["seconds"])

    def bare() -> float:
        model = fresh()
        start = time.perf_counter()
        size = config.trainer.batch_size
        order = list(EpochSampler(len(features), config.seed, size, features.lengths))
        batches = [order[i : i + size] for i in range(0, len(order), size)]
        decayed = [p for n, p in model.named_parameters() if p.ndim > 1]
        plain = [p for n, p in model.named_parameters() if p.ndim <= 1]
        cls, keys = optimizer(config.optimizer)
        groups = [
            {"params": decayed, "weight_decay": config.optimizer.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        steps = cls(groups, **keys)
        schedule = get_scheduler("linear", steps, round(config.scheduler.warmup_ratio * len(batches)), len(batches))
        collate = task.collator(state)
        model.train()
        for indices in batches:
            batch = {key: value.to(hardware.device) for key, value in collate(features.__getitems__(indices)).items()}
            with torch.autocast(hardware.device, torch.bfloat16, enabled=hardware.precision == "bf16"):
                loss = model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.trainer.max_grad_norm)
            steps.step()
            schedule.step()
            steps.zero_grad()
        return time.perf_counter() - start

    print(f"{len(features)} rows, batches of {config.trainer.batch_size}, {config.model.name}, {hardware}")
    rounds = []
    for number in range(1, ROUNDS + 1):
        # In turn, so that neither always finds the machine warmer.
        rounds.append((ours(), bare()) if number % 2 else (bare(), ours())[::-1])
        print(f"round {number}: llmft {rounds[-1][0]:.1f} s, bare {rounds[-1][1]:.1f} s", flush=True)
    mine, other = (statistics.median(column) for column in zip(*rounds, strict=True))
    ratio = statistics.median(bare / llmft for llmft, bare in rounds)
    print(f"median: llmft {mine:.1f} s, bare {other:.1f} s; speed of the bare loop that llmft has: {ratio:.2f}")


if __name__ == "__main__":
    main()
