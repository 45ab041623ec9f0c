"""What a GPU must show, part by part; `gpu.sh` runs all of them, and `gpu_table.py` makes the table.

    python benchmarks/gpu.py --device cuda --output gpu.json
    python benchmarks/gpu.py --device cpu --size tiny --output gpu.json    # tries the script where there is no GPU

Every part is a process of its own with a limit of time. A part that fails leaves its error in the file, and the others
go on. The file is written after each part, so that an interrupted run leaves what it has.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from flow_libraries import OURS, OURS_BFLOAT16, Contestant, FlowShape, build
from measurements import Row, stamp, write_rows
from roofline import seconds_of
from throughput import measure as measure_throughput
from torch import Tensor

from nisampler.errors import MissingExtraError

Part = Callable[["Size", str], list[Row]]


@dataclass(frozen=True)
class Size:
    """How much is measured: as much as a GPU wants, or as little as tries the script."""

    dims: tuple[int, ...] = (8, 16)
    hidden: tuple[int, ...] = (64, 256)
    batches: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    small_batches: tuple[int, ...] = (128, 1024, 10_000)
    spline: int = 1_000_000
    points: int = 200_000
    calls: int = 500_000
    student: int = 10_000
    convolutional: int = 1000
    showers: int = 20_000
    epochs: int = 3
    repeats: int = 5
    elements: int = 2**20
    product: int = 8192
    copy: int = 2**31


FULL = Size()
TINY = Size((4,), (16,), (500,), (64,), 500, 300, 4000, 5, 1, 300, 1, 1, 100, 128, 2**16)


def laws(size: Size, device: str) -> list[Row]:
    """Largest differences of splines, flows and gradients on the device from plain torch in float64 on the CPU."""
    return [*_spline_laws(size, device), *_flow_laws(size, device)]


def _spline_laws(size: Size, device: str) -> Iterator[Row]:
    from nisampler.flows import Spline
    from nisampler.flows.splines.fused_spline import using

    for kind in ("rational_quadratic", "cubic", "quadratic", "linear"):
        for domain in ("unit", "line", "circle"):
            if domain == "circle" and kind != "rational_quadratic":
                continue
            spline = Spline(kind, 10, domain)  # type: ignore[arg-type]
            generator = torch.Generator().manual_seed(3)
            x = torch.rand(size.points, 4, generator=generator, dtype=torch.float64)
            raw = torch.randn(size.points, 4, spline.n_params, generator=generator, dtype=torch.float64)
            for inverse in (False, True):
                with using("reference"):
                    exact = _with_gradients(spline, x, raw, inverse)
                row: Row = {"what": f"spline {kind}, {domain}, {'inverse' if inverse else 'forward'}"}
                for dtype, name in ((torch.float64, "float64"), (torch.float32, "float32")):
                    found = _with_gradients(spline, x.to(device, dtype), raw.to(device, dtype), inverse)
                    row[name] = _difference(found[0], exact[0], turn=domain == "circle")
                    row[f"{name}, log slope"] = _difference(found[1], exact[1])
                    row[f"{name}, gradients"] = max(map(_relative, found[2:], exact[2:]))
                yield row


def _with_gradients(spline: Any, x: Tensor, raw: Tensor, inverse: bool) -> list[Tensor]:
    x, raw = x.requires_grad_(), raw.requires_grad_()
    y, log_slope = spline(x, raw, inverse)
    return [y, log_slope, *torch.autograd.grad((y.sin() + log_slope).sum(), (x, raw))]


def _difference(found: Tensor, exact: Tensor, turn: bool = False) -> float:
    distance = (found.detach().cpu().double() - exact.detach()).abs()
    return float((torch.minimum(distance, (1.0 - distance).abs()) if turn else distance).max())


def _relative(found: Tensor, exact: Tensor) -> float:
    distance = (found.cpu().double() - exact).abs().mean()
    return float(distance / exact.abs().mean().clamp_min(1e-300))


def _flow_laws(size: Size, device: str) -> Iterator[Row]:
    for dim in size.dims:
        for dtype, name in ((torch.float64, "float64"), (torch.float32, "float32")):
            flow = build(OURS, FlowShape(dim)).module.double()
            x = torch.rand(size.points // 10, dim, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
            exact = flow.log_prob(x).detach()
            there = flow.to(device, dtype)
            point, density = there.sample(size.points // 10)
            yield {
                "what": f"flow, d = {dim}, {name}",
                name: _difference(there.log_prob(x.to(device, dtype)), exact),
                f"{name}, log slope": _difference(density, there.log_prob(point).detach().cpu().double()),
            }


def flows(size: Size, device: str) -> list[Row]:
    """Samples per second beside madnis."""
    sizes = [(dim, hidden, batch) for dim in size.dims for hidden in size.hidden for batch in size.batches]
    common = _common(size, device) | {"part": "flow", "libraries": [OURS, OURS_BFLOAT16, "madnis"]}
    return [
        measure_throughput(common | {"dim": dim, "hidden": hidden, "batch": batch}) | _memory(device)
        for dim, hidden, batch in sizes
    ]


def splines(size: Size, device: str) -> list[Row]:
    """The spline kernel against its bandwidth bound."""
    common = _common(size, device) | {"part": "spline", "libraries": [OURS, "madnis"], "hidden": 0}
    return [measure_throughput(common | {"dim": 8, "batch": size.spline}) | _memory(device)]


def _common(size: Size, device: str) -> Row:
    limits = {"repeats": size.repeats, "budget": 4.0, "memory": 60.0, "product": size.product, "copy": size.copy}
    return limits | {"layers": 3, "bins": 10, "blocks": None, "device": device, "threads": 1}


def small_batches(size: Size, device: str) -> list[Row]:
    """Microseconds of a call with small batches: as it is, replayed from a CUDA graph, and in half precision."""
    from nisampler.flows import CudaGraphs

    rows = []
    for batch in size.small_batches:
        plain, replayed = build(OURS, FlowShape(8), device), build(OURS, FlowShape(8), device)
        half = build(OURS_BFLOAT16, FlowShape(8), device)
        replayed.module.graphs = CudaGraphs()  # type: ignore[assignment]
        x = torch.rand(batch, 8, device=device)
        with torch.inference_mode():
            times = {
                f"{quantity}, {name}": 1e6 * _median(size, partial(call, flow, x), device)
                for quantity, call in (("sample", _sample), ("log_prob", _log_prob))
                for name, flow in (("plain", plain), ("graph", replayed), ("bfloat16", half))
            }
            same = _difference(replayed.log_prob(x), plain.log_prob(x).cpu().double())
        rows.append({"batch": batch, "difference": same} | times)
    return rows


def _sample(flow: Contestant, x: Tensor) -> object:
    return flow.sample(len(x))


def _log_prob(flow: Contestant, x: Tensor) -> object:
    return flow.log_prob(x)


def _median(size: Size, action: Callable[[], object], device: str) -> float:
    action()
    return statistics.median(seconds_of(action, device) for _ in range(size.repeats))


def steps(size: Size, device: str) -> list[Row]:
    """Milliseconds of a step of training, forward, backward and Adam, beside madnis."""
    rows = []
    for hidden in size.hidden:
        for batch in (*size.small_batches, size.batches[0]):
            row: Row = {"hidden": hidden, "batch": batch}
            for name in (OURS, "madnis"):
                try:
                    flow = build(name, FlowShape(8, hidden), device)
                except MissingExtraError:
                    continue
                adam = torch.optim.Adam(flow.module.parameters(), 1e-3)
                x = torch.rand(batch, 8, device=device)
                row[name] = 1e3 * _median(size, partial(_step, flow, adam, x), device)
            rows.append(row | _memory(device))
    return rows


def _step(flow: Contestant, adam: torch.optim.Adam, x: Tensor) -> None:
    adam.zero_grad(set_to_none=True)
    (-flow.log_prob(x).mean()).backward()  # type: ignore[no-untyped-call]
    adam.step()


def integrals(size: Size, device: str) -> list[Row]:
    """camel8 and W + 1 jet from the first call to the integral, and unweighted events per second."""
    import nisampler
    from nisampler.processes.registry import create
    from nisampler.training.config import TrainingConfig

    rows = []
    for name, parameters in (("camel8", {}), ("w_plus_jets", {"n_jets": 1})):
        begin, function = time.perf_counter(), create(name, **parameters)
        training = TrainingConfig(calls=size.calls, sampler="flow")
        result = nisampler.integrate(function, training=training, device=device, seed=1, progress=False)
        row: Row = {"case": name, "seconds": time.perf_counter() - begin, "value": result.estimate.value}
        row |= {"error": result.estimate.error, "efficiency": result.efficiencies.at_0p1}
        begin = time.perf_counter()
        made = result.unweight(size.points)
        rows.append(row | {"events_per_second": len(made.x) / (time.perf_counter() - begin)} | _memory(device))
    return rows


def amplitudes(size: Size, device: str) -> list[Row]:
    """Points per second of whole integrands, phase space, densities, amplitudes, and their difference from the CPU."""
    from nisampler.density.integrand import Integrand
    from nisampler.processes.registry import create

    rows = []
    for name, parameters in (
        ("drell_yan", {}),
        ("w_plus_jets", {"n_jets": 1}),
        ("z_jets", {"n_jets": 1}),
        ("ttbar", {}),
        ("ee_to_3jets", {}),
    ):
        process = create(name, **parameters)
        u = torch.rand(size.points, process.dim, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        row: Row = {"process": name}
        values = {}
        for place in dict.fromkeys((device, "cpu")):
            integrand, there = Integrand(process, process.dim, device=place), u.to(place)
            values[place] = integrand(there).detach().cpu().double()
            row[f"points_per_second {place}"] = size.points / _median(size, partial(integrand, there), place)
        exact = values["cpu"]
        row["difference"] = float((values[device] - exact).abs().max() / exact.abs().mean())
        rows.append(row | _memory(device))
    return rows


def elements(size: Size, device: str) -> list[Row]:
    """Matrix elements per second, all helicities and colours, and their difference from the CPU's compiled code."""
    from nisampler.processes.amplitudes.recursion.amplitude import RecursiveAmplitude
    from nisampler.processes.amplitudes.recursion.probes import probe_momenta

    rows = []
    wanted = [("g g > t t~ g", "double"), ("g g > t t~ g", "single"), ("u d~ > e+ ve g g", "double")]
    wanted += [("g g > t t~ g g", "double"), ("u c > w+ w+ d s QCD=0", "double")]
    for process, precision in wanted if size is FULL else wanted[:2]:
        _forget(device)
        amplitude = RecursiveAmplitude(process, precision=precision)  # type: ignore[arg-type]
        (matrix,) = amplitude.matrices.values()
        p = probe_momenta([leg.mass for leg in matrix.legs], points=size.elements)
        alpha_s = torch.full((len(p),), 0.118, dtype=torch.float64)
        few = max(size.elements // 64, 1)
        exact = matrix.squared(p[:few], alpha_s[:few])
        cpu = few / _median(size, partial(matrix.squared, p[:few], alpha_s[:few]), "cpu")
        row: Row = {"process": process, "precision": precision, "CPU, one thread": cpu}
        with torch.no_grad():
            there = p.to(device), alpha_s.to(device)
            found = matrix.squared(*there)
            row[f"elements_per_second {device}"] = len(p) / _median(size, partial(matrix.squared, *there), device)
        row["difference"] = float(((found[:few].cpu() - exact) / exact).abs().max())
        rows.append(row | _memory(device))
    return rows


def showers(size: Size, device: str) -> list[Row]:
    """Milliseconds of a shower from published presets with fresh weights."""
    from calo_fresh import fresh_model

    from nisampler.calo.timing import count_parameters, time_batches

    rows = []
    wanted = [("caloflow-ds1-photons-student", "ds1-photons", size.student)]
    wanted += [("caloflow-ds1-photons", "ds1-photons", size.student // 10 or 1)]
    wanted += [("convl2l-getting-high", "getting-high", size.convolutional), ("convl2l-ds2", "ds2", size.convolutional)]
    for preset, cells, batch in wanted if size is FULL else wanted[:1]:
        _forget(device)
        model, _ = fresh_model(preset, cells, 300, device)
        timed = time_batches(model.eval(), device, (batch,), size.repeats, 60.0)
        row = {"model": preset, "geometry": cells, "parameters": count_parameters(model)[1], "batch": batch}
        rows.append(row | {"ms": timed[0].generate} | _memory(device))
    return rows


def fits(size: Size, device: str) -> list[Row]:
    """Seconds of a short fit of each small shower model."""
    import tempfile

    from nisampler.calo.detector.geometries import geometry
    from nisampler.calo.fitting.fit import DataOptions, FitOptions, fit
    from nisampler.calo.simulation.simulator import simulate_file

    presets = ("small", "small-teacher", "small-inn", "small-convl2l", "small-l2lflows", "small-icaloflow")
    presets += ("small-matching",)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        data, cells = Path(folder) / "toy.h5", geometry("toy")
        simulate_file(data, cells, size.showers, seed=1)
        for preset in presets if size is FULL else presets[:1]:
            _forget(device)
            begin = time.perf_counter()
            options = FitOptions(seed=1, epochs=size.epochs)
            fit(DataOptions(data), cells, preset, Path(folder) / preset, options, device)
            rows.append({"model": preset, "seconds": time.perf_counter() - begin} | _memory(device))
    return rows


PARTS: dict[str, tuple[Part, float]] = {
    "laws": (laws, 60.0),
    "splines": (splines, 30.0),
    "flows": (flows, 120.0),
    "small batches": (small_batches, 40.0),
    "steps": (steps, 50.0),
    "showers": (showers, 60.0),
    "elements": (elements, 90.0),
    "amplitudes": (amplitudes, 50.0),
    "integrals": (integrals, 120.0),
    "fits": (fits, 90.0),
}
"""With the seconds that each may take at most; the most important ones come first."""


def _forget(device: str) -> None:
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _memory(device: str) -> Row:
    """The most memory of the device so far, in MiB."""
    return {"peak_mib": torch.cuda.max_memory_allocated() / 2**20} if device == "cuda" else {}


@contextmanager
def _told(name: str) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    print(f"{name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)


def run_part(name: str, device: str, size: str, left: float) -> Row:
    """One part in a process of its own, with so many seconds left: its rows, or why there are none."""
    command = [sys.executable, str(Path(__file__).resolve()), "--part", name, "--device", device, "--size", size]
    begin, limit = time.perf_counter(), min(PARTS[name][1], max(left, 1.0))
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit)  # noqa: S603
        rows = json.loads(done.stdout.strip().splitlines()[-1]) if done.returncode == 0 else None
        found: Row = {"rows": rows} if rows is not None else {"error": done.stderr[-4000:]}
    except subprocess.TimeoutExpired as error:
        found = {"error": f"took more than {limit:.0f} s\n{(error.stderr or b'').decode()[-2000:]}"}
    except (ValueError, IndexError) as error:
        found = {"error": f"printed no rows: {error}"}
    return {"part": name, "device": device, "seconds": time.perf_counter() - begin} | found


def where(device: str) -> Row:
    """What it was measured on."""
    gpu = torch.cuda.get_device_name() if device == "cuda" else None
    return {"gpu": gpu, "torch": torch.__version__, "python": platform.python_version()} | stamp()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all parts, or print the rows of one; 1 if a part failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    parser.add_argument("--only", nargs="*", choices=PARTS, help="parts to measure; all by default")
    parser.add_argument("--seconds", type=float, default=450.0, help="for all parts together")
    parser.add_argument("--output", type=Path, default=Path("gpu.json"))
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if given.part:
        try:
            rows = PARTS[given.part][0](FULL if given.size == "full" else TINY, given.device)
        except Exception:
            traceback.print_exc()
            return 1
        print(json.dumps(rows))
        return 0
    if given.device == "cuda" and not torch.cuda.is_available():
        print("no GPU is visible here; --device cpu --size tiny tries the script", file=sys.stderr)
        return 2
    found: list[Row] = []
    end = time.perf_counter() + given.seconds
    for name in given.only or PARTS:
        with _told(name):
            left = end - time.perf_counter()
            found.append(run_part(name, given.device, given.size, left) | where(given.device))
        write_rows(given.output, found)
    return int(any("error" in row for row in found))


if __name__ == "__main__":
    sys.exit(main())
