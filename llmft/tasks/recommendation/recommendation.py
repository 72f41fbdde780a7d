"""Lists the items that a user has next, or says how the user would rate them."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy
from safetensors.numpy import load_file, save_file

from llmft.data.interactions import arrange
from llmft.data.source import Rows, Table
from llmft.metrics.ranking_metrics import NONE, list_metrics, ndcg, ranking_metrics, top_k
from llmft.schema.column import Column
from llmft.schema.dataset import DatasetConfig
from llmft.schema.model import ModelConfig
from llmft.schema.problem import Problem, plural
from llmft.schema.tasks import IGNORED
from llmft.tasks.padding import Arrays, padded
from llmft.tasks.recommendation import config as sections
from llmft.tasks.task import Answer, Features, RowScore, State, Task, read_facts, write_facts

if TYPE_CHECKING:
    from datasets import Dataset
    from scipy.sparse import csr_matrix

ARRAYS = "interactions.safetensors"  # a file beside task.json
LANES = 16
"""Histories are padded to a multiple of this. A sum over 3 places is rounded in another order than one over 4 of which
one is 0; with whole registers of numbers, a score does not depend on the histories beside it."""
SHOWN = 10  # items of a history that a report shows


@dataclass
class Known(State):
    """Who the users are, what the items are, and who had what."""

    users: list[str]
    """Sorted. A user's number is the place here plus 1; 0 is an unknown one."""
    items: list[str]
    """Sorted. An item's number is the place here plus 1; 0 is padding, or an unknown one."""
    offsets: numpy.ndarray
    """(users + 1,) where the history of each user begins in `history`."""
    history: numpy.ndarray
    """(n,) int64, the numbers of the items of all users, in order."""
    ratings: numpy.ndarray
    """(n,) float32; empty without ratings."""
    texts: dict[str, str] = field(default_factory=dict)
    """What is said of each item."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.user_number = {name: number for number, name in enumerate(self.users, 1)}
        self.item_number = {name: number for number, name in enumerate(self.items, 1)}
        self.counts = numpy.bincount(self.history, minlength=len(self.items) + 1)[1:]

    @property
    def description(self) -> str:
        return f"{len(self.users):,} users, {len(self.items):,} items"

    @property
    def range(self) -> tuple[float, float]:
        """The lowest and the highest rating of training, to which predictions are clipped."""
        return float(self.ratings.min()), float(self.ratings.max())

    def had(self, user: int) -> list[int]:
        """The items of a user in training, in order; none of an unknown user."""
        found: list[int] = self.history[self.offsets[user - 1] : self.offsets[user]].tolist() if user else []
        return found

    def matrix(self) -> "csr_matrix":
        """(items, users), 1 where a user had an item."""
        from scipy.sparse import csr_matrix

        users = numpy.repeat(numpy.arange(len(self.users)), numpy.diff(self.offsets))
        ones, shape = numpy.ones(len(self.history)), (len(self.items), len(self.users))
        return csr_matrix((ones, (self.history - 1, users)), shape=shape)

    def save(self, folder: Path) -> None:
        arrays = {name: getattr(self, name) for name in ("offsets", "history", "ratings")}
        save_file({name: numpy.ascontiguousarray(values) for name, values in arrays.items()}, folder / ARRAYS)
        write_facts(folder, {"users": self.users, "items": self.items, "texts": self.texts})

    @classmethod
    def load(cls, folder: Path) -> Self:
        return cls(**read_facts(folder), **load_file(folder / ARRAYS))


class Recommendation(Task[Known]):
    """What to watch next, what to read, what to buy?"""

    config = sections.Recommendation
    head = "AutoModel"
    state_class = Known
    objective_class = "llmft.tasks.recommendation.ranked_lists:RecommendationObjective"
    default_input_role = "user"
    only_scored = ("ranked",)
    options: sections.Recommendation

    @property
    def columns(self) -> dict[str, Column]:
        # Somebody new has a history alone.
        return {
            "user": Column("text", required=False, unless="items", ids=True),
            "items": Column("texts", required=False, blank=True, unless="user", ids=True),
            "relevant": Column("texts", required=False, target=True, blank=True),
        }

    @property
    def file_columns(self) -> dict[str, Column]:
        """The roles of a file with an interaction in each row."""
        rated = self.options.problem == "rating" or self.options.like_from is not None
        return {
            "user": Column("label"),  # ids are texts, also those that a file has as numbers
            "item": Column("label"),
            "rating": Column("number", required=rated),
            # Any value, as JSON; interactions.py tells what a time must be.
            "time": Column("json", required=False, target=True, blank=True, structure=lambda _: False),
            "text": Column("text", required=False, target=True, blank=True),
        }

    def arrange(self, tables: dict[str, Table], config: DatasetConfig) -> tuple[dict[str, Table], list[str]]:
        return arrange(tables, config, self.options)

    def as_history(self, table: Table) -> Table:
        """Rows with something held out as rows of train, where it is what users had."""
        columns = dict(table.columns)
        for had, held in (("items", "relevant"), ("ratings", "relevant_ratings")):
            if held in columns:
                columns[had] = [first + more for first, more in zip(columns[had], columns[held], strict=True)]
                columns[held] = [None] * len(table)
        return Table(columns, table.ids)

    def learn(self, train: "Dataset", model: ModelConfig) -> Known:
        users, histories = train["user"][:], train["items"][:]
        names = sorted({item for items in histories for item in items})
        number = {name: place for place, name in enumerate(names, 1)}
        order = sorted(range(len(users)), key=users.__getitem__)
        offsets = numpy.cumsum([0, *(len(histories[row]) for row in order)])
        history = numpy.array([number[item] for row in order for item in histories[row]], dtype=numpy.int64)
        rated = train["ratings"][:] if "ratings" in train.column_names else []
        ratings = numpy.array([one for row in order for one in rated[row]] if rated else [], dtype=numpy.float32)
        texts: dict[str, str] = {}
        if "texts" in train.column_names:
            for items, own in zip(histories, train["texts"][:], strict=True):
                texts |= zip(items, own, strict=False)
        return Known([users[row] for row in order], names, offsets, history, ratings, texts)

    def model_kwargs(self) -> dict[str, Any]:
        sizes = {"num_users": len(self.state.users), "num_items": len(self.state.items)}
        return sizes | {"max_position_embeddings": _padded_to_lanes(self.options.max_length)}

    def check(self, rows: Rows, split: str) -> list[Problem]:
        """Rows of ratings must name the items to rate; of a ranking, a known user or a history."""
        if self.options.problem == "rating" and self.state.inference and "items" not in rows.column_names:
            return [Problem("dataset.columns.items", "the rows must have `items`, a list of what to rate")]
        if self.options.problem == "ranking" and not {"user", "items"} & {*rows.column_names}:
            return [Problem("dataset.columns.user", "the rows must have a `user`, or `items`, what a user had")]
        return []

    def notes_on(self, rows: "Dataset | None", split: str, features: Any = None) -> list[str]:
        """How many rows are of unknown users or items."""
        if rows is None or split == "train" or "items" not in rows.column_names:
            return []
        histories = [items for items in rows["items"][:] if items]
        unknown = sum(item not in self.state.item_number for items in histories for item in items)
        return (
            [f"{split}: {plural(unknown, 'items')} of histories not in train, which no model reads"] if unknown else []
        )

    def encode(self, rows: dict[str, list[Any]]) -> Features:
        if self.options.problem == "rating":
            return self._encode_ratings(rows)
        count = len(next(iter(rows.values())))
        users, histories = (rows.get(role, [None] * count) for role in ("user", "items"))
        relevant = rows.get("relevant", [None] * count)
        if not self.state.inference and all(items is None for items in relevant):
            return self._windows(users, histories)
        found: Features = {"user": [], "history": [], "seen": [], "row": [], "length": [], "cut": [], "aside": []}
        most = self.options.max_length
        for row, (name, items) in enumerate(zip(users, histories, strict=True)):
            user = self.state.user_number.get(name, 0)
            numbers = self.state.had(user) if items is None else self._numbers(items)
            numbers = [number for number in numbers if number]
            last = numbers[-most:]
            seen = [] if self.options.repeat else numbers
            found["user"].append(user)
            found["history"].append(last)
            found["seen"].append(seen)
            found["row"].append(row)
            found["length"].append(_padded_to_lanes(len(last)))
            found["cut"].append(len(numbers) > most)
            found["aside"].append({"seen": seen, "cold": not numbers})
        return found

    def _numbers(self, items: Sequence[str]) -> list[int]:
        return [self.state.item_number.get(item, 0) for item in items]

    def _windows(self, users: list[str], histories: list[list[str]]) -> Features:
        """Windows of one item more than `max_length`, of which each begins with the last item of the one before.

        They are cut from the end: the latest items, which are most like those to come, then have a full window before
        them.
        """
        found: Features = {"user": [], "window": [], "first": [], "row": [], "length": []}
        most = self.options.max_length
        for row, (name, items) in enumerate(zip(users, histories, strict=True)):
            numbers = self._numbers(items)
            ends = range(len(numbers), 1, -most) or range(1, 2)
            for end in reversed(ends):
                window = numbers[max(end - most - 1, 0) : end]
                found["user"].append(self.state.user_number.get(name, 0))
                found["window"].append(window)
                found["first"].append(int(end - most - 1 <= 0))
                found["row"].append(row)
                found["length"].append(len(window))
        return found

    def _encode_ratings(self, rows: dict[str, list[Any]]) -> Features:
        """The items to rate, those of `relevant` where there are any, and their ratings."""
        count = len(next(iter(rows.values())))
        users = rows.get("user", [None] * count)
        roles = ("relevant", "relevant_ratings", "items", "ratings")
        held, given, had, rated = (rows.get(role, [None] * count) for role in roles)
        found: Features = {"user": [], "history": [], "row": [], "length": [], "aside": []}
        labels: list[list[float]] = []
        for row, name in enumerate(users):
            source = had[row] if held[row] is None else held[row]
            numbers = rated[row] if held[row] is None else given[row]
            found["user"].append(self.state.user_number.get(name, 0))
            found["history"].append(self._numbers(source or []))
            found["row"].append(row)
            found["length"].append(len(source or []))
            found["aside"].append(len(source or []))
            labels.append(numbers or [])
        if not self.state.inference and any(labels):
            found["labels"] = labels
        return found

    def collate(self, features: list[dict[str, Any]]) -> Arrays:
        """`user` (B,); `history` (B, L), padded with 0 on the left; `labels` (B, L), the next item at each place."""
        batch: Arrays = {"user": numpy.array([feature["user"] for feature in features], dtype=numpy.int64)}
        if "window" in features[0]:
            windows = [feature["window"] for feature in features]
            batch["history"] = padded([window[:-1] or window for window in windows], 0, "left")
            batch["labels"] = padded([window[1:] or [IGNORED] for window in windows], IGNORED, "left")
            return batch
        histories = [feature["history"] for feature in features]
        width = _padded_to_lanes(max(map(len, histories)))
        batch["history"] = padded([[0] * (width - len(items)) + items for items in histories], 0, "left")
        if "seen" in features[0]:
            batch["seen"] = padded([feature["seen"] or [0] for feature in features], 0, "left")
        if "labels" in features[0]:
            width = batch["history"].shape[1]
            batch["labels"] = numpy.full((len(features), width), numpy.nan, dtype=numpy.float32)
            for line, feature in zip(batch["labels"], features, strict=True):
                line[width - len(feature["labels"]) :] = feature["labels"]
        return batch

    @property
    def listed(self) -> int:
        """How many items a list needs."""
        most = self.options.top_k if self.state.inference else max(self.options.top_k, *self.options.ks)
        return min(most, len(self.state.items))

    def decode(self, outputs: list[Any], rows: list[int]) -> list[Answer]:
        if self.options.problem == "rating":
            return [self._ratings(output, aside) for output, aside in outputs]
        return [self._list(output, aside) for output, aside in outputs]

    def _list(self, output: numpy.ndarray, aside: dict[str, Any]) -> Answer:
        """The answer of a list (2, k) of ids and scores, or of the scores of all items, (items,), of a program."""
        if output.ndim == 1:
            scores = self.state.counts.astype(numpy.float32) if aside["cold"] else output.astype(numpy.float32)
            scores[[number - 1 for number in aside["seen"]]] = -numpy.inf
            ids, best = (part[0] for part in top_k(scores[None], self.listed, self.state.counts))
        else:
            ids, best = output[0].astype(numpy.int64), output[1]
        listed = ids != NONE
        names = [self.state.items[item] for item in ids[listed]]
        most = self.options.top_k
        answer: Answer = {"answer": names[:most], "scores": [float(score) for score in best[listed][:most]]}
        if not self.state.inference:
            answer["ranked"] = names
        return answer | ({"by": "popularity"} if aside["cold"] else {})

    def _ratings(self, output: numpy.ndarray, count: int) -> Answer:
        low, high = self.state.range
        return {"answer": [float(rating) for rating in numpy.clip(output[len(output) - count :], low, high)]}

    def output_difference(self, original: list[Any], exported: list[Any]) -> float:
        """By the scores, rank by rank: of items with almost the same score, either may come first."""
        if self.options.problem == "rating":
            return super().output_difference(original, exported)
        pairs = [_shared_scores(*pair) for pair in zip(original, exported, strict=True)]
        return super().output_difference([one for one, _ in pairs], [other for _, other in pairs])

    def score(self, answers: list[Answer], references: "Dataset") -> dict[str, Any]:
        """Metrics of lists or of ratings; see llmft.metrics.ranking_metrics."""
        if self.options.problem == "rating":
            right = [one for row in references["relevant_ratings"][:] for one in row]
            errors = numpy.array([one for answer in answers for one in answer["answer"]]) - numpy.array(right)
            return {"rmse": float(numpy.sqrt(numpy.mean(errors**2))), "mae": float(numpy.mean(abs(errors)))}
        held = [set(items or ()) for items in references["relevant"][:]]
        lists: list[list[str]] = [answer.get("ranked") or answer["answer"] for answer in answers]
        width = max(self.options.ks)
        hits = numpy.zeros((len(lists), width), dtype=bool)
        ids = numpy.full((len(lists), width), NONE, dtype=numpy.int64)
        for row, (names, known) in enumerate(zip(lists, held, strict=True)):
            for rank, name in enumerate(names[:width]):
                hits[row, rank], ids[row, rank] = name in known, self.state.item_number[name] - 1
        found = ranking_metrics(hits, numpy.array(list(map(len, held))), self.options.ks)
        found |= list_metrics(ids, self.state.counts, len(self.state.users), self.options.ks, self.state.matrix())
        found |= {"cold_users": sum("by" in answer for answer in answers)}
        return found | {"groups": self._groups(references, held, lists)}

    def _groups(self, references: "Dataset", held: list[set[str]], lists: list[list[str]]) -> dict[str, Any]:
        """The share of hits at the first k by the popularity of what was held out, and by the length of histories."""
        k = self.options.ks[0]
        listed = [set(names[:k]) for names in lists]
        pairs = [(item, item in found) for items, found in zip(held, listed, strict=True) for item in items]
        counts = [
            int(self.state.counts[self.state.item_number[item] - 1])
            for item, _ in pairs
            if item in self.state.item_number
        ]
        hits = [hit for item, hit in pairs if item in self.state.item_number]
        groups = {f"Hits at {k} by the rows of a held-out item in train": _quarters(counts, hits)}
        histories = references["items"][:] if "items" in references.column_names else []
        if histories and None not in histories:
            some = [bool(items & found) for items, found in zip(held, listed, strict=True)]
            groups[f"Users with a hit at {k} by the items of their history"] = _quarters(
                list(map(len, histories)), some
            )
        return groups

    def format_input(self, row: dict[str, Any]) -> str:
        items: list[str] | None = row.get("items")
        had = "" if items is None else f"{len(items)} items" + (f": … {', '.join(items[-SHOWN:])}" if items else "")
        return ", ".join(part for part in (f"user {row['user']}" if row.get("user") else "", had) if part) or "nobody"

    def reference(self, row: dict[str, Any]) -> Any:
        return row.get("relevant_ratings" if self.options.problem == "rating" else "relevant")

    def row_score(self, answer: Answer, reference: Any) -> RowScore:
        if self.options.problem == "rating":
            errors = numpy.array(answer["answer"]) - numpy.array(reference)
            mean = float(numpy.mean(errors**2)) if len(errors) else 0.0
            why = f"off by {mean**0.5:.2f}"
            return RowScore("mse", float((errors**2).sum()), float(len(errors)), error=mean, why=why)
        k = self.options.ks[0]
        names: list[str] = answer.get("ranked") or answer["answer"]
        hits = numpy.array([[name in set(reference) for name in names[:k]]], dtype=bool)
        gain = float(ndcg(numpy.pad(hits, ((0, 0), (0, k - hits.shape[1]))), numpy.array([min(k, len(reference))]))[0])
        why = f"{int(hits.sum())} of {len(reference)} found"
        return RowScore(f"ndcg@{k}", gain, error=1.0 - gain, why=why)

    def baseline(self, splits: "dict[str, Dataset]", seed: int) -> tuple[str, dict[str, list[Any]]]:
        """The most popular items; of ratings the mean of training."""
        found: dict[str, list[Any]] = {}
        for name, rows in splits.items():
            if name == "train":
                continue
            features = self.encode(rows[:])
            if self.options.problem == "rating":
                mean = numpy.float32(self.state.ratings.mean())
                found[name] = [(numpy.full(count, mean), count) for count in features["aside"]]
                continue
            scores = self.state.counts.astype(numpy.float32)
            found[name] = [(scores.copy(), aside) for aside in features["aside"]]
        return "mean rating" if self.options.problem == "rating" else "the most popular items", found

    def measure_inputs(self, rows: Rows) -> dict[str, list[float | str | None]]:
        """The length of the history."""
        histories = rows["items"][:] if "items" in rows.column_names else [None] * len(rows)
        return {"items": [None if items is None else float(len(items)) for items in histories]}

    def example_row(self) -> dict[str, Any]:
        """The three most popular items as a history: no user's."""
        most = numpy.argsort(-self.state.counts, kind="stable")[:3]
        return {"items": [self.state.items[item] for item in most]}

    def synthetic_rows(self, rows: int, seed: int) -> dict[str, list[Any]]:
        """Forty items in a ring: who had some in order has the next one then."""
        rng = random.Random(seed)
        found: dict[str, list[Any]] = {"user": [], "items": [], "relevant": []}
        for row in range(rows):
            start, length = rng.randrange(40), rng.randint(3, 8)
            ring = [f"item {(start + place) % 40:02}" for place in range(length + 1)]
            found["user"].append(f"user {row:03}")
            found["items"].append(ring[:-1])
            found["relevant"].append(ring[-1:])
        if self.options.problem == "rating":
            values = [[1.0 + int(name[-2:]) % 5 for name in items] for items in found["items"]]
            held = [[1.0 + int(name[-2:]) % 5 for name in items] for items in found["relevant"]]
            found |= {"ratings": values, "relevant_ratings": held}
        return found


