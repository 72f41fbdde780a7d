"""Gradient boosting for tables: scikit-learn's HistGradientBoosting fits the trees, torch answers with them.

The fitted trees are the tensors of a model of transformers. So they are saved as safetensors without any pickle, come
back to the last bit, and go through prediction, evaluation and export as every other model does.
"""

import math
from typing import Any, NamedTuple, Self

import numpy
import sklearn
import torch
from threadpoolctl import threadpool_limits
from torch import nn

from llmft.models.table_models import TableConfig, TableModel
from llmft.schema.problem import Failure

CATEGORIES = 255  # values of a category column that scikit-learn tells apart; rarer ones share the last code
LOSSES = {None: "squared_error", "mse": "squared_error", "mae": "absolute_error"}  # of numbers, by `task.loss`
CHECKED = 256  # training rows on which the tensors must answer as scikit-learn does

Batch = dict[str, torch.Tensor]

# Those of scikit-learn's that stand in `model.config`.
OPTIONS = (
    "learning_rate",
    "max_iter",
    "max_leaf_nodes",
    "max_depth",
    "min_samples_leaf",
    "l2_regularization",
    "max_features",
    "max_bins",
    "n_iter_no_change",
)


class BoostingConfig(TableConfig):
    """Options of gradient boosting, by scikit-learn's names.

    Args:
        learning_rate: how much of each tree is added.
        max_iter: rounds, at most: trees for each output. Without validation rows, exactly so many.
        max_leaf_nodes: leaves of a tree, at most; None for no limit.
        max_depth: splits from the root to a leaf, at most; None for no limit.
        min_samples_leaf: training rows in a leaf, at least.
        l2_regularization: added to the Hessian of a leaf, so that leaves of few rows say little.
        max_features: share of the columns, drawn anew, that a split may choose from.
        max_bins: values that a number column is reduced to while trees are fitted.
        n_iter_no_change: rounds without a lower loss on the validation rows, after which fitting stops.
        trees: sizes of the fitted trees, which `fit` writes here.
    """

    model_type = "boosting"

    def __init__(
        self,
        learning_rate: float = 0.05,
        max_iter: int = 500,
        max_leaf_nodes: int | None = 15,
        max_depth: int | None = None,
        min_samples_leaf: int = 5,
        l2_regularization: float = 2.0,
        max_features: float = 0.3,
        max_bins: int = 255,
        n_iter_no_change: int = 20,
        trees: dict[str, int] | None = None,
        **kwargs: Any,
    ) -> None:
        self.learning_rate = learning_rate
        self.max_iter = max_iter
        self.max_leaf_nodes = max_leaf_nodes
        self.max_depth = max_depth
        self.min_samples_leaf = min_samples_leaf
        self.l2_regularization = l2_regularization
        self.max_features = max_features
        self.max_bins = max_bins
        self.n_iter_no_change = n_iter_no_change
        self.trees = trees or {"nodes": 0, "rounds": 0, "outputs": 1, "splits": 0, "depth": 0}
        super().__init__(**kwargs)

    @property
    def options(self) -> dict[str, Any]:
        """The options as scikit-learn's estimators take them."""
        return {name: getattr(self, name) for name in OPTIONS}


class Rows(NamedTuple):
    """Rows as scikit-learn takes them."""

    cells: numpy.ndarray
    """(rows, columns) float64, NaN where missing."""
    labels: numpy.ndarray
    """(rows,), of several labels (rows, labels)."""
    weights: numpy.ndarray | None
    """Of the shape of `labels`."""

    @classmethod
    def of(cls, batch: Batch) -> Self:
        """A batch that `forward` takes, perhaps with `weights`."""
        cells, absent = _cells(batch["numbers"], batch["missing"], batch["categories"])
        weights = batch["weights"].double().numpy() if "weights" in batch else None
        return cls(cells.double().masked_fill(absent, torch.nan).numpy(), batch["labels"].numpy(), weights)

    def select(self, label: int) -> Self:
        """The rows with one of several labels alone."""
        weights = None if self.weights is None else self.weights[:, label]
        return self._replace(labels=self.labels[:, label], weights=weights)

    def take(self, chosen: numpy.ndarray) -> Self:
        """Some of the rows."""
        weights = None if self.weights is None else self.weights[chosen]
        return type(self)(self.cells[chosen], self.labels[chosen], weights)


