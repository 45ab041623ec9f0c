"""Requests to end, from the keyboard or the system: as exceptions, and held back where work must not be cut."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_ENDING = (signal.SIGTERM, signal.SIGHUP)


class Terminated(KeyboardInterrupt):
    """The system asked this process to end; `number` is the signal.

    >>> Terminated(15).number
    15
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def ending_signals_raise() -> Iterator[list[int]]:
    """SIGTERM and SIGHUP raise `Terminated`, once, as Ctrl-C raises KeyboardInterrupt.

    The list that it gives gets the numbers of the signals: a library that calls back may turn the exception into one of
    its own. Signals that are ignored or have a handler stay as they are (nohup ignores SIGHUP), and other threads than
    the main one change nothing.

    Examples
    --------
    >>> with ending_signals_raise():
    ...     try:
    ...         signal.raise_signal(signal.SIGTERM)
    ...     except Terminated as error:
    ...         print(error)
    SIGTERM
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        # A second request must not cut the clearing up that the first one began.
        for ending in _ENDING:
            signal.signal(ending, signal.SIG_IGN)
        raise Terminated(number)

    usual = {number: signal.SIG_DFL for number in _ENDING} | {signal.SIGINT: signal.default_int_handler}
    taken = {number: handler for number, handler in usual.items() if signal.getsignal(number) == handler}
    for number in taken:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)


@contextmanager
def signals_wait() -> Iterator[None]:
    """Ctrl-C and requests to end wait until the block is over, so that a library in it is not left half-way.

    Examples
    --------
    >>> with ending_signals_raise():
    ...     try:
    ...         with signals_wait():
    ...             signal.raise_signal(signal.SIGTERM)
    ...             print("whole")
    ...     except Terminated:
    ...         print("ended")
    whole
    ended
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []
    handlers: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, *_ENDING)}
    # A default action ends the process at once, which leaves nothing half-way in it.
    held = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in held:
        signal.signal(number, lambda number, _: waiting.append(number))
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
        if waiting:
            signal.raise_signal(waiting[0])
