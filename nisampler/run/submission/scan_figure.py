"""The figure of a scan: integral and unweighting efficiency against the first key, a curve for each other value."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from nisampler.ui.panels import panels
from nisampler.ui.plots import BLUE, GREEN, GREY, ORANGE, PLAIN, PURPLE

_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, GREY)
_DECADES = 30.0
"""The ratio of largest to smallest from which an axis is logarithmic."""


def draw_scan(keys: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The figure of a scan as PNG; runs that failed are left out.

    Parameters
    ----------
    keys
        Of the card; the first one is the horizontal axis.
    rows
        Of `scan`.

    Examples
    --------
    >>> draw_scan(["seed"], [{"values": {"seed": 1}, "error": "CardError: seed"}])[1:4]
    b'PNG'
    """
    good = [row for row in rows if "error" not in row]
    axis = {value: place for place, value in enumerate(dict.fromkeys(str(row["values"][keys[0]]) for row in good))}
    numbers = all(_number(row["values"][keys[0]]) for row in good)
    with mpl.rc_context(dict(PLAIN)):
        figure, (upper, lower) = panels((3.0, 1.0), 6.4, top=0.2, left=0.14)
        for place, (label, members) in enumerate(_curves(keys[1:], good).items()):
            x = [row["values"][keys[0]] if numbers else axis[str(row["values"][keys[0]])] for row in members]
            style: dict[str, Any] = {
                "color": _COLOURS[place % len(_COLOURS)],
                "linestyle": ("-", "--", ":")[place // len(_COLOURS) % 3] if numbers else "",
                "marker": "o",
                "markersize": 5,
            }
            value, error = (
                np.array([row["integral"][name] for row in members], dtype=float) for name in ("value", "error")
            )
            upper.errorbar(x, value, error, label=label, capsize=2, **style)
            worth = np.array([row["efficiency_0p1"] for row in members], dtype=float)
            lower.plot(x, 100.0 * worth, **style)
        _dressed(upper, lower, keys, good, numbers, list(axis))
        if keys[1:] and good:
            upper.legend()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _curves(keys: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Runs that differ in the first key only, by the values of the others."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        label = ", ".join(f"{key.rpartition('.')[2]} = {row['values'][key]}" for key in keys)
        found.setdefault(label, []).append(row)
    return found


def _dressed(
    upper: Axes, lower: Axes, keys: Sequence[str], rows: Sequence[Mapping[str, Any]], numbers: bool, names: list[str]
) -> None:
    """Labels and scales."""
    units = {str(row["integral"]["unit"]) for row in rows} - {""}
    upper.set_ylabel("integral" + (f" [{units.pop()}]" if len(units) == 1 else ""))
    lower.set_ylabel("efficiency [%]")
    lower.set_ylim(0.0, 1.15 * lower.get_ylim()[1])
    lower.set_xlabel(keys[0])
    if _wide([row["integral"]["value"] for row in rows]):
        upper.set_yscale("log")
    if not numbers:
        lower.set_xticks(range(len(names)), names)
    elif _wide([row["values"][keys[0]] for row in rows]):
        lower.set_xscale("log")


def _wide(values: Sequence[float]) -> bool:
    return len(values) > 1 and min(values) > 0.0 and max(values) > _DECADES * min(values)
