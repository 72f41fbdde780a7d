"""The order of rows: all of them once, new each epoch, the same again for the same seed and epoch."""

from hypothesis import given, settings
from hypothesis import strategies as st

from llmft.training.batches import EpochSampler


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 500), min_size=1, max_size=400), st.integers(1, 40), st.integers(0, 3), st.booleans())
def test_every_row_comes_once(lengths: list[int], size: int, epoch: int, grouped: bool) -> None:
    sampler = EpochSampler(len(lengths), seed=3, batch_size=size, lengths=lengths if grouped else None)
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert sorted(order) == list(range(len(lengths)))
    assert order == list(sampler)
    assert len(sampler) == len(lengths)


def test_epochs_and_seeds_differ() -> None:
    lengths = [i % 17 for i in range(300)]
    orders = []
    for seed in range(3):
        for epoch in range(3):
            sampler = EpochSampler(300, seed, 8, lengths)
            sampler.set_epoch(epoch)
            orders.append(tuple(sampler))
    assert len(set(orders)) == 9


def test_grouping_spares_padding_and_puts_the_longest_batch_first() -> None:
    lengths = [(i * 7919) % 97 + 3 for i in range(1600)]

    def padded(grouped: bool) -> int:
        order = list(EpochSampler(1600, 0, 32, lengths if grouped else None))
        return sum(max(lengths[row] for row in order[i : i + 32]) * 32 for i in range(0, 1600, 32))

    assert padded(True) < 1.03 * sum(lengths)
    assert padded(False) > 1.8 * sum(lengths)
    first = list(EpochSampler(1600, 0, 32, lengths))[:32]
    assert max(lengths[row] for row in first) == max(lengths)
