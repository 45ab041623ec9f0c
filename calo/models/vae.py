"""A variational autoencoder of showers, to compare flows with: one decoder of noise, and no density."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from nisampler.base.checks import Depth, Positive, Width, settings
from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.models.base import ModelPart, ShowerModel
from nisampler.calo.models.generative import energy_of
from nisampler.calo.preprocessing.preprocessing import PreprocessingConfig
from nisampler.calo.recipe import Recipe
from nisampler.errors import ModelError
from nisampler.flows import NetConfig

_REACH = 8.0  # as for flow matching: one shower with coordinates of hundreds would rule a loss


@settings
class AutoencoderConfig:
    """Encoder and decoder of a variational autoencoder (1312.6114).

    Parameters
    ----------
    hidden, layers
        Width and number of hidden layers of each.
    latent
        Numbers between them.
    divergence
        Weight of the divergence of the latent numbers from normal ones; 1 for the bound on the likelihood.

    Raises
    ------
    ConfigError
        If a setting is unknown or out of range.

    Examples
    --------
    >>> AutoencoderConfig(hidden=128).latent
    64
    """

    hidden: Width = 256
    layers: Depth = 3
    latent: Width = 64
    divergence: Positive = 1.0

    def network(self, d_in: int, d_out: int, context_dim: int, generator: torch.Generator) -> nn.Module:
        """A fresh network (n, d_in), (n, context_dim) -> (n, d_out)."""
        net = NetConfig(hidden=self.hidden, layers=self.layers, activation="leaky_relu", context_dim=context_dim)
        return net.build(d_in, d_out, generator)


class Autoencoder(nn.Module):
    """Points (n, dim) to latent numbers and back; what the decoder cannot say is independent normal noise.

    Parameters
    ----------
    dim, context_dim
        Numbers of coordinates and conditions.
    config
        Settings.
    generator
        Source of the initial weights.

    Examples
    --------
    >>> net = Autoencoder(3, 2, AutoencoderConfig(hidden=8, latent=2), torch.Generator().manual_seed(1))
    >>> net.make(torch.zeros(5, 2), torch.Generator().manual_seed(1)).shape
    torch.Size([5, 3])
    """

    def __init__(self, dim: int, context_dim: int, config: AutoencoderConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.encoder = config.network(dim, 2 * config.latent, context_dim, generator)
        self.decoder = config.network(config.latent, dim, context_dim, generator)
        self.log_spread = nn.Parameter(torch.zeros(dim))

    def make(self, context: Tensor, generator: torch.Generator) -> Tensor:
        """New points (n, dim) given a context (n, context_dim)."""
        mean: Tensor = self.decoder(_normal(context, self.config.latent, generator), context)
        return mean + self.log_spread.exp() * _normal(mean, mean.shape[1], generator)

    def loss(self, x: Tensor, context: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The negative bound on the log-likelihood of x (n, dim), and its two terms, each (n,)."""
        mean, log_variance = self.encoder(x, context).chunk(2, dim=1)
        latent = mean + (0.5 * log_variance).exp() * _normal(x, self.config.latent, generator)
        z = (x - self.decoder(latent, context)) * torch.exp(-self.log_spread)
        nats = (0.5 * z.square() + self.log_spread + 0.5 * math.log(2 * math.pi)).sum(1)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        return {
            "loss": nats + self.config.divergence * divergence,
            "reconstruction": nats,
            "divergence": divergence,
        }


def _normal(like: Tensor, width: int, generator: torch.Generator) -> Tensor:
    """Normal numbers (n, width) for n rows."""
    numbers = torch.randn((len(like), width), generator=generator, dtype=like.dtype, device=generator.device)
    return numbers.to(like.device)


class AutoencoderModel(ShowerModel):
    """Voxels and layer energies made of noise by one decoder.

    Parameters
    ----------
    geometry, preprocessing, symmetric
        As for every model.
    config
        Encoder and decoder.
    recipe
        How they are trained.
    generator
        Source of the initial weights.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models import build_model
    >>> model = build_model("small-vae", geometry("toy")).eval()
    >>> model.sample(torch.full((2,), 1e4), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 240])
    """

    def __init__(
        self,
        geometry: Geometry,
        preprocessing: PreprocessingConfig,
        config: AutoencoderConfig,
        recipe: Recipe,
        generator: torch.Generator,
        symmetric: bool = False,
    ) -> None:
        super().__init__(geometry, preprocessing, symmetric)
        self.recipe = recipe
        self.network = Autoencoder(geometry.n_voxels + geometry.n_layers, geometry.context, config, generator)

    @property
    def parts(self) -> Sequence[ModelPart]:
        """Encoder and decoder together."""
        return (ModelPart("showers", self.network, self.recipe, self._loss),)

    def generation_modules(self) -> Iterator[nn.Module]:
        """The decoder."""
        yield self.network.decoder

    def _loss(self, voxels: Tensor, incident: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        y, _ = self.coordinates(voxels, incident, generator, turned=True)
        return self.network.loss(y.clamp(-_REACH, _REACH), self.condition(incident), generator)

    def _log_density(self, voxels: Tensor, incident: Tensor, generator: torch.Generator) -> Tensor:
        raise ModelError("an autoencoder has no density, it makes showers only: choose a model of flows")

    def _showers(self, incident: Tensor, generator: torch.Generator) -> Tensor:
        y = self.network.make(self.condition(incident), generator)
        return self.preprocessing.showers(y, energy_of(incident).squeeze(1))
