"""Models of jets: the numbers of the jet from a small flow, then all constituents at once from noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nisampler.base.checks import to_data
from nisampler.base.device import resolve_device
from nisampler.base.rng import Streams
from nisampler.calo.data.batches import pieces
from nisampler.calo.jets.jets import FEATURES, TYPES, Jets, type_number
from nisampler.calo.jets.kinematics import calibrated, totals
from nisampler.calo.jets.presets import JetConfig
from nisampler.calo.jets.properties import PROPERTIES, PropertyFlow
from nisampler.calo.models.base import ModelPart
from nisampler.errors import JetDataError, ModelError
from nisampler.flows.nets.epic import EpicNet
from nisampler.flows.sets import SetDiffusion, SetFlow, SetMatching

_SOFTEST = 1e-7
_REACH = 10.0


def properties_of(jets: Jets) -> Tensor:
    """What a model is given of jets (n, 6): the number of the type, then `PROPERTIES`.

    >>> one = np.array([[[0.1, 0.0, 0.6], [-0.1, 0.0, 0.4]]])
    >>> properties_of(Jets(one, np.ones((1, 2), dtype=bool), [2], [1000.0], [0.3], [98.0])).round(decimals=3)
    tensor([[2.0000e+00, 1.0000e+03, 3.0000e-01, 9.8000e-02, 1.0000e+00, 2.0000e+00]])
    """
    share, mass = totals(jets.constituents)
    table = np.column_stack([jets.types, jets.pt, jets.eta, mass, share, jets.count])
    return torch.as_tensor(table, dtype=torch.float32)


class JetSource:
    """Jets as batches: constituents with the mask as fourth number (n, m, 4), and `properties_of` (n, 6).

    Parameters
    ----------
    jets
        At least one.
    device
        Where they are held.

    Raises
    ------
    JetDataError
        If there is none.

    Examples
    --------
    >>> one = np.array([[[0.1, 0.0, 0.6], [-0.1, 0.0, 0.4]]])
    >>> source = JetSource(Jets(one, np.ones((1, 2), dtype=bool), [2], [1000.0], [0.3], [98.0]))
    >>> [tuple(part.shape) for part in next(source.ordered(10))]
    [(1, 2, 4), (1, 6)]
    """

    def __init__(self, jets: Jets, device: torch.device | str = "cpu") -> None:
        if not len(jets):
            raise JetDataError("there are no jets to learn from or to validate with")
        place = resolve_device(device)
        sets = np.concatenate([jets.constituents, jets.mask[..., None].astype(np.float32)], axis=2)
        self._sets, self._properties = torch.from_numpy(sets).to(place), properties_of(jets).to(place)

    def __len__(self) -> int:
        return len(self._sets)

    def shuffled(self, size: int, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """All jets once, in random order, in batches of about `size`."""
        order = torch.from_numpy(rng.permutation(len(self))).to(self._sets.device)
        for part in pieces(len(self), size):
            rows = order[int(part[0]) : int(part[-1]) + 1]
            yield self._sets[rows], self._properties[rows]

    def ordered(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All jets once, in order, in batches of at most `size`."""
        for start in range(0, len(self), size):
            rows = slice(start, start + size)
            yield self._sets[rows], self._properties[rows]

    def window(self, columns: slice) -> JetSource:
        """The same: parts of a model of jets look at whole jets."""
        return self


