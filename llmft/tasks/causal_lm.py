"""A causal language model: which token comes next?"""

import math
from typing import Any

import numpy
import torch
from datasets import Dataset

from llmft.models.adapters import within
from llmft.models.special import GPT
from llmft.schema.tasks import causal_lm as schema
from llmft.tasks.language_model import Example, Key, LanguageModel, LanguageState
from llmft.tasks.task import Answer


class CausalLm(LanguageModel):
    """How likely is a text, and how does it go on?"""

    config = schema.CausalLm
    special = GPT
    head = "AutoModelForCausalLM"
    context = 1

    def needed(self, state: LanguageState) -> dict[str, Any]:
        # Without it BERT and its kin would see the tokens that they are to say.
        return super().needed(state) | {"is_decoder": True}

    def stride(self, state: LanguageState) -> int:
        return state.block

    def example(self, tokens: numpy.ndarray, key: Key, state: LanguageState, other: numpy.ndarray | None) -> Example:
        """Each place says the token after it."""
        return {"input_ids": tokens[:-1], "labels": tokens[1:]}

    def metrics(self, answers: list[Answer], references: Dataset, state: LanguageState) -> dict[str, Any]:
        """Also the bits that a byte of text costs, a number that does not depend on the tokenizer."""
        size = sum(len(text.encode()) for text in references["text"])
        return super().metrics(answers, references, state) | {
            "bits_per_byte": self.nats(answers) / math.log(2) / max(size, 1)
        }

    def prompt(self, text: str, state: LanguageState) -> list[int]:
        """As much of the end of the text as the model reads."""
        tokens = self.tokens([text], state)[0]
        return [state.start] if not tokens else tokens[-state.block :]

    def answer(self, model: Any, batch: dict[str, torch.Tensor]) -> list[Any]:
        """The tokens after each prompt. Where the model's positions end, it goes on from the last half of them."""
        writer = within(model)
        left = writer.generation_config.max_new_tokens
        room = getattr(writer.config, "max_position_embeddings", None) or math.inf
        tokens, mask = batch["input_ids"], batch["attention_mask"]
        begin = tokens.shape[1]
        while left > 0:
            kept = min(tokens.shape[1], room - 1 if tokens.shape[1] < room else max(room // 2, 1))
            step = min(left, room - kept)
            found = model.generate(
                input_ids=tokens[:, -kept:], attention_mask=mask[:, -kept:], max_new_tokens=int(step)
            )[:, kept:]
            tokens = torch.cat([tokens, found], dim=1)
            mask = torch.cat([mask, torch.ones_like(found)], dim=1)
            left -= step
            if found.shape[1] < step:  # all have ended
                break
        return list(tokens[:, begin:].cpu().numpy())

    def said(self, output: Any, state: LanguageState) -> Answer:
        """What follows the text, up to the end of the document."""
        ends = numpy.flatnonzero(output == state.end)
        return {"answer": state.tokenizer.decode(output[: ends[0]] if len(ends) else output)}
