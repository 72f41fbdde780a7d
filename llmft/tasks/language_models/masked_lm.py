"""A masked language model: hidden tokens are predicted, and whether a second text follows the first."""

import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import numpy

from llmft.schema.model import BERT, ModelConfig
from llmft.schema.problem import Problem, UserError
from llmft.schema.tasks import IGNORED
from llmft.tasks.language_models import config as sections
from llmft.tasks.language_models.language_model import Example, Key, LanguageModel, LanguageState, token_counts
from llmft.tasks.task import UNSAVED, Answer

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset

# Of the tokens to predict, these shares become [MASK] and a random token; the others stay, since the texts of later
# tasks have no [MASK] (Devlin et al. 2019, section 3.1).
HIDDEN, ANOTHER = 0.8, 0.1
# A space between two characters of a script that has none: to BERT's tokenizers each Chinese character is a word.
SCRIPT = "[\u3000-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
UNSPACED = re.compile(f"(?<={SCRIPT}) (?={SCRIPT})")
BEST = 5  # tokens with scores for each mask of a prediction: they fit in a line


@dataclass
class MaskedState(LanguageState):
    """Also knows which tokens continue a word, and during training, which are rare."""

    rarity: numpy.ndarray | None = field(default=None, compare=False, metadata=UNSAVED)
    """(vocabulary,): the weight with which a token is drawn, at least 1. None: all have the same."""

    @cached_property
    def inside(self) -> numpy.ndarray:
        """(vocabulary,): whether a token continues the word of the token before it; WordPiece writes it as `##ing`."""
        names = map(self.tokenizer.backend.id_to_token, range(len(self.tokenizer)))
        return numpy.array([name is not None and name.startswith("##") for name in names])

    @cached_property
    def texts(self) -> numpy.ndarray:
        """The tokens that are text: a hidden token may become one of them."""
        return numpy.flatnonzero(self.ordinary)


