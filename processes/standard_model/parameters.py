"""What a run card may say about a process given by its string, with the defaults and the checks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Literal

from torch import Tensor

from nisampler.base.checks import Finite, Limit, Natural, NonNegative, Positive, Row, settings
from nisampler.errors import ConfigError
from nisampler.processes.amplitudes.recursion.model import Mixing, Scheme
from nisampler.processes.amplitudes.recursion.resonances import Shape
from nisampler.processes.constants import (
    ALPHA_EM,
    MASS_HIGGS,
    MASS_TOP,
    MASS_W,
    MASS_Z,
    WIDTH_HIGGS,
    WIDTH_TOP,
    WIDTH_W,
    WIDTH_Z,
)
from nisampler.processes.hadron.lhc_parameters import CollisionParameters, Distance
from nisampler.processes.hadron.scales import ScaleName
from nisampler.processes.parameters import StandardModel

UMAMI = "umami:"
"""What the name of a shared library with that interface begins with."""


@settings
class StringParameters(CollisionParameters):
    """Parameters of any process; energies in GeV. The default cuts are those of MadGraph's run card.

    Attributes
    ----------
    channels
        "topology": along the diagrams; "chili": in transverse momenta and rapidities of jets, against which two other
        legs recoil, or of jets and bosons; "auto": "chili" where no jet comes from a resonance and each jet costs a
        strong coupling, or there are two and more bosons beside electroweak jets.
    matrix_element
        "recursion" alone.
    delta_r_jj_min, delta_r_ll_min, delta_r_jl_min
        Least distance of two jets, two charged leptons, a jet and a charged lepton; photons count as leptons.
    pt_lepton_min, eta_lepton_max
        Transverse momentum in GeV and |eta| of each charged lepton.
    pt_photon_min, eta_photon_max
        Transverse momentum in GeV and |eta| of each photon.
    m_ll_min, m_ll_max
        Mass in GeV of each pair of a charged lepton and its antiparticle; an infinite `m_ll_max` is no cut.
    m_jj_min, delta_eta_jj_min
        Mass in GeV and distance in pseudorapidity of the two jets of highest transverse momentum.
    pt_missing_min
        Transverse momentum of all neutrinos together in GeV.
    alpha_em
        Electromagnetic coupling.
    mass_w, width_w, mass_z, width_z, mass_top, width_top, mass_higgs, width_higgs
        Masses and widths in GeV; sin^2(theta_W) = 1 - m_W^2 / m_Z^2.
    mass_bottom, mass_tau
        Masses in GeV of the bottom quark, with four flavours or fewer in protons, and of the tau; they couple to the
        Higgs.
    flavours
        Massless quarks that ``p`` and ``j`` stand for.
    scheme
        How widths enter amplitudes: "zero", "fixed" or "complex".
    resonances
        Masses of particles that the string lets decay: "on_shell" at the pole, or of a "breit_wigner" within 15 widths.
    cut_decays
        Whether cuts with a name hold for products of decays, too; those of `cuts` always do.
    ckm
        The CKM matrix where several W can occur, orders are limited or particles decay: the "unit", or that of the
        "model"; elsewhere it is that of the model.
    amplitude
        A matrix element of one's own: "file.py:function", a function given in Python, see
        `nisampler.processes.amplitudes.own.functions.OwnAmplitude`, or "umami:libX.so", see
        `nisampler.processes.amplitudes.own.umami.UmamiLibrary`.
    combinations
        Of flavours, such as "u u~ > e- e+", that the own matrix element knows, by default those that the Standard Model
        has diagrams for. Of a UMAMI library the one, or the list of those, that each flavour index stands for.
    param_card
        What a UMAMI library is initialized with.
    colour_indices, helicity_indices
        Les Houches tags, and helicities, of all legs in the order of the library, for each index that it selects.

    Raises
    ------
    ConfigError
        If a value is of the wrong type or outside its range.

    Examples
    --------
    >>> StringParameters(m_jj_min=500.0).delta_r_jj_min
    0.4
    >>> StringParameters(channels="flat")
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: channels = "flat": must be "auto" or "chili" or "topology" or a list, each a value
    """

    scale: ScaleName = "H_T/2"
    channels: Literal["auto", "chili", "topology"] | Row[Any] = "auto"  # type: ignore[assignment]
    amplitude: str | Callable[..., Tensor] | None = None
    combinations: Row[str | Row[str]] = ()
    param_card: str = ""
    colour_indices: Row[Row[Row[Natural]]] = ()
    helicity_indices: Row[Row[Finite]] = ()
    delta_r_jj_min: Distance = 0.4
    delta_r_ll_min: NonNegative = 0.4
    delta_r_jl_min: NonNegative = 0.4
    pt_lepton_min: NonNegative = 10.0
    eta_lepton_max: Limit = 2.5
    pt_photon_min: NonNegative = 10.0
    eta_photon_max: Limit = 2.5
    m_ll_min: NonNegative = 0.0
    m_ll_max: Limit = math.inf
    m_jj_min: NonNegative = 0.0
    delta_eta_jj_min: NonNegative = 0.0
    pt_missing_min: NonNegative = 0.0
    alpha_em: Positive = ALPHA_EM
    mass_w: Positive = MASS_W
    width_w: Positive = WIDTH_W
    mass_z: Positive = MASS_Z
    width_z: Positive = WIDTH_Z
    mass_top: Positive = MASS_TOP
    width_top: NonNegative = WIDTH_TOP
    mass_higgs: Positive = MASS_HIGGS
    width_higgs: NonNegative = WIDTH_HIGGS
    mass_bottom: NonNegative = 0.0
    mass_tau: NonNegative = 0.0
    flavours: Literal[3, 4, 5] = 5
    scheme: Scheme = "fixed"
    ckm: Mixing = "unit"
    resonances: Shape = "on_shell"
    cut_decays: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.channels, str):
            channels = self.channels if isinstance(self.channels, list | tuple) else [None]
            if not channels or not all(hasattr(item, "forward") and hasattr(item, "inverse") for item in channels):
                raise ConfigError("channels must be a name or a list of channels, which only Python can give")
        own = {"combinations": self.combinations}
        of_libraries = {name: getattr(self, name) for name in ("param_card", "colour_indices", "helicity_indices")}
        wanting = [] if self.amplitude else [name for name, value in (own | of_libraries).items() if value]
        if not self.is_library:
            wanting += [name for name, value in of_libraries.items() if value and name not in wanting]
        if wanting:
            whose = "a UMAMI library" if self.amplitude else "an amplitude of one's own"
            raise ConfigError(f"{', '.join(wanting)} cannot be given without {whose}")
        if self.mass_bottom and self.flavours > 4:
            raise ConfigError("mass_bottom is for flavours = 3 or 4: bottom quarks in protons have no mass")
        if self.matrix_element != "recursion":
            raise ConfigError('matrix_element must be "recursion" where a process is given by its string')

    @property
    def is_library(self) -> bool:
        """Whether the matrix element is that of a UMAMI library."""
        return isinstance(self.amplitude, str) and self.amplitude.startswith(UMAMI)

    @property
    def model(self) -> StandardModel:
        """The parameters of the Standard Model."""
        own = {item.name for item in fields(self)} - {"ckm"}
        shared = {item.name: getattr(self, item.name) for item in fields(StandardModel) if item.name in own}
        return StandardModel(**shared).on_shell()
