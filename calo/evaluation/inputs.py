"""What classifiers see of a shower: vectors of inputs, made batch by batch so that large samples stay in memory once.

Cells below the threshold of the geometry count as empty in every kind of input. Incident energies and cells are
rounded to float32, the precision of the files, so that no classifier learns how a sample was stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from nisampler.calo.data.checks import check_incident, check_voxels
from nisampler.calo.data.showers import Showers
from nisampler.calo.detector.conditions import encode
from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.evaluation.features import Features
from nisampler.errors import ConfigError, GeometryError

Columns = tuple[Tensor, ...]
"""What is kept of a sample: tensors with one row for each shower."""

_LOG_OFFSET = 1e-8
_EMPTY = 1e-16
_LEAST_FLOOR = 1e-6


def check_showers(showers: Showers, geometry: Geometry, name: str) -> None:
    """Refuse showers that no classifier should see; `name` says in the message which sample they are.

    Raises
    ------
    GeometryError
        If the showers have another number of cells than the geometry.
    ShowerDataError
        If a cell is negative or not finite, or an incident energy not positive and finite.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> check_showers(Showers(np.array([1e3]), np.ones((1, 240), dtype=np.float32)), geometry("toy"), "generated")
    """
    if showers.voxels.shape[1] != geometry.n_voxels:
        raise GeometryError(
            f"the {name} showers have {showers.voxels.shape[1]} cells, but {geometry.name} has {geometry.n_voxels}: "
            "compare showers of one geometry"
        )
    check_incident(showers.incident, f"{name} showers")
    check_voxels(showers.voxels, geometry, f"{name} showers")


def _cells(showers: Showers, geometry: Geometry) -> Columns:
    """Incident energies (n, 1) and cells (n, n_voxels) in MeV as float32."""
    incident = np.asarray(showers.incident, dtype=np.float32)[:, None]
    return torch.from_numpy(incident), torch.from_numpy(np.ascontiguousarray(showers.voxels, dtype=np.float32))


def _computed(showers: Showers, geometry: Geometry) -> Features:
    return Features.of(Showers(showers.incident.astype(np.float32), showers.voxels, showers.conditions), geometry)


def _features(showers: Showers, geometry: Geometry) -> Columns:
    """The high-level vector of each shower, (n, d)."""
    return (torch.from_numpy(_computed(showers, geometry).high_level_vector()),)


def _features_and_ratios(showers: Showers, geometry: Geometry) -> Columns:
    """The same, and log10 of E_l/E_inc and of E_tot/E_inc, (n, d + n_layers + 1)."""
    features = _computed(showers, geometry)
    sums = np.column_stack([features.energy, features.total]).clip(min=_floor(geometry))
    ratios = np.log10(sums / features.incident[:, None])
    return (torch.from_numpy(np.hstack([features.high_level_vector(), ratios])),)


def _cut(voxels: Tensor, geometry: Geometry) -> Tensor:
    return torch.where(voxels < geometry.threshold, 0.0, voxels)


def _of_voxels(layers: Tensor, geometry: Geometry) -> Tensor:
    """Values of the layers (n, n_layers) for each of their cells, (n, n_voxels)."""
    parts = zip(layers.unbind(dim=1), geometry.sizes, strict=True)
    return torch.cat([part[:, None].expand(-1, size) for part, size in parts], dim=1)


def _low(geometry: Geometry, incident: Tensor, voxels: Tensor) -> Tensor:
    """[log10 E_inc, cells/E_inc], (n, 1 + n_voxels)."""
    return torch.cat([torch.log10(incident), _cut(voxels, geometry) / incident], dim=1)


def _low_normed(geometry: Geometry, incident: Tensor, voxels: Tensor) -> Tensor:
    """[log10 E_inc, cells/E_l, log10(E_l + 1e-8)], (n, 1 + n_voxels + n_layers)."""
    voxels = _cut(voxels, geometry)
    energies = geometry.layer_sums(voxels)
    shares = voxels / _of_voxels(energies + _EMPTY, geometry)
    return torch.cat([torch.log10(incident), shares, torch.log10(energies + _LOG_OFFSET)], dim=1)


def _floor(geometry: Geometry) -> float:
    """The energy at which logarithms put an empty cell or layer, MeV."""
    return max(0.5 * geometry.threshold, _LEAST_FLOOR)


def _log_low(geometry: Geometry, incident: Tensor, voxels: Tensor) -> Tensor:
    """[log10 E_inc, log10 cells], (n, 1 + n_voxels); an empty cell stands at half the threshold."""
    cells = _cut(voxels, geometry).clamp(min=_floor(geometry))
    return torch.cat([torch.log10(incident), torch.log10(cells)], dim=1)


def _log_hits(geometry: Geometry, incident: Tensor, voxels: Tensor) -> Tensor:
    """[log10 E_inc, log10 cells, hits, log10 E_l/E_inc, log10 E_tot/E_inc], (n, 2 + 2 n_voxels + n_layers).

    A hit is 1 where the cell is not empty; an empty cell has logarithm 0 in units of the threshold. The same
    information as in the logarithms of the cells, but neither a wrong response nor a wrong number of hits is hidden
    behind the spread of the incident energy.
    """
    voxels = _cut(voxels, geometry)
    hits = (voxels > 0).to(voxels.dtype)
    energies = geometry.layer_sums(voxels)
    total = energies.sum(dim=1, keepdim=True)
    cells = torch.log10(voxels.clamp(min=2 * _floor(geometry)) / (2 * _floor(geometry)))
    incident, energies, total = (torch.log10(part.clamp(min=_floor(geometry))) for part in (incident, energies, total))
    return torch.cat([incident, cells, hits, energies - incident, total - incident], dim=1)


def _as_they_are(geometry: Geometry, features: Tensor) -> Tensor:
    return features


@dataclass(frozen=True)
class InputKind:
    """One kind of inputs; where the geometry has conditions, they follow as `encode` gives them.

    Attributes
    ----------
    kept
        From showers and geometry to what is kept of a sample.
    made
        (geometry, *rows of what is kept) -> inputs (n, d), on the device and in the dtype of the rows.

    Examples
    --------
    >>> sorted(INPUTS)
    ['high', 'high-ratios', 'log-hits', 'log-low', 'low', 'low-normed']
    """

    kept: Callable[[Showers, Geometry], Columns]
    made: Callable[..., Tensor]

    def columns(self, showers: Showers, geometry: Geometry) -> Columns:
        """What is kept of a sample."""
        found = self.kept(showers, geometry)
        if not geometry.conditions:
            return found
        return (*found, encode(geometry.conditions, torch.from_numpy(showers.conditions)).float())

    def inputs(self, geometry: Geometry, *columns: Tensor) -> Tensor:
        """Inputs (n, d) of rows of the columns."""
        if not geometry.conditions:
            return self.made(geometry, *columns)
        return torch.cat([self.made(geometry, *columns[:-1]), columns[-1]], dim=1)


INPUTS: Mapping[str, InputKind] = MappingProxyType(
    {
        "low": InputKind(_cells, _low),
        "low-normed": InputKind(_cells, _low_normed),
        "log-low": InputKind(_cells, _log_low),
        "log-hits": InputKind(_cells, _log_hits),
        "high": InputKind(_features, _as_they_are),
        "high-ratios": InputKind(_features_and_ratios, _as_they_are),
    }
)
"""Kinds of inputs by name: the three of the CaloChallenge (2410.21611), and logarithms of the cells."""


def input_kind(name: str) -> InputKind:
    """Look up a kind of inputs.

    Raises
    ------
    ConfigError
        If there is none of that name.

    Examples
    --------
    >>> input_kind("low").kept.__name__
    '_cells'
    """
    if name not in INPUTS:
        raise ConfigError(f"inputs must be one of {', '.join(INPUTS)}, got {name!r}")
    return INPUTS[name]


def input_vectors(showers: Showers, geometry: Geometry, name: str, dtype: torch.dtype = torch.float64) -> Tensor:
    """All inputs of a sample at once, (n, d): for tests, distances and small samples.

    >>> from nisampler.calo.detector.geometries import geometry
    >>> input_vectors(Showers(np.array([1e3]), np.ones((1, 240), dtype=np.float32)), geometry("toy"), "low").shape
    torch.Size([1, 241])
    """
    kind = input_kind(name)
    check_showers(showers, geometry, "given")
    return kind.inputs(geometry, *(column.to(dtype) for column in kind.columns(showers, geometry)))
