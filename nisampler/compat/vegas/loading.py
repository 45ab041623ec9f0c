"""Reading what a vegas integrator saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nisampler.base.checkpoints import load_checkpoint
from nisampler.base.storage import read_sealed, understood
from nisampler.compat.vegas.integrator import Integrator
from nisampler.compat.vegas.results import from_data


def load(path: str | Path) -> Any:
    """What `integ(f, save=path)` wrote, the result; or `saveall`, the result and the adapted integrator.

    Raises
    ------
    StorageError, CorruptFileError
        If nothing was saved there, or it was altered.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     result = Integrator([[0, 1]])(lambda x: 2 * x[0], saveall=folder)
    ...     again, integ = load(folder)
    >>> str(again) == str(result), integ.nstrat.tolist()
    (True, [125])
    """
    place = Path(path)
    if not place.is_dir():
        data = read_sealed(place)
        with understood(place):
            return from_data(data)
    tensors, meta = load_checkpoint(place)
    with understood(place):
        return from_data(meta["result"]), Integrator.from_state(tensors, meta["integrator"])
