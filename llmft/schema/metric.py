"""The metrics, by their usual names, and whether larger values are better."""

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
    "image_classification": _LABELS | {"accuracy": True, "matthews": True, "top_k_accuracy": True},
    "multi_label": _LABELS
    | {
        "subset_accuracy": True,
        "precision_samples": True,
        "recall_samples": True,
        "f1_samples": True,
        "hamming_loss": False,
    },
    "token_classification": {"loss": False, "precision": True, "recall": True, "f1": True, "accuracy": True},
    "relation_extraction": _LABELS | {"accuracy": True, "matthews": True, "semeval_f1": True},
    "question_answering": {"loss": False, "exact_match": True, "f1": True},
    "translation": {"loss": False, "perplexity": False, "bleu": True, "chrf": True},
    "summarization": {"loss": False, "perplexity": False, "rouge1": True, "rouge2": True, "rougeL": True},
    "causal_lm": {"loss": False, "perplexity": False, "bits_per_byte": False},
    "masked_lm": {"loss": False, "perplexity": False, "accuracy": True, "next_sentence_accuracy": True},
    "span_corruption": {"loss": False, "perplexity": False},
    "instruction": {
        "loss": False,
        "perplexity": False,
        "exact_match": True,
        "rouge1": True,
        "rouge2": True,
        "rougeL": True,
    },
    "object_detection": {"loss": False}
    | dict.fromkeys(("map", "map50", "map75", "map_small", "map_medium", "map_large"), True)
    | dict.fromkeys(("ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large"), True)
    | dict.fromkeys(("precision", "recall", "f1"), True),
    "preference": {"accuracy": True, "margin": True},
    "semantic_segmentation": {
        "loss": False,
        "iou": True,
        "dice": True,
        "mean_iou": True,
        "pixel_accuracy": True,
        "iou_by_image": True,
        "dice_by_image": True,
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
"""Task or problem -> metric -> whether larger values are better."""

METRICS: dict[str, bool] = {name: more for metrics in METRICS_OF.values() for name, more in metrics.items()}
"""All metrics, and `own_metrics` of the tasks of other packages, once these are loaded."""
