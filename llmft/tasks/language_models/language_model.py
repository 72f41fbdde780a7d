"""What the tasks on raw text share: texts become tokens, tokens become examples, and an example has a loss."""

import random
import zlib
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy

from llmft.data.source import Rows
from llmft.metrics.calibration import perplexity
from llmft.schema.column import CORPUS_COLUMNS, Column
from llmft.schema.model import ModelConfig, SpecialTokens
from llmft.schema.problem import Problem
from llmft.tasks.task import Answer, Features, RowScore, State, Task
from llmft.tasks.tokenizer import Tokenizer

if TYPE_CHECKING:
    from datasets import Dataset

PART = 2**20  # tokens of a file that are counted at once: 8 MB as int64
SHOWN = 300  # characters of a document in predictions and reports: four lines of a terminal
Key = tuple[int, ...] | int
"""The seed of the random numbers of an example, which depend on nothing else."""
Example = dict[str, Any]


@dataclass
class LanguageState(State):
    """The tokenizer, and how many tokens the model reads at once."""

    tokenizer: Tokenizer
    block: int
    new: bool = field(default=False, compare=False)
    """Whether the weights are trained from scratch, and so have seen no more than a block."""

    @property
    def description(self) -> str:
        return f"vocabulary of {len(self.tokenizer):,}, blocks of {self.block:,}"

    @property
    def max_length(self) -> int:
        """The most tokens that the model reads at once, as other states call it."""
        return self.block

    @cached_property
    def end(self) -> int:
        """The token after a document."""
        found = (self.tokenizer.eos_token_id, self.tokenizer.sep_token_id, self.tokenizer.pad_token_id)
        return next(token for token in found if token is not None)

    @cached_property
    def start(self) -> int:
        """The token before a document: the tokenizer's own, or else the token that ends one."""
        return self.end if self.tokenizer.bos_token_id is None else int(self.tokenizer.bos_token_id)

    @cached_property
    def ordinary(self) -> numpy.ndarray:
        """(vocabulary,): whether a token is text; special tokens are not."""
        ordinary = numpy.ones(len(self.tokenizer), dtype=bool)
        ordinary[self.tokenizer.all_special_ids] = False
        return ordinary


