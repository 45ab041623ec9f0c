"""Processes of leptons and photons at fixed energy: cross-sections in closed form, records, errors."""

from __future__ import annotations

import math

import pytest
import torch

import nisampler
from nisampler.errors import AmplitudeError, ConfigError, NisamplerError, PdfError
from nisampler.processes.constants import GEV2_PB
from nisampler.processes.hadron.process import HadronProcess
from nisampler.processes.parameters import StandardModel
from nisampler.processes.partons.alpha_s import RunningAlphaS
from nisampler.processes.partons.point_beams import PointBeams
from nisampler.processes.registry import create

NO_CUTS = {"pt_lepton_min": 0.0, "eta_lepton_max": math.inf, "delta_r_ll_min": 0.0}


def test_higgs_strahlung_is_that_in_closed_form() -> None:
    # Higgs Hunter's Guide, equation 4.13 in lowest order; G_F from the couplings.
    model, root = StandardModel().on_shell(), 240.0
    z, h, s = model.mass_z**2, model.mass_higgs**2, root**2
    sine = model.sin2_theta_w
    fermi = math.pi * model.alpha_em / (math.sqrt(2) * sine * (1 - sine) * z)
    beta = math.sqrt((1 - (z + h) / s) ** 2 - 4 * z * h / s**2)
    couplings = 1 + (1 - 4 * sine) ** 2
    known = fermi**2 * z**2 / (96 * math.pi * s) * couplings * beta * (beta**2 + 12 * z / s) / (1 - z / s) ** 2
    estimate = nisampler.integrate(
        create("e+ e- > z h", sqrt_s=root, scheme="zero"), calls=5000, seed=3, progress=False
    ).estimate
    assert abs(estimate.value - known * GEV2_PB) < 4 * estimate.error
    assert estimate.error < 2e-3 * estimate.value


def test_muon_pairs_of_photons_alone() -> None:
    root = 5.0
    estimate = nisampler.integrate(
        create("e- e+ > mu- mu+", sqrt_s=root, **NO_CUTS), calls=5000, seed=3, progress=False
    ).estimate
    known = 4 * math.pi * StandardModel().alpha_em ** 2 / (3 * root**2) * GEV2_PB
    assert estimate.value == pytest.approx(known, rel=1e-3)


def test_records_have_no_densities() -> None:
    process = create("e+ e- > mu+ mu- h", sqrt_s=240.0)
    assert isinstance(process, HadronProcess)
    u = torch.rand(2000, process.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    u = u[process(u) > 0]
    batch = process.events(u, torch.ones(len(u)), torch.Generator().manual_seed(1))
    assert process.beams.pdg_ids == (-11, 11) and process.beams.energies == (120.0, 120.0)
    assert (batch.pdg_ids[:, :2] == [-11, 11]).all() and (batch.pdf_x == 0).all()
    assert batch.momenta[:, :2, 0] == pytest.approx(120.0, rel=1e-12)
    assert batch.momenta[:, 0, 3] == pytest.approx(120.0, rel=1e-12)
    assert list(process.event_groups.values()) == ["e+ e- > mu+ mu- H"]


def test_resonances_that_are_rare_keep_their_channel() -> None:
    # Of nu nu h at 1 TeV four per mille come from a narrow Z.
    process = create("e+ e- > ve ve~ h", sqrt_s=1000.0)
    assert isinstance(process, HadronProcess)
    assert len(process.setup.channels) == 2


BAD: dict[str, tuple[type[NisamplerError], dict[str, float | str], str]] = {
    "e+ e- > w+ w-": (ConfigError, {}, "needs sqrt_s"),
    "e+ e- > z z": (ConfigError, {"sqrt_s": 200.0, "pdf": "CT18NLO"}, "no use for pdf"),
    "e+ e- > z h": (ConfigError, {"sqrt_s": 200.0}, "at least 216.*sqrt_s is 200"),
    "e- p > e- j": (AmplitudeError, {"sqrt_s": 300.0}, "beams are two protons"),
    "ve ve~ > w+ w-": (AmplitudeError, {"sqrt_s": 300.0}, "charged leptons or photons"),
    "l- a > l- a": (AmplitudeError, {"sqrt_s": 300.0}, "each of one kind"),
}


@pytest.mark.parametrize("name", BAD)
def test_errors_say_what_is_wrong(name: str) -> None:
    kind, parameters, message = BAD[name]
    with pytest.raises(kind, match=message):
        create(name, **parameters)


def test_beams_have_no_other_particles() -> None:
    with pytest.raises(PdfError, match=r"have no mu-"):
        PointBeams((11, -11), RunningAlphaS(0.118)).column(13)
