"""Does pretraining help? A small BERT that has read some English beside the same one from random weights, on SST-2.

    python benchmarks/transfer.py DATA [--size 8000] [--into FOLDER]

DATA holds the folders sst2, stsb, semeval2010_task8, squad_v1.1, scitldr, gsm8k, tatoeba_eng_cmn and tinyshakespeare.
The texts of their training files, a line each, are the corpus; no label and no text of a validation or test file is
read. What llmft leaves, and the corpus, stay in FOLDER. Both models have the same sizes and the same tokenizer, of
--size entries. They are fine-tuned alike, each at the better of two learning rates by validation, and scored on the
test of SST-2 with three seeds.
"""

import argparse
import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev

RATES = (5e-4, 1e-3)
SEEDS = (0, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--size", type=int, default=8000)
    parser.add_argument("--into", type=Path, default=Path("transfer"))
    options = parser.parse_args()
    found = measure(options.data.resolve(), options.into, options.size)
    for name, scores in found.items():
        print(f"{name:<10}  {mean(scores):.4f} ± {stdev(scores):.4f}  {scores}")


def measure(data: Path, into: Path, size: int) -> dict[str, list[float]]:
    """Accuracy on the test of SST-2, by seed, of the pretrained model and of the random one."""
    write_corpus(data, into / "text")
    encoder = into / "encoder"
    llmft(
        *("pretrain", "+recipe=bert_mlm", "dataset=text", f"dataset.train={into / 'text'}", "dataset.unit=line"),
        *("task.block=64", f"model.tokenizer.size={size}", "scheduler.warmup_steps=300"),
        *("trainer.max_steps=6000", "trainer.eval_every=2000", "trainer.save_every=2000", f"run.dir={encoder}"),
    )
    minutes = json.loads((encoder / "metrics.json").read_text())["train"]["seconds"] / 60
    print(f"pretrained in {minutes:.1f} minutes")
    return {name: tuned(data / "sst2", encoder, name, into) for name in ("pretrained", "random")}


def tuned(sst2: Path, encoder: Path, init: str, into: Path) -> list[float]:
    """Accuracy on test by seed, at the rate that is best on validation with the first seed."""

    def run(rate: float, seed: int) -> dict[str, dict[str, float]]:
        files = {"train": "train.csv", "validation": "dev.csv", "test": "test.csv"}
        place = into / f"{init}-{rate}-{seed}"
        llmft(
            *("finetune", "+recipe=bert_textcls", f"model.path={encoder}", f"model.init={init}", "dataset=csv"),
            *(f"dataset.{split}={sst2 / name}" for split, name in files.items()),
            *(f"optimizer.lr={rate}", "trainer.epochs=2", "trainer.batch_size=32", "model.dropout=0.3"),
            *(f"seed={seed}", f"run.dir={place}"),
        )
        scores: dict[str, dict[str, float]] = json.loads((place / "metrics.json").read_text())
        return scores

    first = {rate: run(rate, SEEDS[0]) for rate in RATES}
    best = max(RATES, key=lambda rate: first[rate]["validation"]["accuracy"])
    return [first[best]["test"]["accuracy"], *(run(best, seed)["test"]["accuracy"] for seed in SEEDS[1:])]


def llmft(*words: str) -> None:
    command = [sys.executable, "-m", "llmft", *words]
    if subprocess.run(command, env=os.environ | {"HF_HUB_OFFLINE": "1"}).returncode:
        sys.exit(" ".join(command))


def write_corpus(data: Path, folder: Path) -> None:
    """A file for each set, a line for each different text."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, texts in TEXTS.items():
        lines = dict.fromkeys(" ".join(text.split()) for text in texts(data / name))
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def sst2(folder: Path) -> Iterator[str]:
    with (folder / "train.csv").open(encoding="utf-8", newline="") as file:
        yield from (row["text"] for row in csv.DictReader(file))


def stsb(folder: Path) -> Iterator[str]:
    for line in lines_of(folder / "train.tsv"):
        yield from line.split("\t")[-2:]


def semeval(folder: Path) -> Iterator[str]:
    for line in lines_of(folder / "TRAIN_FILE.TXT"):
        if re.match(r"\d+\t", line):
            yield re.sub(r"</?e[12]>", "", line.split("\t")[1].strip().strip('"'))


def squad(folder: Path) -> Iterator[str]:
    articles = json.loads((folder / "train-v1.1-subset.json").read_text(encoding="utf-8"))["data"]
    yield from (paragraph["context"] for article in articles for paragraph in article["paragraphs"])


def scitldr(folder: Path) -> Iterator[str]:
    yield from (json.loads(line)["source"] for line in lines_of(folder / "train.jsonl"))


def gsm8k(folder: Path) -> Iterator[str]:
    yield from (json.loads(line)["question"] for line in lines_of(folder / "train.jsonl"))


def tatoeba(folder: Path) -> Iterator[str]:
    yield from (line.split("\t")[0] for line in lines_of(folder / "cmn.txt"))


def shakespeare(folder: Path) -> Iterator[str]:
    text = (folder / "input.txt").read_text(encoding="utf-8")
    yield from (speech.partition("\n")[2] for speech in text.split("\n\n"))  # without the name of who speaks


def lines_of(path: Path) -> list[str]:
    with path.open(encoding="utf-8") as lines:  # splitlines would cut at U+2028, too, which stands in GSM8K
        return [line.rstrip("\n") for line in lines]


TEXTS = {
    "sst2": sst2,
    "stsb": stsb,
    "semeval2010_task8": semeval,
    "squad_v1.1": squad,
    "scitldr": scitldr,
    "gsm8k": gsm8k,
    "tatoeba_eng_cmn": tatoeba,
    "tinyshakespeare": shakespeare,
}


if __name__ == "__main__":
    main()
