"""Shared libraries with the interface UMAMI: values, legs in another order, selected indices, all misbehaviours."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from compiled import library
from pdf_grids import write_set
from torch import Tensor

from nisampler.errors import AmplitudeError, ConfigError, NisamplerError
from nisampler.processes.amplitudes.own.umami import UmamiLibrary
from nisampler.processes.hadron.process import HadronProcess
from nisampler.processes.phase_space.kinematics import dot
from nisampler.processes.registry import create

UPS = ["u u~ > e+ e-", "c c~ > e+ e-"]
DOWNS = ["d d~ > e+ e-", "s s~ > e+ e-", "b b~ > e+ e-"]
STRING = "p p > e- e+"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("libraries")
    write_set(place)
    return place


def made(folder: Path, *definitions: str, process: str = STRING, **parameters: Any) -> HadronProcess:
    pdf = {} if process.startswith("e") else {"pdf": str(folder / "toyset" / "toyset_0000.dat")}
    given = pdf | {"combinations": [UPS, DOWNS], "pt_lepton_min": 5.0, "scale": 91.2, "cuts": ["m(e+, e-) > 30"]}
    found = create(f"umami:{library(folder, *definitions)} {process}", **(given | parameters))
    assert isinstance(found, HadronProcess)
    return found


def points(process: HadronProcess, n: int = 200) -> tuple[Tensor, Tensor]:
    u = torch.rand(n, process.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    p = process.momenta(u)
    return process._incoming(process.fractions(p)), p


def expected(quark: Tensor, positron: Tensor, other: Tensor, charge: float) -> Tensor:
    """|M|² of the toy from the quark, its antiquark's partner legs in the order of the library."""
    t, u = dot(quark, positron), dot(quark, other)
    s = t + u
    return 2 * (4 * math.pi / 137) ** 2 * charge**2 * (t**2 + 2 * u**2) / (3 * s**2)


def test_values_with_legs_in_the_order_of_the_library(folder: Path) -> None:
    process = made(folder)
    amplitude = process.setup.amplitude
    # The library knows up-type and down-type quarks, each with either beam.
    assert len(amplitude.subprocesses) == 10 and amplitude.elements == 4
    incoming, outgoing = points(process)
    alpha_s = torch.linspace(0.1, 0.2, len(outgoing), dtype=torch.float64)
    squared = amplitude.squared(incoming, outgoing, alpha_s)
    for item in amplitude.subprocesses:
        quark = incoming[:, 0 if item.initial[0] > 0 else 1]
        charge = -1 / 3 if item.initial[0] % 2 else 2 / 3
        value = (1 + alpha_s) * expected(quark, outgoing[:, 1], outgoing[:, 0], charge)
        torch.testing.assert_close(squared[:, item.element], value, rtol=1e-9, atol=0)
    assert process.setup.nominal is None, "its dependence on the strong coupling is no power"


def test_a_string_of_one_combination_needs_no_list(folder: Path) -> None:
    process = made(folder, process="u u~ > e+ e-", combinations=[])
    assert [item.initial for item in process.setup.amplitude.subprocesses] == [(2, -2)]


