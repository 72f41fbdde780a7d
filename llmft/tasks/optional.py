"""What only some tasks can do, a protocol each. A task has it by having its methods; commands ask with isinstance."""

from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy
    import pyarrow
    import torch
    from datasets import Dataset
    from PIL.Image import Image

    from llmft.data.passages import Passages
    from llmft.data.source import Rows
    from llmft.tasks.chat.chat_state import ChatState


@runtime_checkable
class Calibrates(Protocol):
    """Decides something on validation rows once the best weights are there, such as thresholds: finetune."""

    @property
    def calibrates(self) -> bool:
        """Whether there is anything to decide; it costs a pass over the validation rows."""

    def calibrate(self, outputs: list[Any], references: "Dataset") -> Self:
        """The task with what was decided; `outputs` are those of the validation rows, in their order."""


@runtime_checkable
class LearnsFromAll(Protocol):
    """Learns from all streamed rows what a sample of them does not tell, such as rare ids: finetune."""

    def learn_all(self, chunks: "Iterable[Dataset]") -> Self:
        """The task, which has learned from the sample, with what all rows have.

        Args:
            chunks: all training rows in the order of the files, a thousand at a time; they can be read repeatedly.
        """


@runtime_checkable
class Notes(Protocol):
    """Tells what rows hold that the user should know: finetune and pretrain for all splits, eval, predict."""

    def notes_on(self, rows: "Dataset | None", split: str, features: "pyarrow.Table | None" = None) -> list[str]:
        """What is odd in `train`, and what of other rows is unlike training, a line each.

        Args:
            rows: those of `predict` have no labels. None for training rows of which only a sample is in memory.
            features: of the training rows alone.

        Raises:
            UserError: if there is nothing to learn from the features.
        """


@runtime_checkable
class ReadsBlocks(Protocol):
    """Learns from raw text: all documents joined and cut into blocks, each an example: pretrain.

    See `LanguageModel` in tasks/language_models/language_model.py, which has the defaults.
    """

    if TYPE_CHECKING:  # isinstance must not ask for it: a task that has learned nothing has no state yet
        state: Any
    context: int
    """Tokens before those of an example that the model reads and does not predict."""
    paired: bool
    """Whether an example may contain tokens of another one."""

    def tokens(self, texts: list[str]) -> list[list[int]]:
        """The tokens of texts."""

    def stride(self) -> int:
        """How many tokens of the text an example is made of."""

    def for_training(self, tokens: "numpy.ndarray") -> Self:
        """The task that makes the training examples; `tokens` are those of the whole training text."""

    def example(self, tokens: "numpy.ndarray", key: Any, other: "numpy.ndarray | None") -> dict[str, Any]:
        """The example that is made of `context` + `stride` tokens, or fewer; `key` seeds its random numbers."""


@runtime_checkable
class ReadsCorpus(Protocol):
    """Finds passages in `dataset.corpus`: all commands, for a section with `searches`.

    Training has no corpus. The task gets it for evaluation, before `calibrate`, and keeps it in RUN/model with its
    state: so a run answers from it wherever it is loaded.
    """

    def with_corpus(self, passages: "Passages") -> Self:
        """The task with these passages in the place of those that it may have."""


@runtime_checkable
class EmbedsCorpus(Protocol):
    """Needs the outputs of its model for the passages of its corpus: evaluation, predict, and before RUN/model is
    written."""

    def passages_to_embed(self) -> "Rows | None":
        """Rows for the task as it is in `predict`, with one output each. None: it has no corpus, or all outputs."""

    def with_vectors(self, outputs: list[Any]) -> Self:
        """The task with the outputs of these rows, in their order."""


@runtime_checkable
class HasBaseline(Protocol):
    """Is compared with a simple model that is fitted to the same rows: finetune, for a section with `baseline`."""

    def baseline(self, splits: "dict[str, Dataset]", seed: int) -> tuple[str, dict[str, list[Any]]]:
        """The name of the model, and by split its outputs, one a row as `decode` takes them."""


@runtime_checkable
class HasInputColumns(Protocol):
    """Reads columns whose values can change places between rows: permutation importance in finetune."""

    def input_positions(self) -> dict[str, dict[str, list[int]]]:
        """The columns that a model reads, each with the places of its values, by key of a feature."""


@runtime_checkable
class Draws(Protocol):
    """Has answers that are parts of an image: predict, and reports, which show the reference beside them."""

    def draw(self, cell: dict[str, Any], answer: dict[str, Any], side: int | None = None) -> "Image":
        """The image with an answer drawn on it, and with the weights of its parts if the answer is explained.

        Args:
            cell: the image, see data/images.py.
            answer: as `decode` gives it. For a reference, `{"answer": reference}`.
            side: the largest width and height, in pixels. None: the size of the image.

        Raises:
            BadImage: if the image cannot be decoded.
        """


@runtime_checkable
class Explains(Protocol):
    """Tells which parts of an input speak for its answer: predict with `predict.explain`, and reports."""

    def explain(
        self, rows: "Rows", answers: list[dict[str, Any]], ask: "Callable[[Rows], list[dict[str, Any]]]"
    ) -> list[dict[str, Any]]:
        """For each row what is explained, and the parts of its input with a weight each.

        It needs no torch: a service explains by what it serves with.

        Args:
            answers: those of the rows, as `decode` gives them.
            ask: gives the answers of the model to other rows, such as these with a part hidden. These answers have the
                keys that only `score` reads, as those of `eval` do.

        Returns:
            `{"of": ..., "measure": ..., "parts": [{"weight": ..., ...}]}`, see explaining.py: the label or the number
            that is explained, what weights are measured in, and parts that say where they are. `box` is a region of an
            image, `role`, `start`, and `end` are characters of a text, `column` and `value` a cell of a table. A
            positive weight speaks for the label: without the part there is so much less of it.
        """


@runtime_checkable
class Measures(Protocol):
    """Has inputs that are neither a text nor an image: what is watched of them; see tasks/measurements.py."""

    def measure_inputs(self, rows: "Rows") -> "dict[str, list[float | str | None]]":
        """By name a number or a label for each row, None where the row has none. No text of a row may be in it."""


@runtime_checkable
class DescribesCells(Protocol):
    """Knows what each column of a table holds: the service types its requests by it."""

    def describe_cells(self) -> dict[str, tuple[str, list[str]]]:
        """By column whether it is a `number`, `category`, `date`, or `text`, and the categories of training."""


@runtime_checkable
class HasExample(Protocol):
    """Has a row for the card of an export to answer without llmft, and for a service to answer once before it starts:
    export and serve. Without it, a service takes one of `synthetic_rows`."""

    def example_row(self) -> dict[str, Any]:
        """A made-up row by role, or of a table by column. It is none of the user's rows: a card may be published."""


@runtime_checkable
class RefersToFirstWeights(Protocol):
    """An objective that compares with the weights before training: finetune, for a section with `refers`."""

    def reference_scores(self, model: "torch.nn.Module", batch: "dict[str, torch.Tensor]") -> list[float]:
        """One number a feature that the first weights give.

        It is computed once before training. The features of train and validation then have it as `reference`.
        """


@runtime_checkable
class Chats(Protocol):
    """Answers in turns, if its tokenizer has a chat template: chat."""

    def chat_state(self) -> "ChatState | None":
        """The tokenizer with its chat template."""
