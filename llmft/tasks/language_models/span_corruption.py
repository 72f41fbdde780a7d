"""Span corruption: runs of tokens are cut out of a text, and a decoder writes them."""

import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy

from llmft.schema.model import T5, ModelConfig
from llmft.tasks.language_models import config as sections
from llmft.tasks.language_models.language_model import Example, Key, LanguageModel, LanguageState
from llmft.tasks.task import Answer

if TYPE_CHECKING:
    from datasets import Dataset

SENTINEL = "<extra_id_{}>"  # as T5 calls them, so that its tokenizers and weights can be used


class SpanState(LanguageState):
    """Also knows the sentinels, the tokens in place of what was cut out."""

    @cached_property
    def sentinels(self) -> numpy.ndarray:
        """(count,): their ids, in the order in which a text has them."""
        known = self.tokenizer.backend.get_vocab()
        return numpy.array([known[name] for i in range(len(known)) if (name := SENTINEL.format(i)) in known])


class SpanCorruption(LanguageModel):
    """Which words are missing?"""

    config = sections.SpanCorruption
    special = T5
    objective_class = "llmft.tasks.token_objectives:GapObjective"
    head = "AutoModelForSeq2SeqLM"
    state_class = SpanState
    state: SpanState

    def learn(self, train: "Dataset", model: ModelConfig) -> SpanState:
        state = super().learn(train, model)
        # As many sentinels as the longest example needs; each costs a row of embeddings.
        most = self._cut(self.with_state(SpanState(state.tokenizer, state.block)).stride())[1]
        state.tokenizer.add_tokens([SENTINEL.format(number) for number in range(most)], special_tokens=True)
        return SpanState(state.tokenizer, state.block)

    def model_kwargs(self) -> dict[str, Any]:
        return super().model_kwargs() | {"decoder_start_token_id": self.state.tokenizer.pad_token_id}

    def stride(self) -> int:
        """As many as leave `block` tokens to read, after the runs are replaced and the end token is added."""
        # Runs shrink to sentinels, so more tokens than a block fit into one: by trial, since rounding has no inverse.
        length = self.state.block - 1
        while (longer := length + 1) - self._cut(longer)[0] + self._cut(longer)[1] + 1 <= self.state.block:
            length = longer
        return length

    def _cut(self, length: int) -> tuple[int, int]:
        """How many tokens of a text of this length are cut out, and in how many runs."""
        # At least one token is cut out, and at least one stays, however short the text is.
        tokens = min(max(round(length * self.options.density), 1), max(length - 1, 1))
        return tokens, min(max(round(tokens / self.options.mean_length), 1), tokens, max(length - tokens, 1))

    def example(self, tokens: numpy.ndarray, key: Key, other: numpy.ndarray | None) -> Example:
        """The text with a sentinel in place of each run, and as labels the runs, each after its sentinel.

        Runs are drawn as in Raffel et al. 2020 (section 3.1.4): all divisions into so many runs of so many tokens are
        equally likely, and a text begins with a token that stays.
        """
        end = [self.state.end]
        if len(tokens) < 2:  # nothing could stay: the whole text is cut out
            return {
                "input_ids": numpy.concatenate([self.state.sentinels[:1], end]),
                "labels": numpy.array([*self.state.sentinels[:1], *tokens, *end]),
            }
        draw = numpy.random.default_rng(key)
        count, runs = self._cut(len(tokens))
        # (runs, 2), read row by row: kept and cut runs alternate, a kept one first, with which the text begins.
        lengths = numpy.stack([_parts(len(tokens) - count, runs, draw), _parts(count, runs, draw)], axis=1).ravel()
        pieces = numpy.split(tokens, numpy.cumsum(lengths)[:-1])
        marks = self.state.sentinels[:runs, None]
        kept = [part for pair in zip(pieces[::2], marks, strict=True) for part in pair]
        said = [part for pair in zip(marks, pieces[1::2], strict=True) for part in pair]
        return {"input_ids": numpy.concatenate([*kept, end]), "labels": numpy.concatenate([*said, end])}

    def example_row(self) -> dict[str, Any]:
        return {"text": f"Some {SENTINEL.format(0)}"}

    def why_unanswerable(self, text: str) -> str:
        if SENTINEL.format(0) not in text:
            return f"has no {SENTINEL.format(0)}, where words are to be found"
        length = len(self.prompt(text))
        return f"has {length:,} tokens, and the model reads {self.state.block:,}" if length > self.state.block else ""

    def prompt(self, text: str) -> list[int]:
        (encoding,) = self.state.tokenizer.encode([text], special=False, split_special=False)
        return [*encoding.ids, self.state.end]

    def to_answer(self, output: Any) -> Answer:
        """The text, with what the decoder wrote in place of each sentinel."""
        # Not skip_special_tokens: sentinels are special too, and mark where the parts belong.
        special = {self.state.end, self.state.tokenizer.pad_token_id}
        text, written = (self.state.tokenizer.decode([t for t in tokens if t not in special]) for tokens in output)
        mark = re.compile("(" + SENTINEL.format(r"\d+") + ")")
        _, *parts = mark.split(written)
        fills = dict(zip(parts[::2], map(str.strip, parts[1::2]), strict=True))
        return {"answer": mark.sub(lambda found: fills.get(found[0], found[0]), text)}


def _parts(whole: int, count: int, draw: numpy.random.Generator) -> numpy.ndarray:
    """`count` lengths of at least 1 with the sum `whole`, all divisions equally likely."""
    # Stars and bars: `count - 1` distinct cuts among `whole - 1` gaps are one division each.
    cuts = numpy.sort(draw.choice(whole - 1, count - 1, replace=False)) + 1
    return numpy.diff(numpy.concatenate([[0], cuts, [whole]]))
