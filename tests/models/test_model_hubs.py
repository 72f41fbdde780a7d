"""Models of ModelScope, by a module that stands in for its package, and the ways out where there is no network."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import BertConfig, BertModel

from llmft.models.build import build
from llmft.models.model_files import PICKLES, from_modelscope, locate
from llmft.models.tokenizers import load, train
from llmft.schema.model import ModelConfig, TokenizerConfig
from llmft.schema.problem import UserError


@pytest.fixture
def asked(here: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the package is asked for; it has `someone/bert`, and no other model."""
    found: list[tuple[Any, ...]] = []
    tokenizer = train(["some words"], TokenizerConfig(size=40))
    config = BertConfig(vocab_size=40, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    BertModel(config).save_pretrained(here / "cache/bert")
    tokenizer.save_pretrained(here / "cache/bert")
    (here / "cache/bert/small.gguf").write_bytes(b"GGUF")

    def snapshot(name: str, **how: Any) -> str:
        found.append((name, how))
        if name != "someone/bert":
            raise OSError("The request model: nobody/nothing does not exist!\nmore")
        return str(here / "cache/bert")

    module = SimpleNamespace(snapshot_download=snapshot, dataset_snapshot_download=snapshot)
    monkeypatch.setitem(sys.modules, "modelscope", module)
    monkeypatch.setattr("llmft.models.model_files.missing_package", lambda *_: [])
    return found


def test_a_model_comes_from_modelscope(asked: list[tuple[Any, ...]]) -> None:
    model = ModelConfig(path="someone/bert", hub="modelscope", revision="v1")
    assert build(model, "AutoModelForSequenceClassification", {"num_labels": 2}).config.hidden_size == 8
    assert len(load(model, [])) <= 40
    assert {(name, how["revision"], tuple(how["ignore_patterns"])) for name, how in asked} == {
        ("someone/bert", "v1", tuple(PICKLES))
    }


def test_what_lies_here_is_not_asked_for(asked: list[tuple[Any, ...]], here: Path) -> None:
    assert locate(str(here / "cache/bert"), "model.path", "modelscope").name == str(here / "cache/bert")
    assert asked == []
    assert locate("someone/bert/small.gguf", "model.path", "modelscope").gguf == str(here / "cache/bert/small.gguf")
    assert asked[0][1]["allow_patterns"] == "small.gguf"


def test_what_it_does_not_give_is_said_in_a_line(asked: list[tuple[Any, ...]]) -> None:
    for kind in ("model", "dataset"):
        with pytest.raises(UserError) as error:
            from_modelscope("nobody/nothing", f"{kind}.path", None, kind)  # type: ignore[arg-type]
        assert "modelscope.cn did not give it: The request model: nobody/nothing does not exist!" in str(error.value)
        assert f"modelscope download --{kind} nobody/nothing --local_dir DIR; then write {kind}.path=DIR" in str(
            error.value
        )


def test_without_the_package_it_says_how_to_get_it() -> None:
    with pytest.raises(UserError, match=r"modelscope needs the package modelscope.*pip install 'llmft\[modelscope\]'"):
        from_modelscope("someone/bert", "model.path", None)


def test_without_a_network_mirrors_are_named() -> None:
    with pytest.raises(UserError, match=r"HF_ENDPOINT=URL of a mirror, or model\.hub=modelscope"):
        build(ModelConfig(path="someone/else"), "AutoModelForSequenceClassification", {"num_labels": 2})
