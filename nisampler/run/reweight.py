"""Weights of other scales and parton densities for the events of a file, from what the file holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nisampler.base.device import cpu_threads
from nisampler.base.outputs import new_file
from nisampler.errors import ConfigError
from nisampler.events import EventBatch, EventFile, write_events
from nisampler.events.columns import DEFAULT_CHUNK
from nisampler.events.weights import WeightGroup, ids_of, only
from nisampler.run import lookup
from nisampler.ui.monitor import SILENT, Monitor


def reweight(
    path: Path,
    output: Path,
    scales: str | Sequence[tuple[float, float]] | None = None,
    pdfs: Sequence[str] = (),
    alpha_s: bool = True,
    monitor: Monitor = SILENT,
) -> tuple[WeightGroup, ...]:
    """Write the events of a file with more named weights to another one; those that it has stay.

    Parameters
    ----------
    path, output
        Event files; `output` must not exist.
    scales, pdfs, alpha_s
        As in the card under `[events.variations]`.
    monitor
        Is told about progress.

    Returns
    -------
    tuple[WeightGroup, ...]
        All groups of named weights of the new file.

    Raises
    ------
    ConfigError
        If nothing is asked for, a scale or set is none, or the header of the file does not tell what is needed.
    EventFormatError
        If an event does not tell its scales, coupling or densities.
    PdfError, MissingExtraError, StorageError, CorruptFileError
        If a set or a member is missing, or a file cannot be read or written.

    Examples
    --------
    >>> reweight(Path("nowhere.h5"), Path("new.h5"), "7-point")
    Traceback (most recent call last):
    ...
    nisampler.errors.StorageError: cannot read nowhere.h5: no such file
    """
    if scales is None and not pdfs:
        raise ConfigError("nothing to add: ask for --scales or --pdfs")
    file = EventFile.open(path)
    new_file(output)
    # More threads would wait for each other: the batches are small.
    with cpu_threads(1):
        found = lookup.variations(dict(file.info.header), scales, pdfs, alpha_s)
        groups = joined(file.info.weight_groups, found.groups)
        info = replace(file.info, weight_groups=groups)
        write_events(output, _batches(file, found, groups, monitor), info, file.declared)
    return groups


def factors(texts: Sequence[str]) -> str | list[tuple[float, float]] | None:
    """What the options `--scales` of the command line ask for.

    Raises
    ------
    ConfigError
        If one is neither a name nor a pair of numbers, or a name stands beside others.

    Examples
    --------
    >>> factors(["7-point"]), factors(["0.5,2", "1,1"]), factors([])
    ('7-point', [(0.5, 2.0), (1.0, 1.0)], None)
    """
    if len(texts) <= 1 and not any("," in text for text in texts):
        return texts[0] if texts else None
    try:
        pairs = [tuple(map(float, text.split(","))) for text in texts]
        return [(mu_r, mu_f) for mu_r, mu_f in pairs]
    except ValueError as error:
        raise ConfigError(
            f"--scales {' '.join(texts)}: need one name, 7-point or 9-point, or pairs of factors such as 0.5,2"
        ) from error


def joined(old: Sequence[WeightGroup], new: Sequence[WeightGroup]) -> tuple[WeightGroup, ...]:
    """Groups of old and new weights; a weight that both have is the new one, and groups of one name become one.

    >>> from nisampler.events.weights import WeightInfo
    >>> first, second = (WeightGroup("scales", weights=(WeightInfo("a"), WeightInfo(name))) for name in "bc")
    >>> joined([first], [second])[0].ids
    ('b', 'a', 'c')
    """
    kept = only(old, set(ids_of(old)) - set(ids_of(new)))
    names = {group.name: group for group in new if group.name}
    merged = []
    for group in kept:
        more = names.pop(group.name, None)
        merged.append(group if more is None else replace(more, weights=group.weights + more.weights))
    return (*merged, *(group for group in new if not group.name or group.name in names))


def _batches(
    file: EventFile, found: lookup.Variations, groups: Sequence[WeightGroup], monitor: Monitor
) -> Iterator[EventBatch]:
    """The events with the weights of all groups."""
    names = (*file.info.weight_ids, *ids_of(found.groups))
    places = {name: place for place, name in enumerate(names)}  # of a name that both have the new weight
    order = [places[name] for name in ids_of(groups)]
    done = 0
    for batch in file.batches(DEFAULT_CHUNK):
        weights = np.concatenate([batch.named_weights, found.weights(batch, done)], axis=1)
        yield replace(batch, named_weights=weights[:, order])
        done += len(batch)
        monitor.progress("events", done, file.declared or done, {})
