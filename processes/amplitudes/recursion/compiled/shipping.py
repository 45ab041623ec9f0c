"""Makes the file of the compiled loop that comes with the package; to be done again when its sources have changed.

    python -m nisampler.processes.amplitudes.recursion.compiled.shipping

numba is needed for that alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nisampler.flows.fused.shipping import write
from nisampler.flows.splines import numba_maths
from nisampler.processes.amplitudes.recursion import formulas, graph
from nisampler.processes.amplitudes.recursion.compiled import lanes, tiles
from nisampler.processes.amplitudes.recursion.plan import lowered
from nisampler.processes.amplitudes.recursion.waves import Leg


def sources() -> str:
    """The checksum of everything that compiled code is made from.

    >>> len(sources())
    64
    """
    found = hashlib.sha256(repr((tiles.TILE, tiles.KINDS, tiles.TINY, graph.NAMES)).encode())
    here = Path(lanes.__file__)
    for path in (here, here.with_name("numba_tiles.py"), formulas.__file__, numba_maths.__file__):
        found.update(Path(path).read_bytes())
    return found.hexdigest()


def functions() -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """Name, source and arguments of what is shipped.

    >>> next(functions())[0]
    'squared'
    """
    from nisampler.processes.amplitudes.recursion.compiled import numba_tiles

    legs = [Leg(25, place < 2, 125.0) for place in range(4)]
    made = graph.Graph()
    product = made.add("number_number", [made.external("number", leg, 0, 0) for leg in (0, 1)])
    plan = lowered(made, [(product.node, product.factor)])
    example = tiles.Tiles(plan, legs, [(0, 0, 0)], {0: 1}, np.ones((1, 1)))
    yield "squared", numba_tiles.squared, example.arguments(np.ones((1, 4, 4)), np.ones(1), flows=True)


def main() -> None:
    """Write the file.

    >>> callable(main)
    True
    """
    write(tiles.FILE, functions(), sources())


if __name__ == "__main__":
    main()
