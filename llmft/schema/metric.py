"""Names of metrics, as the field writes them, and whether more is better."""

METRICS: dict[str, bool] = {
    "loss": False,
    "accuracy": True,
    "precision": True,
    "recall": True,
    "f1": True,
    "precision_micro": True,
    "recall_micro": True,
    "f1_micro": True,
    "roc_auc": True,
    "matthews": True,
}
