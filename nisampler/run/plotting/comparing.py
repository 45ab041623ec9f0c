"""The report of several runs: their numbers beside each other, training curves, weights, distributions with ratios."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from nisampler.base.checkpoints import has_checkpoint
from nisampler.base.estimate import Estimate
from nisampler.base.storage import atomic_write, read_sealed, understood
from nisampler.errors import ConfigError
from nisampler.run.directory import RunDirectory
from nisampler.run.plotting.filling import labels_of
from nisampler.run.report.drawing import Drawn
from nisampler.run.report.page import share_text, svg_of
from nisampler.run.report.summary import integral_text
from nisampler.stored import Integrated, Timeline, Trained, WeightDistribution, stored_timeline
from nisampler.ui import plots
from nisampler.ui.distributions import Comparison
from nisampler.ui.overlays import COLOURS, Layer, overlay
from nisampler.ui.page import Card, Page, Picture, Table
from nisampler.ui.trainings import Course, trainings, weights_of_runs

_PULL = 4.0


@dataclass(frozen=True)
class Compared:
    """What a comparison shows of a run.

    Attributes
    ----------
    label
        In legends and tables.
    result
        The content of its ``result.json``.
    history
        Training records as dictionaries.
    timeline
        CPU-seconds of its training, if it has noted them.
    weights
        Distribution of the weights of its integration.
    comparisons
        Its distributions.

    Examples
    --------
    >>> list(Compared.__dataclass_fields__)
    ['label', 'result', 'history', 'timeline', 'weights', 'comparisons']
    """

    label: str
    result: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    timeline: Timeline | None
    weights: WeightDistribution
    comparisons: Sequence[Comparison]

    @classmethod
    def read(cls, directory: RunDirectory, label: str) -> Self:
        """A finished run.

        Raises
        ------
        StorageError
            If it is not finished.
        CorruptFileError
            If a file that the comparison shows was altered.
        """
        directory.require_integral(directory.result)
        drawn = Drawn.read(directory.distributions) if has_checkpoint(directory.distributions) else Drawn()
        return cls(
            label,
            read_sealed(directory.result),
            Trained.history(directory.path),
            stored_timeline(directory.path),
            Integrated.read(directory.path).distribution,
            drawn.comparisons,
        )

    @property
    def estimate(self) -> Estimate:
        """Its integral."""
        integral = self.result["integral"]
        error = np.inf if integral["error"] is None else integral["error"]
        return Estimate(integral["value"], error, integral["n_points"], unit=integral["unit"])


def comparison_page(paths: Sequence[Path], labels: Sequence[str] = (), style: str | None = None) -> str:
    """The report of several finished runs as HTML, from what is stored of them; none of their code is run.

    Parameters
    ----------
    paths
        Run directories, two or more; ratios are to the first one.
    labels
        Of the runs; by default what tells their paths apart.
    style
        One of `plots.STYLES`.

    Raises
    ------
    ConfigError
        If there are too few or too many runs, or not one label for each.
    StorageError, CorruptFileError
        If one is no finished run, or damaged.
    MissingExtraError
        If the style needs mplhep and it is not installed.

    Examples
    --------
    >>> comparison_page([Path("nowhere"), Path("elsewhere")])
    Traceback (most recent call last):
    ...
    nisampler.errors.StorageError: nowhere is not a run directory: `nisampler run CARD --output DIR` makes one
    """
    directories = [RunDirectory.read(path) for path in paths]
    if not 2 <= len(paths) <= len(COLOURS):
        raise ConfigError(f"{len(paths)} runs to compare: name 2 to {len(COLOURS)}")
    sheet = None if style is None else plots.style_sheet(style)
    names = labels_of(paths, labels)
    runs = []
    for directory, name in zip(directories, names, strict=True):
        with understood(directory.result):
            runs.append(Compared.read(directory, name))
    pictures: dict[str, Sequence[Picture]] = {
        "Training and weights": list(_run_pictures(runs, sheet)),
        "Distributions of weighted points, with their ratios": list(_distributions(runs, sheet)),
    }
    processes = dict.fromkeys(str(run.result["process"]) for run in runs)
    return Page(
        title=f"{len(runs)} runs of {' and '.join(processes)}",
        subtitle=" · ".join(names),
        cards=[_card(run) for run in runs],
        tables=_tables(runs),
        warnings=list(_warnings(runs)),
        sections=pictures,
    ).html()


def compare(paths: Sequence[Path], output: Path, labels: Sequence[str] = (), style: str | None = None) -> None:
    """Write `comparison_page` to a file; raises as that does, and StorageError if the file cannot be written.

    >>> compare([Path("nowhere")], Path("comparison.html"))
    Traceback (most recent call last):
    ...
    nisampler.errors.StorageError: nowhere is not a run directory: `nisampler run CARD --output DIR` makes one
    """
    page = comparison_page(paths, labels, style)
    with atomic_write(output, "w") as handle:
        handle.write(page)


def _card(run: Compared) -> Card:
    numbers, result = run.result["unweighting"], run.result
    seconds = result["seconds"].get("training", 0.0)
    note = f"{integral_text(result)}; {result['calls']['training']:,} calls, {seconds:.0f} s of training"
    return Card(run.label, f"{share_text(numbers['efficiency_0p1'])} efficiency", note)


def _warnings(runs: Sequence[Compared]) -> Iterator[str]:
    """Integrals of one process that do not agree, and what the runs warn of themselves."""
    first = runs[0]
    for run in runs[1:]:
        if run.result["process"] == first.result["process"] and abs(pull := _pull(run, first)) > _PULL:
            yield f"the integrals of {first.label} and {run.label} differ by {abs(pull):.1f} standard deviations"
    for run in runs:
        yield from (f"{run.label}: {text}" for text in run.result["warnings"])


def _pull(run: Compared, first: Compared) -> float:
    """Difference of two independent integrals in standard deviations."""
    size = float(np.hypot(run.estimate.error, first.estimate.error))
    return (run.estimate.value - first.estimate.value) / size if size else 0.0


def _tables(runs: Sequence[Compared]) -> list[Table]:
    head = ["run", "process", "seed", "integral", "pull"]
    rows = [head]
    for number, run in enumerate(runs):
        same = number and run.result["integral"]["unit"] == runs[0].result["integral"]["unit"]
        pull = f"{_pull(run, runs[0]):+.1f}" if same else ""
        rows.append([run.label, run.result["process"], str(run.result["seed"]), integral_text(run.result), pull])
    shares = {"0.1 % overweight": "efficiency_0p1", "1 % overweight": "efficiency_1", "largest": "efficiency_strict"}
    shares |= {"ess": "ess_fraction", "inside cuts": "cut_efficiency"}
    efficiencies = [["run", *shares]]
    for run in runs:
        efficiencies.append([run.label, *(share_text(run.result["unweighting"][key]) for key in shares.values())])
    return [
        Table("Runs; pulls are to the first one", rows),
        Table("Efficiencies of unweighting", efficiencies),
        Table("Samplers", [(run.label, str(run.result["sampler"]["name"])) for run in runs]),
        Table("Integrand calls", _by_stage(runs, "calls", "{:,}")),
        Table("Seconds", _by_stage(runs, "seconds", "{:.1f}")),
    ]


def _by_stage(runs: Sequence[Compared], kind: str, form: str) -> list[list[str]]:
    """A row for each run, a column for each stage that one of them has."""
    stages = list(dict.fromkeys(name for run in runs for name in run.result[kind]))
    rows = [[run.label, *(form.format(run.result[kind].get(name, 0)) for name in stages)] for run in runs]
    return [["run", *stages], *rows]


def _run_pictures(runs: Sequence[Compared], sheet: plots.Sheet | None) -> Iterator[Picture]:
    by_calls = [Course.of(run.label, run.history) for run in runs]
    caption = "Training against calls of the integrand, measured on points before they are learned."
    yield Picture("training-calls", caption, svg_of(partial(trainings, by_calls, "integrand calls"), sheet))
    timed = [Course.of(run.label, run.history, run.timeline.seconds_at) for run in runs if run.timeline is not None]
    if timed:
        left = [run.label for run in runs if run.timeline is None]
        caption = "The same against CPU-seconds of the training, without those of other processes."
        caption += f" Not noted by {', '.join(left)}." if left else ""
        yield Picture("training-seconds", caption, svg_of(partial(trainings, timed, "CPU-seconds"), sheet))
    spreads = [(run.label, run.weights.edges, run.weights.counts) for run in runs]
    yield Picture(
        "weights",
        "Weights f/q of the final integrations in units of their means.",
        svg_of(partial(weights_of_runs, spreads), sheet),
    )


def _distributions(runs: Sequence[Compared], sheet: plots.Sheet | None) -> Iterator[Picture]:
    """Of each observable that two runs or more have, those with the bins of the first of them."""
    names = dict.fromkeys(item.axis.name for run in runs for item in run.comparisons)
    for name in names:
        found = [(run, item) for run in runs for item in run.comparisons if item.axis.name == name]
        axis, unit = found[0][1].axis, found[0][0].result["integral"]["unit"]
        alike = [
            (run, item)
            for run, item in found
            if np.array_equal(item.axis.edges, axis.edges) and run.result["integral"]["unit"] == unit
        ]
        if len(alike) < 2:
            continue
        layers = [Layer(run.label, item.weighted, item.weighted_error) for run, item in alike]
        left = [run.label for run in runs if all(run is not other for other, _ in alike)]
        caption = name.replace("_", " ") + (f"; not in {', '.join(left)}, or in other bins" if left else "")
        yield Picture(f"distribution-{name}", caption, svg_of(partial(overlay, axis, layers, unit), sheet))
