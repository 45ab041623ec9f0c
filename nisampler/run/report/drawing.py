"""What the report draws: distributions of weighted points and of events, stored so that nothing is computed again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from nisampler.base.checkpoints import has_checkpoint, load_checkpoint, save_checkpoint
from nisampler.base.storage import atomic_write, read_sealed, understood
from nisampler.errors import StorageError
from nisampler.events import ShardSet
from nisampler.events.shards import find_shards
from nisampler.result import Result
from nisampler.run.directory import RunDirectory
from nisampler.run.generation.files import file_problems
from nisampler.run.generation.generator import point_batch, point_batches
from nisampler.run.generation.shards import problems
from nisampler.run.job import Job
from nisampler.run.report.page import RunReport, render
from nisampler.stored import Integrated, Trained
from nisampler.ui import plots
from nisampler.ui.distributions import (
    Comparison,
    NamedSums,
    Shade,
    coordinate_axes,
    fill_events,
    fill_points,
    observable_axes,
)
from nisampler.ui.histograms import Axis, Histogram

_BATCH, _SHARE = 20_000, 20
_VALUES = [item.name for item in fields(Comparison) if item.name not in ("axis", "shades")]


@dataclass(frozen=True)
class Drawn:
    """The distributions of a run.

    Attributes
    ----------
    comparisons
        Weighted against unweighted, one for each observable or coordinate.
    calls
        Calls of the integrand that the records of the weighted points cost.

    Examples
    --------
    >>> import tempfile
    >>> values = {name: torch.ones(2, dtype=torch.float64).numpy() for name in _VALUES}
    >>> comparison = Comparison(Axis("x", "$x$", np.linspace(0.0, 1.0, 3)), **values)
    >>> drawn = Drawn((comparison,), 10)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     drawn.write(Path(folder))
    ...     again = Drawn.read(Path(folder))
    >>> again.comparisons[0].axis.name, again.calls
    ('x', 10)
    """

    comparisons: tuple[Comparison, ...] = ()
    calls: int = 0

    def write(self, folder: Path) -> None:
        """Store them as safetensors with JSON metadata."""
        tensors: dict[str, torch.Tensor] = {}
        axes = []
        for index, item in enumerate(self.comparisons):
            shades = [shade.name for shade in item.shades]
            axes.append({"name": item.axis.name, "label": item.axis.label, "log": item.axis.log, "shades": shades})
            values = {"edges": item.axis.edges} | {name: getattr(item, name) for name in _VALUES}
            for place, shade in enumerate(item.shades):
                values |= {f"low.{place}": shade.low, f"high.{place}": shade.high}
            tensors |= {f"{index}.{name}": torch.from_numpy(np.asarray(value)) for name, value in values.items()}
        save_checkpoint(folder, tensors, {"axes": axes, "calls": self.calls})

    @classmethod
    def read(cls, folder: Path) -> Self:
        """What `write` stored; CorruptFileError names what is damaged."""
        tensors, meta = load_checkpoint(folder)
        comparisons = []
        for index, axis in enumerate(meta["axes"]):
            edges = tensors[f"{index}.edges"].numpy()
            values = {name: tensors[f"{index}.{name}"].numpy() for name in _VALUES}
            shades = tuple(
                Shade(name, *(tensors[f"{index}.{side}.{place}"].numpy() for side in ("low", "high")))
                for place, name in enumerate(axis.get("shades", ()))
            )
            found = Axis(axis["name"], axis["label"], edges, axis["log"])
            comparisons.append(Comparison(found, **values, shades=shades))
        return cls(tuple(comparisons), meta["calls"])


def draw(job: Job, directory: RunDirectory, found: Result) -> Drawn:
    """Compare weighted points of the integration with the events of a run, and store the distributions there.

    Raises
    ------
    NisamplerError
        As the integrand and the readers of events do.

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.run.generation.generator import Generator
    >>> from nisampler.run.job import build_job
    >>> from nisampler.run.stages import chain
    >>> from nisampler.ui.monitor import SILENT
    >>> settings = {"process": "camel4", "device": "cpu", "threads": 1, "versions": {}}
    >>> quick = {"training.calls": 5000, "training.sampler": "vegas", "integration.points": 2048}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with RunDirectory.create(f"{folder}/run", 'process = "camel4"', settings, quick) as run:
    ...         job = build_job(run.card, "camel4", "cpu")
    ...         stages = chain(job, run, SILENT)
    ...         found = stages.integrate(stages.train())
    ...         run.events.mkdir()
    ...         made = Generator(job, found, job.streams).fill(run.events, [(0, 20)], SILENT)
    ...         drawn = draw(job, run, found)
    >>> [comparison.axis.name for comparison in drawn.comparisons], drawn.calls
    (['x1', 'x2', 'x3', 'x4'], 0)
    """
    comparisons, records = _comparisons(job, directory, found)
    drawn = Drawn(comparisons, job.record_calls(records))
    drawn.write(directory.distributions)
    return drawn


def redraw(directory: RunDirectory, style: str | None = None, output: Path | None = None) -> list[str]:
    """Draw the report of a finished run from what is stored of it; none of its code is run.

    Parameters
    ----------
    directory
        Of the run.
    style
        One of `plots.STYLES`, the style of an experiment; by default the package's own.
    output
        The file to write; ``report.html`` of the run by default.

    Returns
    -------
    list[str]
        What is wrong with the events of the run; the page says it too.

    Raises
    ------
    StorageError
        If the run is not finished, or the page cannot be written.
    CorruptFileError
        If a figure that the page shows was altered; its file is named.
    MissingExtraError
        If the style needs mplhep and it is not installed.

    Examples
    --------
    >>> import tempfile
    >>> settings = {"process": "camel4", "device": "cpu", "threads": 1, "versions": {}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with RunDirectory.create(f"{folder}/run", 'process = "camel4"', settings) as run:
    ...         redraw(run)
    Traceback (most recent call last):
    nisampler.errors.StorageError: ...run is not finished: `nisampler resume ...
    """
    directory.require_integral(directory.result)
    with understood(directory.result):
        wrong = list(_damage(directory, read_sealed(directory.result)))
    page = report_page(directory, wrong, style)
    try:
        with atomic_write(output or directory.report, "w") as handle:
            handle.write(page)
    except StorageError as error:
        raise StorageError(f"{error}; --output writes it elsewhere") from error
    return wrong


def report_page(directory: RunDirectory, wrong: Sequence[str] = (), style: str | None = None) -> str:
    """The report of a finished run as HTML, from what is stored of it; raises as `redraw`.

    Parameters
    ----------
    directory
        Of the run.
    wrong
        What is wrong with its events, shown among its warnings.
    style
        As for `redraw`.

    Examples
    --------
    >>> import tempfile
    >>> settings = {"process": "camel4", "device": "cpu", "threads": 1, "versions": {}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with RunDirectory.create(f"{folder}/run", 'process = "camel4"', settings) as run:
    ...         report_page(run)
    Traceback (most recent call last):
    nisampler.errors.StorageError: cannot read ...result.json: No such file or directory
    """
    sheet = None if style is None else plots.style_sheet(style)
    result = read_sealed(directory.result)
    found, drawn = Integrated.read(directory.path), Drawn()
    if has_checkpoint(directory.distributions):
        drawn = Drawn.read(directory.distributions)
    with understood(directory.result):
        result = result | {"warnings": [*result["warnings"], *wrong]}
        return render(_report(result, found, Trained.history(directory.path), drawn.comparisons, sheet))


def _report(
    result: Mapping[str, Any],
    found: Integrated,
    history: Sequence[Mapping[str, Any]],
    comparisons: Sequence[Comparison],
    sheet: plots.Sheet | None,
) -> RunReport:
    """All that the page shows."""
    means = np.asarray(found.result.batch_means)
    spread = float(means.std(ddof=1)) if len(means) > 1 else 0.0
    return RunReport(
        result=result,
        history=history,
        batches=[(float(mean), spread) for mean in means],
        weight_edges=found.distribution.edges,
        weight_counts=found.distribution.counts,
        w_max=found.max_weight / found.distribution.mean if result["unweighting"]["n_events"] else None,
        comparisons=comparisons,
        style=sheet,
    )


def _damage(directory: RunDirectory, result: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the events of a run and its files."""
    card = directory.card
    if card.events.n:
        yield from problems(directory.events, directory.identity(), card.seed, card.events.n, card.events.shard_size)
        yield from file_problems(directory.path, result["files"])


def _weighted_points(found: Result, n: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """`n` cube points of the integration with weights f/q, zeros included."""
    points, weights = found.integration.points[:n], found.integration.weights[:n]
    yield from zip(torch.split(points, _BATCH), torch.split(weights, _BATCH), strict=True)


def _number(job: Job, found: Result) -> int:
    """How many points are drawn: where each costs a call for its record, a twentieth of the calls so far at most."""
    most = len(found.integration.points)
    calls = sum(found.calls[stage] for stage in ("detection", "training", "integration"))
    return min(most, calls // _SHARE) if job.process.has_events else most


def _comparisons(job: Job, directory: RunDirectory, found: Result) -> tuple[tuple[Comparison, ...], int]:
    """Each observable, or coordinate, of weighted points and of the events; and how many points got a record."""
    observables = job.process.observables
    domain = job.integrand.domain.cpu().numpy()
    axes = observable_axes(observables) if job.process.has_events else coordinate_axes(domain)
    weighted = tuple(Histogram(axis) for axis in axes)
    unweighted = tuple(Histogram(axis) for axis in axes)
    records = 0
    for index, (u, weights) in enumerate(_weighted_points(found, _number(job, found))):
        kept = weights != 0.0
        records += int(kept.sum())
        for histogram in weighted:
            histogram.count += int((~kept).sum())
        if job.process.has_events:
            generator = job.streams.generator("report record", index)
            fill_events(weighted, observables, job.process.events(u[kept], weights[kept], generator))
        else:
            fill_points(weighted, point_batch(job, u[kept], weights[kept]))
    named = NamedSums(axes, ())
    if job.process.has_events:
        shards = ShardSet.open(directory.events)
        named = NamedSums(axes, shards.info().weight_groups)
        for batch in shards.batches():
            fill_events(unweighted, observables, batch)
            named.fill(observables, batch)
    else:
        for points in point_batches(find_shards(directory.events).values()):
            fill_points(unweighted, points)
    value = found.estimate.value
    pairs = enumerate(zip(weighted, unweighted, strict=True))
    return tuple(Comparison.of(a, b, value, named.shades(index, b)) for index, (a, b) in pairs), records
