"""A label, several labels or a number for a text, or for a pair of texts."""

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy

from llmft.data.source import Rows
from llmft.schema.column import Column
from llmft.schema.model import ModelConfig
from llmft.schema.problem import Problem
from llmft.tasks.explaining import Ask, of_target
from llmft.tasks.targets import problems
from llmft.tasks.targets.problems import TargetState, TargetTask
from llmft.tasks.task import Answer, Features
from llmft.tasks.text import config as sections
from llmft.tasks.text.words import DROPPED, Tokens, explain_words, hidden_of, ids_without, input_rows, mask_id
from llmft.tasks.tokenizer import Tokenizer, learn

if TYPE_CHECKING:
    from datasets import Dataset

INPUTS = ("text", "text_pair")


@dataclass
class TextState(TargetState):
    """What `label` holds, and the tokenizer."""

    tokenizer: Tokenizer
    max_length: int
    pair: bool
    """Whether a row has two texts."""


class TextClassification(TargetTask[TextState]):
    """Is a review positive, which topics has a question, how alike are two sentences?"""

    config = sections.TextClassification
    head = "AutoModelForSequenceClassification"
    state_class = TextState
    options: sections.TextClassification

    @property
    def columns(self) -> dict[str, Column]:
        return {
            "text": Column("text"),
            "text_pair": Column("text", required=False),
            "label": problems.column(self.options),
        }

    def learn(self, train: "Dataset", model: ModelConfig) -> TextState:
        pair = "text_pair" in train.column_names
        # A generator: a tokenizer that is trained reads the texts once, and a copy of a large split would be idle.
        texts = (text for column in INPUTS[: 1 + pair] for text in train[column])
        tokenizer, length = learn(texts, train["text"], self.options.max_length, model)
        return TextState(problems.fit(train, self.options), tokenizer, length, pair)

    def baseline(self, splits: "dict[str, Dataset]", seed: int) -> tuple[str, dict[str, list[Any]]]:
        from llmft.tasks.text import tfidf  # scikit-learn: half a second, for which answers need not wait

        columns = INPUTS[: 1 + self.state.pair]
        texts = {name: [rows[column][:] for column in columns] for name, rows in splits.items()}
        # Class indices are integers; flags of several labels and numbers are floats, as the losses of torch take them.
        kind = numpy.int64 if self.options.problem == "single_label" else numpy.float32
        labels = numpy.array(self.state.target.encode(splits["train"]["label"][:]), dtype=kind)
        weights = self.state.target.row_weights(labels)
        count = self.state.target.model_kwargs()["num_labels"]
        cells = tfidf.matrices(texts, count)
        if self.options.problem == "regression":
            name, found = "TF-IDF and ridge regression", tfidf.numbers(cells, labels)
        elif self.options.problem == "multi_label":
            name, found = "TF-IDF and logistic regression", tfidf.logits_of_several(cells, labels, weights)
        else:
            name, found = "TF-IDF and logistic regression", tfidf.logits_of_one(cells, labels, weights, count)
        return name, {split: list(logits) for split, logits in found.items() if split != "train"}

    def model_kwargs(self) -> dict[str, Any]:
        tokenizer = self.state.tokenizer
        sizes: dict[str, Any] = {"vocab_size": len(tokenizer), "max_position_embeddings": self.state.max_length}
        # A head that reads the last token finds padding there unless padding is on the left.
        sizes["pools_last"] = tokenizer.padding_side == "left"
        return self.state.target.model_kwargs() | {"pad_token_id": tokenizer.pad_token_id} | sizes

    def check(self, rows: Rows, split: str) -> list[Problem]:
        pair = "text_pair" in rows.column_names
        if pair != self.state.pair:
            what = f"{split} has {'a' if pair else 'no'} second text, and the model was trained with{'out' * pair} one"
            return [Problem("dataset.columns.text_pair", what)]
        return self.state.target.check(rows, split)

    def encode(self, rows: dict[str, list[Any]]) -> Features:
        pairs = rows["text_pair"] if self.state.pair else None
        encoded = self.state.tokenizer.encode(rows["text"], pairs, max_length=self.state.max_length)
        kept = [
            ids_without(encoding, spans, INPUTS, self.state.tokenizer)
            for encoding, spans in zip(encoded, hidden_of(rows), strict=True)
        ]
        features: Features = {"input_ids": [[token for token in ids if token != DROPPED] for ids in kept]}
        # Only for models with embeddings of the segment, such as BERT, which tell the two texts apart by it.
        if self.state.tokenizer.reads_types:
            features["token_type_ids"] = [
                [kind for kind, token in zip(encoding.type_ids, ids, strict=True) if token != DROPPED]
                for encoding, ids in zip(encoded, kept, strict=True)
            ]
        features["row"] = list(range(len(encoded)))
        features["length"] = list(map(len, features["input_ids"]))
        features["cut"] = [bool(encoding.overflowing) for encoding in encoded]
        if "label" in rows:
            features["labels"] = self.state.target.encode(rows["label"])
        return features

    def format_input(self, row: dict[str, Any]) -> str:
        return " ⏐ ".join(row[key] for key in INPUTS if row.get(key))

    def explain(self, rows: Rows, answers: list[Answer], ask: Ask) -> list[dict[str, Any]]:
        """What speaks for the most probable label, or for the number, of each text; see words.py."""
        found = []
        for row, answer in zip(input_rows(rows, INPUTS), answers, strict=True):
            texts = {role: row[role] for role in INPUTS[: 1 + self.state.pair]}
            found.append(explain_words(row, texts, of_target(answer), ask, self._tokens(texts)))
        return found

    def _tokens(self, texts: dict[str, str]) -> Tokens:
        """The tokens that the model reads of texts, which may be too long."""
        pairs = [[text] for text in texts.values()]
        (encoding,) = self.state.tokenizer.encode(*pairs, max_length=self.state.max_length)
        places = zip(encoding.sequence_ids, encoding.offsets, strict=True)
        spans = [None if part is None else (INPUTS[part], *ends) for part, ends in places]
        return Tokens(spans, mask_id(self.state.tokenizer, in_place=True))

    def example_row(self) -> dict[str, Any]:
        return {"text": "Some text."} | ({"text_pair": "Another one."} if self.state.pair else {})

    def synthetic_rows(self, rows: int, seed: int) -> dict[str, list[Any]]:
        """Sentences of made-up words; the word that decides is one of three."""
        rng = random.Random(seed)  # seeded, so that smoke runs and their pinned losses repeat
        telling = {"bad": ("mirk", "dross", "blag"), "good": ("lumo", "shine", "vita")}
        filler = ("tavo", "renn", "ilpa", "osk", "dume", "karr", "pell", "unda", "sift", "gron")
        texts: list[str] = []
        labels: list[Any] = []
        for index in range(rows):
            given = self._synthetic_label(index, rng)
            # Of 3 to 10 words, so that batches have padding.
            words = rng.choices(filler, k=rng.randint(2, 9))
            if isinstance(given, float):
                words += rng.choices(telling["good"], k=int(given))
            else:
                words += [rng.choice(telling[name]) for name in ([given] if isinstance(given, str) else given)]
            rng.shuffle(words)
            texts.append(" ".join(words))
            labels.append(given)
        return {"text": texts, "label": labels}

    def _synthetic_label(self, index: int, rng: random.Random) -> Any:
        """In turn bad and good; neither, one or both; or how often the text is good."""
        if self.options.problem == "single_label":
            return ("bad", "good")[index % 2]
        if self.options.problem == "multi_label":
            return [[], ["bad"], ["good"], ["bad", "good"]][index % 4]
        return float(rng.randint(0, 4))
