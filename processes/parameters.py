"""Electroweak input of the hadron processes, and the couplings and widths of an extra neutral boson."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, get_args

from pydantic import Field

from nisampler.base.checks import Finite, NonNegative, Positive, settings
from nisampler.errors import AmplitudeError
from nisampler.processes.constants import (
    ALPHA_EM,
    CHARGE_ISOSPIN,
    CKM,
    DOWN_QUARKS,
    MASS_HIGGS,
    MASS_TOP,
    MASS_W,
    MASS_Z,
    SIN2_THETA_W,
    UP_QUARKS,
    WIDTH_HIGGS,
    WIDTH_TOP,
    WIDTH_W,
    WIDTH_Z,
    FermionType,
)

Share = Annotated[Finite, Field(gt=0.0, lt=1.0)]
"""A number between 0 and 1, both excluded."""
Couplings = Annotated[tuple[Finite, Finite], Field(strict=False)]
"""A vector and an axial coupling."""
_Element = Annotated[Finite, Field(ge=0.0, le=1.0)]
_Family = Annotated[tuple[_Element, _Element, _Element], Field(strict=False)]
CkmMatrix = Annotated[tuple[_Family, _Family, _Family], Field(strict=False)]
"""Absolute values |V_ij|, rows u, c, t, columns d, s, b."""


@settings
class StandardModel:
    """Couplings, masses and widths of the Standard Model at tree level; masses and widths in GeV.

    Five massless quarks and massless leptons unless masses are given; every propagator is 1 / (s - m^2 + i m Gamma).
    `mass_w` does not enter the neutral couplings, so it need not be that of the tree-level relation with
    `sin2_theta_w`; where bosons couple to each other it must be, see :meth:`on_shell`.

    Parameters
    ----------
    alpha_em
        Electromagnetic coupling at the scale of the process.
    sin2_theta_w
        Weak mixing angle sin^2(theta_W), between 0 and 1.
    mass_z, width_z, mass_w, width_w
        Masses and widths of the heavy bosons.
    mass_top, width_top
        Mass of the top quark, and its width, by default that at lowest order.
    mass_higgs, width_higgs
        Mass and width of the Higgs boson.
    mass_bottom, mass_tau
        Masses that only amplitudes by recursion know.
    ckm
        Absolute values |V_ij|, rows u, c, t, columns d, s, b, each between 0 and 1.

    Raises
    ------
    ConfigError
        If a value is of the wrong type or outside its range.

    Examples
    --------
    >>> StandardModel(mass_top=172.5).mass_top
    172.5
    >>> StandardModel(sin2_theta_w=1.2)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: sin2_theta_w = 1.2: must be a number, more than 0 and less than 1
    """

    alpha_em: Positive = ALPHA_EM
    sin2_theta_w: Share = SIN2_THETA_W
    mass_z: Positive = MASS_Z
    width_z: Positive = WIDTH_Z
    mass_w: Positive = MASS_W
    width_w: Positive = WIDTH_W
    mass_top: Positive = MASS_TOP
    ckm: CkmMatrix = CKM
    width_top: NonNegative = WIDTH_TOP
    mass_higgs: Positive = MASS_HIGGS
    width_higgs: NonNegative = WIDTH_HIGGS
    mass_bottom: NonNegative = 0.0
    mass_tau: NonNegative = 0.0

    def on_shell(self) -> StandardModel:
        """The same with sin^2(theta_W) = 1 - m_W^2 / m_Z^2, which gauge invariance asks of bosons that couple.

        Raises
        ------
        ConfigError
            If the W is not lighter than the Z.

        >>> round(StandardModel().on_shell().sin2_theta_w, 4)
        0.2222
        """
        return replace(self, sin2_theta_w=1 - (self.mass_w / self.mass_z) ** 2)

    def without_mixing(self) -> StandardModel:
        """The same with the unit matrix in place of the CKM matrix.

        >>> StandardModel().without_mixing().ckm[0]
        (1.0, 0.0, 0.0)
        """
        return replace(self, ckm=((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)))

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

    def ckm_element(self, up: int, down: int) -> float:
        """V_ij with the signs of a real matrix, V_cd and V_ts being negative, so that rows are orthogonal to 0.003.

        >>> StandardModel().ckm_element(4, 1)
        -0.2271
        """
        size = math.sqrt(self.ckm_squared(up, down))
        return -size if (up, down) in ((4, 1), (6, 3)) else size

    def vector_axial(self, fermion: FermionType) -> tuple[float, float]:
        """(v, a) = (T_3 - 2 Q sin^2, T_3) of the Z vertex -i e / (2 sin cos) gamma^mu (v - a gamma_5)."""
        if fermion not in CHARGE_ISOSPIN:
            raise AmplitudeError(f"the fermion type must be one of {get_args(FermionType)}, got {fermion!r}")
        charge, isospin = CHARGE_ISOSPIN[fermion]
        return isospin - 2 * charge * self.sin2_theta_w, isospin


@settings
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
        If a value is of the wrong type or outside its range.

    Examples
    --------
    >>> ZPrime(mass=600.0, up=(0.5, 0.5)).vector_axial("up", StandardModel())
    (0.5, 0.5)
    """

    mass: Positive = 400.0
    width: Positive = 0.5
    up: Couplings | None = None
    down: Couplings | None = None
    lepton: Couplings | None = None

    def vector_axial(self, fermion: FermionType, model: StandardModel) -> tuple[float, float]:
        """(v, a) of a fermion: the own ones, or those of the Z in `model` where none are given."""
        default = model.vector_axial(fermion)
        own: tuple[float, float] | None = getattr(self, fermion)
        return default if own is None else own
