"""What TF-IDF with logistic regression gets on `dataset=reviews`: the bar that a model must clear.

python benchmarks/reviews.py
"""

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from llmft import tasks
from llmft.config.load import load as compose
from llmft.data.pipeline import load


def main() -> None:
    """Print the accuracies of scikit-learn's defaults, and of the settings that do best on validation."""
    config = compose("finetune", ["task=text_classification", "dataset=reviews"])
    data = load(config.dataset, tasks.build(config.task))

    def fitted(words: int, strength: float) -> Pipeline:
        features = TfidfVectorizer(ngram_range=(1, words))
        model = make_pipeline(features, LogisticRegression(C=strength, max_iter=1000))
        return model.fit(data["train"]["text"][:], data["train"]["label"][:])

    def accuracy(model: Pipeline, split: str) -> float:
        return float(model.score(data[split]["text"][:], data[split]["label"][:]))

    plain = fitted(1, 1.0)
    tuned = max(
        (fitted(words, c) for words in (1, 2) for c in (1, 3, 10, 30, 100)), key=lambda m: accuracy(m, "validation")
    )
    for name, model in (("defaults", plain), ("tuned on validation", tuned)):
        shown = {"words": model[0].ngram_range, "C": model[1].C}
        print(f"{name}: {shown} validation {accuracy(model, 'validation'):.4f} test {accuracy(model, 'test'):.4f}")


if __name__ == "__main__":
    main()
