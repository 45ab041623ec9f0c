"""Functions whose points are shared out: the values, the names and the counters of the function called here."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest
import torch
from channel_examples import gentle_function, ridge_function
from other_process import Arriving, Counting, numpy_product, point, several, torch_sum

import nisampler
from nisampler.density import spread
from nisampler.density.integrand import Integrand
from nisampler.density.spread import Spread, workers_of
from nisampler.density.values import ADAPTERS
from nisampler.errors import ConfigError, IntegrandCallError, IntegrandShapeError, NonFiniteError

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


def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Share out what can be, whatever it costs."""
    monkeypatch.setattr(Spread, "_worth", lambda self, n: self._executor is not None and n > self._step)


def cube(n: int, dim: int = 2) -> torch.Tensor:
    return torch.rand(n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def powers(x: torch.Tensor) -> torch.Tensor:
    """In a vectorised loop and after its end torch computes these in two ways."""
    return (x**1.7).sum(1) + torch.sigmoid(x).sum(1)


@pytest.mark.parametrize("function", [torch_sum, numpy_product, several, point, powers])
@pytest.mark.parametrize("n", [1, 2, 7, 103, 1003])
def test_the_values_are_those_of_one_process(
    function: Callable[..., Any], n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    always(monkeypatch)
    u = cube(n)
    alone, other = Integrand(function, 2), Integrand(function, 2)
    with ThreadPoolExecutor(3) as executor, other.sharing(executor) as shared:
        for _ in range(2):  # the first batch of its size is a trial
            assert torch.equal(shared.values(u), alone.values(u)) and shared.names == alone.names
        assert shared.counts() == alone.counts() == other.counts()
    assert torch.equal(shared(u), alone(u))


def test_processes_give_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    always(monkeypatch)
    alone = nisampler.integrate(torch_sum, dim=2, **QUICK)
    with ProcessPoolExecutor(2, get_context("spawn")) as executor:
        shared = nisampler.integrate(torch_sum, dim=2, executor=executor, **QUICK)
        arriving = Integrand(Arriving(), 2, kind="scalar")
        with arriving.sharing(executor) as others:
            assert max(int(others(cube(40)).max()) for _ in range(40)) < 20  # if it came with each piece: 40
    assert shared.estimate == alone.estimate and shared.calls == alone.calls
    assert torch.equal(shared.unweight(20).x, alone.unweight(20).x)


def test_values_that_change_with_the_batch_are_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    always(monkeypatch)
    lines: list[str] = []
    integrand = Integrand(lambda x: x[:, 0] * (1 + 1e-15 * len(x)), 1, kind="torch")
    u = cube(500, 1)
    with ThreadPoolExecutor(2) as executor, integrand.sharing(executor, tell=lines.append) as shared:
        assert torch.equal(shared(u), integrand(u)) and torch.equal(shared(u), integrand(u))
    assert lines == ["the function is not shared out: the last digits of its values change with the batch"]


class Clock:
    """Seconds that go on by as much as the points take that are asked for."""

    def __init__(self, seconds: float) -> None:
        self.now, self.seconds = 0.0, seconds

    def perf_counter(self) -> float:
        return self.now

    def function(self, x: torch.Tensor) -> torch.Tensor:
        self.now += self.seconds * len(x)
        return x[:, 0]


class Noting(Futures):
    """Says how many points it was given."""

    def __init__(self) -> None:
        self.given: list[int] = []

    def map(self, function: Callable[..., Any], items: Any) -> list[Future[Any]]:
        self.given.append(sum(len(item.piece) for item in items))
        return super().map(function, items)


@pytest.mark.parametrize(
    ("seconds", "guess", "sizes"), [(1e-3, 1e-3, [64, 64, 288, 640]), (1e-7, 1e-3, []), (1e-7, 1.0, [64])]
)
def test_only_work_that_is_worth_it_is_shared(
    seconds: float, guess: float, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first guess says whether the first batch is small enough to learn from it what a point takes."""
    clock, executor = Clock(seconds), Noting()
    monkeypatch.setattr(spread, "time", clock)
    monkeypatch.setattr(spread, "workers_of", lambda executor: 2)
    shared = Spread(ADAPTERS["torch"], executor, guess)
    for n in (64, 64, 64, 640):
        shared(clock.function, cube(n))
    assert executor.given[: len(sizes)] == sizes and (sizes or not executor.given)


def test_processes_are_built_anew_in_the_workers() -> None:
    """They cannot be pickled; of one with channels of its own the function of the points is shared out."""
    process = nisampler.process("drell_yan")
    process.seconds_per_call = 1.0
    integrand = Integrand(process)
    u = cube(500, process.dim)
    alone, before = integrand(u), integrand.limits()
    with ProcessPoolExecutor(2, get_context("spawn")) as executor, integrand.sharing(executor) as shared:
        assert torch.equal(shared(u), alone)
        found = shared.limits()
        assert found["points"] - before["points"] == int((alone != 0).sum())
        assert list(found) == list(before) and process.limits()["points"] < found["points"]


def test_executors_that_return_futures() -> None:
    result = nisampler.integrate(several, dim=2, executor=Futures(), **QUICK)
    assert result["square"].value == pytest.approx(2 / 3, abs=5 * result["square"].error)


@pytest.mark.parametrize("make", [lambda: ProcessPoolExecutor(2, get_context("spawn")), lambda: ThreadPoolExecutor(2)])
def test_what_the_function_counts_is_counted_once(make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    always(monkeypatch)
    function = Counting()
    integrand = Integrand(function, kind="torch")
    u = torch.tensor([[0.1, 0.0], [0.9, 0.0], [0.2, 0.0]], dtype=torch.float64).repeat(30, 1)
    with make() as executor, integrand.sharing(executor) as shared:
        for batch in range(1, 4):
            shared(u)
            assert shared.limits() == {"low": 60 * batch}
    assert shared.limits() == {"low": 180}


def test_channels_share_the_function_of_their_points(monkeypatch: pytest.MonkeyPatch) -> None:
    always(monkeypatch)
    for channels in (ridge_function(), gentle_function()):
        alone = Integrand(channels)
        u = cube(90, alone.dim)
        with ThreadPoolExecutor(2) as executor, alone.sharing(executor) as shared:
            assert torch.equal(shared(u), alone(u)) and torch.equal(shared(u), alone(u))


def test_errors_are_those_of_the_function(monkeypatch: pytest.MonkeyPatch) -> None:
    always(monkeypatch)

    def broken(x: torch.Tensor) -> Any:
        if bool((x[:, 0] > 0.9).any()):
            raise ValueError("odd")
        return x[:, 0] / 0.0 if bool((x[:, 0] > 0.8).any()) else x[1:, 0]

    integrand = Integrand(broken, 1, kind="torch")
    cases = [
        (1.0, IntegrandCallError, "ValueError: odd"),
        (0.85, NonFiniteError, "NaN"),
        (0.5, IntegrandShapeError, "shape"),
    ]
    for high, kind, words in cases:
        u = high * torch.ones(70, 1, dtype=torch.float64)
        with ThreadPoolExecutor(2) as executor, integrand.sharing(executor) as shared:
            monkeypatch.setattr(Spread, "_trial_rows", lambda self, n: 64)
            for _ in range(2):
                with pytest.raises(kind, match=words):
                    shared(u)
    with ProcessPoolExecutor(1, get_context("spawn")) as executor, integrand.sharing(executor) as shared:
        with pytest.raises(IntegrandCallError, match="broken"):
            shared(0.1 * torch.ones(70, 1, dtype=torch.float64))


def test_what_fails_in_workers_alone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    always(monkeypatch)
    home = threading.current_thread()

    def lame(x: torch.Tensor) -> torch.Tensor:
        if threading.current_thread() is not home:
            raise OSError("no such file")
        return x[:, 0]

    integrand = Integrand(lame, 1, kind="torch")
    with ThreadPoolExecutor(2) as executor, integrand.sharing(executor) as shared:
        shared(cube(70, 1))
        with pytest.raises(IntegrandCallError, match="in a worker, and not here: OSError: no such file"):
            shared(cube(70, 1))


def test_processes_of_numpy_with_channels_of_their_own_are_refused() -> None:
    process = nisampler.process("drell_yan")
    integrand = Integrand(process, kind="torch")
    integrand.kind = "numpy"
    with ThreadPoolExecutor(2) as executor, pytest.raises(ConfigError, match="by channels of its own"):
        with integrand.sharing(executor):
            pass


def test_numbers_of_workers() -> None:
    assert workers_of(ThreadPoolExecutor(3)) == 3 and workers_of(Futures()) >= 1
