"""Where the axis of each shower runs: what the simulator makes of the conditions of a geometry."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nisampler.calo.detector.geometry import Floats, Geometry
from nisampler.errors import GeometryError, ShowerDataError

PARTICLE = "particle"
_PLACES = ("theta", "phi", "x", "y")
_STEEPEST = np.deg2rad(85.0)


@dataclass(frozen=True)
class Axis:
    """Lines of n showers: where they meet the front in mm, their slopes, and the path in one unit of depth.

    >>> Axis(np.zeros((2, 2)), np.ones((2, 2)), np.ones(2)).shifts(np.array([0.0, 5.0]))[0]
    array([[0., 0.],
           [5., 5.]])
    """

    place: Floats
    slope: Floats
    stretch: Floats

    def shifts(self, depth: Floats) -> Floats:
        """Places (n, m, 2) at depths (m,) in mm."""
        return self.place[:, None] + self.slope[:, None] * depth[:, None]

    def __getitem__(self, index: slice) -> Axis:
        return Axis(self.place[index], self.slope[index], self.stretch[index])


def check_conditions(geometry: Geometry, depths: bool) -> None:
    """GeometryError unless the simulator can follow the conditions; `depths` says whether those of layers are known.

    Raises
    ------
    GeometryError
        If one is unknown, is of the wrong kind, or layers are polar or of unknown depth where showers leave the axis.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> check_conditions(geometry("toy"), depths=False)
    """
    names = {known.name for known in geometry.conditions}
    unknown = names - {PARTICLE, *_PLACES}
    if unknown:
        raise GeometryError(
            f"{geometry.name}: the simulator knows nothing of {', '.join(sorted(unknown))}, only of {PARTICLE} (a "
            f"category of PDG codes), {', '.join(_PLACES)}"
        )
    for known in geometry.conditions:
        if (known.kind == "category") != (known.name == PARTICLE):
            raise GeometryError(f"{geometry.name}: {known.name} cannot be a {known.kind} in the simulator")
        if known.name in ("theta", "phi") and known.unit not in ("deg", "rad"):
            raise GeometryError(f"{geometry.name}: {known.name} needs the unit deg or rad")
    if names & {"theta", "x", "y"} and any(layer.kind == "polar" for layer in geometry.layers):
        raise GeometryError(
            f"{geometry.name}: showers beside the axis are simulated in rectangular and listed cells, not in polar ones"
        )
    if "theta" in names and not depths:
        raise GeometryError(f"{geometry.name}: inclined showers need the material of the layers, in mm")


def axis_of(geometry: Geometry, conditions: Floats) -> Axis | None:
    """The lines of showers with these conditions (n, k); None where all run along the axis.

    Raises
    ------
    ShowerDataError
        If a shower is steeper than 85 degrees.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> axis_of(geometry("toy"), np.zeros((3, 0))) is None
    True
    """
    known = {one.name: (one, values) for one, values in zip(geometry.conditions, conditions.T, strict=True)}
    if not known.keys() & {"theta", "x", "y"}:
        return None
    zero = np.zeros(len(conditions))
    theta, phi = (known[name][0].radians(known[name][1]) if name in known else zero for name in ("theta", "phi"))
    steep = np.flatnonzero(np.abs(theta) > _STEEPEST)
    if len(steep):
        raise ShowerDataError(f"shower {steep[0]}: theta is {np.rad2deg(theta[steep[0]]):.4g} degrees, at most 85")
    place = np.stack([known[name][1] if name in known else zero for name in ("x", "y")], axis=1)
    slope = np.tan(theta)[:, None] * np.stack([np.cos(phi), np.sin(phi)], axis=1)
    return Axis(place, slope, 1.0 / np.cos(theta))


def of_particle(geometry: Geometry, code: float) -> Geometry:
    """The geometry for one particle of its category.

    >>> from nisampler.calo.detector.geometries import geometry
    >>> of_particle(geometry("toy"), 22.0).pdg
    22
    """
    rest = tuple(known for known in geometry.conditions if known.name != PARTICLE)
    return replace(geometry, pdg=int(code), conditions=rest)
