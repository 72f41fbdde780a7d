"""Adapters: what trains, what is adapted, and that the merged model is the adapted one."""

import copy
import math
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers

from llmft.models import adapters
from llmft.models.build import build
from llmft.schema.adapter import AdapterConfig
from llmft.schema.model import ModelConfig
from llmft.schema.problem import UserError

HEAD = "AutoModelForSequenceClassification"
NEEDED = {"num_labels": 3, "pad_token_id": 0, "vocab_size": 60, "max_position_embeddings": 32}
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
EXTRA = {"deberta-v2": {"pooler_hidden_size": 32}, "llama": {"num_key_value_heads": 2}}
BATCH = {"input_ids": torch.tensor([[2, 5, 9, 3, 0, 0], [2, 8, 7, 11, 4, 3]])}
BATCH["attention_mask"] = (BATCH["input_ids"] > 0).long()


def tiny(architecture: str) -> Any:
    torch.manual_seed(0)
    sizes = TINY | EXTRA.get(architecture, {})
    model = ModelConfig.model_validate({"architecture": architecture, "init": "random", "config": sizes})
    return build(model, HEAD, NEEDED).eval()


def adapted(architecture: str, **keys: Any) -> tuple[Any, Any]:
    """A plain model, and the same with an adapter that was moved as if by training."""
    plain = tiny(architecture)
    model = adapters.adapt(copy.deepcopy(plain), AdapterConfig(**keys), 6).eval()
    generator = torch.Generator().manual_seed(1)
    for value in model.parameters():
        if value.requires_grad:
            value.data += 0.05 * torch.randn(value.shape, generator=generator)
    return plain, model


