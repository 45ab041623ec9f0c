"""How the parts of a hadron process become one: densities, scales and couplings from its card, the rest as given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from nisampler.density.maps import Channel
from nisampler.processes.amplitudes.protocol import Amplitude
from nisampler.processes.hadron.cuts import Cut, Cuts
from nisampler.processes.hadron.cuts.texts import cuts_of
from nisampler.processes.hadron.events import FinalState
from nisampler.processes.hadron.legs import Legs
from nisampler.processes.hadron.lhc_parameters import CollisionParameters
from nisampler.processes.hadron.observables import hadron_observables
from nisampler.processes.hadron.process import HadronSetup
from nisampler.processes.hadron.scales import make_scales
from nisampler.processes.parameters import StandardModel
from nisampler.processes.partons.alpha_s import RunningAlphaS
from nisampler.processes.partons.luminosity import Pdf
from nisampler.processes.partons.pdf import load_pdf
from nisampler.processes.partons.point_beams import PointBeams
from nisampler.processes.partons.variations import Nominal


@dataclass(frozen=True)
class Parts:
    """What a process has of its own.

    Attributes
    ----------
    name
        Of the process.
    amplitude, final_state, cuts
        As `HadronSetup` takes them.
    channels, groups, prior
        The same; by default every channel has a flow of its own.
    alpha_s_power
        Power of the strong coupling in |M|², None where there is more than one.
    shown
        Masses in GeV between which the report shows that of a boson or of a heavy pair.

    Examples
    --------
    >>> from dataclasses import fields
    >>> len(fields(Parts))
    9
    """

    name: str
    amplitude: Amplitude
    final_state: FinalState
    cuts: Cuts
    channels: Sequence[Channel]
    groups: Sequence[int] | None = None
    prior: Callable[[Tensor], Tensor] | None = None
    alpha_s_power: int | None = None
    shown: tuple[float, float] = (1.0, 1000.0)


def wired(parts: Parts, card: CollisionParameters, model: StandardModel, pdf: Pdf | None = None) -> HadronSetup:
    """All of a hadron process.

    Parameters
    ----------
    parts
        What it has of its own.
    card
        Densities, scales, couplings.
    model
        Masses that scales have their names from, and the electromagnetic coupling.
    pdf
        Beams; by default protons with the densities of the card.

    Raises
    ------
    ConfigError
        If there is no scale of the name in the card.
    PdfError, MissingExtraError
        If the densities are missing.

    Examples
    --------
    `nisampler.processes.hadron.lhc` and `nisampler.processes.standard_model` wire theirs with it.

    >>> wired.__name__
    'wired'
    """
    state = parts.final_state
    constants = {"m_Z": model.mass_z, "m_W": model.mass_w, "m_t": model.mass_top, "m_H": model.mass_higgs}
    legs = [item.legs for item in state.decays] + [(leg,) for leg, mass in enumerate(state.masses) if mass]
    heavy = [own for own in legs if not any({*own} < {*other} for other in legs)]
    known = parts.alpha_s_power is not None and not isinstance(pdf, PointBeams)
    return HadronSetup(
        name=parts.name,
        final_state=state,
        amplitude=parts.amplitude,
        pdf=load_pdf(card.pdf) if pdf is None else pdf,
        scales=make_scales(card.scale, heavy, constants, (card.mu_r_factor, card.mu_f_factor)),
        cuts=parts.cuts,
        channels=parts.channels,
        groups=parts.groups,
        prior=parts.prior,
        alpha_s=running_coupling(card),
        alpha_em=model.alpha_em,
        elements=card.elements,
        nominal=Nominal(card.pdf, parts.alpha_s_power or 0, card.alpha_s, card.alpha_s_loops) if known else None,
        observables=hadron_observables(state, parts.shown, card.pt_jet_min, card.eta_jet_max),
    )


def running_coupling(card: CollisionParameters) -> RunningAlphaS | None:
    """The strong coupling of a card, None where it is that of the parton densities.

    >>> running_coupling(CollisionParameters()) is None
    True
    """
    return None if card.alpha_s is None else RunningAlphaS(card.alpha_s, loops=card.alpha_s_loops)


def all_cuts(cuts: Sequence[Cut], legs: Legs, card: CollisionParameters) -> Cuts:
    """Cuts of a process with those that its card adds as text; raises as `cuts_of` and `Cuts` do.

    >>> legs = Legs([(11, -11)], (0.0, 0.0))
    >>> len(all_cuts([], legs, CollisionParameters(cuts=["m(e+, e-) > 60"])).cuts)
    1
    """
    return Cuts([*cuts, *cuts_of(card.cuts, legs, card.sqrt_s)], card.sqrt_s)
