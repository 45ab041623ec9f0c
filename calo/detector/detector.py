"""How the registered geometries are built: media, depths of the layers, response of the active material."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.detector.material import Material
from nisampler.calo.detector.media import ARGON, LEAD, SILICON, TUNGSTEN, Medium, sampling_medium
from nisampler.errors import GeometryError

Floats = NDArray[np.float64]

ELECTRON, PHOTON, PION = 11, 22, 211


@dataclass(frozen=True)
class Stack:
    """Slices in depth along the shower axis; one or several belong to each readout layer.

    Parameters
    ----------
    edges
        Depths of the slices (m+1,), in radiation lengths.
    layer
        Position of the readout layer of each slice (m,), not decreasing.
    moliere_radius
        Molière radius at each slice (m,), mm.
    scale
        Readout energy per deposited energy at each slice (m,).
    interaction_edges
        Depths of the slices (m+1,) in nuclear interaction lengths; needed for hadrons only.
    middles
        Distance (m,) of the middle of each slice from the front in mm; needed for inclined showers only.

    Raises
    ------
    GeometryError
        If lengths differ, or depths do not increase.

    Examples
    --------
    >>> stack = Stack(np.array([0.0, 1.0, 2.0]), np.array([0, 0]), np.ones(2), np.ones(2))
    >>> stack.slices(0)
    slice(0, 2, None)
    """

    edges: Floats
    layer: NDArray[np.int64]
    moliere_radius: Floats
    scale: Floats
    interaction_edges: Floats | None = None
    middles: Floats | None = None

    def __post_init__(self) -> None:
        count = len(self.layer)
        others = [len(self.edges) - 1, len(self.moliere_radius), len(self.scale)]
        if self.interaction_edges is not None:
            others.append(len(self.interaction_edges) - 1)
        if self.middles is not None:
            others.append(len(self.middles))
        if any(other != count for other in others):
            raise GeometryError(f"a stack of {count} slices has arrays for {others} slices")
        if np.any(np.diff(self.edges) <= 0) or np.any(np.diff(self.layer) < 0):
            raise GeometryError("depths of slices must increase, and their layers must not decrease")

    def slices(self, layer: int) -> slice:
        """The slices of one readout layer."""
        return slice(int(np.searchsorted(self.layer, layer)), int(np.searchsorted(self.layer, layer, side="right")))


@dataclass(frozen=True)
class Response:
    """Deposits in the cells: particles that cross active layers, and soft deposits beside them.

    A cell that expects the energy E gets Poisson(E/crossing) crossings; each has a Gamma law of mean `crossing`
    and relative width `width`, so that sums of crossings are Gamma variables as well. With `mip` a crossing has a law
    like Landau's instead, see `nisampler.calo.simulation.crossings`: the spectrum of cells has a sharp peak at one
    crossing.

    Parameters
    ----------
    crossing
        Mean energy of one crossing in readout MeV.
    width
        Relative standard deviation of a crossing.
    loose
        Share of the crossings that do not follow the spots but the mean profile: spots scatter their crossings over
        the borders of cells.
    scatter
        Median displacement of a crossing from its spot, mm.
    soft_share, soft_energy, soft_distance
        Soft deposits per crossing, their mean energy in MeV (exponential) and median displacement in mm.
    mip
        Most probable energy of one straight crossing in readout MeV; 0 for the Gamma law.

    Examples
    --------
    >>> Response(crossing=2.0).gamma_shape > 0
    True
    """

    crossing: float
    width: float = 0.4
    loose: float = 0.4
    scatter: float = 0.0
    soft_share: float = 0.0
    soft_energy: float = 1.0
    soft_distance: float = 0.0
    mip: float = 0.0

    @property
    def gamma_shape(self) -> float:
        """Shape of the Gamma law of one crossing."""
        return 1.0 / (self.width * self.width)


@dataclass(frozen=True)
class EarlyLayer:
    """Law of the energy of one early slice: L = exp(m(ln E) - width²/2 + width n), readout MeV.

    E is in GeV, and exp(m) with the polynomial m of coefficients `mean` is the mean of L. The normal number n has the
    correlation `following` to the residual of the first slice behind the early ones, shares a part `shared` with the
    other early slices, and is independent for the rest. Crossings in the slice have the mean energy `crossing`.

    >>> EarlyLayer((2.872, 0.1776, 0.0163), 0.46, 0.5, 0.3, 3.0).crossing
    3.0
    """

    mean: tuple[float, float, float]
    width: float
    following: float
    shared: float
    crossing: float


@dataclass(frozen=True)
class EarlyLayers:
    """Correction of the first slices of an electron shower.

    A Gamma profile starts as a power of the depth, so that it has too little energy there, less at higher incident
    energy, with too large fluctuations. Means and widths follow a detailed cascade simulation of the W-Si stack;
    the correlations are set to those that the CaloChallenge published for data set 2 (Geant4).

    Parameters
    ----------
    slices
        From the first one on.
    mean
        Coefficients of 1, ln E and ln² E in the mean of ln(L + 1) of the slice behind them.
    spread
        Standard deviation of its residual.

    Examples
    --------
    >>> len(EarlyLayers().slices)
    4
    """

    slices: tuple[EarlyLayer, ...] = (
        EarlyLayer((2.872, 0.1776, 0.0163), 0.46, 0.5, 0.3, 3.0),
        EarlyLayer((3.737, 0.3876, -0.0093), 0.43, 0.6, 0.4, 3.5),
        EarlyLayer((4.220, 0.5473, -0.0193), 0.38, 0.7, 0.4, 4.0),
        EarlyLayer((4.482, 0.6854, -0.0263), 0.33, 0.8, 0.4, 5.0),
    )
    mean: tuple[float, float, float] = (4.558, 0.820, -0.0306)
    spread: float = 0.40


@dataclass(frozen=True)
class Detector:
    """All that the simulator knows about a calorimeter beside its cells.

    Parameters
    ----------
    medium
        The medium that shapes the showers.
    stack
        Slices in depth.
    response
        Deposits in the cells.
    resolution
        c of σ(E)/E = c/√(E/GeV), which sets the number of spots.
    layer_resolution
        The part of c that the Gamma law of the layer energies carries; crossings carry the rest.
    threshold
        Cells below it are not read out, MeV.
    early
        Correction of the first layers for electrons.
    conserve
        The deposits of a shower add up to what its profile leaves in the cells: total absorption, where every
        deposit is read out.
    crossings
        Mean energy of one crossing in each readout layer, where it is not that of the response.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> isinstance(detector(geometry("toy")), Detector)
    True
    """

    medium: Medium
    stack: Stack
    response: Response
    resolution: float
    layer_resolution: float
    threshold: float = 0.0
    early: EarlyLayers | None = None
    conserve: bool = False
    crossings: tuple[float, ...] = ()


def _refine(edges: Sequence[float], widest: float) -> tuple[Floats, NDArray[np.int64]]:
    """Cut layers between `edges` into equal slices of at most `widest`: the edges, and the layer of each slice."""
    points, layers = [float(edges[0])], []
    for layer, (low, high) in enumerate(pairwise(edges)):
        count = math.ceil((high - low) / widest)
        points.extend(float(point) for point in np.linspace(low, high, count + 1)[1:])
        layers.extend([layer] * count)
    return np.asarray(points), np.asarray(layers, dtype=np.int64)


def _uniform(medium: Medium, edges: Floats, layer: NDArray[np.int64], scale: float) -> Stack:
    return Stack(edges, layer, np.full(len(layer), medium.moliere_radius), np.full(len(layer), scale))


def _par04(geometry: Geometry) -> Detector:
    """The W-Si cylinder of Geant4's example Par04: 45 slices of 3.4 mm, energies divided by 0.033."""
    medium = sampling_medium(TUNGSTEN, 1.4, SILICON, 0.3)
    slices = 45
    if slices % geometry.n_layers:
        raise GeometryError(f"{geometry.name}: {slices} slices cannot be shared by {geometry.n_layers} layers")
    edges = np.linspace(0.0, 3.4 * slices / medium.radiation_length, slices + 1)
    layer = np.arange(slices) // (slices // geometry.n_layers)
    return Detector(
        medium=medium,
        stack=_uniform(medium, edges, layer, 0.845),
        response=Response(crossing=6.0, scatter=0.75, soft_share=0.04, soft_energy=2.0, soft_distance=6.0),
        resolution=0.105,
        layer_resolution=0.06,
        threshold=geometry.threshold,
        early=EarlyLayers(),
    )


