"""How far two samples of jets are apart: W1 of single numbers, and Fréchet and kernel distance of all together.

As in the `jetnet` package (2106.11535, 2211.10295): the first Wasserstein distance of mass, pT, multiplicity,
energy-flow polynomials and the features of constituents, each with the distance of two halves of the reference beside
it. No sample can be expected below this floor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

from nisampler.base.rng import Streams
from nisampler.calo.evaluation.distances import Distance, fpd, kpd
from nisampler.calo.jets.jets import FEATURES, TYPES, Floats, Jets
from nisampler.calo.jets.kinematics import efps, totals
from nisampler.errors import JetDataError

MASS, PT, COUNT, POLYNOMIALS = "mass [GeV]", "pT [GeV]", "constituents", "polynomials"
FEWEST = 20
_SCALE = 1e4
_REPEATS = 5


@dataclass(frozen=True)
class Numbers:
    """What of a sample is compared.

    Attributes
    ----------
    jets
        The sample.
    single
        Numbers (n,) of each jet by name.
    polynomials
        (n, 5) energy-flow polynomials, times 10,000.

    Examples
    --------
    >>> one = np.array([[[0.1, 0.0, 0.6], [-0.1, 0.0, 0.4]]])
    >>> numbers = Numbers.of(Jets(one, np.ones((1, 2), dtype=bool), [0], [1000.0], [0.3], [98.0]))
    >>> {name: round(float(value[0]), 1) for name, value in numbers.single.items()}
    {'mass [GeV]': 98.1, 'pT [GeV]': 1000.0, 'constituents': 2.0}
    """

    jets: Jets
    single: dict[str, Floats]
    polynomials: Floats

    @classmethod
    def of(cls, jets: Jets) -> Numbers:
        """The numbers of a sample."""
        pt, mass = totals(jets.constituents)
        single = {MASS: mass * jets.pt, PT: pt * jets.pt, COUNT: jets.count.astype(np.float64)}
        return cls(jets, single, _SCALE * efps(jets.constituents))

    def __len__(self) -> int:
        return len(self.jets)

    def __getitem__(self, rows: NDArray[Any]) -> Numbers:
        """Those of some jets."""
        chosen = {name: values[rows] for name, values in self.single.items()}
        return Numbers(self.jets[rows], chosen, self.polynomials[rows])

    def table(self) -> Floats:
        """(n, 8), what Fréchet and kernel distance look at."""
        return np.column_stack([*self.single.values(), self.polynomials])


def distances(first: Numbers, second: Numbers) -> Iterator[tuple[str, float]]:
    """The W1 distances of two samples by name: all jets, then mass and pT of each type that both have.

    >>> one = np.array([[[0.1, 0.0, 0.6], [-0.1, 0.0, 0.4]]])
    >>> numbers = Numbers.of(Jets(one, np.ones((1, 2), dtype=bool), [0], [1000.0], [0.3], [98.0]))
    >>> dict(distances(numbers, numbers))["mass [GeV]"]
    0.0
    """
    for name, values in first.single.items():
        yield name, float(wasserstein_distance(values, second.single[name]))
    columns = zip(first.polynomials.T, second.polynomials.T, strict=True)
    yield POLYNOMIALS, float(np.mean([wasserstein_distance(*pair) for pair in columns]))
    points = [sample.jets.constituents[sample.jets.mask].astype(np.float64) for sample in (first, second)]
    for index, name in enumerate(FEATURES):
        yield name, float(wasserstein_distance(points[0][:, index], points[1][:, index]))
    for number, kind in enumerate(TYPES):
        rows = [sample.jets.types == number for sample in (first, second)]
        if min(int(chosen.sum()) for chosen in rows) >= FEWEST:
            for name in (MASS, PT):
                one, other = first.single[name][rows[0]], second.single[name][rows[1]]
                yield f"{name}, {kind}", float(wasserstein_distance(one, other))


@dataclass(frozen=True)
class Measured:
    """The distances of a sample from the reference: mean and spread over random choices of both by name.

    >>> Measured("model", {"mass [GeV]": (2.0, 0.1)}, None, None).times_floor(Measured("floor", {"mass [GeV]": (1, 0)}))
    {'mass [GeV]': 2.0}
    """

    name: str
    w1: dict[str, tuple[float, float]]
    fpd: Distance | None = None
    kpd: Distance | None = None

    def times_floor(self, floor: Measured) -> dict[str, float]:
        """Every W1 in units of that of the floor."""
        return {name: value / floor.w1[name][0] for name, (value, _) in self.w1.items() if floor.w1.get(name, (0,))[0]}

    def as_dict(self) -> dict[str, Any]:
        """JSON data."""
        found: dict[str, Any] = {"w1": {name: list(pair) for name, pair in self.w1.items()}}
        return found | {name: getattr(self, name).as_dict() for name in ("fpd", "kpd") if getattr(self, name)}


def measure(name: str, reference: Numbers, sample: Numbers | None, seed: int = 1) -> Measured:
    """The distances of a sample from a reference, in equal numbers of jets.

    Five times the reference is dealt into two halves; the sample, or the second half where there is none, is compared
    with the first.

    Parameters
    ----------
    name
        Of the sample.
    reference, sample
        Their numbers; None for the floor.
    seed
        Of the choices.

    Raises
    ------
    JetDataError
        If a sample has fewer than 40 jets.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> points, whole = rng.random((80, 3, 3)), np.ones((80, 3), dtype=bool)
    >>> numbers = Numbers.of(Jets(points, whole, np.zeros(80), 500 + rng.random(80), rng.random(80), rng.random(80)))
    >>> measure("floor", numbers, None).w1["constituents"]
    (0.0, 0.0)
    """
    few = min(len(reference), len(reference if sample is None else sample))
    if few < 2 * FEWEST:
        raise JetDataError(f"{few} jets of {name} or of the reference are too few to compare: give at least 40")
    streams = Streams(seed).child("distances of jets")
    found: dict[str, list[float]] = {}
    pairs = []
    for repeat in range(_REPEATS):
        rng = streams.numpy("halves", repeat)
        order = rng.permutation(len(reference))
        half = len(order) // 2
        other = reference[order[half : 2 * half]] if sample is None else sample
        size = min(half, len(other))
        first = reference[order[:half]]
        first, second = (part[rng.choice(len(part), size, replace=False)] for part in (first, other))
        pairs.append((first, second))
        for key, value in distances(first, second):
            found.setdefault(key, []).append(value)
    w1 = {key: (float(np.mean(values)), float(np.std(values))) for key, values in found.items()}
    tables = [part.table() for part in pairs[0]]
    return Measured(name, w1, fpd(tables[0], tables[1], seed), kpd(tables[0], tables[1], seed))


def mixed(jets: Jets, seed: int) -> Jets:
    """Jets of constituents that come from different jets of the same type: a control that must be recognised.

    Each place is dealt out anew among the jets that have it, so that spectra stay what they are.

    >>> rng = np.random.default_rng(0)
    >>> points, whole, one = rng.random((9, 3, 3)), np.ones((9, 3), dtype=bool), np.ones(9)
    >>> jets = Jets(points, whole, 0 * one, 500 * one, one, one)
    >>> np.array_equal(np.sort(mixed(jets, 1).constituents, axis=0), np.sort(jets.constituents, axis=0))
    True
    """
    rng = Streams(seed).numpy("mixed jets")
    points = jets.constituents.copy()
    for kind in np.unique(jets.types):
        for place in range(jets.most):
            rows = np.flatnonzero((jets.types == kind) & jets.mask[:, place])
            points[rows, place] = points[rng.permutation(rows), place]
    return Jets(points, jets.mask, jets.types, jets.pt, jets.eta, jets.mass)
