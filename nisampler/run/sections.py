"""Parts of a run card that no other layer has: how the process is called, and what is written."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nisampler.base.checks import Fraction, Natural, Positive, Row, Whole, settings
from nisampler.density.values import Kind
from nisampler.errors import ConfigError
from nisampler.events.compression import HIGHEST_LEVEL, level_of

Format = Literal["lhe.gz", "lhe.zst", "lhe", "h5", "lheh5", "hepmc.gz", "hepmc"]
_MOST_SHARDS = 1_000_000


@settings
class IntegrandSettings:
    """How the process is called: `[integrand]`.

    Parameters
    ----------
    kind
        "auto", "torch", "numpy" or "scalar"; see `nisampler.density.integrand.Integrand`.
    nonfinite
        Fraction of calls that may be NaN or infinite; they are counted and set to zero. 0: the first one stops
        the run.
    domain
        (low, high) for each coordinate of a callable of one's own; the unit cube by default.

    Raises
    ------
    ConfigError
        If the fraction is outside [0, 1), or the domain is no list of pairs.

    Examples
    --------
    >>> IntegrandSettings(nonfinite=0.01).kind
    'auto'
    """

    kind: Kind = "auto"
    nonfinite: Fraction = 0.0
    domain: Row[tuple[float, float]] | None = None


@settings
class VariationSettings:
    """Named weights of other scales and parton densities: `[events.variations]`, for hadron processes.

    Parameters
    ----------
    scales
        "7-point", "9-point", or pairs of factors of the renormalisation and the factorisation scale.
    pdfs
        Members of sets of parton densities: "SET/all", "SET/0-42" or "SET/3".
    alpha_s
        Whether each member brings its own strong coupling; one that the process states itself holds for all.

    Raises
    ------
    ConfigError
        If a factor is not positive.

    Examples
    --------
    >>> VariationSettings(scales=((0.5, 2.0),), pdfs=("NNPDF31_lo_as_0118/all",)).alpha_s
    True
    """

    scales: Literal["7-point", "9-point"] | Row[tuple[Positive, Positive]] | None = None
    pdfs: Row[str] = ()
    alpha_s: bool = True


@settings
class EventSettings:
    """What is written: `[events]`.

    Parameters
    ----------
    n
        Number of unweighted events; 0 integrates only.
    shard_size
        Events in one shard, the unit that a killed run loses at most.
    formats
        Of the finished file: "lhe.gz", "lhe.zst", "lhe", "h5", "lheh5", "hepmc.gz", "hepmc"; by default lhe.gz, or h5
        for a callable without an event record.
    weights
        "average": the weights of a file average to the cross-section in pb (IDWTUP = ±4). Showers hand them on, those
        of overweight events included; it is the default of MadGraph and POWHEG, and here that of event records.
        "unit": ±1, and more for overweight events (IDWTUP = ±3); Pythia takes every weight for ±1 then. Points of a
        callable without an event record are always so.
    compression_level
        How hard files are packed: "lhe.gz" and "hepmc.gz" from 0, not at all, to 9, "lhe.zst" from 1 to 19, both by
        default 1: from there to 4, gzip takes twice the time for six per cent less.
    matching
        "mlm": LHE files say at which scale each final parton was clustered (``pt_clust_i`` in ``<scales>``), as jet
        matching by the MLM method needs it; for hadron collisions.
    variations
        Named weights of other scales and parton densities.

    Raises
    ------
    ConfigError
        If a number is out of range, there would be more than a million shards, the formats are repeated, or one of
        them has no such level of compression.

    Examples
    --------
    >>> EventSettings(n=20).shard_size
    10000
    >>> EventSettings(formats=("h5", "h5"))
    Traceback (most recent call last):
    nisampler.errors.ConfigError: formats must name at least one format, each once, got ['h5', 'h5']
    """

    n: Natural = 10_000
    shard_size: Annotated[Whole, Field(ge=1, le=1_000_000)] = 10_000
    formats: Row[Format] | None = None
    weights: Literal["unit", "average"] | None = None
    compression_level: Annotated[Whole, Field(ge=0, le=HIGHEST_LEVEL)] | None = None
    matching: Literal["mlm"] | None = None
    variations: VariationSettings = Field(default_factory=VariationSettings)

    def __post_init__(self) -> None:
        if self.n > _MOST_SHARDS * self.shard_size:
            raise ConfigError(f"n = {self.n} makes more than {_MOST_SHARDS} shards of shard_size = {self.shard_size}")
        if self.formats is not None and (not self.formats or len(set(self.formats)) != len(self.formats)):
            raise ConfigError(f"formats must name at least one format, each once, got {list(self.formats)}")
        for name in self.formats or ("lhe.gz",):
            level_of(name, self.compression_level)
