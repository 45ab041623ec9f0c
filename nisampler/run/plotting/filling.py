"""Distributions of event files with the uncertainties that their named weights make, filled in one pass each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nisampler.errors import ConfigError, EventFormatError, StorageError
from nisampler.events import EventBatch, EventFile, Observable
from nisampler.events.columns import DEFAULT_CHUNK
from nisampler.events.named import NamedObservable, particles, usual
from nisampler.ui.distributions import NamedSums, Shade, observable_axes
from nisampler.ui.histograms import Histogram
from nisampler.ui.monitor import SILENT, Monitor
from nisampler.ui.overlays import Layer

_ENDINGS = ("h5", "lhe.zst", "lhe.gz", "lhe")
_MOST_DEFAULTS = 12


@dataclass(frozen=True)
class Filled:
    """One observable of one file.

    Attributes
    ----------
    label
        Of the file.
    histogram
        Of its events; those that lack the observable count as above the range.
    absent
        How many these are.
    cross_section
        Of the file in pb.
    shades
        Uncertainties, in units of sums of weights.

    Examples
    --------
    >>> from nisampler.ui.histograms import Axis
    >>> axis = Axis("x", "$x$", np.array([0.0, 1.0]))
    >>> filled = Filled("events", Histogram(axis), 0, 2.0)
    >>> filled.histogram.fill([0.5, 3.0])
    >>> filled.layer("pb").values, filled.outside
    (array([1.]), 0.5)
    """

    label: str
    histogram: Histogram
    absent: int
    cross_section: float
    shades: tuple[Shade, ...] = ()

    @property
    def above(self) -> int:
        """Events above the range."""
        return self.histogram.over - self.absent

    @property
    def outside(self) -> float:
        """Share of the events that lie below the range or above it."""
        return (self.histogram.under + self.above) / max(self.histogram.count, 1)

    def layer(self, unit: str) -> Layer:
        """The density: of the cross-section with a unit, of unit area over all events without one."""
        count = max(self.histogram.count, 1)
        scale = (self.cross_section if unit else 1.0) * count / self.histogram.sum_weights
        values, error = self.histogram.density(scale)
        norm = scale / count / np.diff(self.histogram.axis.edges)
        shades = tuple(Shade(shade.name, norm * shade.low, norm * shade.high) for shade in self.shades)
        note = f" ({100 * self.outside:.2g} % outside)" if self.outside > 0.0 else ""
        return Layer(f"{self.label}{note}", values, error, shades)


def event_file(path: Path) -> Path:
    """A file of events: the path itself, or of a run directory the one that is read soonest.

    Raises
    ------
    StorageError
        If a folder holds no events.

    Examples
    --------
    >>> event_file(Path("events.h5"))
    PosixPath('events.h5')
    """
    if not path.is_dir():
        return path
    found = [path / f"events.{ending}" for ending in _ENDINGS if (path / f"events.{ending}").is_file()]
    if not found:
        raise StorageError(f"{path} holds no file of events that can be read, {', '.join(_ENDINGS)}: name one")
    return found[0]


def labels_of(paths: Sequence[Path], given: Sequence[str]) -> list[str]:
    """A label for each file or run: those given, or what tells the paths apart.

    Raises
    ------
    ConfigError
        If there is not one for each.

    Examples
    --------
    >>> labels_of([Path("runs/a/events.h5"), Path("runs/b/events.h5")], [])
    ['a', 'b']
    """
    if given:
        if len(given) != len(paths):
            raise ConfigError(f"{len(given)} labels for {len(paths)} paths: give one for each, or none")
        return list(given)
    for names in ([path.name for path in paths], [path.parent.name for path in paths]):
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def fill(
    paths: Sequence[Path],
    names: Sequence[str] = (),
    bins: int | None = None,
    labels: Sequence[str] = (),
    bands: bool = True,
    shape: bool = False,
    monitor: Monitor = SILENT,
) -> list[tuple[Filled, ...]]:
    """Distributions: for each observable those of all files, in the same bins.

    Parameters
    ----------
    paths
        Event files or run directories.
    names
        Of the observables, see `NamedObservable.of`; without any those that suit the particles of the first events.
    bins
        Of observables that do not say how many; 40 by default.
    labels
        Of the files.
    bands
        Whether named weights make uncertainties.
    shape
        Whether these are of the shapes alone.
    monitor
        Is told about progress.

    Raises
    ------
    ConfigError
        If an observable is unknown, asked for twice, or none of the first events of the files has it.
    EventFormatError
        If a file has no events, or its weights add up to zero or are not finite.
    StorageError, CorruptFileError, MissingExtraError
        If a file cannot be read.

    Examples
    --------
    >>> fill([Path("nowhere.h5")], ["pt_j1"])
    Traceback (most recent call last):
    ...
    nisampler.errors.StorageError: cannot read nowhere.h5: no such file
    """
    asked = [NamedObservable.of(name) for name in names]
    files = [EventFile.open(event_file(path)) for path in paths]
    firsts = [_first(file) for file in files]
    wanted = asked or [NamedObservable.of(name) for name in usual(firsts[0])[:_MOST_DEFAULTS]]
    twice = sorted({item.name for item in wanted if [other.name for other in wanted].count(item.name) > 1})
    if twice:
        raise ConfigError(f"observable {twice[0]} is asked for twice: once is enough")
    observables = []
    for item in wanted:
        values = np.concatenate([item(batch) for batch in firsts])
        if not np.isfinite(values).any():
            there = "; ".join(f"{path}: {particles(batch)}" for path, batch in zip(paths, firsts, strict=True))
            raise ConfigError(f"observable {item.name}: no event has it among the first ones; particles of {there}")
        observables.append(item.observable(values, bins or 40))
    texts = labels_of([file.path for file in files], labels)
    columns = [_filled(file, observables, text, bands, shape, monitor) for file, text in zip(files, texts, strict=True)]
    return list(zip(*columns, strict=True))


def _first(file: EventFile) -> EventBatch:
    """The events that ranges are chosen by."""
    for batch in file.batches(DEFAULT_CHUNK):
        return batch
    raise EventFormatError(f"{file.path} has no events: there is nothing to draw")


def _filled(
    file: EventFile, observables: Sequence[Observable], label: str, bands: bool, shape: bool, monitor: Monitor
) -> list[Filled]:
    """All observables of a file."""
    axes = observable_axes(observables)
    histograms, absent = [Histogram(axis) for axis in axes], [0] * len(axes)
    named, done = NamedSums(axes, file.info.weight_groups if bands else ()), 0
    for batch in file.batches():
        if not (np.isfinite(batch.weights).all() and np.isfinite(batch.named_weights).all()):
            raise EventFormatError(f"{file.path}: weights are not finite: `nisampler check {file.path}` says where")
        for index, (histogram, observable) in enumerate(zip(histograms, observables, strict=True)):
            values = observable(batch)
            absent[index] += int(np.isnan(values).sum())
            histogram.fill(values, batch.weights)
            if bands:
                named.add(index, values, batch.named_weights)
        done += len(batch)
        monitor.progress(label, done, file.declared or done, {})
    if not all(histogram.sum_weights for histogram in histograms):
        raise EventFormatError(f"{file.path}: the weights of its {done} events add up to zero")
    sigma = file.info.cross_section
    return [
        Filled(label, histogram, absent[index], sigma, tuple(named.shades(index, histogram, shape)))
        for index, histogram in enumerate(histograms)
    ]
