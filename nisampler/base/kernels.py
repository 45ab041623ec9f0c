"""Functions that numba compiles, where it is installed, and keeps for other processes where there is a place."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from nisampler.base import notices

T = TypeVar("T")


class FastPathWarning(UserWarning):
    """Something runs without its compiled code, some times slower.

    >>> issubclass(FastPathWarning, UserWarning)
    True
    """


COMPILING = "compiling code for this machine, once; `nisampler warmup` does it beforehand"
"""What is said when compiled code is not there yet."""


def kept(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """A function compiled with numba's options that other processes need not compile again, where it can be kept.

    numba looks for that place in NUMBA_CACHE_DIR, beside the source, and in the user's cache folder. Without any, as in
    a read-only container, each process compiles anew, which takes some seconds.

    >>> double = kept(lambda x: 2.0 * x)
    >>> double.py_func(1.5)
    3.0
    """
    from numba import njit

    try:
        return njit(cache=True, **options)(function)  # type: ignore[no-any-return]
    except RuntimeError:
        return njit(**options)(function)  # type: ignore[no-any-return]


def at_work() -> bool:
    """Whether numba has started in this process, which takes two seconds: then more of it costs little.

    >>> at_work() in (True, False)
    True
    """
    return "numba" in sys.modules


def tried(load: Callable[[], T], otherwise: str, compiler: str = "numba") -> T | None:
    """What `load` makes of a compiler, or None where that is not installed, or, with a warning, does not work.

    >>> tried(lambda: 5, "files are written in plain Python") in (5, None)
    True
    """
    if importlib.util.find_spec(compiler) is None:
        return None
    try:
        with notices.if_slow(COMPILING):
            return load()
    except Exception as error:
        # An installed compiler can fail in any way: libraries that do not fit, no place to write, an unknown processor.
        text = " ".join(str(error).split())
        reason = f"because {compiler} does not work here ({type(error).__name__}: {text[:200]}); mend or uninstall it"
        warnings.warn(f"{otherwise}, {reason}", FastPathWarning, stacklevel=3)
        return None