def outputs(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(**BATCH).logits


FITS = [
    ("bert", {"name": "lora"}, "query value"),
    ("bert", {"name": "rslora"}, "query value"),
    ("bert", {"name": "dora"}, "query value"),
    ("bert", {"name": "ia3"}, "dense key value"),
    ("bert", {"name": "lora", "target_modules": ["key"]}, "key"),
    ("bert", {"name": "ia3", "target_modules": ["key"]}, "key"),
    ("roberta", {"name": "lora"}, "query value"),
    ("roberta", {"name": "ia3"}, "dense key value"),
    ("roberta", {"name": "lora", "target_modules": "all-linear"}, "dense key query value"),
    ("deberta-v2", {"name": "dora"}, "query_proj value_proj"),
    ("distilbert", {"name": "lora"}, "k_lin lin1 lin2 out_lin q_lin v_lin"),
    ("distilbert", {"name": "ia3", "target_modules": ["k_lin", "lin2"], "feedforward_modules": ["lin2"]}, "k_lin lin2"),
    ("albert", {"name": "lora"}, "dense embedding_hidden_mapping_in ffn ffn_output key pooler query value"),
    ("gpt2", {"name": "lora"}, "c_attn"),
    ("gpt2", {"name": "ia3"}, "c_attn c_proj"),
    ("bert", {"name": "ia3", "target_modules": "all-linear"}, "dense key query value"),
    ("llama", {"name": "rslora"}, "q_proj v_proj"),
]  # fmt: skip


@pytest.mark.parametrize(("architecture", "keys", "ends"), FITS)
def test_merged_it_is_the_same_model(architecture: str, keys: dict[str, Any], ends: str, here: Path) -> None:
    plain, model = adapted(architecture, **keys)
    names = model.base_model.targeted_module_names
    assert sorted({name.rpartition(".")[2] for name in names}) == ends.split()
    heads = [name for name, _ in plain.named_children() if name not in (plain.base_model_prefix, "dropout")]
    assert not [name for name in names if name.split(".")[0] in heads]
    trains = {name for name, value in adapters.trainee(model).named_parameters() if value.requires_grad}
    mark = "ia3_" if keys["name"] == "ia3" else "lora_"
    assert all(mark in name or name.split(".")[0] in heads for name in trains)
    assert {name.split(".")[0] for name in trains} >= {*heads}
    before = outputs(adapters.trainee(model))
    assert not torch.allclose(before, outputs(plain), atol=1e-3)
    adapters.save_adapter(model, here / "adapter")
    merged = adapters.merged(model)
    assert type(merged) is type(plain)
    assert {name: value.shape for name, value in merged.state_dict().items()} == {
        name: value.shape for name, value in plain.state_dict().items()
    }
    assert torch.allclose(outputs(merged), before, atol=1e-5 * float(before.abs().max()))
    # What lies in RUN/adapter is all that the model differs by.
    assert sorted(file.name for file in (here / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    again = peft.PeftModel.from_pretrained(plain, here / "adapter").eval()
    assert torch.equal(outputs(again), before)


def test_a_layer_is_updated_by_the_formula() -> None:
    """Hu et al. 2021 (W + BA alpha/r), Kalajdzievski 2023 (alpha/sqrt(r)), Liu et al. 2024 (m times a unit), and 2022."""
    name = "bert.encoder.layer.0.attention.self.value"
    for kind in ("lora", "rslora", "dora", "ia3"):
        sizes = {} if kind == "ia3" else {"r": 4, "alpha": 12}
        plain, model = adapted("bert", name=kind, **sizes)
        old, layer = plain.get_submodule(name).weight, adapters.within(model).get_submodule(name)
        if kind == "ia3":
            wanted = old * layer.ia3_l["default"]
        else:
            scale = 12 / (math.sqrt(4) if kind == "rslora" else 4)
            wanted = old + scale * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        if kind == "dora":
            length = wanted.norm(dim=1, keepdim=True)
            wanted = layer.lora_magnitude_vector["default"].weight[:, None] * wanted / length
        assert torch.allclose(adapters.merged(model).get_submodule(name).weight, wanted, atol=1e-6)


def test_a_new_adapter_changes_nothing() -> None:
    for kind in ("lora", "rslora", "dora", "ia3"):
        plain = tiny("bert")
        model = adapters.adapt(copy.deepcopy(plain), AdapterConfig(name=kind), 6)
        assert torch.allclose(outputs(adapters.trainee(model.eval())), outputs(plain), atol=1e-6)


@pytest.mark.parametrize("architecture", ["bert", "roberta", "electra"])
def test_a_prefix_is_read_and_comes_back(architecture: str, here: Path) -> None:
    _, model = adapted(architecture, name="prefix", prefix_length=5)
    trains = {name.split(".")[0] for name, value in model.named_parameters() if value.requires_grad}
    assert trains == {"base_model", "prompt_encoder"}
    assert all("classifier" in name for name, value in model.base_model.named_parameters() if value.requires_grad)
    model(**BATCH).logits.sum().backward()
    assert float(model.prompt_encoder.default.embedding.weight.grad.abs().max()) > 0
    before = outputs(model)
    alone = {key: value[:1, :4] for key, value in BATCH.items()}
    assert torch.allclose(model(**alone).logits, before[:1], atol=1e-6), "as in a batch with padding"
    adapters.save_adapter(model, here / "adapter")
    kept = adapters.merged(model)
    assert kept is model
    assert torch.equal(outputs(kept), before)
    adapters.save_model(kept, here / "model")
    base = getattr(transformers, HEAD).from_pretrained(here / "model/base")
    assert not torch.allclose(outputs(base), before, atol=1e-5), "without its prefix it answers otherwise"
    again = adapters.with_prefix(base, here / "adapter")
    assert torch.equal(outputs(again.eval()), before)
    config = here / "adapter/adapter_config.json"
    config.write_text(config.read_text().replace("PREFIX_TUNING", "LORA"))
    with pytest.raises(ValueError, match="holds no prefix"):
        adapters.with_prefix(base, here / "adapter")
    (here / "adapter/adapter_model.safetensors").unlink()
    with pytest.raises(OSError, match="no adapter_model"):
        adapters.with_prefix(base, here / "adapter")


REFUSED = [
    ("deberta-v2", {"name": "prefix"}, "DebertaV2ForSequenceClassification reads no prefix. Write adapter=lora"),
    ("distilbert", {"name": "prefix"}, "DistilBertForSequenceClassification reads no prefix"),
    ("mlp", {"name": "prefix"}, "MLPForClassification reads no prefix"),
    ("linear", {"name": "lora"}, "LinearForClassification has no layers below its head"),
    ("bert", {"name": "prefix", "prefix_length": 30}, "30 tokens before the 6 of task.max_length, and the model has 32 positions"),
    ("distilbert", {"name": "ia3"}, "Name its layers by adapter.target_modules and adapter.feedforward_modules"),
    ("bert", {"name": "lora", "target_modules": ["nope"]}, "lora does not fit BertForSequenceClassification: "),
    ("bert", {"name": "lora", "target_modules": ["dropout"]}, "write adapter.target_modules=all-linear"),
]  # fmt: skip


@pytest.mark.parametrize(("architecture", "keys", "text"), REFUSED)
def test_what_does_not_fit_is_refused(architecture: str, keys: dict[str, Any], text: str) -> None:
    model = (
        build(ModelConfig(architecture=architecture, init="random"), HEAD, {"num_numbers": 2, "category_sizes": []})
        if architecture in ("mlp", "linear")
        else tiny(architecture)
    )
    if keys.get("prefix_length"):
        model.config.max_position_embeddings = 32
    with pytest.raises(UserError) as error:
        adapters.adapt(model, AdapterConfig(**keys), 6)
    assert text in str(error.value)
