"""How a model writes texts: our section `generation` in the words of transformers, kept with the model."""

from typing import Any

import torch
import transformers

from llmft.models.adapters import within
from llmft.models.exported import Exported
from llmft.schema.generation import GenerationConfig


def set_generation(model: Any, wanted: GenerationConfig) -> None:
    """Let `model.generate` write as `wanted` says; a model that does not write is left as it is.

    The special tokens stay those of the model. Where nothing is drawn, what only drawing reads is left out.
    """
    writer = within(model)
    if isinstance(writer, Exported) or not writer.can_generate():
        return
    sampling = {"temperature": wanted.temperature, "top_k": wanted.top_k or 0, "top_p": wanted.top_p or 1.0}
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
        repetition_penalty=wanted.repetition_penalty,
        no_repeat_ngram_size=wanted.no_repeat or 0,
    )


def written_after(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> list[list[int]]:
    """The tokens that a decoder writes after prompts.

    A model that has only so many positions sees of a prompt the last tokens that leave room for what it may write.

    Args:
        ids: (B, T), padded on the left.
        mask: (B, T), 0 where it is padded.
    """
    writer = within(model)
    room = getattr(writer.config, "max_position_embeddings", None)
    if isinstance(room, int):
        first = max(0, ids.shape[1] - max(1, room - (writer.generation_config.max_new_tokens or 0)))
        ids, mask = ids[:, first:], mask[:, first:]
    found: list[list[int]] = model.generate(input_ids=ids, attention_mask=mask)[:, ids.shape[1] :].tolist()
    return found
