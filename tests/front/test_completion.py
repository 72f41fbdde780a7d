"""What a Tab offers, and that the scripts are ones that their shells can read."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llmft.front.completion import SHELLS, complete

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str], Path]

# What is typed after `llmft`; what must be offered; what must not be.
CASES = [
    ("", ["finetune", "eval", "predict", "recipes", "completion", "--help"], ["words"]),
    ("fin", ["finetune"], ["eval"]),
    ("finetune ", ["+recipe=", "model=", "model.", "optimizer.", "seed=", "run."], ["optimizer.lr=", "expect.", "predict.", "command="]),
    ("finetune +recipe=", ["+recipe=bert_textcls", "+recipe=mine"], []),
    ("finetune model=mi", ["model=minilm"], ["model=mlp"]),
    ("finetune optimizer.", ["optimizer.lr=", "optimizer.weight_decay="], ["optimizer="]),
    ("finetune dataset.split.v", ["dataset.split.validation="], ["dataset.validation="]),
    ("finetune dataset.s", ["dataset.split.", "dataset.streaming="], []),
    ("finetune hardware.precision=b", ["hardware.precision=bf16"], ["hardware.precision=fp16"]),
    ("finetune smoke=", ["smoke=true", "smoke=false"], []),
    ("finetune task.", ["task.max_length=", "task.numbers="], []),
    ("finetune trainer.metric_for_best=a", ["trainer.metric_for_best=accuracy"], []),
    ("finetune dataset.train=", ["dataset.train=mine.csv", "dataset.train=data/"], ["dataset.train=.hidden"]),
    ("finetune dataset.train=data/", ["dataset.train=data/评论.csv"], []),
    ("finetune my", ["my.yaml"], ["mine.csv"]),
    ("finetune --", ["--cfg", "--help", "--multirun"], []),
    ("finetune --cfg ", ["job"], ["+recipe="]),
    ("finetune nothing=", [], []),
    ("eval ", ["outputs/a/2", "outputs/a/1", "data/", "a"], ["outputs/a/3", "dataset=", "mine.csv"]),
    ("eval outputs/a/1 ", ["dataset=", "dataset.", "hardware.", "run.", "name="], ["model=", "optimizer.", "predict.", "+recipe=", "-m"]),
    ("eval outputs/a/1 model.", ["model.trust_remote_code="], ["model.path="]),
    ("eval outputs/a/1 -", ["--cfg"], ["-m"]),
    ("predict outputs/a/1 predict.", ["predict.text=", "predict.input="], []),
    ("predict outputs/a/1 predict.input=mi", ["predict.input=mine.csv"], []),
    ("recipes ", ["show", "copy"], []),
    ("recipes show ", ["bert_textcls", "mine"], []),
    ("runs ", ["compare", "clean", "a"], ["eval"]),
    ("runs compare ", ["outputs/a/2", "a"], ["compare"]),
    ("completion z", ["zsh"], ["bash"]),
    ("nothing ", [], []),
]  # fmt: skip


@pytest.fixture
def files(write: Write) -> None:
    for name in ("mine.csv", "my.yaml", ".hidden", "data/评论.csv", "recipes/mine.yaml", "outputs/a/1/model/x", "outputs/a/2/model/x", "outputs/a/3/log.txt"):  # fmt: skip
        write(name, "")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0] or "nothing")
def test_what_is_offered(case: tuple[str, list[str], list[str]], files: None) -> None:
    typed, wanted, unwanted = case
    found = complete(typed.split(" "))
    assert [word for word in wanted if word not in found] == []
    assert [word for word in unwanted if word in found] == []
    assert all(word.startswith(typed.split(" ")[-1]) for word in found)
    assert wanted or not found


def test_the_newest_run_comes_first(files: None) -> None:
    assert complete(["eval", "out"])[0] == "outputs/a/2"


def test_the_command_prints_a_line_a_word(llmft: Run) -> None:
    assert llmft("completion", "words", "completion", "") == (0, "bash\nzsh\nfish\n", "")
    assert llmft("completion", "words", "finetune", "--h") == (0, "--help\n", "")
    assert "tcsh  must be a shell" in llmft("completion", "tcsh")[2]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_reads_its_script(shell: str, llmft: Run) -> None:
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    script = llmft("completion", shell)[1]
    subprocess.run([shell, "-n"], input=script, text=True, check=True)


BASH = {
    "llmft fi": ["finetune"],
    "llmft finetune model=mi": ["minilm"],
    "llmft finetune hardware.precision=": ["auto", "fp32", "bf16", "fp16"],
    "llmft finetune trainer.ep": ["trainer.epochs="],
    "llmft recipes ": ["show", "copy"],
}


def test_bash_gets_what_stands_after_the_equals_sign(llmft: Run) -> None:
    """bash parts words at `=`, and puts its answer behind it."""
    tries = "".join(f"COMP_LINE='{line}' COMP_POINT=${{#COMP_LINE}}; _llmft; echo ${{COMPREPLY[*]}};" for line in BASH)
    ours = f'llmft() {{ "{sys.executable}" -m llmft "$@"; }}\n'
    script = ours + llmft("completion", "bash")[1] + tries.replace("; _llmft", "\nCOMP_POINT=${#COMP_LINE}; _llmft")
    done = subprocess.run(["bash", "-c", script], text=True, capture_output=True, check=True)
    assert [line.split() for line in done.stdout.splitlines()] == list(BASH.values())
