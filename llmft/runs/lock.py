"""A folder is worked in by one process at a time."""

import fcntl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from llmft.schema.problem import Problem, UserError


@contextmanager
def held(file: Path, by: str) -> Iterator[int]:
    """Hold a file of the folder; the lock goes with the process and those that inherit it, however they end.

    Args:
        by: who would hold it besides us, such as `another sweep`.

    Returns:
        The descriptor that it is held by.

    Raises:
        UserError: if somebody holds it, or it can't be locked.
    """
    with ExitStack() as closing:
        try:
            stream = closing.enter_context(file.open("a"))  # NFS locks only what is open for writing
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(Problem("run.dir", f"{by} is at work in {file.parent}")) from error
        except OSError as error:
            raise UserError(Problem("run.dir", f"{file} can't be locked: {error.strerror}")) from error
        yield stream.fileno()
