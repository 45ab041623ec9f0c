"""What the hardware allows: matrix products of given shapes, the largest product rate, and the rate of copies."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

_SHORTEST, _GLANCE = 0.02, 0.004
_TILES = (256, 512, 1024, 2048, 4096, 8192)


def clock(device: str) -> float:
    """CPU-seconds of this process; on a GPU wall seconds after everything queued is done."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def seconds_of(action: Callable[[], object], device: str, shortest: float = _SHORTEST) -> float:
    """Seconds of one call, from as many as take `shortest` together."""
    start, count = clock(device), 0
    while True:
        action()
        count += 1
        # a synchronisation after every call would be part of its time
        if device == "cpu" or count & (count - 1) == 0:
            spent = clock(device) - start
            if spent >= shortest:
                return spent / count


def interleaved(
    actions: dict[str, Callable[[], object]], repeats: dict[str, int], device: str
) -> dict[str, list[float]]:
    """Seconds of each action in every repeat: A, B, A, B ..., so that all of them see the same noise.

    An action with fewer repeats than others stops earlier.
    """
    found: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(max(repeats.values(), default=0)):
        for name, action in actions.items():
            if turn < repeats[name]:
                found[name].append(seconds_of(action, device))
    return found


def peak_rate(device: str, size: int) -> float:
    """Floating-point operations per second of a square matrix product in single precision."""
    a, b = torch.rand(size, size, device=device), torch.rand(size, size, device=device)
    out = torch.empty_like(a)
    action = partial(torch.mm, a, b, out=out)
    action()
    return 2.0 * size**3 / statistics.median(seconds_of(action, device) for _ in range(3))


def bandwidth(device: str, size: int) -> float:
    """Bytes per second of a copy of `size` bytes, read and written ones counted."""
    source = torch.rand(size // 4, device=device)
    target = torch.empty_like(source)
    action = partial(target.copy_, source)
    action()
    return 2.0 * 4 * len(source) / statistics.median(seconds_of(action, device) for _ in range(5))


@dataclass(frozen=True)
class _Plan:
    """One matrix product of a layer in the layout and tile that are fastest: `tile` runs often, `rest` once."""

    tile: Callable[[], object]
    count: int
    rest: Callable[[], object] | None

    def __call__(self) -> None:
        for _ in range(self.count):
            self.tile()
        if self.rest is not None:
            self.rest()


class Products:
    """The matrix products of a network alone, without biases, activations and everything else.

    Layouts (samples slowest or fastest in memory) and tiles of the batch are tried for each; the fastest ones are kept.
    A tile is multiplied in place again and again, so that it is in the cache where it fits there: no real network can
    be faster with the same products.

    Parameters
    ----------
    sizes
        (inputs, outputs) of every layer.
    batch
        Number of samples.
    device
        "cpu" or "cuda".
    """

    def __init__(self, sizes: list[tuple[int, int]], batch: int, device: str) -> None:
        self.batch, self.device = batch, device
        known: dict[tuple[str, int, int], _Plan] = {}

        def plan(kind: str, inputs: int, outputs: int) -> _Plan:
            key = (kind, inputs, outputs)
            if key not in known:
                known[key] = self._best(*key)
            return known[key]

        self._value = [plan("value", *size) for size in sizes]
        # the gradient of a layer's input is a product of the same kind in the other direction
        self._gradient = [plan("value", b, a) for a, b in sizes] + [plan("weight", *size) for size in sizes]
        self.operations = sum(2.0 * batch * a * b for a, b in sizes)

    def value(self) -> None:
        """Those of one evaluation."""
        for plan in self._value:
            plan()

    def gradient(self) -> None:
        """Those of an evaluation and its backward pass: three times as many operations."""
        self.value()
        for plan in self._gradient:
            plan()

    def _best(self, kind: str, inputs: int, outputs: int) -> _Plan:
        tiles = sorted({min(tile, self.batch) for tile in _TILES}) if self.device == "cpu" else [self.batch]
        found: list[tuple[float, _Plan]] = []
        for tile, fastest in itertools.product(tiles, (False, True)):
            whole, left = self._product(kind, tile, inputs, outputs, fastest), self.batch % tile
            rest = self._product(kind, left, inputs, outputs, fastest) if left else None
            whole()
            each = min(seconds_of(whole, self.device, _GLANCE) for _ in range(2)) / tile
            found.append((each, _Plan(whole, self.batch // tile, rest)))
        return min(found, key=lambda pair: pair[0])[1]

    def _product(self, kind: str, rows: int, inputs: int, outputs: int, fastest: bool) -> Callable[[], Tensor]:
        """x W^T for samples x (rows, inputs) and W (outputs, inputs), or the sum over samples of g x^T."""
        x = torch.rand((inputs, rows) if fastest else (rows, inputs), device=self.device)
        weight = torch.rand(outputs, inputs, device=self.device)
        result = torch.empty((outputs, rows) if fastest else (rows, outputs), device=self.device)
        if kind == "value":
            first, second = (weight, x) if fastest else (x, weight.t())
            return partial(torch.mm, first, second, out=result)
        result.uniform_()
        first, second = (result, x.t()) if fastest else (result.t(), x)
        return partial(torch.mm, first, second, out=weight)
