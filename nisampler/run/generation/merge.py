"""The events of many jobs in one file: nothing missing, nothing doubled, and what all trials together say of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nisampler.base.outputs import new_file
from nisampler.base.storage import read_sealed, sha256, write_sealed
from nisampler.errors import StorageError
from nisampler.events import merge_shards, shard_path, write_points
from nisampler.events.compression import possible_level
from nisampler.events.hdf5 import file_format, read_points_domain, read_points_header
from nisampler.run.generation.generate import SHARDS, TOLD
from nisampler.run.generation.generator import point_batches
from nisampler.run.generation.order import Order
from nisampler.run.generation.shards import SUFFIX, Generated, Shard, sizes
from nisampler.ui.monitor import SILENT, Monitor


def merge(jobs: Sequence[Path], output: Path, partial: bool = False, monitor: Monitor = SILENT) -> dict[str, Any]:
    """Write the events of jobs of one run to one file, and what is known of them to a JSON file beside it.

    Jobs of several seeds may be joined. Shards come in the order of seeds and numbers, so that the file does not depend
    on how many jobs made them.

    Parameters
    ----------
    jobs
        Folders of `generate_events`.
    output
        A new file; its ending decides the format. It is packed as hard as the card of the run says, where its packing
        has that level.
    partial
        Whether shards may be missing; they are counted in the result then.
    monitor
        Is told about progress.

    Returns
    -------
    dict
        The content of the JSON file, ``output`` with ".json" at its end.

    Raises
    ------
    StorageError
        If the jobs are of different runs or orders, a shard is there twice or missing, or the file cannot be written.
    CorruptFileError
        If a file was altered; it is named.

    Examples
    --------
    >>> merge([], Path("all.h5"))
    Traceback (most recent call last):
    ...
    nisampler.errors.StorageError: there is nothing to merge: name the folders that `nisampler generate` made
    """
    if not jobs:
        raise StorageError("there is nothing to merge: name the folders that `nisampler generate` made")
    new_file(output)
    told = new_file(output.with_name(f"{output.name}.json"))
    orders = {folder: Order.read(folder) for folder in jobs}
    _agree(orders)
    figures = _figures(jobs, partial)
    paths, shards = _shards(orders, partial, monitor)
    if not shards:
        raise StorageError("the jobs hold no events yet")
    n = sum(shard.events for shard in shards)
    if file_format(paths[0]) == "nisampler-points":
        domain = read_points_domain(paths[0])
        write_points(output, point_batches(paths), read_points_header(paths[0])[0], n, domain)
    else:
        average, level = figures["weights"] == "average", possible_level(output.name, figures.get("compression_level"))
        merge_shards(paths, output, average=average, compression_level=level, trusted=True)
    planned = sum(len(sizes(whole[2], whole[3])) for whole in {order.whole for order in orders.values()})
    result = {
        "run": next(iter(orders.values())).run,
        "seeds": sorted({order.seed for order in orders.values()}),
        "jobs": len(jobs),
        "shards": len(shards),
        "missing_shards": planned - len(shards),
        **Generated(shards).figures(figures["max_weight"]),
        **{name: figures[name] for name in ("integral", "max_weight", "weights")},
        "sha256": sha256(output),
    }
    write_sealed(told, result)
    return result


def _agree(orders: dict[Path, Order]) -> None:
    """Refuse jobs of different runs, and jobs of one seed that cut its events differently."""
    first: dict[Any, Path] = {}
    for folder, order in orders.items():
        for key, what in ((None, "run"), (order.seed, f"order of seed {order.seed}")):
            other = first.setdefault(key, folder)
            same = orders[other].run == order.run if key is None else orders[other].whole == order.whole
            if not same:
                raise StorageError(f"{folder} and {other} are not of the same {what}: merge them apart")


def _figures(jobs: Sequence[Path], partial: bool) -> dict[str, Any]:
    """What the jobs say of their run: the same everywhere."""
    found: dict[str, Any] | None = None
    for folder in jobs:
        if (folder / TOLD).is_file():
            found = found or read_sealed(folder / TOLD)
        elif not partial:
            raise StorageError(f"the job in {folder} is not finished: start its command again, or merge with --partial")
    if found is None:
        raise StorageError("no job is finished: start the command of one of them again")
    return found


def _shards(orders: dict[Path, Order], partial: bool, monitor: Monitor) -> tuple[list[Path], list[Shard]]:
    """The shards of all jobs in their order, each once, with their records."""
    places: dict[tuple[int, int], Path] = {}
    for folder, order in orders.items():
        for index, _ in order.shards():
            other = places.setdefault((order.seed, index), folder)
            if other != folder:
                raise StorageError(f"{folder} and {other} hold the same events, shard {index}: leave one of them out")
    missing = [f"shard {index} of seed {seed}" for seed, index in _expected(orders) if (seed, index) not in places]
    if missing and not partial:
        raise StorageError(f"{len(missing)} shards are missing, {missing[0]} first: name all jobs, or add --partial")
    paths, shards = [], []
    for done, (seed, index) in enumerate(sorted(places)):
        monitor.progress("checking", done, len(places), {})
        folder = places[seed, index]
        path = shard_path(folder / SHARDS, index, SUFFIX)
        shard = Shard.read(path)
        if shard is None:
            if partial:
                continue
            raise StorageError(f"{path} is missing: start the command of its job again, or merge with --partial")
        size = dict(orders[folder].shards())[index]
        if shard.identity != (orders[folder].run, seed, index, size):
            raise StorageError(f"{path} is not of the job in {folder}: start the command of the job again")
        paths.append(path)
        shards.append(shard)
    monitor.progress("checking", len(places), len(places), {})
    return paths, shards


def _expected(orders: dict[Path, Order]) -> Iterator[tuple[int, int]]:
    """Seed and number of every shard of the orders."""
    for _, seed, n, size in sorted({order.whole for order in orders.values()}):
        yield from ((seed, index) for index in range(len(sizes(n, size))))
