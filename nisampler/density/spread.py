"""A function whose points are shared out among the workers of an executor: processes, threads or other machines.

Where a batch is cut changes no value: of a function that takes all points at once the pieces begin at multiples of
`STEP` points, where vectorised loops begin anew, and that its values are the same to the last bit is tried before it is
relied on. So what is shared out may depend on a clock: only work that is worth its shipping is.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nisampler.density.values import ADAPTERS

Call = Callable[[Callable[..., Any], Tensor], Any]
Carrier = Callable[[], Callable[..., Any]]

STEP = 32
# Seconds that handing a batch to processes of this machine costs, and each of its points.
_BATCH_SECONDS, _POINT_SECONDS = 2e-3, 2e-7
# Work of which only the first, slow calls are known is shared out at once from so many seconds on.
_SURELY = 1.0
# Most seconds of a trial whether pieces have the values of the whole.
_TRIAL = 0.3
# Functions that a process keeps for the integrations that share it.
_KEPT = 8


class Executor(Protocol):
    """Anything with `map`: of `concurrent.futures`, `multiprocessing`, mpi4py or Dask.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> executor: Executor = ThreadPoolExecutor(2)
    """

    @property
    def map(self) -> Callable[..., Iterable[Any]]:
        """Results, or futures of them, of a function for each item."""
        ...


@dataclass
class _Held:
    """A function in a process that calls it; `home` is the process that shares it out."""

    function: Callable[..., Any]
    home: int | None
    lock: threading.Lock


@dataclass(frozen=True)
class _Task:
    """A piece of the points for a worker; the function comes along for workers that lack it."""

    key: str
    call: Call
    piece: NDArray[Any]
    carrier: Carrier | None = None


@dataclass(frozen=True)
class _Answer:
    """What a worker found: values of its piece, what the function counted for them, its seconds, or what it raised."""

    returned: Any = None
    counted: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""


_HELD: dict[str, _Held] = {}


def hold(key: str, function: Callable[..., Any], home: int | None = None) -> None:
    """Keep a function in this process for the pieces of points that will come for it.

    >>> hold("mine", torch.sin)
    >>> _HELD.pop("mine").function is torch.sin
    True
    """
    _HELD[key] = _Held(function, home, threading.Lock())
    while len(_HELD) > _KEPT:
        _HELD.pop(next(iter(_HELD)))


class Spread:
    """Calls a function as a kind of function is called, each worker with a piece of the points.

    Parameters
    ----------
    call
        How a function of this kind is called, see `nisampler.density.values.ADAPTERS`.
    executor
        Its workers get the function once each: it must be something that can be pickled, unless they are threads. If
        the executor has `takes`, it is asked whether work of so many seconds is to be handed over now.
    seconds
        What a point may take, as far as it is known from the first, slow calls.
    key
        Under which name the workers have the function already, if they do.
    tell
        Is told if a function cannot be shared out, because its values change with where a batch is cut.

    Attributes
    ----------
    counted
        What the function counted in the workers (its `limits`).

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> with ThreadPoolExecutor(2) as executor:
    ...     float(Spread(ADAPTERS["torch"], executor)(torch.sin, torch.zeros(100)).sum())
    0.0
    """

    def __init__(
        self,
        call: Call,
        executor: Executor,
        seconds: float | None = None,
        key: str | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self._call, self._workers, self._tell = call, workers_of(executor), tell
        self._executor: Executor | None = executor
        self._guess, self._seconds, self._shipping = seconds, None, 0.0
        self._step = 1 if call is ADAPTERS["scalar"] else STEP
        self._key, self._given = key or uuid.uuid4().hex, key is not None
        self._batches = 0
        self._tried: set[int] = set()
        self.counted: Counter[str] = Counter()

    _seconds: float | None

    def __call__(self, function: Callable[..., Any], x: Tensor) -> Any:
        """What the function returns for points (n, ...), of workers as NumPy arrays."""
        n = len(x)
        if not self._worth(n):
            return self._here(function, x)
        if self._step > 1 and n.bit_length() not in self._tried:
            self._tried.add(n.bit_length())
            rows = self._trial_rows(n)
            returned = self._try(function, x[:rows], rows == n)
            if rows == n:
                return returned
            if self._executor is None:
                return self._here(function, x)
        return self._shared(function, x)

    def stop(self) -> None:
        """Call the function here from now on."""
        self._executor = None
        if not self._given:
            _HELD.pop(self._key, None)

    def _worth(self, n: int) -> bool:
        """Whether n points take so long that handing them over pays, and there is somebody to take them."""
        if self._executor is None or n <= self._step or self._workers < 2:
            return False
        known = self._guess if self._seconds is None else self._seconds
        if known is None:
            return True
        work = n * known
        saved = work * (1.0 - 1.0 / min(self._workers, math.ceil(n / self._step)))
        if self._seconds is None and work < _SURELY:
            return False
        takes: Callable[[float], bool] | None = getattr(self._executor, "takes", None)
        cheap = saved < max(_BATCH_SECONDS + n * _POINT_SECONDS, self._shipping)
        return not cheap and (takes is None or takes(work))

    def _here(self, function: Callable[..., Any], x: Tensor) -> Any:
        if self._executor is None:
            return self._call(function, x)
        start = time.perf_counter()
        returned = self._call(function, x)
        self._seconds = (time.perf_counter() - start) / max(len(x), 1)
        return returned

    def _trial_rows(self, n: int) -> int:
        """How many of n points a trial takes: at least two pieces."""
        known = self._seconds or self._guess or 0.0
        rows = n if n * known <= _TRIAL else max(2 * self._step, int(_TRIAL / known) // self._step * self._step)
        return n if 2 * rows > n else rows

    def _try(self, function: Callable[..., Any], x: Tensor, counts: bool) -> Any:
        """Values found here, and compared with those of workers, which do not count, nor do those from here if not so.

        If they differ in any bit nothing is shared out from now on.
        """
        limits = limits_of(function)
        before = Counter(limits())
        returned = self._here(function, x)
        before = Counter(limits()) if counts else before
        answers = self._ask(function, x)
        self.counted.subtract(Counter(limits()) - before)
        if any(answer.error for answer in answers) or _same(plain(returned), self._joined(x, answers)):
            return returned
        self._executor = None
        if self._tell is not None:
            self._tell("the function is not shared out: the last digits of its values change with the batch")
        return returned

    def _pieces(self, x: Tensor) -> Iterator[Tensor]:
        """Even shares for the workers that begin at multiples of the step."""
        blocks = math.ceil(len(x) / self._step)
        count = min(self._workers, blocks)
        edges = [self._step * (blocks * k // count) for k in range(count)] + [len(x)]
        yield from (x[low:high] for low, high in itertools.pairwise(edges))

    def _shared(self, function: Callable[..., Any], x: Tensor) -> Any:
        """Values found by the workers; what the function raised there it raises here again."""
        start = time.perf_counter()
        answers = self._ask(function, x)
        wall, longest = time.perf_counter() - start, max(answer.seconds for answer in answers)
        for answer, piece in zip(answers, self._pieces(x), strict=True):
            if answer.error:
                self._call(function, piece)
                raise RuntimeError(f"in a worker, and not here: {answer.error}")
        joined = self._joined(x, answers)
        if joined is None:
            return self._call(function, x)
        for answer in answers:
            self.counted.update(answer.counted)
        self._seconds = sum(answer.seconds for answer in answers) / len(x)
        self._batches += 1
        if self._batches > 1:  # the first one waits for workers that begin
            self._shipping = min(self._shipping or math.inf, wall - longest)
        return joined

    def _ask(self, function: Callable[..., Any], x: Tensor) -> list[_Answer]:
        """The answers of the workers for all pieces; those that lack the function get it."""
        executor = self._executor
        if executor is None:
            raise RuntimeError("the workers have gone")
        if not self._given:
            hold(self._key, function, os.getpid())
        tasks = [_Task(self._key, self._call, piece.detach().cpu().numpy()) for piece in self._pieces(x)]
        found = [_result(item) for item in executor.map(_work, tasks)]
        lacking = [index for index, answer in enumerate(found) if answer is None]
        if lacking:
            carrier = carrier_of(function)
            again = [replace(tasks[index], carrier=carrier) for index in lacking]
            for index, item in zip(lacking, executor.map(_work, again), strict=True):
                found[index] = _result(item)
        return found

    def _joined(self, x: Tensor, answers: Sequence[_Answer]) -> Any:
        """The values of all pieces, None if they are not one for each point, which the caller of the function says."""
        parts = [answer.returned for answer in answers]
        sizes = [len(piece) for piece in self._pieces(x)]
        if not all(map(_fits, parts, sizes, [parts[0]] * len(parts))):
            return None
        if not isinstance(parts[0], Mapping):
            return np.concatenate(parts)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


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


def limits_of(function: Callable[..., Any]) -> Callable[[], dict[str, int]]:
    """What a function, or the object whose method it is, counts.

    >>> limits_of(torch.sin)()
    {}
    """
    found: Callable[[], dict[str, int]] = getattr(getattr(function, "__self__", function), "limits", dict)
    return found


def carrier_of(function: Callable[..., Any]) -> Carrier:
    """What makes the function anew in a worker: by its `rebuild`, or that of the object whose method it is.

    Without one the function is pickled as it is.

    >>> carrier_of(torch.sin)() is torch.sin
    True
    """
    owner = getattr(function, "__self__", function)
    rebuild: Carrier | None = getattr(owner, "rebuild", None)
    if rebuild is None:
        return partial(_identical, function)
    return rebuild if owner is function else partial(_method, rebuild, function.__name__)


def _identical(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def _method(rebuild: Carrier, name: str) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(rebuild(), name)
    return found


def _result(item: Any) -> Any:
    """Of a future, or what an executor returned without one."""
    return item.result() if hasattr(item, "result") else item


def _work(task: _Task) -> _Answer | None:
    """What a worker does; None if it lacks the function and the task does not bring it."""
    if task.key not in _HELD:
        if task.carrier is None:
            return None
        hold(task.key, task.carrier())
    held = _HELD[task.key]
    limits = limits_of(held.function)
    # What a function counts is right, and known for one piece, if no other piece is evaluated meanwhile.
    with nullcontext() if limits is dict else held.lock:
        counts = held.home != os.getpid()
        before = Counter(limits()) if counts else Counter()
        start = time.perf_counter()
        try:
            returned = plain(task.call(held.function, torch.from_numpy(task.piece)))
        except Exception as error:
            return _Answer(error=f"{type(error).__name__}: {error}")
        seconds = time.perf_counter() - start
        after = limits() if counts else {}
    counted = {name: count - before[name] for name, count in after.items() if count != before[name]}
    return _Answer(returned, counted, seconds)


def plain(returned: Any) -> Any:
    """What a function returned, with NumPy arrays in place of tensors and lists.

    >>> plain({"x": torch.ones(2)})
    {'x': array([1., 1.], dtype=float32)}
    """
    if isinstance(returned, Mapping):
        return {name: plain(value) for name, value in returned.items()}
    return returned.detach().cpu().numpy() if isinstance(returned, Tensor) else np.asarray(returned)


def _fits(part: Any, n: int, first: Any) -> bool:
    """Whether there are values for n points, in the form of those of the first piece."""
    if isinstance(first, Mapping) or isinstance(part, Mapping):
        same = isinstance(first, Mapping) and isinstance(part, Mapping) and list(part) == list(first)
        return same and all(_fits(part[name], n, first[name]) for name in part)
    return bool(part.ndim > 0 and part.shape == (n, *first.shape[1:]))


def _same(whole: Any, pieces: Any) -> bool:
    """Whether two tables of values are the same to the last bit."""
    if pieces is None or isinstance(whole, Mapping) != isinstance(pieces, Mapping):
        return False
    if isinstance(whole, Mapping):
        return list(whole) == list(pieces) and all(_same(whole[name], pieces[name]) for name in whole)
    return bool(whole.dtype == pieces.dtype and whole.shape == pieces.shape and whole.tobytes() == pieces.tobytes())
