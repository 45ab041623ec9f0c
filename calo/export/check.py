"""Whether an exported file makes the showers of its model, and how long it takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nisampler.base.checks import checked
from nisampler.base.device import cpu_threads
from nisampler.calo.export.formats import Format, needed
from nisampler.calo.export.targets import Target
from nisampler.errors import ModelError

TOLERANCE = 1e-4
"""Of a voxel, over the energy of its shower."""
BATCHES = (1, 7, 1000)

Run = Callable[[dict[str, Tensor]], NDArray[Any]]


@dataclass(frozen=True)
class Comparison:
    """One batch of showers from the file and from the model, of the same noise.

    Attributes
    ----------
    batch
        Number of showers.
    difference
        The largest difference of a voxel over the energy of its shower.
    beyond
        Share of the voxels that differ by more than 1e-4 of themselves.
    milliseconds, torch
        For each shower, from the file and from the model in torch with its compiled kernels.

    Examples
    --------
    >>> Comparison(7, 1e-7, 0.0, 2.0, 1.0).difference < TOLERANCE
    True
    """

    batch: int
    difference: float
    beyond: float
    milliseconds: float
    torch: float


def runner(path: str | Path, form: Format = "onnx", threads: int = 1) -> Run:
    """A function from inputs by name to the output of a file.

    Raises
    ------
    MissingExtraError
        If it is ONNX and the extra "export" is not installed.
    ConfigError
        If there is no such format.

    Examples
    --------
    >>> runner("toy.tf", "tensorflow")
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: form = "tensorflow": must be "onnx" or "torch-export" or "aoti"
    """
    checked("form", form, Format)
    if form == "onnx":
        (runtime,) = needed("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return lambda inputs: session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})[0]
    if form == "torch-export":
        module: Any = torch.export.load(path).module()
    else:
        module = torch._inductor.aoti_load_package(str(path))

    def run(inputs: dict[str, Tensor]) -> NDArray[Any]:
        with torch.no_grad(), cpu_threads(threads):
            showers: Tensor = module(*inputs.values())
        return showers.numpy()

    return run


def check(
    target: Target, run: Run, batches: Sequence[int] = BATCHES, seed: int = 1, repeats: int = 3
) -> list[Comparison]:
    """Compare what a file makes with the model it was made from; nothing where it draws its own noise.

    Parameters
    ----------
    target
        What was written.
    run
        What `runner` gives.
    batches
        Numbers of showers.
    seed
        Of noise and incident energies.
    repeats
        Times that each is timed; the median counts.

    Raises
    ------
    ModelError
        If a voxel differs by more than 1e-4 of the energy of its shower.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.export.targets import target_for
    >>> from nisampler.calo.models import build_model
    >>> target = target_for(build_model("small-inn", geometry("toy")).eval())
    >>> rows = check(target, lambda inputs: target(*inputs.values()).numpy(), batches=(2,))
    >>> rows[0].batch, rows[0].difference
    (2, 0.0)
    """
    rows = []
    for batch in batches if target.any_batch else ():
        inputs = target.inputs(batch, seed)
        found, expected = run(inputs), _expected(target, inputs)
        gap = np.where(np.isnan(found) & np.isnan(expected), 0.0, np.abs(found - expected))
        energy = np.nansum(expected, axis=tuple(range(1, expected.ndim)), keepdims=True)
        difference = float(np.max(gap / np.maximum(energy, np.finfo(np.float32).tiny)))
        beyond = float(np.mean(gap > TOLERANCE * np.fmax(found, expected)))
        works: tuple[Callable[[], object], ...] = (partial(run, inputs), partial(_expected, target, inputs))
        rows.append(Comparison(batch, difference, beyond, *(_milliseconds(work, repeats) / batch for work in works)))
        if not difference <= TOLERANCE:
            raise ModelError(
                f"the file does not make the showers of its model: a voxel of {batch} showers differs by "
                f"{difference:.2g} of the energy of its shower; please report it with what `nisampler doctor` says"
            )
    return rows


def _expected(target: Target, inputs: dict[str, Tensor]) -> NDArray[Any]:
    with torch.inference_mode():
        showers: Tensor = target(*inputs.values())
    return showers.numpy()


def _milliseconds(work: Callable[[], object], repeats: int) -> float:
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)
