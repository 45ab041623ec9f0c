"""The voxels of a calorimeter: layers, cells, threshold and the law of the incident energy."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Annotated, Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from nisampler.base.checks import Whole, checked
from nisampler.calo.detector.conditions import Condition
from nisampler.calo.detector.material import Material
from nisampler.calo.detector.stored import Files
from nisampler.errors import GeometryError, ShapeError

Floats = NDArray[np.float64]
MOST_VOXELS = 1 << 20
"""Cells of a calorimeter; the finest of the CaloChallenge has 40,500."""
Angles = Annotated[Whole, Field(ge=1, le=MOST_VOXELS)]
"""Bins of the angle."""
Kind = Literal["polar", "rectangular", "cells"]
"""Of the cells of a layer."""
Layout = Literal["calochallenge", "calogan", "getting-high"]

_FULL_TURN = 2 * math.pi * (1 + 1e-12)


@dataclass(frozen=True)
class IncidentEnergy:
    """The law from which incident energies are drawn, in MeV.

    Parameters
    ----------
    kind
        "discrete", "log-uniform" or "uniform".
    values
        The energies of "discrete", else the lower and the upper end.
    counts
        Relative frequency of each value of "discrete".

    Raises
    ------
    GeometryError
        If the values are not positive and increasing, or the counts do not fit them.

    Examples
    --------
    >>> law = IncidentEnergy("discrete", (256.0, 512.0), (1, 3))
    >>> law.sample(4, np.random.default_rng(0)).tolist()
    [512.0, 512.0, 256.0, 256.0]
    """

    kind: Literal["discrete", "log-uniform", "uniform"]
    values: tuple[float, ...]
    counts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in ("discrete", "log-uniform", "uniform"):
            raise GeometryError(f"incident energies are 'discrete', 'log-uniform' or 'uniform', got {self.kind!r}")
        if not self.values or not self.values[0] > 0 or not _increasing(self.values):
            raise GeometryError(f"incident energies must be positive, finite and increasing, got {self.values}")
        if self.kind != "discrete" and len(self.values) != 2:
            raise GeometryError(f"a {self.kind} law has a lower and an upper end, got {len(self.values)} numbers")
        if len(self.counts) != (len(self.values) if self.kind == "discrete" else 0):
            raise GeometryError(f"{len(self.counts)} counts for {len(self.values)} discrete incident energies")
        if self.counts and not (min(self.counts) >= 0 and sum(self.counts) > 0):
            raise GeometryError(f"counts of incident energies must not be negative nor all zero, got {self.counts}")

    def sample(self, n: int, rng: np.random.Generator) -> Floats:
        """Draw `n` incident energies in MeV, shape (n,)."""
        if self.kind == "discrete":
            weights = np.asarray(self.counts, dtype=np.float64)
            return rng.choice(np.asarray(self.values), size=n, p=weights / weights.sum())
        low, high = self.values
        if self.kind == "uniform":
            return rng.uniform(low, high, n)
        return np.exp(rng.uniform(math.log(low), math.log(high), n))


@dataclass(frozen=True)
class Layer:
    """One layer of cells, in the order of the file: the second axis runs fastest.

    Parameters
    ----------
    id
        Number of the layer in the data set (CaloChallenge data sets 1 skip numbers).
    kind
        "polar": the first axis is the angle alpha in radians, the second the radius r in mm;
        "rectangular": x and y in mm; "cells": any places, one after the other.
    first, second
        Edges of the cells; of "cells" x and y of their centres, mm.
    widths
        Of "cells" alone: sides of the squares for which they stand in the simulator and in figures, mm.

    Raises
    ------
    GeometryError
        If edges do not increase, or places and widths are not as many, finite and positive.

    Examples
    --------
    >>> layer = Layer.polar(0, 4, (0, 5, 10))
    >>> layer.shape, layer.n_voxels
    ((4, 2), 8)
    """

    id: int
    kind: Literal["polar", "rectangular", "cells"]
    first: tuple[float, ...]
    second: tuple[float, ...]
    widths: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise GeometryError(f"layer {self.id}: cells are 'polar', 'rectangular' or 'cells', got {self.kind!r}")
        for name in ("first", "second", "widths"):
            object.__setattr__(self, name, tuple(float(number) for number in getattr(self, name)))
        if self.kind == "cells":
            self._check_places()
            return
        for edges in (self.first, self.second):
            if len(edges) < 2 or not _increasing(edges):
                raise GeometryError(f"layer {self.id}: cell edges must be at least two and increase, got {edges}")
        if self.widths:
            raise GeometryError(f"layer {self.id}: cells with edges have no further widths")
        if self.kind == "polar" and (self.second[0] < 0 or self.first[-1] - self.first[0] > _FULL_TURN):
            raise GeometryError(f"layer {self.id}: a polar layer needs r >= 0 and angles within one turn")

    @classmethod
    def polar(cls, id: int, n_alpha: int, r_edges: Sequence[float]) -> Layer:
        """A layer with `n_alpha` equal bins of the angle in [-π, π] and the radial edges in mm."""
        checked("n_alpha", n_alpha, Angles)
        alpha = tuple(float(edge) for edge in np.linspace(-math.pi, math.pi, n_alpha + 1))
        return cls(id, "polar", alpha, tuple(float(edge) for edge in r_edges))

    def _check_places(self) -> None:
        places = np.asarray([self.first, self.second]) if len(self.first) == len(self.second) else np.empty((2, 0))
        if not places.size or not np.isfinite(places).all() or len(np.unique(places, axis=1).T) != len(self.first):
            raise GeometryError(f"layer {self.id}: listed cells need finite places x and y that all differ")
        if len(self.widths) != len(self.first) or not all(0 < width < math.inf for width in self.widths):
            raise GeometryError(f"layer {self.id}: each listed cell needs a positive width")

    @property
    def shape(self) -> tuple[int, int]:
        """Cells along the first (slow) and the second (fast) axis; all along the first if they are listed."""
        return (len(self.first), 1) if self.kind == "cells" else (len(self.first) - 1, len(self.second) - 1)

    @property
    def turns(self) -> bool:
        """Whether turns about the axis map cells on cells: equal bins of the whole angle."""
        if self.kind != "polar":
            return False
        widths = np.diff(self.first)
        return bool(np.allclose(widths, 2 * math.pi / len(widths), rtol=1e-9))

    @property
    def n_voxels(self) -> int:
        """Number of cells."""
        return self.shape[0] * self.shape[1]

    def centres(self) -> tuple[Floats, Floats]:
        """Flat coordinates (n_voxels,) of the cell centres in mm.

        x and y of a rectangular or listed cell; r cos α and r sin α of a polar one, with r and α the middle of their
        bins (the eta and phi of the CaloChallenge).
        """
        if self.kind == "cells":
            return np.asarray(self.first), np.asarray(self.second)
        first, second = (0.5 * (np.asarray(e[1:]) + np.asarray(e[:-1])) for e in (self.first, self.second))
        slow, fast = np.repeat(first, len(second)), np.tile(second, len(first))
        if self.kind == "rectangular":
            return slow, fast
        return fast * np.cos(slow), fast * np.sin(slow)

    def radii(self) -> Floats:
        """Flat distances (n_voxels,) from the axis in mm: the middle of the radial bin, or that of the cell centre."""
        if self.kind != "polar":
            return np.hypot(*self.centres())
        middle = 0.5 * (np.asarray(self.second[1:]) + np.asarray(self.second[:-1]))
        return np.tile(middle, self.shape[0])


@dataclass(frozen=True)
class Geometry:
    """A calorimeter: used by data, simulator, models, metrics and figures.

    Energies are in MeV, lengths in mm. A shower is a flat vector of `n_voxels` energies, layer after layer.

    Parameters
    ----------
    name, particle, pdg
        Name of the data set; the incident particle and its PDG code.
    layers
        In the order of the file.
    threshold
        Energies below it count as zero in every comparison, MeV.
    incident
        Law of the incident energy.
    layout
        The HDF5 layout of its files.
    response
        Typical E_tot/E_inc, from which files with wrong units are recognised; None if that is not known.
    thresholds
        Of each layer, MeV, none below `threshold`: energies below it are set to zero where showers are read and made.
        () where `threshold` is that of all.
    files
        Names and units in its files.
    material
        What the layers are made of, for the simulator; None where it is not known.
    conditions
        What showers depend on beside the incident energy.

    Raises
    ------
    GeometryError
        If there is no layer, an id is used twice, there are more than 1,048,576 cells, a threshold is negative, or
        thresholds or materials are not those of the layers.

    Examples
    --------
    >>> incident = IncidentEnergy("log-uniform", (1e3, 1e5))
    >>> layers = (Layer.polar(0, 4, (0, 5, 10)), Layer.polar(1, 1, (0, 5)))
    >>> plain = Geometry("plain", "electron", 11, layers, 0.1, incident)
    >>> plain.sizes, plain.slice(1)
    ((8, 1), slice(8, 9, None))
    >>> plain.layer_energies(np.ones((1, 9)))
    array([[8., 1.]])
    """

    name: str
    particle: str
    pdg: int
    layers: tuple[Layer, ...]
    threshold: float
    incident: IncidentEnergy
    layout: Layout = "calochallenge"
    response: float | None = 1.0
    thresholds: tuple[float, ...] = ()
    files: Files = field(default_factory=Files)
    material: Material | None = None
    conditions: tuple[Condition, ...] = ()

    def __post_init__(self) -> None:
        if not self.layers or len({layer.id for layer in self.layers}) != len(self.layers):
            raise GeometryError(f"geometry {self.name}: layers must be at least one, with different ids")
        if self.n_voxels > MOST_VOXELS:
            raise GeometryError(f"geometry {self.name}: {self.n_voxels} cells, a calorimeter can have {MOST_VOXELS}")
        if not 0 <= self.threshold < math.inf:
            raise GeometryError(f"geometry {self.name}: the threshold must be finite, not negative: {self.threshold}")
        if self.layout not in get_args(Layout):
            raise GeometryError(f"geometry {self.name}: layout must be one of {get_args(Layout)}, got {self.layout!r}")
        if self.response is not None and not 0 < self.response < math.inf:
            raise GeometryError(f"geometry {self.name}: the response must be positive, got {self.response}")
        made = [] if self.material is None else self.material.layers
        for what, given in (("thresholds", self.thresholds), ("materials", made)):
            if given and len(given) != self.n_layers:
                raise GeometryError(f"geometry {self.name}: {len(given)} {what} for {self.n_layers} layers")
        names = [known.name for known in self.conditions]
        if len(set(names)) < len(names) or {self.files.incident, self.files.showers} & set(names):
            raise GeometryError(f"geometry {self.name}: conditions need names that differ and are no datasets: {names}")
        if self.thresholds and not self.threshold <= min(self.thresholds) <= max(self.thresholds) < math.inf:
            raise GeometryError(f"geometry {self.name}: thresholds of layers must be finite, not below the common one")

    @property
    def n_layers(self) -> int:
        """Number of layers."""
        return len(self.layers)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Number of voxels of each layer."""
        return tuple(layer.n_voxels for layer in self.layers)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Index of the first voxel of each layer, and the number of voxels."""
        return tuple(accumulate(self.sizes, initial=0))

    @property
    def n_voxels(self) -> int:
        """Number of voxels of a shower."""
        return self.starts[-1]

    @cached_property
    def layer_of_voxel(self) -> NDArray[np.int64]:
        """Position of the layer that each voxel belongs to, shape (n_voxels,)."""
        index = np.repeat(np.arange(self.n_layers), self.sizes)
        index.setflags(write=False)
        return index

    @property
    def context(self) -> int:
        """How many numbers a model is given of a particle: the incident energy and the conditions."""
        return 1 + sum(known.width for known in self.conditions)

    @property
    def alike(self) -> bool:
        """Whether all layers have the same cells."""
        return all(replace(layer, id=self.layers[0].id) == self.layers[0] for layer in self.layers)

    @property
    def grid(self) -> tuple[int, int, int] | None:
        """(layers, first axis, second axis) if all layers have the same cells with edges, else None."""
        return (self.n_layers, *self.layers[0].shape) if self.alike and self.layers[0].kind != "cells" else None

    @property
    def angles(self) -> tuple[int, ...]:
        """Angular bins of the layers that turns about the axis map on themselves; () where one layer has none."""
        if not all(layer.turns for layer in self.layers):
            return ()
        return tuple(layer.shape[0] for layer in self.layers if layer.shape[0] > 1)

    def slice(self, layer: int) -> slice:
        """The voxels of the layer at a position 0..n_layers - 1.

        Raises
        ------
        GeometryError
            If there is no such layer.
        """
        if not 0 <= layer < self.n_layers:
            raise GeometryError(f"{self.name} has layers 0 to {self.n_layers - 1}, asked for {layer}")
        return slice(self.starts[layer], self.starts[layer + 1])

    def window(self, first: int, last: int) -> Geometry:
        """The layers at the positions `first` to `last` - 1 alone."""
        return replace(self, layers=self.layers[first:last], thresholds=self.thresholds[first:last], material=None)

    def divide(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The columns of y (n, V + k) that belong to voxels (n, V), and the others (n, k)."""
        return y[:, : self.n_voxels], y[:, self.n_voxels :]

    def layer_energies(self, voxels: NDArray[Any]) -> Floats:
        """Sums over the voxels of each layer, shape (n, n_layers), in float64."""
        self.check(voxels)
        return np.add.reduceat(voxels, self.starts[:-1], axis=1, dtype=np.float64)

    def layer_sums(self, voxels: Tensor) -> Tensor:
        """The same for a tensor on any device, differentiable."""
        self.check(voxels)
        return torch.stack([part.sum(1) for part in torch.split(voxels, list(self.sizes), dim=1)], dim=1)

    def suppress(self, voxels: NDArray[np.float32], first: int = 0) -> None:
        """Set voxels (n, v), of which the first is number `first`, to zero in place below the thresholds of layers."""
        if self.thresholds:
            cut = np.repeat(np.asarray(self.thresholds, dtype=np.float32), self.sizes)
            voxels[voxels < cut[first : first + voxels.shape[1]]] = 0.0

    def check(self, voxels: NDArray[Any] | Tensor) -> None:
        """ShapeError unless `voxels` is (n, n_voxels)."""
        if voxels.ndim != 2 or voxels.shape[1] != self.n_voxels:
            raise ShapeError(f"{self.name} has showers of shape (n, {self.n_voxels}), got {tuple(voxels.shape)}")

    def to_dict(self) -> dict[str, Any]:
        """JSON data that `from_dict` reads."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Geometry:
        """The geometry that `to_dict` described.

        Raises
        ------
        GeometryError
            If a field is missing, unknown or wrong.
        """
        try:
            layers = tuple(Layer(**_with_tuples(entry)) for entry in data["layers"])
            incident = IncidentEnergy(**_with_tuples(data["incident"]))
            known = {**_with_tuples(data), "layers": layers, "incident": incident}
            known["files"] = Files(**data.get("files", {}))
            material = data.get("material")
            known["conditions"] = tuple(Condition(**_with_tuples(entry)) for entry in data.get("conditions", ()))
            known["material"] = None if material is None else Material.from_dict(material)
            return cls(**known)
        except (KeyError, TypeError, ValueError) as error:
            raise GeometryError(f"not the description of a geometry: {error}") from error

    @property
    def digest(self) -> str:
        """A fingerprint of the cells and their order: a model belongs to one."""
        # what layers with edges do not have is left out, as it was when they were the only ones
        cells = json.dumps(
            [{key: value for key, value in asdict(layer).items() if value != ()} for layer in self.layers]
        )
        return hashlib.sha256(cells.encode()).hexdigest()[:16]


def _increasing(values: Sequence[float]) -> bool:
    """Whether the values are finite and each is larger than the one before it."""
    return all(map(math.isfinite, values)) and all(b > a for a, b in pairwise(values))


def _with_tuples(data: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
