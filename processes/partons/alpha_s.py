r"""The strong coupling: from a table, or by running with one to three loops.

$d\alpha / d\ln\mu^2 = -\alpha^2 (b_0 + b_1 \alpha + b_2 \alpha^2)$ in the MS-bar scheme, with the coefficients of
Tarasov, Vladimirov and Zharkov, Phys. Lett. B 93 (1980) 429, as in the PDG review of QCD, eq. (9.4).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor

from nisampler.base.checks import Finite, checked
from nisampler.errors import ConfigError
from nisampler.processes.constants import MASS_Z, THRESHOLDS
from nisampler.processes.partons.devices import OnDevices
from nisampler.processes.partons.interpolation.axes import CubicAxis, padded
from nisampler.processes.partons.interpolation.compiled import rows
from nisampler.processes.partons.interpolation.tables import Cubics

Loops = Literal[1, 2, 3]
"""Orders of the beta function."""
Coupling = Annotated[Finite, Field(gt=0.0, lt=1.0)]
"""A strong coupling."""

# Knots of the table in ln mu^2: the interpolation is then good to 1e-8 where alpha_s < 1/2.
_STEP = 0.02
_LARGEST = 1.5
# Beyond these a table holds a damaged number, and the cubics through it would overflow.
_LARGEST_VALUE, _LARGEST_SCALE = 100.0, 1e30


class AlphaS(Protocol):
    """The strong coupling as a function of the squared scale.

    >>> alpha_s: AlphaS = TabulatedAlphaS([1.0, 100.0], [0.4, 0.12])
    >>> alpha_s(torch.tensor([1.0], dtype=torch.float64))
    tensor([0.4000], dtype=torch.float64)
    """

    def __call__(self, q2: Tensor) -> Tensor:
        """alpha_s at the squared scales q2 in GeV^2; any shape, the same shape back."""
        ...


class TabulatedAlphaS:
    """The coupling as a table of scales and values, log-cubic in Q^2, as LHAPDF sets carry it.

    A scale given twice in a row is a flavour threshold: the table is interpolated on either side on its own.
    Outside the table the nearest value holds.

    Parameters
    ----------
    scales
        Q in GeV, rising.
    values
        alpha_s(Q), as many.

    Raises
    ------
    ConfigError
        If there are fewer than two scales, or as many scales as values are not given, or they do not rise, or a
        value is not positive and finite.

    Examples
    --------
    >>> alpha_s = TabulatedAlphaS([1.0, 10.0, 100.0], [0.4, 0.18, 0.12])
    >>> alpha_s(torch.tensor([10.0**2], dtype=torch.float64))
    tensor([0.1800], dtype=torch.float64)
    >>> TabulatedAlphaS([10.0, 1.0], [0.2, 0.4])
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: the scales of an alpha_s table rise; one given twice marks a flavour threshold
    """

    def __init__(self, scales: Sequence[float], values: Sequence[float]) -> None:
        if len(scales) != len(values) or len(scales) < 2:
            raise ConfigError(f"an alpha_s table has as many scales as values, two or more; got {len(scales)} scales")
        if not all(0 < number < math.inf for number in (*scales, *values)):
            raise ConfigError("the scales and the values of an alpha_s table are positive and finite")
        if max(values) > _LARGEST_VALUE or max(scales) > _LARGEST_SCALE:
            raise ConfigError(
                f"an alpha_s table has values up to {_LARGEST_VALUE:g} and scales up to {_LARGEST_SCALE:g} GeV, got "
                f"{max(values):g} and {max(scales):g}"
            )
        starts = [0, *(i for i in range(1, len(scales)) if scales[i] == scales[i - 1])]
        knots, table = [], []
        for start, stop in zip(starts, [*starts[1:], len(scales)], strict=True):
            knots.append(2 * torch.tensor(scales[start:stop], dtype=torch.float64).log())
            table.append(torch.tensor(values[start:stop], dtype=torch.float64))
        if any(len(segment) < 2 or bool((segment.diff() <= 0).any()) for segment in knots):
            raise ConfigError("the scales of an alpha_s table rise; one given twice marks a flavour threshold")
        curve = Cubics(padded(torch.cat(table)).unsqueeze(1), CubicAxis(knots))
        self._q2_range = (scales[0] ** 2, scales[-1] ** 2)
        self._curves = OnDevices(curve, curve.table.device)

    @property
    def q2_range(self) -> tuple[float, float]:
        """First and last squared scale of the table in GeV^2; outside the coupling is frozen."""
        return self._q2_range

    def __call__(self, q2: Tensor) -> Tensor:
        """alpha_s at the squared scales q2 in GeV^2; any shape, the same shape back, on the device of q2."""
        log_q2 = q2.reshape(-1).to(torch.float64).log()
        return rows(self._curves.on(q2.device), log_q2)[0].reshape(q2.shape)


class RunningAlphaS(TabulatedAlphaS):
    r"""The coupling run from its value at the Z mass by the renormalisation group equation.

    The equation is solved numerically once; a call reads a table. Accuracy 1e-8 relative. The number of flavours
    changes at the quark masses. There the coupling is continuous at one and two loops; at three loops it steps by
    $\alpha^{(n+1)} = \alpha^{(n)} (1 + 7 (\alpha/\pi)^2 / 24)$, the matching at a pole mass (PDG review of QCD),
    undone to the same order on the way down. Below `q_min` and above `q_max` it is frozen.

    Parameters
    ----------
    alpha_s_mz
        alpha_s at `mass_z`.
    mass_z
        The scale at which it is given, GeV.
    loops
        Order of the beta function, 1 to 3.
    masses
        Charm, bottom and top mass in GeV, rising. 0 makes a flavour always active, infinity never.
    q_min, q_max
        Range of the table in GeV.

    Raises
    ------
    ConfigError
        If a parameter is out of range, or the coupling grows beyond 1.5 above `q_min`.

    Examples
    --------
    >>> alpha_s = RunningAlphaS(0.118, loops=2)
    >>> round(alpha_s(torch.tensor(MASS_Z**2, dtype=torch.float64)).item(), 6)
    0.118
    >>> RunningAlphaS(0.118, loops=4)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: loops = 4: must be 1 or 2 or 3
    """

    def __init__(
        self,
        alpha_s_mz: float,
        mass_z: float = MASS_Z,
        loops: int = 1,
        masses: tuple[float, float, float] = THRESHOLDS,
        q_min: float = 1.0,
        q_max: float = 1e6,
    ) -> None:
        checked("loops", loops, Loops)
        checked("alpha_s_mz", alpha_s_mz, Coupling)
        if not 0 < q_min < mass_z < q_max < math.inf:
            raise ConfigError(f"alpha_s needs 0 < q_min < mass_z < q_max, got {q_min}, {mass_z}, {q_max}")
        self.alpha_s_mz, self.mass_z, self.loops, self.masses = alpha_s_mz, mass_z, loops, masses
        edges = [2 * math.log(q) for q in (q_min, *_thresholds(masses, q_min, q_max), q_max)]
        fewest = 3 + sum(mass <= q_min for mass in masses)
        betas = [beta_coefficients(fewest + i, loops) for i in range(len(edges) - 1)]
        segments = _run(alpha_s_mz, 2 * math.log(mass_z), edges, betas)
        scales = [math.exp(0.5 * knot) for knots, _ in segments for knot in knots]
        super().__init__(scales, [value for _, table in segments for value in table])


def _thresholds(masses: tuple[float, float, float], q_min: float, q_max: float) -> list[float]:
    """The quark masses between the ends of the table; raises ConfigError unless they rise."""
    inside = [mass for mass in masses if q_min < mass < q_max]
    if not 0 <= masses[0] <= masses[1] <= masses[2] or len(set(inside)) < len(inside):
        raise ConfigError(f"the masses of charm, bottom and top must rise, got {masses}")
    return inside


def beta_coefficients(flavours: int, loops: int) -> tuple[float, ...]:
    """b_0, b_1, b_2 of the module's equation for that many flavours, as many as there are loops.

    >>> [round(b, 4) for b in beta_coefficients(5, loops=2)]
    [0.6101, 0.2449]
    """
    n = flavours
    return (
        (33 - 2 * n) / (12 * math.pi),
        (153 - 19 * n) / (24 * math.pi**2),
        (77139 - 15099 * n + 325 * n**2) / (3456 * math.pi**3),
    )[:loops]


def _run(
    alpha_s_mz: float, log_mz2: float, edges: list[float], betas: list[tuple[float, ...]]
) -> list[tuple[list[float], list[float]]]:
    """Knots in ln mu^2 and alpha_s of every segment between `edges`, each with its own beta function."""
    step_up = 7 / (24 * math.pi**2) if len(betas[0]) == 3 else 0.0
    home = max(i for i in range(len(betas)) if edges[i] <= log_mz2)
    at_bottom = _evolve(alpha_s_mz, log_mz2, edges[home], betas[home])[1][-1]
    found = {home: _evolve(at_bottom, edges[home], edges[home + 1], betas[home])}
    for i in range(home + 1, len(betas)):
        alpha = found[i - 1][1][-1]
        found[i] = _evolve(alpha * (1 + step_up * alpha**2), edges[i], edges[i + 1], betas[i])
    for i in reversed(range(home)):
        alpha = found[i + 1][1][0]
        knots, values = _evolve(alpha * (1 - step_up * alpha**2), edges[i + 1], edges[i], betas[i])
        found[i] = (knots[::-1], values[::-1])
    return [found[i] for i in range(len(betas))]


def _evolve(alpha: float, start: float, stop: float, beta: tuple[float, ...]) -> tuple[list[float], list[float]]:
    """Uniform knots from start to stop and the solution there, by the classical Runge-Kutta method."""

    def slope(a: float) -> float:
        return -sum(b * a ** (power + 2) for power, b in enumerate(beta))

    count = max(4, math.ceil(abs(stop - start) / _STEP))
    h = (stop - start) / count
    values = [alpha]
    for _ in range(count):
        k1 = slope(alpha)
        k2 = slope(alpha + 0.5 * h * k1)
        k3 = slope(alpha + 0.5 * h * k2)
        k4 = slope(alpha + h * k3)
        alpha += h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        if not 0 < alpha < _LARGEST:
            raise ConfigError(f"alpha_s exceeds {_LARGEST} above q_min: raise q_min or lower alpha_s_mz")
        values.append(alpha)
    return [start + i * h for i in range(count)] + [stop], values