class Output(NamedTuple):
    """A number that trees add up to, as scikit-learn has fitted it."""

    trees: list[Any]
    """scikit-learn's, one a round."""
    baseline: float
    """What the trees are added to."""
    labels: dict[int, float]
    """How much of it goes into the logit of which labels."""
    said: numpy.ndarray
    """What scikit-learn says of the first CHECKED training rows."""


class BoostingForClassification(TableModel):
    """Trees, each a walk from its root to a leaf; the values of the leaves are added up."""

    config_class = BoostingConfig

    def __init__(self, config: BoostingConfig) -> None:
        super().__init__(config, widths=None)
        _estimator(config, None, 0, False)._validate_params()  # a ValueError that names the option
        nodes, outputs = config.trees["nodes"], config.trees["outputs"]
        # A leaf is its own child, so that every walk may take as many steps as the longest one.
        self.register_buffer("feature", torch.zeros(nodes, dtype=torch.long))  # categories first, then numbers
        self.register_buffer("left", torch.zeros(nodes, dtype=torch.long))
        self.register_buffer("right", torch.zeros(nodes, dtype=torch.long))
        self.register_buffer("missing_left", torch.zeros(nodes, dtype=torch.bool))
        self.register_buffer("split", torch.zeros(nodes, dtype=torch.long))  # of a category: the row of left_codes
        self.register_buffer("left_codes", torch.zeros(config.trees["splits"], self.width, dtype=torch.bool))
        self.register_buffer("roots", torch.zeros(config.trees["rounds"], outputs, dtype=torch.long))
        self.threshold = _fixed(torch.zeros(nodes))
        self.value = _fixed(torch.zeros(nodes))
        self.baseline = _fixed(torch.zeros(config.num_labels))
        self.places = _fixed(torch.zeros(outputs, config.num_labels))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing is drawn: before `fit` there are no trees."""

    @property
    def width(self) -> int:
        """Codes that category columns can have, that of a missing value included."""
        return min(max(self.config.category_sizes, default=0), CATEGORIES) + 1

    def plan(self) -> str:
        """What `fit` will do, in a few words."""
        leaves = self.config.max_leaf_nodes
        trees = "trees" if leaves is None else f"trees of {leaves} leaves"
        return f"at most {self.config.max_iter:,} rounds of {trees}, learning rate {self.config.learning_rate:g}"

    def logits(self, numbers: torch.Tensor, missing: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        cells, absent = _cells(numbers, missing, categories)
        trees = self.roots.numel()
        # Each row at the root of each tree, in one dimension: `index_select` takes half the time of `self.left[place]`.
        place = self.roots.reshape(-1).repeat(cells.shape[0])
        starts = torch.arange(cells.shape[0], device=cells.device)[:, None] * cells.shape[1]
        row = starts.expand(-1, trees).reshape(-1)  # where the row of each walk begins among all cells
        for _ in range(self.config.trees["depth"]):
            feature = self.feature.index_select(0, place)
            cell = cells.reshape(-1).index_select(0, row + feature)
            left = cell <= self.threshold.index_select(0, place)
            if len(self.left_codes):
                code = self.split.index_select(0, place) * self.width + cell.clamp(0, self.width - 1).long()
                known = self.left_codes.reshape(-1).index_select(0, code)
                left = _either(feature < categories.shape[1], known, left)
            gone = absent.reshape(-1).index_select(0, row + feature)
            left = _either(gone, self.missing_left.index_select(0, place), left)
            place = torch.where(left, self.left.index_select(0, place), self.right.index_select(0, place))
        # In float64, as scikit-learn adds them up.
        values = self.value.index_select(0, place).double().reshape(cells.shape[0], *self.roots.shape)
        sums = values.sum(dim=1)
        return (self.baseline.double() + sums @ self.places.double()).float()

    def fit(self, train: Batch, validation: Batch | None, loss: str | None, seed: int, threads: int) -> dict[str, Any]:
        """Fit the trees, in place of any that there were.

        Args:
            train: all training rows: what `forward` takes, and `weights` of the shape of `labels` where not all of
                them count alike.
            validation: the same of other rows. They say when to stop; without them all `max_iter` rounds are fitted.
            loss: `task.loss`.
            threads: those of scikit-learn.

        Returns:
            `rounds` and `trees`.

        Raises:
            Failure: if the trees, taken out of scikit-learn, answer otherwise than they do there.
        """
        rows, others, kind = Rows.of(train), Rows.of(validation) if validation else None, self.config.problem_type
        outputs: list[Output] = []
        codes: list[numpy.ndarray] = []
        with threadpool_limits(threads, user_api="openmp"):
            if kind == "multi_label_classification":
                for label in range(self.config.num_labels):
                    other = others and others.select(label)
                    outputs += _fit(self.config, rows.select(label), other, loss, seed, codes, [{}, {label: 1.0}])
            else:
                names = [{label: 1.0} for label in range(self.config.num_labels)]
                outputs += _fit(self.config, rows, others, loss, seed, codes, names)
        seen = {label for output in outputs for label in output.labels}
        # A label that no training row has is as likely as one row of them all, to begin with.
        rest = [0.0 if label in seen else -math.log(len(rows.labels)) for label in range(self.config.num_labels)]
        self._take(outputs, codes, rest)
        self._check(outputs, train)
        return {"rounds": len(self.roots), "trees": sum(len(output.trees) for output in outputs)}

    def answered(self, batch: Batch) -> list[numpy.ndarray]:
        """The logits of many rows, 4,096 at a time; each (num_labels,)."""
        inputs = [batch[name].split(4096) for name in ("numbers", "missing", "categories")]
        with torch.no_grad():
            return [row for part in zip(*inputs, strict=True) for row in self.logits(*part).numpy()]

    def _take(self, outputs: list[Output], codes: list[numpy.ndarray], rest: list[float]) -> None:
        """Make tensors of the trees.

        Args:
            codes: by category column, the codes of the values that scikit-learn numbers 0, 1, and so on.
            rest: what the logit of each label begins with, beside its outputs.
        """
        trees = [tree for output in outputs for tree in output.trees]
        sizes = [len(tree.nodes) for tree in trees]
        starts = numpy.cumsum([1, *sizes])  # node 0 is a tree of a single leaf, which adds nothing
        shift = numpy.repeat([0, *starts[:-1]], [1, *sizes])

        def field(name: str, first: Any = 0) -> numpy.ndarray:
            return numpy.concatenate([numpy.array([first]), *(tree.nodes[name] for tree in trees)])

        leaf, own, missing_left = field("is_leaf", 1) > 0, numpy.arange(len(shift)), field("missing_go_to_left") > 0
        feature, thresholds = field("feature_idx"), field("num_threshold")
        category = ~leaf & (field("is_categorical") > 0)
        # Cells are float32: rounded down, a threshold parts them as it did in float64.
        rounded = thresholds.astype(numpy.float32)
        above = rounded > thresholds
        rounded[above] = numpy.nextafter(rounded[above], numpy.float32(-numpy.inf))
        bits = [tree.raw_left_cat_bitsets for tree in trees]
        bits_before = numpy.repeat(numpy.cumsum([0, 0, *map(len, bits[:-1])])[: len(bits) + 1], [1, *sizes])
        split = numpy.where(category, field("bitset_idx") + bits_before, 0)
        left_codes = numpy.zeros((sum(map(len, bits)), self.width), dtype=bool)
        if len(left_codes):
            words = numpy.concatenate(bits).astype("<u4").view(numpy.uint8)  # 32 bytes for 256 values
            flags = numpy.unpackbits(words, axis=1, bitorder="little") > 0
            left_codes[split[category]] = missing_left[category, None]  # where a value is new, as one that is missing
            for column, known in enumerate(codes):
                rows = split[category & (feature == column)]
                left_codes[rows[:, None], known] = flags[rows, : len(known)]
        roots = numpy.zeros((max((len(output.trees) for output in outputs), default=0), len(outputs)), dtype=int)
        places, baseline = numpy.zeros((len(outputs), self.config.num_labels)), numpy.array(rest)
        free = iter(starts)
        for number, output in enumerate(outputs):
            for label, share in output.labels.items():
                places[number, label] = share
                baseline[label] += share * output.baseline
            for turn in range(len(output.trees)):
                roots[turn, number] = next(free)
        depth = max((tree.get_max_depth() for tree in trees), default=0)
        shape = {"nodes": len(own), "rounds": len(roots), "outputs": len(outputs), "splits": len(left_codes)}
        self.config.trees = shape | {"depth": depth}
        self.feature = torch.tensor(feature.astype(int))
        self.left = torch.tensor(numpy.where(leaf, own, field("left") + shift).astype(int))
        self.right = torch.tensor(numpy.where(leaf, own, field("right") + shift).astype(int))
        self.missing_left, self.split = torch.tensor(missing_left), torch.tensor(split.astype(int))
        self.left_codes, self.roots = torch.tensor(left_codes), torch.tensor(roots)
        self.threshold = _fixed(torch.tensor(rounded))
        self.value = _fixed(torch.tensor(numpy.where(leaf, field("value", 0.0), 0.0)).float())
        self.baseline, self.places = _fixed(torch.tensor(baseline).float()), _fixed(torch.tensor(places).float())

    def _check(self, outputs: list[Output], train: Batch) -> None:
        """Raise Failure if the tensors don't answer some training rows as scikit-learn does, to 1e-4.

        scikit-learn does not promise that its trees keep their form from version to version.
        """
        first = {name: train[name][:CHECKED] for name in ("numbers", "missing", "categories")}
        theirs = self.baseline.double().numpy() + sum(
            (output.said - output.baseline)[:, None] * self.places[number].double().numpy()
            for number, output in enumerate(outputs)
        )
        ours = self(**first).logits.double().numpy()
        if not numpy.abs(ours - theirs).max() <= 1e-4 * max(1.0, numpy.abs(theirs).max()):
            what = f"scikit-learn {sklearn.__version__} answers otherwise than the trees that were taken out of it"
            raise Failure(f"{what}; this version of llmft does not know the form of its trees")


def _fixed(values: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(values, requires_grad=False)


def _either(condition: torch.Tensor, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """`torch.where` of truth values, which ONNX Runtime does not have."""
    return (condition & one) | (~condition & other)


def _cells(numbers: torch.Tensor, missing: torch.Tensor, categories: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The columns, categories first, as float32 (B, C + N), and where they are missing."""
    codes = categories.clamp(max=CATEGORIES)
    return torch.cat([codes.float(), numbers.float()], dim=1), torch.cat([codes == 0, missing > 0], dim=1)