def _par04_silicon(geometry: Geometry) -> Detector:
    """The same with the peak of a silicon layer at one crossing; they fluctuate more, so that layers do less."""
    plain = _par04(geometry)
    return replace(plain, response=replace(plain.response, mip=3.2), layer_resolution=0.048)


# Ends of the layers of the ATLAS barrel near η = 0.2 in radiation and in interaction lengths, approximate: presampler,
# three electromagnetic layers, three of the tiles
_ATLAS_DEPTHS = {0: 0.5, 1: 4.8, 2: 21.0, 3: 23.5, 12: 40.0, 13: 78.0, 14: 95.0}
_ATLAS_INTERACTION = {0: 0.02, 1: 0.25, 2: 1.15, 3: 1.3, 12: 2.8, 13: 6.9, 14: 8.7}
# Tracker, solenoid and cryostat in front of them
_ATLAS_UPSTREAM = (2.5, 0.15)


def _atlas(geometry: Geometry) -> Detector:
    """A slice of the ATLAS barrel: lead and liquid argon throughout, the tiles only by their depths.

    The 2.5 radiation lengths upstream, not read out, bring the layer correlations near to the published ones.
    """
    medium = sampling_medium(LEAD, 1.53, ARGON, 4.2)
    unknown = [layer.id for layer in geometry.layers if layer.id not in _ATLAS_DEPTHS]
    if unknown:
        raise GeometryError(f"{geometry.name}: depths are known for the layers {sorted(_ATLAS_DEPTHS)}, not {unknown}")
    front, nuclear_front = _ATLAS_UPSTREAM
    ends = [front, *(front + _ATLAS_DEPTHS[layer.id] for layer in geometry.layers)]
    nuclear_ends = [nuclear_front, *(nuclear_front + _ATLAS_INTERACTION[layer.id] for layer in geometry.layers)]
    edges, layer = _refine(ends, 1.0)
    nuclear = np.interp(edges, ends, nuclear_ends)
    count = len(layer)
    return Detector(
        medium=medium,
        stack=Stack(edges, layer, np.full(count, medium.moliere_radius), np.full(count, 0.99), nuclear),
        response=Response(crossing=5.0, soft_share=0.04, soft_energy=1.5, soft_distance=20.0),
        resolution=0.10,
        layer_resolution=0.06,
    )


