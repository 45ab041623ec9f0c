"""Crews of workers on a Dask cluster or on the ranks of MPI."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from nisampler.base.extras import install
from nisampler.errors import ConfigError, MissingExtraError, WorkerError
from nisampler.run.generation.workers import Crew, processes
from nisampler.ui.monitor import Monitor

_RETRIES = 2
"""How often a shard that failed is tried again; one whose worker died goes to another one up to three times."""

_JOBQUEUES = {"slurm": "SLURMCluster", "htcondor": "HTCondorCluster", "pbs": "PBSCluster", "sge": "SGECluster"}


@contextmanager
def crew_of(backend: str, workers: int, cluster: str | None, monitor: Monitor) -> Iterator[Crew | None]:
    """The workers of a backend: "processes" of this machine, "dask" or "mpi", where all ranks but the first get None.

    Raises
    ------
    ConfigError
        If there is no such backend, or a cluster is named for another one than Dask.
    NisamplerError
        As `dask_crew` does; MissingExtraError if mpi4py, or a library of MPI, is not there.

    Examples
    --------
    >>> with crew_of("processes", 2, None, Monitor()) as crew:
    ...     crew.figures()
    {}
    """
    if cluster is not None and backend != "dask":
        raise ConfigError(f"--cluster is for --backend dask, not {backend}")
    if backend == "dask":
        with dask_crew(cluster or "local", workers, monitor) as crew:
            yield crew
    elif backend == "mpi":
        with _mpi_crew() as ranks:
            yield ranks
    elif backend == "processes":
        with processes(workers) as crew:
            yield crew
    else:
        raise ConfigError(f"backend must be processes, dask or mpi here, got {backend!r}")


@contextmanager
def dask_crew(cluster: str, workers: int, monitor: Monitor) -> Iterator[Crew]:
    """The workers of a Dask cluster; lost ones are replaced where the cluster does so, their shards made by others.

    Parameters
    ----------
    cluster
        "local" starts one on this machine; "slurm", "htcondor", "pbs" and "sge" one of batch jobs, by dask-jobqueue and
        its configuration; anything else is the address of a scheduler, ``tcp://host:8786``, or its file ``*.json``.
    workers
        How many to start; a scheduler that is there has its own.
    monitor
        Is told what is waited for.

    Raises
    ------
    MissingExtraError
        If dask is not installed.
    ConfigError
        If dask-jobqueue is not configured.
    WorkerError
        If no scheduler answers.

    Examples
    --------
    >>> with dask_crew("nowhere.json", 2, Monitor()) as crew:
    ...     crew.figures()
    Traceback (most recent call last):
    nisampler.errors.ConfigError: --cluster nowhere.json: there is no such file of a scheduler; start one first
    """
    distributed = _extra("distributed", "dask")
    with _cluster(distributed, cluster, workers) as place, _client(distributed, cluster, place) as client:
        monitor.line(f"Dask: {client.scheduler.address}, waiting for workers")
        client.wait_for_workers(1)
        seen: set[str] = set()

        def figures() -> Mapping[str, str]:
            present = client.scheduler_info(n_workers=-1)["workers"]
            seen.update(present)
            lost = len(seen - set(present))
            return {"workers": str(len(present)), **({"lost": str(lost)} if lost else {})}

        executor = client.get_executor(pure=False, retries=_RETRIES)
        yield Crew(executor, figures)


@contextmanager
def _mpi_crew() -> Iterator[Crew | None]:
    """The ranks of MPI but the first, which gets them and gives them work; the others work inside and then get None.

    Raises
    ------
    MissingExtraError
        If mpi4py, or a library of MPI, is not there.
    """
    try:
        mpi = _extra("mpi4py.MPI", "mpi")
    except RuntimeError as error:
        raise MissingExtraError(
            f"mpi4py finds no library of MPI ({error}): load the module of your cluster, or pip install mpich"
        ) from error
    futures = _extra("mpi4py.futures", "mpi")
    with futures.MPICommExecutor(mpi.COMM_WORLD, root=0) as executor:
        count = max(mpi.COMM_WORLD.Get_size() - 1, 1)
        yield None if executor is None else Crew(executor, lambda: {"workers": str(count)})


@contextmanager
def _cluster(distributed: ModuleType, cluster: str, workers: int) -> Iterator[Any]:
    """A cluster that is started here, or what a client needs to find one that is there."""
    if cluster == "local":
        started = distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.CRITICAL
        )
    elif cluster in _JOBQUEUES:
        try:
            started = getattr(_extra("dask_jobqueue", "dask"), _JOBQUEUES[cluster])()
        except ValueError as error:
            raise ConfigError(
                f"dask-jobqueue cannot start workers: {error}; ~/.config/dask/jobqueue.yaml says how (cores, memory, "
                "walltime)"
            ) from error
        started.adapt(minimum_jobs=workers, maximum_jobs=workers)
    else:
        if not cluster.endswith(".json"):
            yield {"address": cluster}
        elif Path(cluster).is_file():
            yield {"scheduler_file": cluster}
        else:
            raise ConfigError(f"--cluster {cluster}: there is no such file of a scheduler; start one first")
        return
    with started:
        yield {"address": started}


@contextmanager
def _client(distributed: ModuleType, cluster: str, place: dict[str, Any]) -> Iterator[Any]:
    try:
        client = distributed.Client(**place)
    except (OSError, ValueError) as error:
        raise WorkerError(
            f"no Dask scheduler answers at {cluster}: give local, {', '.join(_JOBQUEUES)}, an address such as "
            f"tcp://host:8786, or the file of a scheduler ({error})"
        ) from error
    with client:
        yield client


def _extra(name: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(f"{name} is not installed: {install(extra)}") from error
