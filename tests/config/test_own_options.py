"""Options and recipes of one's own: ./configs, --config-dir, recipes in folders; through one gate, as data."""

from collections.abc import Callable
from pathlib import Path

import pytest

from llmft.config.compose import compose
from llmft.config.diff import shorten
from llmft.config.folders import config_dir, options, recipes
from llmft.config.load import checked, load
from llmft.front.completion import complete
from llmft.front.explain import run as explain
from llmft.schema.problem import UserError

Run = Callable[..., tuple[int, str, str]]
Write = Callable[[str, str], Path]
MINE = "# optimizer=mine: slow and steady.\nname: sgd\nlr: 0.25\n"


def test_an_option_of_my_own(write: Write, llmft: Run) -> None:
    write("configs/optimizer/mine.yaml", MINE)
    assert load("finetune", ["optimizer=mine"]).optimizer.lr == 0.25
    assert load("finetune", ["+recipe=bert_textcls", "optimizer=mine"]).optimizer.lr == 0.25, "in place of the recipe's"
    assert "  optimizer=mine       slow and steady.\n" in llmft("help", "optimizer")[1]
    assert llmft("help", "optimizer=mine")[1] == MINE
    assert "optimizer=mine       0.25" in llmft("help", "optimizer.lr")[1]
    assert complete(["finetune", "optimizer=mi"]) == ["optimizer=mine"]
    assert explain(["optimizer.lr", "optimizer=mine"])[0]["set"][-1]["place"] == "configs/optimizer/mine.yaml:3"
    write("recipes/r.yaml", "defaults: [override /optimizer: mine]\nseed: 4\n")
    assert load("finetune", ["+recipe=r"]).optimizer.name == "sgd"


def test_mine_comes_before_the_shipped_one_and_starts_from_another(write: Write) -> None:
    write("configs/optimizer/adamw.yaml", "defaults: [lion, _self_]\nlr: 0.5\n")
    found = load("finetune", []).optimizer
    assert (found.name, found.lr, found.weight_decay) == ("lion", 0.5, load("finetune", ["optimizer=lion"]).optimizer.weight_decay)  # fmt: skip
    assert load("finetune", ["optimizer=lion"]).optimizer.lr == 1e-5
    write("configs/optimizer/ref.yaml", "name: sgd\nmomentum: 0.5\nlr: ${.momentum}\n")
    assert load("finetune", ["optimizer=ref"]).optimizer.lr == 0.5
    assert load("finetune", ["+recipe=bert_textcls", "optimizer=ref", "optimizer.momentum=0.25"]).optimizer.lr == 0.25


def test_a_model_of_my_own_is_known_by_its_folder(write: Write) -> None:
    write("weights/config.json", '{"model_type": "bert"}')
    write("configs/model/ours.yaml", "path: weights\n")
    model = load("finetune", ["model=ours"]).model
    assert (model.path, model.name, model.architecture) == ("weights", "weights", "bert")


@pytest.mark.parametrize("flags", [["--config-dir", "lab"], ["-cd=lab"]])
def test_a_folder_by_a_flag_comes_first(flags: list[str], write: Write, llmft: Run) -> None:
    write("lab/optimizer/mine.yaml", MINE)
    write("lab/recipe/exp/one.yaml", "# Try it.\ndefaults: [override /optimizer: mine]\nname: one\n")
    write("configs/optimizer/mine.yaml", MINE.replace("0.25", "0.125"))
    code, out, err = llmft("finetune", *flags, "+recipe=exp/one", "--cfg", "job=optimizer.lr")
    assert (code, out) == (0, "optimizer.lr: 0.25\n"), err
    assert llmft("finetune", "optimizer=mine", "--cfg", "job=optimizer.lr")[1] == "optimizer.lr: 0.125\n"
    assert "exp/one\n    Try it.\n" in llmft("recipes", *flags)[1]
    assert "exp/one" not in llmft("recipes")[1]
    assert "slow and steady" in llmft("help", "optimizer=mine", *flags)[1]
    assert "lab/optimizer/mine.yaml:3" in llmft("explain", "optimizer.lr", "optimizer=mine", *flags)[1]
    assert complete(["finetune", *flags, "+recipe=ex"]) == ["+recipe=exp/one"]
    assert complete(["finetune", "--config-dir", "la"]) == ["lab/"]
    assert llmft("completion", "words", "finetune", "-cd", "la") == (0, "lab/\n", "")


