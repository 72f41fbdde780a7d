"""The linear model: the optimum of scikit-learn, and the formula of least squares."""

import numpy
import pytest
import torch
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.preprocessing import OneHotEncoder

from llmft.models.table_models import LinearConfig, LinearForClassification

ROWS = 200


def table(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two numbers, one of them sometimes missing, and a category of three values."""
    rng = numpy.random.default_rng(seed)
    numbers = rng.normal(size=(ROWS, 2))
    missing = numpy.stack([rng.random(ROWS) < 0.2, numpy.zeros(ROWS)], axis=1)
    categories = rng.integers(1, 4, size=(ROWS, 1))
    return (
        torch.tensor(numpy.where(missing, 0.0, numbers)),
        torch.tensor(missing.astype(float)),
        torch.tensor(categories),
    )


def to_the_optimum(model: LinearForClassification, *batch: torch.Tensor) -> float:
    """Train until nothing moves; the loss."""
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-9)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(*batch).loss
        loss.backward()
        return loss

    optimizer.step(closure)
    return model(*batch).loss.item()


def as_matrix(numbers: torch.Tensor, missing: torch.Tensor, categories: torch.Tensor) -> numpy.ndarray:
    """The same rows as scikit-learn takes them."""
    return numpy.hstack([numbers, missing, OneHotEncoder().fit_transform(categories).toarray()])


@pytest.mark.parametrize("classes", [2, 3])
def test_logistic_regression_ends_where_that_of_scikit_learn_does(classes: int) -> None:
    inputs = table(seed=classes)
    rng = numpy.random.default_rng(0)
    score = as_matrix(*inputs) @ rng.normal(size=(7, classes)) + rng.gumbel(size=(ROWS, classes))
    labels = score.argmax(axis=1)
    model = LinearForClassification(LinearConfig(num_numbers=2, category_sizes=[3], num_labels=classes)).double()
    loss = to_the_optimum(model, *inputs, torch.tensor(labels))
    theirs = LogisticRegression(C=numpy.inf, tol=1e-9, max_iter=5000).fit(as_matrix(*inputs), labels)
    expected = theirs.predict_proba(as_matrix(*inputs))
    assert torch.softmax(model(*inputs).logits, dim=1).detach().numpy() == pytest.approx(expected, abs=1e-4)
    assert loss == pytest.approx(-numpy.log(expected[numpy.arange(ROWS), labels]).mean(), abs=1e-7)


def test_linear_regression_ends_at_least_squares() -> None:
    inputs = table(seed=1)
    rng = numpy.random.default_rng(0)
    target = as_matrix(*inputs) @ rng.normal(size=7) + rng.normal(size=ROWS)
    config = LinearConfig(num_numbers=2, category_sizes=[3], num_labels=1, problem_type="regression")
    model = LinearForClassification(config).double()
    loss = to_the_optimum(model, *inputs, torch.tensor(target))
    expected = LinearRegression().fit(as_matrix(*inputs), target).predict(as_matrix(*inputs))
    assert model(*inputs).logits[:, 0].detach().numpy() == pytest.approx(expected, abs=1e-5)
    assert loss == pytest.approx(((expected - target) ** 2).mean(), abs=1e-9)


def test_it_starts_from_zero() -> None:
    model = LinearForClassification(LinearConfig(num_numbers=2, category_sizes=[3], num_labels=4))
    assert [float(parameter.abs().sum()) for parameter in model.parameters()] == [0.0, 0.0, 0.0]
