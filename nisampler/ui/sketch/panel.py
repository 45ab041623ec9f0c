"""One panel of a figure: curves, bands and points over two axes, drawn by the few methods of matplotlib's axes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nisampler.ui.palette import GREY, INK, PALE
from nisampler.ui.sketch.notation import spans, width
from nisampler.ui.sketch.scale import Scale

Floats = NDArray[np.float64]
_TEXT, _LABEL, _NOTE = 14.0, 15.0, 13.0
_TICK, _EDGE = 3.5, 0.5
_ROW, _KEY, _GAP, _BETWEEN = 20.9, 26.0, 10.0, 24.0
"""Points of a row of a legend, of its key, between key and text, and between columns."""
_APART = 48.0, 26.0
"""Points between the ticks of both axes, at least."""
_SIZES = {"x-small": 10.5, "small": 12.0}


@dataclass(frozen=True)
class Box:
    """Where a panel lies, in points from the upper left corner of the figure.

    >>> Box(10.0, 20.0, 100.0, 50.0).bottom
    70.0
    """

    left: float
    top: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """Its right end."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """Its lower end."""
        return self.top + self.height


@dataclass(frozen=True)
class _Entry:
    label: str
    draw: Callable[[float, float], str]
    """The key from this place on, `_KEY` wide, around this height."""


class Panel:
    """A panel; the methods take what matplotlib's do, as far as figures of reports use it.

    Parameters
    ----------
    box
        Where it lies.
    x
        The horizontal axis, which panels may share.
    lowest
        Whether the texts of that axis stand below it.

    Examples
    --------
    >>> panel = Panel(Box(50.0, 10.0, 300.0, 200.0), Scale())
    >>> panel.plot(np.array([0.0, 1.0]), np.array([0.0, 2.0]), color="black", label="line")
    >>> panel.get_ylim(), "".join(panel.svg("a")).count("<path")
    ((-0.1, 2.1), 4)
    """

    def __init__(self, box: Box, x: Scale, lowest: bool = True) -> None:
        self.box, self.xaxis, self.yaxis, self._lowest = box, x, Scale(), lowest
        self._marks: list[Callable[[], str]] = []
        self._entries: list[_Entry] = []
        self._names = {"x": "", "y": "", "title": ""}
        self._notes: list[tuple[float, str]] = []
        self._legend: dict[str, Any] | None = None
        self.label_place = 30.0

    # What it holds.

    def plot(self, x: ArrayLike, y: ArrayLike, *, color: str, label: str | None = None, **look: Any) -> None:
        """A line, with markers if there are any."""
        xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        self._see(xs, ys)
        radius = look.get("markersize", 6.0) / 2 + _EDGE if look.get("marker") else 0.0
        line = f'fill="none" stroke="{color}" stroke-width="{look.get("linewidth", 2.0)}" stroke-linejoin="round"'

        def draw() -> str:
            px, py = self._x(xs), self._y(ys)
            kept = np.isfinite(px) & np.isfinite(py)
            return f'<path d="{_way(px[kept], py[kept])}" {line}/>' + _dots(px[kept], py[kept], radius, color)

        self._marks.append(draw)
        self._entry(
            label, lambda left, y: f'<path d="M{left:.1f} {y:.1f}h{_KEY}" {line}/>' + _dot(left, y, radius, color)
        )

    def stairs(
        self,
        values: ArrayLike,
        edges: ArrayLike,
        *,
        baseline: ArrayLike | None = 0.0,
        fill: bool = False,
        color: str,
        label: str | None = None,
        alpha: float = 1.0,
        linewidth: float = 1.2,
        linestyle: Any = None,
        **_: Any,
    ) -> None:
        """Steps (b,) between edges (b + 1,), nothing where one is NaN: filled down to a baseline, or a line."""
        tops, ends = np.asarray(values, dtype=np.float64), np.asarray(edges, dtype=np.float64)
        low = None if baseline is None else np.broadcast_to(np.asarray(baseline, dtype=np.float64), tops.shape)
        self._see(ends, tops if low is None else np.concatenate([tops, low]))
        paint = f'fill="{color}" fill-opacity="{alpha:g}"' if fill else f'fill="none" stroke="{color}"'
        paint += (
            "" if fill else f' stroke-width="{linewidth}" stroke-opacity="{alpha:g}"{_dashes(linewidth, linestyle)}'
        )

        def draw() -> str:
            xs, ys = self._x(ends), self._y(tops)
            below = None if low is None else self._y(low)
            known = np.isfinite(ys) if below is None else np.isfinite(ys) & np.isfinite(below)
            ways = [
                _steps(xs[a : b + 1], ys[a:b], None if below is None else below[a:b], fill) for a, b in _runs(known)
            ]
            return f'<path d="{"".join(ways)}" {paint}/>' if ways else ""

        self._marks.append(draw)
        self._entry(label, lambda left, y: _patch(left, y, paint) if fill else _dash(left, y, paint))

    def errorbar(
        self,
        x: ArrayLike,
        y: ArrayLike,
        *,
        yerr: ArrayLike | None = None,
        color: str,
        markersize: float = 4.0,
        elinewidth: float = 1.3,
        label: str | None = None,
        **_: Any,
    ) -> None:
        """Points with vertical bars."""
        xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        errors = np.zeros_like(ys) if yerr is None else np.asarray(yerr, dtype=np.float64)
        self._see(xs, np.concatenate([ys - errors, ys + errors]))
        radius, line = markersize / 2 + _EDGE, f'fill="none" stroke="{color}" stroke-width="{elinewidth}"'

        def draw() -> str:
            px, py, low, high = self._x(xs), self._y(ys), self._y(ys - errors), self._y(ys + errors)
            bars = "".join(
                f"M{a:.2f} {b:.2f}V{c:.2f}" for a, b, c in zip(px, low, high, strict=True) if np.isfinite(a + b + c)
            )
            return f'<path d="{bars}" {line}/>' + _dots(px, py, radius, color)

        def key(left: float, y: float) -> str:
            bar = f'<path d="M{left + _KEY / 2:.1f} {y - 6.5:.1f}v13" {line}/>' if yerr is not None else ""
            return bar + _dot(left, y, radius, color)

        self._marks.append(draw)
        self._entry(label, key)

    def axvline(self, x: float, *, color: str, label: str | None = None, linewidth: float = 2.0, **look: Any) -> None:
        """A vertical line."""
        self.xaxis.see([x])
        line = f'fill="none" stroke="{color}" stroke-width="{linewidth}"{_dashes(linewidth, look.get("linestyle"))}'
        self._marks.append(lambda: f'<path d="M{self._x(x):.2f} {self.box.top:.2f}V{self.box.bottom:.2f}" {line}/>')
        self._entry(label, lambda left, y: _dash(left, y, line))

    def axhline(self, y: float, *, color: str, linewidth: float = 2.0) -> None:
        """A horizontal line."""
        self.yaxis.see([y])
        line = f'stroke="{color}" stroke-width="{linewidth}"'
        self._marks.append(lambda: f'<path d="M{self.box.left:.2f} {self._y(y):.2f}H{self.box.right:.2f}" {line}/>')

    def axhspan(self, low: float, high: float, *, color: str, alpha: float, label: str | None = None, **_: Any) -> None:
        """A horizontal band."""
        self.yaxis.see([low, high])
        paint = f'fill="{color}" fill-opacity="{alpha:g}"'

        def draw() -> str:
            top, bottom = self._y(high), self._y(low)
            place = f'x="{self.box.left:.2f}" y="{top:.2f}" width="{self.box.width:.2f}" height="{bottom - top:.2f}"'
            return f"<rect {place} {paint}/>"

        self._marks.append(draw)
        self._entry(
            label, lambda left, y: f'<rect x="{left:.1f}" y="{y - 4.5:.1f}" width="{_KEY}" height="9" {paint}/>'
        )

    def annotate(self, text: str, place: tuple[float, float], **_: Any) -> None:
        """A word above the panel, at this number of the horizontal axis."""
        self._notes.append((place[0], text))

    # Its axes.

    def set_xlabel(self, text: str) -> None:
        """Name the horizontal axis."""
        self._names["x"] = text

    def set_ylabel(self, text: str) -> None:
        """Name the vertical axis."""
        self._names["y"] = text

    def set_title(self, text: str) -> None:
        """A title above the panel."""
        self._names["title"] = text

    def set_xlim(self, low: float, high: float) -> None:
        """The ends of the horizontal axis."""
        self.xaxis.limits = float(low), float(high)

    def set_ylim(self, low: float, high: float) -> None:
        """The ends of the vertical axis."""
        self.yaxis.limits = float(low), float(high)

    def get_ylim(self) -> tuple[float, float]:
        """The ends of the vertical axis."""
        return self.yaxis.ends()

    def set_xscale(self, name: str) -> None:
        """Linear or log."""
        self.xaxis.log = name == "log"

    def set_yscale(self, name: str) -> None:
        """Linear or log."""
        self.yaxis.log = name == "log"

    def get_yscale(self) -> str:
        """Linear or log."""
        return "log" if self.yaxis.log else "linear"

    def set_yticks(self, places: ArrayLike) -> None:
        """Where the vertical axis has ticks."""
        self.yaxis.ticks = np.round(np.asarray(places, dtype=np.float64), 12).tolist()

    def margins(self, *, y: float) -> None:
        """Share of the vertical range that stays free at each end."""
        self.yaxis.margin = y

    def legend(self, *_: Any, **options: Any) -> None:
        """What the colours mean: above the panel by ``bbox_to_anchor``, or in one of its upper corners by ``loc``."""
        self._legend = options

    # What becomes of it.

    def svg(self, name: str) -> Iterator[str]:
        """The elements of the panel; `name` is for the element that it is clipped by.

        Raises
        ------
        UnknownNotationError
            If a text has mathematics that is not known.
        """
        box = self.box
        place = f'x="{box.left:.2f}" y="{box.top:.2f}" width="{box.width:.2f}" height="{box.height:.2f}"'
        yield f'<clipPath id="{name}"><rect {place}/></clipPath>'
        across, down = self.xaxis.marks(int(box.width / _APART[0])), self.yaxis.marks(int(box.height / _APART[1]))
        columns, rows = self._x(across[0]), self._y(down[0])
        grid = "".join([f"M{x:.2f} {box.top:.2f}V{box.bottom:.2f}" for x in columns])
        grid += "".join([f"M{box.left:.2f} {y:.2f}H{box.right:.2f}" for y in rows])
        yield f'<path d="{grid}" stroke="{PALE}" stroke-width="0.9"/><g clip-path="url(#{name})">'
        yield from (draw() for draw in self._marks)
        spines = f"M{box.left:.2f} {box.top:.2f}V{box.bottom:.2f}H{box.right:.2f}"
        yield f'</g><path d="{spines}" fill="none" stroke="{GREY}"/>'
        ends = "".join([f"M{x:.2f} {box.bottom:.2f}v{_TICK}" for x in columns])
        ends += "".join([f"M{box.left:.2f} {y:.2f}h-{_TICK}" for y in rows])
        yield f'<path d="{ends}" stroke="{INK}" stroke-width="0.8"/>'
        for y, text in zip(rows, down[1], strict=True):
            yield _text(box.left - 7.0, y + 5.0, text, _TEXT, "end")
        yield _text(box.left - 7.0, box.top - 8.0, down[2], _NOTE, "end")
        if self._lowest:
            yield _text(box.right, box.bottom + 40.0, across[2], _NOTE, "end")
            for x, text in zip(columns, across[1], strict=True):
                yield _text(x, box.bottom + 19.0, text, _TEXT)
            yield _text(box.left + box.width / 2, box.bottom + 40.0, self._names["x"], _LABEL)
        turned = f' transform="rotate(-90 {self.label_place:.2f} {box.top + box.height / 2:.2f})"'
        yield _text(self.label_place, box.top + box.height / 2, self._names["y"], _LABEL, "middle", turned)
        yield _text(box.left, box.top - 8.0, self._names["title"], _LABEL, "start", ' font-weight="bold"')
        for number, text in self._notes:
            yield _text(float(self._x(number)), box.top - 5.0, text, _NOTE, "middle", f' fill="{GREY}"')
        yield from self._legend_parts()

    def _legend_parts(self) -> Iterator[str]:
        if self._legend is None or not self._entries:
            return
        size = _SIZES.get(self._legend.get("fontsize", ""), _NOTE)
        columns = max(int(self._legend.get("ncols", 1)), 1)
        rows = -(-len(self._entries) // columns)
        parts = [self._entries[begin : begin + rows] for begin in range(0, len(self._entries), rows)]
        wide = [_KEY + _GAP + max(width(entry.label, size) for entry in part) for part in parts]
        whole, high = sum(wide) + _BETWEEN * (len(parts) - 1), rows * _ROW
        above, right = "bbox_to_anchor" in self._legend, "right" in self._legend.get("loc", "")
        left = self.box.right - whole - 6.0 if right else self.box.left + (4.0 if above else 7.0)
        top = self.box.top - high - 3.0 if above else self.box.top + 3.0
        if self._legend.get("frameon"):
            place = f'x="{left - 3:.1f}" y="{top:.1f}" width="{whole + 6:.1f}" height="{high:.1f}"'
            yield f'<rect {place} fill="white"/>'
        for part, room in zip(parts, wide, strict=True):
            for row, entry in enumerate(part):
                middle = top + (row + 0.5) * _ROW
                yield entry.draw(left, middle)
                yield _text(left + _KEY + _GAP, middle + 0.35 * size, entry.label, size, "start")
            left += room + _BETWEEN

    def _see(self, x: Floats, y: Floats) -> None:
        self.xaxis.see(x)
        self.yaxis.see(y)

    def _entry(self, label: str | None, draw: Callable[[float, float], str]) -> None:
        if label:
            self._entries.append(_Entry(label, draw))

    def _x(self, values: ArrayLike) -> Any:
        return self.box.left + self.box.width * self.xaxis.shares(values)

    def _y(self, values: ArrayLike) -> Any:
        return self.box.bottom - self.box.height * self.yaxis.shares(values)


def _text(x: float, y: float, text: str, size: float, anchor: str = "middle", more: str = "") -> str:
    if not text:
        return ""
    return f'<text x="{x:.2f}" y="{y:.2f}" font-size="{size:g}" text-anchor="{anchor}"{more}>{spans(text, size)}</text>'


def _way(x: Floats, y: Floats) -> str:
    return "M" + "L".join([f"{a:.2f} {b:.2f}" for a, b in zip(x, y, strict=True)]) if len(x) else ""


def _dash(left: float, y: float, line: str) -> str:
    return f'<path d="M{left:.1f} {y:.1f}h{_KEY}" {line}/>'


def _patch(left: float, y: float, paint: str) -> str:
    return f'<rect x="{left:.1f}" y="{y - 4.5:.1f}" width="{_KEY}" height="9" {paint}/>'


def _dot(left: float, y: float, radius: float, color: str) -> str:
    return f'<circle cx="{left + _KEY / 2:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{color}"/>' if radius else ""


def _dots(x: Floats, y: Floats, radius: float, color: str) -> str:
    if not radius:
        return ""
    circles = "".join(
        [f'<circle cx="{a:.2f}" cy="{b:.2f}" r="{radius:g}"/>' for a, b in zip(x, y, strict=True) if np.isfinite(a + b)]
    )
    return f'<g fill="{color}">{circles}</g>'


def _dashes(linewidth: float, style: Any) -> str:
    """Dashes as matplotlib takes them, in widths of the line."""
    if not isinstance(style, tuple):
        return ""
    lengths: Sequence[float] = style[1]
    return f' stroke-dasharray="{" ".join(f"{linewidth * length:g}" for length in lengths)}"'


def _runs(known: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Begin and end of each row of bins that are known."""
    changes = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]]).astype(np.int8)))
    return list(zip(changes[::2].tolist(), changes[1::2].tolist(), strict=True))


def _steps(x: Floats, y: Floats, below: Floats | None, fill: bool) -> str:
    """The way along steps, back along those below to be filled, or down to them at both ends."""
    along = "".join([f"V{b:.2f}H{a:.2f}" for a, b in zip(x[1:], y, strict=True)])
    if below is None:
        return f"M{x[0]:.2f} {y[0]:.2f}{along[along.index('H') :]}"
    start = f"M{x[0]:.2f} {below[0]:.2f}{along}V{below[-1]:.2f}"
    if not fill:
        return start
    return start + "".join([f"V{b:.2f}H{a:.2f}" for a, b in zip(x[-2::-1], below[::-1], strict=True)]) + "Z"
