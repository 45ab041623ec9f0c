"""Functions whose points are shared out: the values, the names and the counters of the function called here."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest
import torch
from channel_examples import gentle_function, ridge_function
from other_process import Counting, numpy_product, point, several, torch_sum

import nisampler
from nisampler.density.integrand import Integrand
from nisampler.density.spread import workers_of
from nisampler.errors import ConfigError, IntegrandCallError, NonFiniteError

QUICK = {
    "training": nisampler.TrainingConfig(calls=5000, sampler="vegas"),
    "integration": nisampler.IntegrationConfig(points=4096),
}


class Futures:
    """An executor that returns futures, as Dask's client does."""

    def map(self, function: Callable[..., Any], items: Any) -> list[Future[Any]]:
        found: list[Future[Any]] = []
        for item in items:
            found.append(Future())
            found[-1].set_result(function(item))
        return found


@pytest.mark.parametrize("function", [torch_sum, numpy_product, several, point])
@pytest.mark.parametrize("n", [1, 2, 7])
def test_the_values_are_those_of_one_process(function: Callable[..., Any], n: int) -> None:
    u = torch.rand(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    alone, other = Integrand(function, 2), Integrand(function, 2)
    with ThreadPoolExecutor(3) as executor, other.sharing(executor) as shared:
        assert torch.equal(shared.values(u), alone.values(u)) and shared.names == alone.names
        assert shared.counts() == alone.counts() == other.counts()
    assert torch.equal(shared(u), alone(u))


def test_processes_give_the_same_result() -> None:
    alone = nisampler.integrate(torch_sum, dim=2, **QUICK)
    with ProcessPoolExecutor(2, get_context("spawn")) as executor:
        shared = nisampler.integrate(torch_sum, dim=2, executor=executor, **QUICK)
    assert shared.estimate == alone.estimate and shared.calls == alone.calls
    assert torch.equal(shared.unweight(20).x, alone.unweight(20).x)


def test_executors_that_return_futures() -> None:
    result = nisampler.integrate(several, dim=2, executor=Futures(), **QUICK)
    assert result["square"].value == pytest.approx(2 / 3, abs=5 * result["square"].error)


def test_what_the_function_counts_is_counted_once() -> None:
    function = Counting()
    integrand = Integrand(function, kind="torch")
    u = torch.tensor([[0.1, 0.0], [0.9, 0.0], [0.2, 0.0]], dtype=torch.float64)
    with ProcessPoolExecutor(2, get_context("spawn")) as executor, integrand.sharing(executor) as shared:
        shared(u)
        assert shared.limits() == {"low": 2}
        shared(u)
    assert shared.limits() == {"low": 4}


def test_channels_share_the_function_of_their_points() -> None:
    for channels in (ridge_function(), gentle_function()):
        alone = Integrand(channels)
        u = torch.rand(9, alone.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        with ThreadPoolExecutor(2) as executor, alone.sharing(executor) as shared:
            assert torch.allclose(shared(u), alone(u), rtol=1e-14)


def test_errors_are_those_of_the_function() -> None:
    def broken(x: torch.Tensor) -> torch.Tensor:
        if len(x) < 3:
            raise ValueError("odd")
        return x[:, 0] / 0.0

    integrand = Integrand(broken, 1, kind="torch")
    with ThreadPoolExecutor(2) as executor, integrand.sharing(executor) as shared:
        with pytest.raises(IntegrandCallError, match="ValueError: odd"):
            shared(torch.ones(4, 1, dtype=torch.float64))
        with pytest.raises(NonFiniteError):
            shared(torch.ones(6, 1, dtype=torch.float64))
    with ProcessPoolExecutor(1, get_context("spawn")) as executor, integrand.sharing(executor) as shared:
        with pytest.raises(IntegrandCallError, match="broken"):
            shared(torch.ones(4, 1, dtype=torch.float64))


def test_processes_with_channels_of_their_own_are_refused() -> None:
    integrand = Integrand(nisampler.process("drell_yan"))
    with ThreadPoolExecutor(2) as executor, pytest.raises(ConfigError, match="by channels of its own"):
        with integrand.sharing(executor):
            pass


def test_numbers_of_workers() -> None:
    assert workers_of(ThreadPoolExecutor(3)) == 3 and workers_of(Futures()) >= 1
