"""Flow matching in one step beside its teacher of 32 evaluations: time for each shower, and classifiers.

    nisampler calo simulate --geometry toy --showers 20000 --seed 1 --output train.h5
    nisampler calo simulate --geometry toy --showers 20000 --seed 3 --output reference.h5
    nisampler calo fit --geometry toy --data train.h5 --model small-matching-onestep --output model
    python benchmarks/calo_onestep.py --model model --reference reference.h5

Both are in one folder: the student has the preprocessing of the teacher, and jumps along the ways of its velocities.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from calo_student import areas, milliseconds, show
from measurements import BenchmarkError, hardware

from nisampler.calo.data.files import read_showers
from nisampler.calo.fitting.store import load_model
from nisampler.calo.models import ModelConfig, ShowerModel, build_model
from nisampler.calo.models.matching import MatchingModel
from nisampler.calo.models.onestep import OneStepMatchingModel
from nisampler.errors import NisamplerError
from nisampler.flows import VelocityConfig

_MIDPOINTS = 16  # steps of the teacher, two evaluations in each


def teacher_of(model: OneStepMatchingModel, steps: int = _MIDPOINTS) -> MatchingModel:
    """The same model with the showers from the teacher, in so many midpoint steps."""
    config = ModelConfig.from_dict(model.config)
    flows = tuple(replace(flow, steps=steps) for flow in config.flows[:2] if isinstance(flow, VelocityConfig))
    config = replace(config, family="matching", flows=flows, recipes=config.recipes[:2])
    teacher = cast(MatchingModel, build_model(config, model.geometry))
    teacher.load_state_dict({name: tensor for name, tensor in model.state_dict().items() if "_student." not in name})
    return teacher.eval()


@torch.inference_mode()
def times(models: dict[str, ShowerModel], batches: list[int]) -> Iterator[list[str]]:
    """Rows of the first table: milliseconds of CPU for each shower, and those of the first over those of the last."""
    yield ["batch", *(f"{name}, ms/shower" for name in models), "ratio"]
    generator = torch.Generator().manual_seed(3)
    geometry = next(iter(models.values())).geometry
    for n in batches:
        incident = torch.as_tensor(geometry.incident.sample(n, np.random.default_rng(1)), dtype=torch.float32)
        works: dict[str, Callable[[], object]] = {
            name: partial(model.sample, incident, generator) for name, model in models.items()
        }
        took = [found / n for found in milliseconds(works, 9 if n <= 1000 else 3).values()]
        yield [str(n), *(f"{one:.3g}" for one in took), f"{took[0] / took[-1]:.3g}"]


def main() -> None:
    """Print the tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of a fitted model of the family")
    parser.add_argument("--reference", type=Path, required=True, help="showers that it has not seen")
    parser.add_argument("--showers", type=int, default=20_000, help="of each sample for the classifiers")
    parser.add_argument("--trainings", type=int, default=2, help="of each classifier")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 100, 1000, 10_000])
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        model = load_model(options.model)
        if not isinstance(model, OneStepMatchingModel):
            raise BenchmarkError(f"{options.model} has no such student: fit one with --model small-matching-onestep")
        models: dict[str, ShowerModel] = {"teacher, 32 evaluations": teacher_of(model)}
        models |= {"teacher, 2 evaluations": teacher_of(model, 1), "student, 1 evaluation": model}
        reference = read_showers(options.reference, model.geometry, options.showers)
        sys.stdout.write(f"{hardware()}, 1 thread; torch {torch.__version__}\n\n")
        show(times(models, options.batches))
        show(areas(models, reference, options.trainings, ("small-low", "small-high")))
    except NisamplerError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
