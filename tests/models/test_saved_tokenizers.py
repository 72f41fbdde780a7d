"""A tokenizer that was trained here comes back as it was, whatever architecture stands beside it."""

import json
from functools import cache
from pathlib import Path

import pytest
from transformers import CONFIG_MAPPING, AutoConfig, AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.auto import tokenization_auto

from llmft.models import tokenizers
from llmft.models.tokenizers import train
from llmft.schema.model import ModelConfig, TokenizerConfig
from llmft.tasks.tokenizer import load_saved

TEXTS = [
    "Ünder the  bridge, a Cat sat 12 times!",
    "naïve façades; don't  STOP\tnow",
    "雨が降る 天气很好",
    "x = f(a_b) + 10",
]
KINDS = ("wordpiece", "bpe", "unigram", "characters")
# Architectures whose class transformers makes whatever was saved.
STUBBORN = sorted({*tokenization_auto.MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS} & {*CONFIG_MAPPING})


@cache
def trained(kind: str) -> PreTrainedTokenizerFast:
    return train(TEXTS * 3, TokenizerConfig.model_validate({"kind": kind, "size": 500, "lowercase": False}))


def ids(tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
    found: list[list[int]] = tokenizer(TEXTS, padding=False)["input_ids"]
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_it_comes_back_beside_every_architecture(kind: str, here: Path) -> None:
    trained(kind).save_pretrained(here / "model")
    config = here / "model/config.json"
    for architecture in CONFIG_MAPPING if kind == "bpe" else {*STUBBORN, "bert", "t5", "llama", "mistral", "xlnet"}:
        config.write_text(json.dumps({"model_type": architecture}))
        assert ids(load_saved(here / "model")) == ids(trained(kind)), architecture
    for architecture in ("qwen2", "siglip2"):  # as `model.path` of the next run
        config.write_text(json.dumps({"model_type": architecture}))
        assert ids(tokenizers.load(ModelConfig(path=str(here / "model")), [])) == ids(trained(kind))


def test_what_others_would_load_is_said_where_it_differs(here: Path) -> None:
    assert "qwen2" in STUBBORN
    said = tokenizers.as_others_load(trained("wordpiece"), AutoConfig.for_model("qwen2"), TEXTS)
    assert said is not None
    assert said.startswith("AutoTokenizer of transformers makes another tokenizer of this run's, a Qwen2Tokenizer")
    assert tokenizers.as_others_load(trained("wordpiece"), AutoConfig.for_model("bert"), TEXTS) is None
    trained("wordpiece").save_pretrained(here / "model")
    (here / "model/config.json").write_text('{"model_type": "qwen2"}')
    assert ids(AutoTokenizer.from_pretrained(here / "model")) != ids(trained("wordpiece"))  # why all this is needed
    assert ids(PreTrainedTokenizerFast.from_pretrained(here / "model")) == ids(trained("wordpiece"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_of_ones_own_is_whole(kind: str, here: Path) -> None:
    own = TokenizerConfig.model_validate({"kind": kind, "size": 500, "special": ["[DRUG]"]})
    new = train(TEXTS, own)
    trained(kind).save_pretrained(here / "old")
    (here / "old/config.json").write_text('{"model_type": "bert"}')
    added = tokenizers.load(
        ModelConfig.model_validate({"path": str(here / "old"), "tokenizer": {"special": ["[DRUG]"]}}), []
    )
    assert len(added) == len(trained(kind)) + 1
    for tokenizer in (new, added):
        found = tokenizer("a [DRUG] b [SEP]", split_special_tokens=True, add_special_tokens=False)["input_ids"]
        assert tokenizer.convert_tokens_to_ids("[DRUG]") in found
        assert tokenizer.sep_token_id not in found  # letters, as before
        assert kind not in ("bpe", "unigram") or tokenizer.decode(found).endswith("b [SEP]")
        tokenizer.save_pretrained(here / "again")
        again = load_saved(here / "again")
        assert again("a [DRUG] b", split_special_tokens=True)["input_ids"] == tokenizer("a [DRUG] b")["input_ids"]