def _calogan(geometry: Geometry) -> Detector:
    """80 slabs of 2 mm lead and 4 mm liquid argon, read out as 90, 347 and 43 mm; deposits in both materials count."""
    medium = sampling_medium(LEAD, 2.0, ARGON, 4.0)
    if geometry.n_layers != 3:
        raise GeometryError(f"{geometry.name}: the CaloGAN detector has 3 layers, got {geometry.n_layers}")
    edges, layer = _refine([z / medium.radiation_length for z in (0.0, 90.0, 437.0, 480.0)], 1.5)
    return Detector(
        medium=medium,
        stack=_uniform(medium, edges, layer, 1.0),
        response=Response(crossing=0.18),
        resolution=0.015,
        layer_resolution=0.0,
        conserve=True,
    )


def _getting_high(geometry: Geometry) -> Detector:
    """The Si-W calorimeter of the ILD: 20 layers with 2.1 mm of tungsten, the others with 4.2 mm; no air gaps.

    Energies are raw deposits in silicon. The first medium shapes the shower; depth, Molière radius and visible
    fraction follow the medium of each layer.
    """
    thin, thick = (sampling_medium(TUNGSTEN, tungsten, SILICON, 0.525) for tungsten in (2.1, 4.2))
    media = [thin if layer < 20 else thick for layer in range(geometry.n_layers)]
    widths = [(2.625 if medium is thin else 4.725) / medium.radiation_length for medium in media]
    return Detector(
        medium=thin,
        stack=Stack(
            np.concatenate([[0.0], np.cumsum(widths)]),
            np.arange(geometry.n_layers),
            np.asarray([medium.moliere_radius for medium in media]),
            np.asarray([medium.visible_fraction for medium in media]),
        ),
        response=Response(crossing=0.2),
        resolution=0.166,
        layer_resolution=0.14,
    )