def test_a_short_recipe_does_without_the_folder_of_a_flag(write: Write) -> None:
    write("lab/optimizer/mine.yaml", MINE)
    with config_dir(["-cd", "lab", "optimizer=mine"]) as words:
        text = shorten("finetune", words)(checked("finetune", compose("finetune", words)))
    assert "optimizer: mine" not in text
    write("again.yaml", text)
    assert load("finetune", ["again.yaml"]).optimizer.lr == 0.25


def test_recipes_in_folders(write: Write, llmft: Run, here: Path) -> None:
    write("recipes/team/base.yaml", "# Shared.\nseed: 3\nname: base\n")
    write("recipes/team/sub/exp1.yaml", "defaults: [bert_textcls, team/base, _self_]\nname: exp1\n")
    for word in ("+recipe=team/sub/exp1", "recipes/team/sub/exp1.yaml"):
        config = load("finetune", [word])
        assert (config.seed, config.name, config.optimizer.lr) == (3, "exp1", 1e-4)
    assert {"team/base", "team/sub/exp1"} < set(recipes())
    assert "team/base\n    Shared.\n" in llmft("recipes")[1]
    assert llmft("recipes", "show", "team/base")[1] == "# Shared.\nseed: 3\nname: base\n"
    assert "llmft finetune +recipe=team/base" in llmft("help", "team/base")[1]
    assert complete(["finetune", "+recipe=team/"]) == ["+recipe=team/base", "+recipe=team/sub/exp1"]
    assert "+recipe=team/new\n" in llmft("recipes", "copy", "bert_ner", "team/new")[1]
    assert load("finetune", ["+recipe=team/new"]).task.name == "token_classification"
    code, _, err = llmft("finetune", "+recipe=team/bas")
    assert code == 2
    assert "Did you mean team/base?" in err


TARGET = "{_target_: pathlib.Path.touch, self: CANARY}"
EVIL = {
    "a target": (f"name: sgd\nbetas: {TARGET}\n", "betas._target_  names code to run"),
    "a resolver": ("name: ${oc.env:HOME}\n", "name  calls a resolver"),
    "a put together resolver": ("name: ${oc.${.x}:HOME}\nx: env\n", "name  calls a resolver"),
    "another package": ("# @package _global_\nseed: 3\n", "must be optimizer: an option of a group only sets its own keys"),
    "the package hydra": (f"# @package hydra.callbacks\nx: {TARGET}\n", "must be optimizer: an option of a group only sets its own keys"),
    "two packages": ("# @package a b\nname: sgd\n", "# @package  Too many components"),
    "an option elsewhere": ("defaults: [/model/minilm]\n", "an option of optimizer can only include options of optimizer"),
    "an override": ("defaults:\n  - override /model: minilm\n", "an option of optimizer can only include options of optimizer"),
    "a folder above": ("defaults: [../model/minilm]\n", "reaches outside"),
    "another place": ("defaults: [lion@hydra.callbacks]\n", "reaches outside"),
    "hydra's own": ("hydra: {mode: MULTIRUN}\nname: sgd\n", "optimizer.hydra  no such key (configs/optimizer/evil.yaml:1)"),
    "an unknown key": ("name: sgd\nlrr: 3\n", "optimizer.lrr  no such key (configs/optimizer/evil.yaml:2). Did you mean optimizer.lr?"),
    "a wrong value": ("name: sgd\nlr: -1\n", "must be above 0, got -1 (configs/optimizer/evil.yaml:2)"),
    "a wrong reference": ("name: sgd\nlr: ${nope}\n", "${nope} refers to no key (configs/optimizer/evil.yaml:2)"),
    "a circle": ("name: sgd\nlr: ${.momentum}\nmomentum: ${.lr}\n", "refers to itself"),
    "a secret": ("name: sgd\napi_key: abcdefgh\n", "optimizer.api_key  looks like a secret"),
    "itself": ("defaults: [evil]\n", "includes itself"),
    "a list": ("- a\n", "must contain lines of key: value"),
    "no YAML": ("a: [1", "is not YAML"),
    "an object": ("name: !!python/name:os.system\n", "is not YAML"),
}  # fmt: skip


