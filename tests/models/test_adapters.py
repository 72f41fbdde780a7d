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
from llmft.reporting.trains import trains
from llmft.schema.model import AdapterConfig, ModelConfig
from llmft.schema.problem import UserError
from tests.families import config_of

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
    trains = {name for name, value in adapters.trained_part(model).named_parameters() if value.requires_grad}
    mark = "ia3_" if keys["name"] == "ia3" else "lora_"
    assert all(mark in name or name.split(".")[0] in heads for name in trains)
    assert {name.split(".")[0] for name in trains} >= {*heads}
    before = outputs(adapters.trained_part(model))
    assert not torch.allclose(before, outputs(plain), atol=1e-3)
    adapters.save_adapter(model, here / "adapter")
    merged = adapters.merge(model)
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
        old, layer = plain.get_submodule(name).weight, adapters.unwrap(model).get_submodule(name)
        if kind == "ia3":
            wanted = old * layer.ia3_l["default"]
        else:
            scale = 12 / (math.sqrt(4) if kind == "rslora" else 4)
            wanted = old + scale * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        if kind == "dora":
            length = wanted.norm(dim=1, keepdim=True)
            wanted = layer.lora_magnitude_vector["default"].weight[:, None] * wanted / length
        assert torch.allclose(adapters.merge(model).get_submodule(name).weight, wanted, atol=1e-6)


def test_a_new_adapter_changes_nothing() -> None:
    for kind in ("lora", "rslora", "dora", "ia3"):
        plain = tiny("bert")
        model = adapters.adapt(copy.deepcopy(plain), AdapterConfig(name=kind), 6)
        assert torch.allclose(outputs(adapters.trained_part(model.eval())), outputs(plain), atol=1e-6)


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
    kept = adapters.merge(model)
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
    ("deberta-v2", {"name": "prefix"}, "must not be prefix for DebertaV2ForSequenceClassification, which takes no past_key_values. Write adapter=lora"),
    ("distilbert", {"name": "prefix"}, "must not be prefix for DistilBertForSequenceClassification"),
    ("mlp", {"name": "prefix"}, "must not be prefix for MLPForClassification"),
    ("linear", {"name": "lora"}, "must be none for LinearForClassification, which has no layers below its head"),
    ("bert", {"name": "prefix", "prefix_length": 30}, "needs 30 positions beside the 6 of task.max_length, and the model has 32"),
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


CAUSAL, WRITES = "AutoModelForCausalLM", "AutoModelForSeq2SeqLM"
OF_WORDS = {"pad_token_id": 0, "decoder_start_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}


def writer(kind: str, head: str, **more: Any) -> Any:
    """A tiny model of words whose embeddings are the output embeddings, too, unless `more` says otherwise."""
    torch.manual_seed(0)
    config = config_of(kind, 60, **OF_WORDS)
    for key, value in ({"tie_word_embeddings": True} | OF_WORDS | more).items():
        setattr(config, key, value)
    return getattr(transformers, head).from_config(config).float().eval()


def moved(model: Any) -> Any:
    generator = torch.Generator().manual_seed(1)
    for value in model.parameters():
        if value.requires_grad:
            value.data += 0.05 * torch.randn(value.shape, generator=generator)
    return model.eval()


def row_logits(model: Any) -> torch.Tensor:
    more = {"decoder_input_ids": torch.tensor([[0, 7, 8]])} if model.config.is_encoder_decoder else {}
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=torch.tensor([[5, 6, 7, 1]]), **more).logits
    return found


TIED = [
    ("smollm3", CAUSAL, None, "down_proj gate_proj k_proj o_proj q_proj up_proj v_proj"),  # without a list of peft's
    ("starcoder2", CAUSAL, None, "c_fc c_proj k_proj o_proj q_proj v_proj"),
    ("granite", CAUSAL, None, "down_proj gate_proj k_proj o_proj q_proj up_proj v_proj"),
    ("qwen2", CAUSAL, None, "q_proj v_proj"),
    ("qwen2", CAUSAL, "all-linear", "down_proj gate_proj k_proj o_proj q_proj up_proj v_proj"),
    ("gpt2", CAUSAL, "all-linear", "c_attn c_fc c_proj"),
    ("opt", CAUSAL, "all-linear", "fc1 fc2 k_proj out_proj q_proj v_proj"),
    ("t5", WRITES, None, "q v"),
    ("mt5", WRITES, None, "q v"),
    ("t5", WRITES, "all-linear", "k o q v wi wo"),
    ("umt5", WRITES, None, "k o q v wi_0 wi_1 wo"),
    ("marian", WRITES, None, "fc1 fc2 k_proj out_proj q_proj v_proj"),
    ("bart", WRITES, None, "q_proj v_proj"),
    ("bart", WRITES, "all-linear", "fc1 fc2 k_proj out_proj q_proj v_proj"),
    ("bert", "AutoModelForMaskedLM", "all-linear", "dense key query value"),
]


