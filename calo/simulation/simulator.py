"""A fast reference simulator of calorimeter showers: GFLASH profiles, spots, and crossings of active layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nisampler.base.checks import Count, checked
from nisampler.base.rng import Streams
from nisampler.calo.data.particles import draw_particles
from nisampler.calo.data.showers import Showers
from nisampler.calo.data.writer import ShowerWriter
from nisampler.calo.detector.detector import ELECTRON, PHOTON, PION, Detector, EarlyLayers, detector
from nisampler.calo.detector.geometry import Geometry, Layer
from nisampler.calo.simulation import pions
from nisampler.calo.simulation.axis import PARTICLE, Axis, axis_of, check_conditions, of_particle
from nisampler.calo.simulation.crossings import Crossings
from nisampler.calo.simulation.gflash import Radial, draw_profile, radial_profile, spot_number, spot_profile
from nisampler.errors import GeometryError, ShowerDataError
from nisampler.ui.monitor import SILENT, Monitor

Floats = NDArray[np.float64]

_CHUNK_CELLS = 1 << 18  # cells of one layer and slice that are in memory at a time
_SHARD_VOXELS = 1 << 24
_SHARD_SHOWERS = 4096
_CONVERSION_LENGTH = 9.0 / 7.0


@dataclass(frozen=True)
class _Component:
    """Part of the showers: readout energy and mean number of spots of each slice, and their radial profile in mm."""

    energy: Floats
    spots: Floats
    radial: Radial


class Simulator:
    """Showers of one geometry.

    A shower is made in three steps. GFLASH (hep-ex/0001020) gives each slice its energy, number of spots and radial
    profile, with correlated fluctuations. The spots are thrown into the cells: since they are independent, the
    number in each cell is a Poisson variable around the integral of the profile over the cell. The energy of the
    spots of a cell is then carried by a Poisson number of particles that cross active material, which gives the
    showers their holes. The cost of a shower therefore depends on the number of cells and hardly on the energy.

    Photons convert after a depth that is exponential with 9/7 radiation lengths and shower as electrons from there.
    Pions are schematic, see `nisampler.calo.simulation.pions`.

    Of the conditions of a geometry it knows the category ``particle``, the angles ``theta`` to the axis and ``phi`` of
    the direction, and the place ``x``, ``y`` on the front in mm. Inclined showers run along their line, on a path that
    is longer by 1/cos θ; their radial profile stays that of a plane across it.

    Parameters
    ----------
    geometry
        Cells and incident particle.
    detector
        Media, depths and response.

    Raises
    ------
    GeometryError
        If the particle is not an electron, positron, photon or charged pion, or the layers do not fit.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> toy = geometry("toy")
    >>> Simulator(toy, detector(toy)).simulate(np.array([1e4, 2e4]), np.random.default_rng(0)).shape
    (2, 240)
    """

    def __init__(self, geometry: Geometry, detector: Detector) -> None:
        if abs(geometry.pdg) not in (ELECTRON, PHOTON, PION):
            raise GeometryError(
                f"{geometry.name}: cannot simulate {geometry.particle!r} (PDG {geometry.pdg}): "
                f"only electrons ({ELECTRON}), photons ({PHOTON}) and charged pions ({PION})"
            )
        if not np.array_equal(np.unique(detector.stack.layer), np.arange(geometry.n_layers)):
            raise GeometryError(f"{geometry.name}: every one of the {geometry.n_layers} layers needs a slice")
        if abs(geometry.pdg) == PION and detector.stack.interaction_edges is None:
            raise GeometryError(f"{geometry.name}: pions need the depths of the slices in interaction lengths")
        check_conditions(geometry, detector.stack.middles is not None)
        self.geometry = geometry
        self.detector = detector
        response = detector.response
        means = list(detector.crossings or [response.crossing] * geometry.n_layers)
        mips = [response.mip / response.crossing * mean for mean in means]
        if detector.early is not None and geometry.n_layers == len(detector.stack.layer):
            early = [law.crossing for law in detector.early.slices]
            means[: len(early)] = early
        laws = zip(means, mips, strict=True)
        self._crossings = [Crossings.of(mean, mip, response.gamma_shape) for mean, mip in laws]

    def simulate(self, incident: Floats, rng: np.random.Generator) -> NDArray[np.float32]:
        """Showers of particles with these energies.

        Parameters
        ----------
        incident
            Energies (n,) in MeV; with k conditions (n, 1 + k).
        rng
            The only source of random numbers.

        Returns
        -------
        Voxel energies (n, n_voxels) in MeV.

        Raises
        ------
        ShowerDataError
            If an energy is not finite or not positive, or the array is not of shape (n,).
        """
        incident, k = np.asarray(incident, dtype=np.float64), len(self.geometry.conditions)
        if incident.ndim != (2 if k else 1) or (k and incident.shape[1] != 1 + k):
            shape = f"(n, {1 + k})" if k else "(n,)"
            raise ShowerDataError(f"incident energies must be of shape {shape}, got {incident.shape}")
        names = [known.name for known in self.geometry.conditions]
        if PARTICLE in names:
            return self._by_particle(incident, 1 + names.index(PARTICLE), rng)
        table = incident.reshape(len(incident), 1 + k)
        incident, axis = table[:, 0], axis_of(self.geometry, table[:, 1:])
        bad = np.flatnonzero(~(np.isfinite(incident) & (incident > 0)))
        if len(bad):
            raise ShowerDataError(f"shower {bad[0]}: the incident energy must be positive, got {incident[bad[0]]} MeV")
        voxels = np.zeros((len(incident), self.geometry.n_voxels), dtype=np.float32)
        slices = np.bincount(self.detector.stack.layer)
        chunk = max(1, _CHUNK_CELLS // max(self.geometry.sizes))
        if any(layer.kind != "polar" for layer in self.geometry.layers):
            chunk = max(1, _CHUNK_CELLS // int(np.max(slices * np.asarray(self.geometry.sizes))))
        for start in range(0, len(incident), chunk):
            block = voxels[start : start + chunk]
            part = None if axis is None else axis[start : start + chunk]
            self._fill(block, incident[start : start + chunk] * 1e-3, part, rng)
        return voxels

    def _by_particle(self, rows: Floats, column: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Showers of particles whose codes stand in a column."""
        voxels = np.zeros((len(rows), self.geometry.n_voxels), dtype=np.float32)
        for code in np.unique(rows[:, column]):
            chosen = rows[:, column] == code
            engine = Simulator(of_particle(self.geometry, code), self.detector)
            rest = np.delete(rows[chosen], column, axis=1)
            voxels[chosen] = engine.simulate(rest if rest.shape[1] > 1 else rest[:, 0], rng)
        return voxels

    def _fill(self, voxels: NDArray[np.float32], energy: Floats, axis: Axis | None, rng: np.random.Generator) -> None:
        """Add the showers of a chunk, energies in GeV."""
        components = self._components(energy, axis, rng)
        expected = np.zeros(len(energy))
        for position in range(self.geometry.n_layers):
            block, mean = self._deposit(position, components, axis, rng)
            voxels[:, self.geometry.slice(position)] = block
            expected += mean
        if self.detector.conserve:
            total = voxels.sum(axis=1, dtype=np.float64)
            voxels *= _ratio(expected, total)[:, None].astype(np.float32)
        if self.detector.threshold > 0:
            voxels[voxels < self.detector.threshold] = 0.0
        self.geometry.suppress(voxels)

    def _components(self, energy: Floats, axis: Axis | None, rng: np.random.Generator) -> list[_Component]:
        if abs(self.geometry.pdg) == PION:
            if axis is not None and np.any(axis.stretch != 1.0):
                raise GeometryError(f"{self.geometry.name}: pions are simulated along the axis alone, not inclined")
            return self._pions(energy, rng)
        start = np.zeros(len(energy))
        if self.geometry.pdg == PHOTON:
            start = rng.exponential(_CONVERSION_LENGTH, len(energy))
        return [self._electromagnetic(energy, start, rng, None if axis is None else axis.stretch)]

    def _electromagnetic(
        self, energy: Floats, start: Floats, rng: np.random.Generator, stretch: Floats | None = None
    ) -> _Component:
        """GFLASH showers that start at depths in radiation lengths, on paths that are longer by a factor (n,)."""
        detector, stack = self.detector, self.detector.stack
        edges = stack.edges if stretch is None else stack.edges * stretch[:, None]
        profile = draw_profile(energy, detector.medium, rng)
        spots = spot_profile(profile, detector.medium).fractions(start, edges)
        spots *= spot_number(energy, detector.medium, detector.resolution)[:, None]
        layers = energy[:, None] * profile.fractions(start, edges)
        if detector.layer_resolution > 0:
            square = detector.layer_resolution**2
            layers = square * rng.standard_gamma(layers / square)
        layers *= 1e3 * stack.scale
        if detector.early is not None and abs(self.geometry.pdg) == ELECTRON:
            _replace_early(layers, energy, detector.early, rng)
            first = slice(len(detector.early.slices))
            spots[:, first] = layers[:, first] * _ratio(spots.sum(axis=1), layers.sum(axis=1))[:, None]
        middle = 0.5 * (edges[..., 1:] + edges[..., :-1])
        tau = np.maximum(middle - start[:, None], 0.0) * profile.tau_scale[:, None]
        radial = radial_profile(energy, tau, detector.medium).scaled(stack.moliere_radius)
        return _Component(layers, spots, radial.spread(detector.response.scatter))

    def _pions(self, energy: Floats, rng: np.random.Generator) -> list[_Component]:
        """Track, electromagnetic and hadronic part of schematic pions."""
        stack = self.detector.stack
        edges = stack.interaction_edges
        if edges is None:
            raise GeometryError(f"{self.geometry.name}: pions need the depths of the slices in interaction lengths")
        start, start_x0 = pions.first_interaction(stack.edges, edges, len(energy), rng)
        track = pions.ionisation(energy, start, edges)
        rest = np.maximum(energy - 1e-3 * track.sum(axis=1), 1e-3 * energy)
        fraction = np.clip(pions.electromagnetic_fraction(rest, rng), 1e-3, 0.999)
        hadronic = (1.0 - fraction) * rest
        energies = pions.hadronic(hadronic, start, edges, rng)
        shares = energies / np.maximum(energies.sum(axis=1, keepdims=True), 1e-300)
        spots, radial = pions.hadronic_spots(hadronic)[:, None] * shares, pions.hadronic_radial(start, edges)
        return [
            _Component(track * stack.scale, np.where(track > 0, 1.0, 0.0), pions.track_radial(stack, len(energy))),
            self._electromagnetic(fraction * rest, start_x0, rng),
            _Component(energies * stack.scale, spots, radial),
        ]

    def _deposit(
        self, position: int, components: Sequence[_Component], axis: Axis | None, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], Floats]:
        """Energies of the cells of a layer (n, cells), and the energy (n,) that was expected in them."""
        layer, response = self.geometry.layers[position], self.detector.response
        index = self.detector.stack.slices(position)
        n = len(components[0].energy)
        middles = self.detector.stack.middles
        depth = np.zeros(index.stop - index.start) if middles is None else middles[index]
        shift = None if axis is None else axis.shifts(depth)
        totals = sum(
            (np.stack([part.energy[:, index], part.spots[:, index]]).sum(axis=2) for part in components),
            np.zeros((2, n)),
        )
        energy = spots = soft = np.zeros((n, 1, 1))
        for part in components:
            radial = part.radial.select(index)
            share = _shares(layer, radial, shift)
            energy = energy + np.einsum("ns,nsac->nac", part.energy[:, index], share)
            spots = spots + np.einsum("ns,nsac->nac", part.spots[:, index], share)
            if response.soft_share > 0:
                wide = _shares(layer, radial.spread(response.soft_distance), shift)
                soft = soft + np.einsum("ns,nsac->nac", part.energy[:, index], wide)
        hard = self._throw_spots(layer, energy, spots, totals, rng)
        law = self._crossings[position]
        cells = self._cross(hard / law.mean, response.soft_share / law.mean * soft, law, rng)
        return cells.reshape(n, -1), hard.sum(axis=(1, 2))

    def _throw_spots(
        self, layer: Layer, energy: Floats, spots: Floats, totals: Floats, rng: np.random.Generator
    ) -> Floats:
        """Energy (n, first, second) that each cell of the layer expects after its spots are thrown.

        Parameters
        ----------
        energy, spots
            Mean energy and mean number of spots: (n, first, second), or (n, 1, second) where the angle is symmetric.
        totals
            Energy and mean number of spots (2, n) of the layer, with what lies beside the cells.
        """
        shape = (len(energy), *layer.shape)
        inside = np.stack([np.broadcast_to(part, shape).sum(axis=(1, 2)) for part in (energy, spots)])
        beside = np.maximum(totals - inside, 0.0)
        thrown = rng.poisson(np.broadcast_to(spots, shape)) * _ratio(energy, spots)
        sums = thrown.sum(axis=(1, 2)) + rng.poisson(beside[1]) * _ratio(*beside)
        # a layer without spots keeps its mean profile
        loose = np.where(sums > 0, self.detector.response.loose, 1.0)
        tight = (1.0 - loose) * _ratio(totals[0], sums)
        return tight[:, None, None] * thrown + loose[:, None, None] * energy

    def _cross(self, hard: Floats, soft: Floats, law: Crossings, rng: np.random.Generator) -> NDArray[np.float32]:
        """Energies (n, first, second) of Poisson numbers of crossings and soft deposits with these means."""
        response = self.detector.response
        means = hard + soft
        counts = rng.poisson(means)
        energies = np.zeros(counts.size, dtype=np.float32)
        hit = np.flatnonzero(counts)
        counts_hit = counts.reshape(-1)[hit]
        if response.soft_share > 0:
            share = (soft / np.maximum(means, 1e-300)).reshape(-1)[hit]
            n_soft = rng.binomial(counts_hit, np.minimum(share, 1.0))
            energies[hit] = response.soft_energy * rng.standard_gamma(n_soft.astype(np.float32), dtype=np.float32)
            counts_hit = counts_hit - n_soft
        energies[hit] += law.sums(counts_hit, rng)
        return energies.reshape(counts.shape)


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """The quotient, or zero where the denominator is not positive."""
    return np.divide(numerator, denominator, out=np.zeros_like(denominator), where=denominator > 0)


