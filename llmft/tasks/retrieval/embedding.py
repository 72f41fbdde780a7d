"""Embeddings: a vector for each text, so that texts of similar meaning are near each other."""

import random
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy
from safetensors.numpy import load_file, save_file

from llmft.data.passages import Passages
from llmft.data.source import Rows, Table, listed
from llmft.schema.column import Column
from llmft.schema.model import ModelConfig
from llmft.schema.problem import Problem, UserError
from llmft.tasks.padding import Arrays, pad, pad_values
from llmft.tasks.retrieval import config as sections
from llmft.tasks.retrieval import sentence_files
from llmft.tasks.retrieval.vectors import KS, gain, nearest, ranked, texts_of, unit
from llmft.tasks.task import UNSAVED, Answer, Features, RowScore, State, Task
from llmft.tasks.tokenizer import Tokenizer, learn

if TYPE_CHECKING:
    from datasets import Dataset

REPORTED = ("ndcg@10", "mrr@10", "map@10", *(f"recall@{k}" for k in KS))
TEXTS = ("text", "text_pair")
EXTRA = 20
"""Further passages that are looked at for negatives, since some are left out."""
PASSAGES, VECTORS = "passages.jsonl", "passages.safetensors"
"""In RUN/model: the corpus of a run, and the vectors of its passages."""


@dataclass
class EmbeddingState(State):
    """The tokenizer, and how a vector is made of a text."""

    tokenizer: Tokenizer
    max_length: int
    pooling: str
    normalize: bool
    query: str = ""
    passage: str = ""
    """What is put in front of a text, and of the text that belongs to it."""
    range: list[float] = field(default_factory=list)
    """Of pairs with a number, the smallest and the largest of the training rows."""
    labels: list[str] = field(default_factory=list)
    """Of texts with a class, the classes of the training rows."""

    passages: Passages | None = field(default=None, metadata=UNSAVED)
    """The corpus that is searched; beside task.json, as `vectors` is."""
    vectors: numpy.ndarray | None = field(default=None, metadata=UNSAVED)
    """Of its passages, (passages, D)."""

    @property
    def description(self) -> str:
        return f"a vector for each text, by {self.pooling} pooling"

    @property
    def how(self) -> sentence_files.SentenceModel:
        """How a vector is made, for sentence-transformers."""
        return sentence_files.SentenceModel(self.pooling, self.normalize, self.query, self.passage)

    def save(self, folder: Path) -> None:
        """Write what was learned, and beside a model the files that sentence-transformers reads."""
        super().save(folder)
        if self.passages is not None:
            self.passages.save(folder / PASSAGES)
        if self.vectors is not None:
            save_file({"vectors": numpy.ascontiguousarray(self.vectors)}, folder / VECTORS)
        if (folder / "config.json").is_file():
            sentence_files.write(folder, self.how, self.max_length)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        found = super().load(folder)
        if (folder / PASSAGES).is_file():
            found.passages = Passages.load(folder / PASSAGES)
        if (folder / VECTORS).is_file():
            found.vectors = load_file(folder / VECTORS)["vectors"]
        return found


