"""Packed batches train as padded ones do, on every family that keeps the rows of a sequence apart; others are refused."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from llmft.models.labeled import count_labels, token_loss
from llmft.schema.problem import UserError
from llmft.schema.tasks import IGNORED
from llmft.tasks.objective import tensors
from llmft.tasks.padding import pad
from llmft.training.batches import Packing, check_packing, first_fit_decreasing, why_packing_fails

SIZES = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
# Large weights: with small ones a row would hardly change if it saw another.
GATED = SIZES | {"intermediate_size": 48, "num_key_value_heads": 1, "initializer_range": 0.3, "pad_token_id": 0}
PACKED: dict[str, dict[str, Any]] = {
    "llama": GATED,
    "mistral": GATED | {"sliding_window": 4},
    "mixtral": GATED | {"num_local_experts": 2},
    "qwen2": GATED,
    "qwen2 window": GATED | {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    "qwen3": GATED | {"head_dim": 16},
    "qwen3_moe": GATED | {"head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "gemma": GATED | {"head_dim": 16},
    "gemma2": GATED | {"head_dim": 16, "sliding_window": 4},
    "gemma3_text": GATED
    | {"head_dim": 16, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]},
    "gpt2": SIZES | {"max_position_embeddings": 64, "initializer_range": 0.3},
    "gpt_neox": SIZES | {"intermediate_size": 48, "initializer_range": 0.3},
    "phi": GATED | {"num_key_value_heads": 2},
    "phi3": GATED | {"num_key_value_heads": 2},
    "smollm3": GATED,
    "olmo2": GATED,
    "granite": GATED,
    "cohere": GATED,
    "starcoder2": GATED,
    "stablelm": GATED,
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "bloom": (SIZES, "does not take position_ids"),
    "falcon": (SIZES | {"initializer_range": 0.3}, "attend to each other"),
    "opt": (
        SIZES | {"ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": 64, "init_std": 0.3},
        "attend to each other",
    ),
    "mamba": (SIZES | {"state_size": 4, "initializer_range": 0.3}, "position_ids"),
    "bert": (SIZES | {"intermediate_size": 48}, "is not a decoder"),
    "bart": (
        {"vocab_size": 97, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
        | {"decoder_attention_heads": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48},
        "is not a decoder",
    ),
}  # fmt: skip


def made(kind: str, sizes: dict[str, Any], head: str = "AutoModelForCausalLM") -> Any:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind.partition(" ")[0])
    given = {config.attribute_map.get(key, key): value for key, value in sizes.items()}
    return getattr(transformers, head).from_config(type(config).from_dict(given)).eval()


def rows() -> list[dict[str, list[int]]]:
    """Rows of unequal length, of which a part is trained on."""
    random = torch.Generator().manual_seed(1)
    found = []
    for length in (14, 3, 9, 5, 11, 2):
        ids = torch.randint(3, 97, (length,), generator=random).tolist()
        found.append({"input_ids": ids, "labels": [*[IGNORED] * (length // 3), *ids[length // 3 :]]})
    return found


def collate(features: list[dict[str, Any]], side: str = "right") -> dict[str, torch.Tensor]:
    return tensors(pad(features, {"input_ids": 0, "labels": IGNORED}, side))


@pytest.mark.parametrize("kind", PACKED)
def test_packed_rows_give_the_loss_and_the_gradients_of_padded_ones(kind: str) -> None:
    model = made(kind, PACKED[kind])
    check_packing(model, kind)
    padded, packed = collate(rows()), Packing(collate)(rows())
    assert packed["input_ids"].numel() < padded["input_ids"].numel()
    assert count_labels(packed, shift=True) == count_labels(padded, shift=True)
    losses, gradients = [], []
    for batch in (padded, packed):
        loss = token_loss(model, batch, shift=True)
        loss.backward()
        losses.append(loss.item())
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
        model.zero_grad()
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert (gradients[0] - gradients[1]).norm() <= 1e-3 * gradients[0].norm()


@pytest.mark.parametrize("kind", REFUSED)
def test_a_model_that_mixes_rows_up_is_refused(kind: str) -> None:
    sizes, why = REFUSED[kind]
    head = {"bert": "AutoModelForMaskedLM", "bart": "AutoModelForSeq2SeqLM"}.get(kind, "AutoModelForCausalLM")
    with pytest.raises(UserError) as error:
        check_packing(made(kind, sizes, head), "mine")
    assert "trainer.packing  mine (" in str(error.value)
    assert why in str(error.value)


def test_a_model_that_goes_by_its_mask_alone_is_found_out() -> None:
    model = made("llama", PACKED["llama"])
    plain = model.model.forward
    model.model.forward = lambda *inputs, **keys: plain(
        *inputs, **keys | {"attention_mask": torch.ones_like(keys["input_ids"])}
    )
    assert "lets packed rows attend to each other" in why_packing_fails(model)


def test_a_packed_batch_by_hand() -> None:
    features = [
        {"input_ids": [5, 6], "labels": [5, 6]},
        {"input_ids": [1, 2, 3, 4], "labels": [IGNORED, IGNORED, 3, 4]},
        {"input_ids": [7], "labels": [7]},
    ]
    for side in ("right", "left"):
        batch = Packing(partial(collate, side=side))(features)
        assert {key: value.tolist() for key, value in batch.items()} == {
            "input_ids": [[1, 2, 3, 4], [5, 6, 7, 0]],
            "labels": [[IGNORED, IGNORED, 3, 4], [IGNORED, 6, IGNORED, IGNORED]],
            "position_ids": [[0, 1, 2, 3], [0, 1, 0, 0]],
        }


def test_rows_are_fitted_longest_first() -> None:
    assert first_fit_decreasing([4, 4, 5, 2, 5], 10) == [[2, 4], [0, 1, 3]]
    assert first_fit_decreasing([3], 3) == [[0]]


def test_a_packed_run_logs_the_losses_of_a_padded_one(llmft: Callable[..., Any], here: Path) -> None:
    words = (
        "finetune",
        "+recipe=llm_instruct",
        "smoke=true",
        "trainer.group_by_length=false",
        "hardware.precision=fp32",
    )
    logged = []
    for name, packing in (("padded", "false"), ("packed", "true")):
        code, _, err = llmft(*words, f"trainer.packing={packing}", f"run.dir={name}")
        assert code == 0, err
        events = [json.loads(line) for line in (here / name / "events.jsonl").read_text().splitlines()]
        logged.append([event[key] for event in events for key in ("loss", "eval_loss", "grad_norm") if key in event])
    assert len(logged[0]) > 8
    assert logged[1] == pytest.approx(logged[0], abs=1e-4)


def test_a_run_is_refused_before_it_begins(llmft: Callable[..., Any], here: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("llmft.training.batches.why_packing_fails", lambda _: "lets rows see each other")
    words = ("finetune", "+recipe=llm_instruct", "smoke=true", "trainer.packing=true", "run.dir=run")
    code, _, err = llmft(*words)
    assert code == 2
    assert "trainer.packing  tiny-llama (LlamaForCausalLM) lets rows see each other. Write trainer.packing=false" in err
    assert not (here / "run").exists()