class MaskedLm(LanguageModel):
    """What stands behind [MASK]?"""

    config = sections.MaskedLm
    special = BERT
    objective_class = "llmft.tasks.token_objectives:MaskedObjective"
    state_class = MaskedState
    state: MaskedState

    @property
    def head(self) -> str:  # type: ignore[override]
        return "AutoModelForPreTraining" if self.options.next_sentence else "AutoModelForMaskedLM"

    @property
    def paired(self) -> bool:  # type: ignore[override]
        return bool(self.options.next_sentence)

    @property
    def counts(self) -> tuple[str, ...]:  # type: ignore[override]
        more = ("pairs", "right_pairs") if self.options.next_sentence else ()
        return ("tokens", "right", *more)

    def learn(self, train: "Dataset", model: ModelConfig) -> MaskedState:
        state = super().learn(train, model)
        tokenizer = state.tokenizer
        lacking = [name for name in ("mask", "cls", "sep") if getattr(tokenizer, f"{name}_token") is None]
        if lacking:
            what = f"the tokenizer has no {lacking[0]} token, which a masked language model reads"
            raise UserError(Problem("model.tokenizer", what, hint="Choose the tokenizer of a BERT, or a new one."))
        found = MaskedState(tokenizer, state.block, new=state.new)
        if self.options.whole_word and not found.inside.any():
            what = "words are known by the pieces of WordPiece, and this tokenizer has none"
            raise UserError(Problem("task.whole_word", what, hint="Leave it out."))
        return found

    def for_training(self, tokens: numpy.ndarray) -> Self:
        """With `mask_rare`, rare tokens are drawn more often; in evaluation all alike, so that runs can be compared."""
        if not self.options.mask_rare or self.state.rarity is not None:
            return self
        counts = token_counts(tokens, len(self.state.tokenizer)).clip(min=1)
        # A power of the inverse frequency: with 1, all tokens of the vocabulary are hidden about equally often.
        return self.with_state(replace(self.state, rarity=(counts.max() / counts) ** self.options.mask_rare))

    def model_kwargs(self) -> dict[str, Any]:
        own = {"cls_token_id": self.state.tokenizer.cls_token_id, "sep_token_id": self.state.tokenizer.sep_token_id}
        return super().model_kwargs() | own

    def stride(self) -> int:
        return self.state.block - (3 if self.options.next_sentence else 2)

    def example(self, tokens: numpy.ndarray, key: Key, other: numpy.ndarray | None) -> Example:
        """Hide some tokens of `[CLS] tokens [SEP]`, or of `[CLS] first part [SEP] second part [SEP]`."""
        draw = numpy.random.default_rng(key)
        cls, sep = [self.state.tokenizer.cls_token_id], [self.state.tokenizer.sep_token_id]
        if not self.options.next_sentence:
            return self._hidden(numpy.concatenate([cls, tokens, sep]), draw)
        # Both parts come from one document: the end of another one would give the answer away.
        tokens = _longest(tokens, self.state.end)
        cut = int(draw.integers(len(tokens) + 1))
        first, second, strange = tokens[:cut], tokens[cut:], draw.random() < 0.5
        if strange and other is not None:
            second = _longest(other, self.state.end)[: len(second)]
        kinds = numpy.repeat([0, 1], [len(first) + 2, len(second) + 1])
        found = self._hidden(numpy.concatenate([cls, first, sep, second, sep]), draw)
        return found | {"token_type_ids": kinds, "next_sentence_label": int(strange and other is not None)}

    def _hidden(self, tokens: numpy.ndarray, draw: numpy.random.Generator) -> Example:
        """The tokens with some of them changed, and labels where they are predicted."""
        places = numpy.flatnonzero(self.state.ordinary[tokens])
        # What is hidden together is a word, or a token; tokens of one word have one number.
        words = (
            numpy.cumsum(~self.state.inside[tokens[places]]) if self.options.whole_word else numpy.arange(len(places))
        )
        rank = self._ranked(words, tokens[places], draw)[words]
        # At least one token, so that a short row has a loss.
        least = numpy.sort(rank)[: max(1, round(self.options.mask_share * len(places)))]
        chosen = places[rank <= least[-1]] if len(least) else places
        labels = numpy.full(len(tokens), IGNORED)
        labels[chosen] = tokens[chosen]
        how = draw.random(len(chosen))
        changed = tokens.copy()
        changed[chosen[how < HIDDEN]] = self.state.tokenizer.mask_token_id
        others = chosen[(how >= HIDDEN) & (how < HIDDEN + ANOTHER)]
        changed[others] = draw.choice(self.state.texts, len(others))
        return {"input_ids": changed, "labels": labels}

    def _ranked(self, words: numpy.ndarray, tokens: numpy.ndarray, draw: numpy.random.Generator) -> numpy.ndarray:
        """(words,): the order in which words are drawn. A word is as rare as its rarest token."""
        count = words.max(initial=0) + 1
        if self.state.rarity is None:
            return draw.permutation(count)
        rarity = numpy.ones(count)
        numpy.maximum.at(rarity, words, self.state.rarity[tokens])
        # Weighted sampling without replacement: the order of exponential times (Efraimidis and Spirakis 2006).
        return (draw.exponential(size=count) / rarity).argsort().argsort()

    def score(self, answers: list[Answer], references: "Dataset") -> dict[str, Any]:
        """Also the share of hidden tokens, and of pairs, that are predicted right."""
        shares = {"accuracy": ("right", "tokens")}
        if self.options.next_sentence:
            shares["next_sentence_accuracy"] = ("right_pairs", "pairs")
        sums = {name: [sum(answer[key] for answer in answers) for key in pair] for name, pair in shares.items()}
        return super().score(answers, references) | {
            name: part / whole for name, (part, whole) in sums.items() if whole
        }

    def notes_on(self, rows: "Dataset | None", split: str, features: "pyarrow.Table | None" = None) -> list[str]:
        """Whether no token of the rows can be hidden, so that there is nothing to score."""
        if self.state.inference or rows is None:
            return []
        known = (self.state.ordinary[tokens].any() for text in rows["text"] for tokens in self.tokens([text]))
        if any(known):  # as a rule the first text has one
            return []
        what = f"holds only special tokens such as {self.state.tokenizer.unk_token}: no token can be hidden"
        return [f"{split}: {what}, and there is no perplexity"]

    def example_row(self) -> dict[str, Any]:
        return {"text": f"Some {self.state.tokenizer.mask_token}"}

    def why_unanswerable(self, text: str) -> str:
        mask, length = self.state.tokenizer.mask_token, len(self.prompt(text))
        if self.state.tokenizer.mask_token_id not in self.prompt(text):
            return f"has no {mask}, where a word is to be found"
        return f"has {length:,} tokens, and the model reads {self.state.block:,}" if length > self.state.block else ""

    def prompt(self, text: str) -> list[int]:
        (encoding,) = self.state.tokenizer.encode([text], split_special=False)
        return list(encoding.ids)

    def to_answer(self, output: Any) -> Answer:
        """The text with the likeliest token in place of each mask; `scores` are the BEST tokens of each mask."""
        tokens, best, scores = output
        tokens, tokenizer = tokens.copy(), self.state.tokenizer
        places = numpy.flatnonzero(tokens == tokenizer.mask_token_id)
        fills = [
            {tokenizer.decode([token]).strip(): round(float(score), 6) for token, score in zip(*line, strict=True)}
            for line in zip(best[places], scores[places], strict=True)
        ]
        tokens[places] = best[places, 0]
        text = UNSPACED.sub("", tokenizer.decode(tokens, skip_special_tokens=True))
        return {"answer": text, "scores": fills}


def _longest(tokens: numpy.ndarray, end: int) -> numpy.ndarray:
    """The longest run of tokens within one document."""
    ends = [-1, *numpy.flatnonzero(tokens == end), len(tokens)]
    return max((tokens[before + 1 : after] for before, after in pairwise(ends)), key=len)
