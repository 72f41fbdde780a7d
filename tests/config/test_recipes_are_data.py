"""A recipe comes from anybody: whatever could run code, read the environment or write elsewhere is refused."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]

TARGET = "{_target_: pathlib.Path.touch, self: CANARY}"
DECODED = f"\"${{oc.decode:'{{x: {TARGET}}}'}}\""
FORMS = {
    "a target under the key hydra": f"# @package _global_\nhydra:\n  callbacks:\n    x: {TARGET}\n",
    "decoded text under the key hydra": f"# @package _global_\nhydra:\n  callbacks: {DECODED}\n",
    "the package hydra": f"# @package hydra\ncallbacks: {DECODED}\n",
    "a package inside hydra": f"# @package hydra.callbacks\nx: {DECODED}\n",
    "a target anywhere": f"# @package _global_\nmodel:\n  config: {TARGET}\n",
    "a target in a list": "# @package _global_\nmodel:\n  config:\n    a: [{_target_: os.system}]\n",
    "the environment": "# @package _global_\nname: ${oc.env:HOME}\n",
    "a resolver inside a text": "# @package _global_\nname: x${oc.env:HOME}\n",
    "a resolver whose name is put together": "# @package _global_\nname: ${oc.${dataset.name}:HOME}\ndataset: {name: env}\n",
    "code that comes with a model": "# @package _global_\nmodel: {path: evil, trust_remote_code: true}\n",
    "an option placed into hydra": "# @package _global_\ndefaults:\n  - /model@hydra.callbacks: minilm\n",
    "an option of hydra": "# @package _global_\ndefaults:\n  - override /hydra/launcher: basic\n",
    "an option outside the folder": "# @package _global_\ndefaults:\n  - ../../secret\n",
    "the search path": "# @package _global_\nhydra:\n  searchpath: [file:///tmp]\n",
    "the environment of the job": "# @package _global_\nhydra:\n  job:\n    env_set: {A: b}\n",
    "a sweeper of its own": "# @package _global_\nhydra:\n  sweeper: {_target_: x.Y}\n",
    "hydra as a whole": "# @package _global_\nhydra: ${model}\n",
    "another package": "# @package model\nname: x\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_x2_a_recipe_that_is_more_than_data_is_refused(
    form: str, llmft: Run, write: Callable[[str, str], Path], here: Path
) -> None:
    write("recipes/evil.yaml", FORMS[form].replace("CANARY", str(here / "canary")))
    code, out, err = llmft("finetune", "+recipe=evil", "--cfg", "job")
    assert code == 2, out
    assert "problem" in err
    assert "recipes/evil.yaml" in err
    assert os.environ["HOME"] not in err.replace(str(here), "")
    assert not (here / "canary").exists()


@pytest.mark.parametrize(
    "word",
    [
        "model.config._target_=os.system",
        "+x={_target_:os.system}",
        "name=${oc.env:HOME}",
        "name=${oc.${dataset.name}:HOME}",
        "++hydra.callbacks.x._target_=os.system",
    ],
)
def test_x2_the_command_line_holds_no_code_either(word: str, llmft: Run) -> None:
    code, _, err = llmft("finetune", word)
    assert code == 2
    assert os.environ["HOME"] not in err


def test_plain_references_are_data(llmft: Run, write: Callable[[str, str], Path]) -> None:
    write(
        "recipes/ref.yaml",
        "# @package _global_\nname: ref\nscheduler:\n  warmup_ratio: 0\n  warmup_steps: ${trainer.batch_size}\n",
    )
    code, out, _ = llmft("finetune", "+recipe=ref", "trainer.batch_size=7", "--cfg", "job")
    assert code == 0
    assert "warmup_steps: 7" in out


SECRETS = [
    ("model.config.hub_token=hf_aaaaaaaaaaaaaaaaaaaaaaaa", "hf_aaaaaaaaaaaaaaaaaaaaaaaa"),
    ("+token=mysecretvalue", "mysecretvalue"),
    ("model.config.api_key=mysecretvalue", "mysecretvalue"),
    ("dataset.name=hf_bbbbbbbbbbbbbbbbbbbbbbbb", "hf_bbbbbbbbbbbbbbbbbbbbbbbb"),
    ("dataset.train=https://me:hunter22@x.org/a.csv", "hunter22"),
    ("model.config={password:mysecretvalue}", "mysecretvalue"),
    ("model.config.huggingface_token=mysecretvalue", "mysecretvalue"),
    ("dataset.name=github_pat_11AAAAAAA0123456789abcdef", "github_pat_11AAAAAAA0123456789abcdef"),
    ("dataset.name=AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLE"),
    ("dataset.path=https://x.org/a?token=abcdef", "abcdef"),
]


@pytest.mark.parametrize(("word", "secret"), SECRETS)
def test_x5_a_secret_is_refused_and_not_repeated(word: str, secret: str, llmft: Run, here: Path) -> None:
    code, out, err = llmft("finetune", "+recipe=bert_textcls", word)
    assert code == 2
    assert "looks like a secret" in err
    assert secret not in out + err
    assert list(here.iterdir()) == []


def test_a_flag_with_a_secret_is_not_repeated(llmft: Run) -> None:
    code, out, err = llmft("finetune", "--token=mysecretvalue")
    assert code == 2
    assert "mysecretvalue" not in out + err


def test_words_of_a_tokenizer_are_no_secrets(llmft: Run) -> None:
    assert "looks like a secret" not in llmft("finetune", "model.config.pad_token=x", "--cfg", "job")[2]


def test_a_secret_in_a_recipe_is_refused(llmft: Run, write: Callable[[str, str], Path]) -> None:
    write("recipes/leaky.yaml", "# @package _global_\nmodel:\n  config: {hub_token: abcdefgh}\n")
    code, _, err = llmft("finetune", "+recipe=leaky")
    assert code == 2
    assert "model.config.hub_token" in err
    assert "abcdefgh" not in err


CLIMBS = [
    ("../outside", True),
    ("/tmp/outside", True),
    ("a/../../outside", True),
    ("inside/run", False),
]


@pytest.mark.parametrize(("folder", "refused"), CLIMBS)
def test_x4_a_recipe_may_not_write_elsewhere(
    folder: str, refused: bool, llmft: Run, write: Callable[[str, str], Path]
) -> None:
    write("recipes/r.yaml", f"# @package _global_\nrun:\n  dir: {folder}\n")
    code, _, err = llmft("finetune", "+recipe=r", "--cfg", "job")
    assert (code == 2) is refused
    assert ("must be inside the working directory" in err) is refused


def test_x4_a_recipe_may_not_write_through_a_link(llmft: Run, write: Callable[[str, str], Path], here: Path) -> None:
    (here / "link").symlink_to("/tmp")
    write("recipes/r.yaml", "# @package _global_\nrun:\n  dir: link/run\n")
    code, _, err = llmft("finetune", "+recipe=r", "--cfg", "job")
    assert code == 2
    assert "a link leads" in err


def test_a_recipe_without_a_header_is_for_the_whole_configuration_and_still_data(
    llmft: Run, write: Callable[[str, str], Path]
) -> None:
    write("recipes/bare.yaml", "name: bare\noptimizer: {lr: 0.5}\n")
    assert llmft("finetune", "+recipe=bare", "--cfg", "job=optimizer.lr") == (0, "optimizer.lr: 0.5\n", "")
    write("recipes/evil.yaml", f"model:\n  config: {TARGET}\n")
    code, _, err = llmft("finetune", "+recipe=evil", "--cfg", "job")
    assert code == 2
    assert "names code to run" in err
