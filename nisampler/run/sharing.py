"""Processes of this machine that work for a run, and share the calls of its function."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from nisampler.base.device import point_threads, threads_for_points
from nisampler.density.spread import hold
from nisampler.errors import WorkerError
from nisampler.run.directory import RunDirectory
from nisampler.run.job import Job, build_job
from nisampler.ui.monitor import Monitor

# Seconds of work that are worth the start of workers, which takes as long.
_WORTH_A_START = 2.0

DEATH = "a worker died, perhaps for lack of memory: start the command again, it continues; fewer workers need less"

# What a server imports once for all workers, which are its forks: torch takes a second and most of a worker's memory.
_PRELOADED = ("nisampler.run.generation.generate",)

_HELD = ExitStack()


@contextmanager
def worker_pool(
    workers: int, prepare: Callable[[], object] | None = None, at_once: bool = False
) -> Iterator[ProcessPoolExecutor]:
    """Processes that end with the block, and with this process; they have called `prepare`, which can be pickled.

    They finish what they are at first, unless on a Ctrl-C or a request to end they are to end `at_once`.

    Raises
    ------
    WorkerError
        If one of them died.

    Examples
    --------
    >>> with worker_pool(2) as pool:
    ...     pass
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOADED))
    begin = (prepare, threads_for_points(), dict(os.environ))
    pool = ProcessPoolExecutor(workers, context, _begin, begin)
    before = multiprocessing.active_children()
    try:
        yield pool
    except BrokenProcessPool as error:
        raise WorkerError(DEATH) from error
    except KeyboardInterrupt:
        for process in multiprocessing.active_children() if at_once else ():
            if process not in before:
                process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(prepare: Callable[[], object] | None, threads: int, environment: dict[str, str]) -> None:
    """Prepare a new worker: with threads and environment of its parent, which gets Ctrl-C, and with which it ends."""
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _HELD.enter_context(point_threads(threads))
    if prepare is not None:
        prepare()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class Workers:
    """An executor whose workers start when there is work enough for them; until they are there it takes none.

    Parameters
    ----------
    workers
        How many.
    prepare
        See `worker_pool`.
    monitor
        Is told when they start.

    Examples
    --------
    >>> from nisampler.ui.monitor import SILENT
    >>> with Workers(2, print, SILENT).serving() as some:
    ...     some.takes(0.5), some.takes(0.5)
    (False, False)
    """

    def __init__(self, workers: int, prepare: Callable[[], object], monitor: Monitor) -> None:
        self._max_workers, self._prepare, self._monitor = workers, prepare, monitor
        self._stack = ExitStack()
        self._pool: ProcessPoolExecutor | None = None
        self._ready: list[Future[None]] = []
        self._seconds = 0.0

    @contextmanager
    def serving(self) -> Iterator[Workers]:
        """For the length of a block, at whose end the workers end; raises as `worker_pool` does."""
        with self._stack:
            yield self

    def takes(self, seconds: float) -> bool:
        """Whether work of so many seconds is to be handed over: to workers that are there, or are worth waiting for."""
        self._seconds += seconds
        if self._pool is None and self._seconds < _WORTH_A_START:
            return False
        self._started()
        return seconds > 2 * _WORTH_A_START or all(future.done() for future in self._ready)

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """Results in the order of the items; raises WorkerError if a worker died."""
        try:
            yield from self._started().map(function, items)
        except BrokenProcessPool as error:
            raise WorkerError(DEATH) from error

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._monitor.line(f"{self._max_workers} workers share the calls of the function")
            self._pool = self._stack.enter_context(worker_pool(self._max_workers, self._prepare, at_once=True))
            self._ready = [self._pool.submit(time.sleep, 0.01) for _ in range(self._max_workers)]
        return self._pool


@contextmanager
def shared(job: Job, run: Path, workers: int, monitor: Monitor) -> Iterator[Job]:
    """The same job, whose function's calls `workers` processes share, each of which builds the process of the run once.

    Values do not depend on it. With one worker it is the job itself.

    Raises
    ------
    WorkerError
        If a worker died.

    Examples
    --------
    >>> from nisampler.run.card import parse_card
    >>> from nisampler.ui.monitor import SILENT
    >>> job = build_job(parse_card('process = "camel4"'), "camel4", "cpu")
    >>> with shared(job, Path("run"), 1, SILENT) as same:
    ...     same is job
    True
    """
    if workers == 1:
        yield job
        return
    key = uuid.uuid4().hex
    several = Workers(workers, partial(_hold_function, run, key), monitor)
    with several.serving(), job.integrand.sharing(several, key, monitor.line) as integrand:
        yield replace(job, integrand=integrand)


def _hold_function(run: Path, key: str) -> None:
    """What a worker calls for the pieces of points that it gets."""
    directory = RunDirectory.read(run)
    job = build_job(directory.card, directory.settings["process"], directory.settings["device"])
    hold(key, job.integrand.shared_function()[1])
