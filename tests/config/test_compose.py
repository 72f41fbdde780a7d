"""Which value wins, which recipes there are, and how long it takes to say so."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmft.config.folders import recipes, shipped
from llmft.config.load import load
from llmft.front.recipes import command_of
from llmft.schema.problem import UserError

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("recipe", recipes())
@pytest.mark.parametrize("smoke", ["false", "true"])
def test_every_recipe_composes(recipe: str, smoke: str) -> None:
    config = load(command_of(recipe), [f"+recipe={recipe}", f"smoke={smoke}"])
    assert config.name == recipe


@pytest.mark.parametrize(
    "group", ["task", "model", "adapter", "dataset", "optimizer", "scheduler", "trainer", "hardware"]
)
def test_every_option_composes(group: str, here: Path) -> None:
    for file in sorted((shipped("configs") / group).glob("*.yaml")):
        option = yaml.safe_load(file.read_text())
        words = [f"{group}={file.stem}"]
        if group == "dataset":
            words += [] if "train" in option else ["dataset.train=x.csv"]
            words += ["dataset.path=x"] if file.stem == "hub" else []
        config = load("finetune", words)
        for key, value in option.items():
            found = config.model_dump(mode="json")[group][key]
            assert key == "train" or (found | value if isinstance(value, dict) else value) == found
        assert file.read_text().startswith(f"# {group}={file.stem}: "), "the first line says how to call it"


@pytest.mark.parametrize("recipe", recipes())
def test_every_recipe_says_how_to_call_it_and_what_it_promises(recipe: str) -> None:
    text = (shipped("recipes") / f"{recipe}.yaml").read_text()
    assert f"#   llmft {command_of(recipe)} +recipe={recipe}" in text
    assert load(command_of(recipe), [f"+recipe={recipe}"]).expect is not None


def test_the_command_line_wins_over_the_recipe_and_the_recipe_over_the_groups() -> None:
    assert load("finetune", []).optimizer.lr == 5e-5
    assert load("finetune", ["+recipe=bert_textcls"]).optimizer.lr == 1e-4
    assert load("finetune", ["+recipe=bert_textcls", "optimizer.lr=3e-5"]).optimizer.lr == 3e-5
    assert load("finetune", ["+recipe=bert_textcls", "model=roberta"]).model.name == "roberta"


def test_an_optimizer_brings_its_own_rate_in_place_of_that_of_another(write: Callable[[str, str], Path]) -> None:
    def optimizer(*words: str) -> tuple[str, float]:
        found = load("finetune", ["+recipe=bert_textcls", *words]).optimizer
        return found.name, found.lr

    assert optimizer("optimizer=adamw") == ("adamw", 1e-4), "the recipe has adamw"
    assert optimizer("optimizer=sgd") == ("sgd", 0.01)
    assert optimizer("optimizer=sgd", "optimizer.lr=0.5") == ("sgd", 0.5)
    whole = "# @package _global_\ncommand: finetune\noptimizer: {name: adamw, lr: 7}\nscheduler: {name: constant}\n"
    write("whole.yaml", whole)  # as the config.yaml of a run
    config = load("finetune", ["whole.yaml", "optimizer=lion", "scheduler=wsd"])
    assert (config.optimizer.name, config.optimizer.lr, config.scheduler.name) == ("lion", 1e-5, "wsd")


def test_a_choice_that_a_recipe_leaves_no_effect_is_a_problem(write: Callable[[str, str], Path]) -> None:
    write("whole.yaml", "# @package _global_\ncommand: finetune\nmodel: {path: mine}\n")
    with pytest.raises(UserError, match=r"model=random  has no effect: the recipe itself sets model.path=mine"):
        load("finetune", ["whole.yaml", "model=random"])
    assert load("finetune", ["whole.yaml", "model=random", "model.path=other"]).model.path == "other"


def test_my_recipe_comes_before_the_shipped_one_and_can_extend_it(write: Callable[[str, str], Path]) -> None:
    write("recipes/我的.yaml", "# @package _global_\ndefaults: [bert_textcls, _self_]\nname: 我的\nseed: 5\n")
    config = load("finetune", ["+recipe=我的"])
    assert (config.name, config.seed, config.optimizer.lr) == ("我的", 5, 1e-4)
    write("recipes/bert_textcls.yaml", "# @package _global_\nname: other\n")
    assert load("finetune", ["+recipe=bert_textcls"]).name == "other"


@pytest.mark.parametrize(
    "words",
    [
        ["optimizer.lr=1e-5", "task.labels=[a,b]", "model.config={hidden_dropout_prob: 0.1}"],
        ["task=tabular", "+task.categories=[zip]", "task.label_names={'1': '${x}'}"],
        ["model.path=a/b", "optimizer=lion", "~scheduler.warmup_ratio"],
        ["model.config.hidden_size=32", "model.config={hidden_size: 64}", "optimizer.lr=$3"],
        [],
    ],
)
def test_files_that_were_composed_before_say_the_same(words: list[str], here: Path) -> None:
    """Ours are composed once in a process; with a folder of one's own beside them, each time."""

    def said() -> Any:
        try:
            return load("finetune", ["+recipe=bert_textcls", *words])
        except UserError as error:
            return error.problems

    first = said()
    assert said() == first
    (here / "configs").mkdir()
    assert said() == first


