"""`llmft recipes`: listed, shown, copied, and never written over."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from llmft.config.folders import shipped
from llmft.config.load import load
from llmft.front.help import WIDTH

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str | bytes], Path]

MINE = """# @package _global_
# Sort letters.
defaults:
  - bert_textcls
  - override /model: distilbert
  - _self_
name: mine
expect: {metric: f1, at_least: 0.7, data: letters, seed: 0, hardware: a phone, minutes: 3}
"""
CHILD = """# @package _global_
# Sort more letters.
#   llmft finetune +recipe=child
defaults: [mine, _self_]
"""


def test_the_list_says_what_each_does_and_promises(llmft: Run, write: Write) -> None:
    write("recipes/mine.yaml", MINE)
    write("recipes/child.yaml", CHILD)
    write("recipes/broken.yaml", b"a: [\xff")
    code, out, _ = llmft("recipes")
    assert code == 0
    for lines in (
        "mine\n    Sort letters.\n    f1 0.7 on letters, in 3 min on a phone; model distilbert, 66 M parameters\n",
        "child\n    Sort more letters.\n    f1 0.7 on letters, in 3 min on a phone; model distilbert, 66 M parameters\n",
        "bert_textcls\n    Classify texts",
        "broken\n",
    ):
        assert lines in out
    assert all(len(line) <= WIDTH for line in out.splitlines())


def test_every_shipped_recipe_says_what_it_does(llmft: Run) -> None:
    """The line under its package; and on which model."""
    _, out, _ = llmft("recipes")
    for file in shipped("recipes").glob("*.yaml"):
        told = re.search(rf"^{file.stem}\n((    .*\n)+)", out, re.MULTILINE)
        assert told, file.stem
        assert re.search(r"[.?]\n(.*\n)*.*model \w+", told[1])


def test_show_prints_the_file(llmft: Run, write: Write) -> None:
    assert llmft("recipes", "show", "tabular_mlp")[1] == (shipped("recipes") / "tabular_mlp.yaml").read_text()
    write("recipes/tabular_mlp.yaml", MINE)
    assert llmft("recipes", "show", "tabular_mlp")[1] == MINE, "one's own comes first"


@pytest.mark.parametrize(("to", "file", "word"), [
    ((), "recipes/tabular_mlp.yaml", "+recipe=tabular_mlp"),
    (("mine",), "recipes/mine.yaml", "+recipe=mine"),
    (("a/b.yaml",), "a/b.yaml", "a/b.yaml"),
])  # fmt: skip
def test_a_copy_runs_and_is_never_written_over(
    to: tuple[str, ...], file: str, word: str, llmft: Run, here: Path
) -> None:
    code, out, _ = llmft("recipes", "copy", "tabular_mlp", *to)
    assert code == 0
    assert out.endswith(f"  llmft finetune {word}\n")
    assert load("finetune", [word]).model_dump() == load("finetune", ["+recipe=tabular_mlp"]).model_dump()
    (here / file).write_text("mine")
    code, out, err = llmft("recipes", "copy", "tabular_mlp", *to)
    assert (code, out) == (2, "")
    assert f"{file}  exists already" in err
    assert (here / file).read_text() == "mine"


WRONG = {
    "show bert_textcl": "bert_textcl  no such recipe (command line). Did you mean bert_textcls?",
    "show ../configs/model/mlp": "no such recipe",
    "copy nothing": "no such recipe",
    "bert_textcl": "bert_textcl  no such recipe (command line). Did you mean bert_textcls?",
    "sell bert_textcls": "Write llmft recipes, llmft recipes show NAME, or llmft recipes copy NAME [TO].",
    "copy bert_textcls full/a.yaml": "full/a.yaml  File exists",
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_words(words: str, llmft: Run, write: Write) -> None:
    write("full", "no folder")
    code, out, err = llmft("recipes", *words.split())
    assert (code, out) == (2, "")
    assert WRONG[words] in err


def test_a_recipe_for_other_data_lists_no_promise_of_the_one_that_it_starts_from(llmft: Run, write: Write) -> None:
    write(
        "recipes/tickets.yaml",
        "# Tickets.\ndefaults:\n  - bert_textcls\n  - override /dataset: csv\n  - _self_\nname: tickets\n",
    )
    assert "tickets\n    Tickets.\n    model minilm, 22.7 M parameters\n" in llmft("recipes")[1]


def test_a_promise_is_made_where_all_is_as_the_recipe_says(write: Write) -> None:
    write("recipes/other.yaml", "defaults: [bert_textcls, _self_]\noptimizer: {lr: 1.0e-3}\n")
    for words, promised in {
        (): True,
        ("name=mine", "run.dir=a", "seed=0"): True,
        ("seed=1",): False,
        ("trainer.max_steps=2",): False,
        ("model=distilbert",): False,
        ("optimizer.lr=1e-3",): False,
    }.items():
        assert bool(load("finetune", ["+recipe=bert_textcls", *words]).expect) == promised, words
    config = load("finetune", ["+recipe=other"])
    assert (config.expect, config.optimizer.lr) == (None, 1e-3), "a recipe of one's own needs no header"
