"""A reranker beside its first stage, MiniLM as it comes, over the contexts of SQuAD, each the one right passage.

    python benchmarks/reranking.py SQUAD_FOLDER [--train 480] [--dev 200] [--seed 0]

The corpus is all contexts of `train-v1.1-subset.json` and `dev-v1.1-subset.json`. For questions of train, the first
stage finds hard negatives, of which the reranker learns. For questions of dev it finds ten passages, which the reranker
puts in another order. A question whose passage is not among the ten counts 0 for both. Prints NDCG@10 of both.
"""

import argparse
import json
import math
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from llmft import api

FILES = {"train": "train-v1.1-subset.json", "dev": "dev-v1.1-subset.json"}
RERANKER = (
    "+recipe=reranker",
    "dataset=json",
    "dataset.columns={text: question, text_pair: context, negative: answer}",
)
WORDS = ("task.max_length=192", "trainer.batch_size=4", "optimizer.lr=2e-4", "model.dropout=0", "task.negatives=3")


def main() -> None:
    """Print the scores."""
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("squad", type=Path)
    given.add_argument("--train", type=int, default=480)
    given.add_argument("--dev", type=int, default=200)
    given.add_argument("--passages", type=int, help="so many of the corpus, to try it out")
    given.add_argument("--seed", type=int, default=0)
    asked = given.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = {split: questions(asked.squad / file) for split, file in FILES.items()}
        contexts = dict.fromkeys(row["context"] for split in rows.values() for row in split)
        random.Random(asked.seed).shuffle(rows["train"])
        random.Random(0).shuffle(rows["dev"])
        train, dev = rows["train"][: asked.train], rows["dev"][: asked.dev]
        kept = list(dict.fromkeys(row["context"] for row in (*train, *dev)))
        others = [text for text in contexts if text not in set(kept)]
        corpus = [*kept, *others[: None if asked.passages is None else max(asked.passages - len(kept), 0)]]
        write(folder / "corpus.jsonl", [{"text": text} for text in corpus])
        write(folder / "few.jsonl", [{"text": row["question"], "text_pair": row["context"]} for row in train[:8]])
        # A learning rate at which no weight moves: a run of MiniLM as it comes, which keeps the vectors of the corpus.
        words = ["dataset=json", f"dataset.train={folder}/few.jsonl", f"dataset.corpus={folder}/corpus.jsonl"]
        words += ["dataset.columns={}", "dataset.split.validation=0", "dataset.split.test=0", "trainer.max_steps=1"]
        words += ["trainer.batch_size=2", "optimizer.lr=1e-12", "task.max_length=256", f"run.dir={folder}/first"]
        api.finetune("+recipe=embedding", *words)
        mining = ("task.negatives=4", "task.negative_margin=0.98")
        pairs = [{"text": row["question"], "text_pair": row["context"]} for row in train]
        mined = api.load(folder / "first", *mining).predict(pairs)
        write(folder / "mined.jsonl", [row | found for row, found in zip(train, mined, strict=True) if found["answer"]])
        found = api.load(folder / "first", "task.top_k=10").predict([{"text": row["question"]} for row in dev])
        lists = [[passage["text"] for passage in each["answer"]] for each in found]
        print(f"first stage  NDCG@10 {mean(gain(texts, row) for texts, row in zip(lists, dev, strict=True)):.4f}")

        start = time.process_time()
        more = [f"dataset.train={folder}/mined.jsonl", "dataset.split.validation=0", "dataset.split.test=0"]
        more += ["dataset.max_overlap=1", f"seed={asked.seed}", f"run.dir={folder}/reranker"]
        api.finetune(*RERANKER, *WORDS, *more)
        took = time.process_time() - start
        answers = api.load(folder / "reranker").predict(
            [
                {"question": row["question"], "context": text}
                for texts, row in zip(lists, dev, strict=True)
                for text in texts
            ]
        )
        scores = iter(answer["answer"] for answer in answers)
        ordered = [sorted(texts, key={text: -next(scores) for text in texts}.__getitem__) for texts in lists]
        print(f"reranker     NDCG@10 {mean(gain(texts, row) for texts, row in zip(ordered, dev, strict=True)):.4f}")
        print(f"{len(corpus)} passages, {len(train)} questions to learn of, {len(dev)} to score, training {took:.0f} s")


def questions(file: Path) -> list[dict[str, Any]]:
    """The questions of a file of SQuAD with their contexts."""
    found = json.loads(file.read_text(encoding="utf-8"))["data"]
    paragraphs = [paragraph for article in found for paragraph in article["paragraphs"]]
    return [{"question": each["question"], "context": p["context"]} for p in paragraphs for each in p["qas"]]


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as JSON lines."""
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def gain(texts: list[str], row: dict[str, Any]) -> float:
    """NDCG@10 with one right passage."""
    return 1 / math.log2(texts.index(row["context"]) + 2) if row["context"] in texts[:10] else 0.0


def mean(values: Any) -> float:
    """The mean."""
    found = list(values)
    return sum(found) / len(found)


if __name__ == "__main__":
    main()
