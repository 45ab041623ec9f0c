"""Shards made side by side by processes of one machine; each worker loads the run once."""

from __future__ import annotations

import multiprocessing
import resource
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nisampler.base.device import point_threads, threads_for_points
from nisampler.errors import WorkerError
from nisampler.run.generation.generator import Generator
from nisampler.run.generation.shards import Shard
from nisampler.ui.monitor import Monitor

Build = Callable[[], Generator]

_HELD = ExitStack()
_OWN: list[Generator] = []
"""In a worker: what makes its shards."""


def spread(build: Build, folder: Path, todo: Sequence[tuple[int, int]], workers: int, monitor: Monitor) -> list[Shard]:
    """Make shards in `folder` by `workers` processes.

    Parameters
    ----------
    build
        Makes the generator, once in each worker; it can be pickled.
    folder
        Where the shards go.
    todo
        Numbers and sizes of the shards.
    workers
        How many processes.
    monitor
        Is told about progress, and of the memory of a worker at the end.

    Returns
    -------
    list[Shard]
        In the order of `todo`.

    Raises
    ------
    WorkerError
        If a worker died; what it finished stays.
    NisamplerError
        As `Generator.shard` does.

    Examples
    --------
    >>> from nisampler.ui.monitor import SILENT
    >>> spread(print, Path("nowhere"), [], 2, SILENT)
    []
    """
    total, done = sum(size for _, size in todo), 0
    if not todo:
        return []
    found: dict[int, Shard] = {}
    with _pool(build, min(workers, len(todo))) as pool:
        futures: list[Future[Shard]] = [pool.submit(_make, folder, index, size) for index, size in todo]
        for future in as_completed(futures):
            shard = future.result()
            found[shard.index] = shard
            done += shard.events
            monitor.progress("events", done, total, {})
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    monitor.line(f"{min(workers, len(todo))} workers, at most {peak} MiB each")
    return [found[index] for index, _ in todo]


@contextmanager
def _pool(build: Build, workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that have loaded the run; whatever happens they end, after the shard that they are at."""
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin, (build, threads_for_points()))
    try:
        yield pool
    except BrokenProcessPool as error:
        raise WorkerError(
            "a worker died, perhaps for lack of memory: start the command again, it continues; fewer workers need less"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(build: Build, threads: int) -> None:
    """Load the run in a new worker, which has the threads of its parent and leaves Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _HELD.enter_context(point_threads(threads))
    _OWN.append(build())


def _make(folder: Path, index: int, size: int) -> Shard:
    return _OWN[0].shard(folder, index, size)
