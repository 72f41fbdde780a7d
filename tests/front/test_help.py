"""Help fits the screen, names every command, and shows nothing that is not so."""

import shlex
import subprocess
import sys
from collections.abc import Callable

import pytest

from llmft.config.folders import groups
from llmft.config.grid import plan
from llmft.front.help import WIDTH, overview, page, topic
from llmft.schema.command import COMMANDS, WITHOUT_CONFIG

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("name", COMMANDS | WITHOUT_CONFIG)
def test_a_page(name: str, llmft: Run) -> None:
    text = page(name)
    command = (COMMANDS | WITHOUT_CONFIG)[name]
    assert [line for line in text.splitlines() if len(line) > WIDTH] == []
    assert text.startswith(f"NAME\n  llmft {name} - {command.what}\n\nSYNOPSIS\n  llmft {name} ")
    for way in ((name, "--help"), (name, "-h"), ("help", name)):
        assert llmft(*way) == (0, f"{text}\n", "")
    assert name in overview()
    assert all(example in text for example in command.examples)


def test_the_overview_fits() -> None:
    assert [line for line in overview().splitlines() if len(line) > WIDTH] == []


def test_names_stand_bare_in_a_terminal() -> None:
    """Without the backticks that the same texts have in docs/config.md."""
    assert [name for name in COMMANDS | WITHOUT_CONFIG if "`" in page(name)] == []
    assert "`" not in str(topic("dataset"))


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


def test_a_key_is_explained_in_every_way_that_one_asks(llmft: Run) -> None:
    code, out, _ = llmft("help", "optimizer.lr")
    assert code == 0
    assert out.startswith("optimizer.lr=VALUE  [5e-05]\n    Peak learning rate. ")
    assert "\nset by options\n" in out
    assert "  optimizer=sgd        0.01\n" in out
    for words in (
        ("help", "lr"),
        ("help", "learning_rate"),
        ("finetune", "--help", "optimizer.lr"),
        ("finetune", "lr", "-h"),
    ):
        assert llmft(*words) == (0, out, "")


def test_a_key_of_several_tasks_is_explained_for_each(llmft: Run) -> None:
    _, out, _ = llmft("help", "task.max_length")
    assert "task.max_length=VALUE  [1024]\n  task: instruction\n    Largest number of tokens in a conversation." in out
    assert "task.max_length=VALUE  [512]\n  task: summarization\n" in out
    assert out.count("summarization") == 1
    assert (
        "task: ctr, image_classification, relation_extraction, tabular, text_classification\n"
        in llmft("help", "task.class_weights")[1]
    )


def test_sections_options_recipes_and_pages_are_explained(llmft: Run) -> None:
    for name, shown in {
        "dataset": "  dataset=csv            your own .csv or .tsv files.",
        "dataset.clean": "dataset.clean.unicode=true|false  [false]",
        "predict": "predict.keep=VALUE",
        "optimizer=lion": "# optimizer=lion: sign-based steps",
        "bert_textcls": "    llmft finetune +recipe=bert_textcls\n\n# @package _global_",
        "docs": "  docs/config                 Every key of a configuration",
        "docs/tables": "# Tables",
    }.items():
        code, out, _ = llmft("help", name)
        assert code == 0
        assert shown in out, name


def test_what_is_no_topic_is_answered_by_the_nearest(llmft: Run) -> None:
    code, out, err = llmft("help", "optimzer.lr")
    assert (code, out) == (2, "")
    assert err.startswith("error: no help on optimzer.lr. Did you mean optimizer.lr or ")
    assert llmft("help", "xyzzy")[2] == "error: no help on xyzzy. Write a command, a key such as optimizer.lr, a group such as dataset, or a recipe.\n"  # fmt: skip


def test_nothing_to_do_is_answered_by_help_and_by_exit_code_2(llmft: Run) -> None:
    assert llmft("finetune") == (2, f"{page('finetune')}\n", "")
    assert llmft("pretrain") == (2, f"{page('pretrain')}\n", "")


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    for words in (["finetune", "--help"], ["recipes"], ["finetune", "+recipe=bert_textcls", "--cfg", "job"]):
        program = subprocess.Popen(
            [sys.executable, "-m", "llmft", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert program.stdout and program.stderr
        program.stdout.close()
        assert program.stderr.read() == b""
        assert program.wait() == 0


def test_a_command_that_is_none(llmft: Run) -> None:
    assert llmft("predikt") == (2, "", "error: no command called predikt. Did you mean predict?\n")
    for word, meant in {"train": "finetune", "evaluate": "eval", "compare": "runs compare"}.items():
        assert f"Did you mean {meant}?" in llmft(word)[2]
    assert "They are finetune, pretrain, eval," in llmft("xyzzy")[2]
