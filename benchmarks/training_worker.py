"""Whole trainings, asked for line by line; it runs under versions with other places for the same names, too.

echo '{"case": "camel8", "options": {}, "calls": 20000, "seed": 1}' | python benchmarks/training_worker.py
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch

from nisampler.processes.registry import create

try:
    from nisampler.base.rng import Streams
    from nisampler.density.integrand import Integrand
    from nisampler.training.config import TrainingConfig
    from nisampler.training.trainer import Trainer
except ModuleNotFoundError:
    from nisampler.integrand import Integrand  # type: ignore[import-not-found,no-redef]
    from nisampler.rng import Streams  # type: ignore[import-not-found,no-redef]
    from nisampler.trainer import Trainer  # type: ignore[import-not-found,no-redef]
    from nisampler.training import TrainingConfig  # type: ignore[no-redef,attr-defined]

_POINTS, _BATCH, _FEWEST = 200_000, 20_000, 6000


def efficiency_of(sampler: Any, integrand: Any) -> tuple[float, float]:
    """Unweighting efficiency at 0.1 % overweight, and ESS fraction, on fresh points of a sampler."""
    view, generator, found = sampler.view(integrand), torch.Generator().manual_seed(77), []
    with torch.no_grad():
        for _ in range(_POINTS // _BATCH):
            u = torch.rand(_BATCH, integrand.dim, generator=generator, dtype=torch.float64)
            x, log_q = sampler.map(u)
            found.append(view(x).double().abs() * torch.exp(-log_q.double()))
    weights = torch.sort(torch.cat(found), descending=True).values
    above = weights.cumsum(0)
    cut = weights[int((above <= 1e-3 * above[-1]).sum())]
    return float(weights.mean() / cut), float(weights.mean() ** 2 / weights.square().mean())


def training(job: dict[str, Any]) -> dict[str, float]:
    """CPU-seconds of a training, once everything is compiled and imported, and what it is worth on fresh points."""
    process = create(job["case"], **job["options"])
    Trainer(Integrand(process), TrainingConfig(calls=_FEWEST, sampler="flow"), Streams(9)).fit()
    start = time.process_time()
    config = TrainingConfig(calls=job["calls"], sampler="flow")
    found = Trainer(Integrand(process), config, Streams(job["seed"])).fit()
    seconds = time.process_time() - start
    efficiency, ess = efficiency_of(found.sampler, Integrand(process))
    return {"seconds": seconds, "efficiency": efficiency, "ess": ess}


if __name__ == "__main__":
    torch.set_num_threads(1)
    for line in sys.stdin:
        sys.stdout.write(json.dumps(training(json.loads(line))) + "\n")
        sys.stdout.flush()
