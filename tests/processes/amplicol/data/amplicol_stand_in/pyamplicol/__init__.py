"""A stand-in for pyamplicol: the part of its interface that the adapter uses, with made-up matrix elements.

The variable STAND_IN chooses what goes wrong: see the tests.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

COLOURED = ("u", "d", "s", "c", "b", "t", "u~", "d~", "s~", "c~", "b~", "t~", "g")


def matrix_element(process: str, momenta: NDArray[np.float64], parameters: dict[str, float]) -> NDArray[np.float64]:
    """aS^n MZ (number of the process + sum_k k E_k + |p_y of leg 3|), asymmetric in every leg and under reflection."""
    names = process.replace(">", " ").split()
    power = sum(name in COLOURED for name in names) - 2
    weights = np.arange(1, len(names) + 1)
    kinematics = sum(map(ord, process)) + momenta[..., 0] @ weights + 0.5 * np.exp(momenta[:, 2, 2] / 1000)
    wrong = 1 if os.environ.get("STAND_IN") == "power" else 0
    return parameters["aS"] ** (power - wrong) * parameters["MZ"] * kinematics


class Runtime:
    """One process of an artifact."""

    def __init__(self, artifact: str, process: str) -> None:
        stored = json.loads((Path(artifact) / "artifact.json").read_text())
        if process not in stored["processes"]:
            raise KeyError(f"{process} is not in {artifact}")
        self.process = process
        self.parameters = {"aS": 1.0, "MZ": 1.0}
        names = process.replace(">", " ").split()
        coloured = [place for place, name in enumerate(names, 1) if name in COLOURED]
        gluons = [place for place in coloured if names[place - 1] == "g"]
        quarks = [place for place in coloured if names[place - 1] != "g"]
        # Fundamental with all legs outgoing: an outgoing quark or an incoming antiquark.
        quarks.sort(key=lambda place: names[place - 1].endswith("~") == (place > 2))
        words = [[quarks[0], *order, quarks[1]] for order in (gluons, gluons[::-1])] if len(quarks) == 2 else []
        if len(quarks) == 4 and not gluons:
            one, other, anti, another = quarks
            words = [[one, anti, other, another], [one, another, other, anti]]
        self.words = {f"flow-{number}": word for number, word in enumerate(words)}
        self.physics = SimpleNamespace(
            color_flows=[SimpleNamespace(id=name, word=word) for name, word in self.words.items()]
        )

    @staticmethod
    def load(artifact: str, *, process: str, mute_warnings: bool = False) -> Runtime:
        return Runtime(artifact, process)

    def set_model_parameters(self, parameters: dict[str, float]) -> None:
        self.parameters |= parameters

    def evaluate(self, momenta: NDArray[np.float64], *, color_flows: list[str] | None = None) -> Any:
        if not momenta.flags.c_contiguous:
            raise ValueError("momenta must be C-contiguous")
        mode = os.environ.get("STAND_IN")
        if mode == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if mode == "raise":
            raise RuntimeError("a broken kernel")
        values = matrix_element(self.process, momenta, self.parameters)
        if mode == "zero":
            values = 0 * values
        for name in color_flows or ():
            values = values * (1 + list(self.words).index(name))
        return values.astype(complex)
