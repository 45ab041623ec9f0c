"""CUDA graphs: everything that a module launches on a GPU, recorded once and replayed at the price of one launch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nisampler.base.checks import Count, checked

Pair = tuple[Tensor, Tensor]
Function = Callable[[Tensor, Tensor | None], Pair]
# Runs before a recording, in which kernels are compiled and libraries take their memory.
_WARM_UP = 3


class CudaGraphs:
    """Replays functions of points (n, d) and a context; one recording for each shape, dtype and autocast precision.

    A recording reads weights where they lie: they may be changed in place, and a module whose weights were moved is
    recorded again. Its memory stays reserved; the oldest recording is given up when there are too many.

    Parameters
    ----------
    most
        Number of recordings that are kept.
    record
        Makes a recording of a function for a batch like this; by default as a CUDA graph.

    Raises
    ------
    ConfigError
        If no recording may be kept.

    Examples
    --------
    >>> graphs = CudaGraphs(record=lambda function, x, context: function)
    >>> double = nn.Linear(1, 1)
    >>> graphs(double, lambda x, context: (2 * x, x), torch.ones(1, 1), None)[0]
    tensor([[2.]])
    """

    def __init__(
        self, most: int = 4, record: Callable[[Function, Tensor, Tensor | None], Function] | None = None
    ) -> None:
        self.most: int = checked("most", most, Count)
        self._record = record or record_cuda_graph
        self._recordings: dict[Any, Function] = {}

    def __call__(self, module: nn.Module, function: Function, x: Tensor, context: Tensor | None, *key: object) -> Pair:
        """What `function` of this module gives for x and context; `key` tells its functions apart."""
        shapes = tuple(None if t is None else (t.shape, t.dtype, t.device) for t in (x, context))
        places = tuple(t.data_ptr() for t in (*module.parameters(), *module.buffers()))
        kind = x.device.type
        precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        whole = (key, shapes, places, precision, module.training)
        if whole not in self._recordings:
            while len(self._recordings) >= self.most:
                del self._recordings[next(iter(self._recordings))]
            self._recordings[whole] = self._record(function, x, context)
        return self._recordings[whole](x, context)

    def __reduce__(self) -> tuple[Any, ...]:
        """The copy of a module, here or in another process, has other weights, so nothing that was recorded."""
        return CudaGraphs, (self.most, self._record)


def record_cuda_graph(function: Function, x: Tensor, context: Tensor | None) -> Function:
    """Record `function` for batches like x (n, d) and context; it must not look at values on the host.

    >>> if torch.cuda.is_available():
    ...     replay = record_cuda_graph(lambda x, context: (2 * x, x), torch.ones(3, 1, device="cuda"), None)
    ...     assert float(replay(torch.ones(3, 1, device="cuda"), None)[0].sum()) == 6.0
    """
    points, given = x.clone(), None if context is None else context.clone()
    with torch.cuda.device(x.device):
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                function(points, given)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = function(points, given)

    def replay(x: Tensor, context: Tensor | None) -> Pair:
        points.copy_(x)
        if given is not None and context is not None:
            given.copy_(context)
        graph.replay()
        return found[0].clone(), found[1].clone()

    return replay
