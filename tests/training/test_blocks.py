"""All tokens of a corpus in one file, and blocks that meet each of them once an epoch."""

import tracemalloc
from collections import Counter
from pathlib import Path

import numpy
import pytest
from datasets import Dataset

from llmft.models.tokenizers import train
from llmft.schema.model import GPT, TokenizerConfig
from llmft.schema.problem import UserError
from llmft.tasks.language_models import config as sections
from llmft.tasks.language_models.causal_lm import CausalLm
from llmft.tasks.language_models.language_model import LanguageState
from llmft.tasks.language_models.masked_lm import MaskedLm, MaskedState
from llmft.training import features
from llmft.training.features import Blocks, join_documents, load_blocks

LETTERS = train(["abcdefghij 一二🙂"], TokenizerConfig(kind="characters"), GPT)
END = LETTERS.eos_token_id
TASK = CausalLm(sections.CausalLm(block=8)).with_state(LanguageState(LETTERS, 8))


def rows(*texts: str, documents: list[str] | None = None) -> Dataset:
    names = documents or [str(number) for number in range(len(texts))]
    return Dataset.from_dict({"id": names, "text": list(texts), "document": names})


def ids(text: str) -> list[int]:
    return [int(token) for token in LETTERS.convert_tokens_to_ids(list(text))]


@pytest.mark.parametrize("size", [1, 10, 4_000_000])
def test_documents_are_joined_with_an_end_after_each(size: int, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the rows are portioned; nothing stands between the parts of one document."""
    monkeypatch.setattr(features, "BYTES", size)
    corpus = rows("abc", "def一", "gh🙂", "ij", documents=["a", "b", "b", "c"])
    found = join_documents(TASK, corpus, here)
    assert found.tokens.tolist() == [*ids("abc"), END, *ids("def一gh🙂"), END, *ids("ij"), END]
    assert found.tokens.dtype == numpy.uint16
    assert load_blocks(TASK, here).tokens.tolist() == found.tokens.tolist()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("abcabcabc", "10 tokens, 1 block of 8"),
        ("abc😀😀xyz", "9 tokens, 1 block of 8, 55.56% [UNK]"),
    ],
)
def test_what_the_tokenizer_does_not_know_is_told(
    text: str, told: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmft.tasks.language_models.language_model.PART", 4)
    assert join_documents(TASK, rows(text), here).describe() == told


@pytest.mark.parametrize("count", [16, 17, 23, 24, 100])
def test_an_epoch_says_each_token_at_most_once_and_misses_less_than_a_block(count: int, here: Path) -> None:
    """Tokens are numbered, so that each can be told; a label is the token after that which is read."""
    found = Blocks(numpy.arange(count, dtype=numpy.uint16), TASK)
    for epoch in range(4):
        found.set_epoch(epoch)
        examples = found.__getitems__(list(range(len(found))))
        said = Counter(int(token) for example in examples for token in example["labels"])
        assert len(found) == count // 8
        assert sum(said.values()) == len(said) == 8 * (count // 8)
        for example in examples:
            assert ((example["input_ids"] + 1) % count).tolist() == example["labels"].tolist()


def test_blocks_depend_on_seed_and_epoch_alone() -> None:
    tokens = numpy.arange(1000, dtype=numpy.uint16) % 10
    task = MaskedLm(sections.MaskedLm(block=16))
    bert = train(["a b c d e f g h i j"], TokenizerConfig(size=100))
    task = task.with_state(MaskedState(bert, 16))

    def epoch(seed: int, number: int) -> list[list[int]]:
        found = Blocks(tokens, task).with_seed(seed)
        found.set_epoch(number)
        order = list(range(len(found)))
        return [example["input_ids"].tolist() for example in found.__getitems__(order[::-1])[::-1]]

    assert epoch(3, 1) == epoch(3, 1)
    assert epoch(3, 1) != epoch(3, 2)
    assert epoch(3, 1) != epoch(4, 1)


def test_what_comes_from_elsewhere_is_no_part_of_its_own_block() -> None:
    task = MaskedLm(sections.MaskedLm(block=16, next_sentence=True, mask_share=0.01))
    bert = train(["a b c d e f g h i j k l m n o p q r s t u v w x y z"], TokenizerConfig(size=100))
    task, size = task.with_state(MaskedState(bert, 16)), 13
    letters = bert.convert_tokens_to_ids([*"abcdefghijklmnopqrstuvwxyz"])

    def labels(count: int) -> set[tuple[int, bool]]:
        """Of each pair its label, and whether its second half is of other letters than those of its block."""
        tokens = numpy.repeat(letters[:count], size).astype(numpy.uint16)  # a block is one letter again and again
        found = set()
        for epoch in range(20):
            part = Blocks(tokens, task, epoch=epoch)
            part.offset = 0
            for number, example in enumerate(part.__getitems__(list(range(count)))):
                kinds = example["token_type_ids"] == 1
                second = set(example["input_ids"][kinds][:-1]) - {bert.mask_token_id}
                if len(second) == 1 and (example["labels"][kinds] == -100).all():
                    found.add((example["next_sentence_label"], second != {letters[number]}))
        return found

    assert labels(2) == labels(20) == {(0, False), (1, True)}
    assert labels(1) == {(0, False)}, "where there is nothing else"


def test_less_text_than_a_block_is_said(here: Path) -> None:
    with pytest.raises(UserError, match=r"must have 8 tokens for a block of task.block=8, got 4"):
        join_documents(TASK, rows("abc"), here)


def test_memory_does_not_grow_with_the_corpus(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "BYTES", 10_000)

    def peak(count: int) -> int:
        corpus = rows(*["abcdefghij" * 100] * count)
        tracemalloc.start()
        join_documents(TASK, corpus, here)
        try:
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)  # what is made once
    assert peak(400) < 1.5 * peak(50)
