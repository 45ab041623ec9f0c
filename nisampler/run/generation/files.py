"""The finished event files of a run or a job, joined from its shards, and what to warn of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from nisampler.base.storage import read_sealed, sha256, write_sealed
from nisampler.errors import StorageError
from nisampler.events import merge_shards, write_points
from nisampler.run.generation.generator import point_batches
from nisampler.run.generation.shards import Generated
from nisampler.run.job import Job

CHECKSUMS = "checksums.json"


def finish(job: Job, shards: Sequence[Path], target: Path, n: int) -> list[str]:
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
    >>> import torch
    >>> from nisampler.events import shard_path
    >>> from nisampler.run.card import parse_card
    >>> from nisampler.run.generation.generator import point_batch
    >>> from nisampler.run.generation.shards import SUFFIX
    >>> from nisampler.run.job import build_job
    >>> job = build_job(parse_card('process = "camel4"'), "camel4", "cpu")
    >>> points = point_batch(job, torch.rand(5, 4, dtype=torch.float64), torch.ones(5))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     shard = shard_path(folder, 0, SUFFIX)
    ...     _ = write_points(shard, points, "", 5, job.domain)
    ...     finish(job, [shard], Path(folder), 5)
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
            level = job.card.events.compression_level
            # Their checksums and numbers were compared with their records.
            merge_shards(shards, path, average=job.average, compression_level=level, trusted=True)
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
    >>> from nisampler.run.generation.shards import Shard
    >>> from nisampler.run.job import build_job
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