def _estimator(config: BoostingConfig, loss: str | None, seed: int, stops: bool) -> Any:
    """What fits the trees; `stops`: validation rows say when."""
    # Half a second, which other models need not wait for.
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    categories = len(config.category_sizes)
    options = config.options | {
        "random_state": seed,
        "early_stopping": stops,
        "categorical_features": list(range(categories)) or None,
    }
    if config.problem_type == "regression":
        return HistGradientBoostingRegressor(loss=LOSSES[loss], **options)
    return HistGradientBoostingClassifier(**options)


def _fit(
    config: BoostingConfig,
    rows: Rows,
    others: Rows | None,
    loss: str | None,
    seed: int,
    codes: list[numpy.ndarray],
    names: list[dict[int, float]],
) -> list[Output]:
    """Fit one estimator.

    Args:
        codes: gets the codes of each category column, as `_take` needs them.
        names: the labels that an output goes to, by the class or number that it is for.
    """
    classes = numpy.unique(rows.labels) if config.problem_type != "regression" else numpy.zeros(1)
    if config.problem_type != "regression" and len(classes) == 1:
        # Nothing to tell apart: as sure as so many rows can make it.
        (place,) = names[int(classes[0])] or names[1]
        sure = math.log(len(rows.labels) + 1) * (1 if names[int(classes[0])] else -1)
        return [Output([], sure, {place: 1.0}, numpy.full(min(len(rows.labels), CHECKED), sure))]
    if others is not None and config.problem_type != "regression":
        others = others.take(numpy.isin(others.labels, classes))
    also = {}
    if others is not None and len(others.labels):
        also = {"X_val": others.cells, "y_val": others.labels, "sample_weight_val": others.weights}
    estimator = _estimator(config, loss, seed, stops=bool(also))
    estimator.fit(rows.cells, rows.labels, rows.weights, **also)
    if config.category_sizes and not codes:
        encoder = estimator._preprocessor.named_transformers_["encoder"]
        codes += [values[~numpy.isnan(values)].astype(int) for values in encoder.categories_]
    first = rows.cells[:CHECKED]
    said = estimator.predict(first) if config.problem_type == "regression" else estimator.decision_function(first)
    said = said.reshape(len(first), -1)
    baseline = estimator._baseline_prediction.reshape(-1)
    if len(classes) == 2 and names[0]:  # one output, which parts two labels
        labels = [{int(classes[0]): -0.5, int(classes[1]): 0.5}]
    else:
        labels = [name for number, name in enumerate(names) if name and (len(names) == 1 or number in classes)]
    return [
        Output([trees[number] for trees in estimator._predictors], float(baseline[number]), label, said[:, number])
        for number, label in enumerate(labels)
    ]
