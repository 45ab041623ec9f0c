"""Which term of a sum is evaluated at a point: its probabilities, known exactly, and the draw by a number of [0, 1].

A sum f(x) = Σ_k f_k(x) has the value f_k(x) / p(k|x) where k is drawn by p: the mean is f(x) whatever p is, as long as
p(k|x) > 0 wherever f_k(x) is not zero. Here p is a product of what is known of each term for little, its size L_k(x),
and of what a small network says (as MadNIS learns its discrete dimensions):

    p(k|x) = (1 - ε) L_k exp(net_k(features of x)) / Σ_j L_j exp(net_j) + ε L_k / Σ_j L_j.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from nisampler.base.kernels import tried
from nisampler.density.channels import ChannelWeights
from nisampler.errors import ShapeError

FLOOR = 0.02
"""Part of the probability that no network can take away."""
_HIDDEN, _LAYERS = 32, 2


def fresh_weights(terms: int, features: int) -> ChannelWeights:
    """The network of a choice among so many terms, which says nothing before it is trained.

    >>> fresh_weights(3, 2)(torch.zeros(1, 2), torch.zeros(1, 3)).exp().detach()
    tensor([[0.3333, 0.3333, 0.3333]], dtype=torch.float64)
    """
    return ChannelWeights(terms, features, _HIDDEN, _LAYERS)


class Choice:
    """Probabilities p(k|x) of the terms of a sum, and draws by them.

    A point's probabilities are the same to the last bit in every batch where numba is installed.

    Parameters
    ----------
    weights
        The network, of the features of a point.

    Examples
    --------
    >>> choice = Choice(fresh_weights(terms=2, features=1))
    >>> features, sizes = torch.zeros(2, 1), torch.tensor([[1.0, 3.0], [1.0, 0.0]]).double()
    >>> choice.probabilities(features, sizes).tolist()
    [[0.25, 0.75], [1.0, 0.0]]
    >>> choice.draw(features, sizes, torch.tensor([0.5, 0.5]))
    (tensor([1, 0]), tensor([0.7500, 1.0000], dtype=torch.float64))
    """

    def __init__(self, weights: ChannelWeights) -> None:
        self.weights = weights.eval().requires_grad_(False)
        self.terms, self.features = len(weights.active), len(weights.shift)
        self._on: dict[torch.device, ChannelWeights] = {weights.shift.device: weights}

    def probabilities(self, features: Tensor, sizes: Tensor) -> Tensor:
        """p(k|x) (n, K), float64, from features (n, F) and sizes L_k >= 0 (n, K).

        Where all sizes are zero the probabilities are equal, and where one is NaN all are.

        Raises
        ------
        ShapeError
            If the shapes do not fit the network.
        """
        self._check(features, sizes)
        if self._compiled(features, sizes):
            return self._by_kernel(features, sizes, sizes.new_zeros(len(sizes)))[0]
        return self._by_torch(features, sizes)

    def draw(self, features: Tensor, sizes: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """The term k (n,) that numbers u (n,) of [0, 1] choose, and its probability (n,); arguments as before."""
        self._check(features, sizes)
        if self._compiled(features, sizes):
            return self._by_kernel(features, sizes, u)[1:]
        table = self._by_torch(features, sizes)
        reached = u.to(table).unsqueeze(1) >= table.cumsum(1)
        last = self.terms - 1 - (table > 0.0).flip(1).to(torch.uint8).argmax(1)
        chosen = reached.sum(1).minimum(last)
        return chosen, table.gather(1, chosen.unsqueeze(1)).squeeze(1)

    def state(self) -> dict[str, Tensor]:
        """Tensors for `from_state`."""
        return dict(self.weights.state_dict())

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor]) -> Choice:
        """The choice whose `state` this is; KeyError or RuntimeError if it is none."""
        weights = fresh_weights(len(tensors["active"]), len(tensors["shift"]))
        weights.load_state_dict(dict(tensors))
        return cls(weights)

    def _check(self, features: Tensor, sizes: Tensor) -> None:
        wanted = (len(features), self.features), (len(features), self.terms)
        if (features.shape, sizes.shape) != wanted:
            got = tuple(features.shape), tuple(sizes.shape)
            raise ShapeError(f"a choice takes features {wanted[0]} and sizes {wanted[1]}, got {got[0]} and {got[1]}")

    def _by_torch(self, features: Tensor, sizes: Tensor) -> Tensor:
        if features.device not in self._on:
            other = fresh_weights(self.terms, self.features)
            other.load_state_dict(self.weights.state_dict())
            self._on[features.device] = other.to(features.device).eval().requires_grad_(False)
        return mixed(self._on[features.device], features, sizes)

    def _compiled(self, features: Tensor, sizes: Tensor) -> bool:
        wanted = torch.is_grad_enabled() and (features.requires_grad or sizes.requires_grad)
        return features.device.type == "cpu" and not wanted and self._kernel is not None

    @cached_property
    def _kernel(self) -> Any:
        """The compiled loop with the tables of the network, or None where numba is not installed."""

        def load() -> Any:
            from nisampler.processes.discrete.numba_choice import draw

            return draw

        return tried(load, "choices among matrix elements run in plain torch, several times as slowly")

    @cached_property
    def _tables(self) -> tuple[Any, ...]:
        net = self.weights.net
        layers: list[Any] = [*net.hidden, net.output]
        matrices = tuple(layer.weight.detach().t().contiguous().numpy() for layer in layers)
        offsets = tuple(layer.bias.detach().contiguous().numpy() for layer in layers)
        return self.weights.shift.numpy(), self.weights.scale.numpy(), matrices, offsets

    def _by_kernel(self, features: Tensor, sizes: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        inputs = features.detach().float().contiguous(), sizes.detach().double().contiguous(), u.double().contiguous()
        table, own = torch.empty_like(inputs[1]), torch.empty_like(inputs[2])
        chosen = torch.empty(len(own), dtype=torch.long)
        outputs = table.numpy(), chosen.numpy(), own.numpy()
        self._kernel(*(part.numpy() for part in inputs), *self._tables, FLOOR, *outputs)
        return table, chosen, own


def mixed(weights: ChannelWeights, features: Tensor, sizes: Tensor) -> Tensor:
    """p(k|x) (n, K) by a network of features (n, F), and sizes (n, K), in plain torch; differentiable in all of them.

    >>> mixed(fresh_weights(2, 1), torch.zeros(1, 1), torch.tensor([[1.0, 3.0]]).double()).detach()
    tensor([[0.2500, 0.7500]], dtype=torch.float64)
    """
    total = sizes.sum(1, keepdim=True)
    ratios = sizes * weights(features, torch.zeros_like(sizes)).exp()
    found = (1.0 - FLOOR) * ratios / ratios.sum(1, keepdim=True) + FLOOR * sizes / total
    return torch.where(total == 0.0, 1.0 / sizes.shape[1], found)
