"""Whether showers look alike from all sides, as a model takes for granted that turns and mirrors training showers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from nisampler.calo.data.showers import Showers, Voxels
from nisampler.calo.detector.geometry import Floats, Geometry, Layer
from nisampler.calo.recipe import SymmetryChoice
from nisampler.errors import ConfigError

SIGNIFICANCE = 1e-3
"""Share of symmetric samples that the test takes for asymmetric ones."""

# Showers for each number whose mean is tested; with fewer, means of shares are not normal.
_SHOWERS_EACH = 20


@dataclass(frozen=True)
class Symmetry:
    """Whether training showers are turned and mirrored, why, and whether that needs a warning.

    >>> Symmetry(False, "as asked").warning
    False
    """

    turned: bool
    reason: str
    warning: bool = False

    @property
    def text(self) -> str:
        """One sentence."""
        return f"showers {'are turned and mirrored at random' if self.turned else 'stay as they are'}: {self.reason}"


def choose_symmetry(choice: SymmetryChoice, preset: bool, showers: Showers, geometry: Geometry) -> Symmetry:
    """Whether to turn and mirror training showers.

    Parameters
    ----------
    choice
        "on" and "off" are obeyed; "auto" does what the preset says unless the showers contradict.
    preset
        Whether the settings of the model say so.
    showers
        Training showers, of which the sector energies are tested.
    geometry
        Their cells.

    Raises
    ------
    ConfigError
        If it is asked for where no turn maps cells on cells.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> showers = Showers(np.full(5, 1e3), np.ones((5, 240), dtype=np.float32))
    >>> choose_symmetry("off", True, showers, geometry("toy")).text
    'showers stay as they are: as asked'
    """
    wanted = preset if choice == "auto" else choice == "on"
    possible = bool(geometry.angles)
    if choice == "on" and not possible:
        raise ConfigError(
            f"symmetry = 'on': {geometry.name} has no cells that a turn about the axis maps on cells; "
            "choose --symmetry off"
        )
    if not wanted or not possible:
        return Symmetry(False, "as asked" if choice == "off" else "the settings of the model say so")
    if choice == "auto" and any(known.kind != "category" for known in geometry.conditions):
        return Symmetry(False, "their conditions may point to a side")
    p_value = asymmetry(showers.voxels, geometry)
    if p_value is None:
        return Symmetry(True, f"{len(showers)} are too few to test whether they look alike from all sides", True)
    found = f"(p = {p_value:.2g}, tested at {SIGNIFICANCE:g})"
    if p_value >= SIGNIFICANCE:
        return Symmetry(True, f"they look alike from all sides {found}")
    if choice == "on":
        return Symmetry(True, f"as asked, though they do not look alike from all sides {found}", True)
    return Symmetry(False, f"they do not look alike from all sides {found}", True)


def asymmetry(voxels: Voxels, geometry: Geometry) -> float | None:
    """The p-value of the hypothesis that showers look alike when turned and mirrored; None if they are too few.

    Hotelling's test of the means of numbers that a symmetric law makes zero: the shares of E_tot that the angular bins
    of a layer have beyond their mean over all turns and mirror images, for each layer and for the sectors of the whole
    shower; and how much the centres of neighbouring layers and rings are twisted against each other, which mirrors
    reverse. The smallest p-value is multiplied by the number of tests (Bonferroni).

    Parameters
    ----------
    voxels
        Shape (n, V), in MeV.
    geometry
        Cells.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> voxels = np.random.default_rng(1).exponential(size=(2000, 240)).astype(np.float32)
    >>> turned = voxels * (1 + 0.2 * (np.arange(240) % 48 < 24))
    >>> asymmetry(voxels, geometry("toy")) > SIGNIFICANCE > asymmetry(turned, geometry("toy"))
    True
    """
    totals = voxels.sum(axis=1, dtype=np.float64)
    voxels, totals = voxels[totals > 0], totals[totals > 0, None]
    steps = math.gcd(*geometry.angles)
    sectors, twists = np.zeros((len(voxels), steps)), np.zeros((len(voxels), 2))
    p_values, before = [], None
    for position, layer in enumerate(geometry.layers):
        bins = layer.shape[0]
        if bins == 1:
            continue
        cells = voxels[:, geometry.slice(position)].reshape(-1, *layer.shape) / totals[:, :, None]
        shares = cells.sum(axis=2)
        sectors += shares.reshape(len(shares), steps, bins // steps).sum(axis=2)
        p_values.append(_hotelling(shares @ _contrasts(bins, steps)))
        rings = np.einsum("nar,a->nr", cells, np.exp(1j * _middles(layer)))
        centre = rings.sum(axis=1)
        twists[:, 0] += (rings[:, :-1].conj() * rings[:, 1:]).imag.sum(axis=1)
        if before is not None:
            twists[:, 1] += (before.conj() * centre).imag
        before = centre
    p_values += [_hotelling(sectors @ _contrasts(steps, steps)), _hotelling(twists)]
    known = [p_value for p_value in p_values if p_value is not None]
    return min(1.0, len(known) * min(known)) if known else None


def _middles(layer: Layer) -> Floats:
    edges = np.asarray(layer.first)
    middles: Floats = 0.5 * (edges[1:] + edges[:-1])
    return middles


def _contrasts(bins: int, steps: int) -> Floats:
    """Orthonormal columns (bins, k) that span what is lost when bins are averaged over `steps` turns and mirrors."""
    images = [np.roll(np.arange(bins), step * bins // steps) for step in range(steps)]
    images += [image[::-1] for image in images]
    mean = np.mean([np.eye(bins)[image] for image in images], axis=0)
    values, vectors = np.linalg.eigh(np.eye(bins) - mean)
    return np.asarray(vectors[:, values > 0.5])


def _hotelling(numbers: Floats) -> float | None:
    """The p-value of zero means of the columns (n, k); None if there are too few rows, or nothing varies."""
    n = len(numbers)
    if n < _SHOWERS_EACH * numbers.shape[1]:
        return None
    mean, covariance = numbers.mean(axis=0), np.atleast_2d(np.cov(numbers, rowvar=False))
    values, vectors = np.linalg.eigh(covariance)
    kept = values > 1e-9 * max(values.max(initial=0.0), np.finfo(float).tiny)
    rank = int(kept.sum())
    if not rank or values.max() <= 0:
        return None
    t_squared = n * float(np.sum((vectors[:, kept].T @ mean) ** 2 / values[kept]))
    return float(stats.f.sf(t_squared * (n - rank) / (rank * (n - 1)), rank, n - rank))
