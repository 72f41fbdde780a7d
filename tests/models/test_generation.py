"""The section `generation` is what transformers does, and what is drawn goes by the seed and the row alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from llmft.config.load import load as compose
from llmft.models.generate import GumbelSampling, generate_after, set_generation
from llmft.schema.inference import GenerationConfig
from llmft.schema.problem import UserError

Run = Callable[..., tuple[int, str, str]]
SIZES = {"vocab_size": 50, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2}
SPECIAL = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    config = transformers.T5Config(**SIZES, **SPECIAL)
    return transformers.AutoModelForSeq2SeqLM.from_config(config).eval()


KEYS = [
    ({}, {"max_new_tokens": 64, "num_beams": 1, "do_sample": False, "no_repeat_ngram_size": 0}),
    ({"max_new_tokens": 7}, {"max_new_tokens": 7}),
    ({"beams": 3, "length_penalty": 0.5}, {"num_beams": 3, "length_penalty": 0.5, "do_sample": False}),
    ({"sample": True, "temperature": 0.5}, {"do_sample": True, "temperature": 0.5, "top_k": 0, "top_p": 1.0}),
    ({"sample": True, "top_k": 5, "top_p": 0.9}, {"top_k": 5, "top_p": 0.9, "temperature": 1.0}),
    ({"repetition_penalty": 1.5, "no_repeat": 3}, {"repetition_penalty": 1.5, "no_repeat_ngram_size": 3}),
]


@pytest.mark.parametrize(("keys", "expected"), KEYS)
def test_each_key_reaches_transformers(keys: dict[str, Any], expected: dict[str, Any], model: Any) -> None:
    set_generation(model, GenerationConfig(**keys))
    found = model.generation_config.to_dict()
    assert {key: found[key] for key in expected} == expected
    assert {key: found[key] for key in SPECIAL} == SPECIAL


OPTIONS = {
    "greedy": {"beams": 1, "sample": False, "max_new_tokens": 64},
    "beam": {"beams": 4, "sample": False},
    "sample": {"sample": True, "temperature": 0.8, "top_p": 0.95},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_the_options_of_the_group(name: str) -> None:
    found = compose("finetune", ["+recipe=t5_translation", f"generation={name}"]).generation
    assert {key: getattr(found, key) for key in OPTIONS[name]} == OPTIONS[name]


def texts(model: Any, rows: list[list[int]], size: int) -> list[list[int]]:
    """What is written for each row, without padding, in batches of `size`."""
    found: list[list[int]] = []
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        width = max(map(len, some))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in some])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in some])
        written = model.generate(input_ids=ids, attention_mask=mask).tolist()
        found += [[token for token in row if token] for row in written]
    return found


def test_draws_repeat_in_any_batch_and_differ_by_seed(model: Any) -> None:
    rows = [[5 + i, 7, 9, *range(10, 10 + i), 1] for i in range(8)]
    wanted = GenerationConfig(sample=True, max_new_tokens=8)
    set_generation(model, wanted, seed=3)
    together = texts(model, rows, 8)
    assert together == texts(model, rows, 8) == texts(model, rows, 3) == texts(model, rows, 1)
    assert together[::-1] == texts(model, rows[::-1], 8)
    set_generation(model, wanted, seed=4)
    other = texts(model, rows, 8)
    assert other != together
    set_generation(model, GenerationConfig(max_new_tokens=8), seed=3)
    greedy = texts(model, rows, 8)
    assert greedy not in (together, other)
    set_generation(model, GenerationConfig(sample=True, max_new_tokens=8, top_k=1), seed=3)
    assert texts(model, rows, 8) == greedy, "top_k=1 leaves the likeliest alone"
    set_generation(model, GenerationConfig(sample=True, max_new_tokens=8, temperature=1e-4), seed=3)
    assert texts(model, rows, 8) == greedy, "so does a temperature near 0"
    set_generation(model, GenerationConfig(sample=True, max_new_tokens=8, top_p=1e-6), seed=3)
    assert texts(model, rows, 8) == greedy


def test_tokens_are_drawn_by_their_probability() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, -1e9]).expand(4000, 4)
    rows = torch.arange(4000)[:, None]
    drawn = GumbelSampling(rows, None, seed=0)(rows, logits).argmax(dim=1)
    shares = torch.bincount(drawn, minlength=4) / 4000
    assert torch.allclose(shares, logits[0].softmax(dim=0), atol=0.025)
    assert shares[3] == 0


def test_more_tokens_than_the_decoder_has_positions() -> None:
    config = transformers.BartConfig(
        vocab_size=50, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=1,
        decoder_attention_heads=1, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=40,
    )  # fmt: skip
    bart = transformers.AutoModelForSeq2SeqLM.from_config(config).eval()
    set_generation(bart, GenerationConfig(max_new_tokens=39))
    assert bart.generate(input_ids=torch.tensor([[5, 6]]), min_new_tokens=39).shape[1] == 40
    with pytest.raises(
        UserError,
        match=r"generation\.max_new_tokens  must be less than the 40 positions .*, got 40\. Write generation\.max_new_tokens=39",
    ):
        set_generation(bart, GenerationConfig(max_new_tokens=40))


RULES = [
    (("generation.temperature=2",), "generation.temperature  is only used with generation.sample=true"),
    (("generation.top_k=2",), "generation.top_k  is only used with generation.sample=true"),
    (("generation.length_penalty=2",), "generation.length_penalty  is only used with generation.beams=2 or more"),
    (
        ("generation=sample", "generation.beams=2"),
        "generation.beams  does not work with generation.sample: draws would depend on the other rows",
    ),
    (("generation.max_new_tokens=0",), "generation.max_new_tokens  must be at least 1, got 0"),
    (("hardware.processes=2", "hardware.strategy=fsdp"), "fsdp needs equal numbers of forward passes in all processes"),
]


@pytest.mark.parametrize(("words", "what"), RULES)
def test_keys_that_would_change_nothing_or_too_much(words: tuple[str, ...], what: str, llmft: Run, here: Path) -> None:
    code, _, err = llmft("finetune", "+recipe=t5_translation", *words)
    assert code == 2
    assert what in err


def test_an_answer_may_say_again_what_was_asked() -> None:
    """Without their own, it is a model that repeats its prompt; transformers would forbid it the words of the prompt."""
    config = transformers.GPT2Config(vocab_size=12, n_embd=8, n_layer=1, n_head=1, n_positions=32, eos_token_id=0)
    gpt = transformers.AutoModelForCausalLM.from_config(config).eval()
    after = {1: 2, 2: 3, 3: 4, 4: 1}  # what follows what, whatever stands before

    def forward(**inputs: Any) -> Any:
        logits = torch.zeros(*inputs["input_ids"].shape, 12)
        for token, follower in after.items():
            logits[inputs["input_ids"] == token] += torch.nn.functional.one_hot(torch.tensor(follower), 12) * 9.0
        logits[..., 5] += 1  # the next best
        return transformers.modeling_outputs.CausalLMOutputWithPast(logits=logits)

    gpt.forward = forward
    prompt = torch.tensor([[1, 2, 3, 4, 1, 2]])
    mask = torch.ones_like(prompt)
    for no_repeat, written in ((None, [3, 4, 1, 2, 3, 4]), (4, [3, 4, 1, 2, 3, 4]), (2, [3, 4, 1, 2, 3, 5])):
        set_generation(gpt, GenerationConfig(max_new_tokens=6, no_repeat=no_repeat))
        assert generate_after(gpt, prompt, mask) == [written]
    set_generation(gpt, GenerationConfig(max_new_tokens=5, repetition_penalty=100.0))
    assert generate_after(gpt, prompt, mask) == [[3, 4, 1, 2, 5]]
    # In parts, the words that were written before stay known.
    config.n_positions = 8
    set_generation(gpt, GenerationConfig(max_new_tokens=6, no_repeat=2))
    assert generate_after(gpt, prompt, mask) == [[3, 4, 1, 2, 3, 5]]
