"""Figures of a report as SVG without matplotlib, whose import and layout take longer than a short run."""

from nisampler.ui.sketch.figure import Sketch as Sketch
from nisampler.ui.sketch.notation import UnknownNotationError as UnknownNotationError
from nisampler.ui.sketch.panel import Panel as Panel
from nisampler.ui.sketch.scale import Scale as Scale
from nisampler.ui.sketch.ticks import Kind as Kind