@pytest.mark.parametrize("form", EVIL)
def test_an_option_that_is_more_than_data_or_wrong_is_refused(form: str, llmft: Run, write: Write, here: Path) -> None:
    text, what = EVIL[form]
    write("configs/optimizer/evil.yaml", text.replace("CANARY", str(here / "canary")))
    code, out, err = llmft("finetune", "optimizer=evil", "--cfg", "job")
    assert (code, out) == (2, "")
    assert what in err
    assert "Traceback" not in err
    assert "abcdefgh" not in err
    assert not (here / "canary").exists()


def test_code_that_comes_with_a_model_is_refused(llmft: Run, write: Write) -> None:
    write("configs/model/evil.yaml", "path: x\ntrust_remote_code: true\n")
    code, _, err = llmft("finetune", "model=evil", "--cfg", "job")
    assert code == 2
    assert "(configs/model/evil.yaml:2)" in err


def test_files_of_code_are_never_run(llmft: Run, write: Write, here: Path) -> None:
    code = f"import pathlib; pathlib.Path({str(here / 'canary')!r}).touch()\n"
    for name in ("__init__.py", "evil.py", "sitecustomize.py"):
        write(f"configs/optimizer/{name}", code)
        write(f"lab/optimizer/{name}", code)
    write("configs/__init__.py", code)
    write("configs/optimizer/mine.yaml", MINE)
    assert load("finetune", ["optimizer=mine"]).optimizer.lr == 0.25
    assert llmft("finetune", "optimizer=evil")[0] == 2
    assert (
        "optimizer=evil  is code, evil.py; options and recipes must be data" in llmft("finetune", "optimizer=evil")[2]
    )
    status, _, err = llmft("finetune", "--config-dir", "lab", "optimizer=evil")
    assert status == 2
    assert "--config-dir lab  contains code, optimizer/" in err
    assert not (here / "canary").exists()


def test_a_folder_that_is_none(llmft: Run, write: Write) -> None:
    write("file", "")
    for words in (["--config-dir", "nosuch"], ["-cd=file"], ["--config-dir"]):
        code, _, err = llmft("finetune", "+recipe=bert_textcls", *words)
        assert code == 2
        assert "no such folder (command line). Write --config-dir DIR" in err


@pytest.mark.parametrize("name", ["../outside/x", "team/../../outside/x", "link/x", "x"])
@pytest.mark.parametrize("group", ["recipe", "optimizer"])
def test_what_climbs_out_is_refused(name: str, group: str, llmft: Run, write: Write, here: Path) -> None:
    outside = write("outside/x.yaml", "name: sgd\nlr: 0.75\n")
    folder = here / ("recipes" if group == "recipe" else "configs/optimizer")
    (folder / "team").mkdir(parents=True)
    (folder / "link").symlink_to(outside.parent)
    (folder / "x.yaml").symlink_to(outside)
    word = f"{'+' if group == 'recipe' else ''}{group}={name}"
    code, out, err = llmft("finetune", word, "--cfg", "job")
    assert (code, out) == (2, "")
    assert (
        ("leads out of the folder" in err)
        if ".." in name
        else ("by a link that leads out of" in err or group != "recipe")
    )
    assert "0.75" not in err
    assert not {"x", "link/x"} & {*recipes(), *options("optimizer")}
    if group == "recipe":
        write("recipes/starts.yaml", f"defaults: [{name}, _self_]\n")
        assert llmft("finetune", "+recipe=starts", "--cfg", "job")[0] == 2


def test_folders_of_other_tools_are_left_alone(write: Write) -> None:
    write("configs/config.yaml", "a: [1")
    write("configs/finetune.yaml", "evil: true\n")
    write("configs/db/mysql.yaml", "port: 3\n")
    assert load("finetune", ["+recipe=bert_textcls"]).command == "finetune"
    with pytest.raises(UserError, match="db  no such key"):
        load("finetune", ["db=mysql"])


def test_code_names_the_folder_as_the_command_line_does(write: Write) -> None:
    import llmft

    write("lab/optimizer/mine.yaml", MINE)
    with pytest.raises(UserError, match=r"optimizer\.lrr"):
        llmft.finetune("--config-dir", "lab", "optimizer=mine", "optimizer.lrr=1")
    with pytest.raises(UserError, match="no such optimizer"):
        llmft.finetune("optimizer=mine")
