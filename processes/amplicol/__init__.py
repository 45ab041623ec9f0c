"""Matrix elements of any Standard Model process at tree level, by pyamplicol (extra ``sm``)."""

from __future__ import annotations

from nisampler.processes.amplicol.amplitude import AmplicolAmplitude
from nisampler.processes.amplitudes.flavours import FlavourTable, flavour_table

__all__ = ["AmplicolAmplitude", "FlavourTable", "flavour_table"]
