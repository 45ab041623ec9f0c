"""EPiC networks know no order of the points, and nothing of places that the mask leaves out."""

from __future__ import annotations

import pytest
import torch

from nisampler.errors import ConfigError, ShapeError
from nisampler.flows.nets.epic import EpicConfig, EpicNet, pool


def made(seed: int = 1) -> EpicNet:
    """A small network whose last layer does not vanish."""
    generator = torch.Generator().manual_seed(seed)
    net = EpicNet(3, 2, EpicConfig(layers=2, hidden=8, shared=3, frequencies=2), generator)
    torch.nn.init.normal_(net.leave.weight, generator=generator)
    return net


def inputs(n: int = 4, m: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    mask = torch.arange(m) < torch.tensor([1, 3, 5, 6])[:n].unsqueeze(1)
    x, t, context = (torch.randn(shape, generator=generator) for shape in ((n, m, 3), (n, 1), (n, 2)))
    return x, t.abs(), mask, context


def test_fresh_networks_are_zero() -> None:
    net = EpicNet(3, 2, EpicConfig(layers=1, hidden=8), torch.Generator().manual_seed(1))
    assert not net(*inputs()).any()


def test_exchanged_points_exchange_their_results() -> None:
    net, (x, t, mask, context) = made(), inputs()
    order = torch.randperm(6, generator=torch.Generator().manual_seed(3))
    there = net(x[:, order], t, mask[:, order], context)
    torch.testing.assert_close(there, net(x, t, mask, context)[:, order], rtol=1e-4, atol=1e-6)


def test_places_outside_the_mask_have_no_influence() -> None:
    net, (x, t, mask, context) = made(), inputs()
    other = torch.where(mask.unsqueeze(2), x, torch.full_like(x, 1e3))
    found = net(x, t, mask, context)
    torch.testing.assert_close(net(other, t, mask, context), found, rtol=0, atol=0)
    assert not found[~mask].any() and found[mask].all()
    torch.testing.assert_close(net(x[:3, :5], t[:3], mask[:3, :5], context[:3]), found[:3, :5], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("what", range(4))
def test_everything_inside_has_an_influence(what: int) -> None:
    """Negative control of the two laws: points, times, masks and contexts all reach every point."""
    net, given = made(), list(inputs())
    before = net(*given)
    if what == 2:
        given[2] = torch.arange(6) < torch.tensor([2, 4, 6, 5]).unsqueeze(1)
    elif what == 0:
        given[0] = given[0].clone()
        given[0][:, 0] += 1.0
    else:
        given[what] = given[what] + 0.3
    after, both = net(*given), given[2] & inputs()[2]
    assert not torch.isclose(before[both], after[both]).all(1).any()


def test_pool_counts_what_is_there() -> None:
    x, mask = torch.tensor([[[2.0], [4.0], [9.0]]]), torch.tensor([[[1.0], [1.0], [0.0]]])
    assert pool(x, mask, 0.1)[0].tolist() == pytest.approx([3.0, 0.6])


def test_errors_are_named() -> None:
    x, t, mask, context = inputs()
    with pytest.raises(ShapeError, match=r"expected points \(n, m, 3\)"):
        made()(x[..., :2], t, mask, context)
    with pytest.raises(ShapeError, match="a context"):
        made()(x, t, mask, context[:, :1])
    with pytest.raises(ConfigError, match="layers = 0"):
        EpicConfig(layers=0)
