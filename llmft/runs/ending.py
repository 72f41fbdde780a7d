"""How a command ends: its exit code, and its last words where it did not go well."""

import errno
import os
import re
import sys
from collections.abc import Callable

from llmft.schema.problem import Failure, Stopped, UserError

DONE, FAILED, WRONG_INPUT, STOPPED, INTERRUPTED = 0, 1, 2, 75, 130
OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS}


def ending(work: Callable[[], object]) -> int:
    """Do `work`, and say on stderr why if it could not be done.

    Returns:
        0 done, 1 failed, 2 the user's input is wrong, 75 stopped by a signal with a checkpoint, 130 without one.
    """
    try:
        work()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_INPUT
    except Failure as failure:
        print(f"failed: {failure}", file=sys.stderr)
        return FAILED
    except Stopped as stop:
        print(f"stopped: {stop}", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:  # `llmft ... | head` has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115  what Python flushes at its end goes nowhere
        return FAILED
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if not (full := of_the_disk(error)):
            raise
        print(f"failed: {full}", file=sys.stderr)
        return FAILED
    return DONE


def of_the_disk(error: Exception) -> Failure | None:
    """What a full, broken or read-only disk says, `FILE: No space left on device`; None for our own mistakes."""
    if isinstance(error, OSError):
        number, words = error.errno, f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:  # safetensors and tokenizers have errors of their own, which end as those of Rust do
        found = re.search(r"\(os error (\d+)\)$", str(error))
        number, words = int(found[1]) if found else None, str(error)
    return Failure(words) if number in OF_THE_DISK else None
