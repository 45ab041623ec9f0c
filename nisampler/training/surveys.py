"""Which survey suits an integrand, or a sampler that is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from nisampler.density.channels import multichannel_of
from nisampler.density.integrand import Integrand
from nisampler.errors import ConfigError
from nisampler.samplers.base import Sampler
from nisampler.training.survey import CubeSurvey, StartSurvey, Survey

if TYPE_CHECKING:
    from nisampler.flows import Flow


def make_survey(integrand: Integrand, device: torch.device, start: Sampler | Flow | None = None) -> Survey:
    """The survey that suits an integrand: of its channels, of the cube, or a sampler of one's own in its place.

    Raises
    ------
    ConfigError
        If that sampler has another dimension, lies elsewhere, or is a flow that does not fill the unit cube.

    Examples
    --------
    >>> integrand = Integrand(lambda x: x[:, 0], 1, kind="torch")
    >>> make_survey(integrand, torch.device("cpu")).sampler().describe()
    'uniform'
    """
    if start is not None:
        return StartSurvey(_own(start, integrand, device), multichannel_of(integrand.function, 1), device)
    function = multichannel_of(integrand.function, 1)
    if function is None or len(function.channels) == 1:
        return CubeSurvey(integrand.dim, device, function)
    from nisampler.training.channel_survey import ChannelSurvey  # its grids are those of flows

    return ChannelSurvey(function, device)


def _own(start: Sampler | Flow, integrand: Integrand, device: torch.device) -> Sampler:
    """A sampler or flow of one's own, as a sampler that fits."""
    if not isinstance(start, Sampler):
        from nisampler.flows import Flow, UniformCube
        from nisampler.samplers.flow import FlowSampler

        if not isinstance(start, Flow):
            raise ConfigError(f"a sampler or a flow was expected to start from, got {type(start).__name__}")
        if not isinstance(start.base, UniformCube):
            raise ConfigError("a flow to sample with must fill the unit cube: give it the base UniformCube(dim)")
        start = FlowSampler(start.to(device))
    if start.dim != integrand.dim:
        raise ConfigError(f"the sampler has dimension {start.dim}, the integrand {integrand.dim}: they must agree")
    if start.device.type != device.type:
        raise ConfigError(f"the sampler lies on {start.device}, the training runs on {device}: move it there")
    return start
