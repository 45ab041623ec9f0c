"""How numbers with errors are written: `0.98874(12)`."""

from __future__ import annotations

import math
from decimal import ROUND_HALF_EVEN, Context, Decimal

MARK = " (?)"
"""Follows an error that is not to be trusted."""


def format_with_error(value: float, error: float, plus_minus: bool = False, trusted: bool = True) -> str:
    """`value` with `error` in units of its last digits, such as `0.98874(12)` or `1.23(4)e-15`.

    With `plus_minus` the error is written out: `0.98874 ± 0.00012` or `(1.23 ± 0.04)e-15`. A missing error
    (infinite, NaN) or a value that is not finite is written out too: `0.5 ± inf`. An error that is not `trusted` is
    followed by `MARK`.

    >>> format_with_error(0.988741, 0.000118)
    '0.98874(12)'
    >>> format_with_error(1.234e-15, 3.9e-17)
    '1.23(4)e-15'
    >>> format_with_error(1.234e-15, 3.9e-17, plus_minus=True)
    '(1.23 ± 0.04)e-15'
    >>> format_with_error(0.988741, 0.000118, trusted=False)
    '0.98874(12) (?)'
    """
    return _digits(value, error, plus_minus) + ("" if trusted else MARK)


def _digits(value: float, error: float, plus_minus: bool) -> str:
    if not (math.isfinite(value) and math.isfinite(error)):
        return f"{value:.6g} ± {error:.6g}"
    if error == 0.0:
        return f"{value:.12g} ± 0" if plus_minus else f"{value:.12g}(0)"
    leading = Decimal(f"{error:.2e}")
    head = leading.scaleb(2 - leading.adjusted())
    last = leading.adjusted() - (1 if head < 355 else 0)
    exact_value, exact_error = Decimal(value + 0.0), Decimal(error)
    if head >= 950:
        exact_error = leading = Decimal(1).scaleb(leading.adjusted() + 1)
        last = leading.adjusted() - 1
    exponent = max(exact_error.adjusted(), exact_value.adjusted() if value else exact_error.adjusted())
    shift = exponent if exponent < -4 or exponent > 9 or last > 0 else 0
    step = Decimal(1).scaleb(last - shift)
    digits = max(28, exponent - last + 5)
    shown = _quantize(exact_value.scaleb(-shift), step, digits)
    units = int(_quantize(exact_error.scaleb(-last), Decimal(1), digits))
    power = f"e{shift}" if shift else ""
    if not plus_minus:
        return f"{shown:f}({units}){power}"
    text = f"{shown:f} ± {units * step:f}"
    return f"({text}){power}" if power else text


def _quantize(number: Decimal, step: Decimal, digits: int) -> Decimal:
    """Round to a multiple of `step`, with as many digits as the result needs."""
    return number.quantize(step, rounding=ROUND_HALF_EVEN, context=Context(prec=digits))