def _quarters(sizes: list[int], hits: list[bool]) -> list[dict[str, Any]]:
    """The share of hits in each quarter by size; equal sizes share a quarter."""
    if not sizes:
        return []
    values, marks = numpy.array(sizes), numpy.array(hits, dtype=float)
    edges = numpy.unique(numpy.quantile(values, (0, 0.25, 0.5, 0.75), method="higher"))
    place = numpy.searchsorted(edges, values, side="right")
    found = []
    for number in numpy.unique(place):
        own = values[place == number]
        name = f"{own.min():,}" + (f" to {own.max():,}" if own.max() > own.min() else "")
        found.append({"name": name, "count": len(own), "share": float(marks[place == number].mean())})
    return found


def _padded_to_lanes(length: int) -> int:
    """At least one register, so that a batch of empty histories has a shape that every model reads."""
    return max(1, -(-length // LANES)) * LANES


def _shared_scores(one: numpy.ndarray, other: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The scores of two outputs that can be compared: of two lists (2, k) rank by rank, of a list and the scores of all
    items (items,) those of the listed items."""
    if one.ndim == other.ndim:
        scores = (one, other) if one.ndim == 1 else (one[1], other[1])
        first, second = (numpy.where(numpy.isneginf(each), 0.0, each) for each in scores)
        return first, second
    if one.ndim == 1:
        second, first = _shared_scores(other, one)
        return first, second
    listed = one[0] != NONE
    return one[1][listed], other[one[0][listed].astype(numpy.int64)]
