"""Texts as the model gets them."""

from dataclasses import replace

import pytest

from tests.tasks.test_every_task import prepared


@pytest.mark.parametrize(
    "rows", [{"text": ["shine [SEP] mirk [PAD] [CLS]"]}, {"text": ["shine [SEP]"], "text_pair": ["[PAD] mirk"]}]
)
def test_special_tokens_in_a_text_are_letters(rows: dict[str, list[str]]) -> None:
    _, task, _, _ = prepared("text_classification")
    task = task.with_state(replace(task.state, pair="text_pair" in rows))
    ids = task.encode(rows)["input_ids"][0]
    pieces = task.state.tokenizer.convert_ids_to_tokens(ids)
    assert (pieces[0], pieces[-1]) == ("[CLS]", "[SEP]")
    assert [pieces.count(token) for token in ("[CLS]", "[SEP]", "[PAD]")] == [1, len(rows), 0]
