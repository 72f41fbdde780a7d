"""Lines that every command prints: phases, progress, durations, aligned tables. Imports no torch."""

import logging
import shutil
import sys
import textwrap
import time
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from llmft.schema.problem import plural

EVERY = 30.0  # seconds between two progress lines without a terminal


def quiet() -> None:
    """Let the libraries speak only of errors: what a user needs to know, llmft says itself, once."""
    import datasets
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    # A pinned-memory hint of torch's DataLoader and the like: nothing that a user could act on.
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    # transformers has given it a new name, which peft and older versions of transformers do not know.
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing.* is deprecated", category=FutureWarning)
    # RT-DETR on sizes of heads for kernels that transformers does not use.
    warnings.filterwarnings("ignore", message="You'd better set embed_dim", category=UserWarning)


def phase(name: str, what: str) -> None:
    """Print a line after its name, such as `loading   minilm`; in a terminal it is wrapped to the width."""
    line = f"  {name:<9} {what}"
    if sys.stdout.isatty():
        width = max(shutil.get_terminal_size().columns - 1, 40)
        line = textwrap.fill(line, width, subsequent_indent=" " * 12, break_long_words=False, break_on_hyphens=False)
    print(line, flush=True)


@contextmanager
def counting(name: str, total: int, what: str) -> Iterator[Callable[[int], None]]:
    """Print that `total` things start; the yielded function takes how many more are done.

    A terminal shows a bar, other outputs a line every EVERY seconds.
    """
    phase(name, plural(total, what))
    started = printed = time.perf_counter()
    done = 0
    with tqdm(total=total, unit=f" {what.split()[-1]}", leave=False, disable=not sys.stderr.isatty()) as bar:

        def advance(more: int) -> None:
            nonlocal done, printed
            done += more
            bar.update(more)
            now = time.perf_counter()
            if bar.disable and done < total and now - printed >= EVERY:
                printed = now
                left = duration((now - started) / done * (total - done))
                phase(name, f"{done:,} of {total:,} {what}, {left} left")

        yield advance


def duration(seconds: float) -> str:
    """`48 s`, `3 min 05 s`, `2 h 10 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def aligned(table: list[list[str]]) -> list[str]:
    """The rows of a table with aligned columns; Chinese characters take two columns."""
    widths = [max(width(cell) for cell in column) for column in zip(*table, strict=True)]
    rows = (
        "  ".join(cell + " " * (most - width(cell)) for cell, most in zip(row, widths, strict=True)) for row in table
    )
    return [row.rstrip() for row in rows]


def width(text: str) -> int:
    """The columns that a text takes in a terminal."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
