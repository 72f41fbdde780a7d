"""The official score of SemEval-2010 Task 8, worked out by hand."""

import pytest

from llmft.metrics.extraction_metrics import DirectedRelations, are_directed

A, A_BACK, B, B_BACK, OTHER = "A(e1,e2)", "A(e2,e1)", "B(e1,e2)", "B(e2,e1)", "Other"
CASES = {
    "all right": ([A, A_BACK, B, OTHER], [A, A_BACK, B, OTHER], 1.0),
    # A: nothing right, 1 said, 1 is. B: right.
    "the wrong direction is wrong": ([A_BACK, B], [A, B], (0 + 1) / 2),
    # A: 1 of 2 said and 1 of 2 that are, whichever way: P = R = 1/2.
    "directions share a relation": ([A, A], [A, A_BACK], 1 / 2),
    # A: 2 of 2 said, 2 of 3 that are: F 4/5. Other would have 2/3.
    "Other is not a relation": ([A, A_BACK, OTHER, OTHER], [A, A_BACK, A, OTHER], 4 / 5),
    # A: 1 of 2 said, 1 of 1: F 2/3. B: 0 of 0 said, 0 of 1.
    "mixed up": ([A, A, OTHER], [A, B, OTHER], (2 / 3 + 0) / 2),
    # A: 1 of 1. B: 0 of 1 said, 0 of 0: it counts, since it was said.
    "a relation that is not there": ([A, B_BACK], [A, OTHER], (1 + 0) / 2),
    # A: 3 of 4 said, 3 of 4: 3/4. B: 2 of 3, 2 of 4: 4/7.
    "long": ([A, A, A_BACK, A, B, B_BACK, B_BACK, OTHER, OTHER], [A, A, A_BACK, B, B, B_BACK, B, A_BACK, OTHER], (3 / 4 + 2 * 2 / (3 + 4)) / 2),
    "nothing but Other": ([OTHER, OTHER], [OTHER, OTHER], 0.0),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_official_score_by_hand(name: str) -> None:
    said, right, expected = CASES[name]
    found = DirectedRelations().compute(predictions=said, references=right)
    assert found == {"semeval_f1": pytest.approx(expected)}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([A, A_BACK, OTHER], True),
        (["Cause-Effect(e2,e1)", "原因(e1,e2)"], True),
        ([A, "none"], False),
        (["cause", "effect"], False),
        ([OTHER], False),
        (["A(e1,e1)", OTHER], False),
        ([A, "(e1,e2)"], False),
    ],
)
def test_labels_with_directions_are_known(labels: list[str], expected: bool) -> None:
    assert are_directed(labels) is expected
