"""Files of jets in the layout of JetNet (2106.11535; zenodo 6975118 and 6975117).

``particle_features`` (N, m, 4) holds etarel, phirel, ptrel and the mask of m = 30 or 150 constituents, hardest first;
``jet_features`` (N, 4) pt, eta, mass and the number of constituents. Files of JetNet hold one type of jets, which their
name tells: ``g.hdf5``, ``t150.hdf5``. Here a dataset ``type`` (N,) beside them says the type of each jet; the `jetnet`
package skips it. The five columns that this package returns, the type first, are read as well.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from nisampler._version import __version__
from nisampler.base.hdf5_input import require_readable
from nisampler.base.hdf5_output import new_hdf5
from nisampler.calo.data.columns import named_errors
from nisampler.calo.jets.jets import FEATURES, TYPES, Jets, type_number
from nisampler.errors import JetDataError, ShapeError, StorageError

PARTICLES, JETS, TYPE = "particle_features", "jet_features", "type"
_MOST_JETS = 1 << 24
_ROWS = 256
_BY_NAME = re.compile(rf"([{''.join(TYPES)}])(?:30|150)?")


def read_jets(path: str | Path, kind: str | None = None, limit: int | None = None) -> Jets:
    """The jets of a file.

    Parameters
    ----------
    path
        In the layout of JetNet.
    kind
        Type of all its jets, where the file does not say.
    limit
        Only the first jets; None for all.

    Raises
    ------
    StorageError
        If there is no such file.
    CorruptFileError
        If it is not HDF5, truncated or altered.
    JetDataError
        If datasets are missing or of the wrong shape, jets are malformed, or nothing says their type.

    Examples
    --------
    >>> import tempfile
    >>> one = np.array([[[0.1, 0.0, 0.6], [-0.1, 0.0, 0.4]]])
    >>> jets = Jets(one, np.ones((1, 2), dtype=bool), [2], [1000.0], [0.3], [98.0])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_jets(f"{folder}/a.hdf5", jets)
    ...     read_jets(f"{folder}/a.hdf5").types
    array([2])
    """
    place = Path(path)
    if not place.is_file():
        raise StorageError(f"cannot read {place}: no such file")
    with named_errors(place), h5py.File(place, "r") as file:
        known = {name: file[name] for name in (PARTICLES, JETS, TYPE) if name in file}
        if not {PARTICLES, JETS} <= known.keys():
            raise JetDataError(f"{place} holds {', '.join(file) or 'nothing'}: jets need {PARTICLES} and {JETS}")
        require_readable(place, known)
        _check_shapes(place, {name: data.shape for name, data in known.items()})
        rows = slice(0, limit)
        particles, features = (np.asarray(known[name][rows], dtype=np.float64) for name in (PARTICLES, JETS))
        stored = np.asarray(known[TYPE][rows]) if TYPE in known else None
    types = _types(place, features, stored, kind)
    pt, eta, mass = features[:, -4:-1].T
    try:
        return Jets(particles[..., :3].astype(np.float32), particles[..., 3] > 0.5, types, pt, eta, mass)
    except JetDataError as error:
        raise JetDataError(f"{place}: {error}") from error


def _check_shapes(place: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    particles, features = shapes[PARTICLES], shapes[JETS]
    if len(particles) != 3 or particles[2] != len(FEATURES) + 1 or 0 in particles:
        raise JetDataError(
            f"{place}: {PARTICLES} must be (jets, constituents, 4) with {', '.join(FEATURES)} and mask, got {particles}"
        )
    if len(features) != 2 or features[1] not in (4, 5) or features[0] != particles[0]:
        raise JetDataError(
            f"{place}: {JETS} must be ({particles[0]}, 4) with pt, eta, mass and num_particles, or (…, 5) with the "
            f"type before them, got {features}"
        )
    if TYPE in shapes and shapes[TYPE] != particles[:1]:
        raise JetDataError(f"{place}: {TYPE} must be a number for each of {particles[0]} jets, got {shapes[TYPE]}")
    if particles[0] > _MOST_JETS:
        raise JetDataError(f"{place}: {particles[0]:,} jets are more than {_MOST_JETS:,}: split the file")


def _types(place: Path, features: NDArray[Any], stored: NDArray[Any] | None, kind: str | None) -> NDArray[Any]:
    """The type of each jet: as said, as stored, or as the name of the file tells."""
    if kind is not None:
        return np.full(len(features), type_number(kind))
    if stored is not None:
        return stored
    if features.shape[1] == 5:
        return features[:, 0]
    named = _BY_NAME.fullmatch(place.stem)
    if named is None:
        raise JetDataError(
            f"{place} does not say of which type its jets are: name it like JetNet's files (g.hdf5, t150.hdf5), or "
            f"write a dataset {TYPE!r} with numbers of {', '.join(TYPES)}"
        )
    return np.full(len(features), type_number(named[1]))


def read_all(paths: Sequence[str | Path], limit: int | None = None) -> Jets:
    """The jets of several files, one after the other; arguments and errors as for `read_jets`.

    Raises
    ------
    ShapeError
        If they hold different numbers of constituents, or there is no file.

    Examples
    --------
    >>> read_all(["nowhere.hdf5"])
    Traceback (most recent call last):
    ...
    nisampler.errors.StorageError: cannot read nowhere.hdf5: no such file
    """
    if not paths:
        raise ShapeError("there is no file of jets to read: give at least one")
    return Jets.concatenate([read_jets(path, limit=limit) for path in paths])


class JetWriter:
    """Writes jets in pieces to a file that appears once it is complete. Use it in a ``with`` statement.

    Parameters
    ----------
    path
        The file to make.
    most
        Places for constituents.

    Raises
    ------
    StorageError
        If it cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> one = np.array([[[0.1, 0.0, 0.6], [-0.1, 0.0, 0.4]]])
    >>> jets = Jets(one, np.ones((1, 2), dtype=bool), [2], [1000.0], [0.3], [98.0])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with JetWriter(f"{folder}/a.hdf5", 2) as writer:
    ...         writer.append(jets)
    ...         writer.append(jets)
    ...     len(read_jets(f"{folder}/a.hdf5"))
    2
    """

    def __init__(self, path: str | Path, most: int) -> None:
        self.path, self.most, self.written = Path(path), most, 0
        self._context = new_hdf5(self.path)

    def __enter__(self) -> JetWriter:
        self._output = self._context.__enter__()
        shapes = {PARTICLES: ((self.most, len(FEATURES) + 1), "f4"), JETS: ((4,), "f8"), TYPE: ((), "i8")}
        with self._output.writing():
            file = self._output.file
            file.attrs["generator"] = f"nisampler {__version__}"
            for name, (shape, dtype) in shapes.items():
                options = {"chunks": (_ROWS, *shape), "compression": "gzip", "compression_opts": 1}
                file.create_dataset(name, (0, *shape), dtype, maxshape=(None, *shape), **options)
        return self

    def __exit__(self, *reason: Any) -> None:
        if reason[0] is None and not self.written:
            error = JetDataError(f"{self.path}: no jet was written, so no file was made; append at least one")
            self._context.__exit__(JetDataError, error, None)
            raise error
        self._context.__exit__(*reason)

    def append(self, jets: Jets) -> None:
        """Add jets at the end.

        Raises
        ------
        ShapeError
            If they have another number of places for constituents.
        StorageError
            If the disk is full or the file cannot be written.
        """
        if jets.most != self.most:
            raise ShapeError(f"{self.path} holds {self.most} constituents a jet, got jets of {jets.most}")
        particles = np.concatenate([jets.constituents, jets.mask[..., None].astype(np.float32)], axis=2)
        features = np.stack([jets.pt, jets.eta, jets.mass, jets.count.astype(np.float64)], axis=1)
        stop = self.written + len(jets)
        with self._output.writing():
            for name, values in {PARTICLES: particles, JETS: features, TYPE: jets.types}.items():
                data = self._output.file[name]
                data.resize(stop, axis=0)
                data[self.written : stop] = values
        self.written = stop


def write_jets(path: str | Path, jets: Jets) -> None:
    """Write jets to a new file.

    Raises
    ------
    StorageError
        If it cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> one = np.array([[[0.1, 0.0, 0.6], [-0.1, 0.0, 0.4]]])
    >>> jets = Jets(one, np.ones((1, 2), dtype=bool), [2], [1000.0], [0.3], [98.0])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_jets(f"{folder}/a.hdf5", jets)
    ...     read_jets(f"{folder}/a.hdf5").mass
    array([98.])
    """
    with JetWriter(path, jets.most) as writer:
        writer.append(jets)
