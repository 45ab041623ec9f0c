"""Draw from densities that can only be evaluated: integrate, unweight, generate events."""

from nisampler._version import __version__ as __version__
