"""The lock of a run or sweep folder: one process at a time works in it.

The lock is on a file of its own, `.lock`, and not on a file that others read: Windows refuses to read what another
process has locked. filelock is imported inside functions: it takes 20 ms, which `llmft --help` need not wait for.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llmft.schema.problem import Problem, UserError

LOCK = ".lock"


@contextmanager
def held(folder: Path, by: str) -> Iterator[int]:
    """Hold the lock of a folder. It is released when the process, and all that inherit the descriptor, have ended.

    Args:
        by: who else could hold it, for the error: `another sweep`.

    Returns:
        The descriptor of the locked file. A process that inherits it holds the lock too (Linux and macOS).

    Raises:
        UserError: if another process holds the lock, or the file cannot be locked.
    """
    from filelock import lock_descriptor

    file = folder / LOCK
    try:
        stream = file.open("a")  # NFS locks only files that are open for writing
    except OSError as error:
        raise UserError(Problem("run.dir", f"{file} cannot be locked: {error.strerror}")) from error
    with stream:
        try:
            is_free = lock_descriptor(stream.fileno(), blocking=False)
        except OSError as error:
            raise UserError(Problem("run.dir", f"{file} cannot be locked: {error.strerror}")) from error
        if not is_free:
            raise UserError(Problem("run.dir", f"{by} is at work in {folder}"))
        yield stream.fileno()


def is_held(folder: Path) -> bool:
    """Whether a process holds the lock of a folder. False where there is no lock, or it cannot be opened."""
    file = folder / LOCK
    try:
        with file.open("r+b" if os.access(file, os.W_OK) else "rb") as stream:
            from filelock import lock_descriptor

            return not lock_descriptor(stream.fileno(), blocking=False)
    except OSError:
        return False
