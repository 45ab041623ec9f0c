"""What a run found, as the JSON of `result.json` and as lines for a person."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nisampler.base.estimate import Estimate
from nisampler.base.notation import format_with_error
from nisampler.stored import limits_line
from nisampler.training.costs import Choice
from nisampler.unweighting.two_stage import TwoStageGain


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.3g} %"


def with_unit(value: float, error: float | None, unit: str, trusted: bool = True) -> str:
    """`1603.2(4) pb`, with a mark where the error is not to be trusted.

    >>> with_unit(1603.21, 0.41, "pb"), with_unit(1603.21, 0.41, "pb", trusted=False)
    ('1603.2(4) pb', '1603.2(4) (?) pb')
    """
    number = format_with_error(value, math.inf if error is None else error, trusted=trusted)
    return f"{number} {unit}".rstrip()


def integral_data(estimate: Estimate) -> dict[str, Any]:
    """The integral of a result as JSON, for `integral_text`.

    >>> integral_text({"integral": integral_data(Estimate(1603.21, 0.41, 2048, unit="pb"))})
    '1603.2(4) pb'
    """
    return {name: getattr(estimate, name) for name in ("value", "error", "unit", "trusted")}


def integral_text(result: Mapping[str, Any]) -> str:
    """The integral of a result, with error and unit.

    >>> integral_text({"integral": {"value": 1603.21, "error": 0.41, "unit": "pb", "trusted": True}})
    '1603.2(4) pb'
    """
    integral = result["integral"]
    return with_unit(integral["value"], integral["error"], integral["unit"], integral["trusted"])


def efficiency_rows(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Efficiencies of a result, for a table.

    >>> shares = ("efficiency_strict", "efficiency_0p1", "efficiency_1", "ess_fraction", "cut_efficiency")
    >>> numbers = dict.fromkeys(shares, 0.25) | {"two_stage": None, "n_events": 0}
    >>> efficiency_rows({"unweighting": numbers})[1]
    ('unweighting efficiency, 0.1 % overweight', '25 %')
    """
    numbers = result["unweighting"]
    rows = [
        ("unweighting efficiency, largest weight", _percent(numbers["efficiency_strict"])),
        ("unweighting efficiency, 0.1 % overweight", _percent(numbers["efficiency_0p1"])),
        ("unweighting efficiency, 1 % overweight", _percent(numbers["efficiency_1"])),
        ("effective sample size", _percent(numbers["ess_fraction"])),
        ("points inside the cuts", _percent(numbers["cut_efficiency"])),
    ]
    rows += _two_stages(numbers)
    if numbers["n_events"]:
        rows += [
            ("accepted points, as generated", _percent(numbers["efficiency_generated"])),
            ("integral in overweight events", _percent(numbers["overweight_fraction"])),
        ]
    return rows


def _two_stages(numbers: Mapping[str, Any]) -> list[tuple[str, str]]:
    gain = numbers["two_stage"]
    return [] if gain is None else [("two stages", TwoStageGain(**gain).line())]


def summary(result: Mapping[str, Any], path: Path) -> list[tuple[str, str]]:
    """The result of a run in a few lines.

    >>> result = {
    ...     "integral": {"value": 1603.21, "error": 0.41, "unit": "pb", "trusted": True}
    ...     | {"n_points": 2048, "chi2_per_dof": 1.0},
    ...     "unweighting": {"efficiency_0p1": 0.25, "two_stage": None, "n_events": 0},
    ...     "sampler": {"name": "vegas", "choice": None}, "files": [], "seconds": {"training": 1.5}, "warnings": [],
    ... }
    >>> for name, text in summary(result, Path("run")):
    ...     name, text
    ('integral', '1603.2(4) pb   (2048 points, chi2/dof 1.00)')
    ('efficiency', '25 % at 0.1 % overweight')
    ('sampler', 'vegas')
    ('report', 'run/report.html')
    ('seconds', '1.5')
    """
    integral, numbers = result["integral"], result["unweighting"]
    points = f"{integral['n_points']} points"
    if integral["chi2_per_dof"] is not None:
        points += f", chi2/dof {integral['chi2_per_dof']:.2f}"
    rows = [
        ("integral", f"{integral_text(result)}   ({points})"),
        ("efficiency", f"{_percent(numbers['efficiency_0p1'])} at 0.1 % overweight"),
        ("sampler", str(result["sampler"]["name"])),
    ]
    if result["sampler"]["choice"] is not None:
        rows.append(("choice", Choice.of(result["sampler"]["choice"]).line()))
    rows += _two_stages(numbers)
    if numbers["n_events"]:
        overweight = _percent(numbers["overweight_fraction"])
        rows.append(("events", f"{numbers['n_events']}, overweight {overweight} of the integral"))
    if line := limits_line(result.get("limits", {})):
        rows.append(("limits", line))
    rows += [("", str(path / name)) for name in result["files"]]
    rows += [("report", str(path / "report.html")), ("seconds", f"{sum(result['seconds'].values()):.1f}")]
    return rows + [("warning", str(text)) for text in result["warnings"]]


