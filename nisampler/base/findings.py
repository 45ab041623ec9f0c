"""What is found out about an installation: a part, how it is, and how to mend it."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from nisampler.base.extras import install

State = Literal["good", "note", "missing", "failing", "broken"]
"""A note is neither good nor bad. What is missing or failing can be done without; what is broken cannot."""
KERNELS = "kernels"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    part
        The heading that it belongs under.
    name
        What it is.
    state
        How it is.
    text
        Versions, places, reasons.
    mend
        What to do, as a command where there is one.

    Examples
    --------
    >>> Finding("extras", "[lhe]", "missing", "reads LHE files", "pip install pylhe").state
    'missing'
    """

    part: str
    name: str
    state: State
    text: str = ""
    mend: str = ""


def kernel(name: str, load: Callable[[], Any], compiler: str = "llvmlite") -> Finding:
    """Whether compiled code works here.

    Parameters
    ----------
    name
        What it is for.
    load
        Loads it; gives nothing, with a warning, or raises, where that does not work.
    compiler
        The package that it needs, part of the extra ``[fast]``.

    Examples
    --------
    >>> kernel("doubling", lambda: 2, "json").state, kernel("doubling", lambda: None, "json").state
    ('good', 'failing')
    >>> kernel("doubling", lambda: 2, "no_such_compiler").state
    'missing'
    """
    if importlib.util.find_spec(compiler) is None:
        return Finding(KERNELS, name, "missing", f"{compiler} is not installed: slower code runs", install("fast"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if load():
                return Finding(KERNELS, name, "good", f"compiled by {compiler}")
        except Exception as error:  # an installed compiler can fail in any way
            return Finding(KERNELS, name, "failing", f"{type(error).__name__}: {error}; slower code runs")
    return Finding(KERNELS, name, "failing", str(caught[-1].message) if caught else "slower code runs")
