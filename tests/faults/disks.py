"""Disks that fail, and processes that die, at the N-th sync: every durable write of llmft passes there."""

import errno
import os
import signal
from collections.abc import Callable
from itertools import count
from typing import Any


def failing(sync: Callable[[int], None], number: int) -> Callable[[int], None]:
    """`sync`, for a disk that is full from its `number`-th call on."""
    calls = count(1)

    def fsync(descriptor: int) -> None:
        if next(calls) >= number:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    return fsync


def killing(call: Callable[..., None], number: int) -> Callable[..., None]:
    """`call`, but its `number`-th time is the last thing that the process does."""
    calls = count(1)

    def counted(*arguments: Any, **options: Any) -> None:
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        call(*arguments, **options)

    return counted
