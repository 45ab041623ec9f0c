"""Electroweak input of the hadron processes, and the couplings and widths of an extra neutral boson."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

from nisampler.errors import AmplitudeError, ConfigError
from nisampler.processes.constants import (
    ALPHA_EM,
    CHARGE_ISOSPIN,
    CKM,
    DOWN_QUARKS,
    MASS_TOP,
    MASS_W,
    MASS_Z,
    SIN2_THETA_W,
    UP_QUARKS,
    WIDTH_W,
    WIDTH_Z,
    FermionType,
)


def _check_positive(name: str, value: object, *, zero: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{name} must be a number, got {value!r}")
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise AmplitudeError(f"{name} must be finite and {'not negative' if zero else 'positive'}, got {value}")


@dataclass(frozen=True)
class StandardModel:
    """Couplings, masses and widths of the Standard Model at tree level; masses and widths in GeV.

    Five massless quarks and massless leptons; every propagator is 1 / (s - m^2 + i m Gamma). `mass_w` does not enter
    the neutral couplings, so it need not be that of the tree-level relation with `sin2_theta_w`.

    Parameters
    ----------
    alpha_em
        Electromagnetic coupling at the scale of the process.
    sin2_theta_w
        Weak mixing angle sin^2(theta_W), between 0 and 1.
    mass_z, width_z, mass_w, width_w
        Masses and widths of the heavy bosons.
    mass_top
        Mass of the top quark, which is stable here.
    ckm
        Absolute values |V_ij|, rows u, c, t, columns d, s, b, each between 0 and 1.

    Raises
    ------
    ConfigError
        If a value is of the wrong type.
    AmplitudeError
        If a value is outside its range.
    """

    alpha_em: float = ALPHA_EM
    sin2_theta_w: float = SIN2_THETA_W
    mass_z: float = MASS_Z
    width_z: float = WIDTH_Z
    mass_w: float = MASS_W
    width_w: float = WIDTH_W
    mass_top: float = MASS_TOP
    ckm: tuple[tuple[float, ...], ...] = CKM

    def __post_init__(self) -> None:
        for name in ("alpha_em", "sin2_theta_w", "mass_z", "width_z", "mass_w", "width_w", "mass_top"):
            _check_positive(name, getattr(self, name))
        if self.sin2_theta_w >= 1:
            raise AmplitudeError(f"sin2_theta_w must lie between 0 and 1, got {self.sin2_theta_w}")
        try:
            ckm = tuple(tuple(float(value) for value in row) for row in self.ckm)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"ckm must be three rows of three numbers, got {self.ckm!r}") from error
        if [len(row) for row in ckm] != [3, 3, 3] or not all(0 <= value <= 1 for row in ckm for value in row):
            raise AmplitudeError(f"ckm must be three rows of three numbers between 0 and 1, got {self.ckm!r}")
        object.__setattr__(self, "ckm", ckm)

    @property
    def charge_squared(self) -> float:
        """e^2 = 4 pi alpha."""
        return 4 * math.pi * self.alpha_em

    @property
    def weak_coupling_squared(self) -> float:
        """g_W^2 = e^2 / sin^2(theta_W)."""
        return self.charge_squared / self.sin2_theta_w

    def ckm_squared(self, up: int, down: int) -> float:
        """|V_ij|^2 of the quarks with PDG codes `up` (2, 4 or 6) and `down` (1, 3 or 5); AmplitudeError on others."""
        if up not in UP_QUARKS or down not in DOWN_QUARKS:
            raise AmplitudeError(f"the CKM matrix has rows {UP_QUARKS} and columns {DOWN_QUARKS}, got ({up}, {down})")
        return float(self.ckm[UP_QUARKS.index(up)][DOWN_QUARKS.index(down)] ** 2)

    def vector_axial(self, fermion: FermionType) -> tuple[float, float]:
        """(v, a) = (T_3 - 2 Q sin^2, T_3) of the Z vertex -i e / (2 sin cos) gamma^mu (v - a gamma_5)."""
        if fermion not in CHARGE_ISOSPIN:
            raise AmplitudeError(f"the fermion type must be one of {get_args(FermionType)}, got {fermion!r}")
        charge, isospin = CHARGE_ISOSPIN[fermion]
        return isospin - 2 * charge * self.sin2_theta_w, isospin


@dataclass(frozen=True)
class ZPrime:
    """A heavy neutral boson that couples to a fermion f by -i e / (2 sin cos) gamma^mu (v_f - a_f gamma_5).

    Couplings are pairs (v, a) in units of the Z's, whose own are v = T_3 - 2 Q sin^2(theta_W) and a = T_3; None takes
    those of the Z, which makes the sequential Z'. Defaults: the mass and the width of the toy model of 2212.06172.

    Parameters
    ----------
    mass, width
        In GeV.
    up, down
        Couplings of all quarks of charge 2/3 and -1/3.
    lepton
        Couplings of the charged leptons.

    Raises
    ------
    ConfigError
        If a value is of the wrong type.
    AmplitudeError
        If a value is outside its range.
    """

    mass: float = 400.0
    width: float = 0.5
    up: tuple[float, float] | None = None
    down: tuple[float, float] | None = None
    lepton: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        _check_positive("mass of the Z'", self.mass)
        _check_positive("width of the Z'", self.width)
        for name in ("up", "down", "lepton"):
            pair = getattr(self, name)
            if pair is None:
                continue
            try:
                vector, axial = (float(value) for value in pair)
            except (TypeError, ValueError) as error:
                raise ConfigError(f"{name} of the Z' must be a pair (vector, axial), got {pair!r}") from error
            if not (math.isfinite(vector) and math.isfinite(axial)):
                raise AmplitudeError(f"{name} of the Z' must be finite, got {pair!r}")
            object.__setattr__(self, name, (vector, axial))

    def vector_axial(self, fermion: FermionType, model: StandardModel) -> tuple[float, float]:
        """(v, a) of a fermion: the own ones, or those of the Z in `model` where none are given."""
        default = model.vector_axial(fermion)
        own: tuple[float, float] | None = getattr(self, fermion)
        return default if own is None else own
