"""A masked language model: which tokens are hidden, and does the second half follow the first?"""

import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import numpy
import torch
from torch.nn import functional

from llmft.models.labelled import labelled_output, mean_loss, sums_by_row
from llmft.models.tokenizers import BERT
from llmft.schema.model import ModelConfig
from llmft.schema.problem import Problem, UserError
from llmft.schema.tasks import IGNORED
from llmft.tasks.language_models import config as sections
from llmft.tasks.language_models.language_model import (
    Example,
    Key,
    LanguageModel,
    LanguageObjective,
    LanguageState,
    token_counts,
)
from llmft.tasks.objective import Batch
from llmft.tasks.task import UNSAVED, Answer

if TYPE_CHECKING:
    from datasets import Dataset

HIDDEN, ANOTHER = 0.8, 0.1  # of the tokens to be found; the rest stays as it is (Devlin et al. 2019, section 3.1)
# A space between two letters of a script that has none: BERT's tokenizers take each Chinese letter for a word.
SCRIPT = "[\u3000-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
UNSPACED = re.compile(f"(?<={SCRIPT}) (?={SCRIPT})")
BEST = 5  # fillings that `llmft predict` names


@dataclass
class MaskedState(LanguageState):
    """Also knows which tokens go on with a word, and while it trains, which are rare."""

    rarity: numpy.ndarray | None = field(default=None, compare=False, metadata=UNSAVED)
    """By token the weight with which it is drawn, at least 1; without it, all are drawn alike."""

    @cached_property
    def inside(self) -> numpy.ndarray:
        """By token, whether it goes on with the word of the token before it, as WordPiece marks it."""
        names = self.tokenizer.convert_ids_to_tokens(range(len(self.tokenizer)))
        return numpy.array([name.startswith("##") for name in names])

    @cached_property
    def texts(self) -> numpy.ndarray:
        """The tokens that stand for text."""
        return numpy.flatnonzero(self.ordinary)


