"""Lines about what takes long at its first use, told to whoever listens, such as the monitor of a run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LISTENERS: list[Callable[[str], None]] = []


@contextmanager
def listening(hook: Callable[[str], None]) -> Iterator[None]:
    """Let `hook` be told, of each text once; inside of another such block, it alone.

    >>> with listening(print):
    ...     with if_slow("this takes a while", 0.0) as timer:
    ...         timer.join()
    this takes a while
    """
    told: set[str] = set()

    def once(text: str) -> None:
        if text not in told:
            told.add(text)
            hook(text)

    _LISTENERS.append(once)
    try:
        yield
    finally:
        _LISTENERS.remove(once)


@contextmanager
def if_slow(text: str, seconds: float = 1.5) -> Iterator[threading.Thread]:
    """Tell a text if the block takes longer than so many seconds; the thread that waits for it is given.

    >>> with listening(print), if_slow("this takes a while", 60.0):
    ...     pass
    """

    def tell() -> None:
        if _LISTENERS:
            _LISTENERS[-1](text)

    timer = threading.Timer(seconds, tell)
    timer.daemon = True
    timer.start()
    try:
        yield timer
    finally:
        timer.cancel()
