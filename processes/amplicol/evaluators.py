"""Matrix elements in this process or in a pool of worker processes."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from nisampler.base.checks import Count, checked
from nisampler.errors import AmplitudeError
from nisampler.processes.amplicol import worker
from nisampler.processes.amplicol.cache import child_environment
from nisampler.processes.amplicol.worker import Array, Column, MatrixElements

_CHUNK = 4096
_LOG_TAIL = 2000
_JOIN_SECONDS = 5.0


class Evaluator(Protocol):
    """Evaluates columns of matrix elements (see `MatrixElements`) at momenta (n, legs, 4), incoming legs first.

    >>> LocalEvaluator({"artifact": "nowhere", "parameters": {}}).close()
    """

    def evaluate(self, momenta: Array, columns: Sequence[Column]) -> Array:
        """Values (n, len(columns))."""

    def words(self, process: str) -> list[tuple[str, list[int]]]:
        """Ids and words of the leading-colour flows of a process."""

    def close(self) -> None:
        """Let go of processes and memory; evaluation starts anew when asked."""


class LocalEvaluator:
    """Evaluation in this process, without any overhead, in the thread that evaluates first.

    It marks the module `symbolica` as not importable, unless the process has it already (see `MatrixElements`).

    >>> LocalEvaluator({"artifact": "nowhere", "parameters": {}}).close()
    """

    def __init__(self, specification: dict[str, Any]) -> None:
        self._specification = specification
        self._elements: MatrixElements | None = None
        self._thread = 0

    def evaluate(self, momenta: Array, columns: Sequence[Column]) -> Array:
        """Values (n, len(columns)).

        Raises
        ------
        AmplitudeError
            If pyamplicol fails, or another thread evaluated first.
        """
        with self._failures():
            return self._loaded().evaluate(momenta, columns)

    def words(self, process: str) -> list[tuple[str, list[int]]]:
        """Ids and words of the leading-colour flows of a process; raises AmplitudeError if pyamplicol fails."""
        with self._failures():
            return self._loaded().words(process)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except AmplitudeError:
            raise
        except Exception as error:
            raise AmplitudeError(f"pyamplicol failed on {self._specification['artifact']}: {error}") from error

    def _loaded(self) -> MatrixElements:
        if self._elements is None:
            self._thread = threading.get_ident()
            self._elements = MatrixElements(self._specification)
        elif self._thread != threading.get_ident():
            raise AmplitudeError(
                "these matrix elements belong to the thread that evaluated first: evaluate in one thread, "
                "or set workers to 1 or more"
            )
        return self._elements

    def close(self) -> None:
        """Forget the loaded matrix elements."""
        self._elements = None


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection
    log: IO[bytes]


def _stop(workers: list[_Worker]) -> None:
    for one in workers:
        one.connection.close()
    for one in workers:
        try:
            one.process.wait(_JOIN_SECONDS)
        except subprocess.TimeoutExpired:
            one.process.kill()
            one.process.wait()
        one.log.close()
    workers.clear()


class WorkerPool:
    """Evaluation in worker processes, which start on the first call and end with this object or this process.

    Parameters
    ----------
    specification
        What the workers load, see `MatrixElements`.
    workers
        Number of processes, at least one.
    interpreter
        Python that runs them: one that has numpy and pyamplicol.

    Raises
    ------
    ConfigError
        If the number of workers is not a positive integer.

    Examples
    --------
    >>> WorkerPool({"artifact": "nowhere", "parameters": {}}, workers=2).close()
    >>> WorkerPool({}, workers=0)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: workers = 0: must be a whole number, at least 1
    """

    def __init__(self, specification: dict[str, Any], workers: int, interpreter: str = sys.executable) -> None:
        checked("workers", workers, Count)
        self._specification = specification
        self._count = workers
        self._interpreter = interpreter
        self._workers: list[_Worker] = []
        self._lock = threading.Lock()
        self._finalizer = weakref.finalize(self, _stop, self._workers)

    def evaluate(self, momenta: Array, columns: Sequence[Column]) -> Array:
        """Values (n, len(columns)), the rows shared out among the workers.

        Raises
        ------
        AmplitudeError
            If a worker fails or dies; the pool is then stopped, and started again by the next call.
        """
        with self._lock:
            return self._evaluate(momenta, columns)

    def _evaluate(self, momenta: Array, columns: Sequence[Column]) -> Array:
        values = np.empty((len(momenta), len(columns)))
        size = max(1, min(_CHUNK, -(-len(momenta) // self._count)))
        blocks = [slice(start, start + size) for start in range(0, len(momenta), size)]
        try:
            if not self._workers:
                self._start()
            busy: dict[object, tuple[_Worker, slice]] = {}
            idle = list(self._workers)
            while blocks or busy:
                while blocks and idle:
                    one, rows = idle.pop(), blocks.pop(0)
                    self._ask(one, momenta[rows], columns)
                    busy[one.connection] = one, rows
                for connection in wait([one.connection for one, _ in busy.values()]):
                    one, rows = busy.pop(connection)
                    values[rows] = np.frombuffer(self._receive(one)).reshape(values[rows].shape)
                    idle.append(one)
        except BaseException:
            self.close()
            raise
        return values

    def _ask(self, one: _Worker, block: Array, columns: Sequence[Column]) -> None:
        self._send(one, json.dumps({"shape": block.shape, "columns": list(columns)}).encode())
        self._send(one, np.ascontiguousarray(block).data.cast("B"))

    def words(self, process: str) -> list[tuple[str, list[int]]]:
        """Ids and words of the leading-colour flows of a process; raises AmplitudeError if a worker fails or dies."""
        with self._lock:
            try:
                if not self._workers:
                    self._start()
                self._send(self._workers[0], json.dumps({"words": process}).encode())
                return [(flow, word) for flow, word in json.loads(bytes(self._receive(self._workers[0])))]
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Stop the workers."""
        _stop(self._workers)

    def _start(self) -> None:
        for _ in range(self._count):
            self._workers.append(self._launch())
        for one in self._workers:
            self._send(one, json.dumps(self._specification).encode())
        for one in self._workers:
            self._receive(one)

    def _launch(self) -> _Worker:
        ours, theirs = multiprocessing.Pipe()
        log = tempfile.TemporaryFile()
        try:
            process = subprocess.Popen(  # noqa: S603
                [self._interpreter, "-P", str(Path(worker.__file__)), str(theirs.fileno())],
                env=child_environment(OMP_NUM_THREADS="1"),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            log.close()
            raise AmplitudeError(f"the interpreter {self._interpreter} of a worker cannot run: {error}") from error
        finally:
            theirs.close()
        return _Worker(process, ours, log)

    def _send(self, one: _Worker, message: bytes | memoryview) -> None:
        try:
            one.connection.send_bytes(message)
        except OSError as error:
            raise self._death(one) from error

    def _receive(self, one: _Worker) -> memoryview:
        try:
            message = one.connection.recv_bytes()
        except (EOFError, OSError) as error:
            raise self._death(one) from error
        if message[:1] == worker.FAILURE:
            raise AmplitudeError(f"pyamplicol failed on {self._specification['artifact']}: {message[1:].decode()}")
        return memoryview(message)[1:]

    def _death(self, one: _Worker) -> AmplitudeError:
        with suppress(subprocess.TimeoutExpired):
            one.process.wait(_JOIN_SECONDS)
        code = one.process.returncode
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
        one.log.seek(0)
        tail = one.log.read()[-_LOG_TAIL:].decode(errors="replace").strip() or "it wrote nothing"
        return AmplitudeError(
            f"a worker process evaluating {self._specification['artifact']} {how}; its output: {tail}"
        )
