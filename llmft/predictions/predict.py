"""`llmft predict RUN`: answer new rows, one after another, to standard output or a file. It leaves no run folder."""

import codecs
import csv
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TextIO

import numpy
import pyarrow
from pyarrow import parquet
from tqdm import tqdm

from llmft import tasks
from llmft.data.checks import few
from llmft.data.files import check_is_file
from llmft.data.passages import named_passages
from llmft.data.roles import unread
from llmft.models.generate import set_generation
from llmft.models.trained import load_trained
from llmft.predictions.answering import Answering, available_windows, windows
from llmft.predictions.drawings import Drawings
from llmft.predictions.rows import Row, Rows, open_file, open_images, open_stream
from llmft.reporting.lines import EVERY, quiet
from llmft.runs.ending import Interrupting
from llmft.runs.folder import flat
from llmft.schema.config import Config
from llmft.schema.inference import PredictConfig
from llmft.schema.problem import Failure, Problem, UserError
from llmft.tasks.optional import Explains, ReadsCorpus
from llmft.tasks.task import Answer, Task
from llmft.training.evaluation import with_corpus_vectors
from llmft.training.hardware import detect
from llmft.training.memory import advice_for_scoring, enough_memory


def run(config: Config) -> dict[str, Any]:
    """Answer every row of the input, in its order. Answers go to standard output, all other words to stderr.

    Returns:
        How many rows there were, how many of them were answered, and the file of the answers.

    Raises:
        UserError: if there is no finished model, or it could answer no row of this input; nothing is written then.
        Failure: if there were rows, and none of them could be answered.
    """
    quiet()
    wanted = config.predict
    check_output(wanted)
    task = tasks.build(config.task)
    check_input(wanted, task)
    images = str(config.dataset.columns.get(task.default_input_role, task.default_input_role))
    drawings = Drawings(wanted, task, images)
    drawings.check()
    if wanted.explain and not isinstance(task, Explains):
        what = f"task={config.task.name} cannot say which parts of an input speak for its answer"
        raise UserError(Problem("predict.explain", what, hint="Leave it out."))
    answering = ready(config)
    rows = asked(config, answering.task)
    # Paths of images are relative to the file that names them; others to the folder in which the command runs.
    place = Path() if piped(wanted) or wanted.input is None else Path(wanted.input).parent
    answering = replace(answering, dataset=config.dataset.model_copy(update={"format": rows.kind}), folder=place)
    if rows.columns is not None:
        check_kept(wanted, rows.columns)
        # Who types a row may leave columns out; a file that lacks one has it under another name, most often.
        answering.check_columns(rows.columns, whole=rows.kind != "row")
    drawings = replace(drawings, task=answering.task)
    count, bad, example, columns = 0, 0, "", dict[str, None]()
    with opened(wanted) as output, enough_memory(lambda: advice_for_scoring(config)), progress(wanted) as bar:
        told = time.monotonic()
        for window in available_windows(rows.rows) if piped(wanted) else windows(rows.rows):
            if bar.disable and time.monotonic() - told > EVERY:
                told = time.monotonic()
                print(f"{count:,} rows were answered so far", file=sys.stderr)
            answers = answering.answer(window)
            if wanted.masks or wanted.draw:
                answers = [drawings.write(row, answer) for row, answer in zip(window, answers, strict=True)]
            output.write([record(wanted, row, answer) for row, answer in zip(window, answers, strict=True)])
            bar.update(len(window))
            errors = [f"{row.id} {a['error']}" for row, a in zip(window, answers, strict=True) if "error" in a]
            count, bad, example = count + len(window), bad + len(errors), example or "".join(errors[:1])
            columns |= dict.fromkeys(key for row in window for key in row.values if key not in wanted.keep)
    notes = answering.notes()
    if names := unread(columns, config.dataset, answering.task.columns):
        notes.append(f"columns that are not read: {few(names)}")
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    conclude(wanted, count - bad, bad, example)
    return {"rows": count, "answered": count - bad, "output": wanted.output}


