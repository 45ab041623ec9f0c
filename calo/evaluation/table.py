"""The table of an evaluation: each figure of merit of each sample, as text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from typing import Any

from nisampler.calo.evaluation.bands import VOXELS
from nisampler.calo.evaluation.conditions import condition_rows
from nisampler.calo.evaluation.energies import gev, worst

Row = tuple[str, list[str]]
Show = Callable[[Mapping[str, Any]], str]
"""From what is known of a sample to a cell; a KeyError where it is not known."""

_UNKNOWN = "–"


def _number(*path: str, form: str = ".4f") -> Show:
    """The number at a path, in a format."""
    return lambda sample: f"{reduce(lambda found, key: found[key], path, sample):{form}}"


def _thousandths(name: str) -> Show:
    """A value with its error, times 1000."""
    return lambda sample: f"{1e3 * sample[name]['value']:.4g} ± {1e3 * sample[name]['error']:.2g}"


def mean_of(found: Mapping[str, Any], figure: str) -> str:
    """The mean of a figure over trainings, with its spread where there are several.

    >>> mean_of({"auc": 0.5, "auc_std": 0.01}, "auc")
    '0.5000 ± 0.0100'
    """
    spread = found[f"{figure}_std"]
    return f"{found[figure]:.4f}" + ("" if spread is None else f" ± {spread:.4f}")


_SEPARATIONS = {
    "response": "E_tot/E_inc",
    "total": "E_tot",
    "energy": "layer energies, mean over layers",
    "eta": "centres in eta (x)",
    "phi": "centres in phi (y)",
    "eta_width": "widths in eta (x)",
    "phi_width": "widths in phi (y)",
    "r": "centres in r",
    "r_width": "widths in r",
    "sparsity": "sparsity",
}


_POINTS = {
    "number": ("points of a shower over the reference", ".4f"),
    "number_width": ("width of the number of points over the reference", ".4f"),
    "layer_numbers": ("points of a layer, largest |deviation|", ".4f"),
    "layer_energies": ("energy of a layer, largest |deviation|", ".4f"),
    "radial_profile": ("radial profile of the energy, largest |deviation|", ".4f"),
    "spectrum": ("energies of points, largest |deviation|", ".4f"),
    "centre_width": ("width of the centre of gravity over the reference", ".4f"),
    "beside_points": ("share of points beside all cells", ".2g"),
    "beside_energy": ("share of their energy", ".2g"),
}


def _worst(sample: Mapping[str, Any], name: str) -> str:
    """The ratio that is furthest from one, and where."""
    row = worst(sample["energies"], name)
    return (
        _UNKNOWN
        if row is None
        else (f"{row[f'{name}_ratio']:.3f} ± {row[f'{name}_ratio_error']:.2g} at {gev(row['energy'])}")
    )


_FIGURES: dict[str, Show] = {
    "FPD × 1000": _thousandths("fpd"),
    "KPD × 1000": _thousandths("kpd"),
    "mean of E_tot/E_inc over the reference": _number("summary", "response_mean_ratio"),
    "width of E_tot/E_inc over the reference": _number("summary", "response_width_ratio"),
    "occupancy over the reference": _number("summary", "occupancy_ratio"),
    **{f"separation {label}": _number("separation", name, "mean", form=".2g") for name, label in _SEPARATIONS.items()},
    "separation voxel energies": _number("histograms", VOXELS, "separation", form=".2g"),
    "rank correlations of layers, mean |difference|": _number("correlations", "mean_difference"),
    "linearity over the reference, worst energy": lambda sample: _worst(sample, "linearity"),
    "resolution over the reference, worst energy": lambda sample: _worst(sample, "resolution"),
    "layers with energy, largest |difference| of shares": _number("filled", "largest_difference"),
    "copies of reference showers": lambda sample: f"{sample['copies']['copies']} of {sample['copies']['showers']}",
    **{key: _number("neighbour_metrics", key) for key in ("precision", "recall", "density", "coverage")},
    **{label: _number("points", name, form=form) for name, (label, form) in _POINTS.items()},
    "spread over draws of the weights, in counting errors": lambda sample: (
        f"{sample['band']['over_counting']:.2f} ({sample['band']['draws']} draws)"
    ),
}
"""What is the same in every evaluation, in the order of the table."""


def table_rows(result: Mapping[str, Any]) -> list[Row]:
    """Name of a figure of merit, and its value for each sample; what no sample has is left out.

    Parameters
    ----------
    result
        The content of ``evaluation.json``.

    Examples
    --------
    >>> sample = {"kind": "floor", "showers": 1000, "summary": {"occupancy_ratio": 1.0}}
    >>> table_rows({"samples": {"model": sample}, "options": {"classifiers": []}})
    [('showers', ['1,000']), ('occupancy over the reference', ['1.0000'])]
    """
    samples = [{"name": name, **sample} for name, sample in result["samples"].items()]
    figures = {
        "showers": _number("showers", form=","),
        **dict(_classifier_figures(result)),
        **_FIGURES,
        **dict(_multiclass_figure(result)),
        **dict(_timing_figures(result)),
    }
    rows = [(label, [_cell(show, sample) for sample in samples]) for label, show in figures.items()]
    return [(label, cells) for label, cells in rows if set(cells) != {_UNKNOWN}]


def energy_rows(result: Mapping[str, Any]) -> list[Row]:
    """Linearity, resolution and separation power of E_tot/E_inc at each incident energy, of each sample.

    Cells have linearity and resolution over those of the reference, which stand in the label.

    Examples
    --------
    >>> row = {"energy": 1e3, "separation": 0.01, "linearity_reference": 0.9, "resolution_reference": 0.1}
    >>> row |= {f"{name}_ratio{end}": 0.5 for name in ("linearity", "resolution") for end in ("", "_error")}
    >>> energy_rows({"samples": {"model": {"energies": [row]}}})[0]
    ('linearity at 1 GeV (reference 0.9000), ratio', ['0.5000 ± 0.5'])
    """
    samples = result["samples"].values()
    energies = sorted({row["energy"] for sample in samples for row in sample["energies"]})
    rows = []
    for name in ("linearity", "resolution", "separation"):
        for energy in energies:
            found: list[Mapping[str, Any]] = [
                next((row for row in s["energies"] if row["energy"] == energy), {}) for s in samples
            ]
            label = f"{name} at {gev(energy)}"
            if name != "separation":
                known = next(row for row in found if row)
                label += f" (reference {known[f'{name}_reference']:.4f}), ratio"
            rows.append((label, [_at_energy(row, name) for row in found]))
    return rows


def _at_energy(row: Mapping[str, float], name: str) -> str:
    if name == "separation":
        return f"{row[name]:.2g}" if row else _UNKNOWN
    if f"{name}_ratio" not in row:
        return _UNKNOWN
    return f"{row[f'{name}_ratio']:.4f} ± {row[f'{name}_ratio_error']:.2g}"


def _cell(show: Show, sample: Mapping[str, Any]) -> str:
    try:
        return show(sample)
    except KeyError:
        return _UNKNOWN


def _classifier_figures(result: Mapping[str, Any]) -> Iterator[tuple[str, Show]]:
    """Areas under the ROC curve, their excess over the floor, and divergences."""
    for name in result["options"]["classifiers"]:
        versions = [sample["classifiers"][name]["version"] for sample in result["samples"].values()]
        floor = next(s["classifiers"][name]["auc"] for s in result["samples"].values() if s["kind"] == "floor")
        yield f"AUC {name} [{versions[0]}]", _mean(name, "auc")
        yield f"AUC {name}, excess over the floor", _excess(name, floor)
        yield f"JSD {name} [bit]", _mean(name, "jsd")


def _mean(name: str, figure: str) -> Show:
    return lambda sample: mean_of(sample["classifiers"][name], figure)


def _excess(name: str, floor: float) -> Show:
    return lambda sample: f"{sample['classifiers'][name]['auc'] - floor:+.4f}"


def _multiclass_figure(result: Mapping[str, Any]) -> Iterator[tuple[str, Show]]:
    found = result.get("multiclass")
    if found is not None:
        posterior = dict(zip(found["names"], found["log_posterior"], strict=True))
        label = f"log-posterior {found['classifier']} [{found['version']}], random {found['random']:.3f}"
        yield label, lambda sample: f"{posterior[sample['name']]:.3f}"


def _timing_figures(result: Mapping[str, Any]) -> Iterator[tuple[str, Show]]:
    """Milliseconds for each shower and parameters, of the samples that were timed."""
    timed = [sample["timing"] for sample in result["samples"].values() if "timing" in sample]
    rows = [row for timing in timed for row in timing.get("rows", ())]
    for device, batch in dict.fromkeys((row["device"], row["batch"]) for row in rows):
        yield f"ms/shower, {device}, batch {batch:,}", _milliseconds(device, batch)
    yield "parameters for generation", _number("timing", "parameters_generation", form=",")


def _milliseconds(device: str, batch: int) -> Show:
    def show(sample: Mapping[str, Any]) -> str:
        rows = {(row["device"], row["batch"]): row["generate"] for row in sample["timing"].get("rows", ())}
        found = rows[device, batch]
        return _UNKNOWN if found is None else f"{found:.4g}"

    return show


def _table(result: Mapping[str, Any], rows: list[Row]) -> list[str]:
    """Lines of a table in Markdown."""
    head = ("", list(result["samples"]))
    cells = [[text.replace("|", "\\|") for text in (label, *values)] for label, values in (head, *rows)]
    cells.insert(1, ["---", *("---:" for _ in result["samples"])])
    return [f"| {' | '.join(row)} |" for row in cells]


def markdown(result: Mapping[str, Any]) -> str:
    """The table as Markdown, with the warnings.

    Parameters
    ----------
    result
        The content of ``evaluation.json``.

    Examples
    --------
    >>> result = {"samples": {"model": {"showers": 9}}, "options": {"classifiers": []}, "warnings": ["few"]}
    >>> text = markdown(result | {"geometry": {"name": "toy"}, "reference": {"showers": 9}})
    >>> text.splitlines()[-5:]
    ['| showers | 9 |', '', 'Warnings:', '', '- few']
    """
    lines = _table(result, table_rows(result))
    if any("energies" in sample for sample in result["samples"].values()):
        lines += ["", "E_tot/E_inc at each incident energy:", "", *_table(result, energy_rows(result))]
    if rows := condition_rows(result):
        lines += ["", "In bins of the conditions:", "", *_table(result, rows)]
    notes = [f"- {text}" for text in result["warnings"]]
    title = f"{result['geometry']['name']}, {result['reference']['showers']:,} reference showers"
    return "\n".join([title, "", *lines, *(["", "Warnings:", ""] if notes else []), *notes]) + "\n"
