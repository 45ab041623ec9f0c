"""Unweighted events in shards: each depends on the seed and its number alone, and appears complete or not at all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch

from nisampler.base.rng import Streams
from nisampler.base.storage import sha256
from nisampler.errors import CorruptFileError, ProcessError
from nisampler.events import EventBatch, InitInfo, PointBatch, iterate_points, shard_path, write_events, write_points
from nisampler.events.matching import clustering_scales
from nisampler.events.shares import ProcessSums
from nisampler.result import Result
from nisampler.run.generation.header import file_header
from nisampler.run.generation.shards import SUFFIX, Shard
from nisampler.run.job import Job
from nisampler.ui.monitor import Monitor

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
    >>> from nisampler.run.job import build_job
    >>> from nisampler.ui.monitor import SILENT
    >>> quick = {"training.calls": 5000, "training.sampler": "vegas", "integration.points": 2048}
    >>> job = build_job(parse_card('process = "camel4"', overrides=quick), "camel4", "cpu")
    >>> stages = Chain(job.integrand, job.chain(threads=1), job.device, SILENT)
    >>> result = stages.integrate(stages.train())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     shards = Generator(job, result, job.streams).fill(Path(folder), [(0, 10), (1, 5)], SILENT)
    >>> [shard.events for shard in shards]
    [10, 5]
    """

    def __init__(self, job: Job, result: Result, streams: Streams, run: str = "") -> None:
        self._job, self._result, self._streams, self._run = job, result, streams, run
        self._unweighter = result.unweighter(streams)

    @property
    def run(self) -> str:
        """Which run this is."""
        return self._run

    @property
    def seed(self) -> int:
        """Of the events."""
        return self._streams.seed

    @property
    def max_weight(self) -> float:
        """w_max, or its product over the stages."""
        return self._unweighter.max_weight

    @cached_property
    def _header(self) -> tuple[tuple[str, str], ...]:
        return file_header(self._job, self._run, self.seed)

    def fill(self, folder: Path, todo: Sequence[tuple[int, int]], monitor: Monitor) -> list[Shard]:
        """Make those of some shards, numbers and sizes, that `folder` lacks; raises as `shard`."""
        total, done = sum(size for _, size in todo), 0
        shards = []
        for index, size in todo:
            monitor.progress("events", done, total, {})
            shards.append(self.shard(folder, index, size))
            done += size
        monitor.progress("events", total, total, {})
        return shards

    def shard(self, folder: Path, index: int, size: int) -> Shard:
        """The record of a shard in `folder`, which is made if it is not there.

        Raises
        ------
        EventCountError
            If the events cannot be had within the budget of trials.
        ProcessError
            If an event names a group of sub-processes that its process does not have.
        CorruptFileError
            If the shard is there and was altered; it is named.
        StorageError
            If the folder cannot be written.
        """
        return self._stored(folder, index, size) or self._make(folder, index, size)

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
            info = _shared(job.init_info(self._result.estimate, self._result.signed), batch, job.process.name)
            if job.card.events.matching is not None:
                first, second = info.beam_energies
                batch = replace(batch, pt_clust=clustering_scales(batch, 2 * math.sqrt(first * second)))
            if job.variations is not None:
                batch = replace(batch, named_weights=job.variations.weights(batch))
                info = replace(info, weight_groups=job.variations.groups)
            write_events(path, batch, replace(info, header=self._header), size)
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
            signed_sum=float(points.weights.sum()),
            square_sum=float(points.weights.square().sum()),
            sha256=sha256(path),
        )
        shard.write(path)
        return shard


def _shared(info: InitInfo, batch: EventBatch, name: str) -> InitInfo:
    """The run information of a shard, in which each group of sub-processes has the share of its events."""
    known = [process.process_id for process in info.processes]
    strange = sorted(set(batch.process_ids.tolist()).difference(known))
    if strange:
        raise ProcessError(
            f"{name}: its events name the groups {strange} of sub-processes, it has {known}: give it an attribute "
            "event_groups with all codes and their names, or write 1 into process_ids"
        )
    sums = ProcessSums()
    sums.add(batch.process_ids, batch.weights)
    return sums.shared(info)


def point_batch(job: Job, u: torch.Tensor, weights: torch.Tensor) -> PointBatch:
    """Cube points (n, dim) as points of the process's domain with weights (n,).

    >>> from nisampler.run.card import parse_card
    >>> from nisampler.run.job import build_job
    >>> card = parse_card('process = "camel4"', overrides={"integrand.domain": [[0.0, 2.0]] * 4})
    >>> job = build_job(card, "camel4", "cpu")
    >>> point_batch(job, torch.full((1, 4), 0.5, dtype=torch.float64), torch.ones(1)).x
    array([[1., 1., 1., 1.]])
    """
    return PointBatch(job.integrand.to_domain(u).cpu().numpy(), weights.double().cpu().numpy())


def point_batches(shards: Iterable[Path]) -> Iterator[PointBatch]:
    """The points of shards in their order.

    >>> import tempfile
    >>> import numpy as np
    >>> box, points = np.array([[0.0, 1.0]]), PointBatch(np.full((5, 1), 0.5), np.ones(5))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = [shard_path(folder, index, SUFFIX) for index in range(2)]
    ...     for path in paths:
    ...         _ = write_points(path, points, "", 5, box)
    ...     [len(batch.weights) for batch in point_batches(paths)]
    [5, 5]
    """
    for path in shards:
        yield from iterate_points(path, _CHUNK)
