"""Scores of entities against entities, by seqeval."""

from collections.abc import Sequence
from typing import Any, ClassVar

import datasets

from llmft.metrics.local import LocalMetric


class Entities(LocalMetric):
    """Metrics of BIO tags, a row a sentence.

    An entity is right if its first word, its last word and its label are. `precision`, `recall` and `f1` are over all
    entities (micro averages), `per_class` has those of each label; `accuracy` is the share of words with the right tag.
    """

    about = "Precision, recall and F1 of entities, over all and per label; accuracy of the tags."
    columns: ClassVar = {
        "predictions": datasets.Sequence(datasets.Value("string")),
        "references": datasets.Sequence(datasets.Value("string")),
    }

    def _compute(self, predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> dict[str, Any]:
        from seqeval.metrics import sequence_labeling as seqeval

        truth, said = [list(row) for row in references], [list(row) for row in predictions]
        overall, each = (
            seqeval.precision_recall_fscore_support(truth, said, average=average, zero_division=0)
            for average in ("micro", None)
        )
        names = sorted({label for rows in (truth, said) for label, _, _ in seqeval.get_entities(rows)})
        return {
            **dict(zip(("precision", "recall", "f1"), map(float, overall[:3]), strict=True)),
            "accuracy": float(seqeval.accuracy_score(truth, said)),
            "per_class": {
                name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
                for name, p, r, f, s in zip(names, *each, strict=True)
            },
        }
