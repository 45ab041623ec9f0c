"""Processes: test functions with exact integrals, kinematics, phase-space maps and matrix elements.

The package can be called: `nisampler.processes()` lists what `nisampler.process(name)` builds.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType


class _Processes(ModuleType):
    """A package that lists its processes when it is called."""

    def __call__(self) -> dict[str, str]:
        """The name of every process, with a line of description."""
        found: dict[str, str] = import_module(f"{__name__}.registry").available()
        return found


sys.modules[__name__].__class__ = _Processes
