"""What is recorded, replayed and given up; on a GPU also that replays are right."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from nisampler.errors import ConfigError
from nisampler.flows import CouplingConfig, CudaGraphs, Flow, NetConfig, coupling_flow
from nisampler.flows.cuda_graphs import Function, Pair


class Recorder:
    """Counts recordings; a recording remembers nothing but the function."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, function: Function, x: Tensor, context: Tensor | None) -> Function:
        self.count += 1
        return function


def make_flow() -> Flow:
    flow = coupling_flow(4, CouplingConfig(net=NetConfig(hidden=8, layers=1)))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    return flow


def run(graphs: CudaGraphs, flow: Flow, n: int, inverse: bool = False, dtype: torch.dtype = torch.float32) -> Pair:
    x = torch.rand(n, 4, generator=torch.Generator().manual_seed(n), dtype=dtype)
    return graphs(flow.transform, flow.transform.inverse if inverse else flow.transform, x, None, inverse)


@torch.no_grad()
def test_one_recording_for_each_shape_direction_and_precision() -> None:
    recorder, flow = Recorder(), make_flow()
    graphs = CudaGraphs(8, recorder)
    for _ in range(3):
        run(graphs, flow, 5)
    assert recorder.count == 1
    run(graphs, flow, 6)
    run(graphs, flow, 5, inverse=True)
    run(graphs, flow, 5, dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        run(graphs, flow, 5)
    assert recorder.count == 5


@torch.no_grad()
def test_weights_changed_in_place_are_seen_and_moved_ones_recorded_again() -> None:
    recorder, flow = Recorder(), make_flow()
    graphs = CudaGraphs(record=recorder)
    before = run(graphs, flow, 5)[0]
    next(flow.parameters()).mul_(2.0)
    assert not torch.equal(run(graphs, flow, 5)[0], before)
    assert recorder.count == 1
    flow.double()
    run(graphs, flow, 5)
    assert recorder.count == 2


@torch.no_grad()
def test_the_oldest_recording_is_given_up() -> None:
    recorder, flow = Recorder(), make_flow()
    graphs = CudaGraphs(2, recorder)
    for n in (5, 6, 7, 7, 6):
        run(graphs, flow, n)
    assert recorder.count == 3
    run(graphs, flow, 5)
    assert recorder.count == 4
    assert not copy.deepcopy(graphs)._recordings


def test_a_recording_must_be_kept() -> None:
    with pytest.raises(ConfigError, match="most = 0: must be"):
        CudaGraphs(0)


@torch.no_grad()
def test_flows_on_the_cpu_need_no_recording() -> None:
    recorder, flow = Recorder(), make_flow()
    flow.graphs = CudaGraphs(record=recorder)
    x, _ = flow.sample(5, generator=torch.Generator().manual_seed(1))
    flow.log_prob(x)
    assert recorder.count == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@torch.no_grad()
def test_replays_agree_with_launches() -> None:
    plain = make_flow().cuda()
    replayed = copy.deepcopy(plain)
    replayed.graphs = CudaGraphs()
    for seed in range(3):
        z = torch.rand(1000, 4, generator=torch.Generator().manual_seed(seed)).cuda()
        for products in (None, torch.bfloat16):
            for found, wanted in zip(
                replayed.from_latent(z, products=products), plain.from_latent(z, products=products), strict=True
            ):
                torch.testing.assert_close(found, wanted)
        for found, wanted in zip(replayed.to_latent(z), plain.to_latent(z), strict=True):
            torch.testing.assert_close(found, wanted)
