"""Reranking: a number for a query and a text together, by which the candidates of a query are put in order."""

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy

from llmft.data.source import Rows, listed
from llmft.schema.column import Column
from llmft.schema.model import ModelConfig
from llmft.schema.problem import Problem, UserError, plural
from llmft.tasks.padding import Arrays, pad, pad_values
from llmft.tasks.retrieval import config as sections
from llmft.tasks.retrieval.vectors import KS, gain, ranked, texts_of
from llmft.tasks.task import Answer, Features, RowScore, State, Task
from llmft.tasks.tokenizer import Tokenizer, learn

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset

RELEVANT = 0.5
"""From which label on, brought to 0 to 1, a candidate is a right one."""


@dataclass
class RerankingState(State):
    """The tokenizer, and the numbers of the training rows."""

    tokenizer: Tokenizer
    max_length: int
    range: list[float] = field(default_factory=lambda: [0.0, 1.0])
    """The smallest and the largest label."""

    @property
    def description(self) -> str:
        return "a score for each query and text"


class Reranking(Task[RerankingState]):
    """Which of these passages answers the question? By a model that reads both together."""

    config = sections.Reranking
    head = "AutoModelForSequenceClassification"
    state_class = RerankingState
    objective_class = "llmft.tasks.retrieval.reranking_objective:RerankingObjective"
    options: sections.Reranking

    @property
    def columns(self) -> dict[str, Column]:
        asked = bool(getattr(self, "state", None) and self.state.inference)
        found = {"text": Column("text"), "text_pair": Column("text")}
        if self.options.loss == "binary":
            found["label"] = Column("number", required=False)
        return found | {"negative": Column("texts", required=self.options.loss == "listwise", target=asked)}

    def learn(self, train: "Dataset", model: ModelConfig) -> RerankingState:
        texts = (text for column in ("text", "text_pair") for text in train[column])
        tokenizer, length = learn(texts, train["text"], self.options.max_length, model)
        state = RerankingState(tokenizer, length)
        if "label" in train.column_names:
            state.range = [float(min(train["label"])), float(max(train["label"]))]
            if state.range[0] == state.range[1]:
                what = f"train has one number only, {state.range[0]:g}; a model must see right and wrong texts"
                raise UserError(Problem("dataset.columns.label", what), "the data")
        return state

    def model_kwargs(self) -> dict[str, Any]:
        tokenizer = self.state.tokenizer
        sizes: dict[str, Any] = {"vocab_size": len(tokenizer), "max_position_embeddings": self.state.max_length}
        sizes["pools_last"] = tokenizer.padding_side == "left"
        return {"num_labels": 1, "pad_token_id": tokenizer.pad_token_id} | sizes

    def check(self, rows: Rows, split: str) -> list[Problem]:
        """Rows that say nothing of what is right, or contradict themselves."""
        names = rows.column_names
        if self.state.inference:
            return []
        if "label" not in names and "negative" not in names:
            what = f"{split} has neither labels nor negatives, and a model must see right and wrong texts"
            hint = "Write dataset.columns.label=COLUMN for 0 and 1, or dataset.columns.negative=COLUMN for a list."
            return [Problem("dataset.columns.label", what, hint=hint)]
        problems = []
        for row in rows if "negative" in names else ():
            if row["text_pair"] in texts_of(row["negative"]):
                problems.append(Problem(row["id"], f"has its text_pair among its negatives ({split})"))
        if "label" not in names and len(rows) and not any(map(texts_of, rows["negative"])):
            problems.append(Problem("dataset.columns.negative", f"no row of {split} has a negative"))
        return listed(problems)

    def notes_on(self, rows: "Dataset | None", split: str, features: "pyarrow.Table | None" = None) -> list[str]:
        """How many queries have no right candidate, or no wrong one, so that any order of theirs is as good."""
        if rows is None or self.state.inference:
            return []
        if "label" not in rows.column_names:
            alone = sum(not texts_of(cell) for cell in rows["negative"]) if "negative" in rows.column_names else 0
            return [f"{split}: {alone:,} of {plural(len(rows), 'rows')} have no negative"] if alone else []
        right: dict[str, bool] = {}
        for query, label in zip(rows["text"], rows["label"], strict=True):
            right[query] = right.get(query, False) or self._scaled(label) >= RELEVANT
        if not (without := sum(not found for found in right.values())):
            return []
        what = f"of {plural(len(right), 'queries')} have no text with a label of at least {self._middle:g}"
        return [f"{split}: {without:,} {what}, and are left out of the metrics"]

    @property
    def _middle(self) -> float:
        low, high = self.state.range
        return low + RELEVANT * (high - low)

    def _scaled(self, label: float) -> float:
        low, high = self.state.range
        return min(max((float(label) - low) / (high - low), 0.0), 1.0)

    def encode(self, rows: dict[str, list[Any]]) -> Features:
        """For a row of training the pairs of its query with all its candidates; for one of `predict` the one pair."""
        asked, count = bool(self.state.inference), len(rows["text"])
        given: list[list[tuple[str, float]]] = []
        for row in range(count):
            label = rows["label"][row] if "label" in rows and not asked else None
            own = [(rows["text_pair"][row], 1.0 if label is None else self._scaled(label))]
            wrong = texts_of(rows["negative"][row]) if "negative" in rows and not asked else []
            given.append(own + [(text, 0.0) for text in wrong[: self.options.negatives]])
        queries = [rows["text"][row] for row in range(count) for _ in given[row]]
        texts = [text for own in given for text, _ in own]
        tokenizer = self.state.tokenizer
        encoded = tokenizer.encode(queries, texts, max_length=self.state.max_length)
        ids = [encoding.ids for encoding in encoded]
        types = [encoding.type_ids for encoding in encoded]
        cut = [bool(encoding.overflowing) for encoding in encoded]
        features: Features = {"row": list(range(count)), "length": [], "cut": []}
        place = 0
        for own in given:
            part = slice(place, place := place + len(own))
            features["length"].append(max(map(len, ids[part])))
            features["cut"].append(any(cut[part]))
            if asked:
                features.setdefault("input_ids", []).append(ids[part][0])
                if tokenizer.reads_types:
                    features.setdefault("token_type_ids", []).append(types[part][0])
                continue
            features.setdefault("pairs", []).append(ids[part])
            if tokenizer.reads_types:
                features.setdefault("types", []).append(types[part])
            features.setdefault("labels", []).append([label for _, label in own])
        if not asked:
            features["aside"] = [
                {"query": query, "texts": [text for text, _ in own], "labels": [label for _, label in own]}
                for query, own in zip(rows["text"], given, strict=True)
            ]
        return features

    def collate(self, features: list[dict[str, Any]]) -> Arrays:
        """The pairs of all features one below the other; `sizes` (B,), how many each has, and their `labels` (N,)."""
        if "pairs" not in features[0]:
            return super().collate(features)
        found: Arrays = {"sizes": numpy.array([len(feature["pairs"]) for feature in features], dtype=numpy.int64)}
        names = {"input_ids": "pairs"} | ({"token_type_ids": "types"} if "types" in features[0] else {})
        texts = [
            {name: feature[key][number] for name, key in names.items()}
            for feature in features
            for number in range(len(feature["pairs"]))
        ]
        tokenizer = self.state.tokenizer
        found |= pad(texts, pad_values(tokenizer), tokenizer.padding_side)
        labels = [label for feature in features for label in feature["labels"]]
        return found | {"labels": numpy.array(labels, dtype=numpy.float32)}

    def decode(self, outputs: list[Any], rows: list[int]) -> list[Answer]:
        """The score of a row of `predict`; else the order of the candidates of its query."""
        if self.state.inference:
            return [{"answer": float(sigmoid(output[0]))} for output in outputs]
        queries: dict[str, list[tuple[str, float, float]]] = {}
        for scores, aside in outputs:
            given = zip(aside["texts"], scores.tolist(), aside["labels"], strict=True)
            queries.setdefault(aside["query"], []).extend(given)
        answers = {query: self._ordered(candidates) for query, candidates in queries.items()}
        seen: set[str] = set()
        found = []
        for scores, aside in outputs:
            query, texts = aside["query"], aside["texts"]
            answer = answers[query] | ({"repeated": True} if query in seen else {})
            if len(texts) == 1:  # a row of one candidate
                answer = {"answer": float(sigmoid(scores[0])), **{k: v for k, v in answer.items() if k != "answer"}}
            seen.add(query)
            found.append(answer)
        return found

    def _ordered(self, candidates: list[tuple[str, float, float]]) -> Answer:
        """Of equal scores wrong candidates come first: where they stand in a file must not decide.

        A text that is given twice counts once, with its first label.
        """
        once: dict[str, tuple[float, float]] = {}
        for text, score, label in candidates:
            once.setdefault(text, (score, label))
        best = sorted(once.items(), key=lambda item: (-item[1][0], item[1][1]))
        ranks = [rank for rank, (_, (_, label)) in enumerate(best, 1) if label >= RELEVANT]
        return {"answer": best[0][0], "ranks": ranks, "relevant": len(ranks)}

    def score(self, answers: list[Answer], references: "Dataset") -> dict[str, Any]:
        """Metrics of the order of the candidates that are given, over queries with a right one."""
        found = ranked(answers, KS)
        return {name: found[name] for name in ("ndcg@10", "mrr@10", "map@10", "hit_rate@1") if name in found}

    def format_input(self, row: dict[str, Any]) -> str:
        return f"{row['text']} ⏐ {row['text_pair']}" if texts_of(row.get("negative")) == [] else str(row["text"])

    def reference(self, row: dict[str, Any]) -> Any:
        """The label of a row with one, from 0 to 1; else the right text."""
        label = row.get("label")
        return row.get("text_pair") if label is None else self._scaled(label)

    def row_score(self, answer: Answer, reference: Any) -> RowScore:
        """NDCG@10 of a query, of several rows of it once; queries without a right candidate are left out."""
        first = next(iter(answer["ranks"]), None)
        whole = float(not answer.get("repeated") and answer["relevant"] > 0)
        part = gain(answer, 10) * whole
        if first in (1, None):
            return RowScore("ndcg@10", part, whole)
        return RowScore("ndcg@10", part, whole, error=float(first or 0), why=f"rank {first}")

    def example_row(self) -> dict[str, Any]:
        return {"text": "What is it?", "text_pair": "It is a text."}

    def synthetic_rows(self, rows: int, seed: int) -> dict[str, list[Any]]:
        """The right text has a word of one list, the wrong ones have a word of another."""
        rng = random.Random(seed)
        kinds = (("mirk", "dross", "blag"), ("lumo", "shine", "vita"))
        filler = ("tavo", "renn", "ilpa", "osk", "dume", "karr", "pell", "unda")

        def text(kind: int, most: int) -> str:
            words = [rng.choice(kinds[kind]), *rng.choices(filler, k=rng.randint(1, most))]
            rng.shuffle(words)
            return " ".join(words)

        made: dict[str, list[Any]] = {"text": [], "text_pair": [], "negative": []}
        for _ in range(rows):
            made["text"].append(" ".join(rng.choices(filler, k=3)))
            made["text_pair"].append(text(1, 4))
            made["negative"].append([text(0, 4) for _ in range(3)])
        return made


def sigmoid(value: float) -> float:
    """1 / (1 + exp(-value)), for large values of both signs."""
    return float(1 / (1 + numpy.exp(-numpy.clip(float(value), -700, 700))))
