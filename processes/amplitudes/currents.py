"""Massless quark-antiquark and lepton pairs joined by photon, Z and Z', or by a W: propagators times couplings."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nisampler.errors import AmplitudeError
from nisampler.events.columns import UNKNOWN_SPIN
from nisampler.processes.amplitudes.tree import chiral_spins
from nisampler.processes.constants import (
    CHARGE_ISOSPIN,
    DOWN_QUARKS,
    ELECTRON,
    ELECTRON_NEUTRINO,
    MASSLESS_QUARKS,
    UP_QUARKS,
    FermionType,
)
from nisampler.processes.parameters import StandardModel, ZPrime

QUARK_KINDS: tuple[FermionType, ...] = ("up", "down")


@dataclass(frozen=True)
class QuarkPair:
    """A quark and an antiquark that annihilate into the current.

    Attributes
    ----------
    quark, antiquark
        PDG codes of both, the second one negative.
    kind
        Row of the chirality factors.
    factor
        Squared CKM element, 1 for neutral currents.

    Examples
    --------
    >>> QuarkPair(2, -1, kind=0, factor=0.95).quark
    2
    """

    quark: int
    antiquark: int
    kind: int
    factor: float = 1.0


class LeptonicCurrent(Protocol):
    """An electroweak current between a quark pair and a lepton pair.

    >>> current: LeptonicCurrent = ChargedCurrent(-1)
    >>> current.leptons, current.kinds
    ((11, -12), 1)
    """

    @property
    def leptons(self) -> tuple[int, int]:
        """PDG codes of the two lepton legs."""

    @property
    def antilepton(self) -> int:
        """Which of the two lepton legs is the antiparticle, 0 or 1."""

    @property
    def quark_pairs(self) -> tuple[QuarkPair, ...]:
        """All massless pairs that couple."""

    @property
    def kinds(self) -> int:
        """Number of rows of the chirality factors."""

    def chirality_factors(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """Squared propagators times couplings, in GeV^-4, of equal and of opposite chiralities: twice (kinds, n).

        `s` (n,) is the squared invariant mass of the lepton pair in GeV^2.
        """

    def helicities(self, pdg_ids: tuple[int, ...]) -> tuple[float, ...]:
        """Helicities of fermions that couple to the current, 9 where not known."""


class NeutralCurrent:
    r"""Photon, Z and, where given, a Z', to a pair (l-, l+).

    P_ij = e^2 (Q_q Q_l / s + g_i^q g_j^l / (s - m_Z^2 + i m_Z Gamma_Z) + the same of the Z') for the chiralities i, j;
    g_L, g_R = (v + a, v - a) / (2 sin cos). The factors are |P_LL|^2 + |P_RR|^2 and |P_LR|^2 + |P_RL|^2, row 0 for
    quarks of charge 2/3, row 1 for -1/3.

    Parameters
    ----------
    model
        Couplings, masses and widths.
    z_prime
        An extra boson.

    Examples
    --------
    >>> current = NeutralCurrent()
    >>> current.leptons, len(current.quark_pairs)
    ((11, -11), 5)
    >>> equal, opposite = current.chirality_factors(torch.tensor([91.1876**2], dtype=torch.float64))
    >>> equal.shape
    torch.Size([2, 1])
    """

    leptons = (ELECTRON, -ELECTRON)
    antilepton = 1
    kinds = len(QUARK_KINDS)

    def __init__(self, model: StandardModel | None = None, z_prime: ZPrime | None = None) -> None:
        self.model = StandardModel() if model is None else model
        self.z_prime = z_prime
        self.quark_pairs = tuple(QuarkPair(q, -q, 0 if q in UP_QUARKS else 1) for q in MASSLESS_QUARKS)
        # |P|^2 is a quadratic form in the propagators: columns of the table are pairs of bosons, rows are equal
        # chiralities of both kinds of quarks, then opposite ones.
        charges = torch.stack([self._boson_couplings(kind) for kind in QUARK_KINDS])
        pairs = list(itertools.combinations_with_replacement(range(charges.shape[1]), 2))
        products = [charges[:, a] * charges[:, b] * (1 if a == b else 2) for a, b in pairs]
        left_left, left_right, right_left, right_right = torch.stack(products, dim=1).flatten(-2).unbind(-1)
        self._table = torch.cat([left_left + right_right, left_right + right_left])

    def _boson_couplings(self, kind: FermionType) -> Tensor:
        """Products of quark and lepton couplings, (bosons, 2, 2): boson, chirality of the quark, of the lepton."""
        m = self.model
        unit = 2 * (m.sin2_theta_w * (1 - m.sin2_theta_w)) ** 0.5
        charge = CHARGE_ISOSPIN[kind][0] * CHARGE_ISOSPIN["lepton"][0]
        couplings = [torch.full((2, 2), charge, dtype=torch.float64)]
        sources = [(m.vector_axial(kind), m.vector_axial("lepton"))]
        if self.z_prime is not None:
            sources.append((self.z_prime.vector_axial(kind, m), self.z_prime.vector_axial("lepton", m)))
        for pairs in sources:
            quark, lepton = (torch.tensor([v + a, v - a], dtype=torch.float64) / unit for v, a in pairs)
            couplings.append(torch.outer(quark, lepton))
        return m.charge_squared * torch.stack(couplings)

    def chirality_factors(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """Factors (2, n) of equal and (2, n) of opposite chiralities in GeV^-4; `s` (n,) in GeV^2."""
        m = self.model
        real, imaginary = [1 / s], [torch.zeros_like(s)]
        resonances = [(m.mass_z, m.width_z)]
        if self.z_prime is not None:
            resonances.append((self.z_prime.mass, self.z_prime.width))
        for mass, width in resonances:
            distance = s - mass**2
            weight = 1 / (distance.square() + (mass * width) ** 2)
            real.append(distance * weight)
            imaginary.append(mass * width * weight)
        pairs = itertools.combinations_with_replacement(range(len(real)), 2)
        # Added one by one: the last digits of a product of matrices depend on the number of points on some processors.
        factors = s.new_zeros(len(self._table), len(s))
        for column, (a, b) in zip(self._table.to(s).T, pairs, strict=True):
            factors = factors + column.unsqueeze(1) * (real[a] * real[b] + imaginary[a] * imaginary[b])
        return factors[: self.kinds], factors[self.kinds :]

    def helicities(self, pdg_ids: tuple[int, ...]) -> tuple[float, ...]:
        """Not known: both chiralities couple."""
        return (UNKNOWN_SPIN,) * len(pdg_ids)


class ChargedCurrent:
    """A W of the given charge: W+ to (e+, nu_e), W- to (e-, nubar_e), all massless quark pairs with their |V_ij|^2.

    Only left-handed chiralities: |P|^2 = (g_W^2 / 2)^2 / ((s - m_W^2)^2 + m_W^2 Gamma_W^2), without the CKM element.

    Parameters
    ----------
    charge
        +1 or -1.
    model
        Couplings, masses and widths.

    Raises
    ------
    AmplitudeError
        If the charge is neither.

    Examples
    --------
    >>> current = ChargedCurrent(+1)
    >>> current.leptons, (current.quark_pairs[0].quark, current.quark_pairs[0].antiquark)
    ((-11, 12), (2, -1))
    >>> ChargedCurrent(0)
    Traceback (most recent call last):
    ...
    nisampler.errors.AmplitudeError: the charge of the W must be +1 or -1, got 0
    """

    kinds = 1

    def __init__(self, charge: int, model: StandardModel | None = None) -> None:
        if charge not in (1, -1):
            raise AmplitudeError(f"the charge of the W must be +1 or -1, got {charge!r}")
        self.charge = charge
        self.model = StandardModel() if model is None else model
        self.leptons = (-charge * ELECTRON, charge * ELECTRON_NEUTRINO)
        self.antilepton = 0 if charge == 1 else 1
        ups, downs = (set(MASSLESS_QUARKS) & set(family) for family in (UP_QUARKS, DOWN_QUARKS))
        self.quark_pairs = tuple(
            QuarkPair(*((up, -down) if charge == 1 else (down, -up)), 0, self.model.ckm_squared(up, down))
            for up, down in itertools.product(sorted(ups), sorted(downs))
        )

    def chirality_factors(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """Factors (1, n) of equal and (1, n) of opposite chiralities in GeV^-4; `s` (n,) in GeV^2."""
        m = self.model
        propagator = 1 / ((s - m.mass_w**2).square() + (m.mass_w * m.width_w) ** 2)
        equal = (0.25 * m.weak_coupling_squared**2 * propagator).unsqueeze(0)
        return equal, torch.zeros_like(equal)

    def helicities(self, pdg_ids: tuple[int, ...]) -> tuple[float, ...]:
        """-1 for fermions, +1 for antifermions, 9 for gluons."""
        return chiral_spins(pdg_ids)
