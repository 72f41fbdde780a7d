"""Drift: whether the rows that a model answers are still like rows that it was not trained on; numpy alone.

A measurement is a number or a label of one row, such as its length, or the answer. `Reference` holds a histogram of
each, and `Drift` compares a sliding window of rows with it. Limits are calibrated: of streams without drift, a share of
ALARM_RATE passes a limit within STREAM rows. Fixed bands of an index have no known rate of false alarms.
"""

import bisect
import json
import math
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy

Value = float | str | None
Measurements = Mapping[str, Sequence[Value]]
"""By name a value for each row: a number, a label, or None where the row has none."""

FILE = "reference.json"
FORMAT = 1
WINDOW = 300  # rows; another domain shows in 50, a moved class share needs some hundreds
BLOCK = 50  # rows after which the window is compared again
STREAM = 1000  # rows over which the rate of false alarms holds
ALARM_RATE = 0.025
LEAST = 50  # rows of a reference: with fewer, limits are so wide that nothing would be noticed
BINS = 20  # of numbers, by quantiles of the reference
NAMES = 20  # labels that are counted apart, the most frequent ones
RUNS = 1000  # simulated streams; the limit is the 25th highest of them


@dataclass(frozen=True)
class Histogram:
    """What a measurement was for the rows of the reference.

    The first bin has rows without a value. Bins of a number follow in order, from those below the least to those above
    the greatest; bins of labels end with all others.
    """

    kind: Literal["number", "label"]
    counts: list[int]
    edges: list[float] = field(default_factory=list)
    """The upper end of each bin of a number but the last."""
    labels: list[str] = field(default_factory=list)
    mean: float | None = None

    @classmethod
    def of(cls, values: Sequence[Value]) -> Self:
        """The histogram of some rows; it has numbers if any row has one."""
        numbers = [value for value in values if isinstance(value, int | float) and math.isfinite(value)]
        if numbers:
            quantiles = numpy.quantile(numbers, numpy.linspace(0, 1, BINS + 1)[1:-1], method="higher")
            # A number that is as large as an edge lies below it: of a count that is mostly 0, one bin is 0 alone. Below
            # the least and above the greatest are bins without rows, so that a constant can change.
            ends = (math.nextafter(min(numbers), -math.inf), float(max(numbers)))
            edges = sorted({float(edge) for edge in quantiles} | {*ends})
            empty = cls("number", [0] * (len(edges) + 2), edges, mean=float(numpy.mean(numbers)))
        else:
            frequent = Counter(value for value in values if isinstance(value, str)).most_common(NAMES)
            labels = sorted(name for name, _ in frequent)
            empty = cls("label", [0] * (len(labels) + 2), labels=labels)
        bins = Counter(map(empty.bin, values))
        return replace(empty, counts=[bins[place] for place in range(len(empty.counts))])

    def bin(self, value: Value) -> int:
        """The bin of a value."""
        if self.kind == "label":
            if value is None:
                return 0
            place = bisect.bisect_left(self.labels, str(value))
            found = place < len(self.labels) and self.labels[place] == value
            return place + 1 if found else len(self.labels) + 1
        if value is None or isinstance(value, str) or not math.isfinite(value):
            return 0
        return 1 + bisect.bisect_left(self.edges, value)

    @property
    def shares(self) -> numpy.ndarray:
        """(bins,): the share of rows in each."""
        counts = numpy.asarray(self.counts, float)
        return counts / max(counts.sum(), 1.0)

    def distance(self, window: numpy.ndarray, reference: numpy.ndarray) -> numpy.ndarray:
        """How far shares (..., bins) are apart, from 0 to 1.

        Of numbers it is the largest difference of the two cumulative distributions (Kolmogorov-Smirnov), of labels the
        share of rows that would have to get another label (total variation).
        """
        apart = window - reference
        if self.kind == "number":
            return numpy.abs(apart.cumsum(axis=-1)).max(axis=-1)
        return numpy.abs(apart).sum(axis=-1) / 2

    def describe(self, counts: Sequence[float]) -> dict[str, float]:
        """Shares of all labels by name, for counts of their bins; `""` stands for rows without one."""
        whole = max(sum(counts), 1)
        names = ["", *self.labels, "other"]
        return {name: count / whole for name, count in zip(names, counts, strict=True) if count}


