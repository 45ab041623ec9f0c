"""Leading-order e- e+ -> q qbar g with photon and Z exchange, for massless fermions."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from nisampler.base.checks import Positive, Row, checked, settings
from nisampler.errors import ConfigError
from nisampler.processes.constants import (
    ALPHA_EM,
    ALPHA_S,
    CASIMIR_F,
    CHARGE_ISOSPIN,
    COLOURS,
    MASS_Z,
    MASSLESS_QUARKS,
    SIN2_THETA_W,
    UP_QUARKS,
    WIDTH_Z,
    FermionType,
    Flavour,
)
from nisampler.processes.parameters import Share
from nisampler.processes.phase_space.kinematics import dot
from nisampler.processes.phase_space.three_body import DurhamCut

ELECTRON_CHARGE, ELECTRON_ISOSPIN = CHARGE_ISOSPIN["lepton"]


@settings
class EEToThreeJetsParameters:
    """Parameters of e- e+ -> q qbar g; energies, masses and widths in GeV.

    Parameters
    ----------
    sqrt_s
        Centre-of-mass energy in GeV.
    y_cut
        Lower bound on every Durham distance of the three partons, between 0 and 1/3.
    alpha_s
        Strong coupling at the scale of the process.
    alpha_em
        Electromagnetic coupling at the scale of the process.
    m_z, gamma_z
        Mass and width of the Z boson in GeV; the propagator is 1 / (s - m_z^2 + i m_z gamma_z).
    sin2_theta_w
        Weak mixing angle sin^2(theta_W).
    flavours
        PDG codes of the quarks produced, a subset of 1 to 5; all are massless.
    phase_space
        "durham" fills the region of the cut only, "kt" everything whose s_13 s_23 / s^2 exceeds its least value within
        the cut. Both give the same cross-section.

    Raises
    ------
    ConfigError
        If a value is of the wrong type or outside its range.

    Examples
    --------
    >>> EEToThreeJetsParameters(flavours=[2, 4]).flavours
    (2, 4)
    >>> EEToThreeJetsParameters(y_cut=0.4)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: y_cut = 0.4: must be a number, more than 0 and less than 0.333333
    """

    sqrt_s: Positive = MASS_Z
    y_cut: DurhamCut = 0.01
    alpha_s: Positive = ALPHA_S
    alpha_em: Positive = ALPHA_EM
    m_z: Positive = MASS_Z
    gamma_z: Positive = WIDTH_Z
    sin2_theta_w: Share = SIN2_THETA_W
    flavours: Row[Flavour] = MASSLESS_QUARKS
    phase_space: Literal["durham", "kt"] = "durham"

    def __post_init__(self) -> None:
        if not self.flavours or len(set(self.flavours)) != len(self.flavours):
            raise ConfigError(f"flavours must be different codes of quarks, at least one, got {self.flavours}")


def quark_type(flavour: int) -> FermionType:
    """ "up" or "down", the key of `CHARGE_ISOSPIN` for the PDG code of a quark.

    >>> quark_type(4), quark_type(5)
    ('up', 'down')
    """
    return "up" if flavour in UP_QUARKS else "down"


def chirality_factors(parameters: EEToThreeJetsParameters, flavour: int) -> tuple[float, float]:
    """Squared propagators times couplings, summed over equal and over opposite chiralities, in GeV^-4.

    P_ij = e^2 (Q_e Q_q / s + g_i^e g_j^q / (s - m_z^2 + i m_z gamma_z)), g_L = (T_3 - Q sin^2) / (sin cos),
    g_R = -Q sin^2 / (sin cos). Returns |P_LL|^2 + |P_RR|^2 and |P_LR|^2 + |P_RL|^2.

    >>> same, flipped = chirality_factors(EEToThreeJetsParameters(), flavour=2)
    >>> same > flipped
    True
    """
    s = parameters.sqrt_s**2
    sine2 = parameters.sin2_theta_w
    norm = math.sqrt(sine2 * (1 - sine2))
    charge, isospin = CHARGE_ISOSPIN[quark_type(flavour)]
    electron = ((ELECTRON_ISOSPIN - ELECTRON_CHARGE * sine2) / norm, -ELECTRON_CHARGE * sine2 / norm)
    quark = ((isospin - charge * sine2) / norm, -charge * sine2 / norm)
    z_boson = 1 / complex(s - parameters.m_z**2, parameters.m_z * parameters.gamma_z)
    e2 = 4 * math.pi * parameters.alpha_em

    def squared(i: int, j: int) -> float:
        return abs(e2 * (ELECTRON_CHARGE * charge / s + electron[i] * quark[j] * z_boson)) ** 2

    return squared(0, 0) + squared(1, 1), squared(0, 1) + squared(1, 0)


def chirality_structures(beams: Tensor, partons: Tensor) -> tuple[Tensor, Tensor]:
    r"""Kinematic parts of |M|^2 for equal and for opposite chiralities of electron and quark, in GeV^0.

    Sum over the gluon helicities of the maximally helicity violating amplitudes:
    equal ((p_+ . q)^2 + (p_- . qbar)^2) / ((q . g)(qbar . g)), opposite with p_+ and p_- exchanged.

    Parameters
    ----------
    beams
        (..., 2, 4), e- then e+.
    partons
        (..., 3, 4), quark, antiquark, gluon.

    Examples
    --------
    >>> beams = torch.tensor([[5.0, 0, 0, 5.0], [5.0, 0, 0, -5.0]])
    >>> partons = torch.tensor([[4.0, 4.0, 0, 0], [4.0, -2.0, 12**0.5, 0], [4.0, -2.0, -(12**0.5), 0]])
    >>> chirality_structures(beams, partons)
    (tensor(1.3889), tensor(1.3889))
    """
    minus, plus = beams[..., 0, :], beams[..., 1, :]
    quark, antiquark, gluon = partons[..., 0, :], partons[..., 1, :], partons[..., 2, :]
    eikonal = 1 / (dot(quark, gluon) * dot(antiquark, gluon))
    equal = (dot(plus, quark).square() + dot(minus, antiquark).square()) * eikonal
    opposite = (dot(minus, quark).square() + dot(plus, antiquark).square()) * eikonal
    return equal, opposite


def squared_matrix_element(parameters: EEToThreeJetsParameters, beams: Tensor, partons: Tensor, flavour: int) -> Tensor:
    """|M|^2 of e- e+ -> q qbar g in GeV^-2, summed over final spins and colours, averaged over initial spins.

    Parameters
    ----------
    parameters
        Couplings; its `sqrt_s` must be that of the beams.
    beams
        (..., 2, 4) in GeV, e- then e+.
    partons
        (..., 3, 4) in GeV, quark, antiquark, gluon.
    flavour
        PDG code of the quark, 1 to 5.

    Raises
    ------
    ConfigError
        If the flavour is not one of 1 to 5.

    Examples
    --------
    >>> p = EEToThreeJetsParameters(sqrt_s=12.0)
    >>> partons = torch.tensor([[4.0, 4.0, 0, 0], [4.0, -2.0, 12**0.5, 0], [4.0, -2.0, -(12**0.5), 0]])
    >>> bool(squared_matrix_element(p, beam_momenta(12.0, partons), partons, flavour=2) > 0)
    True
    """
    checked("flavour", flavour, Flavour)
    same, flipped = chirality_factors(parameters, flavour)
    equal, opposite = chirality_structures(beams, partons)
    return qcd_factor(parameters) * (same * equal + flipped * opposite)


def qcd_factor(parameters: EEToThreeJetsParameters) -> float:
    """2 g_s^2 N_c C_F s in GeV^2, the factor between the chirality sums and the averaged |M|^2.

    >>> round(qcd_factor(EEToThreeJetsParameters(sqrt_s=1.0, alpha_s=0.1)) / math.pi, 6)
    3.2
    """
    return 8 * math.pi * parameters.alpha_s * COLOURS * CASIMIR_F * parameters.sqrt_s**2


def beam_momenta(sqrt_s: float, like: Tensor) -> Tensor:
    """(2, 4) momenta of massless beams, e- along +z, e+ along -z, dtype and device of `like`.

    >>> beam_momenta(10.0, torch.zeros(1))
    tensor([[ 5.,  0.,  0.,  5.],
            [ 5.,  0.,  0., -5.]])
    """
    half = 0.5 * sqrt_s
    return torch.tensor([[half, 0, 0, half], [half, 0, 0, -half]], dtype=like.dtype, device=like.device)
