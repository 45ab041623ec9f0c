"""More events of a finished run, by one job or many, in one process or many."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from nisampler.base import notices
from nisampler.base.device import point_threads
from nisampler.base.estimate import Estimate
from nisampler.base.rng import Streams
from nisampler.base.storage import make_folder, remove_stale, write_sealed
from nisampler.base.versions import version_changes, versions
from nisampler.errors import WorkerError
from nisampler.events import shard_path
from nisampler.result import Result
from nisampler.run import lookup
from nisampler.run.directory import RunDirectory, pack_environment
from nisampler.run.generation.files import finish, overweight_warnings
from nisampler.run.generation.generator import Generator
from nisampler.run.generation.order import Order
from nisampler.run.generation.shards import SUFFIX, Generated, refuse_strangers
from nisampler.run.generation.workers import Crew, processes, spread
from nisampler.run.job import Job, build_job
from nisampler.run.report.summary import integral_data
from nisampler.run.stages import chain
from nisampler.ui.monitor import SILENT, LogMonitor, Monitor, Monitors, log_end

SHARDS, TOLD = "shards", "generated.json"


@dataclass(frozen=True)
class RunRecipe:
    """How a worker makes the generator of a run for one seed, see `workers.Recipe`.

    Attributes
    ----------
    run
        Its directory, which the worker sees, too.
    seed
        Of the events.
    identity, made_with
        What the run and the versions must be there.

    Examples
    --------
    >>> RunRecipe(Path("nowhere"), 7, "", ()).generator()
    Traceback (most recent call last):
    nisampler.errors.StorageError: nowhere is not a run directory: ...
    """

    run: Path
    seed: int
    identity: str
    made_with: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, run: Path, generator: Generator) -> Self:
        """The recipe of a generator of the run in this folder."""
        return cls(run.resolve(), generator.seed, generator.run, tuple(versions().items()))

    def environment(self) -> AbstractContextManager[None]:
        """Where the run finds its amplitudes and densities."""
        return pack_environment(self.run)

    def generator(self) -> Generator:
        """Of this run, here.

        Raises
        ------
        WorkerError
            If other versions are installed here, or the run is another one.
        NisamplerError
            As the stages do.
        """
        if changed := version_changes(dict(self.made_with), f"on the way to {socket.gethostname()}"):
            raise WorkerError(f"{changed[0]}: install the same versions on all machines")
        directory = RunDirectory.read(self.run)
        if directory.identity() != self.identity:
            raise WorkerError(f"{self.run} is another run on {socket.gethostname()}: put it where all machines see it")
        return generator_of(directory, self.seed)[0]


def fill(
    generator: Generator,
    run: Path,
    folder: Path,
    todo: Sequence[tuple[int, int]],
    workers: int | Crew,
    monitor: Monitor,
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
    if workers == 1 or not todo:
        return Generated(generator.fill(folder, todo, monitor))
    recipe = RunRecipe.of(run, generator)
    if isinstance(workers, Crew):
        return Generated(spread(recipe, folder, todo, workers, monitor))
    with processes(min(workers, len(todo))) as crew:
        return Generated(spread(recipe, folder, todo, crew, monitor))


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


def generate_events(
    directory: RunDirectory,
    n: int,
    seed: int,
    target: Path,
    watcher: Monitor = SILENT,
    *,
    part: tuple[int, int] = (1, 1),
    workers: int | Crew = 1,
    shard_size: int | None = None,
    formats: Sequence[str] | None = None,
    shards_only: bool = False,
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
        Processes that make shards side by side, or workers elsewhere, which see the run and `target`.
    shard_size
        Events in a shard; that of the card by default. Other shards are other events.
    formats
        Of the finished files; those of the card by default.
    shards_only
        Whether there are no finished files, but only shards for `merge`.

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
    listening = notices.listening(watcher.line)
    with order.claimed(target), log_end(log), listening, point_threads(settings["threads"]):
        monitor = Monitors([LogMonitor(log), watcher])
        lookup.announce(settings["process"], directory.card.parameters, monitor)
        generator, job, found = generator_of(directory, seed, monitor)
        todo = list(order.shards())
        made = fill(generator, directory.path, target / SHARDS, todo, workers, monitor)
        paths = [shard_path(target / SHARDS, index, SUFFIX) for index, _ in todo]
        names = finish(job, paths, target, made.events) if todo and not shards_only else []
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
        "compression_level": job.card.events.compression_level,
        "warnings": overweight_warnings(made, job),
    }
