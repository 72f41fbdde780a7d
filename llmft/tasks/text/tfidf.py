"""TF-IDF with logistic or ridge regression: the baselines of tasks on texts."""

import unicodedata
from typing import Any

import numpy
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

# Tokens are words; in scripts without spaces (Chinese, Japanese, Korean, Thai, Lao, Burmese, Khmer) characters.
UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
# Combining vowels and accents: without them, Hindi के and का would be the same word.
MARKS = r"\u0300-\u036f\u0591-\u05bd\u05c1-\u05c2\u0610-\u061a\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff"
TOKEN = rf"[{UNSPACED}]|(?:[^\W{UNSPACED}]|[{MARKS}])+"
TERMS = 100_000  # the most frequent words and pairs of words; fewer for more than 20 labels
STRENGTH = 10.0  # C of scikit-learn; its default of 1 regularizes vectors of length 1 too much


def vectorizer(token: str = TOKEN, **options: Any) -> TfidfVectorizer:
    """TF-IDF of words and pairs of words, without case and width; `options` are those of scikit-learn."""
    return TfidfVectorizer(preprocessor=_plain, token_pattern=token, ngram_range=(1, 2), sublinear_tf=True, **options)


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).lower()


def matrices(texts: dict[str, list[list[str]]], labels: int) -> dict[str, Any]:
    """TF-IDF matrices (rows, terms) by split; for pairs of texts those of both, and their similarity.

    Args:
        texts: by split, one column of texts, or two.
        labels: how many there are; time grows with labels times terms.
    """
    fitted = vectorizer(max_features=min(TERMS, 20 * TERMS // labels))
    fitted.fit(text for column in texts["train"] for text in column)
    found = {}
    for split, columns in texts.items():
        parts = [fitted.transform(column) for column in columns]
        if len(parts) == 2:
            parts.append(csr_matrix(parts[0].multiply(parts[1]).sum(axis=1)))
        found[split] = hstack(parts, format="csr")
    return found


def logits_of_one(
    cells: dict[str, Any], labels: numpy.ndarray, weights: numpy.ndarray | None, count: int
) -> dict[str, numpy.ndarray]:
    """Logits (rows, count) of logistic regression, by split.

    Args:
        labels: (rows,) of train, whole numbers below `count`.
        weights: (rows,) of train.
    """
    classes = numpy.unique(labels)
    # A label without training rows is as likely as one row of all.
    found = {split: numpy.full((matrix.shape[0], count), -numpy.log(len(labels))) for split, matrix in cells.items()}
    model = LogisticRegression(C=STRENGTH, max_iter=200)
    if len(classes) > 1:
        model.fit(cells["train"], labels, weights)
    for split, matrix in cells.items():
        scores = model.decision_function(matrix) if len(classes) > 1 else numpy.zeros((matrix.shape[0], 1))
        if scores.ndim == 1:  # with two labels, scikit-learn gives the log odds of the second
            scores = numpy.stack([-scores / 2, scores / 2], axis=1)
        found[split][:, classes] = scores
    return found


def logits_of_several(
    cells: dict[str, Any], labels: numpy.ndarray, weights: numpy.ndarray | None
) -> dict[str, numpy.ndarray]:
    """Logits (rows, labels) of a logistic regression a label, by split; `labels` and `weights` are (rows, labels)."""
    columns = []
    for label, yes in enumerate((labels > 0).T):
        columns.append(logits_of_one(cells, yes.astype(int), None if weights is None else weights[:, label], 2))
    return {split: numpy.stack([found[split] @ [-1, 1] for found in columns], axis=1) for split in cells}


def numbers(cells: dict[str, Any], labels: numpy.ndarray) -> dict[str, numpy.ndarray]:
    """Numbers (rows, 1) of ridge regression, by split; `labels` (rows,) are those of train."""
    model = Ridge().fit(cells["train"], labels)
    return {split: model.predict(matrix)[:, None] for split, matrix in cells.items()}
