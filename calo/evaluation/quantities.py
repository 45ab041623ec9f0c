"""What is histogrammed of a shower, in the bins of the CaloChallenge (2410.21611)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nisampler.calo.detector.geometries import GEOMETRIES
from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.evaluation.features import Features, angular_layers
from nisampler.errors import ShapeError
from nisampler.ui.histograms import Axis

Floats = NDArray[np.float64]

FAMILIES = ("energy", "eta", "phi", "eta_width", "phi_width", "r", "r_width", "sparsity")
"""The quantities of a layer: attributes of `Features`."""

_ENERGY_BINS = 39
_SPECTRUM_BINS = 49
_FINE_BINS = 100
_SPARSITY_BINS = 20
_OFTEN = 0.95
_SMALLEST = 1e-3
"""MeV, where logarithmic bins start if the geometry has no threshold."""


@dataclass(frozen=True)
class Quantity:
    """One histogram.

    Attributes
    ----------
    family
        "response" (E_tot / E_inc), "total" (E_tot), or one of `FAMILIES`.
    layer
        Position of the layer, None if it is not of one layer.
    column
        Its column in the array of `Features`.
    axis
        Name, label and bins.

    Examples
    --------
    >>> Quantity("energy", 2, 2, Axis("energy_2", "$E$", np.array([1.0, 10.0]), log=True)).name
    'energy_2'
    """

    family: str
    layer: int | None
    column: int
    axis: Axis

    @property
    def name(self) -> str:
        """Unique among the quantities of a geometry, such as ``eta_width_12``."""
        return self.axis.name

    def values(self, features: Features) -> Floats:
        """(n,) of the showers."""
        column: Floats = getattr(features, self.family)
        return column if self.layer is None else column[:, self.column]

    def drawn(self, features: Features) -> Floats:
        """The values in figures: of a layer, those of the showers that have energy in it, but for the sparsity.

        Centres and widths of the others are zero, which says nothing; how many there are is `Features.filled`.
        """
        values = self.values(features)
        return values if self.layer is None or self.family == "sparsity" else values[features.filled[:, self.layer]]

    def drawn_axis(self, reference: Features) -> Axis:
        """The bins in figures: four in one where a layer is empty in one of twenty showers of the reference or more.

        Few cells are hit in such a layer, and centres lie on those of the cells: finer bins show a comb.
        """
        rare = self.layer is not None and reference.filled[:, self.layer].mean() < _OFTEN
        if not rare or len(self.axis.edges) != _FINE_BINS + 1:
            return self.axis
        return Axis(self.axis.name, self.axis.label, self.axis.edges[::4])


def quantities(reference: Features, geometry: Geometry) -> tuple[Quantity, ...]:
    """Every high-level histogram; the upper end of those of energies is the largest value of the reference.

    E_tot/E_inc has 100 bins in [0.5, 1.5], layer energies 39 logarithmic ones from the threshold, centres, widths
    and radii 100 in the ranges of the challenge, sparsity 20. Geometries that the challenge does not have get the
    ranges that the size of their layers and the reference suggest.

    Raises
    ------
    ShapeError
        If the features belong to another geometry.

    Examples
    --------
    >>> from nisampler.calo.data.showers import Showers
    >>> from nisampler.calo.detector.geometries import geometry
    >>> features = Features.of(Showers(np.array([1e3]), np.ones((1, 240), dtype=np.float32)), geometry("toy"))
    >>> [quantity.name for quantity in quantities(features, geometry("toy"))[:3]]
    ['response', 'total', 'energy_0']
    """
    angular = angular_layers(geometry)
    if reference.energy.shape[1] != geometry.n_layers or reference.eta.shape[1] != len(angular):
        raise ShapeError(f"the features have {reference.energy.shape[1]} layers, {geometry.name} {geometry.n_layers}")
    total = Axis("total", r"$E_{\mathrm{tot}}$ [MeV]", _logarithmic(reference.total, geometry), log=True)
    found = [Quantity("response", None, 0, _response_axis(reference, geometry)), Quantity("total", None, 0, total)]
    for family in FAMILIES:
        positions = angular if family.startswith(("eta", "phi")) else range(geometry.n_layers)
        for column, position in enumerate(positions):
            values = getattr(reference, family)[:, column]
            found.append(Quantity(family, position, column, _layer_axis(family, position, values, geometry)))
    return tuple(found)


def spectrum_axis(reference: Features, geometry: Geometry) -> Axis:
    """49 logarithmic bins of the energy of a cell, from the threshold to the largest of the reference.

    >>> from nisampler.calo.data.showers import Showers
    >>> from nisampler.calo.detector.geometries import geometry
    >>> features = Features.of(Showers(np.array([1e3]), np.ones((1, 240), dtype=np.float32)), geometry("toy"))
    >>> len(spectrum_axis(features, geometry("toy")).centres)
    49
    """
    edges = _logarithmic(reference.hottest, geometry, _SPECTRUM_BINS)
    return Axis("voxels", "energy of a voxel [MeV]", edges, log=True)


def _logarithmic(values: Floats, geometry: Geometry, bins: int = _ENERGY_BINS) -> Floats:
    low = geometry.threshold or _SMALLEST
    high = float(values.max(initial=0.0))
    return np.geomspace(low, high if high > low else 10.0 * low, bins + 1)


def _response_axis(reference: Features, geometry: Geometry) -> Axis:
    low, high = 0.5, 1.5
    if not _of_challenge(geometry) and len(reference):
        first, last = np.quantile(reference.response, [0.001, 0.999])
        margin = 0.25 * (last - first) or 0.1 * last or 1.0
        low, high = max(0.0, first - margin), last + margin
    return Axis("response", r"$E_{\mathrm{tot}}\,/\,E_{\mathrm{inc}}$", np.linspace(low, high, _FINE_BINS + 1))


def _of_challenge(geometry: Geometry) -> bool:
    return geometry.name in GEOMETRIES and geometry.name.startswith(("ds1", "ds2", "ds3"))


def _layer_axis(family: str, position: int, values: Floats, geometry: Geometry) -> Axis:
    layer = geometry.layers[position]
    name, number = f"{family}_{layer.id}", f"layer {layer.id}"
    if family == "energy":
        return Axis(name, f"energy in {number} [MeV]", _logarithmic(values, geometry), log=True)
    if family == "sparsity":
        return Axis(name, f"sparsity in {number}", np.linspace(0.0, 1.0, _SPARSITY_BINS + 1))
    first, second = ("x", "y") if layer.kind != "polar" else (r"\eta", r"\phi")
    symbol = {"eta": first, "phi": second, "r": "r"}[family.removesuffix("_width")]
    label = rf"$\sigma_{{{symbol}}}$" if family.endswith("_width") else rf"$\langle {symbol} \rangle$"
    edges = np.linspace(*_range(family, position, geometry), _FINE_BINS + 1)
    return Axis(name, f"{label} in {number} [mm]", edges)


def _range(family: str, position: int, geometry: Geometry) -> tuple[float, float]:
    """Lower and upper end of a centre or a width in mm."""
    layer = geometry.layers[position]
    if layer.kind != "polar" and family in ("eta", "phi"):
        places = np.append(layer.centres()[family == "phi"], 0.0)  # that of a layer without energy
        margin = 0.01 * (float(np.ptp(places)) or 1.0)
        return float(places.min()) - margin, float(places.max()) + margin
    if not _of_challenge(geometry):
        radius = float(layer.radii().max()) or 1.0
        reach = {"r": radius, "r_width": 0.5 * radius}.get(family, 0.7 * radius)
    elif geometry.name.startswith(("ds2", "ds3")):
        reach = {"r": 42.0, "r_width": 20.0}.get(family, 30.0)
    elif family.startswith("r"):
        reach = 1500.0 if layer.id in (12, 13, 14) else 500.0
    elif layer.id in (12, 13):
        reach = 400.0 if family.endswith("_width") else 500.0
    else:
        reach = 100.0
    return (-reach, reach) if family in ("eta", "phi") else (0.0, reach)
