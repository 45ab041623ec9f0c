"""Versions of the packages that results depend on, and numbers as JSON takes them."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from nisampler._version import __version__

_PACKAGES = ("torch", "numpy", "vegas", "h5py", "safetensors", "pylhe")


def versions() -> dict[str, str]:
    """Versions of everything that the bytes of a run depend on; packages that are not installed are left out.

    >>> versions()["nisampler"] == __version__, "torch" in versions()
    (True, True)
    """
    found = {"nisampler": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def version_changes(before: Mapping[str, str], where: str) -> list[str]:
    """A warning if other versions are installed than before, as a list that is empty otherwise.

    >>> version_changes({"nisampler": "0.0.1"}, "since the run began")
    ['versions changed since the run began, bytes may differ: nisampler 0.0.1 then, ... now']
    """
    now = versions()
    changed = [f"{name} {before[name]} then, {now.get(name)} now" for name in before if before[name] != now.get(name)]
    return [f"versions changed {where}, bytes may differ: {', '.join(changed)}"] if changed else []


def finite(value: Any) -> Any:
    """The same JSON data with None in place of NaN and infinity, which JSON has no form for.

    >>> finite({"a": (1.0, math.inf)})
    {'a': [1.0, None]}
    """
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
