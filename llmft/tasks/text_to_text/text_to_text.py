"""What tasks share that answer a text with a text: an encoder reads, a decoder writes."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from llmft.schema.column import Column
from llmft.schema.model import T5, ModelConfig
from llmft.schema.problem import Problem, UserError, missing_package
from llmft.tasks.task import Answer, Features, RowScore, State, Task
from llmft.tasks.text_to_text.config import TextToTextConfig
from llmft.tasks.tokenizer import Tokenizer, tokens_around

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast

# T5's special tokens without its sentinels; its decoder begins with the padding token.
SPECIAL = replace(T5, more=())
MANY_LANGUAGES = "Choose a model of both languages, or model.init=random with a tokenizer that is trained here."


@dataclass
class TextToTextState(State):
    """The tokenizer, and the limits of lengths."""

    tokenizer: Tokenizer
    max_length: int
    max_output_length: int
    start: int | None
    """The first token of a decoder with random weights; None for pretrained weights, whose configuration has it."""
    remarks: list[str]
    """What the user should know of the tokenizer, a line each."""
    around_target: list[list[int]] | None = field(default=None, kw_only=True)
    """The special tokens before and after a text that the decoder writes, such as the code of its language. None in
    runs of earlier versions, which did not keep them."""

    @cached_property
    def target_tokens(self) -> list[list[int]]:
        """`around_target`; for a run of an earlier version, what the tokenizer of transformers says."""
        return self.around_target or around_target(self.tokenizer.pretrained)

    @property
    def notes(self) -> list[str]:
        return self.remarks

    @property
    def description(self) -> str:
        return f"texts of at most {self.max_length} tokens to texts of at most {self.max_output_length}"


S = TypeVar("S", bound=TextToTextState)


class TextToText(Task[S]):
    """A text for a text."""

    head = "AutoModelForSeq2SeqLM"
    objective_class = "llmft.tasks.token_objectives:TextToTextObjective"
    # Positions count from the left, and the decoder of BART attends to padding that stands before a text in spite of
    # the mask (see `Tokenizer.padding_side`).
    padding_side = "right"
    separator = " ⏐ "
    source_role: ClassVar[str]
    """The role of the text that is read."""
    target_role: ClassVar[str]
    """The role of the right texts, of which training takes the first."""
    scores_by: ClassVar[str]
    """The package that computes the metrics."""
    likeness_metric: ClassVar[str]
    """The metric that `likeness` computes for one answer."""
    options: TextToTextConfig

    @property
    def columns(self) -> dict[str, Column]:
        return {self.source_role: Column("text"), self.target_role: Column("texts", target=True)}

    @abstractmethod
    def make_state(self, train: "Dataset", **found: Any) -> S:
        """The state of the task: `found` are the fields that all such tasks share."""

    def learn(self, train: "Dataset", model: ModelConfig) -> S:
        if problems := missing_package("task", self.options.name, self.scores_by, "text"):
            raise UserError(problems)
        from llmft.models.build import clip_length
        from llmft.models.tokenizers import SAMPLE, load

        tokenizer = load(model, self._texts(train), SPECIAL)
        if tokenizer.eos_token is None:
            what = "has no token that ends a text, so that a model would never stop writing"
            raise UserError(Problem("model.tokenizer", what, hint="Choose the tokenizer of an encoder-decoder."))
        return self.make_state(
            train,
            tokenizer=tokenizer,
            max_length=clip_length(self.options.max_length, model),
            max_output_length=clip_length(self.options.max_output_length, model),
            start=tokenizer.pad_token_id if model.path is None else None,
            remarks=self._remarks(train[:SAMPLE], tokenizer),
            around_target=around_target(tokenizer),
        )

    def _texts(self, rows: "Dataset") -> Iterator[str]:
        """All texts that are read or written."""
        yield from rows[self.source_role]
        for texts in rows[self.target_role]:
            yield from texts

    def _remarks(self, rows: dict[str, list[Any]], tokenizer: "PreTrainedTokenizerFast") -> list[str]:
        """Notes on what the tokenizer loses of the texts.

        Raises:
            UserError: if it does not know most of their words.
        """
        from llmft.models.tokenizers import check_language, unknown, unwritable

        targets = [texts[0] for texts in rows[self.target_role]]
        found = []
        for role, texts in ((self.source_role, rows[self.source_role]), (self.target_role, targets)):
            check_language(texts, tokenizer, MANY_LANGUAGES)
            if (share := unknown(texts, tokenizer)) >= 0.001:
                found.append(f"train: {share:.1%} of the tokens of {role} are unknown to the tokenizer")
        return found + unwritable(self.target_role, targets, tokenizer)

    def model_kwargs(self) -> dict[str, Any]:
        sizes = {
            "vocab_size": len(self.state.tokenizer),
            "max_position_embeddings": max(self.state.max_length, self.state.max_output_length),
        }
        if self.state.start is None:
            return sizes
        special = {"pad_token_id": self.state.tokenizer.pad_token_id, "eos_token_id": self.state.tokenizer.eos_token_id}
        return sizes | special | {"decoder_start_token_id": self.state.start}

    def encode(self, rows: dict[str, list[Any]]) -> Features:
        texts = [self.options.prefix + text for text in rows[self.source_role]]
        tokenizer, length = self.state.tokenizer, self.state.max_output_length
        features: Features = {}
        if self.target_role in rows:
            before, after = self.state.target_tokens
            encoded = tokenizer.encode([texts[0] for texts in rows[self.target_role]], special=False)
            room = length - len(before) - len(after)
            kept = slice(-room, None) if tokenizer.truncation_side == "left" else slice(room)
            features["labels"] = self._ended([[*before, *target.ids[kept], *after] for target in encoded], length)
        # Last, so that the saved tokenizer.json has the length of inputs.
        sources = tokenizer.encode(texts, max_length=self.state.max_length)
        features["input_ids"] = self._ended([source.ids for source in sources], self.state.max_length)
        features["row"] = list(range(len(texts)))
        features["length"] = list(map(len, features["input_ids"]))
        features["cut"] = [bool(source.overflowing) for source in sources]
        return features

    def _ended(self, rows: list[list[int]], length: int) -> list[list[int]]:
        """The rows, each at most `length` long, and ended by the end token whether or not the tokenizer adds it."""
        end = self.state.tokenizer.eos_token_id
        return [ids if ids[-1:] == [end] else [*ids[: length - 1], end] for ids in rows]

    def decode(self, outputs: list[Any], rows: list[int]) -> list[Answer]:
        return [{"answer": self.state.tokenizer.decode(ids, skip_special_tokens=True).strip()} for ids in outputs]

    def format_input(self, row: dict[str, Any]) -> str:
        return str(row[self.source_role])

    def reference(self, row: dict[str, Any]) -> Any:
        texts = row.get(self.target_role)
        return texts[0] if texts and len(texts) == 1 else texts

    @abstractmethod
    def likeness(self, answer: str, right: list[str]) -> float:
        """How close one answer is to the nearest right text, from 0 to 1."""

    @abstractmethod
    def format_likeness(self, likeness: float) -> str:
        """The likeness as a report shows it, with the name of the metric."""

    def row_score(self, answer: Answer, reference: Any) -> RowScore:
        """The likeness of the answer: a corpus metric such as BLEU is not a mean over rows."""
        right = [reference] if isinstance(reference, str) else reference
        if not right:
            return RowScore(self.likeness_metric, 0.0)
        part = self.likeness(answer["answer"], right)
        error = 0.0 if answer["answer"] in right else 1 - part
        return RowScore(self.likeness_metric, part, error=error, why=self.format_likeness(part))


def around_target(tokenizer: "PreTrainedTokenizerFast") -> list[list[int]]:
    """The special tokens before and after a text that the decoder writes.

    Of mBART and NLLB these are others than around a text that is read: the code of another language.
    """
    whole, bare = (tokenizer(text_target="a", add_special_tokens=special)["input_ids"] for special in (True, False))
    return list(tokens_around(whole, bare))