# Mean deposit of a crossing in those of minimally ionising particles: tracks of a shower are inclined and slow.
_OBLIQUE = 1.3
# Most probable deposit of a straight crossing of a thin layer, in its mean
_PROBABLE = 0.75
# Deposits of total absorption, MeV, and its relative resolution at 1 GeV
_FINE, _CRYSTAL = 0.5, 0.02


def _built(geometry: Geometry, material: Material) -> Detector:
    """Slabs of the materials that a geometry says: the medium of the deepest layer shapes the showers.

    Depth, Molière radius and visible share follow the medium of each layer. Without a stated resolution it is 2.7 %
    √(d/f), with d the active thickness in mm and f its share of the energy loss of a minimally ionising particle.
    """
    media, slabs = material.media, material.layers
    deepest = int(np.argmax(material.depths))
    medium = media[deepest]
    ends = np.cumsum([material.upstream, *material.depths])
    edges, layer = _refine(ends.tolist(), 1.0)
    visible = np.asarray([1.0 if material.calibrated else one.visible_fraction for one in media])
    gains = visible / np.asarray([one.visible_fraction for one in media])
    loss = material.active.ionisation * material.active.density / 10.0
    sampled = [one.sampling_frequency is not None for one in media]
    crossings = [
        float(gain) * (_OBLIQUE * loss * slab.active if thin else _FINE)
        for gain, slab, thin in zip(gains, slabs, sampled, strict=True)
    ]
    resolution = material.resolution
    if resolution is None:
        resolution = 0.027 * math.sqrt(slabs[deepest].active / medium.mip_fraction) if sampled[deepest] else _CRYSTAL
    mip = crossings[deepest] * _PROBABLE / _OBLIQUE if material.landau and sampled[deepest] else 0.0
    response = Response(crossing=crossings[deepest], mip=mip)
    counting = crossings[deepest] * (1.0 + response.width**2) / (1e3 * float(visible[deepest]))
    interaction = material.interaction_depths
    nuclear = None
    if interaction is not None:
        front = material.upstream * interaction[0] / material.depths[0]
        nuclear = np.interp(edges, ends, np.cumsum([front, *interaction]))
    radii = np.asarray([one.moliere_radius for one in media])
    middles = np.interp(0.5 * (edges[1:] + edges[:-1]), ends, np.cumsum([0.0, *(slab.depth for slab in slabs)]))
    return Detector(
        medium=medium,
        stack=Stack(edges, layer, radii[layer], visible[layer], nuclear, middles),
        response=response,
        resolution=resolution,
        layer_resolution=math.sqrt(max(resolution**2 - counting, 0.0)) if sampled[deepest] else 0.0,
        threshold=geometry.threshold,
        conserve=not any(sampled),
        crossings=tuple(crossings),
    )


_DETECTORS: dict[str, Callable[[Geometry], Detector]] = {
    "ds1-photons": _atlas,
    "ds1-pions": _atlas,
    "ds2": _par04,
    "ds3": _par04,
    "ds2-reduced": _par04,
    "toy": _par04,
    "toy-silicon": _par04_silicon,
    "calogan": _calogan,
    "getting-high": _getting_high,
}


def detector(geometry: Geometry) -> Detector:
    """The detector of a geometry that is registered or says its material.

    Raises
    ------
    GeometryError
        If it says none and its name is not known here, or its layers do not fit.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> int(detector(geometry("toy")).stack.layer.max())
    4
    """
    if geometry.material is not None:
        return _built(geometry, geometry.material)
    if geometry.name not in _DETECTORS:
        raise GeometryError(
            f"no detector is known for the geometry {geometry.name!r}: say its material, hand a detector to the "
            f"simulator, or use one of {', '.join(_DETECTORS)}"
        )
    return _DETECTORS[geometry.name](geometry)
