"""The data set that llmft brings along keeps what its card promises."""

import re
from collections import Counter
from pathlib import Path

import pytest

import llmft
from llmft.config.load import load as compose
from llmft.data.pipeline import Data, load
from tests.data.test_pipeline import Texts

FOLDER = Path(llmft.__file__).parent / "samples/reviews"
CARD = (FOLDER / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def reviews() -> Data:
    return load(compose("finetune", ["dataset=reviews"]).dataset, Texts())


def texts(reviews: Data) -> list[str]:
    return [text for rows in reviews.splits.values() for text in rows["text"]]


def test_counts_are_those_of_the_card(reviews: Data) -> None:
    for name, rows in reviews.splits.items():
        counts = Counter(rows["label"])
        line = rf"\| {name} \| {len(rows):,} \| {counts['positive']} \| {counts['negative']} \|"
        assert re.search(line, CARD), name
        assert counts["positive"] == counts["negative"]
    assert len(reviews["test"]) == 300
    assert reviews.notes == [], "no text stands twice"


def test_no_review_is_made_from_a_template(reviews: Data) -> None:
    runs: Counter[str] = Counter()
    for text in texts(reviews):
        words = re.findall(r"[\w']+", text.lower())
        runs.update({" ".join(words[i : i + 5]) for i in range(len(words) - 4)})
    assert max(runs.values()) <= 3


def test_every_domain_is_in_every_split() -> None:
    import csv

    for split, least in (("train", 90), ("validation", 8), ("test", 19)):
        with (FOLDER / f"{split}.csv").open(encoding="utf-8", newline="") as stream:
            domains = Counter(row["domain"] for row in csv.DictReader(stream))
        assert len(domains) == 14
        assert min(domains.values()) >= least


@pytest.mark.parametrize("strength", [1, 100])
def test_words_alone_do_not_give_the_label_away(strength: int, reviews: Data) -> None:
    """The issue with a data set that a bag of words solves: no model is worth its while."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(TfidfVectorizer(), LogisticRegression(C=strength, max_iter=1000))
    model.fit(reviews["train"]["text"], reviews["train"]["label"])
    accuracy = model.score(reviews["test"]["text"], reviews["test"]["label"])
    assert 0.6 < accuracy <= 0.80
    if strength == 1:
        assert f"| {accuracy:.3f} |" in CARD