def generation_summary(result: Mapping[str, Any], path: Path) -> list[tuple[str, str]]:
    """The result of `generate` in a few lines.

    >>> result = {
    ...     "n": 20, "part": 1, "parts": 1, "n_events": 20, "efficiency_generated": 0.25, "overweight_fraction": 0.0,
    ...     "integral": {"value": 5.01, "error": 0.02, "unit": "pb", "trusted": True},
    ...     "of_trials": {"value": 5.1, "error": 0.2},
    ...     "files": [], "warnings": [],
    ... }
    >>> generation_summary(result, Path("more"))[:3]
    [('events', '20'), ('accepted points', '25 %'), ('overweight', '0 % of the integral')]
    """
    share = "" if result["parts"] == 1 else f" of {result['n_events']}, job {result['part']} of {result['parts']}"
    rows = [("events", f"{result['n']}{share}"), *_generated(result)]
    rows += [("", str(path / name)) for name in result["files"]]
    return rows + [("warning", str(text)) for text in result["warnings"]]


def merge_summary(result: Mapping[str, Any], path: Path) -> list[tuple[str, str]]:
    """The result of `merge` in a few lines.

    >>> result = {
    ...     "n": 20, "jobs": 2, "shards": 4, "missing_shards": 0, "sum_of_weights": 20.0, "efficiency_generated": 0.25,
    ...     "integral": {"value": 5.01, "error": 0.02, "unit": "pb", "trusted": True},
    ...     "of_trials": {"value": 5.1, "error": 0.2},
    ...     "overweight_fraction": 0.0,
    ... }
    >>> for name, text in merge_summary(result, Path("all.h5")):
    ...     name, text
    ('events', '20 of 2 jobs')
    ('shards', '4')
    ('sum of weights', '20 in units of w_max')
    ('accepted points', '25 %')
    ('overweight', '0 % of the integral')
    ('integral', '5.010(20) pb')
    ('of all trials', '5.10(20) pb')
    ('', 'all.h5')
    """
    missing = f", {result['missing_shards']} missing" if result["missing_shards"] else ""
    return [
        ("events", f"{result['n']} of {result['jobs']} jobs"),
        ("shards", f"{result['shards']}{missing}"),
        ("sum of weights", f"{result['sum_of_weights']:.10g} in units of w_max"),
        *_generated(result),
        ("", str(path)),
    ]


def pack_summary(manifest: Mapping[str, Any], path: Path) -> list[tuple[str, str]]:
    """The manifest of a pack in a few lines.

    >>> manifest = {"files": {"run/card.toml": ""}, "process": None, "pdf": ["toy"], "outside": ["/data/table"]}
    >>> for name, text in pack_summary(manifest, Path("all.nispack")):
    ...     name, text
    ('files', '1')
    ('pdf', 'toy')
    ('warning', '/data/table was read and is not in the pack: put it beside the file of the process')
    ('', 'all.nispack')
    """
    rows = [("files", str(len(manifest["files"])))]
    if manifest["process"] is not None:
        rows.append(("process", manifest["process"]))
    if manifest["pdf"]:
        rows.append(("pdf", ", ".join(manifest["pdf"])))
    lie = "was read and is not in the pack: put it beside the file of the process"
    return [*rows, *(("warning", f"{place} {lie}") for place in manifest["outside"]), ("", str(path))]


def _generated(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Efficiency, overweight and integrals of generated events."""
    rows = [
        ("accepted points", _percent(result["efficiency_generated"])),
        ("overweight", f"{_percent(result['overweight_fraction'])} of the integral"),
        ("integral", integral_text(result)),
    ]
    trials, unit = result["of_trials"], result["integral"]["unit"]
    if trials["value"] is not None:
        rows.append(("of all trials", with_unit(trials["value"], trials["error"], unit)))
    return rows
