"""Cuts on final states: by their kind, by text such as ``dr(j, l) > 0.4``, and all of a process together."""

from nisampler.processes.hadron.cuts.combined import Cuts
from nisampler.processes.hadron.cuts.conditions import Condition, Pick
from nisampler.processes.hadron.cuts.kinds import (
    Cut,
    DistanceCut,
    LeadingPairCut,
    MassCut,
    MissingTransverseMomentumCut,
    PseudorapidityCut,
    SeparationCut,
    TransverseMomentumCut,
    leg_cuts,
    separation2,
)

__all__ = [
    "Condition",
    "Cut",
    "Cuts",
    "DistanceCut",
    "LeadingPairCut",
    "MassCut",
    "MissingTransverseMomentumCut",
    "Pick",
    "PseudorapidityCut",
    "SeparationCut",
    "TransverseMomentumCut",
    "leg_cuts",
    "separation2",
]
