"""Results that were saved, and those that runs left, read again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from nisampler.density.integrand import Integrand
from nisampler.errors import NisamplerError
from nisampler.result import Result
from nisampler.run import lookup
from nisampler.run.directory import RunDirectory


def load(
    folder: str | Path, function: Callable[..., Any] | Integrand | None = None, device: str | None = None
) -> Result:
    """The result that `Result.save` stored, or that a finished run left; the folder is only read.

    Nothing in the folder runs code. Without the function the result still has its estimate, efficiencies and warnings,
    and its sampler draws points with their densities; what needs the function raises MissingFunctionError.

    Parameters
    ----------
    folder
        Of `Result.save`, or a run directory.
    function
        What was integrated, as it was given then. A run of a registered process builds it by its name; one's own
        callable has to be handed in.
    device
        "auto", "cpu" or "cuda"; by default that of the result, or the CPU where that is not there.

    Returns
    -------
    Result
        With the function it draws the same points as before.

    Raises
    ------
    StorageError
        If there is no finished integration.
    CorruptFileError
        If a file is damaged; it is named.

    Examples
    --------
    >>> import tempfile
    >>> import nisampler
    >>> def f(x):
    ...     return 2 * x[:, 0]
    >>> quick = {
    ...     "training": nisampler.TrainingConfig(calls=5000),
    ...     "integration": nisampler.IntegrationConfig(points=4096),
    ... }
    >>> result = nisampler.integrate(f, dim=2, **quick)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     place = result.save(folder)
    ...     again = nisampler.load(place, f)
    >>> again.estimate == result.estimate, bool((again.unweight(10).x == result.unweight(10).x).all())
    (True, True)
    """
    reason = ""
    if function is None and (Path(folder) / "run.json").is_file():
        run = RunDirectory.read(folder)
        name = run.settings["process"]
        if code := lookup.sources(name, run.card.parameters):
            reason = f"a run builds registered processes alone, and {', '.join(code)} is code of your own"
        else:
            try:
                function = lookup.create(name, run.card.parameters)
            except NisamplerError as error:
                reason = f"{type(error).__name__}: {error}"
    return Result.load(folder, function, device, reason)
