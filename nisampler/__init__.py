"""Draw from densities that can only be evaluated: integrate, unweight, generate events.

The names below are imported when they are first used, so that the command line and `import nisampler` are quick.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

# In a clone, `python -m nisampler` finds this folder before the installed package; processes and calo stand elsewhere.
__path__ = extend_path(__path__, __name__)

# Threads of torch that wait for each other leave their cores to other work; read where torch is loaded after this.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from nisampler._version import __version__ as __version__

if TYPE_CHECKING:
    from nisampler import errors as errors
    from nisampler import flows as flows
    from nisampler.api import integrate as integrate
    from nisampler.base.estimate import Estimate as Estimate
    from nisampler.density.channels import Multichannel as Multichannel
    from nisampler.density.integrand import Integrand as Integrand
    from nisampler.density.maps import Channel as Channel
    from nisampler.errors import NisamplerError as NisamplerError
    from nisampler.events import read_events as read_events
    from nisampler.events import write_events as write_events
    from nisampler.integration.integrator import IntegrationConfig as IntegrationConfig
    from nisampler.result import Result as Result
    from nisampler.run.load import load as load
    from nisampler.run.lookup import process as process
    from nisampler.samplers.base import Sampler as Sampler
    from nisampler.samplers.trainable import TrainableSampler as TrainableSampler
    from nisampler.training.config import ChannelSettings as ChannelSettings
    from nisampler.training.config import ChoiceSettings as ChoiceSettings
    from nisampler.training.config import FlowSettings as FlowSettings
    from nisampler.training.config import TrainingConfig as TrainingConfig
    from nisampler.training.config import TreeSettings as TreeSettings
    from nisampler.training.costs import Costs as Costs
    from nisampler.unweighting.unweighter import UnweightingConfig as UnweightingConfig

_HOMES = {
    "Channel": "density.maps",
    "ChannelSettings": "training.config",
    "ChoiceSettings": "training.config",
    "Costs": "training.costs",
    "Estimate": "base.estimate",
    "FlowSettings": "training.config",
    "Integrand": "density.integrand",
    "IntegrationConfig": "integration.integrator",
    "Multichannel": "density.channels",
    "NisamplerError": "errors",
    "Result": "result",
    "Sampler": "samplers.base",
    "TrainableSampler": "samplers.trainable",
    "TrainingConfig": "training.config",
    "TreeSettings": "training.config",
    "UnweightingConfig": "unweighting.unweighter",
    "integrate": "api",
    "load": "run.load",
    "process": "run.lookup",
    "read_events": "events",
    "write_events": "events",
}
# Folders and modules that are reached as attributes, without an import of their own.
_MODULES = ("errors", "flows")

__all__ = [*_HOMES, *_MODULES, "processes"]


def _find(name: str) -> Any:
    """What stands behind a public name; AttributeError if there is none of that name."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name == "processes":
        import_module(f"{__name__}.run.lookup").available()  # imports the package, by its entry points
        return sys.modules[f"{__name__}.{name}"]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names."""
    return sorted([*__all__, "__version__"])


if not TYPE_CHECKING:
    # A type checker is not to take any name for a public one.
    __getattr__ = _find
