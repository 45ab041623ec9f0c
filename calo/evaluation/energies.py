"""Linearity and resolution: the response at each incident energy, or in bins of it where it is continuous."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nisampler.calo.detector.geometry import IncidentEnergy
from nisampler.calo.evaluation.features import Features
from nisampler.calo.evaluation.histograms import Counts, separation
from nisampler.ui.histograms import Axis

Floats = NDArray[np.float64]

_BINS = 12
_FEWEST = 10
"""Showers that a mean and a width need."""
_RESPONSE_BINS = 20


@dataclass(frozen=True)
class Response:
    """E_tot/E_inc of the showers at one incident energy.

    Attributes
    ----------
    place
        Number of the energy or of its bin.
    energy
        The energy, or the geometric mean of those in the bin, MeV.
    values
        (n,) E_tot/E_inc.

    Examples
    --------
    >>> response = Response(0, 1e3, np.array([0.8, 0.9, 1.0]))
    >>> round(response.linearity, 3), round(response.resolution, 3)
    (0.9, 0.091)
    """

    place: int
    energy: float
    values: Floats

    @property
    def linearity(self) -> float:
        """Mean of E_tot/E_inc."""
        return float(self.values.mean())

    @property
    def linearity_error(self) -> float:
        """Its statistical error."""
        return float(self.values.std() / np.sqrt(len(self.values)))

    @property
    def resolution(self) -> float:
        """Standard deviation of E_tot/E_inc over its mean."""
        return float(self.values.std() / self.values.mean())

    @property
    def resolution_error(self) -> float:
        """Its statistical error, from the fourth moment: tails make a width uncertain."""
        centred = self.values - self.values.mean()
        variance = float(np.mean(centred**2))
        if variance == 0.0:
            return 0.0
        excess = float(np.mean(centred**4)) / variance**2 - 1.0
        return self.resolution * float(np.sqrt(max(excess, 0.0) / (4 * len(self.values))))


def responses(features: Features, law: IncidentEnergy) -> list[Response]:
    """The response at each incident energy of a discrete law, else in twelve bins; where ten showers are, in order.

    >>> from nisampler.calo.data.showers import Showers
    >>> from nisampler.calo.detector.geometries import geometry
    >>> showers = Showers(np.full(20, 1e3), np.ones((20, 240), dtype=np.float32))
    >>> found = responses(Features.of(showers, geometry("toy")), geometry("toy").incident)
    >>> [(response.energy, round(response.linearity, 2)) for response in found]
    [(1000.0, 0.24)]
    """
    if law.kind == "discrete":
        place = np.abs(np.log(features.incident[:, None] / np.asarray(law.values))).argmin(axis=1)
    else:
        space = np.geomspace if law.kind == "log-uniform" else np.linspace
        edges = space(law.values[0], law.values[-1], _BINS + 1)
        place = np.clip(np.searchsorted(edges, features.incident, "right") - 1, 0, _BINS - 1)
    found = []
    for number in np.unique(place):
        chosen = place == number
        values = features.response[chosen]
        if len(values) >= _FEWEST and values.mean() > 0:
            found.append(Response(int(number), _geometric(features.incident[chosen]), values))
    return found


def compared(sample: Sequence[Response], reference: Sequence[Response]) -> list[dict[str, float]]:
    """Linearity, resolution and separation power of E_tot/E_inc beside the reference, at each energy, as JSON data.

    Energies are in MeV, errors statistical, those of ratios of both samples. The separation is that of 20 bins between
    the extremes of the reference.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> first, second = (Response(0, 1e3, 0.9 + s * rng.standard_normal(1000)) for s in (0.1, 0.2))
    >>> row, = compared([second], [first])
    >>> round(row["linearity_ratio"], 1), round(row["resolution_ratio"], 1)
    (1.0, 2.1)
    """
    known = {response.place: response for response in reference}
    rows = []
    for ours in sample:
        if ours.place not in known:
            continue
        theirs = known[ours.place]
        row = {"energy": theirs.energy, "showers": len(ours.values), "separation": _separation(ours, theirs)}
        for name in ("linearity", "resolution"):
            values = [getattr(response, name) for response in (ours, theirs)]
            errors = [getattr(response, f"{name}_error") for response in (ours, theirs)]
            row |= {name: values[0], f"{name}_error": errors[0], f"{name}_reference": values[1]}
            if values[0] > 0 and values[1] > 0:
                relative = np.hypot(errors[0] / values[0], errors[1] / values[1])
                ratio = values[0] / values[1]
                row |= {f"{name}_ratio": ratio, f"{name}_ratio_error": float(ratio * relative)}
        rows.append(row)
    return rows


def worst(rows: Sequence[Mapping[str, float]], name: str) -> Mapping[str, float] | None:
    """The row whose ratio of a quantity to the reference is furthest from one; None without any.

    >>> worst([{"resolution_ratio": 0.5}, {"resolution_ratio": 1.2}], "resolution")
    {'resolution_ratio': 0.5}
    """
    key = f"{name}_ratio"
    return max((row for row in rows if key in row), key=lambda row: abs(np.log(row[key])), default=None)


def gev(energy: float) -> str:
    """An energy in MeV as text.

    >>> gev(256.0)
    '0.256 GeV'
    """
    return f"{energy / 1e3:.3g} GeV"


def _geometric(energies: Floats) -> float:
    return float(energies[0] if np.all(energies == energies[0]) else np.exp(np.log(energies).mean()))


def _separation(ours: Response, theirs: Response) -> float:
    low, high = float(theirs.values.min()), float(theirs.values.max())
    axis = Axis("response", "", np.linspace(low, high if high > low else low + 1e-6, _RESPONSE_BINS + 1))
    counts: list[Any] = [Counts(axis), Counts(axis)]
    for histogram, response in zip(counts, (ours, theirs), strict=True):
        histogram.fill(response.values)
    return separation(counts[0], counts[1])
