"""A CaloFlow student beside its teacher: time for each shower, classifiers, densities and the terms of its loss.

    nisampler calo fit --geometry toy --data train.h5 --model small-student --output model
    python benchmarks/calo_student.py --model model --reference reference.h5

"Plain passes" generates as CaloFlow did: one evaluation of the whole network for each coordinate. It is timed for a few
coordinates and scaled to all; ours keeps the hidden units that it knows.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from measurements import BenchmarkError, hardware
from torch import Tensor

from nisampler.calo.data.files import read_showers
from nisampler.calo.data.showers import Showers
from nisampler.calo.evaluation.classifiers import CLASSIFIERS, classify_many
from nisampler.calo.fitting.store import load_model, training_records
from nisampler.calo.generation import ShowerGenerator
from nisampler.calo.models import ModelConfig, ShowerModel, build_model
from nisampler.calo.models.base import TwoStepModel
from nisampler.calo.models.distillation import divergence
from nisampler.calo.models.student import StudentModel
from nisampler.errors import NisamplerError
from nisampler.flows import Flow, MaskedAutoregressiveTransform
from nisampler.flows.coupling import split_parameters

_COORDINATES = 3  # of plain passes that are timed
_SHARD = 1000
_REPEATS = 9


def teacher_of(model: StudentModel) -> TwoStepModel:
    """The same model with the voxels from the teacher."""
    config = ModelConfig.from_dict(model.config)
    config = replace(config, family="two-step", flows=config.flows[:2], recipes=config.recipes[:2])
    teacher = cast(TwoStepModel, build_model(config, model.geometry))
    teacher.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("student.")})
    return teacher.eval()


def milliseconds(works: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median CPU time of each, taken in turns."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(repeats + 1):
        for name, work in works.items():
            start = time.process_time()
            work()
            if repeat:
                taken[name].append(1e3 * (time.process_time() - start))
    return {name: statistics.median(times) for name, times in taken.items()}


def plain_passes(flow: Flow, z: Tensor, condition: Tensor) -> None:
    """The first coordinates of a block of a masked autoregressive flow, the network evaluated anew for each."""
    block = next(part for part in flow.modules() if isinstance(part, MaskedAutoregressiveTransform))
    x = z.clone()
    for index in range(_COORDINATES):
        params = split_parameters(block.net(x, condition), block.dim)
        here = slice(index, index + 1)
        x[:, here] = block.spline(z[:, here], params[:, here], inverse=True)[0]


@torch.inference_mode()
def times(model: StudentModel, teacher: TwoStepModel, batches: list[int]) -> Iterator[list[str]]:
    """Rows of the first table."""
    yield ["batch", "student", "teacher", "plain passes", "teacher/student", "plain/student", "whole models"]
    flow, generator = teacher.voxel_flow, torch.Generator().manual_seed(3)
    blocks = sum(isinstance(part, MaskedAutoregressiveTransform) for part in flow.modules())
    for n in batches:
        incident = model.geometry.incident.sample(n, np.random.default_rng(1))
        energies = torch.as_tensor(incident, dtype=torch.float32)
        drawn, _ = model.energy_flow.sample(n, model.condition(energies), generator)
        given, z = model.voxel_condition(drawn, energies), torch.randn(n, flow.dim, generator=generator)
        works: dict[str, Callable[[], object]] = {
            "student": partial(model.student.from_latent, z, given),
            "teacher": partial(flow.from_latent, z, given),
            "plain": partial(plain_passes, flow, z, given),
            "whole student": partial(model.sample, energies, generator),
            "whole teacher": partial(teacher.sample, energies, generator),
        }
        took = milliseconds(works, _REPEATS if n <= _SHARD else 3)
        plain = took["plain"] * blocks * flow.dim / _COORDINATES
        ratios = (took["teacher"] / took["student"], plain / took["student"])
        whole = took["whole teacher"] / took["whole student"]
        cells = [took["student"] / n, took["teacher"] / n, plain / n, *ratios, whole]
        yield [str(n), *(f"{cell:.3g}" for cell in cells)]


def draw(model: ShowerModel, n: int) -> Showers:
    """n showers of a model in shards; the same layer energies for the same seed."""
    generator = ShowerGenerator(model, 7, n // 100)
    shards = range(-(-n // _SHARD))
    return Showers.concatenate([generator.draw(generator.incident(_SHARD, k), k) for k in shards])[:n]


def areas(
    models: dict[str, ShowerModel],
    reference: Showers,
    seeds: int,
    names: Sequence[str] = ("small-low", "small-log-voxels"),
) -> Iterator[list[str]]:
    """Rows of the second table: the classifiers of these names."""
    yield ["showers of", *(f"AUC {name}" for name in names), "E_tot/E_inc", "occupancy"]
    samples = {name: draw(model, len(reference)) for name, model in models.items()}
    geometry = next(iter(models.values())).geometry
    for name, sample in {"the reference": reference, **samples}.items():
        found = []
        for classifier in names if name in samples else ():
            summary = classify_many(reference, sample, geometry, CLASSIFIERS[classifier], range(1, seeds + 1))
            spread = f" ({summary.std('auc'):.4f})" if seeds > 1 else ""
            found.append(f"{summary.mean('auc'):.4f}{spread}")
        ratio = float((sample.voxels.sum(axis=1, dtype=np.float64) / sample.incident).mean())
        occupied = float((sample.voxels > geometry.threshold).mean())
        yield [name, *(found or ["", ""]), f"{ratio:.4f}", f"{occupied:.4f}"]


@torch.no_grad()
def densities(model: StudentModel, incident: Tensor) -> str:
    """How the density of the student compares with that of the teacher."""
    generator = torch.Generator().manual_seed(3)
    n = len(incident)
    energies, _ = model.energy_flow.sample(n, model.condition(incident), generator)
    given = model.voxel_condition(energies, incident)
    x, log_p = model.voxel_flow.sample(n, given, generator)
    log_q = model.student.log_prob(x, given)
    kl = divergence(model.voxel_flow, model.student, torch.randn(x.shape, generator=generator), given)
    return (
        f"The student's density of {n} showers of the teacher is finite for {int(torch.isfinite(log_q).sum())}; "
        f"log p(teacher) - log p(student) has mean {float((log_p - log_q).mean()):.3f} and standard deviation "
        f"{float((log_p - log_q).std()):.3f}. KL(student, teacher) = {float(kl.mean()):.3f} ± "
        f"{float(kl.std()) / n**0.5:.3f}."
    )


def terms(folder: Path) -> Iterator[list[str]]:
    """Rows of the third table."""
    history = training_records(folder)["student"]
    yield ["term", "first epoch", "last epoch"]
    for name in history[0]["terms"]:
        yield [name, f"{history[0]['terms'][name]:.4g}", f"{history[-1]['terms'][name]:.4g}"]
    yield ["validation loss", f"{history[0]['validation']:.4g}", f"{history[-1]['validation']:.4g}"]


def show(rows: Iterator[list[str]]) -> None:
    """Print a table, line by line."""
    for number, cells in enumerate(rows):
        rule = f"| {' | '.join('---' for _ in cells)} |\n" if number == 0 else ""
        sys.stdout.write(f"| {' | '.join(cells)} |\n{rule}")
        sys.stdout.flush()
    sys.stdout.write("\n")


def main() -> None:
    """Print the tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of a fitted student")
    parser.add_argument("--reference", type=Path, required=True, help="showers that it has not seen")
    parser.add_argument("--showers", type=int, default=20_000, help="of each sample for the classifiers")
    parser.add_argument("--trainings", type=int, default=2, help="of each classifier")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 100, 1000, 10_000])
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        model = load_model(options.model)
        if not isinstance(model, StudentModel):
            raise BenchmarkError(f"{options.model} is not a student: fit one with --model small-student")
        teacher = teacher_of(model)
        reference = read_showers(options.reference, model.geometry, options.showers)
        sys.stdout.write(f"{hardware()}, 1 thread; torch {torch.__version__}\n\n")
        show(times(model, teacher, options.batches))
        show(terms(options.model))
        show(areas({"the teacher": teacher, "the student": model}, reference, options.trainings))
        sys.stdout.write(densities(model, torch.as_tensor(reference.incident[:200], dtype=torch.float32)) + "\n")
    except NisamplerError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