def ready(config: Config) -> Answering:
    """The model of the run, loaded to answer rows.

    Raises:
        UserError: if there is no finished model.
    """
    quiet()
    hardware = detect(config.hardware)
    source = Path(str(config.run.source))
    if sys.stderr.isatty():
        print(f"loading {source}", file=sys.stderr)
    task: Task[Any]
    model, task = load_trained(source, tasks.build(config.task), hardware.device, config.model.trust_remote_code)
    if (passages := named_passages(config, source)) and isinstance(task, ReadsCorpus):
        task = task.with_corpus(passages)
    task = with_corpus_vectors(task, model, config.trainer.eval_batch_size)
    set_generation(model, config.generation, config.seed)
    dataset = config.dataset.model_copy(update={"format": "json"})  # rows of Python can hold lists, as JSON can
    batch_size, explain = config.trainer.eval_batch_size, config.predict.explain
    return Answering(task.for_inference(), model, dataset, batch_size, task.for_inference("file"), explain)


def answer(config: Config, answering: Answering, rows: Sequence[str | Mapping[str, Any]]) -> list[Answer]:
    """The answers to texts, or to rows by column, in their order; an error is an answer too.

    Raises:
        UserError: for a text, where the task reads rows.
    """
    found: list[Answer] = []
    for window in windows(rows):
        values = [of_text(config, answering.task, row) if isinstance(row, str) else dict(row) for row in window]
        found += answering.answer([Row(f"row {len(found) + n}", row) for n, row in enumerate(values, 1)])
    return found


def of_text(config: Config, task: Task[Any], text: str) -> dict[str, Any]:
    """The row that `predict.text` would be, or `predict.image` for a task on images."""
    wanted = config.predict.model_copy(update={"image" if task.config.images else "text": text})
    check_input(wanted, task)
    (row,) = asked(config.model_copy(update={"predict": wanted}), task).rows
    return row.values


def piped(wanted: PredictConfig) -> bool:
    """Whether the rows come from standard input."""
    return wanted.input == "-" or all(each is None for each in (wanted.input, wanted.text, wanted.image, wanted.row))


def check_input(wanted: PredictConfig, task: Task[Any]) -> None:
    """Raise UserError for an input that is not there, or a text for a task that reads none."""
    name, images = task.config.model_fields["name"].default, task.config.images
    if wanted.text is not None and images:
        hint = "Write predict.image=FILE."
        raise UserError(Problem("predict.text", f"{name} reads images, not a text", hint=hint))
    if wanted.image is not None and not images:
        raise UserError(Problem("predict.image", f"{name} reads no images", hint="Leave it out."))
    if wanted.text is not None and task.default_input_role not in task.columns:
        hint = "Write predict.row={COLUMN: VALUE, ...}."
        raise UserError(Problem("predict.text", f"{name} reads rows with columns, not a text", hint=hint))
    if wanted.input not in (None, "-") and not (images and open_images(str(wanted.input), "image")):
        check_is_file(str(wanted.input), "predict.input")
    if piped(wanted) and (sys.stdin is None or (wanted.input is None and sys.stdin.isatty())):
        hint = "Name a file, or - to type rows; or write predict.text=, or predict.row=."
        raise UserError(Problem("predict.input", "must be given", hint=hint))


def asked(config: Config, task: Task[Any]) -> Rows:
    """The rows to answer.

    Raises:
        UserError: for a file, or a header, that cannot be read.
    """
    wanted, columns = config.predict, config.dataset.columns
    roles = {"text": task.default_input_role, "text_pair": "text_pair"}
    names = {key: str(columns.get(role, role)) for key, role in roles.items() if role in task.columns}
    if wanted.row is not None:
        return Rows("row", list(wanted.row), [Row("row", wanted.row)])
    if wanted.text is not None:
        given = {"text": wanted.text, "text_pair": wanted.text_pair}
        values = {name: given[key] for key, name in names.items() if given[key] is not None}
        return Rows("text", list(values), [Row("text", values)])
    if wanted.image is not None:
        return Rows("image", [names["text"]], [Row("image", {names["text"]: wanted.image})])
    kind, encoding, text = wanted.input_format, config.dataset.encoding, names.get("text")
    if not piped(wanted):
        if task.config.images and (found := open_images(str(wanted.input), names["text"])):
            return found
        section = config.dataset
        more = (section.separator, section.sheet, section.query, section.field)
        return open_file(Path(str(wanted.input)), kind, encoding, text, *more)
    # Not sys.stdin: Python cannot end while a thread waits in it.
    stream = open(sys.stdin.fileno(), "rb", closefd=False)  # noqa: SIM115
    rows = open_stream(stream, "stdin", kind, encoding, text, config.dataset.separator)
    print(f"reading standard input as {rows.kind}", file=sys.stderr)
    return rows


