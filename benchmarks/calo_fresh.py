"""Shower models with fresh weights, for measurements that do not depend on what a model has learned."""

from __future__ import annotations

from nisampler.base.rng import Streams
from nisampler.calo.data.showers import Showers
from nisampler.calo.detector.geometries import geometry
from nisampler.calo.models import ShowerModel, build_model
from nisampler.calo.simulation.simulator import simulator
from nisampler.errors import ConfigError


def preset_and_geometry(text: str) -> dict[str, str]:
    """ "model" and "geometry" from PRESET=GEOMETRY.

    Raises
    ------
    ConfigError
        If it is not of that form.
    """
    model, equals, name = text.partition("=")
    if not (model and equals and name):
        raise ConfigError(f"--model must be PRESET=GEOMETRY, got {text!r}")
    return {"model": model, "geometry": name}


def fresh_model(preset: str, name: str, n: int, device: str) -> tuple[ShowerModel, Showers]:
    """A model that is prepared with `n` showers of the simulator, on the device, and these showers."""
    cells, streams = geometry(name), Streams(1)
    rng = streams.numpy("showers")
    incident = cells.incident.sample(n, rng)
    showers = Showers(incident, simulator(cells).simulate(incident, rng))
    model = build_model(preset, cells)
    model.prepare(showers, streams.generator("prepare"))
    return model.to(device), showers
