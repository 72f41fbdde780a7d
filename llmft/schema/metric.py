"""The metrics, by their usual names, and whether larger values are better."""

import re

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

RANKING: dict[str, bool] = {f"{name}@10": True for name in ("ndcg", "hit_rate", "recall", "precision", "mrr", "map")}
"""Of ranked lists, see llmft/metrics/ranking_metrics.py. Every k has its metrics; the table has those at 10."""
LISTS: dict[str, bool] = {"coverage@10": True, "diversity@10": True, "novelty@10": True}
LISTS |= {"gini@10": False, "average_popularity@10": False}
"""Of what is listed, whether or not it is relevant."""

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
    "ctr": {
        "loss": False,
        "auc": True,
        "gauc": True,
        "gauc_users": True,
        "gauc_rows": True,
        "log_loss": False,
        "ece": False,
        "accuracy": True,
    },
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
    "embedding": {"loss": False, "spearman": True, "pearson": True, "mae": False, "accuracy": True} | RANKING,
    "reranking": {"loss": False} | RANKING,
    "recommendation": {"loss": False, "rmse": False, "mae": False} | RANKING | LISTS,
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


class _Metrics(dict[str, bool]):
    """Metric -> whether larger values are better, for every k of a metric at k."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(at_10(name) if isinstance(name, str) else name)

    def __missing__(self, name: str) -> bool:
        if (known := at_10(name)) == name:
            raise KeyError(name)
        return self[known]


def at_10(name: str) -> str:
    """The name by which the tables have a metric: `ndcg@10` for `ndcg@5`."""
    return re.sub(r"@[1-9]\d{0,5}$", "@10", name)


METRICS = _Metrics({name: more for metrics in METRICS_OF.values() for name, more in metrics.items()})
"""All metrics, and `own_metrics` of the tasks of other packages, once these are loaded."""


def known_metric(name: str) -> str:
    """The name; raises ValueError if it is not a metric's."""
    if name not in METRICS:
        raise ValueError(f"must be a metric: {', '.join(METRICS)}")
    return name
