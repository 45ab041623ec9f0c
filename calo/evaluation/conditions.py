"""Samples compared in bins of each condition: angles, places, kinds of particles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from nisampler.calo.detector.conditions import Condition
from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.evaluation.energies import Response, compared
from nisampler.calo.evaluation.features import Features
from nisampler.calo.evaluation.histograms import Counts, separation
from nisampler.calo.evaluation.quantities import quantities

_BINS = 6
_FEWEST = 20
"""Showers that a bin needs in both samples."""
_ALIKE = 1e-6


def bins_of(condition: Condition, reference: NDArray[np.float64]) -> Iterator[tuple[str, float, float]]:
    """Label, lower and upper end of the bins of a condition; upper ends belong to them where both are equal.

    The values of a category and of a list are bins of their own, a range has six of equal width.

    >>> theta = Condition("theta", "number", (0.0, 60.0), unit="deg")
    >>> next(bins_of(theta, np.array([0.0, 60.0])))
    ('theta 0 to 10 deg', 0.0, 10.0)
    """
    if condition.kind == "category" or condition.discrete:
        yield from ((condition.shown(value), value, value) for value in condition.values)
        return
    low, high = float(reference.min()), float(reference.max())
    edges = np.linspace(low, high, _BINS + 1)
    for first, last in pairwise(edges):
        yield f"{condition.name} {first:.4g} to {last:.4g} {condition.unit}".rstrip(), float(first), float(last)


def _inside(values: NDArray[np.float64], low: float, high: float, last: bool) -> NDArray[np.bool_]:
    return (values >= low) & ((values <= high) if last or low == high else (values < high))


def _part(features: Features, chosen: NDArray[np.bool_]) -> Features:
    return replace(features, **{item.name: getattr(features, item.name)[chosen] for item in fields(features)})


def compared_by_condition(sample: Features, reference: Features, geometry: Geometry) -> dict[str, list[dict[str, Any]]]:
    """For each condition the rows of its bins, as JSON data.

    A row has the label of the bin, linearity, resolution and separation of E_tot/E_inc as `energies.compared` gives
    them, and "histograms": the mean separation power of all quantities in that bin.

    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.data.showers import Showers
    >>> features = Features.of(Showers(np.ones(1), np.ones((1, 240), dtype=np.float32)), geometry("toy"))
    >>> compared_by_condition(features, features, geometry("toy"))
    {}
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for column, condition in enumerate(geometry.conditions):
        ours, theirs = sample.conditions[:, column], reference.conditions[:, column]
        rows, ranges = [], list(bins_of(condition, theirs))
        for number, (label, low, high) in enumerate(ranges):
            masks = [_inside(values, low, high, number == len(ranges) - 1) for values in (ours, theirs)]
            parts = [_part(one, mask) for one, mask in zip((sample, reference), masks, strict=True)]
            if min(map(len, parts)) < _FEWEST or min(part.response.mean() for part in parts) <= 0:
                continue
            responses = [Response(number, float(part.incident.mean()), part.response) for part in parts]
            (row,) = compared(responses[:1], responses[1:])
            rows.append({"bin": label, **row, "histograms": _separation(parts[0], parts[1], geometry)})
        found[condition.name] = rows
    return found


def _separation(sample: Features, reference: Features, geometry: Geometry) -> float:
    """Mean over all quantities, in the bins that the reference part suggests."""
    powers = []
    for quantity in quantities(reference, geometry):
        counts = [Counts(quantity.axis), Counts(quantity.axis)]
        for histogram, part in zip(counts, (sample, reference), strict=True):
            histogram.fill(quantity.values(part))
        powers.append(separation(counts[0], counts[1]))
    return float(np.mean(powers))


def condition_rows(result: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Rows of a table from ``evaluation.json``: for each bin ratios of linearity and resolution, and separations.

    >>> row = {"bin": "theta = 3", "histograms": 0.01, "linearity_reference": 0.9, "resolution_reference": 0.1}
    >>> row |= {f"{name}_ratio{end}": 0.5 for name in ("linearity", "resolution") for end in ("", "_error")}
    >>> condition_rows({"samples": {"model": {"conditions": {"theta": [row]}}}})[-1]
    ('separation of all histograms, theta = 3', ['0.01'])
    """
    samples = [sample.get("conditions", {}) for sample in result["samples"].values()]
    shown: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for sample in samples for name in sample):
        for label in dict.fromkeys(row["bin"] for sample in samples for row in sample.get(name, ())):
            rows: list[Mapping[str, Any]] = [
                next((row for row in sample.get(name, ()) if row["bin"] == label), {}) for sample in samples
            ]
            known = next(row for row in rows if row)
            for what in ("linearity", "resolution"):
                title = f"{what}, {label} (reference {known[f'{what}_reference']:.4g}), ratio"
                shown[title] = [_ratio(row, what) for row in rows]
            shown[f"separation of all histograms, {label}"] = [f"{r['histograms']:.2g}" if r else "–" for r in rows]
    return list(shown.items())


def _ratio(row: Mapping[str, Any], name: str) -> str:
    if f"{name}_ratio" not in row:
        return "–"
    return f"{row[f'{name}_ratio']:.4f} ± {row[f'{name}_ratio_error']:.2g}"


def condition_notes(
    name: str, sample: NDArray[np.float64], reference: NDArray[np.float64], geometry: Geometry
) -> list[str]:
    """A sentence for each condition (n, k) that follows another law than in the reference.

    >>> from nisampler.calo.detector.geometries import geometry
    >>> condition_notes("model", np.zeros((2, 0)), np.zeros((2, 0)), geometry("toy"))
    []
    """
    return [
        f"{condition.name} of {name} follows another law than that of the reference: every figure contains that "
        "difference"
        for condition, ours, theirs in zip(geometry.conditions, sample.T, reference.T, strict=True)
        if ks_2samp(ours, theirs).pvalue < _ALIKE
    ]
