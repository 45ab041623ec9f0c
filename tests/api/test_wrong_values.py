"""Public functions and constructors with wrong values: a named error, and nothing that is taken silently."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from nisampler import (
    ChannelSettings,
    ChoiceSettings,
    Costs,
    FlowSettings,
    Integrand,
    IntegrationConfig,
    TrainingConfig,
    TreeSettings,
    UnweightingConfig,
    integrate,
)
from nisampler.api import ChainConfig
from nisampler.base.device import cpu_threads, resolve_device
from nisampler.base.rng import Streams
from nisampler.base.weights import efficiency_at
from nisampler.calo.data.batches import StreamedSource, source
from nisampler.calo.data.files import split
from nisampler.calo.detector.geometries import geometry
from nisampler.calo.detector.geometry import IncidentEnergy, Layer
from nisampler.calo.evaluation.evaluate import EvaluationOptions
from nisampler.calo.fitting.fit import DataOptions
from nisampler.calo.generation import generate
from nisampler.calo.models import build_model
from nisampler.calo.recipe import FitOptions
from nisampler.calo.simulation.simulator import simulate_file
from nisampler.errors import NisamplerError
from nisampler.flows import CouplingConfig, coupling_flow, iaf, maf
from nisampler.flows.nets.mlp import NetConfig
from nisampler.flows.splines.families import Spline
from nisampler.processes.partons.pdf import load_pdf
from nisampler.processes.registry import create
from nisampler.result import Result
from nisampler.run.sections import EventSettings, IntegrandSettings
from nisampler.samplers.base import UniformSampler
from nisampler.samplers.tree import TreeConfig
from nisampler.training.buffer import Buffer

WHOLE = (True, 1.5, 1e3, -1, math.nan, math.inf, "many", [2], 10**20, np.float64(2.0), np.bool_(True), 1j)
COUNT = (0, None, *WHOLE)
NATURAL = (None, *WHOLE)
NUMBER = (True, math.nan, "large", None, [1.0], 1j)
POSITIVE = (0, 0.0, -1.0, math.inf, *NUMBER)
NAME = ("nonsense", 1, True, None, ["auto"])
DEVICE = ("nonsense", "cuda:77", "", 5.5, None, ["cpu"])
SEED = (None, -1, 2**64, 1.5, True, "x", math.nan, np.bool_(False))


def values(x: torch.Tensor) -> torch.Tensor:
    return x.sum(1)


@cache
def result() -> Result:
    quick = IntegrationConfig(points=2000)
    return integrate(values, 2, training=TrainingConfig(calls=5000, sampler="vegas"), integration=quick, progress=False)


@cache
def model() -> Any:
    return build_model("small-inn", geometry("toy")).eval()


def tiny(**changes: Any) -> object:
    """An integration that is over at once, but for what is changed."""
    given: dict[str, Any] = {
        "dim": 2,
        "training": TrainingConfig(calls=5000, sampler="vegas"),
        "integration": IntegrationConfig(points=2000),
        "progress": False,
    }
    return integrate(values, **(given | changes))


# What is called with one wrong value, by name.
CASES: dict[str, tuple[Callable[[Any], object], tuple[Any, ...]]] = {
    "integrate dim": (lambda v: tiny(dim=v), COUNT),
    "integrate seed": (lambda v: tiny(seed=v), SEED),
    "integrate device": (lambda v: tiny(device=v), DEVICE),
    "integrate threads": (lambda v: tiny(threads=v), COUNT),
    "integrate events": (lambda v: tiny(events=v), WHOLE),
    "integrate kind": (lambda v: tiny(kind=v), NAME),
    "integrate training": (lambda v: tiny(training=v), ({}, 5, "auto")),
    "integrate integration": (lambda v: tiny(integration=v), ({"points": 5}, 5, "auto")),
    "integrate unweighting": (lambda v: tiny(unweighting=v), ({"policy": 5}, 5, "auto")),
    "Integrand dim": (lambda v: Integrand(values, v), COUNT),
    "Integrand device": (lambda v: Integrand(values, 2, device=v), DEVICE),
    "Integrand kind": (lambda v: Integrand(values, 2, kind=v), NAME),
    "Integrand nonfinite": (lambda v: Integrand(values, 2, nonfinite=v), (1.0, -0.1, math.inf, *NUMBER)),
    "result unweight": (lambda v: result().unweight(v), COUNT),
    "result unweight shard": (lambda v: result().unweight(1, shard=v), NATURAL),
    "result sample": (lambda v: result().sample(v), COUNT),
    "result sample shard": (lambda v: result().sample(1, shard=v), NATURAL),
    "Streams": (Streams, SEED),
    "ChainConfig seed": (lambda v: ChainConfig(seed=v), SEED),
    "ChainConfig threads": (lambda v: ChainConfig(threads=v), COUNT),
    "ChainConfig training": (lambda v: ChainConfig(training=v), (5, None, {})),
    "cpu_threads": (lambda v: cpu_threads(v).__enter__(), COUNT),
    "resolve_device": (resolve_device, DEVICE),
    "efficiency_at": (lambda v: efficiency_at(torch.ones(3), v), (1.0, -0.1, *NUMBER)),
    "UniformSampler dim": (UniformSampler, COUNT),
    "UniformSampler device": (lambda v: UniformSampler(2, v), DEVICE),
    "sampler sample": (lambda v: UniformSampler(2).sample(v, torch.Generator()), NATURAL),
    "sampler map": (lambda v: UniformSampler(2).map(v), (torch.ones(3), torch.full((3, 2), 2.0), None, [[0.5, 0.5]])),
    "flow dim": (coupling_flow, COUNT),
    "maf dim": (maf, COUNT),
    "iaf dim": (iaf, COUNT),
    "flow sample": (lambda v: coupling_flow(2).sample(v), NATURAL),
    "flow config": (lambda v: coupling_flow(2, v), (5, {}, "x")),
    "Spline domain": (lambda v: Spline(domain=v), NAME),
    "Buffer capacity": (lambda v: Buffer(2, v), COUNT),
    "Buffer dim": (lambda v: Buffer(v, 3), COUNT),
    "create dim": (lambda v: create("gauss", dim=v), (0, *WHOLE)),
    "load_pdf": (load_pdf, ("nothing", "nowhere.dat", 5, None)),
    "load_pdf member": (lambda v: load_pdf("NNPDF31_lo_as_0118", v), (-1, 1.5, True, None, "x", 10**20)),
    "split n": (lambda v: split(v, (0.5, 0.5), 1), NATURAL),
    "split fractions": (lambda v: split(10, v, 1), ((0.9, 0.9), (-0.1,), (math.nan,), ("x",), 5, None)),
    "split seed": (lambda v: split(10, (0.5,), v), SEED),
    "IncidentEnergy kind": (lambda v: IncidentEnergy(v, (1.0, 2.0)), NAME),
    "Layer angles": (lambda v: Layer.polar(0, v, (0.0, 1.0)), COUNT),
    "simulate n": (lambda v: simulate_file("nowhere/a.h5", geometry("toy"), v, 1), COUNT),
    "simulate seed": (lambda v: simulate_file("nowhere/a.h5", geometry("toy"), 1, v), SEED),
    "generate n": (lambda v: generate(model(), v, "nowhere/a.h5"), COUNT),
    "generate seed": (lambda v: generate(model(), 1, "nowhere/a.h5", seed=v), SEED),
    "generate shard": (lambda v: generate(model(), 1, "nowhere/a.h5", shard=v), COUNT),
    "generate incident": (
        lambda v: generate(model(), 1, "nowhere/a.h5", incident=v),
        (np.ones(2), np.zeros(1), np.array([math.nan]), np.array(["x"]), [None], 5.0, "x"),
    ),
    "source memory": (lambda v: source("nowhere.h5", geometry("toy"), np.arange(2), memory=v), POSITIVE),
    "StreamedSource": (lambda v: StreamedSource("nowhere.h5", geometry("toy"), v), (np.arange(0), np.arange(2))),
}
# Settings, each with wrong values for each of its names.
SETTINGS: dict[type, dict[str, tuple[Any, ...]]] = {
    TrainingConfig: {
        "calls": COUNT,
        "sampler": NAME,
        "events": WHOLE,
        "costs": (5, "x"),
        "choice": (5, None),
        "flow": (5, None),
        "tree": (5, None),
        "channels": (5, None),
    },
    FlowSettings: {
        "bins": COUNT,
        "hidden": COUNT,
        "layers": COUNT,
        "fourier": (-2, None, *(value for value in WHOLE if value != -1)),
        "vegas_start": NAME,
        "batch": WHOLE,
        "reuse": WHOLE,
        "buffer": COUNT,
        "learning_rate": POSITIVE,
        "clip": POSITIVE,
        "weight_decay": (-1.0, math.inf, *NUMBER),
        "divergence": ("nonsense", "none", 5, None),
        "tail_divergence": ("nonsense", 5, None),
        "optimizer": (5, "adam"),
    },
    TreeSettings: {"on": (1, 0, "yes", None), "leaves": COUNT},
    ChannelSettings: {
        "learned_weights": (1, "yes", None),
        "mixture": (1, "yes", None),
        "freeze": (0.0, 1.5, -1.0, math.inf, *NUMBER),
        "drop": (1.0, -0.1, math.inf, *NUMBER),
    },
    ChoiceSettings: {"choose_by": NAME},
    Costs: {"call": (-1.0, math.inf, *(value for value in NUMBER if value is not None))},
    IntegrationConfig: {
        "points": tuple(value for value in COUNT if value is not None),
        "method": NAME,
        "target": (1.0, -0.1, math.inf, *NUMBER),
        "max_points": COUNT,
        "keep_weights": COUNT,
    },
    UnweightingConfig: {
        "policy": NAME,
        "overweight": (1.0, -0.1, math.inf, *NUMBER),
        "max_trials": (0.5, -1.0, math.inf, *NUMBER),
        "two_stage": NAME,
    },
    TreeConfig: {"leaves": COUNT, "min_points": COUNT, "cuts": (1, *COUNT)},
    NetConfig: {"hidden": COUNT, "layers": COUNT, "fourier": NATURAL, "context_dim": NATURAL, "kind": NAME},
    CouplingConfig: {"blocks": tuple(value for value in COUNT if value is not None), "masks": NAME},
    EventSettings: {"n": NATURAL, "shard_size": COUNT, "formats": ("lhe", ("x",), (), 5), "weights": ("x", 5)},
    IntegrandSettings: {"kind": NAME, "nonfinite": (1.0, -0.1, math.inf, *NUMBER)},
    DataOptions: {
        "validation": (1.0, *POSITIVE),
        "limit": tuple(v for v in COUNT if v is not None),
        "memory": POSITIVE,
    },
    FitOptions: {"seed": SEED, "epochs": (0, *WHOLE), "batch": (0, *WHOLE)},
    EvaluationOptions: {
        "showers": (0, 1, *WHOLE),
        "layers": COUNT,
        "seed": SEED,
        "classifiers": ("x", ("nothing",), 5),
    },
}


def _of(owner: type, name: str) -> Callable[[Any], object]:
    return lambda value: owner(**{name: value})


def cases() -> Iterator[Any]:
    """A call and a wrong value, with an id."""
    for name, (call, wrong) in CASES.items():
        yield from (pytest.param(call, value, id=f"{name} = {_short(value)}") for value in wrong)
    for owner, names in SETTINGS.items():
        for name, wrong in names.items():
            call = _of(owner, name)
            yield from (pytest.param(call, value, id=f"{owner.__name__}.{name} = {_short(value)}") for value in wrong)


def _short(value: Any) -> str:
    return " ".join(f"{type(value).__name__} {value!r}".split())[:40]


@pytest.mark.parametrize(("call", "wrong"), list(cases()))
def test_a_wrong_value_is_refused_by_name(call: Callable[[Any], object], wrong: Any) -> None:
    with pytest.raises(NisamplerError) as caught:
        call(wrong)
    assert str(caught.value)


@pytest.mark.parametrize("value", [np.int64(2), np.int32(2), np.uint8(2), 2])
def test_integers_of_numpy_are_taken(value: Any) -> None:
    assert Integrand(values, value).dim == 2 and coupling_flow(value).dim == 2
    assert len(result().unweight(value).x) == 2 and len(result().sample(value, shard=value).x) == 2
    assert Streams(value) == Streams(2) and TreeSettings(leaves=value).leaves == 2
