"""One label of many for a text, or for a pair of texts."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from datasets import Dataset
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from llmft.data.padding import Padding
from llmft.models import tokenizer as tokenizers
from llmft.schema import task as schema
from llmft.schema.column import Column
from llmft.schema.model import ModelConfig
from llmft.schema.problem import Problem, UserError
from llmft.tasks import labels
from llmft.tasks.facts import read_facts, write_facts
from llmft.tasks.task import Answer, Features, Task

SAMPLE = 1000  # rows that tell whether a tokenizer knows the language


@dataclass
class TextState:
    """The labels and the tokenizer."""

    labels: list[str]
    tokenizer: PreTrainedTokenizerFast
    max_length: int
    pair: bool

    def save(self, folder: Path) -> None:
        self.tokenizer.save_pretrained(folder)
        write_facts(folder, {"labels": self.labels, "max_length": self.max_length, "pair": self.pair})

    @classmethod
    def load(cls, folder: Path) -> Self:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        return cls(tokenizer=tokenizer, **read_facts(folder))


class TextClassification(Task[TextState]):
    """Is a review positive, which topic has a question, does one sentence follow from another?"""

    config = schema.TextClassification
    columns: ClassVar = {
        "text": Column("text"),
        "text_pair": Column("text", required=False),
        "label": Column("label"),
    }
    head = "AutoModelForSequenceClassification"
    state = TextState

    def __init__(self, config: schema.TextClassification) -> None:
        self.options = config

    def fit(self, train: Dataset, model: ModelConfig) -> TextState:
        pair = "text_pair" in train.column_names
        texts = (text for column in ("text", "text_pair")[: 1 + pair] for text in train[column])
        tokenizer = tokenizers.load(model, texts)
        # A tokenizer without a limit of its own reports 1e30; one with a limit knows how many positions the model has.
        length = min(self.options.max_length, tokenizer.model_max_length)
        self._check_language(train, tokenizer)
        return TextState(labels.learn(train["label"][:], self.options.labels), tokenizer, length, pair)

    def needed(self, state: TextState) -> dict[str, Any]:
        tokenizer = state.tokenizer
        sizes = {"vocab_size": len(tokenizer), "max_position_embeddings": state.max_length}
        return labels.needed(state.labels) | {"pad_token_id": tokenizer.pad_token_id} | sizes

    def check(self, rows: Dataset, state: TextState, split: str) -> list[Problem]:
        pair = "text_pair" in rows.column_names
        if pair != state.pair:
            what = f"{split} {'has' if pair else 'lacks'} the second text that training {'had not' if pair else 'had'}"
            return [Problem("dataset.columns.text_pair", what)]
        return labels.check(rows, state.labels, split)

    def _check_language(self, rows: Dataset, tokenizer: PreTrainedTokenizerFast) -> None:
        """Raise UserError where the tokenizer knows less than half of the text: its model would learn nothing."""
        unknown = tokenizer.unk_token_id
        ids = [i for row in tokenizer(rows[:SAMPLE]["text"], add_special_tokens=False)["input_ids"] for i in row]
        share = ids.count(unknown) / max(len(ids), 1)
        if unknown is not None and share > 0.5:
            what = f"{share:.0%} of the words of train are unknown to it"
            hint = "Choose a model of their language, such as model=bert_base_chinese."
            raise UserError(Problem("model.tokenizer", what, hint=hint), "the data")

    def encode(self, rows: dict[str, list[Any]], state: TextState) -> Features:
        pairs = rows["text_pair"] if state.pair else None
        # The tokenizer of MiniLM pads all rows to 128 unless told otherwise.
        encoded = state.tokenizer(rows["text"], pairs, truncation=True, max_length=state.max_length, padding=False)
        features: Features = {key: encoded[key] for key in ("input_ids", "token_type_ids") if key in encoded}
        features["row"] = list(range(len(rows["text"])))
        features["length"] = [len(ids) for ids in encoded["input_ids"]]
        features["cut"] = [bool(encoding.overflowing) for encoding in encoded.encodings]
        if "label" in rows:
            numbers = {name: number for number, name in enumerate(state.labels)}
            features["labels"] = [numbers[label] for label in rows["label"]]
        return features

    def collator(self, state: TextState) -> Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]:
        tokenizer = state.tokenizer
        padding = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
        return Padding(padding, tokenizer.padding_side)

    def decode(self, outputs: list[Any], rows: list[int], state: TextState) -> list[Answer]:
        return labels.decode(outputs, state.labels)

    def metrics(self, answers: list[Answer], references: Dataset, state: TextState) -> dict[str, Any]:
        return labels.metrics(answers, references, state.labels)

    def shown(self, row: dict[str, Any]) -> str:
        return " ⏐ ".join(row[key] for key in ("text", "text_pair") if row.get(key))

    def synthetic(self, rows: int, seed: int) -> dict[str, list[Any]]:
        """Sentences of made-up words; the word that decides the label is one of three."""
        rng = random.Random(seed)
        telling = {"bad": ("mirk", "dross", "blag"), "good": ("lumo", "shine", "vita")}
        filler = ("tavo", "renn", "ilpa", "osk", "dume", "karr", "pell", "unda", "sift", "gron")
        texts, names = [], []
        for index in range(rows):
            name = ("bad", "good")[index % 2]
            words = [*rng.choices(filler, k=rng.randint(2, 9)), rng.choice(telling[name])]
            rng.shuffle(words)
            texts.append(" ".join(words))
            names.append(name)
        return {"text": texts, "label": names}
