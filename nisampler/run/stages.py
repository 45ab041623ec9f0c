"""The stages of a run whose results are stored: the chain of `nisampler.api`, in the run's directory and timed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from nisampler.api import Chain
from nisampler.run.directory import RunDirectory
from nisampler.run.job import Job
from nisampler.stored import Timeline, stored_timeline
from nisampler.ui.monitor import Monitor

TRAINING = "training"
"""The stage whose calls have a timeline."""
_CLOCK_SECONDS = 2.0
# Notes of a timeline, at most.
_MOST = 400


class Clock(Monitor):
    """Seconds of each stage, added up over the sessions of a run; nothing else depends on them.

    As a monitor it notes the time at most every two seconds, so that a killed session counts too, and CPU-seconds of
    the training against its calls.

    Parameters
    ----------
    directory
        Where the seconds are remembered.

    Examples
    --------
    >>> import tempfile
    >>> settings = {"process": "camel4", "device": "cpu", "threads": 1, "versions": {}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with RunDirectory.create(folder, 'process = "camel4"', settings) as run:
    ...         clock = Clock(run)
    ...         with clock.stage("training"):
    ...             pass
    ...         list(run.seconds())
    ['training']
    """

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self._seconds = directory.seconds()
        self._stage, self._since, self._started = "", 0.0, 0.0
        self._timeline = stored_timeline(directory.path) or Timeline()
        self._spent = self._timeline.seconds[-1] if self._timeline.seconds else 0.0

    @property
    def seconds(self) -> dict[str, float]:
        """Rounded to milliseconds."""
        return {name: round(value, 3) for name, value in self._seconds.items()}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time spent inside for `name`."""
        self._stage, self._since = name, time.monotonic()
        self._started = time.process_time()
        try:
            yield
        finally:
            self._note()

    def progress(self, stage: str, done: int, total: int, figures: Mapping[str, str]) -> None:
        """Note the time of the present stage now and then."""
        if self._stage == TRAINING and figures:
            last = self._timeline.calls[-1] if self._timeline.calls else 0
            if not 0 <= done - last < total / _MOST:
                self._timeline.note(done, self._spent + time.process_time() - self._started)
        if time.monotonic() - self._since > _CLOCK_SECONDS:
            self._note()

    def _note(self) -> None:
        now = time.monotonic()
        self._seconds[self._stage] = self._seconds.get(self._stage, 0.0) + now - self._since
        self._since = now
        self._directory.store_seconds(self.seconds)
        if self._stage == TRAINING and self._timeline.calls:
            self._directory.store_timeline(self._timeline)


def chain(job: Job, directory: RunDirectory, monitor: Monitor) -> Chain:
    """The chain of a run: what an earlier session has finished is read, the rest is done.

    >>> import tempfile
    >>> from nisampler.run.job import build_job
    >>> from nisampler.ui.monitor import SILENT
    >>> settings = {"process": "camel4", "device": "cpu", "threads": 1, "versions": {}}
    >>> quick = {"training.calls": 5000, "training.sampler": "vegas"}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with RunDirectory.create(folder, 'process = "camel4"', settings, quick) as run:
    ...         trained = chain(build_job(run.card, "camel4", "cpu"), run, SILENT).train()
    ...         run.sampler.is_dir(), trained.counts["calls"] <= 5000
    (True, True)
    """
    return Chain(job.integrand, job.chain(directory.settings["threads"]), job.device, monitor, directory.path)
