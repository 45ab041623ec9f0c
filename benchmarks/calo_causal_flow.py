"""One causal flow of a chain at its published size: showers per second in training, memory, cost of the whole recipe.

    pip install ".[bench]" && python benchmarks/calo_causal_flow.py --model convl2l-ds3=ds3

The flows of a chain train independently, so that one of them tells the cost of all. Its weights are fresh and the
showers are those of the built-in simulator: steps cost the same whatever they learn.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from calo_fresh import fresh_model, preset_and_geometry
from measurements import BenchmarkError, Row, hardware, run_row, run_script, wide_console
from rich.console import Console
from rich.table import Table

from nisampler.base.rng import Streams
from nisampler.calo.models.base import ModelPart
from nisampler.errors import ConfigError

COLUMNS = ("batch", "ms/step", "showers/s", "memory/GB", "epoch/h", "this flow/h", "all flows/h")
_SHOWERS = 400
_HOUR = 3600.0
_WIDTH = 120


def steps_of(part: ModelPart, batch: tuple[torch.Tensor, torch.Tensor], steps: int) -> list[float]:
    """Seconds of each optimizer step after a first one."""
    optimizer = torch.optim.AdamW(part.module.parameters(), lr=1e-5, fused=True)
    generator = Streams(1).generator("noise", device=batch[0].device)
    taken = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        found = part.loss(*batch, generator)
        loss = (found if isinstance(found, torch.Tensor) else found["loss"]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if not bool(torch.isfinite(loss)):
            raise BenchmarkError(f"the loss of {part.name} is not finite")
        taken.append(time.perf_counter() - start)
    return taken[1:]


def measure(job: dict[str, Any]) -> Row:
    """One flow with one batch size in this process."""
    model, showers = fresh_model(job["model"], job["geometry"], _SHOWERS, job["device"])
    cells, part = model.geometry, model.train().parts[job["part"]]
    first, last = part.layers or (0, cells.n_layers)
    rows = np.resize(np.arange(_SHOWERS), job["batch"])
    voxels = showers.voxels[rows, cells.starts[first] : cells.starts[last]]
    batch = (
        torch.as_tensor(voxels, device=job["device"]),
        torch.as_tensor(showers.incident[rows], dtype=torch.float32, device=job["device"]),
    )
    taken = steps_of(part, batch, job["steps"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    memory = torch.cuda.max_memory_allocated() if job["device"] == "cuda" else peak
    return job | {
        "name": part.name,
        "seconds": statistics.median(taken),
        "memory": memory,
        "parameters": sum(p.numel() for p in part.module.parameters()),
        "all_parameters": sum(p.numel() for p in model.parameters()),
        "epochs": part.recipe.epochs,
        "recipe_batch": part.recipe.batch,
        "parts": len(model.parts) - 1,
    }


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description="Cost of training one flow of a chain.")
    parser.add_argument("--model", default="convl2l-ds3=ds3", metavar="PRESET=GEOMETRY", help="which chain")
    parser.add_argument("--part", type=int, default=20, help="number of the flow, that of the energies being 0")
    parser.add_argument("--batch", nargs="+", type=int, default=[32, 128, 1024], help="showers of each step")
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each size")
    parser.add_argument("--showers", type=int, default=100_000, help="of the training that is extrapolated to")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the flow is trained")
    parser.add_argument("--threads", type=int, default=1, help="threads of the CPU")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def run(options: argparse.Namespace, console: Console) -> int:
    """Measure every batch size and print the table; the number of those that failed."""
    chosen = preset_and_geometry(options.model)
    if min(options.part, options.steps, *options.batch) < 1:
        raise ConfigError("--part, --steps and --batch must be positive")
    table = Table(title=f"One flow of {chosen['model']}")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    failed, row = 0, None
    for batch in options.batch:
        job = chosen | {"part": options.part, "batch": batch, "steps": options.steps, "device": options.device}
        try:
            row = run_row(__file__, job, options.threads, f"batch {batch}")
        except BenchmarkError as error:
            failed += 1
            console.print(f"failed: {error}", markup=False, highlight=False)
            continue
        rate = batch / row["seconds"]
        hours = options.showers / rate / _HOUR
        figures = (1e3 * row["seconds"], rate, row["memory"] / 1e9, hours)
        whole = hours * row["epochs"]
        cells = [*(f"{value:.3g}" for value in figures), f"{whole:.3g}", f"{whole * row['parts']:.3g}"]
        table.add_row(f"{batch:,}", *cells)
    console.print(table)
    if row is not None:
        console.print(
            f"{row['name']}: {row['parameters']:,} of {row['all_parameters']:,} parameters; recipe: {row['epochs']} "
            f"epochs in batches of {row['recipe_batch']}, here with {options.showers:,} showers; memory: of the "
            f"{'GPU' if options.device == 'cuda' else 'process, with all other flows'}; {hardware()}, "
            f"{options.threads} thread(s)",
            highlight=False,
        )
    return failed


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; 0 if every batch size could be."""
    return run_script(parse(arguments), measure, run, wide_console(_WIDTH))


if __name__ == "__main__":
    sys.exit(main())
