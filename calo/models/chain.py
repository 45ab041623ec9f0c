"""L2LFlows: a flow for each layer, given the layers before it (2302.11594, 2405.20407)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from nisampler.calo.data.batches import ShowerSource
from nisampler.calo.data.showers import Showers
from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.models.base import FIT_SHOWERS, ModelPart
from nisampler.calo.models.config import AnyFlow, FlowConfig
from nisampler.calo.models.flows import build_flow
from nisampler.calo.models.generative import energy_of
from nisampler.calo.models.layerwise import LayerwiseModel
from nisampler.calo.models.spectrum import SpectrumMap
from nisampler.calo.preprocessing.preprocessing import PreprocessingConfig
from nisampler.calo.preprocessing.transforms import Standardise
from nisampler.calo.recipe import Recipe
from nisampler.errors import ModelError
from nisampler.flows import ConvCouplingConfig, Embedded, Flow, NetConfig, conv_flow

_MAP_SHOWERS, _BATCH = 10_000, 500


class ChainModel(LayerwiseModel):
    r"""p(E_1 ... E_L | E_inc) prod_i p(layer i | the layers before it, E_i, E_inc).

    Each factor is a flow and is trained by itself; none sees a later layer. A flow is given logarithms of the voxels of
    up to `history` layers before its own, without noise, as its generator has them: log(1 + v / threshold).

    Parameters
    ----------
    geometry, preprocessing
        As for every model.
    flows
        That of the energies, over L coordinates with a context of `geometry.context` numbers; then one for each layer,
        over its voxels, with a context of `layer_context(geometry, i, history)` numbers.
    recipes
        Of the flow of the energies, and of those of the layers.
    history
        Number of layers before it that a layer is given.
    veto
        Layer energies that add up to more than so many incident energies are refused: such a shower is returned as NaN,
        which the caller counts and draws again. 0 for none.
    symmetric
        Turn and mirror showers at random in training.
    spectrum
        Number of bins in which generated voxels are mapped to the spectrum of the training showers; 0 for none. The
        density is that of the showers before.

    Raises
    ------
    ModelError
        If a flow does not fit.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models import build_model
    >>> [part.name for part in build_model("small-l2lflows", geometry("toy")).parts]
    ['energies', 'layer-00', 'layer-01', 'layer-02', 'layer-03', 'layer-04']
    """

    def __init__(
        self,
        geometry: Geometry,
        preprocessing: PreprocessingConfig,
        flows: Sequence[Flow],
        recipes: tuple[Recipe, Recipe],
        history: int,
        veto: float = 0.0,
        symmetric: bool = False,
        spectrum: int = 0,
    ) -> None:
        super().__init__(geometry, preprocessing, flows[0], recipes[0], symmetric)
        expected = [(geometry.n_layers, geometry.context)]
        expected += [(size, layer_context(geometry, i, history)) for i, size in enumerate(geometry.sizes)]
        found = [(flow.dim, flow.context_dim) for flow in flows]
        if found != expected:
            raise ModelError(
                f"a chain of {geometry.name} needs flows of these coordinates and contexts, energies first: "
                f"{expected}; got {found}"
            )
        self._layers, self.layer_recipe = nn.ModuleList(flows[1:]), recipes[1]
        self.history, self.veto = history, veto
        self.seen = Standardise(geometry.n_layers)
        self.spectrum = SpectrumMap(spectrum) if spectrum else None

    @property
    def layer_flows(self) -> list[Flow]:
        """One for each layer."""
        return [flow for flow in self._layers if isinstance(flow, Flow)]

    @property
    def parts(self) -> Sequence[ModelPart]:
        """The flow of the energies, and that of each layer."""
        return [self.energy_part, *(self._part(layer) for layer in range(self.geometry.n_layers))]

    def _part(self, layer: int) -> ModelPart:
        def loss(voxels: Tensor, incident: Tensor, generator: torch.Generator) -> Tensor:
            return self._layer_loss(layer, voxels, incident, generator)

        layers = (self._first(layer), layer + 1)
        return ModelPart(f"layer-{layer:02d}", self.layer_flows[layer], self.layer_recipe, loss, layers=layers)

    def _first(self, layer: int) -> int:
        """The first layer that a layer is given."""
        return max(0, layer - self.history)

    def prepare(self, showers: Showers, generator: torch.Generator) -> None:
        """Take the constants of the standardisation from training showers."""
        super().prepare(showers, generator)
        voxels = torch.as_tensor(showers[:FIT_SHOWERS].voxels)
        layers = torch.split(self.visible(voxels), list(self.geometry.sizes), dim=1)
        spreads = torch.stack([layer.std() for layer in layers])
        self.seen.mean.copy_(torch.stack([layer.mean() for layer in layers]))
        self.seen.spread.copy_(torch.where(spreads > 0, spreads, torch.ones_like(spreads)))

    @torch.no_grad()
    def finish(self, training: ShowerSource, generator: torch.Generator) -> None:
        """Fit the map of the voxel spectrum, if there is one, to showers at incident energies of the training."""
        if self.spectrum is None:
            return
        seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
        spectra: tuple[list[Tensor], list[Tensor]] = ([], [])
        seen = 0
        for voxels, incident in training.shuffled(_BATCH, np.random.default_rng(seed)):
            for spectrum, sample in zip(spectra, (self._chain(incident, generator), voxels), strict=True):
                spectrum.append(
                    sample[torch.isfinite(sample) & (sample > 0) & (sample >= self.preprocessing.config.cut)]
                )
            seen += len(voxels)
            if seen >= _MAP_SHOWERS:
                break
        generated, reference = (torch.cat(spectrum) for spectrum in spectra)
        size = min(len(generated), len(reference))
        self.spectrum.fit(_drawn(generated, size, generator), _drawn(reference, size, generator))

    def layer_condition(self, layer: int, before: Tensor, energies: Tensor, incident: Tensor) -> Tensor:
        """What the flow of a layer is given.

        Parameters
        ----------
        layer
            Its position.
        before
            Voxels of the layers before it that it is given, without noise, shape (n, v), in MeV.
        energies, incident
            Of this layer, (n, 1), and of the particle, (n,), in MeV.

        Returns
        -------
        Tensor
            Logarithms of `before` and of the energy of the layer, E_inc and conditions, shape (n, v + 1 + c).
        """
        index = torch.tensor(self.geometry.layer_of_voxel, device=before.device)
        index = index[self.geometry.starts[self._first(layer)] : self.geometry.starts[layer]]
        seen = (self.visible(before) - self.seen.mean[index]) / self.seen.spread[index]
        own = (energies.log() - self.log_energies.mean[layer]) / self.log_energies.spread[layer]
        return torch.cat([seen, own, self.condition(incident)], dim=1)

    def _layer_loss(self, layer: int, voxels: Tensor, incident: Tensor, generator: torch.Generator) -> Tensor:
        """From the voxels of the layers that the flow is given and of its own (n, v)."""
        voxels = self.turned(voxels, generator, self._first(layer))
        size = self.geometry.sizes[layer]
        before, own = voxels[:, :-size], voxels[:, -size:]
        cells = self.preprocessing.cells.window(layer, layer + 1)
        y, log_det = cells(cells.augment(own, generator))
        y, energies = y[:, :size], y[:, size:]
        context = self.layer_condition(layer, before, energies, incident)
        log_prob = self.layer_flows[layer].log_prob(y, context)
        return cells.log_scale_density - log_prob - log_det

    def _log_density(self, voxels: Tensor, incident: Tensor, generator: torch.Generator) -> Tensor:
        y, log_det = self.coordinates(voxels, incident, generator)
        y, coordinates = self.geometry.divide(y)
        energies, _ = self.preprocessing.layer_energies(coordinates, energy_of(incident))
        total = self.energy_flow.log_prob(coordinates, self.condition(incident)) + log_det
        starts = self.geometry.starts
        for layer, flow in enumerate(self.layer_flows):
            before = voxels[:, starts[self._first(layer)] : starts[layer]]
            context = self.layer_condition(layer, before, energies[:, layer : layer + 1], incident)
            total = total + flow.log_prob(y[:, starts[layer] : starts[layer + 1]], context)
        return total

    def _showers(self, incident: Tensor, generator: torch.Generator) -> Tensor:
        voxels = self._chain(incident, generator)
        if self.spectrum is None:
            return voxels
        return torch.where(voxels > 0, self.spectrum(voxels).clamp_min(self.preprocessing.config.cut), voxels)

    def _chain(self, incident: Tensor, generator: torch.Generator) -> Tensor:
        """Showers, layer after layer, before their spectrum is mapped."""
        energies = self._draw_energies(incident, generator)
        layers: list[Tensor] = []
        for layer, flow in enumerate(self.layer_flows):
            energy = energies[:, layer : layer + 1]
            before = torch.cat([energy[:, :0], *layers[self._first(layer) :]], dim=1)
            y, _ = flow.sample(incident.shape[0], self.layer_condition(layer, before, energy, incident), generator)
            cells = self.preprocessing.cells.window(layer, layer + 1)
            layers.append(cells.showers(torch.cat([y, energy], dim=1)))
        voxels = torch.cat(layers, dim=1)
        if self.veto:
            refused = energies.sum(1, keepdim=True) > self.veto * energy_of(incident)
            voxels = voxels.masked_fill(refused, torch.nan)
        return voxels


def _drawn(values: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """`n` of the values at random."""
    order = torch.randperm(len(values), generator=generator, device=generator.device)
    return values[order[:n].to(values.device)]


class HistoryEmbedding(nn.Module):
    """(voxels, numbers) -> (features of the voxels, numbers): (n, v + s) -> (n, f + s).

    Parameters
    ----------
    voxels, scalars
        v and s.
    net
        A perceptron; it has as many outputs as its width.
    generator
        Source of its initial weights.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> HistoryEmbedding(48, 3, NetConfig(hidden=16), generator)(torch.zeros(2, 51)).shape
    torch.Size([2, 19])
    """

    def __init__(self, voxels: int, scalars: int, net: NetConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.voxels, self.context_dim, self.d_out = voxels, voxels + scalars, net.hidden + scalars
        self.net = net.build(voxels, net.hidden, generator)

    def forward(self, context: Tensor) -> Tensor:
        return torch.cat([self.net(context[:, : self.voxels]), context[:, self.voxels :]], dim=1)


def layer_context(geometry: Geometry, layer: int, history: int) -> int:
    """Length of the condition of the flow of a layer: the voxels before it, its energy, E_inc and conditions.

    >>> from nisampler.calo.detector.geometries import geometry
    >>> [layer_context(geometry("toy"), layer, 2) for layer in range(5)]
    [2, 50, 98, 98, 98]
    """
    return geometry.starts[layer] - geometry.starts[max(0, layer - history)] + 1 + geometry.context


def layer_flow(geometry: Geometry, layer: int, history: int, config: AnyFlow, generator: torch.Generator) -> Flow:
    """The flow of a layer: of flat voxels with an embedding of those before it, or of images.

    Raises
    ------
    ModelError
        If the layers have different cells and a flow of images is wanted, or one without a direct density.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models.config import FlowConfig
    >>> config = FlowConfig(blocks=2, net=NetConfig(hidden=8))
    >>> layer_flow(geometry("toy"), 1, 2, config, torch.Generator().manual_seed(0)).dim
    48
    """
    context, scalars = layer_context(geometry, layer, history), 1 + geometry.context
    if isinstance(config, FlowConfig):
        voxels, size = context - scalars, geometry.sizes[layer]
        if not voxels:
            return build_flow(size, config, context, generator)
        embedding = HistoryEmbedding(voxels, scalars, replace(config.net, context_dim=0), generator)
        flow = build_flow(size, config, embedding.d_out, generator)
        return Flow(flow.base, Embedded(flow.transform, embedding))
    if not isinstance(config, ConvCouplingConfig):
        raise ModelError(f"a layer of a chain is a 'coupling', a 'maf' or convolutional, got {type(config).__name__}")
    if len({shape.shape for shape in geometry.layers}) > 1 or any(one.kind == "cells" for one in geometry.layers):
        raise ModelError(
            f"the layers of {geometry.name} are no grids with equal numbers of cells, which a convolutional chain "
            "needs: choose a chain of flat flows, as small-l2lflows"
        )
    config = replace(config, context_images=min(layer, history), context_scalars=scalars)
    return conv_flow((1, *geometry.layers[layer].shape), config, generator=generator)
