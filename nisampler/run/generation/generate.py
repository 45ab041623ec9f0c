"""More events of a finished run, by one job or many, in one process or many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from nisampler.base.device import point_threads
from nisampler.base.estimate import Estimate
from nisampler.base.rng import Streams
from nisampler.base.storage import make_folder, remove_stale, write_sealed
from nisampler.base.versions import version_changes
from nisampler.events import shard_path
from nisampler.result import Result
from nisampler.run import lookup
from nisampler.run.directory import RunDirectory
from nisampler.run.generation.files import finish, overweight_warnings
from nisampler.run.generation.generator import Generator
from nisampler.run.generation.order import Order
from nisampler.run.generation.shards import SUFFIX, Generated, refuse_strangers
from nisampler.run.generation.workers import spread
from nisampler.run.job import Job, build_job
from nisampler.run.report.summary import integral_data
from nisampler.run.stages import chain
from nisampler.ui.monitor import SILENT, LogMonitor, Monitor, Monitors, log_end

SHARDS, TOLD = "shards", "generated.json"


def fill(
    generator: Generator, run: Path, folder: Path, todo: Sequence[tuple[int, int]], workers: int, monitor: Monitor
) -> Generated:
    """Make the shards of `todo` that `folder` lacks, here or by several workers that read the run anew.

    Raises
    ------
    StorageError
        If the folder cannot be written, or holds shards that do not belong there.
    NisamplerError
        As `Generator.shard` and `spread` do.

    Examples
    --------
    >>> fill(None, Path("run"), Path("/dev/null"), [], 1, SILENT)
    Traceback (most recent call last):
    ...
    nisampler.errors.StorageError: cannot make /dev/null: File exists
    """
    make_folder(folder)
    remove_stale(folder)
    refuse_strangers(folder, [index for index, _ in todo])
    if workers == 1:
        return Generated(generator.fill(folder, todo, monitor))
    return Generated(spread(partial(_generator, run, generator.seed), folder, todo, workers, monitor))


def generator_of(directory: RunDirectory, seed: int, monitor: Monitor = SILENT) -> tuple[Generator, Job, Result]:
    """What makes the events of a finished run for this seed, with its process and its result.

    Raises
    ------
    StorageError
        If the file of the process was changed.
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
    ...         generator, job, found = generator_of(run, 7)
    ...         made = fill(generator, run.path, Path(folder) / "shards", [(0, 20), (1, 5)], 1, SILENT)
    >>> generator.seed, made.events
    (7, 25)
    """
    directory.check_source()
    settings = directory.settings
    job = build_job(directory.card, settings["process"], settings["device"])
    stages = chain(job, directory, monitor)
    found = stages.integrate(stages.train())
    return Generator(job, found, Streams(seed), directory.identity()), job, found


def _generator(run: Path, seed: int) -> Generator:
    """The generator of a worker."""
    return generator_of(RunDirectory.read(run), seed)[0]


def generate_events(
    directory: RunDirectory,
    n: int,
    seed: int,
    target: Path,
    watcher: Monitor = SILENT,
    *,
    part: tuple[int, int] = (1, 1),
    workers: int = 1,
    shard_size: int | None = None,
    formats: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Write `n` events of a finished run with another seed to `target`; an interrupted call is continued.

    The run is only read, so that many can do so at once; the log is ``run.log`` in `target`.

    Parameters
    ----------
    directory
        The run.
    n, seed
        How many events, of all jobs together, and their seed.
    target
        A new folder, or one of the same order.
    watcher
        Where to tell about progress, besides the log.
    part
        Which job this is, and of how many; each makes its share of the shards.
    workers
        Processes that make shards side by side.
    shard_size
        Events in a shard; that of the card by default. Other shards are other events.
    formats
        Of the finished files; those of the card by default.

    Returns
    -------
    dict
        The content of ``generated.json`` in `target`.

    Raises
    ------
    CardError
        If a number or a format is none that a card could have.
    StorageError
        If the run has no frozen sampler and integral yet, or `target` holds something else or is in use.
    WorkerError
        If a worker died.
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
    asked = {"shard_size": shard_size, "formats": None if formats is None else tuple(formats)}
    directory = directory.with_events(n=n, **{name: value for name, value in asked.items() if value is not None})
    settings, log = directory.settings, target / "run.log"
    order = Order(directory.identity(), seed, n, directory.card.events.shard_size, *part)
    with order.claimed(target), log_end(log), point_threads(settings["threads"]):
        monitor = Monitors([LogMonitor(log), watcher])
        lookup.announce(settings["process"], monitor)
        generator, job, found = generator_of(directory, seed, monitor)
        todo = list(order.shards())
        made = fill(generator, directory.path, target / SHARDS, todo, workers, monitor)
        paths = [shard_path(target / SHARDS, index, SUFFIX) for index, _ in todo]
        names = finish(job, paths, target, made.events) if todo else []
        result = asdict(order) | _told(made, found.estimate, generator.max_weight, job) | {"files": names}
        result["warnings"] += version_changes(settings["versions"], "since the run began")
        if seed == directory.card.seed:
            same = f"seed {seed} is that of the run itself: these events repeat the run's own"
            result["warnings"].insert(0, same)
        if not todo:
            few = f"no shard of {order.shard_size} events falls to job {order.part} of {order.parts}"
            result["warnings"].append(f"{few}: a smaller --shard-size, the same in all jobs, makes more")
        write_sealed(target / TOLD, result)
        monitor.line(f"generated {made.events} events with seed {seed} in {target}")
    return result


def _told(made: Generated, integral: Estimate, max_weight: float, job: Job) -> dict[str, Any]:
    """What a job says of its events, for ``generated.json``."""
    return made.figures(max_weight) | {
        "integral": integral_data(integral),
        "max_weight": max_weight,
        "calls": {"generation": made.calls, "events": job.record_calls(made.events), "nonfinite": made.nonfinite},
        "weights": "average" if job.average else "unit",
        "warnings": overweight_warnings(made, job),
    }