def test_beams_of_leptons_at_fixed_energy(folder: Path) -> None:
    process = made(folder, process="e- e+ > mu+ mu-", combinations=[], sqrt_s=50.0, cuts=[])
    u = torch.rand(20_000, process.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    values = process(u)
    wide = made(folder, "FACTOR=2.0", process="e- e+ > mu+ mu-", combinations=[], sqrt_s=50.0, cuts=[])
    assert values.mean() > 0 and torch.allclose(wide(u), 2 * values)


def test_indices_that_it_selects_stand_in_the_records(folder: Path) -> None:
    tags, spins = [[[501, 0], [0, 501], [0, 0], [0, 0]]], [[-1, 1, -1, 1], [1, -1, 1, -1]]
    process = made(folder, colour_indices=tags, helicity_indices=spins)
    u = torch.rand(4000, process.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    u = u[process(u) > 0]
    batch = process.events(u, torch.ones(len(u)), torch.Generator().manual_seed(1))
    first = batch.pdg_ids[:, 0] > 0
    assert (batch.colours[first][:, :2] == [[501, 0], [0, 501]]).all()
    assert (batch.colours[~first][:, :2] == [[0, 501], [501, 0]]).all()
    electron = (batch.pdg_ids == 11) & (batch.status == 1)
    quark = torch.from_numpy(batch.pdg_ids > 0).double()[:, 0]
    found = batch.spins[electron]
    assert set(found.tolist()) == {1.0, -1.0} and 0.2 < (found == 1).mean() < 0.3
    assert (batch.spins[:, 0] == -batch.spins[:, 1]).all() and 0.1 < float(quark.mean()) < 0.9
    alone = made(folder, helicity_indices=spins).events(u[:200], torch.ones(200), torch.Generator().manual_seed(1))
    assert set(alone.spins[alone.status == -1].tolist()) == {1.0, -1.0}
    assert (alone.colours == batch.colours[:200]).all()
    with pytest.raises(AmplitudeError, match="selects the index 1 of 1"):
        made(folder, helicity_indices=spins[:1]).events(u, torch.ones(len(u)), torch.Generator().manual_seed(1))
    with pytest.raises(ConfigError, match="selects no helicities, so that"):
        made(folder, "KEYS=3", helicity_indices=spins)
    plain = made(folder).events(u[:50], torch.ones(50), torch.Generator().manual_seed(1))
    assert (plain.spins == 9).all() and (plain.colours[:, :2].sum(2) == 501).all()


LIBRARIES: dict[str, tuple[list[str], dict[str, Any], type[NisamplerError], str]] = {
    "on a GPU": (["DEVICE=1"], {}, AmplitudeError, "computes on a GPU"),
    "more particles": (["PARTICLES=5"], {}, AmplitudeError, "has 5 particles, 'p p > e- e\\+' has 4"),
    "no start": (["BEGIN=1"], {}, AmplitudeError, "umami_initialize .*param_card.* failed with status 1: an error"),
    "status": (
        ["STATUS=7"],
        {},
        AmplitudeError,
        "umami_matrix_element failed with status 7: an input that",
    ),
    "unknown status": (["STATUS=42"], {}, AmplitudeError, "status 42: unknown"),
    "not a number": (["FACTOR=NAN"], {}, AmplitudeError, "is not finite at 3 of 3 points of '"),
    "zero": (["FACTOR=0.0"], {}, AmplitudeError, "vanishes for every combination"),
    "newer": (["REQUIRED=17"], {}, AmplitudeError, "needs input 17 of a newer version of the interface"),
    "sampled": (["REQUIRED=4"], {}, AmplitudeError, "needs a random number for helicity"),
    "card": ([], {"param_card": "nowhere.dat"}, ConfigError, "there is no param_card 'nowhere.dat'"),
    "masses": (["MASS=1.777"], {}, ConfigError, "a mass of 1.777 GeV for e-, the card one of 0"),
    "no list": ([], {"combinations": []}, AmplitudeError, "stands for 5 combinations of flavours .*'u u~ > e- e\\+'"),
    "another process": ([], {"combinations": ["u u~ > mu+ mu-"]}, AmplitudeError, "is no combination of 'p p > e- e"),
    "labels": ([], {"combinations": ["p p > e+ e-"]}, AmplitudeError, "must name one particle for each leg"),
    "twice": ([], {"combinations": [UPS, UPS]}, AmplitudeError, "is listed twice"),
    "unknown particle": ([], {"combinations": ["u u~ > x y"]}, AmplitudeError, "unknown particle 'x'"),
    "colours": (
        [],
        {"colour_indices": [[[501, 0]]]},
        ConfigError,
        r"row of shape \(4, 2\) .* got \(1, 2\)",
    ),
    "ragged": ([], {"helicity_indices": [[1.0], [1.0, 2.0]]}, ConfigError, "must have a row of shape"),
    "no colours": (["KEYS=3"], {"colour_indices": [[[501, 0], [0, 501], [0, 0], [0, 0]]]}, ConfigError, "no colours"),
    "named twice": ([], {"amplitude": "umami:x.so"}, ConfigError, "names its matrix element itself"),
}


@pytest.mark.parametrize("name", LIBRARIES)
def test_what_a_library_must_not_do(folder: Path, name: str) -> None:
    definitions, parameters, error, message = LIBRARIES[name]
    with pytest.raises(error, match=message):
        made(folder, *definitions, **parameters)


def test_derivatives_are_refused(folder: Path) -> None:
    process = made(folder)
    incoming, outgoing = points(process, 3)
    alpha_s = torch.full((3,), 0.118, dtype=torch.float64)
    with pytest.raises(AmplitudeError, match="has no derivatives"):
        process.setup.amplitude.squared(incoming, outgoing.requires_grad_(), alpha_s)
    with torch.no_grad():
        assert bool((process.setup.amplitude.squared(incoming, outgoing, alpha_s) > 0).all())


def test_what_is_no_library(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(AmplitudeError, match="there is no matrix element"):
        create("umami:nowhere.so p p > e- e+")
    (tmp_path / "text.so").write_text("no library")
    with pytest.raises(AmplitudeError, match=r"text\.so cannot be loaded as a shared library"):
        UmamiLibrary(tmp_path / "text.so")
    other = library(tmp_path, "umami_initialize=begin", "umami_free=end")
    with pytest.raises(AmplitudeError, match="is no UMAMI library of version 1: it lacks umami_initialize, umami_free"):
        UmamiLibrary(other)
    for text in ("umami: p p > e- e+", "umami:lib.so", "umami:lib.so p > e- e+"):
        with pytest.raises(AmplitudeError, match=r"read 'umami:libX\.so p p > e- e"):
            create(text)
    for key in ("param_card", "combinations"):
        with pytest.raises(ConfigError, match=f"{key} cannot be given without an amplitude of one's own"):
            create(STRING, **{key: "card.dat" if key == "param_card" else ["u u~ > e- e+"]})
    with pytest.raises(ConfigError, match="param_card cannot be given without a UMAMI library"):
        create(STRING, param_card="card.dat", amplitude="mine.py:squared")
