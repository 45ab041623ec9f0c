"""Scripts for batch systems: an array of jobs that make events, and a step that merges them."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nisampler.base.outputs import atomic_folder
from nisampler.base.storage import naming
from nisampler.errors import ConfigError

_OPTION, _PLAIN = re.compile(r"([A-Za-z+][\w.-]*)=([^\n\r\0]+)"), re.compile(r"[^\n\r\0]+")
_MOST_SLURM = 1000
"""Jobs of an array that Slurm takes unless its MaxArraySize was raised."""

_JOB = """#!/bin/sh
# job.sh K makes job K of {jobs}; started again, it continues.
set -eu
cd {folder}
{setup}exec {generate} --job "$1/{jobs}" --output "jobs/$1" --shards-only --quiet
"""
_MERGE = """#!/bin/sh
# Joins what the jobs have made; started again, it makes what is missing.
set -eu
cd {folder}
{setup}{merge}
"""
_SLURM_JOB = """#!/bin/sh
#SBATCH --job-name=nisampler
#SBATCH --array=1-{jobs}
#SBATCH --ntasks=1
#SBATCH --cpus-per-task={workers}
#SBATCH --output=logs/job-%a.txt
{options}exec ./job.sh "$SLURM_ARRAY_TASK_ID"
"""
_SLURM_MERGE = """#!/bin/sh
#SBATCH --job-name=nisampler-merge
#SBATCH --ntasks=1
#SBATCH --output=logs/merge.txt
{options}exec ./merge.sh
"""
_SLURM_SUBMIT = """#!/bin/sh
# Submits the jobs, and their merging when all have ended well; started again, it continues what failed.
set -eu
cd {folder}
jobs=$(sbatch --parsable jobs.sbatch)
sbatch --dependency="afterok:${{jobs%%;*}}" --kill-on-invalid-dep=yes merge.sbatch
"""
_CONDOR_JOB = """executable = job.sh
arguments = $(number)
output = logs/job-$(number).txt
error = logs/job-$(number).txt
log = logs/condor.log
should_transfer_files = NO
request_cpus = {workers}
max_retries = 3
{options}queue number from (
{numbers}
)
"""
_CONDOR_MERGE = """executable = merge.sh
output = logs/merge.txt
error = logs/merge.txt
log = logs/condor.log
should_transfer_files = NO
{options}queue 1
"""
_CONDOR_DAG = """JOB events jobs.sub
JOB merge merge.sub
PARENT events CHILD merge
"""
_CONDOR_SUBMIT = """#!/bin/sh
# Submits the jobs, and their merging when all have ended well; started again, it continues what failed.
set -eu
cd {folder}
exec condor_submit_dag events.dag
"""


def options_of(texts: Sequence[str]) -> dict[str, str]:
    """Options of a batch system, by name.

    >>> options_of(["time=02:00:00"])
    {'time': '02:00:00'}
    >>> options_of(["no time=1"])
    Traceback (most recent call last):
    nisampler.errors.ConfigError: --option must be NAME=VALUE, such as time=02:00:00, got 'no time=1'

    Raises
    ------
    ConfigError
        If one cannot be written.
    """
    found = {}
    for text in texts:
        match = _OPTION.fullmatch(text)
        if match is None:
            raise ConfigError(f"--option must be NAME=VALUE, such as time=02:00:00, got {text!r}")
        found[match[1]] = match[2]
    return found


@dataclass(frozen=True)
class BatchOrder:
    """What the scripts order.

    Attributes
    ----------
    run
        A run directory, a pack or the folder of one.
    n_events, seed
        Of all jobs together.
    formats
        Of the merged files.
    jobs, workers
        How many jobs, and processes of each.
    shard_size
        Events in a shard; that of the card by default.
    options
        Of the batch system, see `options_of`.
    setup
        A line of the shell that comes first in each job, such as ``module load python``.

    Raises
    ------
    ConfigError
        If `setup` cannot be written.

    Examples
    --------
    >>> BatchOrder(Path("run"), 1000, 7, ("lhe.gz",), 4, options={"time": "02:00:00"}).jobs
    4
    >>> BatchOrder(Path("run"), 1000, 7, ("lhe.gz",), 4, setup="one\\ntwo")
    Traceback (most recent call last):
    nisampler.errors.ConfigError: --setup must be one line of the shell, got 'one\\ntwo': put more into a script
    """

    run: Path
    n_events: int
    seed: int
    formats: Sequence[str]
    jobs: int
    workers: int = 1
    shard_size: int | None = None
    options: Mapping[str, str] | None = None
    setup: str = ""

    def __post_init__(self) -> None:
        if self.setup and not _PLAIN.fullmatch(self.setup):
            raise ConfigError(f"--setup must be one line of the shell, got {self.setup!r}: put more into a script")

    def generate(self) -> str:
        """The command of a job, without its number."""
        words = [sys.executable, "-m", "nisampler", "generate", str(self.run.resolve())]
        words += ["--events", str(self.n_events), "--seed", str(self.seed), "--workers", str(self.workers)]
        if self.shard_size is not None:
            words += ["--shard-size", str(self.shard_size)]
        return shlex.join(words)

    def merge(self) -> str:
        """The commands that merge, one for each format."""
        python = shlex.quote(sys.executable)
        files = [f"events.{ending}" for ending in self.formats]
        return "\n".join(f"[ -e {name}.json ] || {python} -m nisampler merge jobs/* --output {name}" for name in files)


def write_slurm(order: BatchOrder, folder: Path) -> list[str]:
    """Write the scripts for Slurm to a new folder, to which the events will go.

    Returns
    -------
    list[str]
        What should be known before they are submitted.

    Raises
    ------
    StorageError
        If the folder holds anything or cannot be made.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     target = Path(folder) / "events"
    ...     _ = write_slurm(BatchOrder(Path("run"), 1000, 7, ("lhe.gz",), 4, options={"time": "02:00:00"}), target)
    ...     (target / "jobs.sbatch").read_text().splitlines()[2:7:4]
    ['#SBATCH --array=1-4', '#SBATCH --time=02:00:00']
    """
    options = {name: f"#SBATCH --{name}={value}" for name, value in (order.options or {}).items()}
    scripts = {"jobs.sbatch": _SLURM_JOB, "merge.sbatch": _SLURM_MERGE, "submit.sh": _SLURM_SUBMIT}
    _write(order, folder, scripts, options)
    if order.jobs > _MOST_SLURM:
        return [
            f"Slurm takes arrays of {_MOST_SLURM} jobs unless its MaxArraySize was raised: give --jobs {_MOST_SLURM}"
        ]
    return []


def write_condor(order: BatchOrder, folder: Path) -> list[str]:
    """Write the files for HTCondor, a DAG of jobs and merging, to a new folder; as `write_slurm`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     target = Path(folder) / "events"
    ...     _ = write_condor(BatchOrder(Path("run"), 1000, 7, ("lhe.gz",), 4), target)
    ...     (target / "jobs.sub").read_text().splitlines()[-6:]
    ['queue number from (', '1', '2', '3', '4', ')']

    Raises
    ------
    StorageError
        If the folder holds anything or cannot be made.
    """
    options = {name: f"{name} = {value}" for name, value in (order.options or {}).items()}
    scripts = {"jobs.sub": _CONDOR_JOB, "merge.sub": _CONDOR_MERGE, "events.dag": _CONDOR_DAG}
    _write(order, folder, scripts | {"submit.sh": _CONDOR_SUBMIT}, options)
    return []


def _write(order: BatchOrder, folder: Path, scripts: dict[str, str], options: Mapping[str, str]) -> None:
    if not _PLAIN.fullmatch(str(folder.resolve())):
        raise ConfigError(f"the name of {folder} has a line end in it: choose another --output")
    values = {
        "folder": shlex.quote(str(folder.resolve())),
        "jobs": order.jobs,
        "numbers": "\n".join(map(str, range(1, order.jobs + 1))),
        "workers": order.workers,
        "setup": f"{order.setup}\n" if order.setup else "",
        "generate": order.generate(),
        "merge": order.merge(),
        "options": "".join(f"{line}\n" for line in options.values()),
    }
    with atomic_folder(folder) as (made, lock), lock, naming(folder):
        for name in ("jobs", "logs"):
            (made / name).mkdir()
        for name, text in ({"job.sh": _JOB, "merge.sh": _MERGE} | scripts).items():
            (made / name).write_text(text.format(**values), encoding="utf-8")
            if name.endswith(".sh"):
                (made / name).chmod(0o755)
