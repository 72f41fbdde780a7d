"""Words that mean a search: what varies, how, and what is wrong with it before the first trial."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from llmft.config.grid import plan
from llmft.schema.job import Dimension, Space
from llmft.schema.problem import UserError

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str], Path]
TABLE = ("+recipe=tabular_mlp", "search=tpe")


def space(*words: str) -> Space:
    found = plan("finetune", list(words), multirun=False)
    assert isinstance(found, Space)
    return found


DIMENSIONS = {
    "optimizer.lr=log(1e-5,1e-1)": Dimension("optimizer.lr", low=1e-5, high=1e-1, log=True),
    "optimizer.lr=log(1e-5, 1e-1)": Dimension("optimizer.lr", low=1e-5, high=1e-1, log=True),
    "optimizer.weight_decay=interval(0,0.5)": Dimension("optimizer.weight_decay", low=0, high=0.5),
    "trainer.batch_size=16,32,64": Dimension("trainer.batch_size", choices=("16", "32", "64")),
    "trainer.batch_size=choice(16,32)": Dimension("trainer.batch_size", choices=("16", "32")),
    "trainer.epochs=range(1,6)": Dimension("trainer.epochs", low=1, high=5, step=1),
    "trainer.epochs=range(2,11,4)": Dimension("trainer.epochs", low=2, high=10, step=4),
    "trainer.epochs=range(1,3)": Dimension("trainer.epochs", choices=("1", "2")),
    "scheduler=linear,cosine": Dimension("scheduler", choices=("linear", "cosine")),
    "seed=3,3,4": Dimension("seed", choices=("3", "4")),
    "model.config={hidden_sizes: [8]},{hidden_sizes: [8,8]}": Dimension("model.config", choices=("{hidden_sizes: [8]}", "{hidden_sizes: [8,8]}")),
}  # fmt: skip


@pytest.mark.parametrize("word", DIMENSIONS)
def test_a_word_is_a_dimension(word: str) -> None:
    assert space(*TABLE, word).dimensions == [DIMENSIONS[word]]


def test_a_point_becomes_a_checked_job() -> None:
    found = space(*TABLE, "optimizer.lr=log(1e-5,1e-1)", "trainer.epochs=range(1,6)", "optimizer=adamw,sgd", "seed=7")
    job = found.make({"optimizer.lr": "0.00123", "trainer.epochs": "4", "optimizer": "sgd"})
    assert job.values == {"optimizer.lr": 0.00123, "trainer.epochs": 4, "optimizer": "sgd"}
    config = job.config
    assert (config.optimizer.name, config.optimizer.lr, config.trainer.epochs, config.seed) == ("sgd", 0.00123, 4, 7)
    with pytest.raises(UserError, match="must be a whole number"):
        space(*TABLE, "seed=1,2").make({"seed": "x"})


def test_what_is_drawn_can_be_typed() -> None:
    assert Dimension("x", low=1e-5, high=1, log=True).format(0.000123456) == "0.0001235"
    assert Dimension("x", low=0.12344, high=1).format(0.12344) == "0.12344", "and stays inside"
    assert Dimension("x", low=2, high=10, step=4).format(6) == "6"
    assert Dimension("x", choices=("a,b",)).format("a,b") == "a,b"


OWN = """# @package _global_
defaults: [tabular_mlp, override /search: random, _self_]
search: {trials: 7}
hydra:
  sweeper:
    params:
      optimizer.lr: log(1e-4,1e-2)
      trainer.batch_size: [16, 32]
"""


def test_a_recipe_may_bring_its_search_and_the_command_line_wins(write: Write) -> None:
    write("recipes/own.yaml", OWN)
    found = space("+recipe=own")
    assert found.first.config.search is not None
    assert (found.first.config.search.name, found.first.config.search.trials) == ("random", 7)
    assert [str(d) for d in found.dimensions] == ["0.0001 to 0.01, by its logarithm", "16, 32"]
    found = space("+recipe=own", "trainer.batch_size=8", "search.trials=3")
    assert [d.key for d in found.dimensions] == ["optimizer.lr"]
    assert found.first.config.trainer.batch_size == 8
    # Nobody typed what a recipe says.
    write("recipes/bad.yaml", OWN.replace("trainer.batch_size: [16, 32]", "model.trust_remote_code: true,false"))
    with pytest.raises(UserError, match="must be set on the command line"):
        space("+recipe=bad")


WRONG = {
    "optimizer.lrr=log(1e-5,1e-3)": r"optimizer\.lrr +no such key .* Did you mean optimizer\.lr\?",
    "optimizer.lr=log(0,1)": r"optimizer\.lr +must be above 0 for a logarithm, got 0 .*Write optimizer\.lr=interval\(0,1\)",
    "optimizer.lr=log(1,1e-3)": "must have the lower number first",
    "optimizer.lr=log(a,b)": "must be two numbers",
    "optimizer.lr=interval(-1,1)": r"optimizer\.lr +must be above 0, got -1\.0 \(command line, in optimizer\.lr=-1\.0\)",
    "trainer.batch_size=interval(16,33)": r"must be a whole number or 'all', got 24\.5",
    "trainer.batch_size=16,x": r"must be a whole number or 'all', got 'x' \(command line, in trainer\.batch_size=x\)",
    "model=mlp,nosuch": r"model=nosuch +no such model",
    "run.dir=a,b": r"run\.dir +applies to the whole sweep",
    "search.seed=1,2": r"search\.seed +applies to the whole search",
    "search=tpe,random": "names several options|applies to the whole search",
    "trainer.metric_for_best=f1,accuracy": "applies to the whole search",
    "seed=1": r"search +needs a key with several values or a range\. Write for example optimizer\.lr='log\(1e-5,1e-3\)'",
    "search.trials=0 seed=1,2": "must be at least 1, got 0",
    "search.pruner=halving seed=1,2": "must be one of 'median', 'hyperband' or 'none', got 'halving'",
    "dataset.split.validation=0 seed=1,2": "must be above 0 for a search",
    "dataset.folds=3 seed=1,2": "does not work with a search",
    "hardware.processes=2 seed=1,2": r"cannot stop a trial of several processes early .* Write search\.pruner=none",
    "search=grid optimizer.lr=log(1e-5,1e-3)": "must be a list of values in a grid",
    "search=grid seed=range(40) trainer.batch_size=range(1,40)": "must have at most 1,000 trials in a grid, got 1,560",
    "+recipe=tabular_mlp,bert_textcls": "the whole search|trials cannot be compared|names several",
}


@pytest.mark.parametrize("words", WRONG)
def test_what_is_wrong_is_said_before_the_first_trial(words: str, llmft: Run, here: Path) -> None:
    head = (
        TABLE
        if not words.startswith(("search=", "+recipe"))
        else TABLE[:1]
        if words.startswith("search=")
        else TABLE[1:]
    )
    code, _, err = llmft("finetune", *head, *words.split(" "))
    assert code == 2
    assert re.search(WRONG[words], err), err
    assert list(here.iterdir()) == []


def test_a_range_without_a_search_is_answered_with_a_hint(llmft: Run) -> None:
    for flags in ((), ("-m",)):
        code, _, err = llmft("finetune", *flags, "optimizer.lr=log(1e-5,1e-3)")
        assert code == 2
        assert "search" in err


def test_cfg_job_shows_the_first_trial(llmft: Run) -> None:
    code, out, _ = llmft("finetune", *TABLE, "seed=4,5", "--cfg", "job")
    assert code == 0
    assert "--- # seed=4" in out
    assert "name: tpe" in out
