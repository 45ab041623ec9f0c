"""New jets from a fitted model, streamed to a file in shards."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from nisampler.base.checks import Count, checked
from nisampler.base.rng import Streams
from nisampler.calo.jets.files import JetWriter
from nisampler.calo.jets.jets import Jets
from nisampler.calo.jets.kinematics import totals
from nisampler.calo.jets.model import JetModel, properties_of
from nisampler.errors import ConfigError
from nisampler.ui.monitor import SILENT, Monitor

SHARD = 1000
STAGE = "generate"


@dataclass(frozen=True)
class GeneratedJets:
    """What was written: jets, means of pT, mass and constituents of them, and seconds of the wall clock.

    >>> GeneratedJets(100, 1000.0, 120.0, 28.5, 2.0).jets
    100
    """

    jets: int
    pt: float
    mass: float
    count: float
    seconds: float


def draw_jets(
    model: JetModel, n: int, seed: int, shard: int, types: Sequence[str] = (), like: Tensor | None = None
) -> Jets:
    """The jets of one shard, which depend on the model, the seed and the number of the shard alone.

    Parameters
    ----------
    model
        A fitted model.
    n
        Number of jets.
    seed, shard
        Of the random numbers.
    types
        Which are drawn with equal chances; by default all of the model, as often as in its training.
    like
        Types and properties (n, 6), such as `properties_of` gives; by default they are drawn.

    Raises
    ------
    ModelError
        If the model makes no jets of such a type, or none that are finite.

    Examples
    --------
    >>> from nisampler.calo.jets.presets import preset
    >>> model = JetModel(preset("small-epic-fm"), ("g", "t"), most=30).eval()
    >>> len(draw_jets(model, 3, seed=1, shard=0))
    3
    """
    streams, device = Streams(seed).child("jets", shard), model.centre.device
    known = like
    if known is None:
        shares = model.shares.double().cpu().numpy() if not types else np.ones(len(types))
        names = streams.numpy("types").choice(list(types or model.types), size=n, p=shares / shares.sum())
        known = model.draw([str(name) for name in names], streams.generator("properties", device=device))
    return model.sample(known.to(device), streams.generator("constituents", device=device))


def generate(
    model: JetModel,
    n: int | None,
    output: str | Path,
    seed: int = 1,
    types: Sequence[str] = (),
    like: Jets | None = None,
    shard: int = SHARD,
    monitor: Monitor = SILENT,
) -> GeneratedJets:
    """Write exactly `n` new jets to a file in the layout of JetNet.

    Parameters
    ----------
    model, types
        As for `draw_jets`.
    n
        Number of jets; None for one for each of `like`.
    output
        The HDF5 file; it appears once it is complete.
    seed
        Same seed and shards, same jets.
    like
        Jets whose types, pT, mass and numbers of constituents are taken, from the first on; by default they are drawn.
    shard
        Jets that are made at once: memory grows with it.
    monitor
        Is told the progress.

    Raises
    ------
    ConfigError
        If `n` is missing or larger than the number of `like`, or both types and jets are given.
    ModelError
        If the model makes no jets of such a type, or none that are finite.
    StorageError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.calo.jets.presets import preset
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     generate(JetModel(preset("small-epic-fm"), ("g", "t"), most=30).eval(), 3, f"{folder}/a.hdf5").jets
    3
    """
    count = _count(n, types, like)
    checked("shard", shard, Count)
    known = None if like is None else properties_of(_fitting(like, model.most)[:count])
    start, sums = time.monotonic(), np.zeros(3)
    monitor.plan({STAGE: count})
    with JetWriter(output, model.most) as writer:
        for index, first in enumerate(range(0, count, shard)):
            size = min(shard, count - first)
            given = None if known is None else known[first : first + size]
            jets = draw_jets(model, size, seed, index, types, given)
            writer.append(jets)
            pt, mass = totals(jets.constituents)
            sums += [(pt * jets.pt).sum(), (mass * jets.pt).sum(), jets.count.sum()]
            monitor.progress(STAGE, writer.written, count, {"mass": f"{sums[1] / writer.written:.4g} GeV"})
    mean = [float(value) for value in sums / count]
    return GeneratedJets(count, mean[0], mean[1], mean[2], time.monotonic() - start)


def _count(n: int | None, types: Sequence[str], like: Jets | None) -> int:
    """How many jets are made."""
    if like is not None and types:
        raise ConfigError(f"types come from the jets that are given, or are {', '.join(types)}: give one of the two")
    if n is None:
        if like is None:
            raise ConfigError("say how many jets with --jets, or give jets to take types, pT and mass from with --like")
        return len(like)
    count: int = checked("jets", n, Count)
    if like is not None and count > len(like):
        raise ConfigError(f"{count} jets are wanted, but there are {len(like)} to take types, pT and mass from")
    return count


def _fitting(like: Jets, most: int) -> Jets:
    """The jets with no more constituents than the model makes."""
    return like.leading(most) if like.most > most else like
