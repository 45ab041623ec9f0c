"""New showers from a fitted model, streamed to a file in shards."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nisampler.base.checks import Count, Natural, checked
from nisampler.base.rng import Streams
from nisampler.calo.data.checks import check_incident
from nisampler.calo.data.particles import draw_particles
from nisampler.calo.data.showers import Showers, Voxels
from nisampler.calo.data.writer import ShowerWriter
from nisampler.calo.detector.geometry import Floats, Geometry
from nisampler.calo.models import ShowerModel, model_streams
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
        Means of E_tot/E_inc and of the share of voxels above the threshold.
    seconds
        Of the wall clock.
    outside
        Showers whose incident energy lies outside those that the model learned from.
    warnings
        One sentence on these, if there are any.

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


def freeze_draw(model: ShowerModel, seed: int, draw: int) -> None:
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

    def __init__(self, model: ShowerModel, seed: int, limit: int, laws: Geometry | None = None) -> None:
        self.model, self.limit, self.laws = model, limit, laws or model.geometry
        self.streams, self.own_streams = Streams(seed), model_streams(model.config, seed)
        self.device = next(model.parameters()).device
        self.redrawn = 0

    def incident(self, n: int, shard: int) -> Floats:
        """Incident energies (n,) in MeV of the law; with k conditions (n, 1 + k)."""
        return draw_particles(self.laws, n, self.streams, shard)

    def draw(self, incident: Floats, shard: int) -> Showers:
        """A shower for each incident energy (n,) in MeV, or for each row (n, 1 + k) with conditions.

        Raises
        ------
        ModelError
            If too many showers are not finite or have negative voxels.
        """
        voxels = self._sample(incident, shard, 0)
        bad = np.flatnonzero(_malformed(voxels))
        for attempt in range(1, _MOST_DRAWS):
            if not len(bad):
                break
            self.redrawn += len(bad)
            if self.redrawn > self.limit:
                break
            voxels[bad] = self._sample(incident[bad], shard, attempt)
            bad = bad[_malformed(voxels[bad])]
        if len(bad):
            raise ModelError(
                f"the model makes too many showers that are not finite or have negative voxels: {self.redrawn} so far, "
                f"last at {np.ravel(incident[bad[0]])[0]:.6g} MeV; train it longer, or look for such energies outside "
                "its data"
            )
        self.model.geometry.suppress(voxels)
        table = incident.reshape(len(incident), -1)
        return Showers(table[:, 0], voxels, table[:, 1:])

    def _sample(self, incident: Floats, shard: int, attempt: int) -> Voxels:
        generator = self.own_streams.generator("showers", shard, attempt, device=self.device)
        energies = torch.as_tensor(incident, dtype=torch.float32, device=self.device)
        voxels: Voxels = self.model.sample(energies, generator).to("cpu", torch.float32).numpy()
        return voxels


def _malformed(voxels: Voxels) -> NDArray[np.bool_]:
    """Which showers (n, n_voxels) are not finite or have negative voxels."""
    good: NDArray[np.bool_] = np.all((voxels >= 0.0) & (voxels < np.inf), axis=1)
    return ~good


def generate(
    model: ShowerModel,
    n: int,
    output: str | Path,
    seed: int = 1,
    incident: Floats | None = None,
    shard: int = SHARD,
    monitor: Monitor = SILENT,
    laws: Geometry | None = None,
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

    Raises
    ------
    ConfigError
        If numbers are not positive, or there are not `n` incident energies.
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
    trained: tuple[float, float] | None = getattr(model, "trained_energies", None)
    if incident is not None:
        _check_particles(incident, n, geometry)
        _outside(incident.reshape(n, -1)[:, 0], trained)
    generator = ShowerGenerator(model, seed, int(_FEW + _SHARE * n), laws)
    empty, outside, ratio, occupied = 0, 0, 0.0, 0.0
    beyond = dict.fromkeys((known.name for known in geometry.conditions), 0)
    with ShowerWriter(output, geometry) as writer:
        for index, first in enumerate(range(0, n, shard)):
            count = min(shard, n - first)
            given = generator.incident(count, index) if incident is None else incident[first : first + count]
            energies = given.reshape(count, -1)[:, 0]
            outside += _outside(energies, trained)
            showers = generator.draw(given, index)
            for known, values in zip(geometry.conditions, showers.conditions.T, strict=True):
                seen = model.trained_conditions.get(known.name)
                beyond[known.name] += 0 if seen is None else known.outside(values, seen)
            writer.append(showers)
            sums = showers.voxels.sum(axis=1, dtype=np.float64)
            empty += int(np.count_nonzero(sums == 0.0))
            ratio += float(np.sum(sums / energies))
            occupied += float(np.count_nonzero(showers.voxels > geometry.threshold))
            figures = {"E_tot/E_inc": f"{ratio / (first + count):.3f}", "drawn again": str(generator.redrawn)}
            monitor.progress("generating", first + count, n, figures)
    notes = [_outside_note(outside, n, trained)] if trained and outside else []
    notes += [_beyond_note(model, name, number, n) for name, number in beyond.items() if number]
    for note in notes:
        monitor.line(f"warning: {note}")
    seconds, occupancy = time.monotonic() - start, occupied / n / geometry.n_voxels
    return GeneratedShowers(n, generator.redrawn, empty, ratio / n, occupancy, seconds, outside, tuple(notes))


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


def _beyond_note(model: ShowerModel, name: str, number: int, n: int) -> str:
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
