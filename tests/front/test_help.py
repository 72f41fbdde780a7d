"""Help fits the screen, names every command, and shows nothing that is not so."""

import shlex
from collections.abc import Callable

import pytest

from llmft.config.folders import groups
from llmft.config.search import plan
from llmft.front.help import WIDTH, overview, page
from llmft.schema.command import AT_ONCE, COMMANDS

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("name", COMMANDS | AT_ONCE)
def test_a_page(name: str, llmft: Run) -> None:
    text = page(name)
    command = (COMMANDS | AT_ONCE)[name]
    assert [line for line in text.splitlines() if len(line) > WIDTH] == []
    assert text.startswith(f"NAME\n  llmft {name} - {command.what}\n\nSYNOPSIS\n  llmft {name} ")
    for way in ((name, "--help"), (name, "-h"), ("help", name)):
        assert llmft(*way) == (0, f"{text}\n", "")
    assert name in overview()
    assert all(example in text for example in command.examples)


def test_the_overview_fits() -> None:
    assert [line for line in overview().splitlines() if len(line) > WIDTH] == []


def test_the_page_of_finetune_has_every_group_and_every_exit_code() -> None:
    text = page("finetune")
    assert all(f"  {group} " in text for group in groups("finetune"))
    assert all(f"  {code} " in text for code in ("0", "1", "2", "75", "130"))
    assert "optimizer.lr=VALUE  [5e-05]" in text
    assert "hardware.precision" not in text, "only what is written most"


def test_the_examples_of_finetune_compose(write: Callable[[str, str], object]) -> None:
    write("mine.csv", "text,label\na,b\n")
    for example in COMMANDS["finetune"].examples:
        words = [word for word in shlex.split(example)[2:] if word not in ("-m", "--cfg", "job")]
        assert plan("finetune", words, "-m" in example)


def test_a_command_that_is_none(llmft: Run) -> None:
    assert llmft("predikt") == (2, "", "error: no command called predikt. Did you mean predict?\n")
    assert "They are finetune, pretrain, eval," in llmft("xyzzy")[2]
