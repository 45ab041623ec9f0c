"""Draw from densities that can only be evaluated: integrate, unweight, generate events."""

from pkgutil import extend_path

# In a clone, `python -m nisampler` finds this folder before the installed package; processes and calo stand elsewhere.
__path__ = extend_path(__path__, __name__)

from nisampler._version import __version__ as __version__
from nisampler.api import Result, integrate
from nisampler.base.estimate import Estimate
from nisampler.density.integrand import Integrand
from nisampler.errors import NisamplerError
from nisampler.integration.integrator import IntegrationConfig
from nisampler.training.config import TrainingConfig
from nisampler.unweighting.unweighter import UnweightingConfig

__all__ = [
    "Estimate",
    "Integrand",
    "IntegrationConfig",
    "NisamplerError",
    "Result",
    "TrainingConfig",
    "UnweightingConfig",
    "integrate",
]
