"""Cuts given by text: each against its definition, what they tell of the region, and what cannot be read."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nisampler.errors import ConfigError, NisamplerError, ProcessError, UnknownProcessError
from nisampler.processes.hadron.cuts import Cuts, LeadingPairCut, MassCut, PseudorapidityCut, TransverseMomentumCut
from nisampler.processes.hadron.cuts.texts import cuts_of
from nisampler.processes.hadron.legs import Legs
from nisampler.processes.phase_space.kinematics import delta_phi, delta_r, eta, mass, pt, rapidity
from nisampler.processes.standard_model.channels import Region

SQRT_S = 13000.0
# e+ ve mu- j j j, the last leg a top quark.
LEGS = Legs([(-11, 12, 13, 21, 21, 21, 6), (-11, 12, 13, 1, 2, 2, 6)], (0.0,) * 6 + (173.0,))


def momenta(n: int = 4000) -> Tensor:
    space = 60 * torch.randn(n, 7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    masses = torch.tensor(LEGS.masses, dtype=torch.float64)
    return torch.cat([(space.square().sum(-1) + masses.square()).sqrt().unsqueeze(-1), space], -1)


def jets(p: Tensor, rank: int) -> Tensor:
    """The jet of this rank, event by event."""
    rows = [max_of(row[3:6], rank) for row in p]
    return torch.stack(rows)


def max_of(row: Tensor, rank: int) -> Tensor:
    return sorted(row, key=lambda leg: -float(pt(leg)))[rank - 1]


def transverse_mass(p: Tensor) -> Tensor:
    a, b = p[:, 0], p[:, 1]
    return (2 * pt(a) * pt(b) * (1 - torch.cos(delta_phi(a, b)))).sqrt()


CASES: dict[str, Callable[[Tensor], Tensor]] = {
    "pt(e+) > 60": lambda p: pt(p[:, 0]) > 60,
    "60 < pt(e+)": lambda p: pt(p[:, 0]) > 60,
    "PT(l) >= 30": lambda p: (pt(p[:, [0, 2]]) > 30).all(1),
    "pt(j) < 150": lambda p: (pt(p[:, 3:6]) < 150).all(1),
    "pt(j1) > 100": lambda p: pt(p[:, 3:6]).amax(1) > 100,
    "pt(j1) < 100": lambda p: pt(p[:, 3:6]).amax(1) < 100,
    "pt(j3) > 20": lambda p: pt(p[:, 3:6]).amin(1) > 20,
    "pt(j2) in [50, 90]": lambda p: (pt(jets(p, 2)) > 50) & (pt(jets(p, 2)) < 90),
    "pt(e+, ve) > 80": lambda p: pt(p[:, 0] + p[:, 1]) > 80,
    "abs(eta(j)) < 1.5": lambda p: (eta(p[:, 3:6]).abs() < 1.5).all(1),
    "|eta(t)| < 0.5": lambda p: eta(p[:, 6]).abs() < 0.5,
    "eta(e+) > -0.3": lambda p: eta(p[:, 0]) > -0.3,
    "-1 < y(t) < 0.5": lambda p: (rapidity(p[:, 6]) > -1) & (rapidity(p[:, 6]) < 0.5),
    "0.5 > y(t) > -1": lambda p: (rapidity(p[:, 6]) > -1) & (rapidity(p[:, 6]) < 0.5),
    "m(e+, mu-) in [66, 116]": lambda p: (mass(p[:, 0] + p[:, 2]) > 66) & (mass(p[:, 0] + p[:, 2]) < 116),
    "m(j, j) > 40": lambda p: torch.stack([mass(p[:, a] + p[:, b]) > 40 for a, b in ((3, 4), (3, 5), (4, 5))]).all(0),
    "m(j1, j2) > 200": lambda p: mass(jets(p, 1) + jets(p, 2)) > 200,
    "m(all) < 900": lambda p: torch.ones(len(p), dtype=torch.bool),
    "sqrt_shat < 900": lambda p: mass(p.sum(1)) < 900,
    "mt(e+, ve) > 50": lambda p: transverse_mass(p) > 50,
    "e(t) < 200": lambda p: p[:, 6, 0] < 200,
    "dr(j, l) > 0.7": lambda p: (delta_r(p[:, 3:6, None], p[:, None, [0, 2]]) > 0.7).flatten(1).all(1),
    "dr(j, j) > 0.7": lambda p: torch.stack([delta_r(p[:, a], p[:, b]) > 0.7 for a, b in ((3, 4), (3, 5), (4, 5))]).all(
        0
    ),
    "dr(j1, e+) < 3": lambda p: delta_r(jets(p, 1), p[:, 0]) < 3,
    "deta(j1, j2) > 0.5": lambda p: (eta(jets(p, 1)) - eta(jets(p, 2))).abs() > 0.5,
    "dy(t, j1) < 1": lambda p: (rapidity(p[:, 6]) - rapidity(jets(p, 1))).abs() < 1,
    "dphi(e+, mu-) > 2": lambda p: delta_phi(p[:, 0], p[:, 2]).abs() > 2,
    "met > 80": lambda p: pt(p[:, 1]) > 80,
    "met < 80": lambda p: pt(p[:, 1]) < 80,
    "ht > 240": lambda p: pt(p[:, 3:6]).sum(1) > 240,
    "ht(j, l) > 400": lambda p: pt(p[:, [0, 2, 3, 4, 5]]).sum(1) > 400,
}


@pytest.mark.parametrize("text", CASES)
def test_texts_are_their_definitions(text: str) -> None:
    p = momenta()
    found = Cuts(cuts_of([text], LEGS, SQRT_S), SQRT_S).mask(p)
    wanted = (mass(p) < 900).all(1) if text == "m(all) < 900" else CASES[text](p)
    assert torch.equal(found, wanted)
    assert 0 < int(found.sum()) < len(p) or text == "m(all) < 900"


DECAYS = Legs(
    [(5, -11, 12, -5, 13, -14, 21)], (0.0,) * 7, [(6, (0, 1, 2)), (-6, (3, 4, 5)), (24, (1, 2)), (-24, (4, 5))]
)
OF_DECAYS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "pt(t) > 60": lambda p, t, s: (pt(t) > 60) & (pt(s) > 60),
    "pt(t1) > 100": lambda p, t, s: torch.maximum(pt(t), pt(s)) > 100,
    "abs(y(t~)) < 0.4": lambda p, t, s: rapidity(s).abs() < 0.4,
    "300 < m(t, t~) < 500": lambda p, t, s: (mass(t + s) > 300) & (mass(t + s) < 500),
    "m(w+) > 100": lambda p, t, s: mass(p[:, 1] + p[:, 2]) > 100,
    "dphi(t, g) > 2": lambda p, t, s: (delta_phi(t, p[:, 6]).abs() > 2) & (delta_phi(s, p[:, 6]).abs() > 2),
    "ht(t, g) > 250": lambda p, t, s: pt(t) + pt(s) + pt(p[:, 6]) > 250,
}


@pytest.mark.parametrize("text", OF_DECAYS)
def test_particles_that_decay_have_names(text: str) -> None:
    p = momenta()
    top, other = p[:, :3].sum(1), p[:, 3:6].sum(1)
    found = Cuts(cuts_of([text], DECAYS, SQRT_S), SQRT_S).mask(p)
    assert torch.equal(found, OF_DECAYS[text](p, top, other)) and 0 < int(found.sum()) < len(p)
    window = Cuts(cuts_of(["m(t, t~) < 500"], DECAYS, SQRT_S), SQRT_S).mass_windows()
    assert window == {(0, 1, 2, 3, 4, 5): (0.0, 500.0)}


def test_kinds_of_their_own_know_contradictions() -> None:
    texts = ["pt(j3) > 20", "abs(eta(l)) < 2", "m(e+, mu-) > 5"]
    assert [type(cut) for cut in cuts_of(texts, LEGS, SQRT_S)] == [TransverseMomentumCut, PseudorapidityCut, MassCut]
    two = Legs([(21, 21)], (0.0, 0.0))
    assert cuts_of(["500 < m(j1, j2) < 900"], two, SQRT_S) == [MassCut((0, 1), 500.0, 900.0)]
    assert cuts_of(["deta(j2, j1) > 2.5"], LEGS, SQRT_S) == [LeadingPairCut((3, 4, 5), delta_eta=2.5)]


def test_regions_know_what_the_texts_say() -> None:
    def region(*texts: str) -> Region:
        return Region.of(Cuts(cuts_of(texts, LEGS, SQRT_S), SQRT_S), LEGS.masses)

    assert region("pt(j3) > 20", "pt(e+) > 50", "met > 30").pt_min == (50.0, 30.0, 0.0, 20.0, 20.0, 20.0, 0.0)
    assert region("66 < m(e+, mu-) < 116").mass_min == {(0, 2): 66.0}
    assert region("66 < m(e+, mu-) < 116").mass_max == {(0, 2): 116.0}
    assert region("pt(j) > 20", "dr(j, j) > 0.4").mass_min[3, 4] == pytest.approx(20 * math.sqrt(2 - 2 * math.cos(0.4)))
    assert region("ht > 700").least_energy == pytest.approx(700.0)
    assert region("m(j1, j2) > 700").mass_min == {(3, 4, 5): 700.0}


WRONG: dict[str, tuple[type[NisamplerError], str]] = {
    "pt(mu+) > 25": (ConfigError, r"cut 'pt\(mu\+\) > 25': no leg is always 'mu\+'; there are e\+, ve, mu-, j, t"),
    "pt(j4) > 25": (ConfigError, "the process has 3 of 'j'"),
    "pt(j0) > 25": (ConfigError, "counted from 1"),
    "qt(e+) > 25": (ConfigError, "no quantity 'qt.*known: pt, eta, y, m"),
    "pt(e+)": (ConfigError, "cannot be read; write 'pt"),
    "pt(e+) > much": (ConfigError, "'much' is not a number"),
    "pt(e+) > inf": (ConfigError, "'inf' is not a number"),
    "1 < pt(e+) > 2": (ConfigError, "cannot be read"),
    "__import__('os') > 1": (ConfigError, "no quantity"),
    "dr(e+) > 1": (ConfigError, "dr takes two particles"),
    "pt > 1": (ConfigError, "pt takes one particle or more"),
    "met(e+) > 1": (ConfigError, "of the whole event"),
    "m(e+, e+) > 1": (ConfigError, "too few of"),
    "dr(j1, j) > 1": (ConfigError, "of a particle and itself"),
    "dr(j1, j1) > 1": (ConfigError, "of a particle and itself"),
    "m(e+, mu-) in [116, 66]": (ConfigError, "contradictory cuts: the window is empty"),
    "pt(e+) > 7000": (ConfigError, "contradictory cuts: pt is at most 6500"),
    "m(e+, mu-) > 14000": (ConfigError, "contradictory cuts: m is at most 13000"),
    "dphi(e+, mu-) > 3.2": (ConfigError, "contradictory cuts: dphi is at most 3.14"),
    "abs(eta(e+)) < -1": (ConfigError, "contradictory cuts: eta is more than 0"),
    "nowhere.py:veto": (UnknownProcessError, "no file 'nowhere.py'"),
    "os:getcwd": (UnknownProcessError, "write file.py:function"),
}


@pytest.mark.parametrize("text", WRONG)
def test_what_cannot_be_is_refused(text: str) -> None:
    error, message = WRONG[text]
    with pytest.raises(error, match=message):
        cuts_of([text], LEGS, SQRT_S)


TOGETHER: dict[str, tuple[list[str], str]] = {
    "energies": (["pt(j) > 5000"], "add up to 15000"),
    "masses": (["m(e+, mu-) < 50", "m(e+, mu-) > 60"], "m is above 60 and below 50"),
    "one quantity": (["dphi(e+, mu-) > 2", "dphi(e+, mu-) < 1.5"], "dphi is above 2 and below 1.5"),
    "sum": (["pt(j) > 100", "ht < 250"], "ht < 250 leaves nothing: pT add up to 300 GeV"),
    "one leg": (["pt(l) > 50", "pt(e+) < 40"], "needs 50.0 < pT < 40.0"),
    "mass and distance": (["pt(l) > 50", "dr(l, l) > 2", "m(e+, mu-) < 60"], "have a mass above"),
    "mass of a part": (["m(t, e+) < 170"], "a mass of at least 173 GeV, not below 170"),
    "all": (["sqrt_shat > 500", "m(e+, ve, mu-, j1, j2, j3, t) < 400"], "need a mass above 500.0 and below 400.0"),
    "distance": (["abs(eta(j)) < 1", "abs(eta(l)) < 1", "dr(j, l) > 5"], "cannot exceed"),
}


@pytest.mark.parametrize("name", TOGETHER)
def test_cuts_that_contradict_each_other(name: str) -> None:
    texts, message = TOGETHER[name]
    with pytest.raises(ConfigError, match=f"contradictory cuts.*{message}"):
        Region.of(Cuts(cuts_of(texts, LEGS, SQRT_S), SQRT_S), LEGS.masses)


OWN = """
import torch
def veto(p):
    return p[:, 0, 3] > 0
