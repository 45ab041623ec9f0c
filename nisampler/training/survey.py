"""The survey before a training: VEGAS grids of the whole cube, or of each channel, refined side by side."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from nisampler.base import tuning
from nisampler.base.rng import Streams
from nisampler.density.channels import Multichannel
from nisampler.errors import ConfigError
from nisampler.samplers.base import Sampler, UniformSampler
from nisampler.samplers.grid import VegasAdapter, VegasGrid, VegasSampler
from nisampler.samplers.trainable import TrainableSampler

if TYPE_CHECKING:
    from nisampler.flows import CouplingConfig


class Survey(ABC):
    """VEGAS iterations on an integrand, and fresh flows that suit it.

    Attributes
    ----------
    found
        Whether any point has been non-zero.
    starts_in_bins
        Whether flows begin as the grids of the survey unless the settings say otherwise.
    refines
        Whether more iterations make the sampler of the survey better.
    trains
        Whether there is something to train after the survey.

    Examples
    --------
    >>> survey = CubeSurvey(1, torch.device("cpu"))
    >>> survey.found, survey.flows, survey.under_flow()
    (False, 1, None)
    """

    found: bool = False
    starts_in_bins: ClassVar[bool] = False
    refines: ClassVar[bool] = True
    trains: bool = True

    def __init__(self, function: Multichannel | None, device: torch.device) -> None:
        self.function, self.device = function, device

    def self_test(self, streams: Streams) -> None:
        """Check the channels of the integrand, if it has any; see `Multichannel.self_test`."""
        if self.function is not None:
            self.function.self_test(streams, self.device)

    @property
    def invertible(self) -> bool:
        """Whether all densities of a point are known, as mixture weights need."""
        return True

    @property
    def flows(self) -> int:
        """Number of flows that share the calls of a training."""
        return len(self.grids())

    def start(self, bins: int) -> str:
        """Where a flow with so many bins starts best after a survey that was worth something: "bins", "under" ..."""
        if not self.starts_in_bins:
            return "never"
        from nisampler.flows.grid_start import fits_bins  # not before there is a flow

        return "bins" if fits_bins(self.grids(), bins) else "under"

    @abstractmethod
    def flow(self, config: CouplingConfig, streams: Streams, learned_weights: bool) -> TrainableSampler:
        """Fresh flows, the identity at the start, with the shares that were found."""

    @abstractmethod
    def sampler(self) -> Sampler:
        """VEGAS as it stands, uniform at the start."""

    def plain(self) -> Sampler | None:
        """The sampler of the first iteration, which has learned nothing; None where there is no such thing."""
        return None

    @abstractmethod
    def under_flow(self) -> Sampler | None:
        """What a flow may stand on; None for the bare cube."""

    @abstractmethod
    def grids(self) -> Tensor:
        """Nodes of the grids, (groups, d, m + 1), once something was found."""

    @abstractmethod
    def refine(self, u: Tensor, weights: Tensor, most_increments: int) -> None:
        """Learn from latent points u (n, dim) of the present sampler and their weights f/q (n,)."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Tensors to continue from."""

    @abstractmethod
    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Continue from what `state` returned."""


class CubeSurvey(Survey):
    """One grid for the whole cube.

    >>> survey = CubeSurvey(2, torch.device("cpu"))
    >>> u = torch.rand(1000, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    >>> survey.refine(u, u[:, 0], most_increments=16)
    >>> survey.sampler().describe()
    'vegas (16 increments)'
    """

    def __init__(self, dim: int, device: torch.device, function: Multichannel | None = None) -> None:
        super().__init__(function, device)
        self.dim = dim
        self.grid: VegasGrid | None = None

    def flow(self, config: CouplingConfig, streams: Streams, learned_weights: bool) -> TrainableSampler:
        from nisampler.samplers.flow import FlowSampler  # not before there is a flow

        return FlowSampler.create(self.dim, config, streams.generator("weights", config.net.fourier), self.device)

    def sampler(self) -> Sampler:
        return UniformSampler(self.dim, self.device) if self.grid is None else VegasSampler(self.grid)

    def plain(self) -> Sampler:
        return UniformSampler(self.dim, self.device)

    def under_flow(self) -> Sampler | None:
        return None if self.grid is None else VegasSampler(self.grid)

    def grids(self) -> Tensor:
        return even(self.dim) if self.grid is None else self.grid.nodes.unsqueeze(0)

    def refine(self, u: Tensor, weights: Tensor, most_increments: int) -> None:
        nodes = None if self.grid is None else self.grid.nodes
        self.grid = VegasGrid(refined(nodes, u, weights, most_increments).to(self.device))
        self.found = True

    def state(self) -> dict[str, Tensor]:
        return {} if self.grid is None else {"grid": self.grid.nodes}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        self.grid = VegasGrid(tensors["grid"].to(self.device)) if "grid" in tensors else None
        self.found = self.grid is not None


class StartSurvey(Survey):
    """No VEGAS, but a sampler of one's own, to be trained where that is possible.

    >>> survey = StartSurvey(UniformSampler(2), None, torch.device("cpu"))
    >>> survey.trains, survey.refines
    (False, False)
    """

    refines = False

    def __init__(self, start: Sampler, function: Multichannel | None, device: torch.device) -> None:
        super().__init__(function, device)
        self.start_sampler, self.trains = start, isinstance(start, TrainableSampler)

    def flow(self, config: CouplingConfig, streams: Streams, learned_weights: bool) -> TrainableSampler:
        if not isinstance(self.start_sampler, TrainableSampler):
            raise ConfigError(f"{self.start_sampler.describe()} cannot be trained")
        return self.start_sampler

    def sampler(self) -> Sampler:
        return self.start_sampler

    def under_flow(self) -> None:
        return None

    def grids(self) -> Tensor:
        return even(self.start_sampler.dim)

    def refine(self, u: Tensor, weights: Tensor, most_increments: int) -> None:
        self.found = True

    def state(self) -> dict[str, Tensor]:
        return {}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Nothing was kept: the sampler is given again, and what it learned is in the state of its trainer."""


def even(dim: int) -> Tensor:
    """Nodes (1, dim, 2) of grids of one cell each.

    >>> even(2).tolist()
    [[[0.0, 1.0], [0.0, 1.0]]]
    """
    return torch.tensor([0.0, 1.0], dtype=torch.float64).expand(1, dim, -1)


def refined(nodes: Tensor | None, u: Tensor, weights: Tensor, most_increments: int) -> Tensor:
    """Nodes (dim, m + 1) of a grid after one iteration with latent points u (n, dim) and their weights f/q (n,).

    The same nodes where so few points tell nothing of so many axes.

    >>> u = torch.rand(1000, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    >>> refined(None, u, u[:, 0], most_increments=16).shape
    torch.Size([1, 17])
    """
    n, dim = u.shape
    increments = min(
        most_increments,
        max(tuning.FEWEST_CELLS, n // tuning.POINTS_IN_CELL),
        int(tuning.CELLS_OF_POINTS * n / max(dim, 1)),
    )
    if increments < 2:
        return even(dim)[0] if nodes is None else nodes
    adapter = VegasAdapter(dim, increments, nodes=nodes)
    adapter.add(u, weights)
    if bool((weights != 0.0).any()):
        adapter.refine()
    return adapter.grid().nodes
