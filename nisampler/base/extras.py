"""Extras of the distribution: what each is for, and the command that installs it where this package came from."""

from __future__ import annotations

import json
import os
import shlex
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

NAME = "nisampler"
EXTRAS = {
    "fast": "compiled kernels of flows, event files, amplitudes and parton densities",
    "lhe": "reads LHE files, writes LHEH5",
    "shower": "sets of parton densities by name; Pythia 8, which showers events",
    "hepmc": "writes HepMC files",
    "zstd": "event files packed by Zstandard",
    "export": "shower models as ONNX files",
    "tensorboard": "losses of shower models as curves of TensorBoard",
    "jets": "FastJet and Pythia 8, which make jets to learn from",
    "plots": "reports in the style of an experiment",
    "dask": "runs and events on Dask clusters",
    "mpi": "runs and events by MPI",
    "sm": "matrix elements of pyamplicol, to compare with",
    "bench": "what the benchmarks compare with",
    "docs": "builds the documentation",
    "test": "the tests of this package",
}
"""What each extra is for."""


def install(*extras: str) -> str:
    """The command that installs extras, or the package without any, as a shell takes it.

    A package that was installed from a folder, such as a clone, is named by that folder, seen from the working
    directory; one from a repository or a file by its address; any other one by its name.

    Parameters
    ----------
    extras
        Keys of `EXTRAS`.

    Raises
    ------
    KeyError
        If there is no such extra.

    Examples
    --------
    >>> install("lhe").startswith("pip install ")
    True
    """
    for extra in extras:
        EXTRAS[extra]
    wanted = f"[{','.join(extras)}]" if extras else ""
    origin = _origin()
    url = str(origin.get("url", ""))
    if "dir_info" in origin:
        folder = Path(unquote(urlsplit(url).path))
        if (folder / "pyproject.toml").is_file():
            editable = ["-e"] if origin["dir_info"].get("editable") else []
            return shlex.join(["pip", "install", *editable, f"{_seen(folder)}{wanted}"])
    elif "vcs_info" in origin:
        url = f"{origin['vcs_info'].get('vcs', 'git')}+{url}"
        return shlex.join(["pip", "install", f"{NAME}{wanted} @ {url}"])
    elif url:
        return shlex.join(["pip", "install", f"{NAME}{wanted} @ {url}"])
    return shlex.join(["pip", "install", f"{NAME}{wanted}"])


def installed() -> Distribution | None:
    """The installed distribution of this package, None where its folder is merely on the path.

    Where there are several, one that knows where it came from: a build leaves another beside the source.

    >>> found = installed()
    >>> found is None or found.metadata["Name"]
    'nisampler'
    """
    found = list(distributions(name=NAME))
    known = (item for item in found if item.read_text("direct_url.json"))
    return next(known, found[0] if found else None)


def _origin() -> dict[str, Any]:
    """What pip wrote of where the package came from (PEP 610); of a folder on the path, that folder."""
    found = installed()
    if found is None:
        return {"url": Path(__file__).resolve().parents[2].as_uri(), "dir_info": {}}
    try:
        origin = json.loads(found.read_text("direct_url.json") or "{}")
    except ValueError:
        return {}
    return origin if isinstance(origin, dict) else {}


def _seen(folder: Path) -> str:
    """A folder as pip takes it: "." for the working directory, its full path elsewhere."""
    try:
        return "." if os.path.samefile(folder, Path.cwd()) else str(folder)
    except OSError:  # a working directory that was deleted
        return str(folder)
