"""The registered calorimeters: CaloChallenge (2410.21611), CaloGAN (1712.10321), Getting High (2005.05334), a toy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from nisampler.calo.detector.geometry import Geometry, IncidentEnergy, Layer
from nisampler.errors import GeometryError

_ATLAS_COUNTS = (10_000,) * 11 + (5_000, 3_000, 2_000, 1_000)
_ATLAS_ENERGIES = tuple(float(2**power) for power in range(8, 23))
# Data sets 2 and 3 store silicon deposits divided by the sampling fraction 0.033; the readout threshold is 0.5 keV.
_SILICON_THRESHOLD = 0.5e-3 / 0.033
_LOG_UNIFORM = IncidentEnergy("log-uniform", (1e3, 1e6))


def _polar(cells: Mapping[int, tuple[int, Sequence[float]]]) -> tuple[Layer, ...]:
    """Layers from {id: (bins of the angle, radial edges in mm)}."""
    return tuple(Layer.polar(number, n_alpha, edges) for number, (n_alpha, edges) in cells.items())


def _rectangular(number: int, shape: tuple[int, int], half_widths: tuple[float, float]) -> Layer:
    """A layer of equal cells centred on the axis."""
    first, second = (
        tuple(float(edge) for edge in np.linspace(-half, half, cells + 1))
        for half, cells in zip(half_widths, shape, strict=True)
    )
    return Layer(number, "rectangular", first, second)


def _silicon(name: str, n_alpha: int, n_r: int, n_layers: int = 45) -> Geometry:
    """45 slices of tungsten and silicon, shared by equal layers; radius 41.85 mm, edges as in the binning files."""
    edges = [round(41.85 * index / n_r, 3) for index in range(n_r + 1)]
    layers = _polar({number: (n_alpha, edges) for number in range(n_layers)})
    return Geometry(name, "electron", 11, layers, _SILICON_THRESHOLD, _LOG_UNIFORM)


_DS1_PHOTONS = Geometry(
    name="ds1-photons",
    particle="photon",
    pdg=22,
    layers=_polar(
        {
            0: (1, (0, 5, 10, 30, 50, 100, 200, 400, 600)),
            1: (10, (0, 2, 4, 6, 8, 10, 12, 15, 20, 30, 40, 50, 70, 90, 120, 150, 200)),
            2: (10, (0, 2, 5, 10, 15, 20, 25, 30, 40, 50, 60, 80, 100, 130, 160, 200, 250, 300, 350, 400)),
            3: (1, (0, 50, 100, 200, 400, 600)),
            12: (1, (0, 100, 200, 400, 1000, 2000)),
        }
    ),
    threshold=1.0,
    incident=IncidentEnergy("discrete", _ATLAS_ENERGIES, _ATLAS_COUNTS),
)

_DS1_PIONS = Geometry(
    name="ds1-pions",
    particle="pion",
    pdg=211,
    layers=_polar(
        {
            0: (1, (0, 5, 10, 30, 50, 100, 200, 400, 600)),
            1: (10, (0, 1, 4, 7, 10, 15, 30, 50, 90, 150, 200)),
            2: (10, (0, 5, 10, 20, 30, 50, 80, 130, 200, 300, 400)),
            3: (1, (0, 50, 100, 200, 400, 600)),
            12: (10, (0, 10, 20, 30, 50, 80, 100, 130, 160, 200, 250, 300, 350, 400, 1000, 2000)),
            13: (10, (0, 10, 20, 30, 50, 80, 100, 130, 160, 200, 250, 300, 350, 400, 600, 1000, 2000)),
            14: (1, (0, 50, 100, 150, 200, 250, 300, 400, 600, 1000, 2000)),
        }
    ),
    threshold=1.0,
    # One file of the pions has 200 showers less at 2^18 MeV.
    incident=IncidentEnergy("discrete", _ATLAS_ENERGIES, (*_ATLAS_COUNTS[:10], 9_800, *_ATLAS_COUNTS[11:])),
)

_CALOGAN = Geometry(
    name="calogan",
    particle="positron",
    pdg=-11,
    layers=tuple(
        _rectangular(number, shape, (240.0, 240.0)) for number, shape in enumerate([(3, 96), (12, 12), (12, 6)])
    ),
    threshold=0.01,
    incident=IncidentEnergy("uniform", (1e3, 1e5)),
    layout="calogan",
)

_GETTING_HIGH = Geometry(
    name="getting-high",
    particle="photon",
    pdg=22,
    layers=tuple(_rectangular(number, (30, 30), (15 * 5.0883, 15 * 5.0883)) for number in range(30)),
    threshold=0.1,
    incident=IncidentEnergy("uniform", (1e4, 1e5)),
    layout="getting-high",
    response=0.025,  # what silicon absorbs
)

_TOY = Geometry(
    name="toy",
    particle="electron",
    pdg=11,
    layers=_polar({number: (8, (0, 2, 5, 10, 20, 35, 60)) for number in range(5)}),
    threshold=_SILICON_THRESHOLD,
    incident=IncidentEnergy("log-uniform", (1e3, 1e5)),
)

GEOMETRIES: Mapping[str, Geometry] = MappingProxyType(
    {
        known.name: known
        for known in (
            _DS1_PHOTONS,
            _DS1_PIONS,
            _silicon("ds2", 16, 9),
            _silicon("ds3", 50, 18),
            _silicon("ds2-reduced", 16, 9, 9),
            _CALOGAN,
            _GETTING_HIGH,
            _TOY,
            replace(_TOY, name="toy-silicon"),
        )
    }
)
"""The registered geometries by name.

CaloGAN and its cells serve positrons, photons and pions: `dataclasses.replace(geometry("calogan"), particle="photon",
pdg=22)` gives another particle.
"""


def geometry(name: str) -> Geometry:
    """The registered geometry of that name.

    Raises
    ------
    GeometryError
        If there is none; the message lists those that are.

    Examples
    --------
    >>> geometry("ds2").n_voxels
    6480
    """
    try:
        return GEOMETRIES[name]
    except KeyError:
        known = ", ".join(GEOMETRIES)
        raise GeometryError(f"no geometry is called {name!r}; registered are {known}") from None
