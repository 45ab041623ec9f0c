"""A flow in place of the grid of a vegas integrator."""

from __future__ import annotations

import math
from typing import Any

import gvar
import numpy as np
import pytest
import torch

import nisampler
import nisampler.compat.vegas as vegas
from nisampler.errors import ConfigError, UnsupportedError
from nisampler.samplers.base import UniformSampler

REGION = [[-1, 1], [0, 1]]
EXACT = 4 * math.pi * 0.3 * 0.05 * math.sqrt(math.pi)


@vegas.lbatchintegrand
def ring(x: Any) -> Any:
    """A circle of radius 0.3, which no product of grids follows; the region is twice as wide as the unit cube."""
    return np.exp(-(((np.hypot(x[:, 0] / 2, x[:, 1] - 0.5) - 0.3) / 0.05) ** 2))


def learned(**options: Any) -> Any:
    gvar.ranseed(1)
    return vegas.Integrator(REGION, sampler="flow", beta=0.0, **options)


def test_a_flow_by_one_word() -> None:
    integ = learned()
    result = integ(ring, nitn=10, neval=3000)
    grid = vegas.Integrator(REGION, beta=0.0)
    grid(ring, nitn=10, neval=1500)
    plain = grid(ring, nitn=10, neval=1500)
    assert abs(result.mean - EXACT) < 4 * result.sdev and result.sdev < 0.8 * plain.sdev
    assert abs(result.mean - 1.05 * EXACT) > 6 * result.sdev  # negative control
    assert result.nitn == 10 and not result.weighted and result.sum_neval <= 30_000
    assert "flow" in integ.settings() and integ.training.sampler is integ.sampler
    frozen = integ(ring, nitn=10, neval=3000, adapt=False)
    assert integ.training.sampler is integ.sampler and frozen.sum_neval == pytest.approx(30_000, rel=0.05)
    assert frozen.sdev < result.sdev and abs(frozen.mean - EXACT) < 4 * frozen.sdev
    total = sum(float(wgt @ ring(x)) for x, wgt in integ.random_batch())
    assert total == pytest.approx(EXACT, abs=0.01)


def test_maps_of_flows_know_the_way_back() -> None:
    integ = learned()
    integ(ring, nitn=2, neval=1000)
    found = integ.map
    y = np.random.default_rng(1).random((50, 2))
    x, jac, back, again = np.empty((50, 2)), np.empty(50), np.empty((50, 2)), np.empty(50)
    found.map(y, x, jac)
    found.invmap(x, back, again)
    assert np.allclose(y, back, atol=1e-5) and np.allclose(jac, again, rtol=1e-3)
    assert np.array_equal(found(y), x) and np.array_equal(found.jac(y), jac) and found.region(0) == (-1.0, 1.0)
    old = integ.set(map=[[0, 1]])
    assert integ.dim == 1 and integ.set(old) and integ.map.region() == [(-1.0, 1.0), (0.0, 1.0)]
    with pytest.raises(UnsupportedError, match="grid"):
        _ = found.grid
    with pytest.raises(UnsupportedError, match="uses_jac"):
        integ(lambda x, jac: 1.0, uses_jac=True)


def test_a_second_call_goes_on_with_a_flow() -> None:
    """Behind a bare flow; one with a grid under it is learned anew."""
    integ = learned()
    integ(ring, nitn=2, neval=400)
    flow = nisampler.flows.coupling_flow(2)
    before = {name: value.clone() for name, value in flow.state_dict().items()}
    from nisampler.samplers.flow import FlowSampler

    integ.sampler = FlowSampler(flow)
    integ(ring, nitn=2, neval=2000)
    after = flow.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_sampler_of_ones_own_is_used_as_it_is() -> None:
    result = nisampler.integrate(lambda x: ring(2 * x.numpy() - np.array([1.0, 0.0]) * 1.0), dim=2, calls=4000)
    for sampler in (result.sampler, UniformSampler(2)):
        integ = vegas.Integrator(REGION, sampler=sampler)
        found = integ(ring, nitn=4, neval=2000)
        assert integ.sampler is sampler and abs(found.mean - EXACT) < 4 * found.sdev and not found.weighted
    with pytest.raises(ConfigError, match="dimension 2, the region 1"):
        vegas.Integrator([[0, 1]], sampler=sampler)
