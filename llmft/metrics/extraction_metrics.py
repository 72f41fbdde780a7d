"""Metrics of information extraction: entities by seqeval, relations by the official score of SemEval-2010 Task 8."""

import re
from collections.abc import Sequence
from typing import Any, ClassVar

import datasets
import numpy

from llmft.metrics.local import LocalMetric, per_class

DIRECTED = re.compile(r"(.+)\((?:e1,e2|e2,e1)\)")
OTHER = "Other"


class Entities(LocalMetric):
    """Metrics of entities, from BIO tags, one list per sentence.

    An entity is right if its first word, its last word, and its label are. `precision`, `recall`, and `f1` are micro
    averages over all entities, `per_class` has those of each label, and `accuracy` is the share of right tags.
    """

    about = "Precision, recall and F1 of entities, over all and per label; accuracy of the tags."
    columns: ClassVar = {
        "predictions": datasets.Sequence(datasets.Value("string")),
        "references": datasets.Sequence(datasets.Value("string")),
    }

    def _compute(self, predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> dict[str, Any]:
        from seqeval.metrics import sequence_labeling as seqeval

        truth, predicted = [list(row) for row in references], [list(row) for row in predictions]
        overall, each = (
            seqeval.precision_recall_fscore_support(truth, predicted, average=average, zero_division=0)
            for average in ("micro", None)
        )
        names = sorted({label for rows in (truth, predicted) for label, _, _ in seqeval.get_entities(rows)})
        return {
            **dict(zip(("precision", "recall", "f1"), map(float, overall[:3]), strict=True)),
            "accuracy": float(seqeval.accuracy_score(truth, predicted)),
            "per_class": per_class(names, each),
        }


def are_directed(labels: list[str]) -> bool:
    """Whether labels have the form of SemEval: `Relation(e1,e2)`, `Relation(e2,e1)`, and `Other`."""
    relations = [label for label in labels if label != OTHER]
    return bool(relations) and all(DIRECTED.fullmatch(label) for label in relations)


class DirectedRelations(LocalMetric):
    """`semeval_f1`: the macro average of F1 over relations, with directions, without `Other`.

    A prediction is right if relation and direction are. Precision divides by all predictions of the relation, and
    recall by all references, in either direction. The average is over relations in the references or predictions.
    Hendrickx et al. 2010, SemEval-2010 Task 8, section 4: "(9+1)-way evaluation taking directionality into account".
    """

    about = "The official score of SemEval-2010 Task 8."
    columns: ClassVar = {"predictions": datasets.Value("string"), "references": datasets.Value("string")}

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
        """The score, 0 to 1; 0 if everything is `Other`."""
        predicted, actual = (numpy.array(list(map(relation, labels))) for labels in (predictions, references))
        right = numpy.array(predictions) == numpy.array(references)
        scores = []
        for name in sorted({*predicted, *actual} - {OTHER}):
            hits = float((right & (actual == name)).sum())
            # F1 = 2 P R / (P + R) with P = hits / predicted and R = hits / actual, which needs no case for P + R = 0.
            scores.append(2 * hits / float((predicted == name).sum() + (actual == name).sum()))
        return {"semeval_f1": float(numpy.mean(scores)) if scores else 0.0}


def relation(label: str) -> str:
    """A label without its direction."""
    found = DIRECTED.fullmatch(label)
    return found[1] if found else label
