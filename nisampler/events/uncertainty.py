"""Uncertainties of a cross-section from the named weights of its events: scale envelopes, and the rules of PDF sets.

Rules are those of LHAPDF (1412.7420, section 2.3): the ErrorType of a set says how its members combine, and a "+as"
that its last two have other strong couplings, whose shifts are added in quadrature, each on its own side.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from nisampler.errors import EventFormatError
from nisampler.events.columns import DEFAULT_CHUNK
from nisampler.events.files import EventFile
from nisampler.events.weights import WeightGroup

ENVELOPE = "envelope"
_RULES = ("replicas", "hessian", "symmhessian")
_ONE_SIGMA, _SETS_AT_ONE_SIGMA = 100 * math.erf(math.sqrt(0.5)), 68.0

_MEMBER, _NUMBER, _DIGITS = re.compile(r"(\d{1,6})/(\d{1,6})"), re.compile(r"[1-9]\d?(\.\d{1,6})?"), 10

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Band:
    """An uncertainty of a cross-section, in pb.

    Attributes
    ----------
    name, rule
        Of the group of weights, and how these are combined; without a rule there is no uncertainty.
    weights
        How many there are.
    central, plus, minus
        The value that the uncertainty stands around, and what is above and below, both positive.

    Examples
    --------
    >>> Band("Central scale variation", "envelope", 7, 100.0, 12.0, 9.0).text(100.0)
    '+12 % -9 %'
    """

    name: str
    rule: str
    weights: int
    central: float
    plus: float
    minus: float

    def text(self, cross_section: float) -> str:
        """The uncertainty in percent of a cross-section, and a central value that differs from it."""
        if math.isnan(self.plus):
            return "no rule"
        shown = f"+{100 * self.plus / abs(cross_section):.3g} % -{100 * self.minus / abs(cross_section):.3g} %"
        shift = self.central / cross_section - 1
        return shown if abs(shift) < 1e-9 else f"{shown} around {self.central:.6g} pb ({100 * shift:+.3g} %)"


@dataclass(frozen=True)
class Uncertainties:
    """What the named weights of a file say of its cross-section.

    Attributes
    ----------
    cross_section, error
        In pb, as the file declares them.
    events
        How many were read.
    values
        The cross-section of each named weight in pb, by its name.
    bands
        One for each group of weights.

    Examples
    --------
    >>> Uncertainties(100.0, 0.5, 20, {"a": 90.0}, ()).rows()[0]
    ('cross-section', '100 ± 0.5 pb from 20 events')
    """

    cross_section: float
    error: float
    events: int
    values: dict[str, float]
    bands: tuple[Band, ...]

    def rows(self) -> list[tuple[str, str]]:
        """(name, value) pairs for a table."""
        rows = [("cross-section", f"{self.cross_section:.8g} ± {self.error:.2g} pb from {self.events} events")]
        for band in self.bands:
            rows.append((f"{band.name} ({band.rule}, {band.weights})", band.text(self.cross_section)))
        return rows


def uncertainties(path: str | Path) -> Uncertainties:
    """The cross-section of each named weight of a file, σ Σw_k / Σw, and the uncertainty of each group of them.

    Raises
    ------
    EventFormatError
        If the file has no named weights or no events, or its weights add up to zero, or a group lacks members that its
        rule needs.
    StorageError, CorruptFileError, MissingExtraError
        If it cannot be read.

    Examples
    --------
    >>> uncertainties("nowhere.h5")
    Traceback (most recent call last):
    ...
    nisampler.errors.StorageError: cannot read nowhere.h5: no such file
    """
    file = EventFile.open(path)
    info, ids = file.info, file.info.weight_ids
    if not ids:
        raise EventFormatError(f"{path} has no named weights: `nisampler reweight {path} --scales 7-point` makes some")
    total, named, count = 0.0, np.zeros(len(ids)), 0
    for batch in file.batches(DEFAULT_CHUNK):
        total += float(batch.weights.sum())
        named += batch.named_weights.sum(axis=0)
        count += len(batch)
    if not total:
        raise EventFormatError(f"{path}: the weights of its {count} events add up to zero")
    values = info.cross_section * named / total
    wrong = [name for name, value in zip(ids, values.tolist(), strict=True) if not math.isfinite(value)]
    if wrong:
        raise EventFormatError(f"{path}: the weights {wrong[0]} are not finite: `nisampler check {path}` says where")
    error = info.error
    bands, start = [], 0
    for group in info.weight_groups:
        part = values[start : start + len(group.weights)]
        bands.append(band_of(group, part, info.cross_section))
        start += len(group.weights)
    return Uncertainties(info.cross_section, error, count, dict(zip(ids, values.tolist(), strict=True)), tuple(bands))


def band_of(group: WeightGroup, values: Floats, nominal: float) -> Band:
    """The uncertainty that a group of weights with these values (k,) makes, in their unit.

    Raises
    ------
    EventFormatError
        If members are missing that the rule needs.

    Examples
    --------
    >>> from nisampler.events.weights import WeightInfo
    >>> group = WeightGroup("scales", "envelope", (WeightInfo("a"), WeightInfo("b")))
    >>> band = band_of(group, np.array([90.0, 112.0]), 100.0)
    >>> band.plus, band.minus
    (12.0, 10.0)
    """
    name, rule, size = group.name or "no group", group.combine, len(group.weights)
    if rule == ENVELOPE:
        plus, minus = max(0.0, float(values.max()) - nominal), max(0.0, nominal - float(values.min()))
        return Band(name, rule, size, nominal, plus, minus)
    if rule.partition("+")[0] not in _RULES or size < 2:
        return Band(name, rule or "unknown", size, float(values[0]) if size else math.nan, math.nan, math.nan)
    level = group.weights[0].get("CONFIDENCE")
    confidence = float(level) if level is not None and _NUMBER.fullmatch(level) else _SETS_AT_ONE_SIGMA
    return Band(name, rule, size, *pdf_uncertainty(values[_in_order(group)], rule, confidence))


def _in_order(group: WeightGroup) -> list[int]:
    """Places of the weights by the number of the member, from member 0 on; none may be missing, but replicas."""
    numbers, total = _members(group)
    order = sorted(range(len(numbers)), key=lambda place: numbers[place])
    found = [numbers[place] for place in order]
    whole = found == list(range(total or len(found)))
    if not whole and not (group.combine == "replicas" and found[0] == 0):
        needed = f"members 0 to {total - 1}" if total else "all members from 0 on"
        raise EventFormatError(f"{group.name}: the rule {group.combine} needs {needed}, the file has {len(found)}")
    return order


def _members(group: WeightGroup) -> tuple[list[int], int]:
    """The numbers of the members in their set, and how many that has, 0 where nothing tells.

    Our files say both, as ``MEMBER="3/43"``; in others LHAPDF's numbers count from that of member 0.
    """
    said = [_MEMBER.fullmatch(weight.get("MEMBER") or "") for weight in group.weights]
    if all(said):
        pairs = [(int(match[1]), int(match[2])) for match in said if match]
        return [member for member, _ in pairs], pairs[0][1]
    numbers = [weight.get("PDF") or weight.get("pdf") or "" for weight in group.weights]
    if all(number.isdecimal() and len(number) < _DIGITS for number in numbers):
        first = min(map(int, numbers))
        return [int(number) - first for number in numbers], 0
    return list(range(len(numbers))), 0


def pdf_uncertainty(
    values: Sequence[float] | Floats, rule: str, confidence: float = 68.0
) -> tuple[float, float, float]:
    """Central value, and what is above and below it at one standard deviation, of values for members 0, 1, …

    Parameters
    ----------
    values
        (members,), of the whole set.
    rule
        "replicas": mean and standard deviation of members 1, 2, …; "hessian": pairs (2i − 1, 2i), the larger shift of
        each side; "symmhessian": the root of the sum of all squared shifts. With "+as" the last two members have a
        smaller and a larger coupling.
    confidence
        Of the set, in percent; shifts of a set of 90 % are scaled down to one standard deviation.

    Raises
    ------
    EventFormatError
        If the rule is unknown, or there are too few members for it.

    Examples
    --------
    >>> pdf_uncertainty([10.0, 13.0, 6.0], "symmhessian")
    (10.0, 5.0, 5.0)
    >>> pdf_uncertainty([10.0, 13.0, 6.0], "hessian")
    (10.0, 3.0, 4.0)
    """
    core, _, parameters = rule.partition("+")
    if core not in _RULES or parameters not in ("", "as"):
        raise EventFormatError(
            f"no rule {rule!r} for the members of a PDF set; known: {', '.join(_RULES)}, each with +as"
        )
    numbers = np.asarray(values, dtype=np.float64)
    extra = 2 if parameters else 0
    members = numbers[1 : len(numbers) - extra]
    if len(members) < (2 if core == "replicas" else 1) or (core == "hessian" and len(members) % 2):
        raise EventFormatError(f"{len(numbers)} members are too few for the rule {rule!r}, or no pairs")
    central = float(numbers[0])
    shifts = members - central
    if core == "replicas":
        central = float(members.mean())
        plus = minus = float(members.std(ddof=1))
    elif core == "symmhessian":
        plus = minus = float(np.sqrt((shifts**2).sum()))
    else:
        pairs = shifts.reshape(-1, 2)
        plus = float(np.sqrt((pairs.max(axis=1).clip(min=0) ** 2).sum()))
        minus = float(np.sqrt((pairs.min(axis=1).clip(max=0) ** 2).sum()))
    scale = 1.0 if confidence == _SETS_AT_ONE_SIGMA else _quantile(_ONE_SIGMA) / _quantile(confidence)
    coupling = numbers[len(numbers) - extra :] - float(numbers[0])
    above, below = float(coupling.max(initial=0.0)), float(-coupling.min(initial=0.0))
    return central, math.hypot(scale * plus, above), math.hypot(scale * minus, below)


def _quantile(confidence: float) -> float:
    """Standard deviations to either side that hold so many percent."""
    return NormalDist().inv_cdf(0.5 + confidence / 200)
