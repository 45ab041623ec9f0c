"""Where the CPU-seconds of a training go: functions, networks, and the rest. They are told, and steer nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

Part = Literal["functions", "networks"]
_CURRENT: ContextVar[dict[str, float] | None] = ContextVar("CPU-seconds of the parts of a training", default=None)


@contextmanager
def measured() -> Iterator[dict[str, float]]:
    """CPU-seconds of what is `timed` inside, and at the end those of all of it, "total".

    >>> with measured() as seconds, timed("functions"):
    ...     pass
    >>> sorted(seconds)
    ['functions', 'networks', 'total']
    """
    found = {"functions": 0.0, "networks": 0.0, "total": 0.0}
    token, start = _CURRENT.set(found), time.process_time()
    try:
        yield found
    finally:
        _CURRENT.reset(token)
        found["total"] = time.process_time() - start


@contextmanager
def timed(part: Part) -> Iterator[None]:
    """Count what is done inside as one of the parts, if anybody measures.

    >>> with timed("networks"):
    ...     pass
    """
    found, start = _CURRENT.get(), time.process_time()
    try:
        yield
    finally:
        if found is not None:
            found[part] += time.process_time() - start


def line(seconds: dict[str, float]) -> str:
    """What `measured` has found, in words.

    >>> line({"functions": 1.0, "networks": 2.0, "total": 3.5})
    'CPU-seconds of the training: functions 1.0, networks 2.0, rest 0.5'
    """
    rest = max(0.0, seconds["total"] - seconds["functions"] - seconds["networks"])
    parts = {"functions": seconds["functions"], "networks": seconds["networks"], "rest": rest}
    return "CPU-seconds of the training: " + ", ".join(f"{name} {value:.1f}" for name, value in parts.items())
