"""Unweighted events in shards: each depends on the seed and its number alone, and appears complete or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from nisampler.base.device import point_threads
from nisampler.base.locks import lock_folder
from nisampler.base.outputs import new_folder
from nisampler.base.rng import Streams
from nisampler.base.storage import make_folder, read_sealed, remove_stale, sha256, write_sealed
from nisampler.errors import CorruptFileError, StorageError
from nisampler.events import (
    PointBatch,
    iterate_points,
    merge_shards,
    shard_path,
    write_events,
    write_points,
)
from nisampler.result import Result
from nisampler.run import lookup
from nisampler.run.directory import RunDirectory
from nisampler.run.generation.shards import SUFFIX, Generated, Shard, refuse_strangers, sizes
from nisampler.run.job import Job, build_job
from nisampler.run.stages import chain
from nisampler.ui.monitor import SILENT, LogMonitor, Monitor, Monitors, log_end

CHECKSUMS = "checksums.json"
_CHUNK = 50_000


class Generator:
    """Writes shards of unweighted events, leaving out those that are there already.

    Parameters
    ----------
    job
        The process.
    result
        The frozen sampler, w_max and the integral.
    streams
        Source of all random numbers; shard k uses those of number k only.
    run
        Which run this is; shards of another one are refused.

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.api import Chain
    >>> from nisampler.run.card import parse_card
    >>> quick = {"training.calls": 5000, "training.sampler": "vegas", "integration.points": 2048}
    >>> job = build_job(parse_card('process = "camel4"', overrides=quick), "camel4", "cpu")
    >>> stages = Chain(job.integrand, job.chain(threads=1), job.device, SILENT)
    >>> result = stages.integrate(stages.train())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = Generator(job, result, job.streams).fill(Path(folder), 25, 10, SILENT)
    >>> [shard.events for shard in made.shards]
    [10, 10, 5]
    """

    def __init__(self, job: Job, result: Result, streams: Streams, run: str = "") -> None:
        self._job, self._result, self._streams, self._run = job, result, streams, run
        self._unweighter = result.unweighter(streams)

    def fill(self, folder: Path, n: int, shard_size: int, monitor: Monitor) -> Generated:
        """Make the missing shards of n events in `folder`.

        Raises
        ------
        EventCountError
            If the events cannot be had within the budget of trials.
        CorruptFileError
            If an existing shard was altered; it is named.
        StorageError
            If the folder cannot be written, or holds shards that do not belong there.
        """
        make_folder(folder)
        remove_stale(folder)
        planned = sizes(n, shard_size)
        refuse_strangers(folder, len(planned))
        shards = []
        done = 0
        for index, size in enumerate(planned):
            monitor.progress("events", done, n, {})
            shards.append(self._stored(folder, index, size) or self._make(folder, index, size))
            done += size
        monitor.progress("events", n, n, {})
        return Generated(shards)

    def _stored(self, folder: Path, index: int, size: int) -> Shard | None:
        """The record of a shard that is complete."""
        path = shard_path(folder, index, SUFFIX)
        shard = Shard.read(path)
        if shard is None:
            return None
        if shard.identity != (self._run, self._streams.seed, index, size):
            raise CorruptFileError(f"{path} is not of this run: delete it and start the command again")
        counters = self._job.integrand
        spent = {"calls": shard.calls, "zeros": shard.zeros, "nonfinite": shard.nonfinite}
        counters.restore_counts({name: count + spent[name] for name, count in counters.counts().items()})
        return shard

    def _make(self, folder: Path, index: int, size: int) -> Shard:
        job, path = self._job, shard_path(folder, index, SUFFIX)
        before = job.integrand.counts()
        points = self._unweighter.generate(size, index)
        if job.process.has_events:
            generator = self._streams.generator("event record", index)
            batch = job.process.events(points.u, points.weights, generator)
            info = job.init_info(self._result.estimate, self._result.signed)
            write_events(path, batch, info, size)
        else:
            write_points(path, point_batch(job, points.u, points.weights), job.process.unit, size, job.domain)
        spent = {name: count - before[name] for name, count in job.integrand.counts().items()}
        shard = Shard(
            run=self._run,
            seed=self._streams.seed,
            index=index,
            events=size,
            calls=spent["calls"],
            zeros=spent["zeros"],
            nonfinite=spent["nonfinite"],
            trials=points.trials,
            weight_sum=points.weight_sum,
            overweight_sum=points.overweight_sum,
            sha256=sha256(path),
        )
        shard.write(path)
        return shard


def point_batch(job: Job, u: torch.Tensor, weights: torch.Tensor) -> PointBatch:
    """Cube points (n, dim) as points of the process's domain with weights (n,).

    >>> from nisampler.run.card import parse_card
    >>> card = parse_card('process = "camel4"', overrides={"integrand.domain": [[0.0, 2.0]] * 4})
    >>> job = build_job(card, "camel4", "cpu")
    >>> point_batch(job, torch.full((1, 4), 0.5, dtype=torch.float64), torch.ones(1)).x
    array([[1., 1., 1., 1.]])
    """
    return PointBatch(job.integrand.to_domain(u).cpu().numpy(), weights.double().cpu().numpy())


def point_batches(folder: Path) -> Iterator[PointBatch]:
    """The points of all shards in order.

    >>> import tempfile
    >>> import numpy as np
    >>> box, points = np.array([[0.0, 1.0]]), PointBatch(np.full((5, 1), 0.5), np.ones(5))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for index in range(2):
    ...         _ = write_points(shard_path(Path(folder), index, SUFFIX), points, "", 5, box)
    ...     [len(batch.weights) for batch in point_batches(Path(folder))]
    [5, 5]
    """
    index = 0
    while (path := shard_path(folder, index, SUFFIX)).is_file():
        yield from iterate_points(path, _CHUNK)
        index += 1


def finish(job: Job, shards: Path, target: Path, n: int) -> list[str]:
    """Merge the shards to one file ``events.*`` for each format in `target`; those with a good checksum are kept.

    Returns
    -------
    list[str]
        The names of the files.

    Raises
    ------
    CorruptFileError, EventCountError, EventFormatError, StorageError
        If a shard is damaged or missing, or a file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.run.card import parse_card
    >>> job = build_job(parse_card('process = "camel4"'), "camel4", "cpu")
    >>> points = point_batch(job, torch.rand(5, 4, dtype=torch.float64), torch.ones(5))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = write_points(shard_path(Path(folder), 0, SUFFIX), points, "", 5, job.domain)
    ...     finish(job, Path(folder), Path(folder), 5)
    ['events.h5']
    """
    names = []
    checksums = _checksums(target / CHECKSUMS)
    for ending in job.formats:
        path = target / f"events.{ending}"
        names.append(path.name)
        if path.is_file() and sha256(path) == checksums.get(path.name):
            continue
        if job.process.has_events:
            merge_shards(shards, path, average=job.average)
        else:
            write_points(path, point_batches(shards), job.process.unit, n, job.domain)
        checksums[path.name] = sha256(path)
        write_sealed(target / CHECKSUMS, checksums)
    return names


def file_problems(folder: Path, names: Iterable[str]) -> Iterator[str]:
    """What is wrong with the finished event files of a folder, in words.

    >>> list(file_problems(Path("nowhere"), ["events.h5"]))
    ['nowhere/events.h5 is missing']
    """
    checksums = _checksums(folder / CHECKSUMS)
    for name in names:
        path = folder / name
        if not path.is_file():
            yield f"{path} is missing"
        elif sha256(path) != checksums.get(name):
            yield f"{path} was altered"


def _checksums(path: Path) -> dict[str, str]:
    """The checksums of finished files by name; none if the file is missing or damaged."""
    with suppress(StorageError):
        return {str(name): str(value) for name, value in read_sealed(path).items()}
    return {}


def overweight_warnings(made: Generated, job: Job) -> list[str]:
    """Warnings where showers lose the excess of overweight events, and where it is far above what the policy allows.

    >>> from nisampler.run.card import parse_card
    >>> job = build_job(parse_card('process = "camel4"'), "camel4", "cpu")
    >>> shard = Shard("", 1, 0, 20, calls=512, zeros=0, nonfinite=0, trials=250, weight_sum=20.0, overweight_sum=1.0)
    >>> overweight_warnings(Generated([shard]), job)
    ['the excess of overweight events is 5 % of the integral, above 1 %: the integration missed ...']
    """
    found, limit = made.overweight_fraction or 0.0, max(10 * job.card.unweighting.overweight, 0.01)
    lost = [
        f"showers take events of IDWTUP = ±3 for ±1 and lose the excess of overweight ones, {100 * found:.3g} % of the "
        'integral; events.weights = "average" keeps it'
    ]
    warned = lost if found > 0 and job.process.has_events and not job.average else []
    if found <= limit:
        return warned
    return [
        *warned,
        f"the excess of overweight events is {100 * found:.3g} % of the integral, above {100 * limit:.3g} %: the "
        "integration missed the largest weights; train longer or raise integration.points",
    ]


def generate_events(
    directory: RunDirectory, n: int, seed: int, target: Path, watcher: Monitor = SILENT
) -> dict[str, Any]:
    """Write `n` events of a finished run with another seed to `target`; an interrupted call is continued.

    The run is only read, so that many can do so at once; the log is ``run.log`` in `target`.

    Returns
    -------
    dict
        The content of ``generated.json`` in `target`.

    Raises
    ------
    StorageError
        If the run has no frozen sampler and integral yet, or `target` holds something else or is in use.
    NisamplerError
        As the stages do.

    Examples
    --------
    >>> import tempfile
    >>> settings = {"process": "camel4", "device": "cpu", "threads": 1, "versions": {}}
    >>> quick = {"training.calls": 5000, "training.sampler": "vegas", "integration.points": 2048}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with RunDirectory.create(f"{folder}/run", 'process = "camel4"', settings, quick) as run:
    ...         stages = chain(build_job(run.card, "camel4", "cpu"), run, SILENT)
    ...         _ = stages.integrate(stages.train())
    ...         generate_events(run, 20, 7, Path(folder) / "more")["files"]
    ['events.h5']
    """
    directory.require_integral()
    run = directory.identity()
    order = {"n_events": n, "seed": seed, "run": run}
    settings, log = directory.settings, target / "run.log"
    with _claimed(target, order), log_end(log), point_threads(settings["threads"]):
        monitor = Monitors([LogMonitor(log), watcher])
        directory.check_source()
        lookup.announce(settings["process"], monitor)
        job = build_job(directory.card, settings["process"], settings["device"])
        stages = chain(job, directory, monitor)
        generator = Generator(job, stages.integrate(stages.train()), Streams(seed), run)
        made = generator.fill(target / "shards", n, directory.card.events.shard_size, monitor)
        names = finish(job, target / "shards", target, n)
        same = f"seed {seed} is that of the run itself: these events repeat the run's own"
        result = order | {
            "efficiency_generated": made.efficiency,
            "overweight_fraction": made.overweight_fraction,
            "calls": {"generation": made.calls, "events": job.record_calls(made.events)},
            "weights": "average" if job.average else "unit",
            "files": names,
            "warnings": [
                *([same] if seed == directory.card.seed else []),
                *overweight_warnings(made, job),
            ],
        }
        write_sealed(target / "generated.json", result)
        monitor.line(f"generated {n} events with seed {seed} in {target}")
    return result


@contextmanager
def _claimed(target: Path, order: dict[str, Any]) -> Iterator[None]:
    """Make `target` the place of these events, or find that it is already, and lock it meanwhile."""
    path = target / "order.json"
    if not path.is_file():
        new_folder(target)
        try:
            make_folder(target)
        except StorageError as error:
            raise StorageError(f"{error}; --output puts the events elsewhere") from error
    with lock_folder(target):
        if not path.is_file():
            write_sealed(path, order)
        elif read_sealed(path) != order:
            raise StorageError(f"{target} holds other events: choose another --output")
        yield