@pytest.mark.parametrize(("kind", "head", "layers", "ends"), TIED)
def test_tied_output_embeddings_get_no_adapter(kind: str, head: str, layers: Any, ends: str, here: Path) -> None:
    more = {"scale_embedding": True} if kind == "marian" else {}
    plain = writer(kind, head, **more)
    words = plain.get_output_embeddings().weight.detach().clone()
    config = AdapterConfig(name="lora", target_modules=layers)
    model = moved(adapters.adapt(copy.deepcopy(plain), config, 6))
    named = model.base_model.targeted_module_names
    assert " ".join(sorted({name.rpartition(".")[2] for name in named})) == ends
    assert not [name for name in named if "lm_head" in name or "embed" in name or name.rpartition(".")[2] == "decoder"]
    before = row_logits(adapters.trained_part(model))
    assert not torch.allclose(before, row_logits(plain), atol=1e-5)
    merged = adapters.merge(model)
    assert torch.allclose(row_logits(merged), before, atol=1e-5 * float(before.abs().max()))
    assert torch.equal(merged.get_output_embeddings().weight, words)
    merged.save_pretrained(here / "merged")
    again = getattr(transformers, head).from_pretrained(here / "merged").eval()
    assert torch.allclose(row_logits(again), before, atol=1e-5 * float(before.abs().max()))


@pytest.mark.parametrize(
    ("kind", "head", "layer"),
    [
        ("qwen2", CAUSAL, "lm_head"),
        ("qwen2", CAUSAL, "embed_tokens"),
        ("t5", WRITES, "lm_head"),
        ("bart", WRITES, "lm_head"),
    ],
)
def test_a_tied_layer_that_is_named_is_refused(kind: str, head: str, layer: str) -> None:
    with pytest.raises(UserError, match=f"{layer} shares its weights with another module"):
        adapters.adapt(writer(kind, head), AdapterConfig(name="lora", target_modules=[layer]), 6)


def test_output_embeddings_of_their_own_may_be_named() -> None:
    plain = writer("qwen2", CAUSAL, tie_word_embeddings=False)
    model = moved(adapters.adapt(copy.deepcopy(plain), AdapterConfig(name="lora", target_modules=["lm_head"]), 6))
    before = row_logits(adapters.trained_part(model))
    assert torch.allclose(row_logits(adapters.merge(model)), before, atol=1e-5)


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe", "olmoe", "phimoe", "gpt_oss", "qwen2_moe"])
def test_experts_are_adapted_where_all_layers_are(kind: str) -> None:
    for layers, experts in ((None, 0), ("all-linear", 4)):  # two weights in each of two layers
        plain = writer(kind, CAUSAL, tie_word_embeddings=False)
        config = AdapterConfig(name="lora", r=2, target_modules=layers)
        model = moved(adapters.adapt(plain, config, 6))
        assert len(model.base_model.targeted_parameter_names) == experts
        said = adapters.describe(model, config)
        assert ("4 weights of experts" in said) == bool(experts)
        count = sum(value.numel() for value in model.parameters() if value.requires_grad)
        assert said.endswith(f"of the weights train ({count:,})")
        before = row_logits(adapters.trained_part(model))
        assert torch.allclose(row_logits(adapters.merge(model)), before, atol=1e-5 * float(before.abs().max()))


@pytest.mark.parametrize("keys", [{"name": "dora"}, {"name": "lora", "dropout": 0.1}, {"name": "ia3"}])
def test_experts_that_do_not_fit_are_said(keys: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="must name layers outside the experts of MixtralForCausalLM, got all-linear"):
        adapters.adapt(writer("mixtral", CAUSAL), AdapterConfig(target_modules="all-linear", **keys), 6)


def test_the_head_of_a_t5_that_answers_questions_trains() -> None:
    model = adapters.adapt(writer("t5", "AutoModelForQuestionAnswering"), AdapterConfig(name="lora"), 6)
    trained = {name for name, value in adapters.trained_part(model).named_parameters() if value.requires_grad}
    assert {name for name in trained if "lora_" not in name} == {
        f"qa_outputs.modules_to_save.default.{part}" for part in ("weight", "bias")
    }


def test_what_trains_is_said_by_the_names_of_parts() -> None:
    plain = tiny("bert")
    model = adapters.adapt(copy.deepcopy(plain), AdapterConfig(name="lora", r=4), 6)
    of_plain = {line["part"]: line["parameters"] for line in trains(plain)}
    lines = {line["part"]: line for line in trains(model)}
    assert lines.keys() == of_plain.keys() == {"embeddings", "layers.0-1", "pooler", "classifier"}
    assert lines["classifier"] == {"part": "classifier", "parameters": of_plain["classifier"], "trains": "trains"}
    new = 2 * 2 * 2 * 4 * 32  # of two layers, query and value: A (4, 32) and B (32, 4)
    assert lines["layers.0-1"]["parameters"] == of_plain["layers.0-1"] + new
    assert lines["layers.0-1"]["trains"] == f"{new // 2:,} of them train"
    prefix = adapters.adapt(tiny("bert"), AdapterConfig(name="prefix", prefix_length=5), 6)
    assert trains(prefix)[-1] == {"part": "prefix", "parameters": 5 * 2 * 2 * 32, "trains": "trains"}