class JetModel(nn.Module):
    """p(constituents | properties) p(properties | type).

    Parameters
    ----------
    config
        Settings.
    types
        The types of jets that it makes.
    most
        Places for constituents.
    seed
        Of the initial weights.

    Raises
    ------
    ConfigError
        If there is no such type.

    Examples
    --------
    >>> from nisampler.calo.jets.presets import preset
    >>> model = JetModel(preset("small-epic-fm"), ("g", "t"), most=30)
    >>> [part.name for part in model.parts], model.draw(["t"], torch.Generator().manual_seed(0)).shape
    (['properties', 'constituents'], torch.Size([1, 6]))
    """

    centre: Tensor
    scale: Tensor
    known_centre: Tensor
    known_scale: Tensor
    shares: Tensor

    def __init__(self, config: JetConfig, types: Sequence[str], most: int, seed: int = 1) -> None:
        super().__init__()
        self.config, self.types, self.most = config, tuple(types), most
        self._numbers = [type_number(name) for name in types]
        streams = Streams(seed).child("model of jets")
        generator = streams.generator("properties")
        self.properties = PropertyFlow(len(types), most, config.blocks, config.hidden, generator)
        context = len(types) + len(PROPERTIES)
        net = EpicNet(len(FEATURES), context, config.net, streams.generator("constituents"))
        made: type[SetFlow] = SetMatching if config.kind == "matching" else SetDiffusion
        self.constituents = made(net, len(FEATURES), config.spread)
        for name, size in (("centre", len(FEATURES)), ("known_centre", len(PROPERTIES))):
            self.register_buffer(name, torch.zeros(size))
        for name, size in (("scale", len(FEATURES)), ("known_scale", len(PROPERTIES)), ("shares", len(types))):
            self.register_buffer(name, torch.ones(size))

    @property
    def parts(self) -> Sequence[ModelPart]:
        """What is trained, each by itself."""
        return (
            ModelPart("properties", self.properties, self.config.properties, self._property_loss),
            ModelPart("constituents", self.constituents, self.config.recipe, self._constituent_loss),
        )

    @torch.no_grad()
    def prepare(self, jets: Jets, generator: torch.Generator) -> None:
        """Take quantiles, means and spreads from training jets.

        Raises
        ------
        JetDataError
            If there are too few jets of a type.
        """
        known = properties_of(jets)
        kinds = self.kinds(known[:, 0])
        self.properties.fit(known[:, 1:], kinds, generator)
        self.shares.copy_(torch.bincount(kinds, minlength=len(self.types)) / len(kinds))
        told = self._told(known[:, 1:])
        self.known_centre.copy_(told.mean(0))
        self.known_scale.copy_(told.std(0).clamp_min(1e-6))
        points = _logarithmic(torch.from_numpy(jets.constituents[jets.mask]))
        self.centre.copy_(points.mean(0))
        self.scale.copy_(points.std(0).clamp_min(1e-6))

    def kinds(self, types: Tensor) -> Tensor:
        """Positions (n,) among the types of the model, of numbers of `TYPES`.

        Raises
        ------
        ModelError
            If the model does not make one of them.
        """
        known = torch.tensor(self._numbers, device=types.device)
        same = types.long().unsqueeze(1) == known
        missing = torch.unique(types[~same.any(1)]).long().tolist()
        if missing:
            names = ", ".join(TYPES[number] for number in missing)
            raise ModelError(f"this model makes jets of {', '.join(self.types)}, not of {names}")
        return same.long().argmax(1)

    @staticmethod
    def _told(properties: Tensor) -> Tensor:
        """Properties (n, 5) with logarithms of pT and mass."""
        pt, eta, mass, share, count = properties.unbind(1)
        return torch.stack([pt.log(), eta, mass.clamp_min(1e-6).log(), share, count], dim=1)

    def context(self, known: Tensor) -> Tensor:
        """What the network is given of jets (n, 6): their type, and standardised properties."""
        numbers = (self._told(known[:, 1:]) - self.known_centre) / self.known_scale
        kinds = nn.functional.one_hot(self.kinds(known[:, 0]), len(self.types))
        return torch.cat([kinds.to(numbers.dtype), numbers.clamp(-_REACH, _REACH)], dim=1)

    def _property_loss(self, sets: Tensor, known: Tensor, generator: torch.Generator) -> Tensor:
        return self.properties.loss(known[:, 1:], self.kinds(known[:, 0]), generator)

    def _constituent_loss(self, sets: Tensor, known: Tensor, generator: torch.Generator) -> Tensor:
        mask = sets[..., 3] > 0.5
        points = (_logarithmic(sets[..., :3]) - self.centre) / self.scale
        points = torch.where(mask.unsqueeze(2), points.clamp(-_REACH, _REACH), 0.0) * self.config.spread
        return self.constituents.loss(points, mask, self.context(known), generator)

    @torch.no_grad()
    def draw(self, names: Sequence[str], generator: torch.Generator) -> Tensor:
        """Numbers of types and properties (n, 6) of new jets of these types."""
        numbers = torch.tensor([float(type_number(name)) for name in names], device=self.centre.device)
        drawn = self.properties.draw(self.kinds(numbers), generator)
        return torch.cat([numbers.unsqueeze(1), drawn], dim=1)

    @torch.no_grad()
    def sample(self, known: Tensor, generator: torch.Generator) -> Jets:
        """New jets with these types and properties (n, 6).

        Raises
        ------
        ModelError
            If constituents are not finite, or the model makes no jets of such a type.
        """
        count = known[:, 5].round().clamp(1, self.most)
        mask = torch.arange(self.most, device=known.device) < count.unsqueeze(1)
        points = self.constituents.draw(mask, self.context(known), generator, self.config.steps)
        points = points / self.config.spread * self.scale + self.centre
        if not bool(torch.isfinite(points).all()):
            raise ModelError("the model makes constituents that are not finite: train it longer, or with a lower rate")
        made = torch.cat([points[..., :2], points[..., 2:].clamp_max(0.0).exp()], dim=2)
        made = made * mask.unsqueeze(2)
        table = known.cpu().double().numpy()
        constituents, keep = made.cpu().numpy(), mask.cpu().numpy()
        if self.config.calibrate:
            constituents = calibrated(constituents, table[:, 4], table[:, 3])
        pt, eta = table[:, 1], table[:, 2]
        _, mass = totals(constituents)
        return Jets(constituents, keep, table[:, 0].astype(np.int64), pt, eta, mass * pt).leading(self.most)

    def described(self) -> dict[str, Any]:
        """What makes the same model again, JSON data."""
        return {"config": to_data(self.config), "types": list(self.types), "constituents": self.most}


def _logarithmic(points: Tensor) -> Tensor:
    """etarel, phirel and ptrel (…, 3) with the logarithm of the last."""
    return torch.cat([points[..., :2], points[..., 2:].clamp_min(_SOFTEST).log()], dim=-1)