def _shares(layer: Layer, radial: Radial, shift: Floats | None) -> Floats:
    """Share of the energy of each slice in each cell: (n, slices, first, second); the first is 1 for equal angles.

    Axes pass at places (n, slices, 2), or at zero without.
    """
    first, second = np.asarray(layer.first), np.asarray(layer.second)
    if layer.turns:
        return (radial.rings(second) / layer.shape[0])[:, :, None, :]
    if layer.kind == "polar":
        return radial.rings(second)[:, :, None, :] * (np.diff(first) / (2.0 * np.pi))[:, None]
    if shift is not None:
        first, second = first - shift[..., :1], second - shift[..., 1:]
    if layer.kind == "rectangular":
        return radial.rectangles(first, second)
    return radial.squares(first, second, np.asarray(layer.widths))[..., None]


def _replace_early(layers: Floats, energy: Floats, early: EarlyLayers, rng: np.random.Generator) -> None:
    """Replace the energies (n, slices) of the first slices in place, in readout MeV; `energy` is in GeV.

    The other slices make up for the difference, so that the energy of the shower stays.
    """
    count, total = len(early.slices), layers.sum(axis=1)
    log_e = np.log(energy)
    polynomial = np.polynomial.polynomial.polyval
    mean = polynomial(log_e, early.mean)
    residual = (np.log1p(layers[:, count]) - mean) / early.spread
    normal = rng.standard_normal((count + 1, len(energy)))
    for k, law in enumerate(early.slices):
        alone = np.sqrt(1.0 - law.following**2 - law.shared**2)
        n = law.following * residual + law.shared * normal[-1] + alone * normal[k]
        layers[:, k] = np.exp(polynomial(log_e, law.mean) - 0.5 * law.width**2 + law.width * n)
    rest = np.maximum(total - layers[:, :count].sum(axis=1), 0.0)
    layers[:, count:] *= _ratio(rest, layers[:, count:].sum(axis=1))[:, None]