class LanguageModel(Task[LanguageState]):
    """A task on raw text. Training reads blocks of all documents joined; each document is scored by itself."""

    corpus = True
    objective_class: ClassVar[str] = "llmft.tasks.token_objectives:LanguageObjective"
    state_class = LanguageState
    options: Any
    special: ClassVar[SpecialTokens]
    """The special tokens of a tokenizer that is trained for this task."""
    context: ClassVar[int] = 0
    """Tokens before those of an example that the model reads and does not predict."""
    paired = False
    """Whether an example may contain tokens of another one."""
    counts: tuple[str, ...] = ("tokens",)
    """What the objective counts."""

    @property
    def columns(self) -> dict[str, Column]:
        return CORPUS_COLUMNS

    def learn(self, train: "Dataset", model: ModelConfig) -> LanguageState:
        from llmft.data.corpus import tokenizer_texts
        from llmft.models.tokenizers import SAMPLE, check_language, load

        tokenizer = load(model, tokenizer_texts(train), self.special)
        check_language([text[:SHOWN] for text in train["text"][:SAMPLE]], tokenizer)
        new = model.first_weights != "pretrained"
        if new:  # pretrained weights keep their own limit
            tokenizer.model_max_length = self.options.block
        return LanguageState(tokenizer, self.options.block, new=new)

    def model_kwargs(self) -> dict[str, Any]:
        special = {
            "pad_token_id": self.state.tokenizer.pad_token_id,
            "bos_token_id": self.state.start,
            "eos_token_id": self.state.end,
        }
        # The positions beyond a block stay random. A later fine-tuning on longer inputs must know the limit.
        seen = {"trained_positions": self.state.block} if self.state.new else {}
        return {"vocab_size": len(self.state.tokenizer), "max_position_embeddings": self.state.block, **seen, **special}

    def check(self, rows: Rows, split: str) -> list[Problem]:
        texts = enumerate(rows["text"]) if self.state.inference else ()
        return [
            Problem(rows["id"][row], why)
            for row, text in texts
            if text is not None and (why := self.why_unanswerable(text))
        ]

    def why_unanswerable(self, text: str) -> str:
        """Why a text cannot be answered; empty if it can."""
        return ""

    def for_training(self, tokens: numpy.ndarray) -> Self:
        """The task that makes the training examples; `tokens` are those of the whole training text."""
        return self

    @abstractmethod
    def stride(self) -> int:
        """How many tokens of the corpus an example is made of."""

    @abstractmethod
    def example(self, tokens: numpy.ndarray, key: Key, other: numpy.ndarray | None) -> Example:
        """The example that is made of `context` + `stride` tokens, or fewer.

        Args:
            key: the seed of all random numbers.
            other: tokens from elsewhere in the corpus, for a `paired` task.
        """

    def tokens(self, texts: list[str]) -> list[list[int]]:
        """The tokens of texts. What looks like a special token is encoded as plain text."""
        return [encoding.ids for encoding in self.state.tokenizer.encode(texts, special=False)]

    def encode(self, rows: dict[str, list[Any]]) -> Features:
        if self.state.inference:
            prompts = [self.prompt(text) for text in rows["text"]]
            lengths = list(map(len, prompts))
            return {"input_ids": prompts, "row": list(range(len(prompts))), "length": lengths}
        windows = list(self.windows(rows))
        examples, others = [], len(windows) - 1
        for number, (_, window) in enumerate(windows):
            key = zlib.crc32(window.tobytes())  # so the same text is masked in the same way in every split and batch
            paired = self.paired and others
            other = windows[(number + 1 + key % others) % len(windows)][1] if paired else None
            examples.append(self.example(window, key, other))
        features: Features = {name: [_plain(example[name]) for example in examples] for name in examples[0]}
        return features | {"row": [row for row, _ in windows], "length": list(map(len, features["input_ids"]))}

    def windows(self, rows: dict[str, list[Any]]) -> Iterator[tuple[int, numpy.ndarray]]:
        """Rows and their tokens, `stride` at a time with `context` tokens before them: each token is predicted once.

        With a context, the start token stands before a document, and the end token is predicted as well.
        """
        documents = rows.get("document") or [None] * len(rows["text"])
        joins = [False, *(a is not None and a == b for a, b in pairwise(documents)), False]
        before = self.state.start
        for row, tokens in enumerate(self.tokens(rows["text"])):
            if self.context:
                tokens = [
                    before if joins[row] else self.state.start,
                    *tokens,
                    *([] if joins[row + 1] else [self.state.end]),
                ]
                before = tokens[-1]
            whole, stride = numpy.asarray(tokens, dtype=numpy.int64), self.stride()
            for first in range(0, max(len(whole) - self.context, 1), stride):
                yield row, whole[first : first + stride + self.context]

    @abstractmethod
    def prompt(self, text: str) -> list[int]:
        """The tokens of a text that `llmft predict` is given."""

    @abstractmethod
    def to_answer(self, output: Any) -> Answer:
        """The answer for an output of `LanguageObjective.answer`."""

    def decode(self, outputs: list[Any], rows: list[int]) -> list[Answer]:
        if self.state.inference:
            return [self.to_answer(output) for output in outputs]
        sums = numpy.zeros((max(rows) + 1, 1 + len(self.counts)))
        numpy.add.at(sums, rows, numpy.asarray(outputs))
        return [
            {"answer": nats / counts[0] if counts[0] else None}
            | {name: int(count) for name, count in zip(self.counts, counts, strict=True)}
            for nats, *counts in sums.tolist()
        ]

    def score(self, answers: list[Answer], references: "Dataset") -> dict[str, Any]:
        """Over all documents: how many tokens are predicted, and their perplexity, if there are any."""
        tokens = sum(answer["tokens"] for answer in answers)
        return ({"perplexity": perplexity(self.nats(answers) / tokens)} if tokens else {}) | {"tokens": tokens}

    @staticmethod
    def nats(answers: list[Answer]) -> float:
        """The summed loss of the tokens of all documents."""
        return sum(answer["answer"] * answer["tokens"] for answer in answers if answer["tokens"])

    def format_input(self, row: dict[str, Any]) -> str:
        text = str(row["text"])
        return text if len(text) <= SHOWN else f"{text[:SHOWN]} …"

    def reference(self, row: dict[str, Any]) -> Any:
        return None

    def row_score(self, answer: Answer, reference: Any) -> RowScore:
        """The loss, a mean over all tokens; the report shows the documents with the highest one."""
        loss = answer["answer"] or 0.0
        return RowScore("loss", loss * answer["tokens"], answer["tokens"], error=loss, why=f"loss {loss:.4f}")

    def synthetic_rows(self, rows: int, seed: int) -> dict[str, list[Any]]:
        """Documents about one of sixteen topics: two words of the topic in alternation."""
        rng = random.Random(seed)
        texts = []
        for _ in range(rows):
            topic, begin = rng.choice("bdfghjklmnprstvz"), rng.randrange(2)
            texts.append(" ".join(f"{topic}{'ao'[(begin + place) % 2]}n" for place in range(rng.randint(20, 60))))
        return {"text": texts}


def token_counts(tokens: numpy.ndarray, size: int) -> numpy.ndarray:
    """(size,): how often each token occurs; `tokens` may be a file larger than memory."""
    counts = numpy.zeros(size, dtype=numpy.int64)
    for start in range(0, len(tokens), PART):
        counts += numpy.bincount(tokens[start : start + PART], minlength=size)
    return counts


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, numpy.ndarray) else value
