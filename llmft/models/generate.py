"""How a model writes texts: our section `generation` in the words of transformers, kept with the model."""

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


def set_generation(model: Any, wanted: GenerationConfig, seed: int = 0) -> None:
    """Let `model.generate` write as `wanted` says; a model that does not write is left as it is.

    The special tokens stay those of the model. Where nothing is drawn, what only drawing reads is left out.

    Args:
        seed: of what is drawn; see `GumbelSampling`. `generate` then takes `input_ids` by name.

    Raises:
        UserError: for more tokens than a decoder has positions for.
    """
    writer = unwrap(model)
    if isinstance(writer, Exported) or not writer.can_generate():
        return
    _check_room(writer, wanted)
    alone = not writer.config.is_encoder_decoder
    sampling = {"temperature": wanted.temperature, "top_k": wanted.top_k or 0, "top_p": wanted.top_p or 1.0}
    repeating = {"repetition_penalty": wanted.repetition_penalty, "no_repeat_ngram_size": wanted.no_repeat or 0}
    special = {
        key: getattr(writer.generation_config, key, None)
        for key in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_bos_token_id")
    }
    if (end := getattr(writer.config, "eos_token_id", None)) is not None:
        special["eos_token_id"] = end  # what the task says ends a text, such as a turn of a chat
    writer.generation_config = transformers.GenerationConfig(
        **special,
        max_new_tokens=wanted.max_new_tokens,
        num_beams=wanted.beams,
        **({"length_penalty": wanted.length_penalty} if wanted.beams > 1 else {}),
        do_sample=wanted.sample,
        **(sampling if wanted.sample else {}),
        **({} if alone else repeating),
    )
    vars(writer).pop("generate", None)
    repeats = _repetition_processors(wanted) if alone else []
    if repeats or wanted.sample:
        plain = writer.generate

        def generate(prompt_length: int | None = None, **inputs: Any) -> Any:
            ids = inputs["input_ids"]
            read = ids.shape[1] if prompt_length is None else prompt_length
            chosen = LogitsProcessorList([WithoutPrompt(processor, read) for processor in repeats])
            if wanted.sample:
                chosen += [*_sampling_warpers(wanted), GumbelSampling(ids, inputs.get("attention_mask"), seed)]
            return plain(**inputs, do_sample=False, logits_processor=chosen)

        writer.generate = generate


def _check_room(writer: Any, wanted: GenerationConfig) -> None:
    """Raise UserError for more tokens than a decoder beside an encoder has positions for; T5 has room for any.

    A decoder alone goes on from its last tokens; see `generate_after`.
    """
    room = getattr(writer.config, "max_position_embeddings", None)
    if writer.config.is_encoder_decoder and isinstance(room, int) and wanted.max_new_tokens >= room:
        what = f"{wanted.max_new_tokens} tokens and the first one are more than the {room} positions of the model"
        raise UserError(Problem("generation.max_new_tokens", what, hint=f"Write at most {room - 1}."))


def _repetition_processors(wanted: GenerationConfig) -> list[LogitsProcessor]:
    """What keeps a text from repeating itself."""
    found: list[LogitsProcessor] = []
    if wanted.repetition_penalty != 1:
        found.append(RepetitionPenaltyLogitsProcessor(wanted.repetition_penalty))
    if wanted.no_repeat:
        found.append(NoRepeatNGramLogitsProcessor(wanted.no_repeat))
    return found


class WithoutPrompt(LogitsProcessor):
    """A processor that sees what the model has written, and not the prompt: an answer may say again what was asked.

    transformers counts the prompt of a model that is a decoder alone, so that no answer could quote its question.
    """

    def __init__(self, processor: LogitsProcessor, prompt_length: int) -> None:
        self.processor, self.prompt_length = processor, prompt_length

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.Tensor:
        """`input_ids` (B, T) and `scores` (B, vocabulary)."""
        return self.processor(input_ids[:, self.prompt_length :], scores)


def _sampling_warpers(wanted: GenerationConfig) -> list[LogitsProcessor]:
    """What transformers itself puts before a draw."""
    found: list[LogitsProcessor] = []
    if wanted.temperature != 1:
        found.append(TemperatureLogitsWarper(wanted.temperature))
    if wanted.top_k:
        found.append(TopKLogitsWarper(wanted.top_k))
    if wanted.top_p is not None and wanted.top_p < 1:
        found.append(TopPLogitsWarper(wanted.top_p))
    return found


class GumbelSampling(LogitsProcessor):
    """Noise after which the likeliest token is one that was drawn by its probability (Gumbel's; Maddison et al. 2014).

    The noise of a row goes by the seed, the tokens of its input and the step alone, so that a row gets the same text
    in whatever batch it stands. torch's own draws would go on from row to row.
    """

    def __init__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, seed: int) -> None:
        """`input_ids` and `attention_mask` (B, T): what the texts are written for."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        rows = [ids[seen.bool()].tolist() for ids, seen in zip(input_ids, mask, strict=True)]
        seeds = [int(sha256(f"{seed} {ids}".encode()).hexdigest()[:15], 16) for ids in rows]
        self.generators = [torch.Generator().manual_seed(number) for number in seeds]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.Tensor:
        """`scores` (B, vocabulary), with the noise."""
        size = scores.shape[1]
        uniform = torch.stack([torch.rand(size, generator=generator) for generator in self.generators])
        gumbel = -torch.log(-torch.log(uniform.clamp(min=1e-20).double()))
        return scores + gumbel.to(scores)


def generate_after(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> list[list[int]]:
    """The tokens that a decoder writes after prompts; what follows the end of a text is to be cut off.

    A model that has only so many positions sees the last tokens that leave room for what it may still write, or half as
    many as it has positions, and goes on from the last ones again where these end.

    Args:
        ids: (B, T), padded on the left.
        mask: (B, T), 0 where it is padded.
    """
    writer = unwrap(model)
    left, room = writer.generation_config.max_new_tokens, max_positions(writer.config)
    if room is None or ids.shape[1] + left <= room:
        found: list[list[int]] = model.generate(input_ids=ids, attention_mask=mask)[:, ids.shape[1] :].tolist()
        return found
    # One by one: where a text is cut must not depend on the rows beside it.
    return [
        _generate_in_windows(model, row[seen.bool()][None], left, room) for row, seen in zip(ids, mask, strict=True)
    ]


def _generate_in_windows(model: Any, prompt: torch.Tensor, left: int, room: int) -> list[int]:
    """The `left` tokens, or up to an end, that a model of `room` positions writes after a prompt of (1, T)."""
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
        left = left - step if more.shape[1] == step else 0  # it has ended
    written: list[int] = tokens[0, prompt.shape[1] :].tolist()
    return written
