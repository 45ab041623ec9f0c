"""What a preset is, and settings that small presets of all families share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.models.config import FlowConfig, ModelConfig
from nisampler.calo.preprocessing.preprocessing import PreprocessingConfig
from nisampler.flows import NetConfig, Spline


@dataclass(frozen=True)
class Preset:
    """A named set of settings.

    Parameters
    ----------
    text
        What it is, in one line.
    config
        From a geometry to settings.
    geometry
        The registered geometry it belongs to; None where it fits every one.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models.presets.catalogue import PRESETS
    >>> PRESETS["small"].config(geometry("toy")).family
    'two-step'
    """

    text: str
    config: Callable[[Geometry], ModelConfig]
    geometry: str | None = None


SMALL_ENERGIES = FlowConfig("coupling", 8, NetConfig(hidden=64, layers=2), Spline(bins=8, domain="line", bound=6.0))
"""The flow of the layer energies in small models."""


def clear_noise(geometry: Geometry) -> PreprocessingConfig:
    """Empty voxels just below the threshold, normal marginals: what small models learn from fastest.

    >>> from nisampler.calo.detector.geometries import geometry
    >>> clear_noise(geometry("toy")).noise
    'below-threshold'
    """
    return PreprocessingConfig(
        threshold=geometry.threshold,
        noise="below-threshold",
        width=0.5,
        unit="threshold",
        voxels="log",
        energies="log-sticks",
        scale=0.95,
        levels=16,
    )


def turns(geometry: Geometry) -> bool:
    """Whether showers look alike from all sides: in simulations without a field along the axis of the particle.

    >>> from nisampler.calo.detector.geometries import geometry
    >>> turns(geometry("toy"))
    True
    """
    return bool(geometry.angles)
