"""What a command is doing while nothing else is printed: a line for each phase, and how far it is. Imports no torch."""

import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from llmft.reporting.duration import duration
from llmft.schema.problem import plural

EVERY = 30.0  # seconds between two lines where there is no terminal for a bar


def phase(name: str, what: str) -> None:
    """Print a line with its name before it, such as `loading   minilm`; on a terminal it is wrapped to the width."""
    line = f"  {name:<9} {what}"
    if sys.stdout.isatty():
        width = max(shutil.get_terminal_size().columns - 1, 40)
        line = textwrap.fill(line, width, subsequent_indent=" " * 12, break_long_words=False, break_on_hyphens=False)
    print(line, flush=True)


@contextmanager
def counting(name: str, total: int, what: str) -> Iterator[Callable[[int], None]]:
    """Print that `total` of something begin; what is yielded takes how many more are done.

    On a terminal there is a bar, elsewhere a line every EVERY seconds.
    """
    phase(name, plural(total, what))
    started = told = time.perf_counter()
    done = 0
    with tqdm(total=total, unit=f" {what.split()[-1]}", leave=False, disable=not sys.stderr.isatty()) as bar:

        def seen(more: int) -> None:
            nonlocal done, told
            done += more
            bar.update(more)
            now = time.perf_counter()
            if bar.disable and done < total and now - told >= EVERY:
                told = now
                left = duration((now - started) / done * (total - done))
                phase(name, f"{done:,} of {total:,} {what}, {left} left")

        yield seen
