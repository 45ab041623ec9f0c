"""Evaluation of generated matrix elements; run as a script, the worker process of a pool.

Needs numpy and pyamplicol alone, so that a worker starts in a fraction of a second. It ends when the connection to its
parent does, whatever became of the parent.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

ANSWER, FAILURE = b"A", b"F"
TILE = 1024  # rows that are evaluated at once: small enough for the cache, large enough for the call's overhead

Array = NDArray[np.float64]
Column = dict[str, Any]


class MatrixElements:
    """The matrix elements of one artifact, each loaded when it is first needed.

    A column is a dictionary: the ``process`` to load, the ``permutation`` of the legs, whether momenta are
    ``reflected``, and the id of a colour ``flow`` or None for the sum over colours.

    Parameters
    ----------
    specification
        ``artifact``: its folder; ``parameters``: external parameters of the model.

    Examples
    --------
    A column that sums over colours:

    >>> column = {"process": "u u~ > e- e+", "permutation": [0, 1, 2, 3], "reflected": False, "flow": None}
    """

    def __init__(self, specification: dict[str, Any]) -> None:
        # Evaluation needs no symbolica, and importing it aborts the process while another one has it.
        if "symbolica" not in sys.modules:
            sys.modules["symbolica"] = None  # type: ignore[assignment]
        from pyamplicol import Runtime

        self._load = Runtime.load
        self._artifact = str(specification["artifact"])
        self._parameters: dict[str, float] = specification["parameters"]
        self._runtimes: dict[str, Any] = {}

    def evaluate(self, momenta: Array, columns: Sequence[Column]) -> Array:
        """Values (n, len(columns)) at the momenta (n, legs, 4), incoming legs first."""
        values = np.empty((len(momenta), len(columns)))
        for start in range(0, len(momenta), TILE):
            self._tile(momenta[start : start + TILE], columns, values[start : start + TILE])
        return values

    def words(self, process: str) -> list[tuple[str, list[int]]]:
        """Ids and words of the leading-colour flows of a process."""
        return [(flow.id, list(flow.word)) for flow in self._runtime(process).physics.color_flows]

    def _tile(self, momenta: Array, columns: Sequence[Column], values: Array) -> None:
        arranged: dict[tuple[Any, ...], Array] = {}
        for place, column in enumerate(columns):
            key = (*column["permutation"], column["reflected"])
            if key not in arranged:
                legs = momenta[:, column["permutation"]]
                if column["reflected"]:
                    legs[..., 2] *= -1
                # pyamplicol reads another memory order as if it were this one.
                arranged[key] = np.ascontiguousarray(legs)
            flow = column["flow"]
            options = {} if flow is None else {"color_flows": [flow]}
            values[:, place] = np.asarray(self._runtime(column["process"]).evaluate(arranged[key], **options)).real

    def _runtime(self, process: str) -> Any:
        if process not in self._runtimes:
            runtime = self._load(self._artifact, process=process, mute_warnings=True)
            runtime.set_model_parameters(self._parameters)
            self._runtimes[process] = runtime
        return self._runtimes[process]


def _answer(elements: MatrixElements, request: dict[str, Any], connection: Connection) -> bytes:
    if "words" in request:
        return json.dumps(elements.words(request["words"])).encode()
    momenta = np.frombuffer(connection.recv_bytes()).reshape(request["shape"])
    return elements.evaluate(momenta, request["columns"]).tobytes()


def serve(connection: Connection) -> None:
    """Answer requests until the connection ends: a JSON header, and for an evaluation the momenta.

    >>> from multiprocessing import Pipe
    >>> ours, theirs = Pipe()
    >>> ours.close()
    >>> serve(theirs)
    """
    try:
        elements = MatrixElements(json.loads(connection.recv_bytes()))
        connection.send_bytes(ANSWER)
        while True:
            request = json.loads(connection.recv_bytes())
            connection.send_bytes(ANSWER + _answer(elements, request, connection))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Exception as error:
        connection.send_bytes(FAILURE + f"{type(error).__name__}: {error}".encode())


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
