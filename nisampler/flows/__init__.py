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
from nisampler.flows.continuous import ContinuousFlow, ContinuousTransform, continuous_flow
from nisampler.flows.convolutional import (
    ConvCouplingConfig,
    Embedded,
    PerPixel,
    channel_mask,
    conv_flow,
    squeeze,
    squeezed_shape,
)
from nisampler.flows.coupling import CouplingTransform
from nisampler.flows.cuda_graphs import CudaGraphs
from nisampler.flows.diffusion import ConsistentDenoiser, Denoiser, EDMConfig
from nisampler.flows.distributions import Base, StandardNormal, UniformCube
from nisampler.flows.flow import Flow
from nisampler.flows.grouped import GridSpline, GroupedFlow
from nisampler.flows.masks import binary_masks, exchange_masks, random_masks
from nisampler.flows.mean import MeanFlow
from nisampler.flows.nets.bayesian import VariationalLinear, draw, kl, training_noise, use_map
from nisampler.flows.nets.mlp import MLP, FourierFeatures, NetConfig, ResidualNet
from nisampler.flows.nets.point_transformer import PointTransformer, PointTransformerConfig
from nisampler.flows.nets.pointwise import PointwiseConfig, PointwiseNet
from nisampler.flows.nets.unet import ConstantMaps, ConvEmbedding, UNet, UNetConfig
from nisampler.flows.nets.velocity import VelocityConfig, VelocityMLP
from nisampler.flows.nets.vit import VelocityViT
from nisampler.flows.pairing import paired
from nisampler.flows.saving import Saved, assembly
from nisampler.flows.splines.families import Spline
from nisampler.flows.symmetry import Action, Symmetry
from nisampler.flows.torch_distribution import FlowDistribution
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
    "Action",
    "Affine",
    "AutoregressiveConfig",
    "AutoregressiveTransform",
    "Base",
    "Composition",
    "ConsistentDenoiser",
    "ConstantMaps",
    "ContinuousFlow",
    "ContinuousTransform",
    "ConvCouplingConfig",
    "ConvEmbedding",
    "CouplingConfig",
    "CouplingTransform",
    "CudaGraphs",
    "Denoiser",
    "EDMConfig",
    "Embedded",
    "Flow",
    "FlowDistribution",
    "FourierFeatures",
    "GridSpline",
    "GroupedFlow",
    "Inverse",
    "InverseAutoregressiveTransform",
    "LULinear",
    "Logit",
    "MaskedAutoregressiveTransform",
    "MeanFlow",
    "NetConfig",
    "PerPixel",
    "Permutation",
    "PointTransformer",
    "PointTransformerConfig",
    "PointwiseConfig",
    "PointwiseNet",
    "ResidualNet",
    "Saved",
    "Spline",
    "StandardNormal",
    "Symmetry",
    "Transform",
    "UNet",
    "UNetConfig",
    "UniformCube",
    "VariationalLinear",
    "VelocityConfig",
    "VelocityMLP",
    "VelocityViT",
    "assembly",
    "binary_masks",
    "channel_mask",
    "continuous_flow",
    "conv_flow",
    "coupling_flow",
    "draw",
    "exchange_masks",
    "iaf",
    "kl",
    "maf",
    "paired",
    "random_masks",
    "squeeze",
    "squeezed_shape",
    "training_noise",
    "use_map",
]
