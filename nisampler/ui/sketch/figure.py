"""A figure of panels one above the other, as SVG."""

from __future__ import annotations

from collections.abc import Sequence

from nisampler.ui.palette import INK
from nisampler.ui.sketch.panel import Box, Panel
from nisampler.ui.sketch.scale import Scale

_POINTS = 72.0
_LABEL_SHARE = 0.03
_FONTS = "DejaVu Sans, Verdana, Arial, sans-serif"


class Sketch:
    """Panels with a common horizontal axis.

    Parameters
    ----------
    width, height
        In inches.
    rows
        Relative heights of the panels.
    left, right, bottom, top
        Where the panels end, as shares of the figure from its lower left corner.
    between
        Room between panels, in units of their mean height.

    Examples
    --------
    >>> sketch = Sketch(8.0, 5.0, (3.0, 1.0), left=0.2, right=0.9, bottom=0.1, top=0.9, between=0.1)
    >>> len(sketch.panels), sketch.svg()[:4]
    (2, b'<svg')
    """

    def __init__(
        self,
        width: float,
        height: float,
        rows: Sequence[float],
        *,
        left: float,
        right: float,
        bottom: float,
        top: float,
        between: float,
    ) -> None:
        self.width, self.height = _POINTS * width, _POINTS * height
        inside = (top - bottom) * self.height
        mean = inside / (len(rows) + between * (len(rows) - 1))
        scale, at = Scale(), (1.0 - top) * self.height
        self.panels: list[Panel] = []
        for place, row in enumerate(rows):
            high = mean * len(rows) * row / sum(rows)
            box = Box(left * self.width, at, (right - left) * self.width, high)
            panel = Panel(box, scale, place == len(rows) - 1)
            panel.label_place = box.left + (_LABEL_SHARE - left) * box.width - 2.0
            self.panels.append(panel)
            at += high + between * mean

    def svg(self) -> bytes:
        """The figure; equal figures give equal bytes.

        Raises
        ------
        UnknownNotationError
            If a text has mathematics that is not known.
        """
        size = f'width="{self.width:g}pt" height="{self.height:.4g}pt" viewBox="0 0 {self.width:g} {self.height:.4g}"'
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="{_FONTS}" fill="{INK}">',
            '<rect width="100%" height="100%" fill="white"/>',
        ]
        for number, panel in enumerate(self.panels):
            parts += panel.svg(f"panel-{number}")
        return "\n".join([*(part for part in parts if part), "</svg>\n"]).encode()
