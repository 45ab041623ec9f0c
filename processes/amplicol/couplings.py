"""The external parameters of pyamplicol's Standard Model that reproduce ours exactly."""

from __future__ import annotations

import math
from typing import Literal

from nisampler.errors import AmplitudeError
from nisampler.processes.amplitudes.strings import ProcessLegs
from nisampler.processes.constants import ALPHA_S, HIGGS, W_BOSON, Z_BOSON
from nisampler.processes.parameters import StandardModel
from nisampler.processes.particles import is_lepton, thrice_charge

HeavyBoson = Literal["W", "Z"]


def exact_boson(legs: ProcessLegs) -> HeavyBoson | None:
    """The one heavy boson of a process whose mass matters, or None if both do.

    pyamplicol's model takes alpha, G_F and m_Z and derives m_W and the mixing angle, so only one of the two masses
    can be chosen freely beside alpha and the angle. With a single W and no Z the other one does not enter.

    >>> from nisampler.processes.amplitudes.strings import parse_process
    >>> exact_boson(parse_process("p p > e+ ve")), exact_boson(parse_process("p p > e+ e-"))
    ('W', 'Z')
    """
    colourless = legs.electroweak
    leptons = [code for code in colourless if is_lepton(code)]
    bosons = [code for code in colourless if abs(code) in (W_BOSON, Z_BOSON, HIGGS)]
    charge = sum(map(thrice_charge, colourless))
    if abs(charge) == 3 and (len(leptons), len(bosons)) in ((2, 0), (0, 1)):
        return "W"
    charged = sum(code % 2 for code in leptons)
    neutral = charge == 0 and W_BOSON not in map(abs, bosons) and (len(leptons) == 2 or charged == len(leptons))
    return "Z" if neutral else None


def model_parameters(model: StandardModel, boson: HeavyBoson) -> dict[str, float]:
    """Values of pyamplicol's external parameters with alpha, sin^2(theta_W), the widths and one mass as in `model`.

    The other heavy mass follows from m_W = m_Z cos(theta_W). With G_F = pi alpha / (sqrt(2) m_W^2 sin^2) the model's
    own m_W^2 = m_Z^2/2 + sqrt(m_Z^4/4 - pi alpha m_Z^2 / (sqrt(2) G_F)) gives back the wanted value for sin^2 < 1/2.

    Parameters
    ----------
    model
        Couplings, masses and widths.
    boson
        Whose mass is that of `model`.

    Raises
    ------
    AmplitudeError
        If sin^2(theta_W) is not below 1/2, where the model's relation has another solution.

    Examples
    --------
    >>> round(model_parameters(StandardModel(), "Z")["MZ"], 4)
    91.1876
    """
    sine2 = model.sin2_theta_w
    if sine2 >= 0.5:
        raise AmplitudeError(f"pyamplicol's Standard Model needs sin2_theta_w below 1/2, got {sine2}")
    mass_w = model.mass_w if boson == "W" else model.mass_z * math.sqrt(1 - sine2)
    return {
        "aEWM1": 1 / model.alpha_em,
        "Gf": math.pi * model.alpha_em / (math.sqrt(2) * mass_w**2 * sine2),
        "MZ": mass_w / math.sqrt(1 - sine2),
        "WZ": model.width_z,
        "WW": model.width_w,
        "MT": model.mass_top,
        "ymt": model.mass_top,
        "WT": 0.0,
        "aS": ALPHA_S,
    }
