"""The logits that a label needs are those that the whole model gives there."""

from typing import Any

import pytest
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode

from llmft.models import labeled
from llmft.models.labeled import count_labels, token_loss, token_losses
from llmft.models.layers import checkpoint_layers
from llmft.schema.tasks import IGNORED

SIZES = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
KINDS = {
    "gpt2": ("AutoModelForCausalLM", SIZES | {"max_position_embeddings": 64}, True),
    "llama": ("AutoModelForCausalLM", SIZES | {"intermediate_size": 64}, True),
    "cohere": ("AutoModelForCausalLM", SIZES | {"intermediate_size": 64, "logit_scale": 0.5}, True),
    "gemma2": (
        "AutoModelForCausalLM",
        SIZES | {"intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 16},
        True,
    ),
    "bert": ("AutoModelForMaskedLM", SIZES | {"intermediate_size": 64}, False),
    "roberta": ("AutoModelForMaskedLM", SIZES | {"intermediate_size": 64}, False),
    "bart": (
        "AutoModelForSeq2SeqLM",
        {"vocab_size": 99, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "decoder_attention_heads": 2}
        | {"encoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 64},
        False,
    ),
    "t5": ("AutoModelForSeq2SeqLM", SIZES | {"d_ff": 64, "d_kv": 16, "decoder_start_token_id": 0}, False),
}


# They change the logits that their embeddings give, so that no part of these can be turned into a loss alone.
BENT = {"cohere", "gemma2", "bart"}


def made(kind: str) -> tuple[Any, dict[str, torch.Tensor], bool]:
    """A tiny model, a batch of it, and whether its labels are shifted."""
    head, sizes, shift = KINDS[kind]
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind)
    config = type(config).from_dict({config.attribute_map.get(key, key): value for key, value in sizes.items()})
    model = getattr(transformers, head).from_config(config).eval()
    if kind == "bart":  # of nothing but zeros before it is trained
        model.final_logits_bias += torch.randn(99)
    ids = torch.randint(5, 99, (3, 12))
    labels = ids.clone()
    labels[torch.rand(3, 12) < 0.6] = IGNORED
    return model, {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}, shift


def gradients(model: Any) -> dict[str, torch.Tensor]:
    """The gradients of all weights, which are forgotten."""
    found = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("chunk", [labeled.CHUNK, 99 * 4])
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_and_its_gradients_are_those_of_the_model(
    kind: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labeled, "CHUNK", chunk)
    model, batch, shift = made(kind)
    whole = model(**batch).loss
    whole.backward()
    expected = gradients(model)
    found = token_loss(model, batch, shift)
    found.backward()
    assert found.item() == pytest.approx(whole.item(), abs=1e-6)
    for name, gradient in gradients(model).items():
        assert torch.allclose(gradient, expected[name], atol=1e-6), name
    assert count_labels(batch, shift) == int((batch["labels"][:, 1 if shift else 0 :] != IGNORED).sum())
    assert labeled._plain[model] == (kind not in BENT)
    with torch.no_grad():
        losses = token_losses(model, batch, shift)
    assert losses.shape == (count_labels(batch, shift),)
    assert losses.mean().item() == pytest.approx(whole.item(), abs=1e-6)


@pytest.mark.parametrize("kind", ["bart", "mbart", "m2m_100"])
def test_a_decoder_learns_to_begin_as_it_will_write(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """mBART's own way would begin with the last label of each row; M2M-100 has no way of its own."""
    torch.manual_seed(0)
    special = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 2}
    model = transformers.AutoModelForSeq2SeqLM.from_config(
        type(transformers.AutoConfig.for_model(kind))(**KINDS["bart"][1] | special)
    ).eval()
    batch = {"input_ids": torch.tensor([[5, 6, 1]] * 2), "labels": torch.tensor([[7, 8, 1], [7, 1, IGNORED]])}
    read: list[torch.Tensor] = []
    forward = type(model).forward
    monkeypatch.setattr(
        type(model),
        "forward",
        lambda self, **inputs: read.append(inputs["decoder_input_ids"]) or forward(self, **inputs),
    )
    token_loss(model, batch, shift=False)
    assert read[-1].tolist() == [[2, 7, 8], [2, 7, 1]]
    assert model.generate(input_ids=batch["input_ids"], max_new_tokens=1)[:, 0].tolist() == [2, 2]


@pytest.mark.parametrize("chunk", [labeled.CHUNK, 99 * 4])
def test_smoothing_is_that_of_torch(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labeled, "CHUNK", chunk)
    model, batch, _ = made("t5")
    logits = model(**batch).logits.flatten(0, 1)
    wanted = torch.nn.functional.cross_entropy(logits, batch["labels"].flatten(), label_smoothing=0.2)
    assert token_loss(model, batch, shift=False, smoothing=0.2).item() == pytest.approx(wanted.item(), abs=1e-6)


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation gave."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, torch.Tensor):
                self.numbers = max(self.numbers, value.numel())
        return result


def test_never_more_logits_at_once_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(labeled, "CHUNK", 5000 * 6)
    sizes = {"hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = transformers.AutoModelForCausalLM.from_config(transformers.LlamaConfig(vocab_size=5000, **sizes))
    ids = torch.randint(5, 5000, (2, 40))
    with Largest() as all_at_once:
        labeled.labeled_logits(model, {"input_ids": ids}, torch.ones_like(ids) > 0)
    assert all_at_once.numbers == 80 * 5000
    with Largest() as in_chunks:
        token_loss(model, {"input_ids": ids, "labels": ids}, shift=True).backward()
    assert in_chunks.numbers == 6 * 5000


def test_the_numbers_and_the_layers_of_training_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers that are computed again, LoRA, a wrapper, bfloat16: alike with and without chunks."""
    peft = pytest.importorskip("peft")
    model, batch, _ = made("llama")
    checkpoint_layers(model)
    adapted = peft.get_peft_model(
        model, peft.LoraConfig(r=2, target_modules=["q_proj", "lm_head"], lora_alpha=4)
    ).train()
    state = torch.get_rng_state()
    losses, found = [], []
    for chunk in (labeled.CHUNK, 99 * 4):
        monkeypatch.setattr(labeled, "CHUNK", chunk)
        labeled._plain.clear()
        with torch.autocast("cpu", torch.bfloat16):
            loss = token_loss(adapted, batch, shift=True)
        loss.backward()
        losses.append(loss.item())
        found.append(gradients(adapted))
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert {name.partition("lora_")[1] for name in found[0]} == {"lora_"}
    for name, gradient in found[0].items():
        assert (gradient - found[1][name]).norm() <= 0.01 * gradient.norm(), name  # bfloat16 has three digits
    assert torch.equal(state, torch.get_rng_state())
    assert "forward" not in vars(model.get_output_embeddings())
