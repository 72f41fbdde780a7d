"""A tiny GPT by characters, nanoGPT's setting for a CPU: `llmft pretrain` beside a bare loop over the same model.

    python benchmarks/char_gpt.py input.txt [--steps 2000] [--rounds 3]

input.txt is Tiny Shakespeare, or any text: its first 90% are trained on, its last tenth is scored in blocks of 64 that
don't overlap. The two take turns; the medians are compared. Seconds are of training steps alone.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BLOCK, BATCH, WARMUP, LOW = 64, 12, 100, 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bare", action="store_true", help="the bare loop alone, in a folder that has the two parts")
    options = parser.parse_args()
    if options.bare:
        print(json.dumps(bare(options.text, options.steps)))
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        text = options.text.read_text(encoding="utf-8")
        cut = len(text) * 9 // 10
        for name, part in (("train", text[:cut]), ("test", text[cut:])):
            (folder / f"{name}.txt").write_text(part, encoding="utf-8")
        found: dict[str, list[dict[str, float]]] = {"llmft": [], "bare": []}
        for number in range(options.rounds):
            found["llmft"].append(llmft(folder, options.steps, folder / f"run-{number}"))
            again = [sys.executable, __file__, str(folder), "--steps", str(options.steps), "--bare"]
            out = subprocess.run(again, capture_output=True, text=True, check=True).stdout
            found["bare"].append(json.loads(out.splitlines()[-1]))
    speeds = {name: statistics.median(run["steps_per_second"] for run in runs) for name, runs in found.items()}
    for name, runs in found.items():
        losses = ", ".join(f"{run['loss']:.4f}" for run in runs)
        print(f"{name}: {speeds[name]:.1f} steps a second, loss of the last tenth {losses}")
    print(f"llmft does {speeds['llmft'] / speeds['bare']:.2f} times as many steps as the bare loop")


def words(folder: Path, steps: int) -> list[str]:
    """The command line of both."""
    data = ["dataset=text", f"dataset.train={folder / 'train.txt'}", f"dataset.test={folder / 'test.txt'}"]
    return ["+recipe=gpt_char", *data, "dataset.split.validation=0", f"trainer.max_steps={steps}"]


def llmft(folder: Path, steps: int, run: Path) -> dict[str, float]:
    """One run of the command."""
    command = [sys.executable, "-m", "llmft", "pretrain", *words(folder, steps), f"run.dir={run}"]
    subprocess.run(command, capture_output=True, check=True)
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    return {"steps_per_second": steps / metrics["train"]["seconds"], "loss": metrics["test"]["loss"]}


def bare(folder: Path, steps: int) -> dict[str, float]:
    """What one would write by hand: float32, random blocks, AdamW, a cosine, and gradients that are clipped."""
    import numpy
    import torch
    from torch.nn.functional import cross_entropy

    from llmft.commands.session import Session
    from llmft.config.load import load

    config = load("pretrain", words(folder, steps))
    session = Session(config)
    session.prepare()
    session.build()
    model: Any = session.model
    tokens = session.splits["train"].features.tokens
    decays = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": decays, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), fused=True)
    draw = numpy.random.default_rng(0)
    model.train()
    start = time.perf_counter()
    for step in range(steps):
        along = max(0, step - WARMUP) / max(steps - WARMUP, 1)
        share = LOW + (1 - LOW) * (1 + math.cos(math.pi * along)) / 2 if step >= WARMUP else step / WARMUP
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * share
        firsts = draw.integers(len(tokens) - BLOCK - 1, size=BATCH)
        rows = torch.from_numpy(numpy.stack([tokens[i : i + BLOCK + 1] for i in firsts]).astype(numpy.int64))
        logits = model(input_ids=rows[:, :-1]).logits
        loss = cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    seconds = time.perf_counter() - start
    return {"steps_per_second": steps / seconds, "loss": test_loss(model, session)}


def test_loss(model: Any, session: Any) -> float:
    """Of the last tenth, as llmft scores it."""
    from llmft.training.evaluation import predict

    found = predict(session.task, model, session.splits["test"].features, 64)
    return float(found.loss or math.nan)


if __name__ == "__main__":
    main()
