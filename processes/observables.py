"""From functions of momenta to observables of event batches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nisampler.events.batch import EventBatch

LegFunction = Callable[[Tensor], Tensor]


def of_legs(function: LegFunction, count: int) -> Callable[[EventBatch], NDArray[np.float64]]:
    """A function of the momenta of the final legs as a function of event batches.

    Parameters
    ----------
    function
        Maps momenta (n, count, 4) to numbers (n,).
    count
        Number of legs.

    Examples
    --------
    >>> energy = of_legs(lambda p: p[..., 0].sum(1), count=3)
    >>> energy(EventBatch.empty(5)).shape
    (0,)
    """

    def observable(batch: EventBatch) -> NDArray[np.float64]:
        momenta = batch.final_state()[0]
        return function(torch.from_numpy(momenta if len(batch) else np.zeros((0, count, 4)))).numpy()

    return observable
