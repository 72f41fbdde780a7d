"""How far numbers are from the right ones, and whether they rise and fall with them."""

import warnings
from typing import Any, ClassVar

import datasets
import numpy
from scipy import stats
from sklearn import metrics

from llmft.metrics.local import LocalMetric


class RegressionErrors(LocalMetric):
    """`mse`, `rmse`, `mae` in the units of the data; `r2`, 1 - squared error / variance; `pearson` and `spearman`.

    What can't be computed is None: correlations where all answers or all references are one number, `r2` in the latter
    case.
    """

    about = "Mean squared and absolute error, R2, and the correlations of Pearson and Spearman."
    columns: ClassVar = {
        "predictions": datasets.Value("float64"),
        "references": datasets.Value("float64"),
    }

    def _compute(self, predictions: list[float], references: list[float]) -> dict[str, Any]:
        said, right = numpy.asarray(predictions, dtype=float), numpy.asarray(references, dtype=float)
        squared = float(metrics.mean_squared_error(right, said))
        varied = len(set(references)) > 1
        both = varied and len(set(predictions)) > 1
        with warnings.catch_warnings():  # answers that differ by rounding alone; the correlation is then no number
            warnings.simplefilter("ignore", stats.ConstantInputWarning)
            warnings.simplefilter("ignore", stats.NearConstantInputWarning)
            found = {
                "pearson": stats.pearsonr(said, right).statistic if both else None,
                "spearman": stats.spearmanr(said, right).statistic if both else None,
            }
        return {
            "mse": squared,
            "rmse": squared**0.5,
            "mae": float(metrics.mean_absolute_error(right, said)),
            "r2": float(metrics.r2_score(right, said)) if varied else None,
            **{name: float(v) if v is not None and numpy.isfinite(v) else None for name, v in found.items()},
        }
