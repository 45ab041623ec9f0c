"""Point clouds of the reference simulator: what it deposits in cells much finer than those of the calorimeter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from nisampler.base.checks import Count, checked
from nisampler.base.rng import Streams
from nisampler.calo.data.particles import draw_particles
from nisampler.calo.data.point_files import PointWriter
from nisampler.calo.data.points import PointShowers
from nisampler.calo.detector.detector import detector
from nisampler.calo.detector.geometry import Floats, Geometry
from nisampler.calo.detector.places import finer, places_in
from nisampler.calo.simulation.simulator import Simulator, shard_size
from nisampler.ui.monitor import SILENT, Monitor

FINER = 6
"""Parts of the sides of a cell: CaloClouds clusters deposits in cells 36 times smaller (2309.05704)."""


class PointSimulator:
    """Clouds of points of a calorimeter that the simulator knows.

    Showers are simulated in cells cut `times` times along both axes. What one of these holds is a point, at a random
    place inside: crossings are independent, so that the points of a cell add up to what is simulated for it, but for
    its threshold.

    Parameters
    ----------
    geometry
        The calorimeter.
    times
        Parts of a side of a cell.

    Raises
    ------
    GeometryError
        If it cannot be simulated.
    ConfigError
        If the number is not positive.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> clouds = PointSimulator(geometry("toy"), 2).simulate(np.array([1e3]), np.random.default_rng(1))
    >>> bool(0 < clouds.totals[0] < 1e3)
    True
    """

    def __init__(self, geometry: Geometry, times: int = FINER) -> None:
        self.cells = finer(geometry, times)
        self.engine = Simulator(self.cells, replace(detector(geometry), threshold=0.0))

    def simulate(self, incident: Floats, rng: np.random.Generator) -> PointShowers:
        """Clouds of particles with these energies (n,) in MeV; with k conditions (n, 1 + k).

        Raises
        ------
        ShowerDataError
            If an energy is not positive, or shapes are wrong.
        """
        voxels = self.engine.simulate(incident, rng)
        owners, cells = np.nonzero(voxels)
        energies, positions = voxels[owners, cells], self.cells.layer_of_voxel[cells]
        points = np.empty((len(owners), 4), dtype=np.float32)
        for position, layer in enumerate(self.cells.layers):
            here = np.flatnonzero(positions == position)
            x, y = places_in(layer, cells[here] - self.cells.starts[position], rng)
            points[here] = np.column_stack([x, y, np.full(len(here), position), energies[here]])
        table = np.asarray(incident, dtype=np.float64).reshape(len(incident), -1)
        return PointShowers(table[:, 0], points, np.bincount(owners, minlength=len(table)), table[:, 1:])


def simulate_points(
    path: str | Path, geometry: Geometry, n: int, seed: int, times: int = FINER, monitor: Monitor = SILENT
) -> dict[str, float]:
    """Simulate `n` clouds with energies of the geometry's law and stream them to a file of `showerdata`.

    Each shard of showers has its own random streams, so that the file depends on the geometry, `times`, `n` and the
    seed; incident energies are those of `simulate_file` with as many showers in a shard.

    Parameters
    ----------
    path, geometry, n, seed, monitor
        As for `nisampler.calo.simulation.simulator.simulate_file`.
    times
        Parts of a side of a cell.

    Returns
    -------
    "showers", and the means "energy_ratio" of E_tot/E_inc and "points" of their number in a shower.

    Raises
    ------
    ConfigError, GeometryError, StorageError
        As `simulate_file` and `PointSimulator`.

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.calo.detector.geometries import geometry
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     simulate_points(f"{folder}/a.h5", geometry("toy"), 5, seed=1)["showers"]
    5.0
    """
    checked("n", n, Count)
    streams, engine = Streams(seed), PointSimulator(geometry, times)
    size = shard_size(engine.cells)
    ratio = points = 0.0
    with PointWriter(path, geometry) as writer:
        for shard, start in enumerate(range(0, n, size)):
            count = min(size, n - start)
            clouds = engine.simulate(draw_particles(geometry, count, streams, shard), streams.numpy("points", shard))
            writer.append(clouds)
            ratio += float(np.sum(clouds.totals / clouds.incident))
            points += len(clouds.points)
            monitor.progress("simulating", start + count, n, {"E_tot/E_inc": f"{ratio / (start + count):.3f}"})
    return {"showers": float(n), "energy_ratio": ratio / n, "points": points / n}
