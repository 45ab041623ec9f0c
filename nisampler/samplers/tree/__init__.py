"""Density trees behind a sampler, and how they grow."""

from nisampler.samplers.tree.density import DensityTree, TreeSampler
from nisampler.samplers.tree.growth import TreeConfig, explore_tree, grow_tree

__all__ = ["DensityTree", "TreeConfig", "TreeSampler", "explore_tree", "grow_tree"]
