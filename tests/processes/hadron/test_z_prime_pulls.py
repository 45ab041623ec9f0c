"""pp → γ, Z, Z' → e- e+ through three channels: the cross-section and its error do not depend on the training."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from statistics import fmean

import pytest
import torch
from training_settings import training
from windows import FEWEST_DOF, PULL_LIMIT, assert_calibrated, pull_windows

from nisampler.base.estimate import Estimate, pull
from nisampler.base.moments import Moments
from nisampler.base.rng import Streams
from nisampler.density.channels import multichannel_of
from nisampler.density.integrand import Integrand
from nisampler.integration.integrator import IntegrationConfig, Integrator, LatentPoints
from nisampler.processes.registry import create
from nisampler.samplers.base import Sampler
from nisampler.samplers.multichannel import ChannelModel, MultichannelSampler
from nisampler.samplers.registry import sampler_from_state
from nisampler.training.trainer import Trainer

# Mean of trainings with 300k to 3M calls, 500k points each; its error is a fortieth of that of a replica.
CROSS_SECTION = 1928.15
REPLICAS = 200
CONFIG = training(calls=20_000, sampler="flow", on=False, mixture=False)


@cache
def integrand() -> Integrand:
    return Integrand(create("z_prime"), kind="torch")


def untrained() -> Sampler:
    function = multichannel_of(integrand().function)
    assert function is not None
    share = torch.full((len(function.channels),), 1.0 / len(function.channels))
    return MultichannelSampler(function.dim, function.groups, ChannelModel(share))


@cache
def samplers() -> dict[str, Sampler]:
    """Untrained, in the middle of a training, and at its end."""
    trainer = Trainer(integrand(), CONFIG, Streams(11))
    found = {"untrained": untrained()}

    def note(state: Trainer) -> None:
        if "half-trained" not in found and state.calls > CONFIG.calls / 2 and state.flow is not None:
            tensors, meta = state.flow.sampler().state()
            copied = {name: tensor.clone() for name, tensor in tensors.items()}
            found["half-trained"] = sampler_from_state(copied, meta)

    found["trained"] = trainer.fit(note).sampler
    return found


def replicas(sampler: Sampler, method: str, points: int) -> list[Estimate]:
    """Estimates as the integrator makes them, but with all points of all replicas evaluated together."""
    batches, size = IntegrationConfig(points=points, method=method).shape()
    sets = [LatentPoints(size, sampler.dim, Streams(r), method, sampler.device) for r in range(REPLICAS)]
    u = torch.cat([points.batches(range(batches)) for points in sets])
    x, log_q = sampler.map(u)
    weights = torch.cat([sampler.view(integrand())(part) for part in x.split(50_000)]) * torch.exp(-log_q)
    found = []
    for replica in weights.view(REPLICAS, batches, size):
        parts = [Moments.from_tensor(batch) for batch in replica]
        ess = Moments.merge_all(parts).ess_fraction
        by_means = Estimate.from_batch_means([part.mean for part in parts], size, ess_fraction=ess, unit="pb")
        found.append(Estimate.from_batches(parts, "pb") if method == "mc" else by_means)
    return found


@pytest.mark.parametrize("moment", ["untrained", "half-trained", "trained"])
def test_the_cross_section_does_not_depend_on_the_training(moment: str) -> None:
    estimate = Integrator(integrand(), samplers()[moment], IntegrationConfig(points=60_000), Streams(5)).run().estimate
    assert abs(pull(estimate, CROSS_SECTION)) < PULL_LIMIT
    assert estimate.relative_error < {"untrained": 5e-3, "half-trained": 2e-3, "trained": 1e-3}[moment]


@pytest.mark.parametrize("method", ["sobol", "mc"])
def test_pulls_of_replicas(method: str) -> None:
    pulls = [pull(estimate, CROSS_SECTION) for estimate in replicas(samplers()["trained"], method, 1536)]
    assert_calibrated(pulls, FEWEST_DOF if method == "sobol" else math.inf)


def test_a_wrong_density_fails() -> None:
    """Negative control: the weights of one channel are 2 % too low."""
    wrong = [replace(e, value=e.value * (1 - 0.02 / 3)) for e in replicas(samplers()["trained"], "mc", 1536)]
    assert abs(fmean(pull(estimate, CROSS_SECTION) for estimate in wrong)) > 2 * pull_windows(REPLICAS).mean