@dataclass(frozen=True)
class Reference:
    """Histograms of rows that were not trained on, and the limits that were calibrated with them."""

    split: str
    """The split that the rows are of."""
    rows: int
    measurements: dict[str, Histogram]
    limits: dict[str, list[float]] = field(default_factory=dict)
    """By measurement, the limit of its distance after 1, 2, ... blocks, up to a whole window."""
    words: dict[str, str] = field(default_factory=dict)
    """What is known of the words of training; see tasks/measurements.py."""

    @classmethod
    def of(cls, measured: Measurements, split: str, words: dict[str, str] | None = None) -> Self:
        """The reference of some rows, at least LEAST, with calibrated limits."""
        found = {name: Histogram.of(values) for name, values in measured.items()}
        rows = len(next(iter(measured.values())))
        return cls(split, rows, found, calibrate(found), words or {})

    def save(self, folder: Path) -> None:
        """Write reference.json."""
        text = json.dumps({"format": FORMAT, "window": WINDOW, "alarm_rate": ALARM_RATE, **asdict(self)})
        (folder / FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Reference | None":
        """Read what `save` wrote; None if there is no file.

        Raises:
            ValueError: for a file that is broken, or has another format.
        """
        try:
            facts = json.loads((folder / FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        if facts.get("format") != FORMAT or facts.get("window") != WINDOW:
            raise ValueError(f"{FILE} has format {facts.get('format')}; this llmft reads format {FORMAT}")
        try:
            found = {name: Histogram(**histogram) for name, histogram in facts["measurements"].items()}
            return cls(facts["split"], facts["rows"], found, facts["limits"], facts["words"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{FILE} is not whole: {error}") from error


def calibrate(histograms: Mapping[str, Histogram]) -> dict[str, list[float]]:
    """Limits of the distances, by measurement and number of blocks, for windows of a stream.

    Streams and references are drawn from the histograms. The greatest distance of a stream, in units of what is usual
    for its measurement and for so many rows, decides: one threshold holds for all measurements together, so that more
    of them do not alarm more often.
    """
    blocks, most = STREAM // BLOCK, WINDOW // BLOCK
    draw = numpy.random.default_rng(0)
    runs = _runs(len(histograms))
    usual: dict[str, tuple[numpy.ndarray, numpy.ndarray]] = {}
    greatest: dict[str, numpy.ndarray] = {}
    for name, histogram in histograms.items():
        shares, rows = _smooth(histogram), sum(histogram.counts)
        references = draw.multinomial(rows, shares, size=(runs, 1)) / rows
        sums = draw.multinomial(BLOCK, shares, size=(runs, blocks)).cumsum(axis=1)
        sums[:, most:] -= sums[:, :-most].copy()
        filled = numpy.minimum(numpy.arange(blocks) + 1, most)
        distances = histogram.distance(sums / (filled * BLOCK)[:, None], references)
        by_blocks = [distances[:, filled == count] for count in range(1, most + 1)]
        means = numpy.array([each.mean() for each in by_blocks])
        spreads = numpy.array([each.std() for each in by_blocks]) + 1e-9
        usual[name] = means, spreads
        greatest[name] = ((distances - means[filled - 1]) / spreads[filled - 1]).max(axis=1)
    return {
        name: [float(limit) for limit in usual[name][0] + threshold * usual[name][1]]
        for name, threshold in _thresholds(greatest).items()
    }


def _runs(measurements: int) -> int:
    """How many streams are simulated: a table of 100 columns takes 2 s with 300 of them."""
    return max(300, min(RUNS, 10 * RUNS // max(measurements, 1)))


def _smooth(histogram: Histogram) -> numpy.ndarray:
    """Shares with half a row more in each bin of what the reference may lack: 0 of 400 rows is not never.

    They are no value, other labels, and numbers below the least and above the greatest. The half row follows from
    Jeffreys' prior.
    """
    counts = numpy.asarray(histogram.counts, float)
    counts[[0, 1, -1] if histogram.kind == "number" else [0, -1]] += 0.5
    return counts / counts.sum()


def _thresholds(greatest: Mapping[str, numpy.ndarray]) -> dict[str, float]:
    """The value that each measurement may reach, so that of all runs (runs,) a share of ALARM_RATE passes any."""
    centers = {name: (values.mean(), values.std() + 1e-9) for name, values in greatest.items()}
    worst = numpy.max([(greatest[name] - mean) / spread for name, (mean, spread) in centers.items()], axis=0)
    common = numpy.quantile(worst, 1 - ALARM_RATE)
    return {name: float(mean + common * spread) for name, (mean, spread) in centers.items()}


class Drift:
    """A sliding window of WINDOW rows beside the reference, compared again after every BLOCK rows. For one thread."""

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self._empty = {name: [0] * len(each.counts) for name, each in reference.measurements.items()}
        self._block = self._new()
        self._rows = 0
        self._blocks: deque[dict[str, list[int]]] = deque(maxlen=WINDOW // BLOCK)
        self._seen: deque[set[str]] = deque(maxlen=WINDOW // BLOCK)
        self._measured: set[str] = set()
        self._found: list[dict[str, Any]] = []

    def _new(self) -> dict[str, list[int]]:
        return {name: counts.copy() for name, counts in self._empty.items()}

    def update(self, measured: Measurements) -> bool:
        """Add rows, and return whether the window was compared again: 7 µs a row with four measurements.

        Measurements that the reference has not are passed over.
        """
        before = self._found
        known = {name: values for name, values in measured.items() if name in self._empty}
        for row in range(max(map(len, known.values()), default=0)):
            for name, values in known.items():
                self._block[name][self.reference.measurements[name].bin(values[row])] += 1
            self._measured.update(known)
            self._rows += 1
            if self._rows == BLOCK:
                self._look()
        return self._found is not before

    def _look(self) -> None:
        self._blocks.append(self._block)
        self._seen.append(self._measured)
        self._block, self._measured, self._rows = self._new(), set(), 0
        names = set.intersection(*self._seen)
        windows = {name: numpy.sum([block[name] for block in self._blocks], axis=0) for name in self._empty}
        self._found = [
            statistic(name, self.reference, windows[name], self.reference.limits[name][len(self._blocks) - 1])
            for name in self._empty
            if name in names
        ]

    def state(self) -> dict[str, Any]:
        """The last comparison: `ready`, `window` in rows, and `statistics`, as `statistic` gives each."""
        return {
            "ready": bool(self._found),
            "window": BLOCK * len(self._blocks),
            "reference": {"split": self.reference.split, "rows": self.reference.rows},
            "statistics": self._found,
        }


def statistic(name: str, reference: Reference, counts: numpy.ndarray, limit: float) -> dict[str, Any]:
    """How far the rows with these bins (bins,) are from the reference: `name`, `value`, `limit`, and `alarm`.

    Labels have the shares of both as `reference` and `window`.
    """
    histogram = reference.measurements[name]
    value = float(histogram.distance(counts / max(counts.sum(), 1), histogram.shares))
    found = {"name": name, "value": value, "limit": limit, "alarm": value > limit}
    if histogram.kind == "label":
        found["reference"] = histogram.describe(histogram.counts)
        found["window"] = histogram.describe(counts.tolist())
    return found


def compare(reference: Reference, measured: Measurements) -> list[dict[str, Any]]:
    """The statistics of rows that are all there, with limits for so many: of files without drift, ALARM_RATE alarm.

    Numbers have the `mean` of the reference and that of the rows, and both have their histograms as `bins`.
    """
    draw = numpy.random.default_rng(0)
    known = {name: values for name, values in measured.items() if name in reference.measurements}
    simulated: dict[str, numpy.ndarray] = {}
    for name, values in known.items():
        histogram = reference.measurements[name]
        shares, rows, size = _smooth(histogram), sum(histogram.counts), _runs(len(known))
        references = draw.multinomial(rows, shares, size=size) / rows
        simulated[name] = histogram.distance(draw.multinomial(len(values), shares, size=size) / len(values), references)
    limits = _thresholds(simulated) if known else {}
    found = []
    for name, values in known.items():
        histogram = reference.measurements[name]
        counts = numpy.bincount([histogram.bin(value) for value in values], minlength=len(histogram.counts))
        one = statistic(name, reference, counts, limits[name])
        if histogram.kind == "number":
            numbers = [value for value in values if isinstance(value, int | float) and math.isfinite(value)]
            one |= {"reference": histogram.mean, "window": float(numpy.mean(numbers)) if numbers else None}
        one["bins"] = {"reference": histogram.shares.tolist(), "window": (counts / max(counts.sum(), 1)).tolist()}
        found.append(one | {"kind": histogram.kind})
    return found
