"""Gradient boosting for tables: scikit-learn's HistGradientBoosting fits the trees, and torch predicts with them.

The fitted trees become tensors of a transformers model. So they are saved as safetensors without any pickle, are
restored bit for bit, and go through prediction, evaluation, and export like every other model.
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

CATEGORIES = 255  # most values of a category column in scikit-learn; rarer ones share the last code
LOSSES = {None: "squared_error", "mse": "squared_error", "mae": "absolute_error"}  # for regression, by `task.loss`
CHECKED_ROWS = 256  # training rows on which the tensors must predict what scikit-learn does

Batch = dict[str, torch.Tensor]

# The options of scikit-learn's estimators that `model.config` has.
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
        learning_rate: the factor of each tree in the sum.
        max_iter: maximum number of rounds, with one tree for each output; without validation rows, exactly that many.
        max_leaf_nodes: maximum number of leaves of a tree; None for no limit.
        max_depth: maximum number of splits from the root to a leaf; None for no limit.
        min_samples_leaf: minimum number of training rows in a leaf.
        l2_regularization: added to the Hessian of a leaf, which shrinks the values of leaves with few rows.
        max_features: share of the columns, drawn at random for each split, that it may use.
        max_bins: number of values to which a number column is reduced for fitting.
        n_iter_no_change: rounds without a lower validation loss after which fitting stops.
        trees: sizes of the fitted trees; set by `fit`.
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
    """Rows in the form of scikit-learn."""

    cells: numpy.ndarray
    """(rows, columns) float64, NaN where missing."""
    labels: numpy.ndarray
    """(rows,), or (rows, labels) for multi-label."""
    weights: numpy.ndarray | None
    """The weight of each label, of the shape of `labels`."""

    @classmethod
    def of(cls, batch: Batch) -> Self:
        """The rows of a batch for `forward`, with optional `weights`."""
        cells, missing_cells = _cells(batch["numbers"], batch["missing"], batch["categories"])
        weights = batch["weights"].double().numpy() if "weights" in batch else None
        return cls(cells.double().masked_fill(missing_cells, torch.nan).numpy(), batch["labels"].numpy(), weights)

    def select_label(self, label: int) -> Self:
        """The rows with one column of a multi-label target."""
        weights = None if self.weights is None else self.weights[:, label]
        return self._replace(labels=self.labels[:, label], weights=weights)

    def select_rows(self, chosen: numpy.ndarray) -> Self:
        """The rows at a boolean mask or indices."""
        weights = None if self.weights is None else self.weights[chosen]
        return type(self)(self.cells[chosen], self.labels[chosen], weights)


class Output(NamedTuple):
    """One number that an estimator predicts: a sum of trees."""

    trees: list[Any]
    """scikit-learn's tree predictors, one for each round."""
    baseline: float
    """The constant to which the trees are added."""
    labels: dict[int, float]
    """The factor of this output in the logits, by label index."""
    predictions: numpy.ndarray
    """scikit-learn's own prediction for the first CHECKED_ROWS training rows."""


