"""Functions of one's own as matrix elements: combinations, equal ones, flows, and what they must not return."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pdf_grids import write_set
from torch import Tensor

from nisampler.errors import AmplitudeError, ConfigError, NisamplerError, UnknownProcessError
from nisampler.processes.amplitudes.own.functions import OwnAmplitude, possible_lines
from nisampler.processes.amplitudes.recursion.matrix_element import MatrixElement
from nisampler.processes.amplitudes.recursion.model import Couplings
from nisampler.processes.hadron.process import HadronProcess
from nisampler.processes.parameters import StandardModel
from nisampler.processes.phase_space import MomentumFractions, PowerLaw, TopologyChannel
from nisampler.processes.phase_space.topology import Cluster
from nisampler.processes.registry import create

COUPLINGS = Couplings(StandardModel().on_shell().without_mixing())
Codes = tuple[int, ...]


def standard(momenta: Tensor, alpha_s: Tensor, codes: Codes) -> Tensor:
    """The Standard Model itself, of the powers that strings without limits have."""
    strong = {1} if len(codes) == 5 else {2} if codes[2] == 6 else {0}
    return MatrixElement(codes[:2], codes[2:], COUPLINGS, strong).squared(momenta, alpha_s)


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_set(tmp_path_factory.mktemp("grids")) / "toyset_0000.dat")


def made(process: str, grid: str, **parameters: Any) -> HadronProcess:
    found = create(process, pdf=grid, **parameters)
    assert isinstance(found, HadronProcess)
    return found


@pytest.mark.parametrize(("process", "power"), [("p p > e- e+ j", 1), ("p p > t t~", 2), ("p p > w+ w-", 0)])
def test_the_standard_model_by_a_function_is_the_standard_model(process: str, power: int, grid: str) -> None:
    ours, own = made(process, grid), made(process, grid, amplitude=standard, flavours=5)
    u = torch.rand(300, ours.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    p = ours.momenta(u)
    torch.testing.assert_close(own.differential(p), ours.differential(p), rtol=1e-9, atol=0)
    assert own.setup.nominal is not None and own.setup.nominal.alpha_s_power == power
    names = [channel.name for channel in ours.multichannel.channels]
    assert sorted(channel.name for channel in own.multichannel.channels) == sorted(names)
    inside = u[ours(u) > 0][:100]
    batch = own.events(inside, torch.ones(len(inside)), torch.Generator().manual_seed(1))
    coloured = (batch.pdg_ids == 21) | ((abs(batch.pdg_ids) > 0) & (abs(batch.pdg_ids) < 7))
    assert ((batch.colours.sum(2) > 0) == coloured).all()


def test_what_the_standard_model_does_not_have(grid: str) -> None:
    """Four charged leptons of two kinds from quarks that change flavour: no diagram, one plain channel, all flows."""
    listed = ["u c~ > e- e+", "c u~ > e- e+"]

    def changing(momenta: Tensor, alpha_s: Tensor, codes: Codes) -> Tensor:
        return torch.ones_like(alpha_s)

    process = made("p p > e- e+", grid, amplitude=changing, combinations=listed, cuts=["m(e+, e-) > 50"])
    assert {item.initial for item in process.setup.amplitude.subprocesses} == {(2, -4), (-4, 2), (4, -2), (-2, 4)}
    assert len(process.multichannel.channels) == 1
    u = torch.rand(2000, process.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    values = process(u)
    assert int((values > 0).sum()) > 100
    batch = process.events(u[values > 0], torch.ones(int((values > 0).sum())), torch.Generator().manual_seed(1))
    assert (batch.colours[:, :2].sum((1, 2)) == 1002).all()
    assert process.setup.nominal is not None and process.setup.nominal.alpha_s_power == 0


def test_small_values_are_values(grid: str) -> None:
    """Matrix elements of many legs are small numbers in GeV."""

    def small(momenta: Tensor, alpha_s: Tensor, codes: Codes) -> Tensor:
        return 1e-40 * alpha_s * (0.0 if abs(codes[0]) % 2 else 1.0)

    amplitude = OwnAmplitude("p p > e- e+", small, COUPLINGS)
    assert {item.initial for item in amplitude.subprocesses} == {(2, -2), (-2, 2), (4, -4), (-4, 4)}


def test_channels_of_ones_own(grid: str) -> None:
    channel = TopologyChannel(Cluster(0, 1), (0.0, 0.0), MomentumFractions(13000.0, 60.0, PowerLaw(2.0)), name="mine")
    window = {"cuts": ["m(e+, e-) > 60"], "pt_lepton_min": 0.0, "eta_lepton_max": math.inf}
    process = made("p p > e- e+", grid, amplitude=standard, channels=[channel], **window)
    assert process.multichannel.channels[0].name == "mine"
    others = made("p p > e- e+", grid, **window)
    u = torch.rand(40_000, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    values, wanted = (
        process(u),
        others(torch.rand(40_000, others.dim, dtype=torch.float64, generator=torch.Generator())),
    )
    error = math.hypot(float(values.std()), float(wanted.std())) / 200
    assert abs(float(values.mean() - wanted.mean())) < 4 * error < 0.2 * float(values.mean())


def test_all_ways_to_join_colours() -> None:
    assert len(possible_lines((21, 21, 21, 21))) == 9, "six in one circle, three in two pairs"
    with pytest.raises(AmplitudeError, match="'u u > e- e-' does not conserve colour"):
        possible_lines((2, 2, 11, 11))


WRONG: dict[str, tuple[Any, str]] = {
    "shape": (lambda p, alpha_s, codes: torch.ones(2, 2), r"must return a tensor \(3,\), got \(2, 2\)"),
    "no tensor": (lambda p, alpha_s, codes: 1.0, r"must return a tensor \(3,\), got float"),
    "not finite": (lambda p, alpha_s, codes: alpha_s / 0, "is not finite at 3 of 3 points of 'd d~ > e- e"),
    "error": (lambda p, alpha_s, codes: 1 / 0, "failed for 'd d~ > e- e.': ZeroDivisionError"),
    "arguments": (lambda p: p, "failed for 'd d~ > e- e.': TypeError"),
    "zero": (lambda p, alpha_s, codes: 0 * alpha_s, "vanishes for every combination of 'p p > e- e"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_a_function_must_not_do(name: str) -> None:
    function, message = WRONG[name]
    with pytest.raises(AmplitudeError, match=message):
        OwnAmplitude("p p > e- e+", function, COUPLINGS)


BAD: dict[str, tuple[str, dict[str, Any], type[NisamplerError], str]] = {
    "charge": ("u d > e+ e-", {}, AmplitudeError, "conserves charge, .*: charge is 1/3 before, 0 after"),
    "decays": (
        "p p > t t~, t > w+ b",
        {},
        AmplitudeError,
        "has decays; a matrix element of one's own",
    ),
    "particle": ("p p > x y", {}, AmplitudeError, "unknown particle 'x'"),
    "file": ("p p > e- e+", {"amplitude": "nowhere.py:f"}, UnknownProcessError, "no file 'nowhere.py'"),
    "name": ("p p > e- e+", {"amplitude": "squared"}, UnknownProcessError, "write file.py:function"),
    "channels": ("p p > e- e+", {"channels": []}, ConfigError, "or a list of channels"),
    "channel": ("p p > e- e+", {"channels": [3]}, ConfigError, "or a list of channels"),
}


@pytest.mark.parametrize("name", BAD)
def test_errors_say_what_is_wrong(name: str) -> None:
    process, parameters, error, message = BAD[name]
    with pytest.raises(error, match=message):
        create(process, **({"amplitude": standard} | parameters))


def test_points_that_are_not_finite_later(grid: str) -> None:
    def edge(momenta: Tensor, alpha_s: Tensor, codes: Codes) -> Tensor:
        return torch.where(momenta[:, 2, 0] < 30.0, math.nan, 1.0).to(momenta)

    with pytest.raises(AmplitudeError, match=r"edge is not finite at \d+ of \d+ points"):
        made("p p > e- e+", grid, amplitude=edge)


def test_a_function_of_a_file(tmp_path: Path, grid: str) -> None:
    (tmp_path / "mine.py").write_text("def flat(p, alpha_s, codes):\n    return alpha_s**3\n")
    process = made("p p > e- e+", grid, amplitude=f"{tmp_path}/mine.py:flat")
    assert process.setup.nominal is not None and process.setup.nominal.alpha_s_power == 3
