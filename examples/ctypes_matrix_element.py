"""A matrix element of another program as a process: a C library called through ctypes.

What a code generator writes (MadGraph standalone, Recola, your own Fortran) becomes a process in the same way: load the
shared library, hand it arrays of momenta, return a tensor. Here the library is compiled from
`ctypes_matrix_element/matrix_element.c` with the compiler in $CC, or `cc`. The name of the process is
`examples/ctypes_matrix_element.py:MuonPairInC`. Run as a script, the file compares the result with the exact one.
"""

from __future__ import annotations

import ctypes
import math
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch

from nisampler.errors import ProcessError
from nisampler.processes.constants import GEV2_PB
from nisampler.processes.phase_space.rambo import RamboOnDiet

SOURCE = Path(__file__).with_suffix("") / "matrix_element.c"


def compile_library(source: Path, library: Path) -> None:
    """Compile a C file to a shared library; ProcessError if there is no compiler or it refuses the file."""
    compiler = shlex.split(os.environ.get("CC", "").strip() or "cc")
    if shutil.which(compiler[0]) is None:
        raise ProcessError(
            f"no C compiler {compiler[0]!r} in PATH: install gcc or clang, or name one in the variable CC"
        )
    command = [*compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(source)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise ProcessError(f"{shlex.join(command)} ended with exit code {result.returncode}: {result.stderr.strip()}")


class MuonPairInC:
    dim = 2  # a two-body final state has 3 * 2 - 4 = 2 degrees of freedom
    unit = "pb"

    def __init__(self, sqrt_s: float = 10.0, alpha_em: float = 1 / 137.036) -> None:
        self.sqrt_s, self.alpha_em = sqrt_s, alpha_em
        self.phase_space = RamboOnDiet([0.0, 0.0])
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "matrix_element.so"
            compile_library(SOURCE, library)
            self._function = ctypes.CDLL(str(library)).squared_matrix_elements
        array = np.ctypeslib.ndpointer(np.float64, flags="C_CONTIGUOUS")
        self._function.argtypes = [array, ctypes.c_long, ctypes.c_double, array]
        self._function.restype = None

    def squared(self, momenta: torch.Tensor) -> torch.Tensor:
        """|M|^2 (n,) at the momenta (n, 4, 4) of e-, e+, mu-, mu+ in GeV."""
        # The library reads memory as it lies: C-contiguous doubles on the CPU, and room for the answer.
        points = momenta.detach().to("cpu", torch.float64).contiguous().numpy()
        values = np.empty(len(points))
        self._function(points, len(points), self.alpha_em, values)
        return torch.from_numpy(values).to(momenta)

    def __call__(self, u: torch.Tensor) -> torch.Tensor:
        half = 0.5 * self.sqrt_s
        outgoing, weight = self.phase_space.forward(u, self.sqrt_s)
        beams = u.new_tensor([[half, 0.0, 0.0, half], [half, 0.0, 0.0, -half]]).expand(len(u), 2, 4)
        return GEV2_PB * self.squared(torch.cat([beams, outgoing], 1)) * weight / (2 * self.sqrt_s**2)


if __name__ == "__main__":
    process = MuonPairInC()
    points = torch.rand(100_000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    exact = 4 * math.pi * process.alpha_em**2 / (3 * process.sqrt_s**2) * GEV2_PB
    print(f"sigma = {process(points).mean().item():.2f} pb, exact {exact:.2f} pb")
