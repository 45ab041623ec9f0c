"""What models of point clouds share: the flow of the layers, coordinates of points, and the calibration."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nisampler.calo.data.kinds import POINTS, DataKind
from nisampler.calo.data.points import PointShowers
from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.models.base import FIT_SHOWERS, ModelPart
from nisampler.calo.models.clouds.layers import LayerFlow, Summary, summary_of
from nisampler.calo.models.generative import GenerativeModel, energy_of
from nisampler.calo.recipe import Recipe

DIM = 3
"""Coordinates of a point: two of its place, one of its energy."""
SPREAD = 0.5
"""Standard deviation of the coordinates: that of the data in EDM."""
_REACH = 5.0
# s of the calibration of the centre, in median distances of points from the axis
_CORE = 4.0


class Groups(NamedTuple):
    """The points of a batch, one layer of a shower after the other, without padding.

    Attributes
    ----------
    rows
        Number of the group, i.e. layer of a shower, of each point: (m,).
    context
        What is known of each of the g = n L groups, (g, c).
    layers
        L.

    Examples
    --------
    >>> groups = Groups(torch.tensor([0, 3, 3]), torch.zeros(4, 1), 2)
    >>> groups.layer.tolist(), groups.shower.tolist()
    ([0, 1, 1], [0, 1, 1])
    """

    rows: Tensor
    context: Tensor
    layers: int

    @property
    def layer(self) -> Tensor:
        """Position of the layer of each point, (m,)."""
        return self.rows % self.layers

    @property
    def shower(self) -> Tensor:
        """Number of the shower of each point, (m,)."""
        return self.rows // self.layers


class PointScale(nn.Module):
    """Points (x, y, E) of a layer to coordinates with mean zero and standard deviation 1/2, and back.

    Places are drawn towards the axis, (x, y) asinh(r/s)/r with the median s of r, so that cores and tails have a like
    width; energies are logarithms.

    Examples
    --------
    >>> scale, layer = PointScale(1), torch.zeros(3, dtype=torch.long)
    >>> points = torch.tensor([[1.0, 2.0, 3.0], [0.0, -5.0, 1.0], [3.0, 0.5, 9.0]])
    >>> scale.fit(points, layer)
    >>> torch.allclose(scale.inverse(scale(points, layer), layer), points, atol=1e-5)
    True
    """

    length: Tensor
    mean: Tensor
    spread: Tensor

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.register_buffer("length", torch.ones(()))
        self.register_buffer("mean", torch.zeros(layers, DIM))
        self.register_buffer("spread", torch.ones(layers, DIM))

    @torch.no_grad()
    def fit(self, points: Tensor, layer: Tensor) -> None:
        """Take the constants of points (m, 3) in layers (m,); both axes of a place get the same ones."""
        self.length.copy_(points[:, :2].norm(dim=1).median().clamp(min=1e-6))
        raw = self._raw(points)
        for position in range(len(self.mean)):
            own = raw[layer == position]
            own = own if len(own) >= 2 else raw
            mean, spread = own.mean(0), own.std(0).clamp(min=1e-3)
            mean[:2], spread[:2] = 0.0, spread[:2].square().mean().sqrt()
            self.mean[position], self.spread[position] = mean, spread / SPREAD

    def _raw(self, points: Tensor) -> Tensor:
        place, energy = points[:, :2], points[:, 2:]
        r = (place.norm(dim=1, keepdim=True) / self.length).clamp(min=1e-9)
        return torch.cat([place / self.length * torch.asinh(r) / r, energy.clamp(min=1e-30).log()], dim=1)

    def forward(self, points: Tensor, layer: Tensor) -> Tensor:
        """Coordinates (m, 3)."""
        return (self._raw(points) - self.mean[layer]) / self.spread[layer]

    def inverse(self, y: Tensor, layer: Tensor) -> Tensor:
        """Points (m, 3) of coordinates, which are cut at ten standard deviations."""
        raw = y.clamp(-_REACH, _REACH) * self.spread[layer] + self.mean[layer]
        place = raw[:, :2]
        r = place.norm(dim=1, keepdim=True).clamp(min=1e-9)
        return torch.cat([self.length * place * torch.sinh(r) / r, raw[:, 2:].exp()], dim=1)


class PointModel(GenerativeModel):
    """p(cloud | E_inc): first the numbers of points and the energies of the layers, then the points given these.

    Generated energies are scaled to those of the layers, and outer points moved until the centre of gravity is right.

    Parameters
    ----------
    geometry
        The calorimeter.
    layer_flow
        Of the numbers, energies and the centre.
    recipe
        How that is trained.
    symmetric
        Turn and mirror training showers at random, by any angle.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models import build_model
    >>> model = build_model("small-clouds", geometry("toy")).eval()
    >>> points = model.sample(torch.full((2,), 1e4), torch.Generator().manual_seed(0))
    >>> points.dim(), points.shape[2]
    (3, 4)
    """

    kind: DataKind = POINTS

    def __init__(self, geometry: Geometry, layer_flow: LayerFlow, recipe: Recipe, symmetric: bool = False) -> None:
        super().__init__(geometry, symmetric)
        self.layer_flow, self.scale, self.layer_recipe = layer_flow, PointScale(geometry.n_layers), recipe

    @property
    def parts(self) -> Sequence[ModelPart]:
        """The flow of the layers; those of the points follow."""
        return (ModelPart("layers", self.layer_flow.flow, self.layer_recipe, self._layer_loss),)

    def prepare(self, showers: PointShowers, generator: torch.Generator) -> None:
        """Take the constants of the standardisation from training showers."""
        showers = showers[:FIT_SHOWERS]
        incident = torch.as_tensor(showers.particles, dtype=torch.float32)
        self.incident.fit(energy_of(incident).log())
        flat = torch.as_tensor(showers.points)
        self.scale.fit(flat[:, (0, 1, 3)], flat[:, 2].long())
        summary = summary_of(torch.as_tensor(showers.padded()), self.geometry.n_layers)
        self.layer_flow.fit(summary, self.condition(incident), generator)

    def turned(self, points: Tensor, generator: torch.Generator) -> Tensor:
        """Padded points (n, P, 4), each shower turned and mirrored at random if the model is symmetric."""
        if not self.symmetric:
            return points
        angle = 2 * math.pi * torch.rand(len(points), 1, generator=generator, device=generator.device)
        sign = 2.0 * torch.randint(2, (len(points), 1), generator=generator, device=generator.device) - 1.0
        angle, sign = angle.to(points.device), sign.to(points.device)
        x, y, layer, energy = points.unbind(2)
        turned = [angle.cos() * x - angle.sin() * y, sign * (angle.sin() * x + angle.cos() * y)]
        return torch.stack([*turned, layer, energy], dim=2)

    def groups(self, summary: Summary, incident: Tensor, rows: Tensor) -> Groups:
        """What points `rows` are given of their layer: its place, the whole summary, and the particle."""
        condition = self.condition(incident)
        n, layers = summary.numbers.shape
        known = self.layer_flow.known(summary, condition)
        numbers, means, centre = torch.split(known, [layers, layers, 2], dim=1)
        own = torch.stack([numbers, means], dim=2)
        place = torch.eye(layers, device=condition.device, dtype=condition.dtype).expand(n, -1, -1)
        common = torch.cat([condition, numbers, means, centre], dim=1).unsqueeze(1).expand(-1, layers, -1)
        return Groups(rows, torch.cat([common, place, own], dim=2).flatten(0, 1), layers)

    def _layer_loss(self, points: Tensor, incident: Tensor, generator: torch.Generator) -> Tensor:
        summary = summary_of(self.turned(points, generator), self.geometry.n_layers)
        return self.layer_flow.loss(summary, self.condition(incident), generator)

    def learned(self, points: Tensor, incident: Tensor, generator: torch.Generator) -> tuple[Tensor, Groups]:
        """Coordinates (m, 3) of the points of a padded batch (n, P, 4), and their groups."""
        points = self.turned(points, generator)
        summary = summary_of(points, self.geometry.n_layers)
        there = points[:, :, 3] > 0
        shower = there.nonzero()[:, 0]
        flat = points[there]
        layer = flat[:, 2].long()
        groups = self.groups(summary, incident, shower * self.geometry.n_layers + layer)
        return self.scale(flat[:, (0, 1, 3)], layer), groups

    def of_showers(self, losses: Tensor, groups: Groups, n: int) -> Tensor:
        """Losses (m,) of points as those of n showers, whose mean is that of all points of a batch."""
        sums = losses.new_zeros(n).index_add(0, groups.shower, losses)
        return sums * (n / max(len(losses), 1))

    def _showers(self, incident: Tensor, generator: torch.Generator) -> Tensor:
        summary = self.layer_flow.draw(self.condition(incident), generator)
        counts = summary.numbers.long().flatten()
        rows = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
        groups = self.groups(summary, incident, rows)
        points = self.scale.inverse(self._draw(groups, generator), groups.layer)
        return self._padded(self._calibrated(points, summary, groups), summary, groups)

    @abstractmethod
    def _draw(self, groups: Groups, generator: torch.Generator) -> Tensor:
        """Coordinates (m, 3) of new points."""

    def _calibrated(self, points: Tensor, summary: Summary, groups: Groups) -> Tensor:
        """Points (m, 3) whose energies add up to those of the layers, and whose centre of gravity is as drawn.

        Points move by r²/(r² + s²): cores stay sharp, which moving all alike would smear by what is random in a centre.
        """
        energy = points[:, 2]
        wanted = summary.energies.flatten()
        sums = torch.zeros_like(wanted).index_add(0, groups.rows, energy)
        energy = energy * (wanted / sums.clamp(min=1e-30))[groups.rows]
        square = points[:, :2].square().sum(1)
        share = (square / (square + (_CORE * self.scale.length).square())).unsqueeze(1)
        columns = energy.unsqueeze(1) * torch.cat([points[:, :2], share], dim=1)
        sums = columns.new_zeros(len(summary.centre), DIM).index_add(0, groups.shower, columns)
        total = summary.energies.sum(1, keepdim=True).clamp(min=1e-30)
        move = (summary.centre - sums[:, :2] / total) / (sums[:, 2:] / total).clamp(min=1e-6)
        place = points[:, :2] + share * move[groups.shower]
        return torch.cat([place, energy.unsqueeze(1)], dim=1)

    def _padded(self, points: Tensor, summary: Summary, groups: Groups) -> Tensor:
        """Points (m, 3) as (n, P, 4)."""
        counts = summary.numbers.sum(1).long()
        starts = counts.cumsum(0) - counts
        column = torch.arange(len(points), device=points.device) - starts[groups.shower]
        found = points.new_zeros(len(counts), int(counts.max()), 4)
        layer = groups.layer.to(points.dtype).unsqueeze(1)
        found[groups.shower, column] = torch.cat([points[:, :2], layer, points[:, 2:]], dim=1)
        return found


def group_context(geometry: Geometry) -> int:
    """Length of what is known of a group.

    >>> from nisampler.calo.detector.geometries import geometry
    >>> group_context(geometry("toy"))
    20
    """
    return geometry.context + 2 * geometry.n_layers + 2 + geometry.n_layers + 2