def simulator(geometry: Geometry) -> Simulator:
    """The simulator of a geometry that is registered or says its material.

    Raises
    ------
    GeometryError
        If no detector is known for it, or the particle cannot be simulated.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> voxels = simulator(geometry("toy")).simulate(np.array([1e4]), np.random.default_rng(0))
    >>> bool(0 < voxels.sum() < 1e4)
    True
    """
    return Simulator(geometry, detector(geometry))


def shard_size(geometry: Geometry) -> int:
    """Number of showers that are simulated and written at a time: it bounds the memory and depends on nothing else.

    >>> from nisampler.calo.detector.geometries import geometry
    >>> shard_size(geometry("toy")) >= shard_size(geometry("ds3"))
    True
    """
    return min(_SHARD_SHOWERS, max(1, _SHARD_VOXELS // geometry.n_voxels))


def simulate_file(
    path: str | Path, geometry: Geometry, n: int, seed: int, monitor: Monitor = SILENT
) -> dict[str, float]:
    """Simulate `n` showers with energies of the geometry's law and stream them to a file.

    Each shard of showers has its own random streams, so that the file depends on the geometry, `n` and the seed.

    Parameters
    ----------
    path
        The HDF5 file to make.
    n
        Number of showers.
    seed
        0 ≤ seed < 2^63.
    monitor
        Is told the progress.

    Returns
    -------
    "showers", and the means "energy_ratio" of E_tot/E_inc and "occupancy" of cells above the threshold.

    Raises
    ------
    ConfigError
        If `n` is not positive or the seed is out of range.
    GeometryError
        If the geometry cannot be simulated.

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.calo.detector.geometries import geometry
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     simulate_file(f"{folder}/a.h5", geometry("toy"), 5, seed=1)["showers"]
    5.0
    """
    checked("n", n, Count)
    streams, engine, size = Streams(seed), simulator(geometry), shard_size(geometry)
    ratio = occupied = 0.0
    with ShowerWriter(path, geometry) as writer:
        for shard, start in enumerate(range(0, n, size)):
            count = min(size, n - start)
            given = draw_particles(geometry, count, streams, shard)
            voxels = engine.simulate(given, streams.numpy("showers", shard))
            table = given.reshape(count, -1)
            incident = table[:, 0]
            writer.append(Showers(incident, voxels, table[:, 1:]))
            ratio += float(np.sum(voxels.sum(axis=1, dtype=np.float64) / incident))
            occupied += float(np.count_nonzero(voxels > geometry.threshold))
            monitor.progress("simulating", start + count, n, {"E_tot/E_inc": f"{ratio / (start + count):.3f}"})
    return {"showers": float(n), "energy_ratio": ratio / n, "occupancy": occupied / n / geometry.n_voxels}
