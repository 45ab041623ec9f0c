"""Schematic pion showers: GFLASH has no hadronic part, and this is no substitute for a hadronic model.

A charged pion ionises up to a first interaction, whose depth is exponential in interaction lengths. A fluctuating
share of its energy becomes one electromagnetic shower there; the rest is a broad hadronic component, part of it
invisible. The showers have the right depth, width and size of fluctuations to within tens of per cent, no more.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc

from nisampler.calo.detector.detector import Stack
from nisampler.calo.simulation.gflash import Radial

Floats = NDArray[np.float64]

_LOSS = 250.0  # MeV per interaction length of a minimally ionising particle
_VISIBLE = 0.65  # mean share of the hadronic energy that is read out
_CORE, _TAIL = 35.0, 150.0  # mm
_SPOTS_PER_GEV = 20.0


def electromagnetic_fraction(energy: Floats, rng: np.random.Generator) -> Floats:
    """Share of the energy in neutral pions, shape (n,): Beta with mean 1 - E^(-0.15), at least 0.1, and width 0.18.

    >>> fraction = electromagnetic_fraction(np.full(1000, 5e4), np.random.default_rng(0))
    >>> bool(((fraction >= 0) & (fraction <= 1)).all())
    True
    """
    mean = np.maximum(1.0 - np.maximum(energy, 1.0) ** -0.15, 0.1)
    width = np.minimum(0.18, 0.6 * np.sqrt(mean * (1.0 - mean)))
    strength = mean * (1.0 - mean) / width**2 - 1.0
    fraction: Floats = rng.beta(mean * strength, (1.0 - mean) * strength)
    return fraction


def first_interaction(stack_edges: Floats, interaction_edges: Floats, n: int, rng: np.random.Generator) -> Floats:
    """Depth of the first interaction in interaction lengths and in radiation lengths, shape (2, n).

    >>> edges = np.array([0.0, 1.0, 2.0])
    >>> first_interaction(edges, edges, 5, np.random.default_rng(0)).shape
    (2, 5)
    """
    depth = rng.exponential(1.0, n)
    rate = stack_edges[-1] / interaction_edges[-1]
    behind = np.maximum(depth - interaction_edges[-1], 0.0) * rate
    inside = np.interp(depth, np.append(0.0, interaction_edges), np.append(0.0, stack_edges))
    return np.stack([depth, inside + behind])


def ionisation(energy: Floats, start: Floats, edges: Floats) -> Floats:
    """Energy (n, m) in MeV that the pion loses in each slice before it interacts, or until it stops.

    >>> ionisation(np.array([1e3]), np.array([1.0]), np.array([0.0, 1.0, 2.0])).shape
    (1, 2)
    """
    path = np.minimum(edges, np.minimum(start, energy * 1e3 / _LOSS)[:, None])
    lost: Floats = _LOSS * np.diff(path, axis=1)
    return lost


def hadronic(energy: Floats, start: Floats, edges: Floats, rng: np.random.Generator) -> Floats:
    """Visible energy (n, m) in MeV of the hadronic component in each slice.

    Parameters
    ----------
    energy
        Hadronic energy (n,), GeV; its visible share fluctuates, with a relative width of 0.5/√(E/GeV + 1).
    start, edges
        First interaction (n,) and slices (m+1,) in interaction lengths.

    Examples
    --------
    >>> hadronic(np.array([1e4]), np.array([0.0]), np.array([0.0, 1.0, 2.0]), np.random.default_rng(0)).shape
    (1, 2)
    """
    width = 0.5 / np.sqrt(energy + 1.0)
    visible = energy * 1e3 * np.minimum(_VISIBLE * rng.gamma(1.0 / width**2, width**2), 1.0)
    shape = (0.6 + 0.32 * np.log(energy + 1.0)) * np.exp(0.2 * rng.standard_normal(len(energy)))
    rate = 0.9 * np.exp(0.2 * rng.standard_normal(len(energy)))
    depth = np.maximum(edges - start[:, None], 0.0)
    shares: Floats = np.diff(gammainc(shape[:, None], rate[:, None] * depth), axis=1)
    return visible[:, None] * shares


def hadronic_radial(start: Floats, edges: Floats) -> Radial:
    """Radial profile (n, m) of the hadronic component in mm: wider with the depth behind the first interaction.

    >>> hadronic_radial(np.array([0.0]), np.array([0.0, 1.0, 2.0])).core.shape
    (1, 2)
    """
    behind = np.maximum(0.5 * (edges[1:] + edges[:-1]) - start[:, None], 0.0)
    return Radial(_CORE * (1.0 + behind), _TAIL * (1.0 + 0.5 * behind), np.full(behind.shape, 0.6))


def hadronic_spots(energy: Floats) -> Floats:
    """Mean number of spots of the hadronic component, shape (n,): few, so that it fluctuates much.

    >>> numbers = hadronic_spots(np.array([1e3, 1e5]))
    >>> bool(numbers[1] >= numbers[0])
    True
    """
    return _SPOTS_PER_GEV * energy + 5.0


def track_radial(stack: Stack, n: int) -> Radial:
    """Radial profile (n, m) of the ionising track: a line of 2 mm.

    >>> stack = Stack(np.array([0.0, 1.0, 2.0]), np.array([0, 0]), np.ones(2), np.ones(2))
    >>> track_radial(stack, 3).core.shape
    (3, 2)
    """
    shape = (n, len(stack.layer))
    return Radial(np.full(shape, 2.0), np.full(shape, 2.0), np.ones(shape))
