"""A shower model of your own: one flow over all voxels and layer energies that looks more often at dense showers."""

from __future__ import annotations

import torch

from nisampler.calo.detector.geometries import geometry
from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.fitting.fit import DataOptions, fit
from nisampler.calo.models import FlowConfig, ModelConfig, register
from nisampler.calo.models.base import OneStepModel
from nisampler.calo.models.flows import build_flow
from nisampler.calo.models.presets.preset import clear_noise
from nisampler.calo.recipe import Recipe
from nisampler.calo.simulation.simulator import simulate_file


class DenseFirst(OneStepModel):
    def _loss(self, voxels: torch.Tensor, incident: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        filled = (voxels > 0.0).to(voxels.dtype).mean(1)
        return super()._loss(voxels, incident, generator) * filled / filled.mean()


def build(config: ModelConfig, cells: Geometry, generator: torch.Generator) -> DenseFirst:
    flow = build_flow(cells.n_voxels + cells.n_layers, config.plain_flows[0], 1, generator)
    return DenseFirst(cells, config.preprocessing, flow, config.recipes[0])


def settings(cells: Geometry, epochs: int) -> ModelConfig:
    return ModelConfig("dense-first", clear_noise(cells), (FlowConfig(blocks=4),), (Recipe(epochs, 200, 1e-3),))


register("dense-first", (FlowConfig,), build)

if __name__ == "__main__":  # fits the model to simulated showers and stores it
    toy = geometry("toy")
    simulate_file("showers.h5", toy, 2000, seed=1)
    fit(DataOptions("showers.h5"), toy, settings(toy, epochs=10), "dense_first")
