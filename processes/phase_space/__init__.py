"""Phase space of hadron collisions in torch: one-dimensional maps, blocks, Chili-type and topology channels.

A channel maps the unit cube to lab-frame momenta (n, m, 4) and back, each way with the logarithm of its density
in the measure dx_1 dx_2 dPhi_m.
"""

from nisampler.processes.phase_space.blocks import FixedEnergy, MomentumFractions
from nisampler.processes.phase_space.chili import Boson, ChiliChannel, chili_channels
from nisampler.processes.phase_space.jets import Jet, JetRegion
from nisampler.processes.phase_space.mappings import LOGARITHMIC, BreitWigner, IntervalMap, OnShell, PowerLaw, Uniform
from nisampler.processes.phase_space.presets import (
    Hadronic,
    drell_yan_channels,
    heavy_pair_channels,
    topology_channels,
)
from nisampler.processes.phase_space.topology import Cluster, TopologyChannel

__all__ = [
    "LOGARITHMIC",
    "Boson",
    "BreitWigner",
    "ChiliChannel",
    "Cluster",
    "FixedEnergy",
    "Hadronic",
    "IntervalMap",
    "Jet",
    "JetRegion",
    "MomentumFractions",
    "OnShell",
    "PowerLaw",
    "TopologyChannel",
    "Uniform",
    "chili_channels",
    "drell_yan_channels",
    "heavy_pair_channels",
    "topology_channels",
]
