"""A figure of matplotlib that keeps its style."""

from __future__ import annotations

import io
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import matplotlib as mpl
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure


class Drawing(Figure):
    """A figure that shows itself in a notebook, with or without pyplot, and keeps its style wherever it is drawn.

    Attributes
    ----------
    style
        Matplotlib settings that it is drawn with.

    Examples
    --------
    >>> Drawing(figsize=(1.0, 1.0))._repr_png_()[1:4]
    b'PNG'
    """

    style: Mapping[Any, Any] = MappingProxyType({})

    def draw(self, renderer: RendererBase) -> None:
        """Draw everything, in this style."""
        with mpl.rc_context(dict(self.style)):
            super().draw(renderer)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()
