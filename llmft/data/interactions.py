"""From interactions, a row each, to the rows of a recommender: for each user what they had, and what was held out.

The order of a user's interactions is that of time; those of the same time keep their order in the file. Everything
that depends on this order, or that leaves interactions out, is counted and told in a note.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import numpy

from llmft.data.source import Table, listed
from llmft.data.splitting import by_time, times_of
from llmft.schema.dataset import DatasetConfig, SplitConfig
from llmft.schema.problem import Problem, UserError, plural

LEAVE_ONE_OUT, RATIO, BY_TIME = "leave_one_out", "ratio", "time"
WAYS = (LEAVE_ONE_OUT, RATIO, BY_TIME)


class Options(Protocol):
    """The keys of a task that decide which interactions count."""

    @property
    def like_from(self) -> float | None:
        """The lowest rating of an interaction that counts."""

    @property
    def scale(self) -> list[float] | None:
        """The lowest and the highest rating."""

    @property
    def min_per_user(self) -> int:
        """How many interactions a user must have."""

    @property
    def min_per_item(self) -> int:
        """How many an item must have."""

    @property
    def repeat(self) -> bool:
        """Whether a user may have an item more than once."""


@dataclass(frozen=True)
class Interactions:
    """Interactions as columns of equal length."""

    users: numpy.ndarray
    """(n,) texts."""
    items: numpy.ndarray
    ratings: numpy.ndarray | None
    """(n,) float64."""
    times: numpy.ndarray | None
    """(n,) float64: float32 would have steps of 128 seconds."""
    texts: numpy.ndarray | None
    """(n,) what is said of the item."""

    def __len__(self) -> int:
        return len(self.users)

    @classmethod
    def of(cls, table: Table, split: str, scale: list[float] | None) -> Self:
        """The rows of a split.

        Raises:
            UserError: for times that are neither numbers nor dates, and for ratings off the scale, by row.
        """
        columns = table.columns
        ratings = None
        if "rating" in columns:
            ratings = numpy.array([numpy.nan if cell is None else float(cell) for cell in columns["rating"]])
            wrong = numpy.isnan(ratings) if scale is None else ~((ratings >= scale[0]) & (ratings <= scale[1]))
            if wrong.any():
                limits = "a number" if scale is None else f"from {scale[0]:g} to {scale[1]:g}"
                problems = [
                    Problem(table.ids[row], f"the rating must be {limits}, got {columns['rating'][row]} ({split})")
                    for row in numpy.flatnonzero(wrong).tolist()
                ]
                raise UserError(listed(problems), "the data")
        times = None
        if "time" in columns:
            cells = [None if cell is None else json.loads(cell) for cell in columns["time"]]
            times = _times(cells, table.ids, split)
        texts = numpy.array(columns["text"], dtype=object) if "text" in columns else None
        users, items = (numpy.array(columns[role], dtype=str) for role in ("user", "item"))
        return cls(users, items, ratings, times, texts)

    def take(self, rows: numpy.ndarray) -> Self:
        """The interactions at indices or a mask."""
        ratings, times, texts = (
            None if part is None else part[rows] for part in (self.ratings, self.times, self.texts)
        )
        return replace(self, users=self.users[rows], items=self.items[rows], ratings=ratings, times=times, texts=texts)


def arrange(tables: dict[str, Table], config: DatasetConfig, options: Options) -> tuple[dict[str, Table], list[str]]:
    """The rows of each split, a user each, of tables with an interaction in each row.

    Of validation and test, the history of a user is what train has of them, and for test what validation has, too.

    Args:
        tables: by split, with `user`, `item`, and perhaps `rating`, `time`, and `text`. Splits without a table are
            taken from train, as `config.split` says.

    Returns:
        tables with `user`; `items` and `ratings`, what the user had, in order; `relevant` and `relevant_ratings`, what
        was held out, None in train; and notes. Without train, `items` is None: what a model knows of the user counts.

    Raises:
        UserError: with what is wrong with the interactions, or if there are too few to split.
    """
    found, notes = {}, []
    given = {name: Interactions.of(table, name, options.scale) for name, table in tables.items()}
    for name, own in given.items():
        kept, lines = _liked(own, name, options)
        kept, more = _without_repeats(kept, name, options)
        if name == "train":
            kept, most = _core(kept, options)
            more += most
        if not len(kept):
            hint = "Lower task.like_from, task.min_per_user, or task.min_per_item."
            raise UserError(Problem(f"dataset.{name}", "has no interaction that counts", hint=hint), "the data")
        found[name] = ordered(kept)
        notes += [*lines, *more]
    if "train" not in found:
        return {name: _held_out(None, own) for name, own in found.items()}, notes
    notes += _time_notes(found["train"])
    taken = _split(found["train"], config, [name for name in ("validation", "test") if name not in found])
    found = found | taken
    history, tables = found["train"], {"train": _histories(found["train"])}
    for name in ("validation", "test"):
        if name in found and len(found[name]):
            own = found[name]
            if not options.repeat:
                own, lines = _unseen(own, history, name)
                notes += lines
            if not len(own):
                continue
            tables[name] = _held_out(history, own)
            notes += _cold_notes(own, found["train"], name)
            history = ordered(_joined(history, own))
    return tables, notes


def ordered(own: Interactions) -> Interactions:
    """Interactions by user, then time, then place in the file."""
    _, users = numpy.unique(own.users, return_inverse=True)
    places = numpy.arange(len(own))
    keys = (places, users) if own.times is None else (places, own.times, users)
    return own.take(numpy.lexsort(keys))


def leave_one_out(users: numpy.ndarray, names: Sequence[str]) -> numpy.ndarray:
    """The split of each interaction, an index into ["train", *names]: the last one of each user goes to the last split.

    A user with fewer interactions than splits keeps the first for train, and gives the last to the last split.

    Args:
        users: sorted.
    """
    _, starts, sizes = numpy.unique(users, return_index=True, return_counts=True)
    parts = numpy.zeros(len(users), dtype=int)
    for back, number in enumerate(range(len(names), 0, -1)):
        enough = sizes >= back + 2
        parts[(starts + sizes - 1 - back)[enough]] = number
    return parts


def ratio(users: numpy.ndarray, shares: Sequence[float], seed: int) -> numpy.ndarray:
    """As `leave_one_out`, with a share of each user's interactions in each split, drawn by `seed`.

    Shares are rounded down, as RecBole does: a part below one becomes one while train has more than one. 10 rows become
    8, 1, 1; 5 become 3, 1, 1; 2 become 1, 0, 1.
    """
    rng = numpy.random.default_rng(seed)
    _, starts, sizes = numpy.unique(users, return_index=True, return_counts=True)
    parts = numpy.zeros(len(users), dtype=int)
    for start, size in zip(starts, sizes, strict=True):
        counts = rounded(size, shares)
        drawn = rng.permutation(size)
        end = size
        for number in range(len(shares), 0, -1):
            parts[start + drawn[end - counts[number] : end]] = number
            end -= counts[number]
    return parts


def rounded(size: int, shares: Sequence[float]) -> list[int]:
    """How many of `size` interactions train and each share get, see `ratio`."""
    counts = [0, *(int(share * size + 1e-9) for share in shares)]
    counts[0] = size - sum(counts)
    for number in range(len(shares), 0, -1):
        if counts[0] <= 1:
            break
        if 0 < shares[number - 1] * size < 1 - 1e-9:
            counts[number] += 1
            counts[0] -= 1
    return counts


def core(users: numpy.ndarray, items: numpy.ndarray, least_users: int, least_items: int) -> numpy.ndarray:
    """Which interactions stay if every user has at least `least_users` and every item `least_items`: (n,) bool.

    Users and items are left out by turns until nothing changes.
    """
    kept = numpy.ones(len(users), dtype=bool)
    codes = [numpy.unique(values, return_inverse=True)[1] for values in (users, items)]
    while True:
        before = kept.sum()
        for own, least in zip(codes, (least_users, least_items), strict=True):
            counts = numpy.bincount(own[kept], minlength=own.max(initial=0) + 1)
            kept &= counts[own] >= least
        if kept.sum() == before:
            return kept


def _liked(own: Interactions, split: str, options: Options) -> tuple[Interactions, list[str]]:
    if options.like_from is None:
        return own, []
    if own.ratings is None:
        what = "needs ratings, and the rows have none"
        raise UserError(Problem("task.like_from", what, hint="Name their column: dataset.columns.rating=NAME."))
    liked = own.ratings >= options.like_from
    less = plural(int((~liked).sum()), "rows have")
    return own.take(liked), [f"{split}: {less} a rating below task.like_from={options.like_from:g}, and do not count"]


def _without_repeats(own: Interactions, split: str, options: Options) -> tuple[Interactions, list[str]]:
    """The first time that a user has an item; of ratings the last."""
    if options.repeat:
        return own, []
    sorted_own = ordered(own)
    keys = _pairs(sorted_own)
    last = own.ratings is not None
    _, first = numpy.unique(keys[::-1] if last else keys, return_index=True)
    kept = numpy.sort(len(keys) - 1 - first if last else first)
    if not (twice := len(keys) - len(kept)):
        return own, []
    which = "last" if last else "first"
    more = f"{split}: {plural(twice, 'rows have')} a user and an item that another row has, too"
    return sorted_own.take(kept), [f"{more}: the {which} one counts (task.repeat=true counts all)"]


def _core(own: Interactions, options: Options) -> tuple[Interactions, list[str]]:
    if options.min_per_user <= 1 and options.min_per_item <= 1:
        return own, []
    kept = core(own.users, own.items, options.min_per_user, options.min_per_item)
    gone = plural(int((~kept).sum()), "rows were")
    limits = f"task.min_per_user={options.min_per_user} and task.min_per_item={options.min_per_item}"
    return own.take(kept), [f"train: {gone} left out, until all have {limits}"]


def _split(own: Interactions, config: DatasetConfig, names: list[str]) -> dict[str, Interactions]:
    """Train, and the splits that are taken from it."""
    split, folds = config.split, config.folds
    shares = {name: getattr(split, name) for name in names}
    shares = {name: share for name, share in shares.items() if share}
    way = split.by or RATIO
    if way not in WAYS:
        hint = f"It is one of {', '.join(WAYS)}; the time is the column of dataset.columns.time."
        raise UserError(Problem("dataset.split.by", f"must be a way to split interactions, got {way}", hint=hint))
    if way == BY_TIME and own.times is None:
        what = "time needs times, and the rows have none"
        hint = "Name their column, dataset.columns.time=NAME, or write another way."
        raise UserError(Problem("dataset.split.by", what, hint=hint), "the data")
    if folds is not None and "test" in shares:
        parts = _fold(own, split, folds, config.fold or 0, list(shares))
    elif way == LEAVE_ONE_OUT:
        parts = leave_one_out(own.users, list(shares))
    elif way == BY_TIME:
        assert own.times is not None
        chosen = by_time(own.times.tolist(), shares)
        parts = numpy.zeros(len(own), dtype=int)
        for place, name in enumerate(shares, 1):
            parts[chosen[name]] = place
    else:
        parts = ratio(own.users, list(shares.values()), split.seed)
    if shares and not (parts > 0).any():
        what = "has no user with two interactions, so that nothing can be held out"
        raise UserError(Problem("dataset.train", what), "the data")
    return {name: own.take(parts == place) for place, name in enumerate(["train", *shares])}


def _fold(own: Interactions, split: SplitConfig, folds: int, fold: int, names: list[str]) -> numpy.ndarray:
    """The interactions whose place in a draw of their user is `fold`, modulo `folds`, are test."""
    rng = numpy.random.default_rng(split.seed)
    _, starts, sizes = numpy.unique(own.users, return_index=True, return_counts=True)
    drawn = numpy.concatenate([rng.permutation(size) for size in sizes])
    parts = numpy.where(drawn % folds == fold, len(names), 0)
    for start, size in zip(starts, sizes, strict=True):
        if (parts[start : start + size] > 0).all():  # something stays in train
            parts[start] = 0
    if "validation" in names:
        rest = numpy.flatnonzero(parts == 0)
        parts[rest[ratio(own.users[rest], [split.validation], split.seed) > 0]] = names.index("validation") + 1
    return parts


def _histories(own: Interactions) -> Table:
    """A row for each user with what they had."""
    users, items, ratings, texts = _by_user(own)
    columns: dict[str, list[Any]] = {"user": users, "items": items, "ratings": ratings}
    columns |= {"relevant": [None] * len(users), "relevant_ratings": [None] * len(users), "texts": texts}
    return Table(columns, [f"user {user}" for user in users])


def _held_out(history: Interactions | None, own: Interactions) -> Table:
    """A row for each user with something held out."""
    users, relevant, ratings, texts = _by_user(own)
    columns: dict[str, list[Any]] = {"user": users, "relevant": relevant, "relevant_ratings": ratings, "texts": texts}
    had: dict[str, tuple[list[str], list[float]]] = {}
    if history is not None:
        before = _by_user(history)
        had = {user: (items, rated) for user, items, rated, _ in zip(*before, strict=True)}
    empty: tuple[list[str], list[float]] = ([], [])
    columns["items"] = [None if history is None else had.get(user, empty)[0] for user in users]
    columns["ratings"] = [None if history is None else had.get(user, empty)[1] for user in users]
    names = ("user", "items", "ratings", "relevant", "relevant_ratings", "texts")
    return Table({name: columns[name] for name in names}, [f"user {user}" for user in users])


def _by_user(own: Interactions) -> tuple[list[str], list[list[str]], list[list[float]], list[list[str]]]:
    """Users, and the items, ratings, and texts of each; interactions are sorted by user."""
    users, starts = numpy.unique(own.users, return_index=True)
    cuts = starts[1:]
    columns: list[list[list[Any]]] = [
        [part.tolist() for part in numpy.split(values, cuts)] if values is not None else [[] for _ in users]
        for values in (own.items, own.ratings, own.texts)
    ]
    return users.tolist(), columns[0], columns[1], columns[2]


def _joined(one: Interactions, other: Interactions) -> Interactions:
    parts = [
        None if mine is None or theirs is None else numpy.concatenate([mine, theirs])
        for mine, theirs in (
            (one.users, other.users),
            (one.items, other.items),
            (one.ratings, other.ratings),
            (one.times, other.times),
            (one.texts, other.texts),
        )
    ]
    return Interactions(*parts)  # type: ignore[arg-type]


def _unseen(own: Interactions, history: Interactions, name: str) -> tuple[Interactions, list[str]]:
    """The held-out interactions with items that their user has not had: others are masked, and cannot be hit."""
    keys = _pairs(_joined(history, own))
    seen = numpy.isin(keys[len(history) :], keys[: len(history)])
    if not seen.any():
        return own, []
    what = f"{name}: {plural(int(seen.sum()), 'rows have')} an item that their user had before, and are not scored"
    return own.take(~seen), [f"{what} (task.repeat=true scores them)"]


def _pairs(own: Interactions) -> numpy.ndarray:
    """A number for each pair of a user and an item."""
    _, users = numpy.unique(own.users, return_inverse=True)
    names, items = numpy.unique(own.items, return_inverse=True)
    pairs: numpy.ndarray = users.astype(numpy.int64) * len(names) + items
    return pairs


def _time_notes(own: Interactions) -> list[str]:
    """How many interactions of a user have the same time: their order is then that of the file."""
    if own.times is None:
        return ["train: the rows have no times, so that their order in the file counts as that of time"]
    if len(own) < 2:
        return []
    same = (own.users[1:] == own.users[:-1]) & (own.times[1:] == own.times[:-1])
    tied = int((numpy.append(same, False) | numpy.insert(same, 0, False)).sum())
    last = numpy.append(own.users[1:] != own.users[:-1], True)
    newest = int(numpy.insert(same, 0, False)[last].sum())
    if not tied:
        return []
    what = (
        f"train: {tied / len(own):.1%} of the rows share user and time with another, and keep their order in the file"
    )
    return [f"{what}; {newest:,} of {int(last.sum()):,} users have more than one newest row"]


def _cold_notes(own: Interactions, train: Interactions, name: str) -> list[str]:
    """Users and items that train does not have."""
    notes = []
    users, items = set(own.users) - set(train.users), ~numpy.isin(own.items, train.items)
    if users:
        what = plural(len(users), "users have")
        notes.append(f"{name}: {what} no row in train, and get the most popular items")
    if items.any():
        what = plural(int(items.sum()), "held-out items are")
        notes.append(f"{name}: {what} not in train: they cannot be listed, and count as misses")
    return notes


def _times(cells: Sequence[Any], ids: Sequence[str], split: str) -> numpy.ndarray:
    """Times as numbers, or as days since 1970.

    Raises:
        UserError: naming rows whose time is empty, or neither a number nor a date like the others.
    """
    times, what = times_of(cells)
    if numpy.isnan(times).any():
        problems = [
            Problem(ids[row], f"the time must be {what}, got {cells[row]!r} ({split})")
            for row in numpy.flatnonzero(numpy.isnan(times)).tolist()
        ]
        raise UserError(listed(problems), "the data")
    return times