class Embedding(Task[EmbeddingState]):
    """Which passage answers a question, how alike are two sentences? By vectors, which can be computed before."""

    config = sections.Embedding
    head = "AutoModel"
    state_class = EmbeddingState
    objective_class = "llmft.tasks.retrieval.embedding_objective:EmbeddingObjective"
    padding_side = "right"  # for any model: pooling counts tokens from the left
    reads = "sentence_embedding"  # `embedding` is a name of nodes in ONNX
    options: sections.Embedding

    @property
    def columns(self) -> dict[str, Column]:
        form, asked = self.options.form, bool(getattr(self, "state", None) and self.state.inference)
        if form == "labels":
            return {"text": Column("text"), "label": Column("label")}
        # A row of `predict` may be a query, a passage, or both.
        pair = Column("text", required=not asked)
        found = {"text": Column("text", required=not asked, unless="text_pair" if asked else ""), "text_pair": pair}
        if form == "scores":
            return found | {"label": Column("number")}
        negatives = Column("texts", required=self.options.loss == "triplet", target=asked)
        return found | {"negative": negatives}

    def learn(self, train: "Dataset", model: ModelConfig) -> EmbeddingState:
        options = self.options
        texts = (text for column in TEXTS if column in train.column_names for text in train[column])
        tokenizer, length = learn(texts, train["text"], options.max_length, model, side="right")
        said = sentence_files.read(model, ignore_modules=options.pooling is not None)
        state = EmbeddingState(
            tokenizer,
            length,
            options.pooling or said.pooling,
            said.normalize if options.normalize is None else options.normalize,
            said.query if options.prompts.query is None else options.prompts.query,
            said.passage if options.prompts.passage is None else options.prompts.passage,
        )
        if options.form == "scores":
            state.range = [float(min(train["label"])), float(max(train["label"]))]
            if state.range[0] == state.range[1]:
                what = f"train has one number only, {state.range[0]:g}; pairs must differ in how alike they are"
                raise UserError(Problem("dataset.columns.label", what), "the data")
        if options.form == "labels":
            counts = Counter(train["label"])
            state.labels = sorted(counts)
            if len(counts) < 2 or max(counts.values()) < 2:
                what = "must have two labels or more, and one of them in two rows: a text is compared with others"
                what += f" of its label, got {len(counts)} in {len(train)} rows"
                raise UserError(Problem("dataset.columns.label", what), "the data")
        return state

    def model_kwargs(self) -> dict[str, Any]:
        sizes = {"vocab_size": len(self.state.tokenizer), "max_position_embeddings": self.state.max_length}
        return {"pad_token_id": self.state.tokenizer.pad_token_id} | sizes

    def check(self, rows: Rows, split: str) -> list[Problem]:
        """Rows whose wrong text is the right one."""
        problems = []
        for row in rows if "negative" in rows.column_names and not self.state.inference else ():
            if row["text_pair"] in texts_of(row["negative"]):
                problems.append(Problem(row["id"], f"has its text_pair among its negatives ({split})"))
            elif self.options.loss == "triplet" and not texts_of(row["negative"]):
                problems.append(Problem(row["id"], f"has no negative, which task.loss=triplet needs ({split})"))
        return listed(problems)

    def encode(self, rows: dict[str, list[Any]]) -> Features:
        """For a row of training all its texts as one feature; for one of `predict` a feature for each text."""
        if self.state.inference:
            return self._texts_alone(rows)
        count = len(rows["text"])
        given = [[self.state.query + text] for text in rows["text"]]
        for row in range(count if "text_pair" in rows else 0):
            others = [rows["text_pair"][row], *texts_of(rows["negative"][row] if "negative" in rows else None)]
            given[row] += [self.state.passage + text for text in others]
        found, cut = self._tokens([text for texts in given for text in texts])
        features: Features = {"texts": [], "row": list(range(count)), "length": [], "cut": []}
        place = 0
        for texts in given:
            part = slice(place, place := place + len(texts))
            features["texts"].append(found[part])
            features["length"].append(max(map(len, found[part])))
            features["cut"].append(any(cut[part]))
        if self.options.form == "pairs":
            first = len(self.state.passage)
            features["aside"] = [
                {"query": text, "passages": [other[first:] for other in texts[1:]]}
                for text, texts in zip(rows["text"], given, strict=True)
            ]
        elif self.options.form == "scores" and "label" in rows:
            features["labels"] = [self._scaled(number) for number in rows["label"]]
        elif "label" in rows:
            known = {label: number for number, label in enumerate(self.state.labels)}
            # A class that train does not have is one of its own: it is compared by its texts alone.
            features["labels"] = [known.setdefault(label, len(known)) for label in rows["label"]]
            features["aside"] = [{"label": label} for label in rows["label"]]
        return features

    def _texts_alone(self, rows: dict[str, list[Any]]) -> Features:
        count = len(next(iter(rows.values())))
        prompts = {"text": self.state.query, "text_pair": self.state.passage}
        given = [
            (row, role, prompts[role] + rows[role][row])
            for row in range(count)
            for role in TEXTS
            if role in rows and rows[role][row] is not None and role in self.columns
        ]
        found, cut = self._tokens([text for _, _, text in given])
        return {
            "input_ids": found,
            "row": [row for row, _, _ in given],
            "length": list(map(len, found)),
            "cut": cut,
            "aside": [{"role": role, "text": rows[role][row]} for row, role, _ in given],
        }

    def _tokens(self, texts: list[str]) -> tuple[list[list[int]], list[bool]]:
        encoded = self.state.tokenizer.encode(texts, max_length=self.state.max_length)
        return [encoding.ids for encoding in encoded], [bool(encoding.overflowing) for encoding in encoded]

    def collate(self, features: list[dict[str, Any]]) -> Arrays:
        """The texts of all features one below the other, and `sizes` (B,), how many each feature has."""
        if "texts" not in features[0]:
            return super().collate(features)
        found: Arrays = {"sizes": numpy.array([len(feature["texts"]) for feature in features], dtype=numpy.int64)}
        texts = [{"input_ids": ids} for feature in features for ids in feature["texts"]]
        found |= pad(texts, pad_values(self.state.tokenizer), "right")
        if "labels" in features[0]:
            kind = numpy.float32 if self.options.form == "scores" else numpy.int64
            found["labels"] = numpy.array([feature["labels"] for feature in features], dtype=kind)
        return found

    def decode(self, outputs: list[Any], rows: list[int]) -> list[Answer]:
        """Of rows of `predict` the vector, or of two texts their cosine; else what is scored."""
        if self.state.inference:
            return self._answers(outputs, rows)
        if self.options.form == "labels":
            return self._neighbors(outputs)
        if self.options.form == "scores":
            return [{"answer": float(unit(vectors)[0] @ unit(vectors)[1])} for vectors in outputs]
        return self._retrieved(outputs)

    def with_corpus(self, passages: Passages) -> Self:
        """The task with these passages in the place of those that it may have."""
        return self.with_state(replace(self.state, passages=passages, vectors=None))

    def passages_to_embed(self) -> Rows | None:
        """The passages of the corpus that have no vectors yet."""
        passages = self.state.passages
        if passages is None or self.state.vectors is not None or self.options.form == "labels":
            return None
        return Table({"text_pair": passages.full_texts()}, passages.ids)

    def with_vectors(self, outputs: list[Any]) -> Self:
        """The task with the vectors of its passages."""
        state = replace(self.state, vectors=numpy.stack([vector for vector, _ in outputs]))
        state.inference = self.state.inference
        return self.with_state(state)

    def _answers(self, outputs: list[Any], rows: list[int]) -> list[Answer]:
        found: dict[int, dict[str, Any]] = {}
        for (vector, aside), row in zip(outputs, rows, strict=True):
            found.setdefault(row, {})[aside["role"]] = (vector, aside["text"])
        given = [texts for _, texts in sorted(found.items())]
        answers: list[Answer] = []
        for texts in given:
            both = [unit(texts[role][0]) for role in TEXTS if role in texts]
            answers.append(
                {"answer": float(both[0] @ both[1]) if len(both) > 1 else next(iter(texts.values()))[0].tolist()}
            )
        if self.state.passages is None or self.state.vectors is None:
            return answers
        # A row of a query is answered by passages, and one with its passage, where they are asked for, by negatives.
        alone = [place for place, texts in enumerate(given) if self.options.top_k and list(texts) == ["text"]]
        pairs = [place for place, texts in enumerate(given) if self.options.negatives and len(texts) > 1]
        for places, count in ((alone, self.options.top_k), (pairs, 2 * self.options.negatives + EXTRA)):
            if not places:
                continue
            queries = numpy.stack([given[place]["text"][0] for place in places])
            for place, ids, cosines in zip(places, *nearest(queries, self.state.vectors, count), strict=True):
                best = [self._passage(*one) for one in zip(ids.tolist(), cosines.tolist(), strict=True)]
                if places is alone:
                    answers[place] = {"answer": best}
                else:
                    answers[place] = self._mined(given[place]["text_pair"][1], answers[place]["answer"], best)
        return answers

    def _passage(self, place: int, cosine: float) -> dict[str, Any]:
        assert self.state.passages
        passages = self.state.passages
        title = {"title": passages.titles[place]} if passages.titles[place] else {}
        return {"id": passages.ids[place], **title, "text": passages.texts[place], "score": cosine}

    def _mined(self, right: str, cosine: float, best: list[dict[str, Any]]) -> Answer:
        """Hard negatives, the nearest first, and why nearer passages are none."""
        most = self.options.negative_margin * cosine
        known = {_same(right): "is the text_pair"}
        found: list[str] = []
        left_out = []
        for passage in best:
            if len(found) == self.options.negatives:
                break
            text, why = passage["text"], known.get(_same(passage["text"]), "")
            if not why and passage["score"] > most:
                limit = f"{self.options.negative_margin:g} of the text_pair's {cosine:.4f}"
                why = f"its cosine {passage['score']:.4f} is above {limit}"
            if why:
                left_out.append({"id": passage["id"], "score": passage["score"], "why": why})
                continue
            known[_same(text)] = "is the same text as another"
            found.append(text)
        return {"answer": found, "score": cosine, "left_out": left_out}

    def _neighbors(self, outputs: list[Any]) -> list[Answer]:
        """The label of the nearest other text of the split."""
        vectors, labels = numpy.stack([vectors[0] for vectors, _ in outputs]), [aside["label"] for _, aside in outputs]
        if len(labels) < 2:
            return [{"answer": ""} for _ in labels]
        ids, cosines = nearest(vectors, vectors, 1, alone=True)
        return [{"answer": labels[n], "score": float(c)} for n, c in zip(ids[:, 0], cosines[:, 0], strict=True)]

    def _retrieved(self, outputs: list[Any]) -> list[Answer]:
        """For each row the passage that is nearest to its query, and at which ranks its own are.

        Passages are those of all rows and of the corpus, each once. A query that occurs in several rows has several
        right passages.
        """
        passages: dict[str, numpy.ndarray] = {}
        queries: dict[str, numpy.ndarray] = {}
        right: dict[str, set[str]] = {}
        for vectors, aside in outputs:
            for vector, text in zip(vectors[1:], aside["passages"], strict=True):
                passages.setdefault(text, vector)
            queries.setdefault(aside["query"], vectors[0])
            right.setdefault(aside["query"], set()).add(aside["passages"][0])
        if self.state.passages is not None and self.state.vectors is not None:
            for text, vector in zip(self.state.passages.texts, self.state.vectors, strict=True):
                passages.setdefault(text, vector)
        texts, asked = list(passages), list(queries)
        found = nearest(numpy.stack(list(queries.values())), numpy.stack(list(passages.values())), max(KS))
        answers = {}
        for query, ids, cosines in zip(asked, *found, strict=True):
            own = right[query]
            answers[query] = {
                "answer": texts[ids[0]],
                "score": float(cosines[0]),
                "ranks": [rank for rank, place in enumerate(ids.tolist(), 1) if place >= 0 and texts[place] in own],
                "relevant": len(own),
            }
        seen: set[str] = set()
        rows = []
        for _, aside in outputs:
            query = aside["query"]
            rows.append(answers[query] | ({"repeated": True} if query in seen else {}))
            seen.add(query)
        return rows

    def score(self, answers: list[Answer], references: "Dataset") -> dict[str, Any]:
        """Retrieval over all passages of the split; correlations with the numbers; or the label of the nearest text."""
        if self.options.form == "pairs":
            found = ranked(answers, KS)
            return {name: found[name] for name in REPORTED if name in found}
        if self.options.form == "scores":
            from llmft.metrics.target_metrics import RegressionErrors  # scipy and scikit-learn take half a second

            right = [self.reference(row) for row in references]
            found = RegressionErrors().compute(predictions=[answer["answer"] for answer in answers], references=right)
            return {name: found[name] for name in ("spearman", "pearson", "mae")}
        right = [answer["answer"] == label for answer, label in zip(answers, references["label"], strict=True)]
        return {"accuracy": sum(right) / len(right)}

    def format_input(self, row: dict[str, Any]) -> str:
        """Of pairs the query alone: its passage is the reference."""
        roles = TEXTS[:1] if self.options.form == "pairs" and row.get("text") else TEXTS
        return " ⏐ ".join(row[role] for role in roles if row.get(role))

    def reference(self, row: dict[str, Any]) -> Any:
        """The right passage; the number, from 0 for the least to 1 for the largest of train; or the label."""
        if self.options.form == "pairs":
            return row.get("text_pair")
        label = row.get("label")
        return self._scaled(label) if self.options.form == "scores" and label is not None else label

    def _scaled(self, number: float) -> float:
        low, high = self.state.range
        return (float(number) - low) / (high - low)

    def row_score(self, answer: Answer, reference: Any) -> RowScore:
        """NDCG@10 of a query, of rows with the same query once; of a pair with a number the absolute error."""
        if self.options.form == "scores":
            off = abs(answer["answer"] - reference)
            return RowScore("mae", off, error=off, why=self.format_answer(off))
        if self.options.form == "labels":
            return super().row_score(answer, reference)
        part, first = gain(answer, 10), next(iter(answer["ranks"]), None)
        whole = 0.0 if answer.get("repeated") else 1.0
        if first == 1:
            return RowScore("ndcg@10", part * whole, whole)
        why = f"rank {first}" if first else f"not among the first {max(KS)}"
        return RowScore("ndcg@10", part * whole, whole, error=float(first or 2 * max(KS)), why=why)

    def example_row(self) -> dict[str, Any]:
        return {"text": "Some text."}

    def synthetic_rows(self, rows: int, seed: int) -> dict[str, list[Any]]:
        """Texts of made-up words of two of six topics; those of the same two belong together."""
        rng = random.Random(seed)
        topics = [[f"{first}{end}" for end in ("lo", "ra", "mi")] for first in ("ta", "ve", "ki", "no", "pu", "gi")]
        filler = ("tavo", "renn", "ilpa", "osk", "dume", "karr")

        def text(*chosen: int) -> str:
            words = [*(rng.choice(topics[topic]) for topic in chosen), *rng.choices(filler, k=rng.randint(1, 3))]
            rng.shuffle(words)
            return " ".join(words)

        form, made = self.options.form, dict[str, list[Any]](text=[], text_pair=[], label=[], negative=[])
        for index in range(rows):
            first, second, third, fourth = rng.sample(range(len(topics)), 4)
            shared = 2 if form == "pairs" else index % 3
            made["text"].append(text(first) if form == "labels" else text(first, second))
            made["text_pair"].append(text(*((third, fourth), (first, third), (first, second))[shared]))
            made["negative"].append(text(first, third))
            made["label"].append(shared / 2 if form == "scores" else f"topic {first}")
        wanted = {"pairs": TEXTS, "scores": (*TEXTS, "label"), "labels": ("text", "label")}[form]
        return {name: made[name] for name in (*wanted, *(("negative",) if self.options.loss == "triplet" else ()))}


def _same(text: str) -> str:
    """The text without case and extra space, by which repeated ones are told."""
    return " ".join(text.casefold().split())
