"""Makes the file of compiled functions that comes with the package; to be done again when their source has changed.

    python -m nisampler.processes.partons.interpolation.shipping

numba is needed for that alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nisampler.flows.fused.shipping import write
from nisampler.processes.partons.interpolation.axes import CubicAxis, padded
from nisampler.processes.partons.interpolation.compiled import FILE
from nisampler.processes.partons.interpolation.tables import Bicubics, Cubics


def sources() -> str:
    """The checksum of what compiled code is made from.

    >>> len(sources())
    64
    """
    return hashlib.sha256(Path(FILE).with_name("numba_tables.py").read_bytes()).hexdigest()


def functions() -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """Name, source and arguments of what is shipped.

    >>> [name for name, _, _ in functions()]
    ['cubic', 'bicubic', 'pairs']
    """
    from nisampler.processes.partons.interpolation import numba_tables

    place, values = torch.zeros(1, dtype=torch.float64), padded(padded(torch.ones(2, 2, 1, dtype=torch.float64)), 1)
    axis = CubicAxis([torch.tensor([0.0, 1.0], dtype=torch.float64)])
    for table, name in ((Cubics(values[0], axis), "cubic"), (Bicubics(values, axis, axis), "bicubic")):
        yield name, getattr(numba_tables, name), table.arguments([place] * len(table.axes))
    densities, terms = np.ones((1, 2, 1)), np.zeros((1, 3), np.int64)
    yield "pairs", numba_tables.pairs, (densities, terms, np.ones(1), np.zeros((1, 1)))


def main() -> None:
    """Write the file.

    >>> callable(main)
    True
    """
    write(FILE, functions(), sources())


if __name__ == "__main__":
    main()
