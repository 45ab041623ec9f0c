"""Uncertainty bands: how far the histograms of a model move when its weights are drawn from their posterior.

Each file of showers belongs to one draw of the weights (2104.04543, 2312.09290). The standard
deviation over the draws contains what the limited training data leave open, and the counting error of every file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nisampler.calo.data.files import ShowerReader
from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.evaluation.features import CHUNK, Features
from nisampler.calo.evaluation.histograms import Counts
from nisampler.calo.evaluation.quantities import quantities, spectrum_axis
from nisampler.errors import ConfigError
from nisampler.ui.monitor import SILENT, Monitor

Floats = NDArray[np.float64]

VOXELS = "voxels"
"""Name of the spectrum of the voxels among the histograms."""


@dataclass(frozen=True)
class Band:
    """The spread of one histogram over draws.

    Attributes
    ----------
    deviation
        (b,) standard deviation of the density between the draws.
    counting
        (b,) root mean square of the counting errors of the draws; entries of one shower count as independent.

    Examples
    --------
    >>> from nisampler.ui.histograms import Axis
    >>> draws = [Counts(Axis("x", "$x$", np.array([0.0, 1.0, 2.0]))) for _ in range(2)]
    >>> for counts, values in zip(draws, ([0.5, 1.5], [0.5, 0.7]), strict=True):
    ...     counts.fill(values)
    >>> Band.between(draws).deviation.round(3)
    array([0.354, 0.354])
    """

    deviation: Floats
    counting: Floats

    @classmethod
    def between(cls, draws: Sequence[Counts]) -> Band:
        """From the histograms of at least two draws in the same bins."""
        densities, errors = zip(*(counts.density() for counts in draws), strict=True)
        return cls(np.std(densities, axis=0, ddof=1), np.sqrt(np.mean(np.square(errors), axis=0)))


@dataclass(frozen=True)
class Bands:
    """The bands of a candidate.

    Attributes
    ----------
    files, showers
        Where the draws are, and how many showers of each were counted.
    histograms
        By name, as `quantities` and `VOXELS` call them.

    Examples
    --------
    >>> band = Band(np.array([0.1, 0.2]), np.array([0.1, 0.1]))
    >>> round(Bands(("a.h5", "b.h5"), (10, 10), {"total": band}).over_counting(), 3)
    1.581
    """

    files: tuple[str, ...]
    showers: tuple[int, ...]
    histograms: Mapping[str, Band]

    def over_counting(self) -> float:
        """Root mean square over all filled bins, but those of single voxels, of the deviation in counting errors.

        1 if the draws differ like samples of one law, 0 if they are copies of each other or no bin is filled. Draws
        that share their random numbers may be below 1.
        """
        shares = [
            band.deviation[band.counting > 0] / band.counting[band.counting > 0]
            for name, band in self.histograms.items()
            if name != VOXELS
        ]
        found = np.concatenate(shares)
        return float(np.sqrt(np.mean(found**2))) if found.size else 0.0

    def as_dict(self) -> dict[str, Any]:
        """JSON data, without the histograms."""
        return {
            "draws": len(self.files),
            "files": list(self.files),
            "showers": list(self.showers),
            "over_counting": self.over_counting(),
        }


def measure_bands(
    name: str,
    files: Sequence[str | Path],
    geometry: Geometry,
    reference: Features,
    monitor: Monitor = SILENT,
) -> Bands:
    """Count the histograms of each draw, one block of a file in memory at a time.

    Parameters
    ----------
    name
        Of the candidate.
    files
        One for each draw, with the same number of showers and the same law of incident energies as the candidate's.
    geometry
        Of all files; cells below its threshold count as empty.
    reference
        Features that give the bins.
    monitor
        Is told the progress.

    Raises
    ------
    ConfigError
        If there are fewer than two files, or one is named twice.
    ShowerDataError, GeometryError, CorruptFileError, StorageError
        If a file is not one of showers of this geometry.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.data.showers import Showers
    >>> features = Features.of(Showers(np.full(2, 1e3), np.ones((2, 240), dtype=np.float32)), geometry("toy"))
    >>> measure_bands("model", ["a.h5"], geometry("toy"), features)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: the band of model needs the files of at least two draws, all ...
    """
    if len(set(map(str, files))) < max(2, len(files)):
        raise ConfigError(
            f"the band of {name} needs the files of at least two draws, all different, got "
            f"{', '.join(map(str, files)) or 'none'}: make more with `nisampler calo generate --posterior-draw`"
        )
    draws, sizes = [], []
    for done, path in enumerate(files):
        monitor.progress("counting draws", done, len(files), {"candidate": name})
        with ShowerReader(path, geometry) as reader:
            draws.append(_count(reader, geometry, reference))
            sizes.append(len(reader))
    monitor.progress("counting draws", len(files), len(files), {"candidate": name})
    bands = {key: Band.between([counts[key] for counts in draws]) for key in draws[0]}
    return Bands(tuple(map(str, files)), tuple(sizes), bands)


def _count(reader: ShowerReader, geometry: Geometry, reference: Features) -> dict[str, Counts]:
    """All histograms of a file."""
    known, spectrum = quantities(reference, geometry), Counts(spectrum_axis(reference, geometry))
    counts = {quantity.name: Counts(quantity.axis) for quantity in known}
    for showers in reader.chunks(CHUNK):
        features = Features.of(showers, geometry)
        for quantity in known:
            counts[quantity.name].fill(quantity.values(features))
        spectrum.fill(showers.voxels[(showers.voxels >= geometry.threshold) & (showers.voxels > 0)])
    return counts | {VOXELS: spectrum}
