"""A function whose points are shared out among the workers of an executor: processes, threads or other machines."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

Call = Callable[[Callable[..., Any], Tensor], Any]
Task = tuple[Call, Callable[..., Any], Any]


class Executor(Protocol):
    """Anything with `map`: of `concurrent.futures`, `multiprocessing`, mpi4py or Dask.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> executor: Executor = ThreadPoolExecutor(2)
    """

    @property
    def map(self) -> Callable[..., Iterable[Any]]:
        """Results, or futures of them, of a function for each item."""
        ...


class Spread:
    """Calls a function as a kind of function is called, each worker with a piece of the points.

    Parameters
    ----------
    call
        How a function of this kind is called, see `nisampler.density.values.ADAPTERS`.
    executor
        Its workers get the function with each piece: it must be something that can be pickled, unless they are threads.

    Attributes
    ----------
    counted
        What the function counted in the workers (its `limits`).

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> from nisampler.density.values import ADAPTERS
    >>> with ThreadPoolExecutor(2) as executor:
    ...     Spread(ADAPTERS["torch"], executor)(torch.sin, torch.zeros(3)).tolist()
    [0.0, 0.0, 0.0]
    """

    def __init__(self, call: Call, executor: Executor) -> None:
        self._call, self._workers = call, workers_of(executor)
        self._executor: Executor | None = executor
        self.counted: Counter[str] = Counter()

    def __call__(self, function: Callable[..., Any], x: Tensor) -> Any:
        """What the function returns for points (n, ...), of workers as NumPy arrays."""
        if self._executor is None:
            return self._call(function, x)
        pieces = np.array_split(x.detach().cpu().numpy(), min(self._workers, len(x)))
        tasks: list[Task] = [(self._call, function, piece) for piece in pieces]
        found = [getattr(item, "result", lambda item=item: item)() for item in self._executor.map(_work, tasks)]
        for _, counted in found:
            self.counted.update(counted)
        parts = [returned for returned, _ in found]
        if not isinstance(parts[0], Mapping):
            return np.concatenate(parts)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def stop(self) -> None:
        """Call the function here from now on."""
        self._executor = None


def workers_of(executor: Executor) -> int:
    """How many workers an executor has; as many as there are cores where it does not say.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> workers_of(ThreadPoolExecutor(3))
    3
    """
    for name in ("_max_workers", "num_workers", "_processes"):
        count = getattr(executor, name, None)
        if isinstance(count, int) and count > 0:
            return count
    return os.cpu_count() or 1


def _work(task: Task) -> tuple[Any, dict[str, int]]:
    """What a worker does: the values of a piece, and what the function counted for them."""
    call, function, piece = task
    limits = getattr(function, "limits", dict)
    before = Counter(limits())
    returned = call(function, torch.from_numpy(piece))
    counted = {name: count - before[name] for name, count in limits().items() if count != before[name]}
    if isinstance(returned, Mapping):
        return {name: _plain(value) for name, value in returned.items()}, counted
    return _plain(returned), counted


def _plain(value: Any) -> Any:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
