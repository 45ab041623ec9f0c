"""Whose error it was: the file and line of a user's code that raised."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from nisampler.errors import NisamplerError

# Where Python and installed packages are.
_INSTALLED = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))


def place_of(error: BaseException) -> str:
    """File and line of the last call before the error that is no installed package's, or else of the last one.

    >>> try:
    ...     int("one")
    ... except ValueError as error:
    ...     place_of(error)
    '<doctest ...>, line 2'
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith((*_INSTALLED, "<frozen"))]
    last = (own or frames)[-1]
    return f"{last.filename}, line {last.lineno}"


@contextmanager
def blaming(what: str, kind: type[NisamplerError]) -> Iterator[None]:
    """Errors of a user's code as one of this package, of this kind, that names their file and line.

    >>> from nisampler.errors import ProcessError
    >>> with blaming("my process failed", ProcessError):
    ...     1 / 0
    Traceback (most recent call last):
    ...
    nisampler.errors.ProcessError: my process failed: ZeroDivisionError: division by zero (<doctest ...>, line 2)
    """
    try:
        yield
    except NisamplerError:
        raise
    except Exception as error:
        raise kind(f"{what}: {type(error).__name__}: {error} ({place_of(error)})") from error
