"""Cross-sections of e+ e- -> q qbar and q qbar g from formulae in closed form, as an independent check."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from nisampler.processes.constants import CASIMIR_F, CHARGE_ISOSPIN, COLOURS, GEV2_PB
from nisampler.processes.lepton.ee_matrix_element import EEToThreeJetsParameters, quark_type

Array = NDArray[np.float64]


def born_cross_section(parameters: EEToThreeJetsParameters, flavour: int) -> float:
    """sigma(e+ e- -> q qbar) in pb at leading order, with vector and axial couplings.

    4 pi alpha^2 N_c / (3 s) (Q_q^2 - 2 Q_q v_e v_q Re chi + (v_e^2 + a_e^2)(v_q^2 + a_q^2) |chi|^2) with
    v = T_3 - 2 Q sin^2, a = T_3, chi = s / (4 sin^2 cos^2 (s - m_z^2 + i m_z gamma_z))
    (Ellis, Stirling, Webber, QCD and Collider Physics, chapter 3).

    >>> round(born_cross_section(EEToThreeJetsParameters(), flavour=2))
    6847
    """
    s, sine2 = parameters.sqrt_s**2, parameters.sin2_theta_w
    charge, isospin = CHARGE_ISOSPIN[quark_type(flavour)]
    v_e, a_e = -0.5 + 2 * sine2, -0.5
    v_q, a_q = isospin - 2 * charge * sine2, isospin
    width = parameters.m_z * parameters.gamma_z
    chi = s / (4 * sine2 * (1 - sine2)) / complex(s - parameters.m_z**2, width)
    bracket = charge**2 - 2 * charge * v_e * v_q * chi.real
    bracket += (v_e**2 + a_e**2) * (v_q**2 + a_q**2) * abs(chi) ** 2
    return 4 * math.pi * parameters.alpha_em**2 * COLOURS / (3 * s) * bracket * GEV2_PB


def _bounds(a: Array, y: float) -> tuple[Array, Array]:
    """The three lower and three upper bounds, (3, n) each, that the cut sets on 1 - x_2 at a = 1 - x_1."""
    lower = [
        0.5 * (-a + np.sqrt(a**2 + 4 * y * (1 - a))),
        y * a / (1 - a - y),
        (y - a**2) / (a + y),
    ]
    upper = [
        a * (1 - y) / (a + y),
        ((1 - a) ** 2 - y) / (1 - a - y),
        0.5 * (2 - a - np.sqrt((2 - a) ** 2 - 4 * (1 - a) * (1 - y))),
    ]
    return np.stack(lower), np.stack(upper)


def dalitz_integral(y_cut: float, nodes: int = 48) -> float:
    r"""\int dx_1 dx_2 (x_1^2 + x_2^2) / ((1 - x_1)(1 - x_2)) where every Durham distance exceeds y_cut.

    Closed form in x_2; Gauss-Legendre in ln((1 - x_1) / x_1) between the points at which the active bound
    changes.

    >>> round(dalitz_integral(0.05), 6)
    3.660053
    """
    first, last = y_cut, 1 - 0.5 * (math.sqrt(y_cut**2 + 8 * y_cut) - y_cut)
    edges = [first, *_kinks(first, last, y_cut), last]
    points, weights = np.polynomial.legendre.leggauss(nodes)
    total = 0.0
    for left, right in itertools.pairwise(math.log(edge / (1 - edge)) for edge in edges):
        a = 1 / (1 + np.exp(-left - 0.5 * (right - left) * (points + 1)))
        lower, upper = _bounds(a, y_cut)
        low, high = lower.max(0), upper.min(0)
        inner = ((1 - a) ** 2 + 1) * np.log(high / low) - 2 * (high - low) + 0.5 * (high**2 - low**2)
        total += 0.5 * (right - left) * float(np.sum(weights * inner * (1 - a)))
    return total


def _kinks(first: float, last: float, y: float) -> list[float]:
    """Where another bound becomes the active one: found on a grid, refined by bisection."""

    def active(a: Array) -> Array:
        lower, upper = _bounds(a, y)
        return np.asarray(3 * lower.argmax(0) + upper.argmin(0))

    grid = np.geomspace(first, last, 4001)[1:-1]
    branch = active(grid)
    change = np.flatnonzero(branch[1:] != branch[:-1])
    left, right = grid[change], grid[change + 1]
    for _ in range(60):
        middle = 0.5 * (left + right)
        stays = active(middle) == branch[change]
        left, right = np.where(stays, middle, left), np.where(stays, right, middle)
    return [float(a) for a in 0.5 * (left + right)]


def analytic_cross_section(parameters: EEToThreeJetsParameters) -> float:
    """sigma(e+ e- -> q qbar g) in pb with the Durham cut from the (x_1, x_2) distribution, to 1e-8 relative.

    sum_q sigma_0(q) alpha_s C_F / (2 pi) times `dalitz_integral` (Ellis, Stirling, Webber, chapter 3). It
    shares neither the phase-space map nor the matrix element with `EEToThreeJets`.

    >>> round(analytic_cross_section(EEToThreeJetsParameters(y_cut=0.05)), 1)
    3677.5
    """
    born = sum(born_cross_section(parameters, flavour) for flavour in parameters.flavours)
    return born * parameters.alpha_s * CASIMIR_F / (2 * math.pi) * dalitz_integral(parameters.y_cut)
