"""Single columns of HDF5 files, and what goes wrong with such files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from nisampler.base.hdf5_input import require_readable
from nisampler.calo.detector.geometry import Floats
from nisampler.errors import CorruptFileError, NisamplerError, ShowerDataError, StorageError


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Errors of the HDF5 library as errors that name the file.

    Raises
    ------
    CorruptFileError
        In place of what the library raises.

    Examples
    --------
    >>> with named_errors(Path("a.h5")):
    ...     raise KeyError("no")
    Traceback (most recent call last):
    ...
    nisampler.errors.CorruptFileError: a.h5: not HDF5, truncated or altered ('no'); fetch or write the file again
    """
    try:
        yield
    except NisamplerError:
        raise
    except (OSError, LookupError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise CorruptFileError(
            f"{path}: not HDF5, truncated or altered ({error}); fetch or write the file again"
        ) from error


def read_column(path: str | Path, name: str) -> Floats:
    """A dataset of one number for each shower, shape (n,).

    Raises
    ------
    StorageError
        If there is no such file.
    CorruptFileError
        If it is not HDF5, truncated or altered.
    ShowerDataError
        If there is no such dataset.

    Examples
    --------
    >>> read_column("nowhere.h5", "theta")
    Traceback (most recent call last):
    ...
    nisampler.errors.StorageError: cannot read nowhere.h5: no such file
    """
    place = Path(path)
    if not place.is_file():
        raise StorageError(f"cannot read {place}: no such file")
    with named_errors(place), h5py.File(place, "r") as file:
        found = file.get(name)
        if not isinstance(found, h5py.Dataset) or found.dtype.kind not in "iuf" or found.shape[1:] not in ((), (1,)):
            raise ShowerDataError(f"{place} has no dataset {name!r} of one number for each shower")
        require_readable(place, {name: found})
        return np.asarray(found[()], dtype=np.float64).reshape(-1)
