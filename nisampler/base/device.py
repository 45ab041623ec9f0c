"""The machine that a computation runs on: its device, and the threads of its CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

from nisampler.base.checks import Threads, checked
from nisampler.errors import ConfigError

_SHARING: ContextVar[int | None] = ContextVar("threads that share the points of a batch", default=None)


def resolve_device(name: str | torch.device) -> torch.device:
    """The device of a name: "auto" is a GPU where there is one, and the CPU elsewhere.

    Raises
    ------
    ConfigError
        If the device is unknown or not there.

    Examples
    --------
    >>> resolve_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ConfigError(f"device {str(name)!r} is not available here; use 'auto', 'cpu' or 'cuda'") from error
    return device


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Let torch use `count` threads for a while.

    Raises
    ------
    ConfigError
        If the count is not positive.

    Examples
    --------
    >>> with cpu_threads(1):
    ...     torch.get_num_threads()
    1
    """
    checked("threads", count, Threads)
    before = torch.get_num_threads()
    if count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


@contextmanager
def point_threads(count: int) -> Iterator[None]:
    """Let `count` threads share the points of a batch for a while, where no point depends on another one.

    That is in the function that is integrated (`sharing_points`) and in splines. Everything else takes one thread: how
    a sum over points is shared out changes its last digits, and with them every event that follows. One is the default
    everywhere, because the batches are small, and where other work competes for the cores threads wait for each other.

    Raises
    ------
    ConfigError
        If the count is not positive.

    Examples
    --------
    >>> with point_threads(2):
    ...     torch.get_num_threads(), threads_for_points()
    (1, 2)
    """
    with cpu_threads(count):
        token = _SHARING.set(count)
        try:
            with cpu_threads(1):
                yield
        finally:
            _SHARING.reset(token)


def threads_for_points() -> int:
    """How many threads may share the points of a batch; those of torch where nobody has said.

    >>> with cpu_threads(1):
    ...     threads_for_points()
    1
    """
    return _SHARING.get() or torch.get_num_threads()


@contextmanager
def sharing_points(points: int) -> Iterator[None]:
    """Let torch use the threads that may share the points of a batch, for a function that takes each on its own.

    Fewer than `SHARED_POINTS` take one thread: waking the others costs more than they save.

    >>> with point_threads(2), sharing_points(SHARED_POINTS):
    ...     torch.get_num_threads()
    2
    >>> with point_threads(2), sharing_points(100):
    ...     torch.get_num_threads()
    1
    """
    if points < SHARED_POINTS:
        yield
        return
    with cpu_threads(threads_for_points()):
        yield


SHARED_POINTS = 1 << 17
"""Fewest points of a batch that threads share in a function; `benchmarks/threads.py` shows what fewer cost."""