def test_a_recipe_can_be_named_by_its_path(write: Callable[[str, str], Path]) -> None:
    write("elsewhere/x.yaml", "# @package _global_\nname: x\n")
    assert load("finetune", ["elsewhere/x.yaml", "seed=3"]).name == "x"


def test_what_is_printed_is_a_recipe_that_says_the_same(llmft: Run, write: Callable[[str, str], Path]) -> None:
    _, out, _ = llmft("finetune", "+recipe=bert_textcls", "dataset=csv", "dataset.train=评论.csv", "--cfg", "job")
    write("again.yaml", "# @package _global_\n" + out)
    said = ["+recipe=bert_textcls", "dataset=csv", "dataset.train=评论.csv"]
    assert load("finetune", ["again.yaml"]) == load("finetune", said)


def test_smoke_makes_it_small_and_the_command_line_wins() -> None:
    small = load("finetune", ["+recipe=bert_textcls", "smoke=true"])
    assert (small.dataset.format, small.model.path, small.model.init) == ("synthetic", None, "random")
    assert (small.model.architecture, small.trainer.max_steps) == ("bert", 8)
    kept = load(
        "finetune",
        [
            "+recipe=bert_textcls",
            "smoke=true",
            "trainer.max_steps=3",
            "dataset=csv",
            "dataset.train=x.csv",
            "model.path=m",
        ],
    )
    assert (kept.trainer.max_steps, kept.dataset.train, kept.model.path) == (3, "x.csv", "m")
    assert load("finetune", ["model=distilbert", "smoke=true"]).model.architecture == "distilbert"


def test_a_path_of_my_own_brings_nothing_of_the_old_one(write: Callable[[str, str], Path]) -> None:
    write("recipes/mine.yaml", "# @package _global_\ndefaults: [bert_textcls, _self_]\nmodel: {path: a/my-bert}\n")
    for words in (["+recipe=mine"], ["+recipe=bert_textcls", "model.path=a/my-bert"], ["model.path=a/my-bert/"]):
        model = load("finetune", words).model
        assert (model.name, model.sha256, model.architecture) == ("my-bert", None, None)
    again = load("finetune", ["+recipe=mine", "model.path=b", "model.name=other", "model.architecture=bert"]).model
    assert (again.path, again.name, again.architecture) == ("b", "other", "bert")


def test_a_path_brings_its_own_sizes_and_a_run_says_its_architecture(write: Callable[[str, str], Path]) -> None:
    write("run/model/config.json", '{"model_type": "gpt2"}')
    write("recipes/mine.yaml", "# @package _global_\ndefaults: [gpt_clm, _self_]\nmodel: {path: run}\n")
    for words in (["+recipe=gpt_clm", "model.path=run"], ["+recipe=mine"]):
        model = load("pretrain", words).model
        assert (model.architecture, model.config, model.init, model.first_weights) == ("gpt2", {}, None, "pretrained")
    assert load("pretrain", ["+recipe=gpt_clm", "model.path=run", "model.config.n_layer=2"]).model.config == {
        "n_layer": 2
    }
    assert load("pretrain", ["+recipe=gpt_clm", "model.path=run", "model.init=random"]).model.first_weights == "random"
    small = load("pretrain", ["+recipe=mine", "smoke=true"])
    assert (small.model.path, small.model.architecture, small.task.block) == (None, "gpt2", 32)


