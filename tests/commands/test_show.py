"""`show=3`: a look at encoded rows, which leaves nothing."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("+recipe=llm_instruct",), "⟦toma<|endoftext|>⟧"),
        (("+recipe=bert_textcls",), "[SEP]\n⟦good⟧\n"),
        (("+recipe=tabular_mlp",), "⟦"),
    ],
)
def test_rows_are_shown_and_nothing_is_left(words: tuple[str, ...], shown: str, llmft: Run, here: Path) -> None:
    code, out, err = llmft("finetune", *words, "smoke=true", "show=12", "run.dir=run")
    assert code == 0, err
    assert shown in out
    assert out.count("synthetic-train:") == 12
    assert "Leave out show=12 to train." in out
    assert list(here.iterdir()) == []


def test_on_a_terminal_what_is_trained_is_green(
    llmft: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("finetune", "+recipe=llm_instruct", "smoke=true", "show=1")
    monkeypatch.setattr(os, "isatty", lambda _: True)
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda _: True, raising=False)
    assert "\x1b[32m" in llmft(*words)[1]
    monkeypatch.setenv("NO_COLOR", "1")
    out = llmft(*words)[1]
    assert "\x1b[" not in out
    assert "⟦" in out


def test_of_a_sweep_the_first_job_is_shown(llmft: Run, here: Path) -> None:
    code, out, err = llmft("finetune", "-m", "+recipe=llm_instruct", "smoke=true", "show=1", "seed=0,1")
    assert code == 0, err
    assert out.count("synthetic-train:") == 1
    assert list(here.iterdir()) == []


def test_a_run_has_no_training_rows_to_show(llmft: Run) -> None:
    assert llmft("finetune", "+recipe=llm_instruct", "smoke=true", "trainer.max_steps=1", "run.dir=run")[0] == 0
    code, _, err = llmft("eval", "run", "show=1")
    assert code == 2
    assert "show" in err


@pytest.mark.parametrize(
    ("recipe", "shown"), [("bert_mlm", "⟦[MASK]"), ("t5_span", "\n⟦<extra_id_0>"), ("gpt_char", "tokens\n⟦")]
)
def test_blocks_of_raw_text_have_no_rows(recipe: str, shown: str, llmft: Run, here: Path) -> None:
    code, out, err = llmft("pretrain", f"+recipe={recipe}", "smoke=true", "show=2")
    assert code == 0, err
    assert shown in out
    assert ("block 0, " in out, "block 1, " in out, "block 2, " in out) == (True, True, False)
    assert list(here.iterdir()) == []
