"""The parts of a model, and which of them stay as they are."""

import copy
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from llmft.models.layers import freeze, layer_depths, parts, unfreeze_epochs
from llmft.models.table_models import MLPConfig, MLPForClassification
from llmft.reporting.trains import trains
from llmft.schema.problem import UserError


def tiny(architecture: str, **more: Any) -> PreTrainedModel:
    """Four layers of an architecture, where nothing else is said."""
    config = AutoConfig.for_model(architecture)
    sizes = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "vocab_size": 20, "num_labels": 2}
    sizes = {config.attribute_map.get(key, key): value for key, value in sizes.items()} | more
    special = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    return AutoModelForSequenceClassification.from_config(type(config)(**sizes, **special))


LAYERS = [f"layers.{i}" for i in range(4)]
PARTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "bert": ({}, ["embeddings", *LAYERS, "pooler", "classifier"]),
    "distilbert": ({}, ["embeddings", *LAYERS, "pre_classifier", "classifier"]),
    "xlm-roberta": ({}, ["embeddings", *LAYERS, "classifier"]),
    "albert": ({"embedding_size": 8}, ["embeddings", "layers.0", "pooler", "classifier"]),  # all share one
    "electra": ({"embedding_size": 8}, ["embeddings", *LAYERS, "classifier"]),
    "deberta-v2": ({"relative_attention": True}, ["embeddings", *LAYERS, "pooler", "classifier"]),
    "mpnet": ({}, ["embeddings", *LAYERS, "classifier"]),
    "gpt2": ({}, ["embeddings", *LAYERS, "ln_f", "score"]),
    "llama": ({"num_key_value_heads": 2}, ["embeddings", *LAYERS, "norm", "score"]),
    "xlm": ({}, ["embeddings", *LAYERS, "sequence_summary"]),  # two lists of halves of layers
    "xlnet": ({}, ["embeddings", *LAYERS, "sequence_summary", "logits_proj"]),
    "bart": (
        {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2},
        ["embeddings", *LAYERS, "classification_head"],
    ),
}


@pytest.mark.parametrize("architecture", PARTS)
def test_every_weight_is_in_one_part(architecture: str) -> None:
    more, names = PARTS[architecture]
    model = tiny(architecture, **more)
    found = parts(model)
    assert [part.name for part in found] == names
    weights = [name for part in found for name in part.parameters]
    assert sorted(weights) == sorted(name for name, _ in model.named_parameters())
    heights, top = layer_depths(model)
    assert {heights[name] for name in found[0].parameters} == {0}
    assert {heights[name] for name in found[-1].parameters} == {top}


def test_a_model_without_layers_has_its_outermost_modules() -> None:
    model = MLPForClassification(MLPConfig(num_numbers=2, category_sizes=[3]))
    assert [part.name for part in parts(model)] == ["embeddings", "layers", "classifier"]


PATTERNS: dict[str, tuple[list[str], set[str]]] = {
    "a part": (["embeddings"], {"embeddings"}),
    "layers by range": (["embeddings", "layers.0-2"], {"embeddings", "layers.0", "layers.1", "layers.2"}),
    "a range that ends beyond the last": (["layers.3-11"], {"layers.3"}),
    "all layers": (["layers"], set(LAYERS)),
    "layers by pattern": (["layers.[02]"], {"layers.0", "layers.2"}),
    "the encoder": (["encoder"], {"embeddings", *LAYERS, "pooler"}),
    "a module by its name": (["bert.pooler"], {"pooler"}),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_freezes_what_it_names(name: str) -> None:
    patterns, names = PATTERNS[name]
    model = tiny("bert")
    freeze(model, patterns)
    frozen = {part.name for part in parts(model) if not any(p.requires_grad for p in part.parameters.values())}
    assert frozen == names


def test_weights_are_frozen_by_name() -> None:
    model = tiny("bert")
    freeze(model, ["*.LayerNorm"])
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if "LayerNorm" in name}
    layer = parts(model)[1]
    assert layer.name == "layers.0"
    training = sum(p.numel() for name, p in layer.parameters.items() if "LayerNorm" not in name)
    assert trains(model)[1] == {
        "part": "layers.0-3",
        "parameters": 4 * layer.size,
        "trains": f"{training:,} of them train",
    }


WRONG = {
    "layer.0": "must name parts or weights of the model, got layer.0. Did you mean layers.0? The model has embeddings, layers.0-3, pooler, classifier",
    "layers.4-7": "must name parts or weights of the model, got layers.4-7",
    "*": "must leave something to train",
}


@pytest.mark.parametrize("pattern", WRONG)
def test_a_pattern_that_is_wrong_is_explained(pattern: str) -> None:
    with pytest.raises(UserError) as error:
        freeze(tiny("bert"), [pattern])
    assert f"model.freeze  {WRONG[pattern]}" in str(error.value)


def test_nothing_is_dropped_out_below_all_that_trains() -> None:
    model = tiny("bert", hidden_dropout_prob=0.5)
    freeze(model, ["embeddings", "layers.0-1", "layers.3"])
    model = copy.deepcopy(model).train()
    batch = {"input_ids": torch.ones(2, 5, dtype=torch.long)}
    hidden = [list(model(**batch, output_hidden_states=True).hidden_states) for _ in range(2)]
    same = [torch.equal(a, b) for a, b in zip(*hidden, strict=True)]
    assert same == [True, True, True, False, False], "layer 3 is frozen too, but layer 2 below it trains"
    assert [layer.training for layer in model.bert.encoder.layer] == [False, False, True, True]


def test_layers_begin_to_train_from_the_top() -> None:
    model = tiny("bert")
    one, two = unfreeze_epochs(model, 1), unfreeze_epochs(model, 2)
    assert one == {
        "embeddings": 5,
        "layers.0": 4,
        "layers.1": 3,
        "layers.2": 2,
        "layers.3": 1,
        "pooler": 0,
        "classifier": 0,
    }
    assert two == {
        "embeddings": 3,
        "layers.0": 2,
        "layers.1": 2,
        "layers.2": 1,
        "layers.3": 1,
        "pooler": 0,
        "classifier": 0,
    }
    with pytest.raises(UserError, match=r"model.unfreeze  MLPForClassification has no numbered layers"):
        unfreeze_epochs(MLPForClassification(MLPConfig()), 1)


def test_what_trains_is_a_line_a_part() -> None:
    model = tiny("bert")
    freeze(model, ["embeddings", "layers.0-1", "bert.pooler.dense.bias"])
    sizes = {part.name: part.size for part in parts(model)}
    assert trains(model) == [
        {"part": "embeddings", "parameters": sizes["embeddings"], "trains": "frozen"},
        {"part": "layers.0-1", "parameters": 2 * sizes["layers.0"], "trains": "frozen"},
        {"part": "layers.2-3", "parameters": 2 * sizes["layers.2"], "trains": "trains"},
        {"part": "pooler", "parameters": 16 * 17, "trains": "256 of them train"},
        {"part": "classifier", "parameters": 34, "trains": "trains"},
    ]
    assert [line["trains"] for line in trains(model, unfreeze=1)] == [
        *("frozen", "frozen", "trains from epoch 3 on", "trains from epoch 2 on", "256 of them train", "trains")
    ]
