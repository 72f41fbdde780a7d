"""Shares of rows: exact sizes, nothing lost, nothing twice, equal inputs together."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from llmft.data.splitting import split

SHARES = {"validation": 0.1, "test": 0.2}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from("abc")), min_size=1, max_size=200), st.integers(0, 5))
def test_a_split_parts_all_rows_and_no_key(rows: list[tuple[int, str]], seed: int) -> None:
    keys = [str(key) for key, _ in rows]
    labels: list[str | None] = [label for _, label in rows]
    parts = split(keys, labels, SHARES, seed)
    assert sorted(row for part in parts.values() for row in part) == list(range(len(rows)))
    owners = Counter(key for part in parts.values() for key in {keys[row] for row in part})
    assert max(owners.values()) == 1
    assert parts == split(keys, labels, SHARES, seed)
    few_keys = len(set(keys)) < len(set(labels)) * 3
    torn_keys = len(set(rows)) > len(set(keys))  # a key with two labels counts for its first
    assert set(labels) == {labels[row] for row in parts["train"]} or few_keys or torn_keys


@settings(max_examples=100, deadline=None)
@given(st.integers(20, 400), st.integers(1, 12))
def test_unique_rows_are_shared_out_exactly(count: int, classes: int) -> None:
    labels: list[str | None] = [str(i % classes) for i in range(count)]
    parts = split([str(i) for i in range(count)], labels, SHARES, 0)
    for name, share in SHARES.items():
        assert abs(len(parts[name]) - share * count) <= 1
        for label in set(labels):
            expected = share * labels.count(label)
            assert abs(sum(labels[row] == label for row in parts[name]) - expected) <= 1.5
