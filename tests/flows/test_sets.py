"""Transport of sets: exact for normal data with the right velocity, learned for others, blind to what is masked."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nisampler.flows.nets.epic import EpicConfig, EpicNet
from nisampler.flows.sets import SetDiffusion, SetFlow, SetMatching, masked_mean


class Nothing(nn.Module):
    """Adds nothing to the velocity of normal data."""

    def forward(self, x: Tensor, t: Tensor, mask: Tensor, context: Tensor) -> Tensor:
        return torch.zeros_like(x)


class Shifted(nn.Module):
    """The exact v of a diffusion whose data are normal with a mean: -sin(φ) mean."""

    def __init__(self, mean: float) -> None:
        super().__init__()
        self.mean = mean

    def forward(self, x: Tensor, t: Tensor, mask: Tensor, context: Tensor) -> Tensor:
        angle = SetDiffusion.angle(t).unsqueeze(2)
        return (-angle.sin() * self.mean).expand_as(x) * mask.unsqueeze(2)


MASK = torch.arange(5) < torch.tensor([2, 5, 3]).unsqueeze(1)


def drawn(flow: SetFlow, mask: Tensor, steps: int) -> Tensor:
    return flow.draw(mask, torch.zeros(len(mask), 1), torch.Generator().manual_seed(1), steps)


@pytest.mark.parametrize("spread", [1.0, 5.0])
def test_matching_of_normal_data_is_exact_without_a_network(spread: float) -> None:
    x = drawn(SetMatching(Nothing(), 3, spread), torch.ones(4000, 5, dtype=torch.bool), 100)
    assert float(x.std()) == pytest.approx(spread, rel=0.02)
    assert float(x.mean()) == pytest.approx(0.0, abs=0.03 * spread)


def test_diffusion_of_shifted_normal_data_is_exact() -> None:
    x = drawn(SetDiffusion(Shifted(3.0), 3), torch.ones(4000, 5, dtype=torch.bool), 100)
    assert float(x.mean()) == pytest.approx(3.0, abs=0.05)
    assert float(x.std()) == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize("kind", [SetMatching, SetDiffusion])
def test_what_is_masked_stays_zero_and_out_of_the_loss(kind: type[SetFlow]) -> None:
    generator = torch.Generator().manual_seed(1)
    net = EpicNet(3, 1, EpicConfig(layers=1, hidden=8), generator)
    nn.init.normal_(net.leave.weight, generator=generator)
    flow, context = kind(net, 3), torch.zeros(3, 1)
    assert not flow.draw(MASK, context, torch.Generator().manual_seed(1), 3)[~MASK].any()
    x = torch.randn(3, 5, 3, generator=generator)
    other = torch.where(MASK.unsqueeze(2), x, torch.full_like(x, 50.0))
    first, second = (flow.loss(points, MASK, context, torch.Generator().manual_seed(2)) for points in (x, other))
    torch.testing.assert_close(first, second)
    changed = flow.loss(x + 50.0, MASK, context, torch.Generator().manual_seed(2))
    assert not torch.isclose(first, changed).any()


@pytest.mark.parametrize("kind", [SetMatching, SetDiffusion])
def test_two_points_per_set_are_learned(kind: type[SetFlow]) -> None:
    """All points of a set are near +2 or near -2, together: no product of single points has this."""
    generator = torch.Generator().manual_seed(1)
    flow = kind(EpicNet(1, 1, EpicConfig(layers=2, hidden=16, shared=4, frequencies=4), generator), 1, 2.0)
    optimizer = torch.optim.Adam(flow.parameters(), lr=5e-3)
    mask, context = torch.ones(256, 3, dtype=torch.bool), torch.zeros(256, 1)

    def sets(n: int) -> Tensor:
        sign = 4.0 * torch.randint(2, (n, 1, 1), generator=generator) - 2.0
        return sign + 0.1 * torch.randn(n, 3, 1, generator=generator)

    for _ in range(250):
        optimizer.zero_grad()
        flow.loss(sets(256), mask, context, generator).mean().backward()
        optimizer.step()
    x = flow.draw(mask, context, generator, 20)[..., 0]
    alike = (x.sign() == x[:, :1].sign()).all(1).float().mean()
    assert float(alike) > 0.95, "points of a set do not go together"
    assert float(x.abs().mean()) == pytest.approx(2.0, rel=0.1)
    assert 0.3 < float((x[:, 0] > 0).float().mean()) < 0.7


def test_masked_mean_of_nothing_is_zero() -> None:
    assert masked_mean(torch.ones(1, 2, 3), torch.zeros(1, 2, dtype=torch.bool)).tolist() == [0.0]