def wrong(p):
    return p[:, 0, 3]
def broken(p):
    raise ValueError("no")
"""


def test_a_function_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    p = momenta()
    (cut,) = cuts_of([f"{tmp_path}/mine.py:veto"], LEGS, SQRT_S)
    assert torch.equal(cut.mask(p), p[:, 0, 3] > 0) and str(cut).endswith("mine.py:veto")
    (wrong,) = cuts_of([f"{tmp_path}/mine.py:wrong"], LEGS, SQRT_S)
    with pytest.raises(
        ProcessError, match=r"must return a mask \(4000,\) of torch.bool, got \(4000,\) of torch.float64"
    ):
        wrong.mask(p)
    (broken,) = cuts_of([f"{tmp_path}/mine.py:broken"], LEGS, SQRT_S)
    with pytest.raises(ProcessError, match=r"failed: ValueError: no \(.*mine.py, line 8\)"):
        broken.mask(p)
    (tmp_path / "mine.py").write_text("from os import getcwd\nfrom shutil import rmtree\nnumber = 3\n")
    with pytest.raises(ProcessError, match="rmtree is defined in shutil, not there"):
        cuts_of([f"{tmp_path}/mine.py:rmtree"], LEGS, SQRT_S)
    for name in ("number", "getcwd"):
        with pytest.raises(ConfigError, match=f"{name} is no function"):
            cuts_of([f"{tmp_path}/mine.py:{name}"], LEGS, SQRT_S)
    with pytest.raises(UnknownProcessError, match="has no object 'there'"):
        cuts_of([f"{tmp_path}/mine.py:there"], LEGS, SQRT_S)