class MaskedObjective(LanguageObjective):
    """The mean loss of the hidden tokens, plus that of the pairs with `task.next_sentence`."""

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        if not self.task.options.next_sentence:
            return super().loss(model, batch)
        labels, output = self._pair(model, batch)
        wanted = labels[labels != IGNORED]
        tokens = functional.cross_entropy(output.prediction_logits.float(), wanted, reduction="none")
        return mean_loss(tokens) + functional.cross_entropy(
            output.seq_relationship_logits.float(), batch["next_sentence_label"]
        )

    def scored(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        if not self.task.options.next_sentence:
            return super().scored(model, batch)
        labels, output = self._pair(model, batch)
        tokens = sums_by_row(output.prediction_logits.float(), labels, labels != IGNORED)
        right = output.seq_relationship_logits.argmax(-1) == batch["next_sentence_label"]
        return torch.cat([tokens, torch.ones_like(tokens[:, :1]), right[:, None].to(tokens.device).double()], dim=1)

    def _pair(self, model: Any, batch: Batch) -> tuple[torch.Tensor, Any]:
        inputs = {key: value for key, value in batch.items() if key not in ("labels", "next_sentence_label")}
        return batch["labels"], labelled_output(model, inputs, batch["labels"] != IGNORED)

    def answer(self, model: Any, batch: Batch) -> list[Any]:
        """Of each prompt its tokens, and of each place the likeliest tokens with their scores."""
        output = model(**batch)
        logits = output.prediction_logits if self.task.options.next_sentence else output.logits
        best = logits.float().softmax(-1).topk(min(BEST, logits.shape[-1]))
        found = (batch["input_ids"], best.indices, best.values)
        return list(zip(*(part.cpu().numpy() for part in found), strict=True))


class MaskedLm(LanguageModel):
    """What stands behind [MASK]?"""

    config = sections.MaskedLm
    special = BERT
    objective_class = MaskedObjective
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

    def trained_on(self, tokens: numpy.ndarray) -> Self:
        """With `mask_rare`, rare tokens are drawn more often. For scores all are alike: any two can be compared."""
        if not self.options.mask_rare or self.state.rarity is not None:
            return self
        counts = token_counts(tokens, len(self.state.tokenizer)).clip(min=1)
        return self.with_state(replace(self.state, rarity=(counts.max() / counts) ** self.options.mask_rare))

    def model_kwargs(self) -> dict[str, Any]:
        own = {"cls_token_id": self.state.tokenizer.cls_token_id, "sep_token_id": self.state.tokenizer.sep_token_id}
        return super().model_kwargs() | own

    def stride(self) -> int:
        return self.state.block - (3 if self.options.next_sentence else 2)

    def example(self, tokens: numpy.ndarray, key: Key, other: numpy.ndarray | None) -> Example:
        """Hide some tokens of `[CLS] tokens [SEP]`, or of `[CLS] first half [SEP] second half [SEP]`."""
        draw = numpy.random.default_rng(key)
        cls, sep = [self.state.tokenizer.cls_token_id], [self.state.tokenizer.sep_token_id]
        if not self.options.next_sentence:
            return self._hidden(numpy.concatenate([cls, tokens, sep]), draw)
        tokens = _longest(tokens, self.state.end)
        cut = int(draw.integers(len(tokens) + 1))
        first, second, strange = tokens[:cut], tokens[cut:], draw.random() < 0.5
        if strange and other is not None:
            second = _longest(other, self.state.end)[: len(second)]
        kinds = numpy.repeat([0, 1], [len(first) + 2, len(second) + 1])
        found = self._hidden(numpy.concatenate([cls, first, sep, second, sep]), draw)
        return found | {"token_type_ids": kinds, "next_sentence_label": int(strange and other is not None)}

    def _hidden(self, tokens: numpy.ndarray, draw: numpy.random.Generator) -> Example:
        """The tokens with some of them changed, and labels where they are to be found."""
        places = numpy.flatnonzero(self.state.ordinary[tokens])
        # What is hidden together: a word, or a token.
        words = (
            numpy.cumsum(~self.state.inside[tokens[places]]) if self.options.whole_word else numpy.arange(len(places))
        )
        rank = self._ranked(words, tokens[places], draw)[words]
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
        """In which turn each word is drawn; a word is as rare as its rarest token."""
        count = words.max(initial=0) + 1
        if self.state.rarity is None:
            return draw.permutation(count)
        rarity = numpy.ones(count)
        numpy.maximum.at(rarity, words, self.state.rarity[tokens])
        # A draw by weights, without putting back: Efraimidis and Spirakis 2006.
        return (draw.exponential(size=count) / rarity).argsort().argsort()

    def score(self, answers: list[Answer], references: "Dataset") -> dict[str, Any]:
        """Also the share of hidden tokens that are found, and of pairs that are told."""

        def share(part: str, whole: str) -> float:
            return sum(answer[part] for answer in answers) / max(sum(answer[whole] for answer in answers), 1)

        pairs = {"next_sentence_accuracy": share("right_pairs", "pairs")} if self.options.next_sentence else {}
        return super().score(answers, references) | {"accuracy": share("right", "tokens"), **pairs}

    def refused(self, text: str) -> str:
        mask, length = self.state.tokenizer.mask_token, len(self.prompt(text))
        if self.state.tokenizer.mask_token_id not in self.prompt(text):
            return f"has no {mask}, where a word is to be found"
        return f"has {length:,} tokens, and the model reads {self.state.block:,}" if length > self.state.block else ""

    def prompt(self, text: str) -> list[int]:
        found: list[int] = self.state.tokenizer(text, padding=False, truncation=False, verbose=False)["input_ids"]
        return found

    def said(self, output: Any) -> Answer:
        """The text with the likeliest words put in, and for each place the words that come into question."""
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
    """The longest run that lies in one document."""
    ends = [-1, *numpy.flatnonzero(tokens == end), len(tokens)]
    return max((tokens[before + 1 : after] for before, after in pairwise(ends)), key=len)
