"""What takes long on a machine when it is done for the first time, done beforehand."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from nisampler.api import integrate
from nisampler.density.channels import Multichannel
from nisampler.events.text.reader import reader
from nisampler.events.text.templates import filler
from nisampler.integration.integrator import IntegrationConfig
from nisampler.run.directory import RunDirectory
from nisampler.run.generation.generate import generator_of
from nisampler.training.config import FlowSettings, TrainingConfig
from nisampler.ui.monitor import Monitor

_EVENTS = 2


class _Power:
    """A channel that is dense where the first coordinate is large."""

    dim = 2

    def __init__(self, power: float) -> None:
        self.name, self.power = f"power {power}", power

    def forward(self, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.stack([u[:, 0] ** (1 / self.power), u[:, 1]], 1)
        return x, self._log_density(x)

    def inverse(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.stack([x[:, 0] ** self.power, x[:, 1]], 1), self._log_density(x)

    def _log_density(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log(self.power * x[:, 0] ** (self.power - 1))


def warm_up(run: RunDirectory | None, monitor: Monitor) -> dict[str, float]:
    """Compile what flows and event files need, and make an event of a run, with all that this needs.

    Kernels of flows, parsed parton densities and generated amplitudes are kept in NISAMPLER_CACHE; those of event files
    where numba keeps them: in NUMBA_CACHE_DIR, beside the source, or in the user's cache folder.

    Parameters
    ----------
    run
        A finished run, or None.
    monitor
        Is told the seconds of each part.

    Returns
    -------
    dict
        These seconds.

    Raises
    ------
    StorageError
        If the run has no frozen sampler yet.
    NisamplerError
        As making events does.

    Examples
    --------
    >>> from nisampler.ui.monitor import SILENT
    >>> list(warm_up(None, SILENT))
    ['flows', 'events']
    """
    tasks: dict[str, Callable[[], None]] = {"flows": _flows, "events": _event_files}
    if run is not None:
        run.require_integral()
        tasks["run"] = lambda: _run(run)
    found = {}
    for name, task in tasks.items():
        start = time.perf_counter()
        task()
        found[name] = round(time.perf_counter() - start, 3)
        monitor.line(f"{name}: {found[name]:.1f} s")
    return found


def _flows() -> None:
    """One flow, and a flow for each of two channels, trained and drawn from."""
    small = FlowSettings(fourier=0, bins=4, hidden=8, layers=1, buffer=1000)
    for function in (_slope, Multichannel(_slope, [_Power(2.0), _Power(3.0)])):
        integrate(
            function,
            dim=None if isinstance(function, Multichannel) else _Power.dim,
            kind="torch",
            training=TrainingConfig(calls=3000, sampler="flow", flow=small),
            integration=IntegrationConfig(points=2048),
            progress=False,
        )


def _event_files() -> None:
    filler()
    reader()


def _slope(x: torch.Tensor) -> torch.Tensor:
    return x[:, 0] ** 2 * (1 + torch.sin(5 * x[:, 1]))


def _run(run: RunDirectory) -> None:
    with tempfile.TemporaryDirectory() as folder:
        generator, _, _ = generator_of(run, seed=0)
        generator.shard(Path(folder), 0, _EVENTS)
