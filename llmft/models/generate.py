"""Generation: sets the section `generation` on a model of transformers, and continues prompts with it."""

from hashlib import sha256
from typing import Any

import torch
import transformers
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.generation.logits_process import (
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from llmft.models.adapters import unwrap
from llmft.models.build import max_positions
from llmft.models.trained import Exported
from llmft.schema.inference import GenerationConfig
from llmft.schema.problem import Problem, UserError


def set_generation(model: Any, options: GenerationConfig, seed: int = 0) -> None:
    """Make `model.generate` follow the section `generation`. A model that does not generate stays as it is.

    Special tokens stay the model's. Sampling options are set only with `sample`; transformers would warn about them.

    Args:
        seed: of sampling, see `GumbelSampling`. With `sample`, call `generate(input_ids=...)` by keyword.

    Raises:
        UserError: if `max_new_tokens` is more than a decoder has positions for.
    """
    generator = unwrap(model)
    if isinstance(generator, Exported) or not generator.can_generate():
        return
    _check_room(generator, options)
    generator.generation_config = generation_config(generator, options)
    vars(generator).pop("generate", None)
    repeats = _repetition_processors(options) if not generator.config.is_encoder_decoder else []
    if repeats or options.sample:
        plain = generator.generate

        def generate(prompt_length: int | None = None, **inputs: Any) -> Any:
            ids, mask = inputs["input_ids"], inputs.get("attention_mask")
            chosen = processors(generator, options, ids, mask, seed, prompt_length)
            return plain(**inputs, do_sample=False, logits_processor=chosen)

        generator.generate = generate


def generation_config(generator: Any, options: GenerationConfig) -> transformers.GenerationConfig:
    """The section `generation` in transformers' own form, with the special tokens of a model that generates."""
    decoder_only = not generator.config.is_encoder_decoder
    sampling = {"temperature": options.temperature, "top_k": options.top_k or 0, "top_p": options.top_p or 1.0}
    repeating = {"repetition_penalty": options.repetition_penalty, "no_repeat_ngram_size": options.no_repeat or 0}
    special = {
        key: getattr(generator.generation_config, key, None)
        for key in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_bos_token_id")
    }
    if (end := getattr(generator.config, "eos_token_id", None)) is not None:
        special["eos_token_id"] = end  # the task's end of a text, such as that of a turn in a chat
    return transformers.GenerationConfig(
        **special,
        max_new_tokens=options.max_new_tokens,
        num_beams=options.beams,
        **({"length_penalty": options.length_penalty} if options.beams > 1 else {}),
        do_sample=options.sample,
        **(sampling if options.sample else {}),
        **({} if decoder_only else repeating),
    )


def processors(
    generator: Any,
    options: GenerationConfig,
    ids: torch.Tensor,
    mask: torch.Tensor | None,
    seed: int,
    prompt_length: int | None = None,
) -> LogitsProcessorList:
    """What changes the scores of the next token where transformers' own options would not do; see `GumbelSampling`.

    Args:
        ids: (B, T), the inputs.
        mask: (B, T), 0 for padding; None: there is none.
        prompt_length: how many of the T tokens may be repeated. None: all.
    """
    repeats = _repetition_processors(options) if not generator.config.is_encoder_decoder else []
    read = ids.shape[1] if prompt_length is None else prompt_length
    chosen = LogitsProcessorList([WithoutPrompt(processor, read) for processor in repeats])
    if options.sample:
        chosen += [*_sampling_warpers(options), GumbelSampling(ids, mask, seed)]
    return chosen


def _check_room(generator: Any, options: GenerationConfig) -> None:
    """Raise UserError if an encoder-decoder has too few decoder positions for `max_new_tokens`. T5 has no limit.

    A decoder-only model continues from its last tokens instead; see `generate_after`.
    """
    room = getattr(generator.config, "max_position_embeddings", None)
    if generator.config.is_encoder_decoder and isinstance(room, int) and options.max_new_tokens >= room:
        what = f"must be less than the {room} positions of the model, got {options.max_new_tokens}"
        raise UserError(Problem("generation.max_new_tokens", what, hint=f"Write generation.max_new_tokens={room - 1}."))


def _repetition_processors(options: GenerationConfig) -> list[LogitsProcessor]:
    """The processors against repetition, for decoder-only models; see `WithoutPrompt`."""
    found: list[LogitsProcessor] = []
    if options.repetition_penalty != 1:
        found.append(RepetitionPenaltyLogitsProcessor(options.repetition_penalty))
    if options.no_repeat:
        found.append(NoRepeatNGramLogitsProcessor(options.no_repeat))
    return found


class WithoutPrompt(LogitsProcessor):
    """Hides the prompt from another processor, so that an answer may repeat words of its question.

    transformers counts the prompt of a decoder-only model as written text: with no_repeat=3, no answer could quote
    three tokens of its question.
    """

    def __init__(self, processor: LogitsProcessor, prompt_length: int) -> None:
        self.processor, self.prompt_length = processor, prompt_length

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.Tensor:
        """`input_ids` (B, T) and `scores` (B, vocabulary)."""
        return self.processor(input_ids[:, self.prompt_length :], scores)


def _sampling_warpers(options: GenerationConfig) -> list[LogitsProcessor]:
    """The processors that transformers itself applies before sampling, in its order."""
    found: list[LogitsProcessor] = []
    if options.temperature != 1:
        found.append(TemperatureLogitsWarper(options.temperature))
    if options.top_k:
        found.append(TopKLogitsWarper(options.top_k))
    if options.top_p is not None and options.top_p < 1:
        found.append(TopPLogitsWarper(options.top_p))
    return found


class GumbelSampling(LogitsProcessor):
    """Samples by the Gumbel-max trick: noise after which the largest score is a sample (Maddison et al. 2014).

    A row's noise depends on the seed, its input tokens, and the step only, so a row gets the same text in every batch.
    torch's own sampling uses one random state for all rows, so a row's text would depend on the rows before it.
    """

    def __init__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, seed: int) -> None:
        """`input_ids` and `attention_mask` (B, T): the inputs of the rows."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        rows = [ids[seen.bool()].tolist() for ids, seen in zip(input_ids, mask, strict=True)]
        seeds = [int(sha256(f"{seed} {ids}".encode()).hexdigest()[:15], 16) for ids in rows]
        self.generators = [torch.Generator().manual_seed(number) for number in seeds]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.Tensor:
        """The scores (B, vocabulary) plus noise."""
        size = scores.shape[1]
        uniform = torch.stack([torch.rand(size, generator=generator) for generator in self.generators])
        # clamp: rand may be 0, whose log is infinite. float64, so that values near 1 keep enough digits.
        gumbel = -torch.log(-torch.log(uniform.clamp(min=1e-20).double()))
        return scores + gumbel.to(scores)


def generate_after(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> list[list[int]]:
    """The tokens that a decoder-only model generates after each prompt. The caller cuts off what follows an end token.

    If prompt and new tokens exceed the model's positions, it reads the last tokens of the prompt that leave room for
    the new ones, but at least half of its positions, and continues from the last tokens again when they are used up.

    Args:
        ids: (B, T), padded on the left.
        mask: (B, T), 0 for padding.
    """
    generator = unwrap(model)
    left, room = generator.generation_config.max_new_tokens, max_positions(generator.config)
    if room is None or ids.shape[1] + left <= room:
        found: list[list[int]] = model.generate(input_ids=ids, attention_mask=mask)[:, ids.shape[1] :].tolist()
        return found
    # Row by row: which tokens of a prompt are read must not depend on the padding of its batch.
    return [
        _generate_in_windows(model, row[seen.bool()][None], left, room) for row, seen in zip(ids, mask, strict=True)
    ]


def _generate_in_windows(model: Any, prompt: torch.Tensor, left: int, room: int) -> list[int]:
    """The `left` tokens, or fewer up to an end token, that a model of `room` positions generates after (1, T)."""
    tokens = prompt
    while left:
        kept = min(tokens.shape[1], max(room - left, room // 2))
        seen, step = tokens[:, -kept:], min(left, room - kept)
        asked = (
            {"prompt_length": max(kept - tokens.shape[1] + prompt.shape[1], 0)}
            if "generate" in vars(unwrap(model))
            else {}
        )
        more = model.generate(input_ids=seen, attention_mask=torch.ones_like(seen), max_new_tokens=step, **asked)
        more = more[:, kept:]
        tokens = torch.cat([tokens, more], dim=1)
        left = left - step if more.shape[1] == step else 0  # fewer than asked for: an end token came
    written: list[int] = tokens[0, prompt.shape[1] :].tolist()
    return written
