"""The logits that a label needs are those that the whole model gives there."""

import pytest
import torch
import transformers

from llmft.models.labelled import IGNORED, count_labels, token_loss

SIZES = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
KINDS = {
    "gpt2": ("AutoModelForCausalLM", SIZES | {"max_position_embeddings": 64}, True),
    "llama": ("AutoModelForCausalLM", SIZES | {"intermediate_size": 64}, True),
    "gemma2": (
        "AutoModelForCausalLM",
        SIZES | {"intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 16},
        True,
    ),
    "bert": ("AutoModelForMaskedLM", SIZES | {"intermediate_size": 64}, False),
    "roberta": ("AutoModelForMaskedLM", SIZES | {"intermediate_size": 64}, False),
    "t5": ("AutoModelForSeq2SeqLM", SIZES | {"d_ff": 64, "d_kv": 16, "decoder_start_token_id": 0}, False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_and_its_gradients_are_those_of_the_model(kind: str) -> None:
    head, sizes, shift = KINDS[kind]
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind)
    config = type(config).from_dict({config.attribute_map.get(key, key): value for key, value in sizes.items()})
    model = getattr(transformers, head).from_config(config).eval()
    ids = torch.randint(5, 99, (3, 12))
    labels = ids.clone()
    labels[torch.rand(3, 12) < 0.6] = IGNORED
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    whole = model(**batch).loss
    whole.backward()
    expected = {
        name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None
    }
    model.zero_grad()
    found = token_loss(model, batch, shift)
    found.backward()
    assert found.item() == pytest.approx(whole.item(), abs=1e-6)
    for name, parameter in model.named_parameters():
        if name in expected:
            assert torch.allclose(parameter.grad, expected[name], atol=1e-6), name
    assert count_labels(batch, shift) == int((labels[:, 1 if shift else 0 :] != IGNORED).sum())
