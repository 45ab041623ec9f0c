"""Events of a finished run by a cluster: made now by Dask or MPI, or by the scripts of a batch system."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nisampler.base.storage import make_folder
from nisampler.run.generation.generate import generate_events
from nisampler.run.generation.shards import sizes
from nisampler.run.job import build_job
from nisampler.run.packing.pack import opened
from nisampler.run.submission.batch import BatchOrder, options_of, write_condor, write_slurm
from nisampler.run.submission.clusters import crew_of
from nisampler.ui.monitor import SILENT, Monitor

_USUAL_JOBS = 100


@dataclass(frozen=True)
class Submission:
    """Which events.

    Attributes
    ----------
    run
        A run directory, a pack or the folder of one.
    n_events, seed
        How many, and their seed.
    output
        Where they go, a new folder.
    shard_size, formats
        As `generate_events` takes them; those of the card by default.

    Examples
    --------
    >>> Submission(Path("run"), 1000, 7, Path("events")).shard_size is None
    True
    """

    run: Path
    n_events: int
    seed: int
    output: Path
    shard_size: int | None = None
    formats: Sequence[str] | None = None


def submitted(
    order: Submission, backend: str, workers: int, cluster: str | None, monitor: Monitor = SILENT
) -> dict[str, Any] | None:
    """Let the workers of Dask or MPI make events; an interrupted call is continued.

    Returns
    -------
    dict or None
        As `generate_events`; None on all ranks of MPI but the first.

    Raises
    ------
    NisamplerError
        As `crew_of` and `generate_events` do.

    Examples
    --------
    >>> submitted(Submission(Path("run"), 1000, 7, Path("events")), "threads", 2, None)
    Traceback (most recent call last):
    nisampler.errors.ConfigError: backend must be processes, dask or mpi here, got 'threads'
    """
    with crew_of(backend, workers, cluster, monitor) as crew:
        if crew is None:
            return None
        with opened(order.run, make_folder(order.output.absolute().parent)) as directory:
            return generate_events(
                directory,
                order.n_events,
                order.seed,
                order.output,
                monitor,
                workers=crew,
                shard_size=order.shard_size,
                formats=order.formats,
            )


def write_scripts(
    order: Submission, backend: str, jobs: int | None, workers: int, options: Sequence[str], setup: str
) -> list[tuple[str, str]]:
    """Write the scripts of a batch system to the folder of an order.

    Parameters
    ----------
    order
        Which events.
    backend
        "slurm" or "htcondor".
    jobs
        How many; at most as many as there are shards, and at most a hundred by default.
    workers
        Processes of each job.
    options
        NAME=VALUE for the batch system.
    setup
        A line of the shell at the start of each job.

    Returns
    -------
    list
        Names and texts to be shown.

    Raises
    ------
    ConfigError
        If an option is none.
    NisamplerError
        If the run is not finished, or the folder is not new.

    Examples
    --------
    >>> write_scripts(Submission(Path("run"), 1000, 7, Path("events")), "slurm", 4, 1, ["time"], "")
    Traceback (most recent call last):
    nisampler.errors.ConfigError: --option must be NAME=VALUE, such as time=02:00:00, got 'time'
    """
    named = options_of(options)
    with opened(order.run) as directory:
        directory.require_integral()
        asked = {"n": order.n_events, "shard_size": order.shard_size, "formats": order.formats}
        asked["formats"] = None if order.formats is None else tuple(order.formats)
        directory = directory.with_events(**{name: value for name, value in asked.items() if value is not None})
        settings = directory.settings
        formats = build_job(directory.card, settings["process"], settings["device"]).formats
        shards = len(sizes(order.n_events, directory.card.events.shard_size))
    count = min(jobs or _USUAL_JOBS, shards)
    batch = BatchOrder(
        order.run,
        order.n_events,
        order.seed,
        formats,
        count,
        workers,
        order.shard_size,
        named,
        setup,
    )
    warnings = (write_slurm if backend == "slurm" else write_condor)(batch, order.output)
    if jobs is not None and count < jobs:
        warnings.append(f"there are {shards} shards, so there are {count} jobs: a smaller --shard-size makes more")
    rows = [("jobs", f"{count}, of {shards} shards"), ("start them", f"sh {order.output / 'submit.sh'}")]
    return [*rows, ("or by hand", f"{order.output / 'job.sh'} K, then {order.output / 'merge.sh'}")] + [
        ("warning", text) for text in warnings
    ]
