"""Names of metrics, as the field writes them, and whether more is better."""

_LABELS: dict[str, bool] = {
    "loss": False,
    "precision": True,
    "recall": True,
    "f1": True,
    "precision_micro": True,
    "recall_micro": True,
    "f1_micro": True,
    "roc_auc": True,
    "ece": False,
}

METRICS_OF: dict[str, dict[str, bool]] = {
    "single_label": _LABELS | {"accuracy": True, "matthews": True},
    "multi_label": _LABELS
    | {
        "subset_accuracy": True,
        "precision_samples": True,
        "recall_samples": True,
        "f1_samples": True,
        "hamming_loss": False,
    },
    "regression": {
        "loss": False,
        "mse": False,
        "rmse": False,
        "mae": False,
        "r2": True,
        "pearson": True,
        "spearman": True,
    },
}
"""By the problem that they are of."""

METRICS: dict[str, bool] = {name: more for metrics in METRICS_OF.values() for name, more in metrics.items()}
