"""Draw from densities that can only be evaluated: integrate, unweight, generate events."""

from pkgutil import extend_path

# In a clone, `python -m nisampler` finds this folder before the installed package; processes and calo stand elsewhere.
__path__ = extend_path(__path__, __name__)

from nisampler._version import __version__ as __version__
from nisampler.engine import Result, integrate
from nisampler.errors import NisamplerError
from nisampler.integrand import Integrand
from nisampler.integrator import IntegrationConfig
from nisampler.stats import Estimate
from nisampler.training import TrainingConfig
from nisampler.unweighting import UnweightingConfig

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
