"""Matrix products in half precision: points with the density that they were drawn from."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nisampler.errors import ConfigError
from nisampler.flows import AutoregressiveConfig, CouplingConfig, Flow, NetConfig, Spline, coupling_flow, iaf, maf

DIM = 5
NET = NetConfig(hidden=32, layers=2)
SPLINE = Spline(bins=6)
FLOWS: dict[str, Callable[[int], Flow]] = {
    "coupling": lambda blocks: coupling_flow(DIM, CouplingConfig(SPLINE, NET, blocks=blocks)),
    "residual": lambda blocks: coupling_flow(DIM, CouplingConfig(SPLINE, NetConfig("residual", 32, 1), blocks=blocks)),
    "maf": lambda blocks: maf(DIM, AutoregressiveConfig(SPLINE, NET, blocks=blocks)),
    "iaf": lambda blocks: iaf(DIM, AutoregressiveConfig(SPLINE, NET, blocks=blocks)),
}


def disturbed(flow: Flow) -> Flow:
    """Random weights, so that no spline is the identity."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return flow


def latent(n: int) -> Tensor:
    return torch.rand(n, DIM, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


@pytest.mark.parametrize("name", FLOWS)
def test_log_density_is_the_log_determinant_of_the_map_that_was_used(name: str) -> None:
    """Against autograd through the same rounded network; the density in full precision is the negative control.

    Of one block, whose dx/dz is triangular up to the order of coordinates: gradients of a rounded network cancel.
    """
    flow = disturbed(FLOWS[name](1))
    mistakes = []
    for z in latent(6):

        def point(z: Tensor) -> tuple[Tensor, Tensor]:
            return flow.from_latent(z.unsqueeze(0), products=torch.bfloat16)

        x, log_q = point(z)
        jacobian = torch.autograd.functional.jacobian(lambda z: point(z)[0].squeeze(0), z)
        assert torch.linalg.slogdet(jacobian)[1].item() == pytest.approx(-log_q.item(), abs=1e-8)
        mistakes.append(abs(flow.log_prob(x).item() - log_q.item()))
    assert max(mistakes) > 1e-5


def test_weights_are_unbiased() -> None:
    """The mean of f/q is the integral of f within its error, though q is not the density in full precision."""
    flow = disturbed(FLOWS["coupling"](4))
    with torch.no_grad():
        x, log_q = flow.sample(
            40_000, generator=torch.Generator().manual_seed(5), dtype=torch.float64, products=torch.bfloat16
        )
    weights = (2.0 * x).prod(1) * torch.exp(-log_q)
    error = float(weights.std()) / len(weights) ** 0.5
    assert error < 0.03
    assert abs(float(weights.mean()) - 1.0) < 4.0 * error


def test_results_do_not_depend_on_the_batch() -> None:
    flow, z = disturbed(FLOWS["coupling"](4)), latent(4000)
    with torch.no_grad():
        x, log_q = flow.from_latent(z, products=torch.bfloat16)
        parts = [flow.from_latent(part, products=torch.bfloat16) for part in (z[:1000], z[1000:])]
    assert torch.allclose(x, torch.cat([part[0] for part in parts]), atol=1e-2)
    assert x.dtype == log_q.dtype == torch.float64


def test_points_keep_their_precision_and_networks_of_float64_theirs() -> None:
    flow, z = disturbed(FLOWS["coupling"](4)), latent(10)
    x, log_q = flow.from_latent(z.float(), products=torch.bfloat16)
    assert x.dtype == log_q.dtype == torch.float32
    flow.double()
    assert torch.equal(flow.from_latent(z, products=torch.bfloat16)[0], flow.from_latent(z)[0])


def test_products_of_another_precision_are_refused() -> None:
    with pytest.raises(ConfigError, match="float64"):
        FLOWS["coupling"](4).sample(3, products=torch.float64)
