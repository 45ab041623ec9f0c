"""Normalizing flows: splines, transforms, conditioner networks, bases and their assemblies.

Knows nothing of physics, files or training.
"""

from nisampler.flows.assemblies import AutoregressiveConfig, CouplingConfig, coupling_flow, iaf, maf
from nisampler.flows.autoregressive import (
    MADE,
    AutoregressiveTransform,
    InverseAutoregressiveTransform,
    MaskedAutoregressiveTransform,
)
from nisampler.flows.bayesian import VariationalLinear, draw, kl, training_noise, use_map
from nisampler.flows.coupling import CouplingTransform
from nisampler.flows.distributions import Base, StandardNormal, UniformCube
from nisampler.flows.flow import Flow
from nisampler.flows.grouped import GridSpline, GroupedFlow
from nisampler.flows.masks import binary_masks, exchange_masks, random_masks
from nisampler.flows.nets import MLP, FourierFeatures, NetConfig, ResidualNet
from nisampler.flows.splines import Spline
from nisampler.flows.transforms import (
    ActNorm,
    Affine,
    Composition,
    Inverse,
    Logit,
    LULinear,
    Permutation,
    Transform,
)

__all__ = [
    "MADE",
    "MLP",
    "ActNorm",
    "Affine",
    "AutoregressiveConfig",
    "AutoregressiveTransform",
    "Base",
    "Composition",
    "CouplingConfig",
    "CouplingTransform",
    "Flow",
    "FourierFeatures",
    "GridSpline",
    "GroupedFlow",
    "Inverse",
    "InverseAutoregressiveTransform",
    "LULinear",
    "Logit",
    "MaskedAutoregressiveTransform",
    "NetConfig",
    "Permutation",
    "ResidualNet",
    "Spline",
    "StandardNormal",
    "Transform",
    "UniformCube",
    "VariationalLinear",
    "binary_masks",
    "coupling_flow",
    "draw",
    "exchange_masks",
    "iaf",
    "kl",
    "maf",
    "random_masks",
    "training_noise",
    "use_map",
]
