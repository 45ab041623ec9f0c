"""Where an axis has ticks, and what is written at them."""

from __future__ import annotations

import math
from typing import Literal

Kind = Literal["plain", "whole", "few", "thousands"]
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_SUFFIXES = {0: "", 3: "k", 6: "M", 9: "G", 12: "T"}
_LARGE, _SMALL = 1e6, 1e-4


def _step(span: float, most: int, whole: bool) -> float:
    """The least round step of which a span holds at most so many."""
    power = 10.0 ** math.floor(math.log10(span / most))
    for factor in _STEPS:
        step = factor * power
        if span / step <= most and not (whole and step % 1.0):
            return step
    return max(10.0 * power, 1.0) if whole else 10.0 * power


def linear_ticks(low: float, high: float, most: int = 7, whole: bool = False) -> list[float]:
    """Round numbers within [low, high], at most so many and one.

    >>> linear_ticks(0.0, 1.0)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    >>> linear_ticks(0.4, 3.6, whole=True)
    [1.0, 2.0, 3.0]
    """
    if not (math.isfinite(low) and math.isfinite(high)) or high - low <= 1e-12 * max(abs(low), abs(high)):
        return [low] if math.isfinite(low) else []
    step = _step(high - low, most, whole)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    # Decimals of the step alone, so that 3 * 0.2 is 0.6.
    digits = max(0, 2 - math.floor(math.log10(step)))
    return [round(number * step, digits) + 0.0 for number in range(first, last + 1)]


def labels(values: list[float], kind: Kind = "plain") -> tuple[list[str], str]:
    """What is written at ticks, with equally many decimals or as 20k, and the factor of all where they have one.

    >>> labels([0.0, 0.5, 1.0]), labels([-20000.0, 0.0], "thousands"), labels([1e-7, 2e-7])
    ((['0.0', '0.5', '1.0'], ''), (['−20k', '0'], ''), (['1', '2'], '$×10^{−7}$'))
    """
    largest = max((abs(value) for value in values), default=0.0)
    if kind == "thousands" and largest >= 1e3:
        return [_short(value) for value in values], ""
    if largest and not _SMALL <= largest < _LARGE:
        power = math.floor(math.log10(largest))
        return _decimals([value / 10.0**power for value in values]), f"$×10^{{{_minus(str(power))}}}$"
    return _decimals(values), ""


def _decimals(values: list[float]) -> list[str]:
    for digits in range(10):
        texts = [f"{value:.{digits}f}" for value in values]
        if all(
            abs(float(text) - value) <= 1e-9 * max(map(abs, values)) for text, value in zip(texts, values, strict=True)
        ):
            break
    return [_minus(text) for text in texts] if values else []


def _short(value: float) -> str:
    power = min(3 * max(0, math.floor(math.log10(abs(value)) / 3)), 12) if value else 0
    return _minus(f"{value / 10.0**power:.4g}") + _SUFFIXES[power]


def _minus(text: str) -> str:
    return text.replace("-", "−")


def log_ticks(low: float, high: float, most: int = 8) -> tuple[list[float], list[str]]:
    """Places and texts on a logarithmic axis: at 1, 2 and 5 where it spans few decades, else powers of ten.

    >>> log_ticks(1.0, 50.0)
    ([1.0, 2.0, 5.0, 10.0, 20.0, 50.0], ['1', '2', '5', '10', '20', '50'])
    >>> log_ticks(0.1, 1e3)[1]
    ['$10^{−1}$', '$10^{0}$', '$10^{1}$', '$10^{2}$', '$10^{3}$']
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    if high / low < 500:
        factors = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if high / low < 10 else (1.0, 2.0, 5.0)
        places = [float(f"{factor}e{power}") for power in range(first, last + 1) for factor in factors]
        kept = [place for place in places if low * (1 - 1e-9) <= place <= high * (1 + 1e-9)]
        if len(kept) < 2:
            kept = linear_ticks(low, high, 4)
        return kept, [_minus(f"{place:g}") for place in kept]
    stride = -(-(last - first) // most)
    powers = [power for power in range(first, last + 1) if power % stride == 0]
    kept = [float(f"1e{power}") for power in powers]
    inside = [low * (1 - 1e-9) <= place <= high * (1 + 1e-9) for place in kept]
    texts = [f"$10^{{{_minus(str(power))}}}$" for power in powers]
    return [p for p, i in zip(kept, inside, strict=True) if i], [t for t, i in zip(texts, inside, strict=True) if i]
