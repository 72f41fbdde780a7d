"""One row a task: what the tests of every task need to know of it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """How a task is tried out."""

    recipe: str
    """A recipe of the task; `smoke=true` makes it small."""
    losses: list[float]
    """Training loss of ten fixed steps of the tiny model with seed 0, in float32."""
    chance: float
    """The accuracy on the synthetic test rows that guessing gets; a tiny model must get 0.9."""


CASES = {
    "text_classification": Case(
        recipe="bert_textcls",
        losses=[0.6893, 0.6924, 0.6935, 0.6914, 0.6897, 0.6918, 0.6929, 0.6953, 0.6961, 0.6909],
        chance=0.5,
    ),
    "tabular": Case(
        recipe="tabular_mlp",
        losses=[0.6931, 0.6914, 0.6882, 0.6893, 0.686, 0.6824, 0.6818, 0.6756, 0.6874, 0.6704],
        chance=0.5,
    ),
}