class BoostingForClassification(TableModel):
    """A sum of trees as tensors. Prediction walks from every root to a leaf, and sums the values of the leaves."""

    config_class = BoostingConfig

    def __init__(self, config: BoostingConfig) -> None:
        super().__init__(config, widths=None)
        _estimator(config, None, 0, False)._validate_params()  # raises a ValueError that names a wrong option
        nodes, outputs = config.trees["nodes"], config.trees["outputs"]
        # A leaf is its own child, so that all walks take as many steps as the deepest tree, without a branch.
        self.register_buffer("feature", torch.zeros(nodes, dtype=torch.long))  # column: categories, then numbers
        self.register_buffer("left", torch.zeros(nodes, dtype=torch.long))
        self.register_buffer("right", torch.zeros(nodes, dtype=torch.long))
        self.register_buffer("missing_left", torch.zeros(nodes, dtype=torch.bool))
        self.register_buffer("split", torch.zeros(nodes, dtype=torch.long))  # row of left_codes, of a category split
        self.register_buffer("left_codes", torch.zeros(config.trees["splits"], self.width, dtype=torch.bool))
        self.register_buffer("roots", torch.zeros(config.trees["rounds"], outputs, dtype=torch.long))
        self.threshold = _constant(torch.zeros(nodes))
        self.value = _constant(torch.zeros(nodes))
        self.baseline = _constant(torch.zeros(config.num_labels))
        self.places = _constant(torch.zeros(outputs, config.num_labels))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing to initialize: before `fit` there are no trees."""

    @property
    def width(self) -> int:
        """The number of codes of the largest category column, with 0 for missing."""
        return min(max(self.config.category_sizes, default=0), CATEGORIES) + 1

    def plan(self) -> str:
        """A line on what `fit` will do."""
        leaves = self.config.max_leaf_nodes
        trees = "trees" if leaves is None else f"trees of {leaves} leaves"
        return f"at most {self.config.max_iter:,} rounds of {trees}, learning rate {self.config.learning_rate:g}"

    def logits(self, numbers: torch.Tensor, missing: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        cells, missing_cells = _cells(numbers, missing, categories)
        trees = self.roots.numel()
        # (B * trees,): the current node of each walk. Flat, since `index_select` takes half the time of indexing.
        node = self.roots.reshape(-1).repeat(cells.shape[0])
        starts = torch.arange(cells.shape[0], device=cells.device)[:, None] * cells.shape[1]
        row = starts.expand(-1, trees).reshape(-1)  # (B * trees,): offset of the walk's row in the flattened cells
        for _ in range(self.config.trees["depth"]):
            feature = self.feature.index_select(0, node)
            cell = cells.reshape(-1).index_select(0, row + feature)
            left = cell <= self.threshold.index_select(0, node)
            if len(self.left_codes):
                code = self.split.index_select(0, node) * self.width + cell.clamp(0, self.width - 1).long()
                known = self.left_codes.reshape(-1).index_select(0, code)
                left = _where(feature < categories.shape[1], known, left)
            is_missing = missing_cells.reshape(-1).index_select(0, row + feature)
            left = _where(is_missing, self.missing_left.index_select(0, node), left)
            node = torch.where(left, self.left.index_select(0, node), self.right.index_select(0, node))
        # In float64, as scikit-learn sums.
        values = self.value.index_select(0, node).double().reshape(cells.shape[0], *self.roots.shape)
        sums = values.sum(dim=1)
        return (self.baseline.double() + sums @ self.places.double()).float()

    def fit(self, train: Batch, validation: Batch | None, loss: str | None, seed: int, threads: int) -> dict[str, Any]:
        """Fit the trees; replaces earlier ones.

        Args:
            train: all training rows as one batch for `forward`, with `weights` of the shape of `labels` if they differ.
            validation: the validation rows, for early stopping; None to fit all `max_iter` rounds.
            loss: `task.loss`.
            seed: of the columns that `max_features` draws.
            threads: number of threads for scikit-learn.

        Returns:
            `rounds` and `trees`, their numbers.

        Raises:
            Failure: if the tensors predict something else than scikit-learn.
        """
        rows, others, kind = Rows.of(train), Rows.of(validation) if validation else None, self.config.problem_type
        outputs: list[Output] = []
        codes: list[numpy.ndarray] = []
        with threadpool_limits(threads, user_api="openmp"):
            if kind == "multi_label_classification":
                for label in range(self.config.num_labels):
                    other = others and others.select_label(label)
                    outputs += _fit(self.config, rows.select_label(label), other, loss, seed, codes, [{}, {label: 1.0}])
            else:
                names = [{label: 1.0} for label in range(self.config.num_labels)]
                outputs += _fit(self.config, rows, others, loss, seed, codes, names)
        seen = {label for output in outputs for label in output.labels}
        # A label without training rows gets log(1 / rows): as likely as a single row.
        rest = [0.0 if label in seen else -math.log(len(rows.labels)) for label in range(self.config.num_labels)]
        self._store_trees(outputs, codes, rest)
        self._check(outputs, train)
        return {"rounds": len(self.roots), "trees": sum(len(output.trees) for output in outputs)}

    def predict_rows(self, batch: Batch) -> list[numpy.ndarray]:
        """The logits of each row, (num_labels,), computed 4,096 rows at a time to bound the memory of walks."""
        inputs = [batch[name].split(4096) for name in ("numbers", "missing", "categories")]
        with torch.no_grad():
            return [row for part in zip(*inputs, strict=True) for row in self.logits(*part).numpy()]

    def _store_trees(self, outputs: list[Output], codes: list[numpy.ndarray], rest: list[float]) -> None:
        """Store the trees as tensors.

        Args:
            codes: for each category column, our codes of the values that scikit-learn numbers 0, 1, 2, ...
            rest: the constant of each label's logit besides its outputs.
        """
        trees = [tree for output in outputs for tree in output.trees]
        sizes = [len(tree.nodes) for tree in trees]
        # All nodes of all trees in one array. Node 0 is a leaf of value 0, the root of a tree that is missing: outputs
        # may have stopped after different numbers of rounds.
        starts = numpy.cumsum([1, *sizes])
        shift = numpy.repeat([0, *starts[:-1]], [1, *sizes])

        def field(name: str, first: Any = 0) -> numpy.ndarray:
            return numpy.concatenate([numpy.array([first]), *(tree.nodes[name] for tree in trees)])

        leaf, own, missing_left = field("is_leaf", 1) > 0, numpy.arange(len(shift)), field("missing_go_to_left") > 0
        feature, thresholds = field("feature_idx"), field("num_threshold")
        category = ~leaf & (field("is_categorical") > 0)
        # Cells are float32. A threshold that is rounded down separates them exactly as the float64 one did; rounded up,
        # it could equal a cell that was above it.
        rounded = thresholds.astype(numpy.float32)
        above = rounded > thresholds
        rounded[above] = numpy.nextafter(rounded[above], numpy.float32(-numpy.inf))
        bits = [tree.raw_left_cat_bitsets for tree in trees]
        bits_before = numpy.repeat(numpy.cumsum([0, 0, *map(len, bits[:-1])])[: len(bits) + 1], [1, *sizes])
        split = numpy.where(category, field("bitset_idx") + bits_before, 0)
        left_codes = numpy.zeros((sum(map(len, bits)), self.width), dtype=bool)
        if len(left_codes):
            words = numpy.concatenate(bits).astype("<u4").view(numpy.uint8)  # 32 bytes: a bit for each of 256 values
            flags = numpy.unpackbits(words, axis=1, bitorder="little") > 0
            left_codes[split[category]] = missing_left[category, None]  # an unseen value goes where a missing one does
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
        self.threshold = _constant(torch.tensor(rounded))
        self.value = _constant(torch.tensor(numpy.where(leaf, field("value", 0.0), 0.0)).float())
        self.baseline, self.places = _constant(torch.tensor(baseline).float()), _constant(torch.tensor(places).float())

    def _check(self, outputs: list[Output], train: Batch) -> None:
        """Raise Failure if the tensors do not predict what scikit-learn does, to 1e-4, on some training rows.

        scikit-learn's trees are private: another version may store them in another form.
        """
        first = {name: train[name][:CHECKED_ROWS] for name in ("numbers", "missing", "categories")}
        expected = self.baseline.double().numpy() + sum(
            (output.predictions - output.baseline)[:, None] * self.places[number].double().numpy()
            for number, output in enumerate(outputs)
        )
        predicted_logits = self(**first).logits.double().numpy()
        if not numpy.abs(predicted_logits - expected).max() <= 1e-4 * max(1.0, numpy.abs(expected).max()):
            what = f"the trees of scikit-learn {sklearn.__version__} could not be read: their predictions differ"
            raise Failure(f"{what}. Install an older scikit-learn, or choose another model")


def _constant(values: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(values, requires_grad=False)


def _where(condition: torch.Tensor, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """`torch.where` for booleans, which ONNX Runtime does not support."""
    return (condition & one) | (~condition & other)


def _cells(numbers: torch.Tensor, missing: torch.Tensor, categories: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """All columns, categories first, as float32 (B, C + N), and a mask of missing cells (B, C + N)."""
    codes = categories.clamp(max=CATEGORIES)
    return torch.cat([codes.float(), numbers.float()], dim=1), torch.cat([codes == 0, missing > 0], dim=1)


def _estimator(config: BoostingConfig, loss: str | None, seed: int, stops: bool) -> Any:
    """scikit-learn's estimator for these options; `stops`: with early stopping on validation rows."""
    # Imported here: it takes 0.5 s, which other models need not wait for.
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
    """Fit one estimator, and return its outputs.

    Args:
        codes: if empty, gets the codes of each category column for `_store_trees`.
        names: for each class of the estimator, the labels and factors of its output.
    """
    classes = numpy.unique(rows.labels) if config.problem_type != "regression" else numpy.zeros(1)
    if config.problem_type != "regression" and len(classes) == 1:
        # A single class, which scikit-learn refuses: the logit of (n + 1) to 1, as sure as n rows can make it.
        (node,) = names[int(classes[0])] or names[1]
        log_odds = math.log(len(rows.labels) + 1) * (1 if names[int(classes[0])] else -1)
        return [Output([], log_odds, {node: 1.0}, numpy.full(min(len(rows.labels), CHECKED_ROWS), log_odds))]
    if others is not None and config.problem_type != "regression":
        others = others.select_rows(numpy.isin(others.labels, classes))
    also = {}
    if others is not None and len(others.labels):
        also = {"X_val": others.cells, "y_val": others.labels, "sample_weight_val": others.weights}
    estimator = _estimator(config, loss, seed, stops=bool(also))
    estimator.fit(rows.cells, rows.labels, rows.weights, **also)
    if config.category_sizes and not codes:
        encoder = estimator._preprocessor.named_transformers_["encoder"]
        codes += [values[~numpy.isnan(values)].astype(int) for values in encoder.categories_]
    first = rows.cells[:CHECKED_ROWS]
    predicted = estimator.predict(first) if config.problem_type == "regression" else estimator.decision_function(first)
    predicted = predicted.reshape(len(first), -1)
    baseline = estimator._baseline_prediction.reshape(-1)
    # Two classes have one output z, the log odds. Logits -z/2 and z/2 have that difference, and give its softmax.
    if len(classes) == 2 and names[0]:
        labels = [{int(classes[0]): -0.5, int(classes[1]): 0.5}]
    else:
        labels = [name for number, name in enumerate(names) if name and (len(names) == 1 or number in classes)]
    return [
        Output([trees[number] for trees in estimator._predictors], float(baseline[number]), label, predicted[:, number])
        for number, label in enumerate(labels)
    ]
