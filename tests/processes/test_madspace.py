"""Channels of MadSpace: densities beside known integrals and our own channels; what is said where it is missing."""

from __future__ import annotations

import importlib
import importlib.util
import math
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import nisampler
from nisampler import IntegrationConfig, Multichannel, TrainingConfig
from nisampler.base.rng import Streams
from nisampler.errors import ChannelError, ConfigError, MissingExtraError, ShapeError
from nisampler.processes.madspace import MadSpaceChannel, MadSpaceMap
from nisampler.processes.phase_space import BreitWigner, Cluster, FixedEnergy, TopologyChannel
from nisampler.processes.phase_space.kinematics import mass2

installed = pytest.mark.skipif(importlib.util.find_spec("madspace") is None, reason="needs madspace")
SCRIPT = Path(__file__).parents[2] / "examples" / "madspace_channels.py"


@cache
def example() -> Any:
    """The example: `channel`, `resonances`, and what they are of."""
    spec = importlib.util.spec_from_file_location("madspace_channels", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def package() -> Any:
    return importlib.import_module("madspace")


def mapping(**options: Any) -> Any:
    """RAMBO for three massless particles."""
    kind = package().PhaseSpaceMapping
    return kind([0.0] * 5, 500.0, True, 0.8, kind.rambo, **options)


def chili(**options: Any) -> Any:
    """W and two jets at 13 TeV, with a cut on the jets."""
    ms = package()
    codes = [1, -2, -11, 12, 21, 21]
    cuts = ms.Cuts([ms.CutItem(ms.Observable(codes, ms.Observable.obs_pt, [[21]]), 20.0)])
    kind = ms.PhaseSpaceMapping
    return kind([0.0] * 6, 13000.0, False, 0.8, kind.chili, cuts, **options)


def exact() -> float:
    """Their integral: ∫ ds/2π Φ2(S; s, 0) Φ2(s; 0, 0) for each, by quadrature in the angle of the Breit-Wigner."""
    energy, mass, width = example().SQRT_S, example().MASS, example().WIDTH
    top, bottom = (math.atan((end - mass**2) / (mass * width)) for end in (energy**2, 0.0))
    angle = torch.linspace(bottom, top, 200_001, dtype=torch.float64)
    s = mass**2 + mass * width * torch.tan(angle)
    inner = (1 - s / energy**2) / (8 * math.pi) ** 2 / (2 * math.pi) / (mass * width)
    return 2 * float(torch.trapezoid(inner, angle))


def cube(n: int, dim: int, seed: int = 1) -> Tensor:
    return torch.rand(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@installed
def test_it_passes_the_self_test_and_integrates() -> None:
    """Through flows and learned weights, to the integral that a quadrature gives."""
    function = Multichannel(example().resonances, [example().channel(pair) for pair in example().PAIRS])
    function.self_test(Streams(1))
    training, integration = TrainingConfig(calls=8000), IntegrationConfig(points=8192)
    result = nisampler.integrate(function, training=training, integration=integration, progress=False, seed=1)
    assert abs(result.estimate.value - exact()) < 5 * result.estimate.error
    assert result.estimate.error < 0.02 * exact()
    assert result.unweight(100).x.shape == (100, 3, 4)


@installed
def test_momenta_and_inverse() -> None:
    """Massless, of the energy of the beams; the inverse leads back, in double precision from single precision too."""
    made = example().channel((0, 1))
    u = cube(500, made.dim)
    x, log_g = made.forward(u.float())
    assert x.dtype == log_g.dtype == torch.float64
    assert float(mass2(x).abs().max()) < 1e-6
    torch.testing.assert_close(x.sum(1), x.new_tensor([example().SQRT_S, 0, 0, 0]).expand(500, 4), atol=1e-9, rtol=0)
    back, density = made.inverse(x)
    torch.testing.assert_close(back, u.float().double(), atol=1e-7, rtol=0)
    torch.testing.assert_close(density, log_g, atol=1e-7, rtol=0)
    torch.testing.assert_close(made.log_density(x), density)


@installed
def test_it_mixes_with_channels_of_our_own() -> None:
    """The same measure: the self-test compares Jacobians from one to the other."""
    resonance = Cluster(0, 1, BreitWigner(example().MASS, example().WIDTH))
    own = TopologyChannel(Cluster(resonance, 2), (0.0,) * 3, FixedEnergy(example().SQRT_S))
    same, other = (example().channel(pair) for pair in example().PAIRS)
    Multichannel(example().resonances, [same, other, own]).self_test(Streams(2))
    x, log_g = own.forward(cube(20_000, own.dim))
    torch.testing.assert_close(same.log_density(x), log_g, atol=1e-9, rtol=0)
    ratio = torch.exp(other.log_density(x) - log_g)  # of two densities of one space: its mean is one
    assert 0.01 < float(ratio.std()) and abs(float(ratio.mean()) - 1) < 5 * float(ratio.std()) / math.sqrt(len(ratio))


@installed
@pytest.mark.skipif(importlib.util.find_spec("pythia8mc") is None, reason="its parton densities come with pythia8mc")
def test_cross_sections_are_those_of_our_own_channels() -> None:
    """Drell-Yan through one map of MadSpace, momentum fractions included."""
    ms, process = package(), nisampler.process("drell_yan")
    vertices = [[ms.LineRef(line) for line in vertex] for vertex in (["i0", "i1", "p0"], ["p0", "o0", "o1"])]
    topology = ms.Topology(ms.Diagram([0.0] * 2, [0.0] * 2, [ms.Propagator(91.1876, 2.4955)], vertices))
    made = MadSpaceChannel(ms.PhaseSpaceMapping(topology, process.sqrt_s), process.sqrt_s)
    function = Multichannel(process.differential, [made], support=process.passes)
    Multichannel(process.differential, [made, *process.multichannel.channels], support=process.passes).self_test()
    training, integration = TrainingConfig(calls=6000, sampler="vegas"), IntegrationConfig(points=20_000)
    theirs, ours = (
        nisampler.integrate(f, training=training, integration=integration, progress=False).estimate
        for f in (function, process)
    )
    assert abs(theirs.value - ours.value) < 4 * math.hypot(theirs.error, ours.error) < 0.01 * ours.value


@installed
def test_a_wrong_density_is_found() -> None:
    """Negative control."""

    class Wrong(MadSpaceChannel):
        def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
            u, log_g = super().inverse(x)
            return u, log_g + 0.1

    wrong = Wrong(mapping(), 500.0, leptonic=True)
    with pytest.raises(ChannelError, match="self-test"):
        Multichannel(example().resonances, [example().channel((0, 1)), wrong]).self_test(Streams(1))


@installed
def test_cuts_and_edges_are_finite() -> None:
    """Densities outside of the cuts of a mapping are those of the map; where it leaves the beams, values are zero."""
    made = MadSpaceMap(chili(), 13000.0)
    assert not hasattr(made, "inverse") and made.particles == 4
    edges = torch.stack([torch.zeros(made.dim), torch.ones(made.dim)]).double()
    u = torch.cat([cube(5000, made.dim), edges])
    x, log_g = made.forward(u)
    assert bool(torch.isfinite(x).all() and torch.isfinite(log_g).all())
    soft = x[:, 2:, 1:3].norm(dim=-1).amin(1) < 20.0
    assert 100 < int(soft.sum()) < 2500 and float(log_g[soft].median()) < 100
    beyond = log_g > 900
    assert bool(beyond.any()) and float(torch.exp(-log_g[beyond]).max()) == 0.0
    total = x[beyond].sum(1)
    assert bool((torch.maximum(total[:, 0] + total[:, 3], total[:, 0] - total[:, 3]) > 13000.0 * 0.999).all())
    torch.testing.assert_close(made.log_density(x)[~beyond], log_g[~beyond], atol=1e-6, rtol=0)
    prior = Multichannel(lambda x: x[:, 0, 0], [made, made], prior=lambda x: made.log_density(x)[:, None].expand(-1, 2))
    prior.self_test(Streams(1))


@installed
def test_wrong_use() -> None:
    with pytest.raises(ChannelError, match=r"needs a madspace.PhaseSpaceMapping, got list"):
        MadSpaceChannel([], 500.0)
    vertices = [["i0", "i1", "p0"], ["p0", "o0", "o1"]]
    lines = [[package().LineRef(line) for line in vertex] for vertex in vertices]
    topology = package().Topology(package().Diagram([0.0] * 2, [0.0] * 2, [package().Propagator()], lines))
    both = package().PhaseSpaceMapping(topology, 500.0, True, permutations=[[0, 1, 2, 3], [0, 1, 3, 2]])
    with pytest.raises(ChannelError, match="2 permutations; make a mapping, and a channel, of each"):
        MadSpaceChannel(both, 500.0)
    with pytest.raises(ConfigError, match="sqrt_s"):
        MadSpaceChannel(mapping(), -1.0)
    with pytest.raises(ConfigError, match="threads"):
        MadSpaceChannel(mapping(), 500.0, threads=0)
    made = MadSpaceChannel(mapping(), 500.0, leptonic=True)
    with pytest.raises(ShapeError, match=r"cube points \(n, 5\), got \(3, 2\)"):
        made.forward(torch.zeros(3, 2))
    with pytest.raises(ShapeError, match=r"momenta \(n, 3, 4\)"):
        made.inverse(torch.zeros(3, 12))


@installed
def test_the_example_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "chi2/dof" in done.stdout and "2 channels" in done.stdout


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "madspace", None)
    with pytest.raises(MissingExtraError, match=r"need its package.*pip install 'madspace>=0.2'"):
        MadSpaceChannel(object(), 500.0)


class _Map:
    """A stand-in for a mapping of one particle, whose energy and longitudinal momentum are the cube times √s."""

    def discrete_dim(self) -> int:
        return 0

    def channel_count(self) -> int:
        return 1

    def random_dim(self) -> int:
        return 2

    def particle_count(self) -> int:
        return 3

    def forward_function(self) -> Any:
        def forward(u: Tensor) -> list[Tensor]:
            momenta = u.new_zeros(len(u), 3, 4)
            x1, x2 = u.unbind(1)
            momenta[:, 2, 0], momenta[:, 2, 3] = 50 * (x1 + x2), 50 * (x1 - x2)
            momenta[u[:, 0] > 0.9] = math.nan
            return [momenta, x1, x2, torch.where(x2 > 0.5, 0.5, 0.0).double()]

        return forward

    def inverse_function(self) -> Any:
        return lambda momenta, x1, x2: [torch.stack([x1, x2], 1), torch.where(x2 > 0.2, 2.0, 0.0).double()]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("madspace")
    module.PhaseSpaceMapping = _Map  # type: ignore[attr-defined]
    module.Context, module.cpu_device = lambda device, threads: None, lambda: "cpu"  # type: ignore[attr-defined]
    module.FunctionRuntime = lambda function, context: SimpleNamespace(call=lambda given: function(*given))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "madspace", module)


@pytest.mark.usefixtures("stand_in")
def test_what_a_map_may_return() -> None:
    """Weights of zero inside and outside of its reach, and momenta that are not finite."""
    made = MadSpaceChannel(_Map(), 100.0)
    u = torch.tensor([[0.5, 0.75], [0.5, 0.4], [0.5, 0.1], [0.95, 0.75]])
    x, log_g = made.forward(u)
    made_of = x.new_tensor([[62.5, 0, 0, -12.5], [45, 0, 0, 5], [30, 0, 0, 20]])
    torch.testing.assert_close(x[:3, 0], made_of, atol=1e-5, rtol=0)
    assert log_g.tolist() == pytest.approx([math.log(2), math.log(2), 1000.0, 1000.0])
    assert float(x[3, 0, 0]) == pytest.approx(200.0)
    back, density = made.inverse(x[:3])
    torch.testing.assert_close(back, u[:3].double())
    assert density.tolist() == pytest.approx([math.log(2), math.log(2), -math.inf])
