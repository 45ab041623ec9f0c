"""What a run card may say about the registered hadron processes, with the defaults and the checks."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from nisampler.base.checks import Finite, Limit, Natural, NonNegative, Positive, Row, settings
from nisampler.errors import ConfigError
from nisampler.processes.constants import MASS_TOP
from nisampler.processes.discrete.elements import Elements
from nisampler.processes.hadron.cuts.texts import OwnCut
from nisampler.processes.hadron.scales import ScaleName
from nisampler.processes.parameters import Couplings
from nisampler.processes.partons.alpha_s import Coupling, Loops

Jets = Annotated[Natural, Field(le=3)]
Distance = Annotated[Finite, Field(gt=0.0, lt=math.pi)]
"""A Delta R; zero would let collinear jets diverge, beyond pi the azimuth wraps."""


@settings
class CollisionParameters:
    """Parameters of every proton-proton process; energies in GeV.

    Attributes
    ----------
    sqrt_s
        Energy of the collision in GeV.
    pdf
        Name of a set that an installed pythia8mc brings, or path of an LHAPDF grid file (.dat).
    scale
        Central scale: a number in GeV, or the name of a function such as "m_Z", "m_ll", "m_T" or "H_T/2", see
        `nisampler.processes.hadron.scales.make_scales`.
    mu_r_factor, mu_f_factor
        Renormalisation and factorisation scale in units of the central one.
    alpha_s
        Strong coupling at the Z mass, run from there; by default that of the parton densities.
    alpha_s_loops
        Order of the running where `alpha_s` is given.
    channels
        Phase-space channels: "chili" or "topology".
    channel_weights
        Prior weights of topology channels: in proportion to their "densities", or to products of their "propagators",
        which cost less and gain something on VEGAS grids alone.
    matrix_element
        What makes the matrix elements of two jets and more, and of tops with a jet: "recursion", or "pyamplicol", which
        needs its extra and a licence.
    elements
        Whether the matrix elements of all groups of sub-processes are "summed" at every point, or one is "sampled" with
        a learned probability; "auto" samples where that takes less time.
    workers
        Processes that evaluate matrix elements of pyamplicol, 0 for none beside the caller's.
    pt_jet_min, eta_jet_max
        Transverse momentum in GeV and |eta| of each jet; an infinite `eta_jet_max` is no cut.
    cuts
        More cuts, such as "m(j1, j2) > 500": see `nisampler.processes.hadron.cuts.texts.cuts_of`.

    Raises
    ------
    ConfigError
        If a value is of the wrong type or outside its range.

    Examples
    --------
    >>> CollisionParameters(pt_jet_min=30.0).sqrt_s
    13000.0
    >>> CollisionParameters(workers=-1)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: workers = -1: must be a whole number, at least 0
    """

    sqrt_s: Positive = 13000.0
    pdf: str = "NNPDF31_lo_as_0118"
    scale: ScaleName = "m_Z"
    mu_r_factor: Positive = 1.0
    mu_f_factor: Positive = 1.0
    alpha_s: Coupling | None = None
    alpha_s_loops: Loops = 1
    channels: Literal["chili", "topology"] = "chili"
    channel_weights: Literal["densities", "propagators"] = "densities"
    matrix_element: Literal["recursion", "pyamplicol"] = "recursion"
    elements: Elements = "auto"
    workers: Natural = 0
    pt_jet_min: Positive = 20.0
    eta_jet_max: Limit = 5.0
    cuts: Row[OwnCut] = ()


@settings
class LeptonPairParameters(CollisionParameters):
    """Parameters of processes with a lepton pair from a boson and n_jets jets.

    Attributes
    ----------
    n_jets
        Number of jets.
    m_min, m_max
        Window of the mass of the lepton pair in GeV; the photon's propagator diverges at zero, an infinite `m_max` is
        no cut.
    pt_lepton_min, eta_lepton_max
        Transverse momentum in GeV and |eta| of each charged lepton.
    pt_missing_min
        Transverse momentum of the neutrino in GeV.
    delta_r_jj_min
        Distance of each pair of jets.

    Raises
    ------
    ConfigError
        If a value is of the wrong type or outside its range, or the cuts contradict each other.

    Examples
    --------
    >>> LeptonPairParameters(pt_lepton_min=60.0, m_max=100.0)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: contradictory cuts: without jets the leptons have a mass above 120.0 ...
    """

    n_jets: Jets = 0
    m_min: Positive = 50.0
    m_max: Limit = math.inf
    pt_lepton_min: NonNegative = 0.0
    eta_lepton_max: Limit = math.inf
    pt_missing_min: NonNegative = 0.0
    delta_r_jj_min: Distance = 0.4

    def __post_init__(self) -> None:
        # Without jets both leptons have the same transverse momentum, at most half their mass.
        balanced = 2 * max(self.pt_lepton_min, self.pt_missing_min)
        if self.n_jets == 0 and balanced >= self.m_max:
            raise ConfigError(
                f"contradictory cuts: without jets the leptons have a mass above {balanced} by their transverse "
                f"momenta, not below m_max = {self.m_max}"
            )


@settings
class WJetsParameters(LeptonPairParameters):
    """Parameters of W + jets: the mass window opens at 10 GeV, the scale is the W mass.

    Examples
    --------
    >>> WJetsParameters(n_jets=2).scale
    'm_W'
    """

    scale: ScaleName = "m_W"
    m_min: Positive = 10.0


@settings
class ZJetsParameters(LeptonPairParameters):
    """Parameters of Z + jets: around the Z, where the published efficiencies are (2001.10028).

    Examples
    --------
    >>> ZJetsParameters(n_jets=4)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: n_jets = 4: must be a whole number, at least 0 and at most 3
    """

    m_min: Positive = 66.0
    m_max: Limit = 116.0


@settings
class ZPrimeParameters(LeptonPairParameters):
    """Parameters of the Z' toy model of 2212.06172; with more than one jet there is no Z' in the generator.

    Attributes
    ----------
    m_z_prime, width_z_prime
        Mass and width of the Z' in GeV.
    z_prime_up, z_prime_down, z_prime_lepton
        Couplings (vector, axial) of quarks of charge 2/3 and -1/3 and of charged leptons, see
        `nisampler.processes.parameters.ZPrime`; by default those of the Z. They do not change the width.

    Examples
    --------
    >>> ZPrimeParameters(m_z_prime=600.0).m_max
    1000.0
    """

    n_jets: Literal[0, 1] = 0
    m_max: Limit = 1000.0
    m_z_prime: Positive = 400.0
    width_z_prime: Positive = 0.5
    z_prime_up: Couplings | None = None
    z_prime_down: Couplings | None = None
    z_prime_lepton: Couplings | None = None


@settings
class TopPairParameters(CollisionParameters):
    """Parameters of top pairs.

    Attributes
    ----------
    mass_top
        Mass in GeV; the tops are stable.

    Raises
    ------
    ConfigError
        If a value is of the wrong type or outside its range, or a pair needs more energy than there is.

    Examples
    --------
    >>> TopPairParameters(mass_top=7000.0)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: mass_top = 7000.0 is too heavy for a pair at sqrt_s = 13000.0 GeV
    """

    scale: ScaleName = "m_t"
    mass_top: Positive = MASS_TOP

    def __post_init__(self) -> None:
        if 2 * self.mass_top >= self.sqrt_s:
            raise ConfigError(f"mass_top = {self.mass_top} is too heavy for a pair at sqrt_s = {self.sqrt_s} GeV")
