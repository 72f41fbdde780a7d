"""The section `predict`: the rows that `llmft predict RUN` answers, and where the answers go."""

from typing import Literal

from pydantic import Field

from llmft.schema.section import Cell, Section, Text


class PredictConfig(Section):
    """Answers of a finished run for new rows, by `llmft predict RUN`."""

    input: str | None = None
    """A file of rows, or `-` for standard input. Unset: what is piped in."""

    input_format: (
        Literal["csv", "tsv", "json", "parquet", "excel", "sqlite", "arrow", "txt", "conll", "squad"] | None
    ) = None
    """How to read the input; `json` takes one object a line or a list, `txt` one text a line, `squad`
    SQuAD's JSON. Unset: by the file's first bytes and ending; standard input, and a file of another ending, by the
    first line."""

    text: Text | None = None
    """A text to answer, instead of a file."""

    text_pair: Text | None = None
    """The second text, for a run that was trained on pairs."""

    row: dict[str, Cell] | None = None
    """A row to answer, instead of a file: `{COLUMN: VALUE, ...}`, or a JSON object."""

    output: str | None = None
    """The file of the answers; it must not be there yet. Unset: standard output."""

    format: Literal["jsonl", "csv"] | None = None
    """How to write the answers. Unset: by the ending of `output`; `jsonl` on standard output."""

    encoding: str = "utf-8"
    """How to write the answers to `output`: `utf-8-sig` for a csv that Excel opens, `gb18030`, ... What the input is in
    says `dataset.encoding`."""

    keep: list[str] = Field(default_factory=list)
    """Columns of the input that stand beside each answer. A column `id` always does, in place of the row's number."""
