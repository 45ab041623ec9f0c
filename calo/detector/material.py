"""What the layers of a calorimeter are made of: all that the simulator is told of a detector of one's own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nisampler.calo.detector.media import Element, Medium, mixture, sampling_medium
from nisampler.errors import GeometryError


@dataclass(frozen=True)
class Slabs:
    """The slabs whose deposits one layer adds up.

    Parameters
    ----------
    active, absorber
        Thicknesses in mm; the absorber stands in front, 0 for none.
    repeat
        Number of such pairs.

    Raises
    ------
    GeometryError
        If the active slab has no thickness, the absorber a negative one, or there is no pair.

    Examples
    --------
    >>> Slabs(active=0.5, absorber=3.5, repeat=2).depth
    8.0
    """

    active: float
    absorber: float = 0.0
    repeat: int = 1

    def __post_init__(self) -> None:
        if not (0 < self.active < math.inf and 0 <= self.absorber < math.inf and self.repeat >= 1):
            raise GeometryError(
                f"slabs need an active thickness above zero and an absorber that is not negative, at least once: "
                f"got {self.active} and {self.absorber} mm, {self.repeat} times"
            )

    @property
    def depth(self) -> float:
        """Of all of them, mm."""
        return self.repeat * (self.absorber + self.active)


@dataclass(frozen=True)
class Material:
    """The materials of a calorimeter and the thicknesses of its layers.

    Parameters
    ----------
    active
        Whose deposits are read out.
    absorber
        None where there is none.
    layers
        In their order; () where a geometry says nothing about them.
    upstream
        Material in front, not read out, radiation lengths.
    calibrated
        Energies are divided by the share that is deposited in the active material, layer by layer; else they are
        those deposits.
    resolution
        c of σ(E)/E = c/√(E/GeV); None for what the sampling suggests.
    landau
        Crossings of thin layers have a law like Landau's, with a sharp peak at one crossing; else a smooth one.

    Raises
    ------
    GeometryError
        If there are slabs of an absorber that is not named, or a number is out of range.

    Examples
    --------
    >>> from nisampler.calo.detector.media import SILICON, TUNGSTEN
    >>> material = Material(SILICON, TUNGSTEN, (Slabs(0.5, 2.1), Slabs(0.5, 4.2)))
    >>> [round(depth, 2) for depth in material.depths]
    [0.6, 1.2]
    """

    active: Element
    absorber: Element | None
    layers: tuple[Slabs, ...]
    upstream: float = 0.0
    calibrated: bool = False
    resolution: float | None = None
    landau: bool = False

    def __post_init__(self) -> None:
        if self.absorber is None and any(slabs.absorber for slabs in self.layers):
            raise GeometryError("layers have slabs of an absorber: say which material it is")
        if not self.layers or not 0 <= self.upstream < math.inf:
            raise GeometryError(f"a material needs layers, and a depth in front of them >= 0, got {self.upstream}")
        if self.resolution is not None and not 0 < self.resolution < math.inf:
            raise GeometryError(f"a resolution must be positive, got {self.resolution}")

    @property
    def media(self) -> tuple[Medium, ...]:
        """What shapes a shower in each layer."""
        return tuple(
            sampling_medium(self.absorber, slabs.absorber, self.active, slabs.active)
            if self.absorber is not None and slabs.absorber
            else mixture([(self.active, 1.0)])
            for slabs in self.layers
        )

    @property
    def depths(self) -> tuple[float, ...]:
        """Of each layer, radiation lengths."""
        return tuple(
            slabs.depth / medium.radiation_length for slabs, medium in zip(self.layers, self.media, strict=True)
        )

    @property
    def interaction_depths(self) -> tuple[float, ...] | None:
        """Of each layer, nuclear interaction lengths; None where those of a material are not known."""
        lengths = [_interaction_mm(self.active), _interaction_mm(self.absorber or self.active)]
        if None in lengths:
            return None
        active, absorber = (float(length or 1.0) for length in lengths)
        return tuple(slabs.repeat * (slabs.active / active + slabs.absorber / absorber) for slabs in self.layers)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Material:
        """The material that `dataclasses.asdict` described.

        Raises
        ------
        TypeError, KeyError, GeometryError
            If a field is missing, unknown or wrong.
        """
        absorber = data["absorber"]
        return cls(
            **{
                **data,
                "active": Element(**data["active"]),
                "absorber": None if absorber is None else Element(**absorber),
                "layers": tuple(Slabs(**slabs) for slabs in data["layers"]),
            }
        )


def _interaction_mm(element: Element) -> float | None:
    return None if element.interaction_length is None else 10.0 * element.interaction_length / element.density
