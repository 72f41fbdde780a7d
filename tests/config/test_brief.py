"""The best job of a sweep as a recipe: what it began from and what differs, and the same configuration again."""

from collections.abc import Callable
from pathlib import Path

import pytest

from llmft.config.grid import jobs, plan
from llmft.config.load import load
from llmft.schema.job import Space

Write = Callable[[str, str], Path]

# The words of a sweep, and the recipe of its last job after `command` and `name`.
CASES = {
    "+recipe=bert_textcls optimizer.lr=1e-5,3e-5 seed=0,1": ["bert_textcls"],
    "+recipe=bert_textcls model=minilm,distilbert": ["bert_textcls", "override /model: distilbert"],
    "+recipe=tabular_mlp,tabular_ft dataset=csv dataset.train=a.csv": ["tabular_ft", "override /dataset: csv"],
    "task=tabular model=mlp dataset=csv dataset.train=a.csv seed=0,1": ["override /task: tabular", "override /model: mlp"],
    "+recipe=bert_textcls optimizer=lion,adamw optimizer.lr=2": ["bert_textcls", "override /optimizer: adamw"],
    "+recipe=mine seed=1,2": ["mine"],
}  # fmt: skip


@pytest.mark.parametrize("words", CASES)
def test_a_short_recipe_gives_the_same_configuration(words: str, write: Write) -> None:
    write(
        "recipes/mine.yaml", "# @package _global_\ndefaults: [bert_textcls, _self_]\nname: mine\noptimizer: {lr: 0.5}\n"
    )
    job = jobs("finetune", words.split(), multirun=True)[-1]
    assert job.recipe
    text = job.recipe(job.config)
    write("best.yaml", text)
    assert load("finetune", ["best.yaml"]) == job.config
    assert [part for part in CASES[words] if f"- {part}\n" not in text] == []
    assert len(text.splitlines()) <= 14, text


def test_the_winner_of_a_search_is_short_too(write: Write) -> None:
    space = plan("finetune", ["+recipe=tabular_mlp", "search=random", "optimizer.lr=log(1e-4,1e-2)", "seed=3"], False)
    assert isinstance(space, Space)
    job = space.make({"optimizer.lr": "0.003"})
    assert job.recipe
    text = job.recipe(job.config.model_copy(update={"search": None}))
    write("best.yaml", text)
    assert load("finetune", ["best.yaml"]).optimizer.lr == 0.003
    assert text.endswith("seed: 3\noptimizer:\n  lr: 0.003\n")


def test_what_can_not_be_said_briefly_is_said_at_length(write: Write) -> None:
    """`smoke` makes sizes that no option has; a recipe by its path lies elsewhere than best.yaml will."""
    write("far/own.yaml", "# @package _global_\ndefaults: [bert_textcls, _self_]\nseed: 7\n")
    for words in ("far/own.yaml optimizer.lr=1,2", "+recipe=tabular_mlp smoke=true seed=1,2"):
        job = jobs("finetune", words.split(), multirun=True)[-1]
        assert job.recipe
        text = job.recipe(job.config)
        assert "own" not in text
        assert ("drop_empty: false" in text) == ("smoke" in words)
        write("best.yaml", text)
        assert load("finetune", ["best.yaml"]) == job.config.model_copy(update={"smoke": False})
