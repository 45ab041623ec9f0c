"""New showers from a fitted model, streamed to a file in shards."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nisampler.base.checks import Count, Natural, checked
from nisampler.base.rng import Streams
from nisampler.calo.data.checks import check_incident
from nisampler.calo.data.kinds import POINTS, AnyShowers
from nisampler.calo.data.particles import draw_particles
from nisampler.calo.data.points import PointShowers, project
from nisampler.calo.data.showers import Showers, Voxels
from nisampler.calo.data.writer import ShowerWriter
from nisampler.calo.detector.geometry import Floats, Geometry
from nisampler.calo.models import GenerativeModel, model_streams
from nisampler.errors import ConfigError, ModelError
from nisampler.ui.monitor import SILENT, Monitor

SHARD = 1000

# Energies so many times above those that a model learned from are refused, and those within the second count as inside.
_FAR, _EDGE = 50.0, 1.01
_UNKNOWN = "nothing says that its showers are right there"
# Times that a shower is drawn again, and the showers that may need it: a number and a share of all.
_MOST_DRAWS, _FEW, _SHARE = 20, 10, 0.01


@dataclass(frozen=True)
class GeneratedShowers:
    """What was written.

    Attributes
    ----------
    showers
        Their number.
    redrawn
        Showers that were not finite or had negative voxels, and were drawn again.
    empty
        Showers without energy.
    energy_ratio, occupancy
        Means of E_tot/E_inc and of the share of voxels above the threshold; of point clouds, of their number of points.
    seconds
        Of the wall clock.
    outside
        Showers whose incident energy lies outside those that the model learned from.
    warnings
        One sentence on these, if there are any.
    beside
        Shares of the points and of the energy that fell beside all cells, where point clouds were projected.

    Examples
    --------
    >>> GeneratedShowers(100, 0, 1, 0.85, 0.3, 2.0).showers
    100
    """

    showers: int
    redrawn: int
    empty: int
    energy_ratio: float
    occupancy: float
    seconds: float
    outside: int = 0
    warnings: tuple[str, ...] = ()
    beside: tuple[float, float] | None = None


def freeze_draw(model: GenerativeModel, seed: int, draw: int) -> None:
    """Give the variational weights of a model draw number `draw` of their posterior, instead of their means.

    The draw depends on the seed, its number and the model. Showers of several draws that are generated with one seed
    share their noise and the incident energies of the law: what differs between them is the weights' doing.

    Raises
    ------
    ConfigError
        If the number is negative.
    ModelError
        If the model has no variational weights.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models import build_model
    >>> model = build_model("small-inn-bayesian", geometry("toy"))
    >>> freeze_draw(model, seed=1, draw=0)
    """
    checked("draw", draw, Natural)
    model.draw_posterior(Streams(seed).generator("posterior", draw))


class ShowerGenerator:
    """Draws shards of showers; shard k depends on the model, the seed and k alone.

    Incident energies of a seed are the same for all models, showers are drawn independently for models of
    different families or flows.

    Parameters
    ----------
    model
        A fitted model, on any device.
    seed
        Of all random numbers.
    limit
        Showers that may be drawn again altogether.
    laws
        The geometry whose laws give particles; by default that of the model.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models import build_model
    >>> generator = ShowerGenerator(build_model("small-inn", geometry("toy")).eval(), seed=1, limit=10)
    >>> generator.draw(generator.incident(3, 0), 0).voxels.shape
    (3, 240)
    """

    def __init__(self, model: GenerativeModel, seed: int, limit: int, laws: Geometry | None = None) -> None:
        self.model, self.limit, self.laws = model, limit, laws or model.geometry
        self.streams, self.own_streams = Streams(seed), model_streams(model.config, seed)
        self.device = next(model.parameters()).device
        self.redrawn = 0

    def incident(self, n: int, shard: int) -> Floats:
        """Incident energies (n,) in MeV of the law; with k conditions (n, 1 + k)."""
        return draw_particles(self.laws, n, self.streams, shard)

    def draw(self, incident: Floats, shard: int) -> AnyShowers:
        """A shower for each incident energy (n,) in MeV, or for each row (n, 1 + k) with conditions.

        Raises
        ------
        ModelError
            If too many showers are not finite or have negative voxels.
        """
        found = self._sample(incident, shard, 0)
        bad = self._malformed(found)
        for attempt in range(1, _MOST_DRAWS):
            if not len(bad):
                break
            self.redrawn += len(bad)
            if self.redrawn > self.limit:
                break
            found = _put(found, bad, self._sample(incident[bad], shard, attempt))
            bad = bad[self._malformed(found[bad])]
        if len(bad):
            raise ModelError(
                f"the model makes too many showers that are not finite or have negative {self.model.kind.name}: "
                f"{self.redrawn} so far, last at {np.ravel(incident[bad[0]])[0]:.6g} MeV; train it longer, or look for "
                "such energies outside its data"
            )
        table = incident.reshape(len(incident), -1)
        return self.model.kind.made(self.model.geometry, table[:, 0], found, table[:, 1:])

    def _malformed(self, found: Voxels) -> NDArray[np.int64]:
        return np.flatnonzero(self.model.kind.malformed(found, self.model.geometry))

    def _sample(self, incident: Floats, shard: int, attempt: int) -> Voxels:
        generator = self.own_streams.generator("showers", shard, attempt, device=self.device)
        energies = torch.as_tensor(incident, dtype=torch.float32, device=self.device)
        voxels: Voxels = self.model.sample(energies, generator).to("cpu", torch.float32).numpy()
        return voxels


def _put(found: Voxels, rows: NDArray[np.int64], new: Voxels) -> Voxels:
    """What was found, with new showers in these rows; clouds may need more room for points."""
    more = max(0, new.shape[1] - found.shape[1])
    wide = np.pad(found, [(0, 0), (0, more), *[(0, 0)] * (found.ndim - 2)]) if more else found
    wide[rows] = 0.0
    wide[rows, : new.shape[1]] = new
    return wide


def generate(
    model: GenerativeModel,
    n: int,
    output: str | Path,
    seed: int = 1,
    incident: Floats | None = None,
    shard: int = SHARD,
    monitor: Monitor = SILENT,
    laws: Geometry | None = None,
    projected: str | Path | None = None,
) -> GeneratedShowers:
    """Write exactly `n` new showers to a file in the layout of the model's geometry.

    Parameters
    ----------
    model
        A fitted model.
    n
        Number of showers.
    output
        The HDF5 file; it appears once it is complete.
    seed
        Same seed and shards, same showers.
    incident
        Incident energies (n,) in MeV, with k conditions (n, 1 + k); by default they are drawn.
    shard
        Showers that are made at once: memory grows with it.
    monitor
        Is told the progress.
    laws
        The geometry whose laws they are drawn from, such as `narrowed` makes; by default that of the model.
    projected
        Of a model of point clouds: also write the showers in cells to this file.

    Raises
    ------
    ConfigError
        If numbers are not positive, there are not `n` incident energies, or voxels are to be projected.
    ShowerDataError
        If an incident energy is not positive or above 1e15 MeV.
    ModelError
        If too many showers had to be drawn again, or an incident energy is 50 times above the highest that the model
        learned from.
    StorageError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models import build_model
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     generate(build_model("small-inn", geometry("toy")).eval(), 3, f"{folder}/a.h5").showers
    3
    """
    checked("n", n, Count)
    checked("shard", shard, Count)
    geometry, start = model.geometry, time.monotonic()
    trained = model.trained_energies
    if incident is not None:
        _check_particles(incident, n, geometry)
        _outside(incident.reshape(n, -1)[:, 0], trained)
    generator = ShowerGenerator(model, seed, int(_FEW + _SHARE * n), laws)
    if projected is not None and model.kind is not POINTS:
        raise ConfigError("only point clouds are projected to cells: this model makes showers in cells")
    tally = _Tally(model)
    with ExitStack() as files:
        writers = [files.enter_context(model.kind.writer(output, geometry))]
        if projected is not None:
            writers.append(files.enter_context(ShowerWriter(projected, geometry)))
        for index, first in enumerate(range(0, n, shard)):
            count = min(shard, n - first)
            given = generator.incident(count, index) if incident is None else incident[first : first + count]
            tally.outside += _outside(given.reshape(count, -1)[:, 0], trained)
            showers = generator.draw(given, index)
            tally.add(showers)
            writers[0].append(showers)
            if isinstance(showers, PointShowers) and projected is not None:
                writers[1].append(tally.cells(showers))
            figures = {"E_tot/E_inc": f"{tally.ratio / (first + count):.3f}", "drawn again": str(generator.redrawn)}
            monitor.progress("generating", first + count, n, figures)
    notes = tally.notes(n)
    for note in notes:
        monitor.line(f"warning: {note}")
    means = tally.ratio / n, tally.filled / n, time.monotonic() - start
    beside = None if projected is None else tally.beside
    return GeneratedShowers(n, generator.redrawn, tally.empty, *means, tally.outside, tuple(notes), beside)


class _Tally:
    """Sums over the showers that were written."""

    def __init__(self, model: GenerativeModel) -> None:
        self.model, self.empty, self.outside, self.ratio, self.filled = model, 0, 0, 0.0, 0.0
        self._beyond = dict.fromkeys((known.name for known in model.geometry.conditions), 0)
        # points and energy: all that were projected, and those beside the cells
        self._sums = np.zeros((2, 2))

    def add(self, showers: AnyShowers) -> None:
        """Count showers of the model."""
        for known, values in zip(self.model.geometry.conditions, showers.conditions.T, strict=True):
            seen = self.model.trained_conditions.get(known.name)
            self._beyond[known.name] += 0 if seen is None else known.outside(values, seen)
        self.empty += showers.empty
        self.ratio += float(np.sum(showers.totals / showers.incident))
        self.filled += self.model.kind.filled(showers, self.model.geometry) * len(showers)

    def cells(self, clouds: PointShowers) -> Showers:
        """Clouds in cells; what fell beside them is counted."""
        found = project(clouds, self.model.geometry)
        self._sums += [
            [len(clouds.points), clouds.totals.sum()],
            [found.outside.sum(), found.energy_outside.sum()],
        ]
        return found.showers

    @property
    def beside(self) -> tuple[float, float]:
        """Shares of the points and of the energy beside the cells."""
        points, energy = self._sums[1] / np.maximum(self._sums[0], 1e-30)
        return float(points), float(energy)

    def notes(self, n: int) -> list[str]:
        """Sentences on particles outside those that the model learned from."""
        trained = self.model.trained_energies
        notes = [_outside_note(self.outside, n, trained)] if trained and self.outside else []
        return notes + [_beyond_note(self.model, name, number, n) for name, number in self._beyond.items() if number]


def _check_particles(given: Floats, n: int, geometry: Geometry) -> None:
    """ConfigError unless there are `n` incident energies with the conditions; other errors where values are wrong."""
    k = len(geometry.conditions)
    shape = (n, 1 + k) if k else (n,)
    if np.shape(given) != shape or np.asarray(given).dtype.kind not in "iuf":
        names = "".join(f" and {known.name}" for known in geometry.conditions)
        raise ConfigError(f"{n} showers need incident energies{names} of shape {shape}, got {np.shape(given)}")
    energies, *others = given.reshape(n, -1).T
    check_incident(energies, "the incident energies")
    for known, values in zip(geometry.conditions, others, strict=True):
        known.check(values, "the conditions")


def _beyond_note(model: GenerativeModel, name: str, number: int, n: int) -> str:
    seen = " to ".join(f"{value:.4g}" for value in model.trained_conditions[name])
    return f"{number} of {n} values of {name} lie outside those that the model learned from ({seen}): {_UNKNOWN}"


def _outside(energies: Floats, trained: tuple[float, float] | None) -> int:
    """How many incident energies lie outside those that a model learned from; ModelError where one is far above."""
    if trained is None:
        return 0
    low, high = trained
    largest = float(energies.max(initial=0.0))
    if largest >= _FAR * high:
        raise ModelError(
            f"an incident energy of {largest:g} MeV is {largest / high:.3g} times the highest that the model learned "
            f"from ({low:g} to {high:g} MeV): fit a model to showers of such energies"
        )
    return int(np.count_nonzero((energies < low / _EDGE) | (energies > high * _EDGE)))


def _outside_note(outside: int, n: int, trained: tuple[float, float]) -> str:
    low, high = trained
    return (
        f"{outside} of {n} incident energies lie outside those that the model learned from ({low:g} to {high:g} MeV): "
        + _UNKNOWN
    )
