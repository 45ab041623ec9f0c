"""What a run card may say about the registered hadron processes, with the defaults and the checks."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from nisampler.errors import ConfigError, ProcessError
from nisampler.processes.hadron.scales import ScaleName
from nisampler.processes.partons.alpha_s import MAX_LOOPS

MAX_JETS = 3
CHANNEL_KINDS = ("chili", "topology")
_TEXTS = ("pdf", "channels")
_CHECKED_LATER = ("scale", "z_prime_up", "z_prime_down", "z_prime_lepton")
# The only limits that may be infinite, which means none.
_UNLIMITED = ("m_max", "eta_jet_max", "eta_lepton_max")
_POSITIVE = ("sqrt_s", "m_z_prime", "width_z_prime", "mass_top", "pt_jet_min", "eta_jet_max", "eta_lepton_max")

P = TypeVar("P", bound="CollisionParameters")


@dataclass(frozen=True)
class CollisionParameters:
    """Parameters of every proton-proton process; energies in GeV.

    Attributes
    ----------
    sqrt_s
        Energy of the collision.
    pdf
        Name of a set that an installed pythia8mc brings, or path of an LHAPDF grid file (.dat).
    scale
        Central scale: a number in GeV, or the name of a function, see `nisampler.processes.hadron.scales.make_scales`.
    mu_r_factor, mu_f_factor
        Renormalisation and factorisation scale in units of the central one.
    alpha_s
        Strong coupling at the Z mass, run from there; that of the parton densities if None.
    alpha_s_loops
        1 to 3, of the running where `alpha_s` is given.
    channels
        Phase-space channels: "chili" or "topology".
    workers
        Processes that evaluate generated matrix elements, 0 for none beside the caller's; matrix elements in torch
        need none.
    pt_jet_min, eta_jet_max
        For each jet.

    Raises
    ------
    ConfigError
        If a value is of the wrong type.
    ProcessError
        If a value is outside its range.
    """

    sqrt_s: float = 13000.0
    pdf: str = "NNPDF31_lo_as_0118"
    scale: ScaleName = "m_Z"
    mu_r_factor: float = 1.0
    mu_f_factor: float = 1.0
    alpha_s: float | None = None
    alpha_s_loops: int = 1
    channels: str = "chili"
    workers: int = 0
    pt_jet_min: float = 20.0
    eta_jet_max: float = 5.0

    def __post_init__(self) -> None:
        for item in fields(self):
            _check(item.name, getattr(self, item.name))
        if self.channels not in CHANNEL_KINDS:
            raise ConfigError(f"channels must be one of {', '.join(CHANNEL_KINDS)}, got {self.channels!r}")
        if not 1 <= self.alpha_s_loops <= MAX_LOOPS:
            raise ProcessError(f"alpha_s_loops must be 1 to {MAX_LOOPS}, got {self.alpha_s_loops}")
        if self.workers < 0:
            raise ProcessError(f"workers must be 0 or more, got {self.workers}")


@dataclass(frozen=True)
class LeptonPairParameters(CollisionParameters):
    """Parameters of processes with a lepton pair from a boson and n_jets jets.

    Attributes
    ----------
    n_jets
        0 to 3.
    m_min, m_max
        Window of the mass of the lepton pair.
    pt_lepton_min, eta_lepton_max
        For each charged lepton.
    pt_missing_min
        For the neutrino.
    delta_r_jj_min
        For each pair of jets.
    """

    n_jets: int = 0
    m_min: float = 50.0
    m_max: float = math.inf
    pt_lepton_min: float = 0.0
    eta_lepton_max: float = math.inf
    pt_missing_min: float = 0.0
    delta_r_jj_min: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.n_jets <= MAX_JETS:
            raise ProcessError(f"n_jets must be 0 to {MAX_JETS}, got {self.n_jets}")
        if self.m_min <= 0:
            raise ProcessError(f"m_min must be positive: the photon's propagator diverges at zero, got {self.m_min}")
        if not 0 < self.delta_r_jj_min < math.pi:
            raise ProcessError(f"delta_r_jj_min must lie in (0, pi): collinear jets diverge, got {self.delta_r_jj_min}")
        # Without jets both leptons have the same transverse momentum, at most half their mass.
        balanced = 2 * max(self.pt_lepton_min, self.pt_missing_min)
        if self.n_jets == 0 and balanced >= self.m_max:
            raise ConfigError(
                f"contradictory cuts: without jets the leptons have a mass above {balanced} by their transverse "
                f"momenta, not below m_max = {self.m_max}"
            )


@dataclass(frozen=True)
class WJetsParameters(LeptonPairParameters):
    """Parameters of W + jets: the mass window opens at 10 GeV, the scale is the W mass."""

    scale: ScaleName = "m_W"
    m_min: float = 10.0


@dataclass(frozen=True)
class ZJetsParameters(LeptonPairParameters):
    """Parameters of Z + jets: around the Z, where the published efficiencies are (2001.10028)."""

    m_min: float = 66.0
    m_max: float = 116.0


@dataclass(frozen=True)
class ZPrimeParameters(LeptonPairParameters):
    """Parameters of the Z' toy model of 2212.06172.

    Attributes
    ----------
    m_z_prime, width_z_prime
        Mass and width of the Z'.
    z_prime_up, z_prime_down, z_prime_lepton
        Couplings (vector, axial) of quarks of charge 2/3 and -1/3 and of charged leptons, see
        `nisampler.processes.parameters.ZPrime`; those of the Z if None. They do not change the width.
    """

    m_max: float = 1000.0
    m_z_prime: float = 400.0
    width_z_prime: float = 0.5
    z_prime_up: tuple[float, float] | None = None
    z_prime_down: tuple[float, float] | None = None
    z_prime_lepton: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_jets > 1:
            raise ProcessError(f"z_prime has at most one jet: there is no Z' in the generator, got {self.n_jets}")


@dataclass(frozen=True)
class TopPairParameters(CollisionParameters):
    """Parameters of top pairs.

    Attributes
    ----------
    mass_top
        In GeV; the tops are stable.
    """

    scale: ScaleName = "m_t"
    mass_top: float = 173.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if 2 * self.mass_top >= self.sqrt_s:
            raise ProcessError(f"mass_top = {self.mass_top} is too heavy for a pair at sqrt_s = {self.sqrt_s} GeV")


def from_card(kind: type[P], name: str, values: dict[str, Any]) -> P:
    """Parameters from the values of a card.

    Raises
    ------
    ConfigError
        If a parameter is unknown or of the wrong type.
    ProcessError
        If a value is outside its range.
    """
    known = [item.name for item in fields(kind)]
    for key in values:
        if key not in known:
            raise ConfigError(f"{name} has no parameter {key!r}; known: {', '.join(known)}")
    return kind(**values)


def _check(name: str, value: Any) -> None:
    """Types and signs; the scale and the couplings of a Z' are left to what uses them."""
    if name in _CHECKED_LATER or (name == "alpha_s" and value is None):
        return
    if name in _TEXTS:
        if not isinstance(value, str):
            raise ConfigError(f"{name} must be a text, got {value!r}")
        return
    whole = name in ("n_jets", "alpha_s_loops", "workers")
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or value != value:
        raise ConfigError(f"{name} must be a {'whole ' if whole else ''}number, got {value!r}")
    if math.isinf(value) and name not in _UNLIMITED:
        raise ConfigError(f"{name} must be finite, got {value}")
    if name in _POSITIVE and value <= 0:
        raise ProcessError(f"{name} must be positive, got {value}")
