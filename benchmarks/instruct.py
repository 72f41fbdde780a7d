"""Instruction tuning with LoRA, llmft beside `transformers.Trainer`: tokens a second, and the loss on held-out answers.

    python benchmarks/instruct.py GSM8K [--model smollm2_gguf] [--rows 200] [--rounds 3]      tokens a second, in turn
    python benchmarks/instruct.py GSM8K --loss [--epochs 3]                                   loss before and after

GSM8K holds train.jsonl and test.jsonl with the keys `question` and `answer`. Both train the same rows as often, in the
same number of steps, with the same adapter and learning rate. The Trainer gets the tokens and labels that llmft made,
pads each batch to its longest row and computes in float32, as its defaults are. Counted are the tokens of the rows, no
padding, and the seconds of training alone. Each is a process of its own.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BATCH, LR = 8, 5e-4


def words(folder: Path, options: argparse.Namespace) -> list[str]:
    """What both are configured by."""
    return [
        *("+recipe=llm_instruct", f"model={options.model}", "adapter=lora", "dataset=json", "dataset.split.test=0"),
        *(f"dataset.train={folder / 'train.jsonl'}", f"dataset.validation={folder / 'validation.jsonl'}"),
        *("dataset.columns.prompt=question", "dataset.columns.response=answer", "dataset.cache=false"),
        *("task.generate=false", "task.max_length=1024", "scheduler=linear", f"optimizer.lr={LR}"),
        *(f"trainer.epochs={options.epochs}", f"trainer.batch_size={BATCH}", "trainer.eval_batch_size=8"),
        "trainer.log_every=500",
    ]


def llmft(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """What metrics.json of a whole run says."""
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "llmft", "finetune", *words(folder, options), f"run.dir={place}/run"]
        run(command)
        metrics = json.loads(Path(place, "run/metrics.json").read_text())
    return {"tokens": metrics["train"]["tokens_per_second"], "loss": metrics["validation"]["loss"]}


def other(who: str, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """What this file prints as `who`, in a process of its own."""
    command = [sys.executable, __file__, str(folder), "--who", who, "--model", options.model]
    return dict(json.loads(run([*command, "--epochs", str(options.epochs)]).splitlines()[-1]))


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


def trainer(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """The Trainer as one would write it."""
    import torch
    import transformers

    from llmft.commands.session import Session
    from llmft.config.load import load
    from llmft.models import adapters

    config = load("finetune", words(folder, options))
    session = Session(config)
    session.prepare()
    session.build()
    features = session.splits["train"].features
    rows = [
        {key: row[key] for key in ("input_ids", "labels")} for row in features.__getitems__([*range(len(features))])
    ]
    tokenizer = session.task.state.tokenizer
    model = adapters.trained_part(session.model)
    assert next(model.parameters()).dtype == torch.float32
    with tempfile.TemporaryDirectory() as place:
        arguments = transformers.TrainingArguments(
            place,
            num_train_epochs=options.epochs,
            per_device_train_batch_size=BATCH,
            learning_rate=LR,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=config.seed,
        )
        collate = transformers.DataCollatorForSeq2Seq(tokenizer, padding="longest")
        trainer = transformers.Trainer(model, arguments, collate, train_dataset=rows)
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
    return {"tokens": options.epochs * sum(len(row["input_ids"]) for row in rows) / seconds}


def before(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """The loss of the first weights, as `llmft eval` computes it."""
    from llmft.commands.session import Session
    from llmft.config.load import load
    from llmft.models import adapters
    from llmft.training.evaluation import loss_of

    config = load("finetune", words(folder, options))
    session = Session(config)
    session.prepare()
    session.build()
    model = adapters.trained_part(session.model)
    found = loss_of(session.task, model, session.splits["validation"], config.trainer.eval_batch_size)
    return {"loss": found["loss"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="smollm2_gguf")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--held-out", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--loss", action="store_true")
    parser.add_argument("--who", choices=("trainer", "before"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.who:
        print(json.dumps({"trainer": trainer, "before": before}[options.who](options.folder, options)))
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name, source, count in (("train", "train", options.rows), ("validation", "test", options.held_out)):
            lines = (options.folder / f"{source}.jsonl").read_text(encoding="utf-8").splitlines()[:count]
            (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        if options.loss:
            first, last = other("before", folder, options)["loss"], llmft(folder, options)["loss"]
            change = f"loss {first:.4f} before, {last:.4f} after, {last / first - 1:+.1%}"
            print(f"{options.held_out} held-out answers: {change}")
            return
        found: dict[str, list[float]] = {"llmft": [], "trainer": []}
        for number in range(options.rounds):
            for who in sorted(found, reverse=bool(number % 2)):  # nobody always finds the machine warmer
                rates = llmft(folder, options) if who == "llmft" else other(who, folder, options)
                found[who].append(rates["tokens"])
                print(f"  {who:<8} {rates['tokens']:8.1f} tokens a second", flush=True)
        ratio = statistics.median(own / its for own, its in zip(found["llmft"], found["trainer"], strict=True))
        for who, rates in found.items():
            print(f"{who}: {statistics.median(rates):.1f} tokens a second")
        print(f"llmft is faster by {ratio:.2f}")


if __name__ == "__main__":
    main()