def test_smoke_forgets_what_is_said_of_my_own_rows() -> None:
    words = [
        "+recipe=tabular_mlp",
        "smoke=true",
        "task.categories=[zip]",
        "task.labels=[1, yes]",
        "trainer.eval_every=4",
        "trainer.save_every=4",
    ]
    config = load("finetune", words)
    assert (config.task.labels, config.task.categories) == (None, [])
    assert load("finetune", ["smoke=true", "model.config={hidden_dropout_prob:0}"]).model.config["hidden_size"] == 32


@pytest.mark.parametrize(
    ("line", "key"), [("labels: [yes, no]", "labels"), ("class_weights: {no: 2}", "class_weights")]
)
def test_what_yaml_has_read_as_true_or_false_is_no_label(line: str, key: str, write: Callable[..., Path]) -> None:
    recipe = "# @package _global_\ndefaults:\n  - override /task: text_classification\ntask:\n  "
    write("recipes/mine.yaml", recipe + line + "\n")
    with pytest.raises(UserError, match=rf"task\.{key}  .*YAML reads yes, no, on and off .* \(recipes/mine.yaml:5\)"):
        load("finetune", ["+recipe=mine"])
    write("recipes/mine.yaml", recipe + line.replace("yes", "'yes'").replace("no", "'no'") + "\n")
    task = load("finetune", ["+recipe=mine"]).task
    assert (task.labels, task.class_weights) == ((["yes", "no"], None) if key == "labels" else (None, {"no": 2.0}))


IMPORTS = """
import sys
from llmft.cli import main
code = main({words})
sys.exit(code or len({{'torch', 'transformers', 'datasets'}} & set(sys.modules)))
"""
COMMANDS = {
    "--help": (["--help"], 0.35),
    "finetune --help": (["finetune", "--help"], 0.35),
    "recipes": (["recipes"], 0.35),
    "a Tab": (["completion", "words", "finetune", "optimizer."], 0.2),
    "--cfg job": (["finetune", "+recipe=bert_textcls", "--cfg", "job"], 0.75),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_words_alone_import_no_torch(name: str) -> None:
    subprocess.run(
        [sys.executable, "-c", IMPORTS.format(words=COMMANDS[name][0])], check=True, stdout=subprocess.DEVNULL
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_words_alone_are_quick(name: str) -> None:
    """Processor time of the fastest of ten whole processes.

    The limit is for a core that imports Hydra in 0.25 s. A slower or busy one gets more, by what Hydra takes there.
    """
    words, limit = COMMANDS[name]
    ours, hydras = [], []
    for _ in range(10):
        hydras.append(cpu_seconds("-c", "import hydra"))
        ours.append(cpu_seconds("-m", "llmft", *words))
        if min(ours) < limit * max(1.0, min(hydras) / 0.25):
            return
    pytest.fail(
        f"llmft {name} took {min(ours):.2f} s at best, Hydra's import {min(hydras):.2f} s; the limit is {limit} s"
    )


def cpu_seconds(*words: str) -> float:
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize(
    ("words", "tokenizer"),
    [
        ([], {"kind": "bpe", "size": 300}),
        (["model.tokenizer=some/folder"], {"path": "some/folder"}),
        (["model.tokenizer.path=some/folder"], {"path": "some/folder", "kind": "bpe", "size": 300}),
        (["model.tokenizer=null"], {}),
        (["model.tokenizer.size=400"], {"kind": "bpe", "size": 400}),
        (
            ["model.tokenizer={kind: characters, special: ['[A]', 'é']}"],
            {"kind": "characters", "size": 300, "special": ["[A]", "é"]},
        ),
    ],
)  # fmt: skip
def test_a_tokenizer_is_a_table_or_its_path(
    words: list[str], tokenizer: dict[str, Any], write: Callable[[str, str], Path]
) -> None:
    recipe = """# @package _global_
defaults: [bert_textcls, override /model: random, _self_]
model: {architecture: bert, tokenizer: {kind: bpe, size: 300}}
"""
    write("recipes/own.yaml", recipe)
    found = load("finetune", ["+recipe=own", *words]).model.tokenizer
    assert found.model_dump(exclude_unset=True) == tokenizer
