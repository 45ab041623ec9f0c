"""Shards made side by side by the workers of an executor: processes of this machine, of a cluster, or of MPI."""

from __future__ import annotations

import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from nisampler.base.device import point_threads, threads_for_points
from nisampler.errors import NisamplerError, WorkerError
from nisampler.run.generation.generator import Generator
from nisampler.run.generation.shards import Shard
from nisampler.run.sharing import DEATH, worker_pool
from nisampler.ui.monitor import Monitor

_SECONDS_BETWEEN_LOOKS = 1.0
_KILOBYTES = 1024


class Recipe(Protocol):
    """How a worker makes its generator; it can be pickled, and equal ones make the same.

    >>> from contextlib import nullcontext
    >>> class Nothing:
    ...     def environment(self): return nullcontext()
    ...     def generator(self): raise NotImplementedError
    >>> recipe: Recipe = Nothing()
    """

    def environment(self) -> AbstractContextManager[None]:
        """Entered while the worker is at work."""
        ...

    def generator(self) -> Generator:
        """Made once in each worker."""
        ...

    def __hash__(self) -> int: ...


@dataclass(frozen=True)
class Crew:
    """Workers that may be anywhere.

    Attributes
    ----------
    executor
        As those of `concurrent.futures`: of processes, of Dask (``client.get_executor()``), of mpi4py.
    figures
        What is told of the workers beside the progress.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> with ThreadPoolExecutor(2) as executor:
    ...     Crew(executor).figures()
    {}
    """

    executor: Executor
    figures: Callable[[], Mapping[str, str]] = dict


@dataclass(frozen=True)
class Made:
    """A shard, and what it cost a worker.

    Attributes
    ----------
    shard
        Its record.
    worker
        Machine and number of the process.
    seconds
        CPU-seconds, the start of the worker left out.
    memory
        The most that the process has taken so far, in MiB.

    Examples
    --------
    >>> shard = Shard("", 1, 0, events=20, calls=512, zeros=0, nonfinite=0, trials=250, weight_sum=21.0)
    >>> Made(shard, "node1:4711", 0.5, 300).worker
    'node1:4711'
    """

    shard: Shard
    worker: str
    seconds: float
    memory: int


@contextmanager
def processes(workers: int) -> Iterator[Crew]:
    """Processes of this machine; whatever happens they end, after the shard that they are at.

    >>> with processes(2) as crew:
    ...     type(crew.executor).__name__
    'ProcessPoolExecutor'
    """
    with worker_pool(workers) as pool:
        yield Crew(pool)


def spread(recipe: Recipe, folder: Path, todo: Sequence[tuple[int, int]], crew: Crew, monitor: Monitor) -> list[Shard]:
    """Make shards in `folder` by several workers.

    Parameters
    ----------
    recipe
        Makes the generator, once in each worker.
    folder
        Where the shards go; the workers see it, too.
    todo
        Numbers and sizes of the shards.
    crew
        The workers.
    monitor
        Is told about progress and each worker, and of their memory at the end.

    Returns
    -------
    list[Shard]
        In the order of `todo`.

    Raises
    ------
    WorkerError
        If a worker died, or fails for a reason that has no name here; what was finished stays.
    NisamplerError
        As `Generator.shard` does.

    Examples
    --------
    >>> from nisampler.ui.monitor import SILENT
    >>> with processes(2) as crew:
    ...     spread(None, Path("nowhere"), [], crew, SILENT)
    []
    """
    place, threads, total = folder.absolute(), threads_for_points(), sum(size for _, size in todo)
    futures = [crew.executor.submit(_make, recipe, threads, place, index, size) for index, size in todo]
    found: dict[int, Shard] = {}
    tallies: dict[str, _Tally] = {}
    with as_they_end(futures) as ended:
        for future in ended:
            if future is not None:
                made = outcome(future)
                found[made.shard.index] = made.shard
                tallies.setdefault(made.worker, _Tally()).add(made)
            figures = {"shards": f"{len(found)}/{len(todo)}", **crew.figures()}
            monitor.progress("events", sum(tally.events for tally in tallies.values()), total, figures)
            monitor.workers({name: tallies[name].figures() for name in sorted(tallies)})
    if tallies:
        peak, seconds = max(t.memory for t in tallies.values()), sum(t.seconds for t in tallies.values())
        who = "1 worker" if len(tallies) == 1 else f"{len(tallies)} workers"
        monitor.line(f"{who}, at most {peak} MiB each, {seconds:.1f} CPU-seconds for events")
    return [found[index] for index, _ in todo]


@contextmanager
def as_they_end(futures: Collection[Future[Any]]) -> Iterator[Iterator[Future[Any] | None]]:
    """Futures in the order in which they end, and None for every second without one; leaving cancels the rest.

    >>> future = Future()
    >>> future.set_result(5)
    >>> with as_they_end([future]) as ended:
    ...     [found.result() for found in ended]
    [5]
    """
    ended: SimpleQueue[Future[Any]] = SimpleQueue()
    for future in futures:
        future.add_done_callback(ended.put)
    try:
        yield _taken(ended, len(futures))
    finally:
        for future in futures:
            future.cancel()


def _taken(ended: SimpleQueue[Future[Any]], left: int) -> Iterator[Future[Any] | None]:
    while left:
        try:
            yield ended.get(timeout=_SECONDS_BETWEEN_LOOKS)
            left -= 1
        except Empty:
            yield None


def outcome(future: Future[Any]) -> Any:
    """What a worker returned.

    Raises
    ------
    NisamplerError
        That the worker met.
    WorkerError
        If the worker died, or failed for a reason that has no name here.

    Examples
    --------
    >>> future = Future()
    >>> future.set_result(5)
    >>> outcome(future)
    5
    """
    try:
        return future.result()
    except NisamplerError:
        raise
    except Exception as error:
        raise WorkerError(f"{DEATH} ({type(error).__name__}: {error})") from error


@dataclass
class _Tally:
    """What one worker has made so far."""

    shards: int = 0
    events: int = 0
    seconds: float = 0.0
    memory: int = 0

    def add(self, made: Made) -> None:
        self.shards += 1
        self.events += made.shard.events
        self.seconds += made.seconds
        self.memory = max(self.memory, made.memory)

    def figures(self) -> dict[str, str]:
        counts = {"shards": str(self.shards), "events": str(self.events)}
        return counts | {"CPU-s": f"{self.seconds:.1f}", "MiB": str(self.memory)}


_ONE_AT_A_TIME = threading.Lock()
_OWN: dict[Recipe, Generator] = {}
"""In a worker: what makes its shards, of the last recipe that it was given."""


def _make(recipe: Recipe, threads: int, folder: Path, index: int, size: int) -> Made:
    """Make a shard in a worker; threads of one worker, which some clusters have, take turns."""
    with _ONE_AT_A_TIME, recipe.environment(), point_threads(threads):
        if recipe not in _OWN:
            _OWN.clear()
            _OWN[recipe] = recipe.generator()
        begin = time.process_time()
        shard = _OWN[recipe].shard(folder, index, size)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // _KILOBYTES
        return Made(shard, f"{socket.gethostname()}:{os.getpid()}", time.process_time() - begin, peak)
