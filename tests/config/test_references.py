"""`${key}` stands for the value of any key, that of a default too; what it cannot stand for is an error with its place."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmft.config.load import load
from llmft.config.references import defaults
from llmft.schema.config import Config
from llmft.schema.problem import UserError
from llmft.schema.tasks import task_names

Write = Callable[[str, str], Path]
Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("scheduler.warmup_steps=${seed}", "scheduler.warmup_steps", 0),  # a default of the schema
        ("scheduler.warmup_steps=${trainer.accumulation}", "scheduler.warmup_steps", 1),
        ("seed=${trainer.epochs}", "seed", 3),  # of configs/trainer/default.yaml
        ("trainer.eval_batch_size=${trainer.batch_size}", "trainer.eval_batch_size", 32),
        ("trainer.batch_size=${.accumulation}", "trainer.batch_size", 1),  # beside the key itself
        ("optimizer.betas=[${optimizer.momentum},0.95]", "optimizer.betas", (0.9, 0.95)),
        ("optimizer.momentum=${optimizer.betas.0}", "optimizer.momentum", None),
        ("task.max_length=${task.max_length}0", "task.max_length", None),
    ],
)
def test_any_key_can_be_referred_to_on_the_command_line(word: str, key: str, value: Any) -> None:
    if value is None:
        with pytest.raises(UserError):
            load("finetune", [word])
        return
    found: Any = load("finetune", [word])
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value


def test_any_key_can_be_referred_to_in_a_recipe(write: Write) -> None:
    write(
        "recipes/mine.yaml",
        "defaults: [override /task: text_classification]\nseed: 7\nname: m-${seed}-${trainer.accumulation}-${task.problem}\n"
        "model: {config: {n: '${task.max_length}', text: '\\${price}'}}\nrun: {dir: 'out/${name}'}\n",
    )
    config = load("finetune", ["+recipe=mine", "seed=8"])
    length = defaults("text_classification")["task"]["max_length"]
    assert config.name == f"m-8-1-{defaults('text_classification')['task']['problem']}"
    assert config.run.dir == f"out/{config.name}"
    assert config.model.config == {"n": length, "text": "${price}"}


def test_what_nobody_said_stays_unsaid(write: Write) -> None:
    """A reference brings no defaults into the configuration: what says nothing is not `given`."""
    write("recipes/mine.yaml", "seed: ${trainer.epochs}\n")
    assert "jobs" not in load("finetune", ["+recipe=mine"]).sweep.model_fields_set


WRONG = {
    "trainer: {epochs: '${trainer.epoch}'}": (2, "trainer.epochs  ${trainer.epoch} refers to no key", "Did you mean ${trainer.epochs}?"),
    "seed: ${lr}": (2, "seed  ${lr} refers to no key", "Did you mean ${optimizer.lr}?"),
    "name: x-${price}": (2, "name  ${price} refers to no key", "Write \\${price} for the text itself."),
    "name: ${HF_TOKEN}": (2, "name  ${HF_TOKEN} refers to a secret", "HF_TOKEN."),
    "name: ${HOME}": (2, "name  ${HOME} refers to no key", "A configuration does not read the environment."),
    "seed: ${seed}": (2, "seed  ${seed} refers to itself: seed -> seed", ""),
    "seed: ${trainer.epochs}\ntrainer: {epochs: '${seed}'}": (
        2,
        "${trainer.epochs} refers to itself: seed -> trainer.epochs -> seed",
        "${seed} refers to itself: trainer.epochs -> seed -> trainer.epochs (recipes/mine.yaml:3)",
    ),
    "model: {config: {a: '${model}'}}": (2, "model.config.a  ${model} refers to itself", ""),
    "seed: ${task.labels.first}": (2, "seed  ${task.labels.first} refers to no key", ""),
    "model: {config: {hub_token: abcdefgh}}\nname: ${model.config.hub_token}": (3, "refers to a secret", ""),
    "model: {config: {hub_token: abcdefgh}}\nname: ${model.config}": (2, "looks like a secret", ""),
    "name: ${oc.env:HOME}": (2, "name  calls a resolver", ""),
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_reference_is_an_error_with_its_line(text: str, llmft: Run, write: Write, here: Path) -> None:
    line, what, hint = WRONG[text]
    write("recipes/mine.yaml", f"# mine\n{text}\n")
    code, out, err = llmft("finetune", "+recipe=mine", "--cfg", "job")
    assert (code, out) == (2, "")
    assert what in err
    assert f"(recipes/mine.yaml:{line})" in err
    assert hint in err
    assert "Traceback" not in err
    assert "abcdefgh" not in err


def test_a_wrong_reference_on_the_command_line_and_all_of_them_at_once(llmft: Run) -> None:
    words = ["trainer.epochs=${nope}", "seed=${optimzer.lr}", "model=nosuch"]
    code, _, err = llmft("finetune", *words)
    assert code == 2
    assert err.startswith("error: 3 problems in this configuration\n")
    assert "  trainer.epochs  ${nope} refers to no key (command line)." in err
    assert "Did you mean ${optimizer.lr}?" in err


def test_a_text_that_is_typed_is_a_text(llmft: Run) -> None:
    for word in ("dataset.name=I paid ${price}", "dataset.train=${seed}.csv", "run.dir=${name}"):
        key, _, value = word.partition("=")
        assert yaml.safe_load(llmft("finetune", word, "--cfg", f"job={key}")[1])[key] == value.replace("${", "\\${")


def test_a_command_that_works_from_a_run_refers_to_the_run(write: Write) -> None:
    tree = load("finetune", ["seed=5", "trainer.batch_size=9", "name=mine"]).model_dump(mode="json")
    write("run/config.yaml", yaml.safe_dump(tree))
    config = load("eval", ["run", "trainer.eval_batch_size=${trainer.batch_size}"])
    assert config.trainer.eval_batch_size == 9
    config = load("eval", ["run", "seed=6", "trainer.eval_batch_size=${seed}"])
    assert config.trainer.eval_batch_size == 6


@pytest.mark.parametrize("task", task_names())
def test_the_defaults_are_those_of_the_schema(task: str) -> None:
    tree = defaults(task)
    given = {"command": "finetune", "model": {"architecture": "bert"}, "dataset": {"train": "x"}}
    config = Config.model_validate({**given, "task": {"name": task}}).model_dump(mode="json")
    for key, value in tree.items():
        if key not in (*given, "name"):
            assert value == config[key], key
