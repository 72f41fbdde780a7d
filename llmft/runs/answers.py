"""The answers of `llmft predict`, a line a row: to standard output, or to a file that has its name once it is whole."""

import codecs
import csv
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TextIO

from llmft.runs.ending import Interrupting
from llmft.runs.folder import flat
from llmft.schema.inference import PredictConfig
from llmft.schema.problem import Problem, UserError


class Writer(Protocol):
    """What takes answers."""

    def write(self, answers: list[dict[str, Any]]) -> None:
        """Write some more of them, in their order, and let them be seen."""

    def end(self) -> None:
        """Write what has been waiting."""


class JsonLines:
    """An object a line; text in any script as it is."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, answers: list[dict[str, Any]]) -> None:
        self.stream.writelines(f"{_json(answer)}\n" for answer in answers)
        self.stream.flush()

    def end(self) -> None:
        pass


class Csv:
    """A header, and a line an answer: `scores.LABEL` is a column each, a list is JSON.

    The first answer that is no error tells the columns; errors before it wait for it.
    """

    def __init__(self, stream: TextIO, keep: list[str]) -> None:
        self.stream = stream
        self.keep = keep
        self.waiting: list[dict[str, Any]] = []
        self.rows: csv.DictWriter[str] | None = None

    def write(self, answers: list[dict[str, Any]]) -> None:
        self.waiting += answers
        if self.rows is None and (first := next((answer for answer in answers if "error" not in answer), None)):
            self._begin([key for key in flat(first) if key not in ("id", *self.keep)])
        if self.rows is not None:
            self.rows.writerows({key: _cell(value) for key, value in flat(row).items()} for row in self.waiting)
            self.waiting = []
            self.stream.flush()

    def end(self) -> None:
        if self.rows is None:
            self._begin([])
            self.write([])

    def _begin(self, names: list[str]) -> None:
        columns = list(dict.fromkeys(["id", *self.keep, *names, "error"]))
        self.rows = csv.DictWriter(self.stream, columns, extrasaction="ignore", lineterminator="\n")
        self.rows.writeheader()


def _json(value: Any) -> str:
    """JSON, with null for what is not a number: other readers stop at NaN."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
    except ValueError:
        without = json.loads(json.dumps(value, default=str), parse_constant=lambda _: None)
        return json.dumps(without, ensure_ascii=False)


def _cell(value: Any) -> Any:
    return _json(value) if isinstance(value, list | dict | bool) else value


def check_output(predict: PredictConfig) -> None:
    """Raise UserError for an output that is there already, or in a folder that is not."""
    if predict.output is None:
        return
    file = Path(predict.output)
    if file.exists():
        raise UserError(Problem("predict.output", f"{file} is there already; nothing is written over"))
    if not file.parent.is_dir():
        raise UserError(Problem("predict.output", f"there is no folder {file.parent}"))
    try:
        codecs.lookup(predict.encoding)
    except LookupError as error:
        hint = "Write utf-8, utf-8-sig, gb18030, ..."
        raise UserError(Problem("predict.encoding", f"there is no encoding {predict.encoding}", hint=hint)) from error


@contextmanager
def opened(predict: PredictConfig) -> Iterator[Writer]:
    """What takes the answers. A file has its name once it is whole; until then, and if work fails, there is none.

    Raises:
        UserError: if the file cannot be made.
        OSError: if the disk does not take it.
    """
    if predict.output is None:
        writer = _writer(predict, sys.stdout)
        yield writer
        writer.end()
        return
    file = Path(predict.output)
    partial = file.with_name(f".{file.name}.part")
    try:
        stream = partial.open("w", encoding=predict.encoding, newline="")
    except OSError as error:
        raise UserError(Problem("predict.output", f"{file}: {error.strerror}")) from error
    try:
        with Interrupting(), stream:
            writer = _writer(predict, stream)
            yield writer
            writer.end()
        partial.replace(file)
    except UnicodeEncodeError as error:
        what = f"{predict.encoding} has no {error.object[error.start]!r}, which an answer holds"
        raise UserError(Problem("predict.encoding", what, hint="Write predict.encoding=utf-8-sig.")) from error
    except OSError as error:
        raise OSError(error.errno, error.strerror, error.filename or str(file)) from error
    finally:
        partial.unlink(missing_ok=True)


def _writer(predict: PredictConfig, stream: TextIO) -> Writer:
    by_ending = "csv" if predict.output is not None and predict.output.lower().endswith(".csv") else "jsonl"
    return Csv(stream, predict.keep) if (predict.format or by_ending) == "csv" else JsonLines(stream)