def check_kept(wanted: PredictConfig, columns: list[str]) -> None:
    """Raise UserError for a column to keep that the input does not have."""
    if missing := [name for name in wanted.keep if name not in columns and name != "id"]:
        what = f"the input has no column {missing[0]!r}; it has {', '.join(columns)}"
        raise UserError(Problem("predict.keep", what), "the data")


def record(wanted: PredictConfig, row: Row, answer: Answer) -> dict[str, Any]:
    """What is written of a row: its own `id` or its place, what is kept of it, and its answer."""
    own = row.values.get("id")
    kept = {name: row.values.get(name) for name in wanted.keep if name != "id"}
    return {"id": row.id if own in (None, "") else own, **kept, **answer}


def progress(wanted: PredictConfig) -> "tqdm[Any]":
    """A bar on stderr, where that is a terminal on which no answers appear."""
    seen = wanted.output is None and sys.stdout.isatty()
    return tqdm(unit=" rows", leave=False, disable=True if seen else None)


def conclude(wanted: PredictConfig, good: int, bad: int, example: str) -> None:
    """Say on stderr how many rows were answered; a bad row is not a failure while others are good."""
    if bad and not good:
        raise Failure(example if bad == 1 else f"none of {bad:,} rows could be answered, such as {example}")
    if wanted.text is None and wanted.image is None and wanted.row is None:
        errors = f", {bad:,} could not be, such as {example}" if bad else ""
        place = f"; see {wanted.output}" if wanted.output else ""
        rows = "1 row was" if good == 1 else f"{good:,} rows were"
        print(f"{rows} answered{errors}{place}", file=sys.stderr)


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


class Parquet:
    """A table with a column for each field of an answer, written as a whole at the end."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.tables: list[pyarrow.Table] = []

    def write(self, answers: list[dict[str, Any]]) -> None:
        names = dict.fromkeys(name for answer in answers for name in answer)
        columns = {name: [answer.get(name) for answer in answers] for name in names}
        try:
            self.tables.append(pyarrow.table(columns))
        except pyarrow.ArrowInvalid as error:
            what = f"the answers have columns of several types, and parquet has one type a column: {error}"
            raise UserError(Problem("predict.output", what, hint="Write a file that ends in .jsonl.")) from error

    def end(self) -> None:
        parquet.write_table(pyarrow.concat_tables(self.tables, promote_options="permissive"), self.stream)


class Vectors:
    """A numpy array (rows, D) of the answers, float32; NaN for a row that could not be answered."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.rows: list[numpy.ndarray | None] = []

    def write(self, answers: list[dict[str, Any]]) -> None:
        for answer in answers:
            found = answer.get("answer")
            if "error" not in answer and not (isinstance(found, list) and found and isinstance(found[0], float)):
                what = "must end in .jsonl, .csv, or .parquet: .npy holds vectors, which these answers are not"
                raise UserError(Problem("predict.output", what))
            self.rows.append(None if "error" in answer else numpy.array(found, dtype=numpy.float32))

    def end(self) -> None:
        width = next((len(row) for row in self.rows if row is not None), 0)
        missing = numpy.full(width, numpy.nan, dtype=numpy.float32)
        rows = [missing if row is None else row for row in self.rows]
        numpy.save(self.stream, numpy.stack(rows) if rows else numpy.zeros((0, 0), numpy.float32), allow_pickle=False)


BINARY: dict[str, Any] = {"parquet": Parquet, "npy": Vectors}
"""Formats that no text has, and what writes them."""


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
        if predict.format in BINARY:
            what = f"must be given for predict.format={predict.format}, which no terminal shows"
            raise UserError(Problem("predict.output", what))
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
    binary = format_of(predict) in BINARY
    try:
        stream: Any = partial.open("wb") if binary else partial.open("w", encoding=predict.encoding, newline="")
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


def format_of(predict: PredictConfig) -> str:
    """The format of the answers: what is asked for, or what the ending of the file says."""
    ending = Path(predict.output or "").suffix.lower().removeprefix(".")
    return predict.format or (ending if ending in ("csv", *BINARY) else "jsonl")


def _writer(predict: PredictConfig, stream: Any) -> Writer:
    found = format_of(predict)
    if found == "csv":
        return Csv(stream, predict.keep)
    return BINARY[found](stream) if found in BINARY else JsonLines(stream)
