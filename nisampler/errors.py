"""Every exception of the package: what went wrong, where, and how to mend it."""

from __future__ import annotations

import shlex


def command(*words: object) -> str:
    """A command that a message advises, as a shell takes it.

    >>> command("resume", "my runs/one")
    "nisampler resume 'my runs/one'"
    """
    return shlex.join(["nisampler", *map(str, words)])


class NisamplerError(Exception):
    """Base class: `except NisamplerError` catches everything this package raises on purpose.

    >>> from nisampler.base.device import resolve_device
    >>> try:
    ...     resolve_device("abacus")
    ... except ConfigError as error:
    ...     str(error)
    "device 'abacus' is not available here; use 'auto', 'cpu' or 'cuda'"
    """


class ConfigError(NisamplerError, ValueError):
    """A setting is outside its range or contradicts another one; the message names the setting."""


class UnsupportedError(ConfigError, AttributeError):
    """The face of another package lacks a name or an option of it; the message says what to use instead."""


class CardError(ConfigError):
    """A run card cannot be read or a key in it is wrong; the message names the key."""


class DomainError(NisamplerError, ValueError):
    """A point lies outside the domain of a map or an integrand."""


class ShapeError(NisamplerError, ValueError):
    """A tensor has the wrong shape; the message gives the expected and the actual one."""


class IntegrandError(NisamplerError):
    """Base class for what can go wrong inside a user's integrand."""


class IntegrandShapeError(IntegrandError, ShapeError):
    """The integrand returned something that is not one number per point."""


class IntegrandDtypeError(IntegrandError, TypeError):
    """The integrand returned complex, half-precision or non-numeric values."""


class IntegrandCallError(IntegrandError, RuntimeError):
    """The integrand raised an exception of its own; it is chained as the cause."""


class NonFiniteError(IntegrandError, ArithmeticError):
    """The integrand returned NaN or infinity more often than the stated policy allows."""


class ZeroIntegrandError(IntegrandError, ArithmeticError):
    """No point with a non-zero integrand was found within the search budget."""


class TrainingDivergedError(NisamplerError, ArithmeticError):
    """Training kept diverging after every roll-back."""


class UnweightingError(NisamplerError, RuntimeError):
    """Unweighting cannot deliver the requested events."""


class EventCountError(UnweightingError):
    """Fewer events than requested could be made within the stated budget of integrand calls."""


class EventFormatError(NisamplerError, ValueError):
    """An event record or an event file is malformed; the message names file, event and column."""


class StorageError(NisamplerError, OSError):
    """A file of a run directory is missing, exists already or cannot be written."""


class CorruptFileError(StorageError):
    """A stored file is truncated or altered: its checksum or structure does not match."""


class ProcessError(NisamplerError, ValueError):
    """A process cannot be built from the given parameters."""


class UnknownProcessError(ProcessError):
    """No process of that name is registered; the message lists those that are."""


class MissingExtraError(NisamplerError, ImportError):
    """An optional dependency is not installed; the message names the extra to install."""


class ChannelError(ConfigError):
    """A channel fails its self-test, or the channels contradict each other; the message names the channel."""


class PdfError(NisamplerError, ValueError):
    """A parton density is missing, malformed or asked for something it does not hold."""


class AmplitudeError(ProcessError):
    """A matrix element cannot be had from its generator, or was asked for legs that it does not have."""


class GeometryError(NisamplerError, ValueError):
    """A calorimeter geometry is unknown or contradicts itself, or a model or file belongs to another one."""


class ShowerDataError(NisamplerError, ValueError):
    """Shower data are malformed: wrong shape, units, sign or not finite; the message names file, event and voxel."""


class JetDataError(NisamplerError, ValueError):
    """Jets are malformed: wrong shape or type, not finite, or empty; the message names the file and the first jet."""


class ModelError(NisamplerError, ValueError):
    """A model of showers or jets cannot be built, loaded or asked for what it does not have."""


class WorkerError(NisamplerError, RuntimeError):
    """A process that did a part of the work died."""


class MissingFunctionError(IntegrandError, RuntimeError):
    """A result was read without its function and is asked for something that needs it."""


class ScalarFunctionWarning(UserWarning):
    """A function takes one point at a time, which is slow; the message says how to vectorise it."""
