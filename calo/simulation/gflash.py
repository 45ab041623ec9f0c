"""The GFLASH parameterisation of electromagnetic showers (Grindhammer and Peters, hep-ex/0001020).

Energies are in GeV here, depths t in radiation lengths, radii in Molière radii. Coefficients are those of the
appendix of the paper. Below about 0.1 GeV and in heavy media its logarithms lose their argument, so that every
function keeps ln(E/E_c) ≥ 2.5, widths ≤ 0.5, the maximum T ≥ 1 and the shape α ≥ 1.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc

from nisampler.calo.detector.media import Medium

Floats = NDArray[np.float64]

_LEAST_LOG = 2.5
_LARGEST_WIDTH = 0.5
_LEAST_MAXIMUM = 1.0
_LEAST_SHAPE = 1.1
_TAIL_RADII = (0.01, 20.0)


@dataclass(frozen=True)
class Profile:
    """Longitudinal profiles (1/E) dE/dt = (βt)^(α-1) β e^(-βt)/Γ(α), one of each shower.

    Parameters
    ----------
    shape, rate
        α and β, shape (n,); β in 1/X0.
    tau_scale
        What turns t into the shower depth τ = t · tau_scale of the radial profile, shape (n,).

    Examples
    --------
    >>> from nisampler.calo.detector.media import Medium
    >>> profile = average_profile(np.array([1e4]), Medium(5.6, 16.0, 7.4, 82.0))
    >>> profile.fractions(np.zeros(1), np.array([0.0, 10.0, 1000.0])).sum(axis=-1).round(6)
    array([1.])
    """

    shape: Floats
    rate: Floats
    tau_scale: Floats

    @property
    def maximum(self) -> Floats:
        """Depth T = (α-1)/β of the maximum, X0, shape (n,)."""
        return (self.shape - 1.0) / self.rate

    def fractions(self, start: Floats, edges: Floats) -> Floats:
        """Share of the energy between consecutive depths, shape (n, len(edges)-1).

        Parameters
        ----------
        start
            Depth (n,) at which the shower starts, X0; nothing is deposited before it.
        edges
            Depths (m+1,) that increase, X0.
        """
        depth = np.maximum(edges - start[:, None], 0.0)
        return np.diff(gammainc(self.shape[:, None], self.rate[:, None] * depth), axis=1)


def _log_y(energy: Floats, medium: Medium) -> Floats:
    return np.maximum(np.log(energy * 1e3 / medium.critical_energy), _LEAST_LOG)


def _width(slope: float, offset: float, log_y: Floats) -> Floats:
    return 1.0 / np.maximum(offset + slope * log_y, 1.0 / _LARGEST_WIDTH)


def _profile(maximum: Floats, shape: Floats, tau_scale: Floats | None = None) -> Profile:
    maximum = np.maximum(maximum, _LEAST_MAXIMUM)
    shape = np.maximum(shape, _LEAST_SHAPE)
    return Profile(shape, (shape - 1.0) / maximum, 1.0 / maximum if tau_scale is None else tau_scale)


def average_profile(energy: Floats, medium: Medium) -> Profile:
    """The mean longitudinal profile: T and α are linear in ln(E/E_c), τ = t/T.

    >>> from nisampler.calo.detector.media import Medium
    >>> average_profile(np.array([1e4, 1e5]), Medium(5.6, 16.0, 7.4, 82.0)).maximum.round(1)
    array([13.3, 15.6])
    """
    log_y = _log_y(energy, medium)
    maximum = log_y - 0.858
    shape = 0.21 + (0.492 + 2.38 / medium.Z) * log_y
    if medium.sampling_frequency is not None:
        maximum = maximum - 0.59 / medium.sampling_frequency - 0.53 * (1.0 - medium.e_over_mip)
        shape = shape - 0.444 / medium.sampling_frequency
    return _profile(maximum, shape)


def draw_profile(energy: Floats, medium: Medium, rng: np.random.Generator) -> Profile:
    """One fluctuating profile for each energy: (ln T, ln α) are correlated normal variables.

    Parameters
    ----------
    energy
        Shape (n,), GeV.
    medium
        Homogeneous, or sampling if it has a sampling frequency.
    rng
        Two normal numbers for each shower are taken from it.

    Examples
    --------
    >>> from nisampler.calo.detector.media import Medium
    >>> draw_profile(np.array([1e4, 1e5]), Medium(5.6, 16.0, 7.4, 82.0), np.random.default_rng(0)).maximum.shape
    (2,)
    """
    log_y = _log_y(energy, medium)
    maximum = log_y - 0.812
    shape = 0.81 + (0.458 + 2.26 / medium.Z) * log_y
    if medium.sampling_frequency is None:
        width_maximum, width_shape = _width(1.26, -1.4, log_y), _width(0.86, -0.58, log_y)
        correlation = 0.705 - 0.023 * log_y
    else:
        maximum = maximum - 0.55 / medium.sampling_frequency - 0.69 * (1.0 - medium.e_over_mip)
        shape = shape - 0.476 / medium.sampling_frequency
        width_maximum, width_shape = _width(1.25, -2.5, log_y), _width(0.79, -0.82, log_y)
        correlation = 0.784 - 0.023 * log_y
    maximum, shape = np.maximum(maximum, _LEAST_MAXIMUM), np.maximum(shape, _LEAST_SHAPE)
    plus, minus = np.sqrt(0.5 * (1.0 + correlation)), np.sqrt(0.5 * (1.0 - correlation))
    z = rng.standard_normal((2, len(energy)))
    drawn_maximum = np.maximum(maximum * np.exp(width_maximum * (plus * z[0] + minus * z[1])), _LEAST_MAXIMUM)
    drawn_shape = np.maximum(shape * np.exp(width_shape * (plus * z[0] - minus * z[1])), _LEAST_SHAPE)
    # τ = (t/<t>) <α>/(<α> - 1), with <t> = α/β of the shower at hand
    rate = (drawn_shape - 1.0) / drawn_maximum
    return _profile(drawn_maximum, drawn_shape, rate / drawn_shape * shape / (shape - 1.0))


def spot_profile(profile: Profile, medium: Medium) -> Profile:
    """The longitudinal profile of the number of spots: a little earlier and flatter than that of the energy.

    >>> from nisampler.calo.detector.media import Medium
    >>> medium = Medium(5.6, 16.0, 7.4, 82.0)
    >>> spot_profile(average_profile(np.array([1e4]), medium), medium).maximum.shape
    (1,)
    """
    if medium.sampling_frequency is None:
        maximum, shape = 0.698 + 0.00212 * medium.Z, 0.639 + 0.00334 * medium.Z
    else:
        maximum, shape = 0.813 + 0.0019 * medium.Z, 0.844 + 0.0026 * medium.Z
    return _profile(profile.maximum * maximum, profile.shape * shape, profile.tau_scale)


def spot_number(energy: Floats, medium: Medium, resolution: float) -> Floats:
    """Mean number of energy spots of a shower, shape (n,).

    Parameters
    ----------
    energy
        Shape (n,), GeV.
    medium
        93 ln(Z) E^0.876 spots in a homogeneous one, 10.3/c E^0.959 in a sampling one.
    resolution
        c of σ(E)/E = c/√(E/GeV); only for a sampling medium.

    Examples
    --------
    >>> from nisampler.calo.detector.media import Medium
    >>> numbers = spot_number(np.array([1e4, 1e5]), Medium(5.6, 16.0, 7.4, 82.0), 0.1)
    >>> bool(numbers[1] > numbers[0])
    True
    """
    if medium.sampling_frequency is None:
        return 93.0 * float(np.log(medium.Z)) * energy**0.876
    return 10.3 / resolution * energy**0.959


@dataclass(frozen=True)
class Radial:
    """Radial profiles f(r) = p 2rR_C²/(r²+R_C²)² + (1-p) 2rR_T²/(r²+R_T²)².

    Parameters
    ----------
    core, tail
        R_C and R_T, any shape, in the unit of the radii that are asked for.
    core_weight
        p in [0, 1], same shape.

    Examples
    --------
    >>> from nisampler.calo.detector.media import Medium
    >>> radial = radial_profile(np.array([1e4]), np.array([1.0]), Medium(5.6, 16.0, 7.4, 82.0))
    >>> bool((radial.scaled(np.array([2.0])).core == 2 * radial.core).all())
    True
    """

    core: Floats
    tail: Floats
    core_weight: Floats

    def scaled(self, factor: Floats) -> Radial:
        """The same profile in another unit of length."""
        return Radial(self.core * factor, self.tail * factor, self.core_weight)

    def select(self, index: slice) -> Radial:
        """The profiles at `index` along the last axis."""
        return Radial(self.core[..., index], self.tail[..., index], self.core_weight[..., index])

    def spread(self, distance: float) -> Radial:
        """Approximate profile after a further displacement by `distance` (its median), isotropic.

        The median of the sum of two such displacements is (R1^(4/3) + R2^(4/3))^(3/4) within 2 %.
        """
        extra = distance ** (4.0 / 3.0)
        core, tail = ((radius ** (4.0 / 3.0) + extra) ** 0.75 for radius in (self.core, self.tail))
        return Radial(core, tail, self.core_weight)

    def rings(self, edges: Floats) -> Floats:
        """Share of the energy in rings between radii `edges` (m+1,): shape (..., m)."""
        square = edges * edges
        core = square / (square + (self.core * self.core)[..., None])
        tail = square / (square + (self.tail * self.tail)[..., None])
        weight = self.core_weight[..., None]
        return np.diff(weight * core + (1.0 - weight) * tail, axis=-1)

    def rectangles(self, x: Floats, y: Floats) -> Floats:
        """Share of the energy in the cells of a rectangular grid around the axis: shape (..., m_x - 1, m_y - 1).

        Edges (..., m) may differ from profile to profile.

        The density R²/(π (r²+R²)²) has the integral [x/a atan(y/a) + y/b atan(x/b)]/(2π) over the rectangle from the
        axis to (x, y), with a = √(x²+R²) and b = √(y²+R²).
        """
        corners = self._corners(x[..., :, None], y[..., None, :], 2)
        return np.asarray(np.diff(np.diff(corners, axis=-2), axis=-1))

    def squares(self, x: Floats, y: Floats, widths: Floats) -> Floats:
        """Share of the energy in squares (m,) with these centres (..., m) and sides: shape (..., m)."""
        low_x, high_x, low_y, high_y = x - 0.5 * widths, x + 0.5 * widths, y - 0.5 * widths, y + 0.5 * widths
        upper = self._corners(high_x, high_y, 1) - self._corners(low_x, high_y, 1)
        return upper - self._corners(high_x, low_y, 1) + self._corners(low_x, low_y, 1)

    def _corners(self, x: Floats, y: Floats, axes: int) -> Floats:
        """Share of the energy in the rectangle from the axis to each (x, y), signed.

        The last `axes` of the coordinates come behind those of the profiles; the others, if there are any, are theirs.
        """
        total: Floats = np.zeros(())
        ends = (..., *(None for _ in range(axes)))
        for radius, weight in ((self.core, self.core_weight), (self.tail, 1.0 - self.core_weight)):
            square = (radius * radius)[ends]
            width_x, width_y = np.sqrt(x * x + square), np.sqrt(y * y + square)
            corner = x / width_x * np.arctan(y / width_x) + y / width_y * np.arctan(x / width_y)
            total = total + weight[ends] * corner / (2.0 * np.pi)
        return total


def radial_profile(energy: Floats, tau: Floats, medium: Medium) -> Radial:
    """The radial profile at shower depths τ, in Molière radii.

    Parameters
    ----------
    energy
        Shape (n,), GeV.
    tau
        Shape (n, m): depth relative to that of the shower's maximum.

    Examples
    --------
    >>> from nisampler.calo.detector.media import Medium
    >>> radial_profile(np.array([1e4]), np.array([[0.5, 1.0]]), Medium(5.6, 16.0, 7.4, 82.0)).core.shape
    (1, 2)
    """
    log_e = np.log(energy)[:, None]
    Z = medium.Z
    core = 0.0251 + 0.00319 * log_e + (0.1162 - 0.000381 * Z) * tau
    tail = (0.659 - 0.00309 * Z) * (
        np.exp(-2.59 * (tau - 0.645)) + np.exp(np.minimum((0.3585 + 0.0421 * log_e) * (tau - 0.645), 10.0))
    )
    reduced = (0.401 + 0.00187 * Z - tau) / (1.313 - 0.0686 * log_e)
    weight = (2.632 - 0.00094 * Z) * np.exp(reduced - np.exp(np.minimum(reduced, 10.0)))
    if medium.sampling_frequency is not None:
        rest = 1.0 - medium.e_over_mip
        decay = np.exp(-tau) / medium.sampling_frequency
        core = core - 0.0203 * rest + 0.0397 * decay
        tail = tail - 0.14 * rest - 0.495 * decay
        weight = weight + rest * (0.348 - 0.642 * np.exp(-((tau - 1.0) ** 2)) / medium.sampling_frequency)
    low, high = _TAIL_RADII
    return Radial(np.clip(core, low, high), np.clip(tail, low, high), np.clip(weight, 0.0, 1.0))
