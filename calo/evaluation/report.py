"""The report of an evaluation: a table in Markdown, figures, and one self-contained page."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from nisampler.base.storage import atomic_write
from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.evaluation import comparison_figures, figures, shower_figures
from nisampler.calo.evaluation.bands import VOXELS, Band
from nisampler.calo.evaluation.classifiers import classifier_config
from nisampler.calo.evaluation.measure import Measured, layer_separations
from nisampler.calo.evaluation.published import PUBLISHED, Speed
from nisampler.calo.evaluation.quantities import FAMILIES, quantities
from nisampler.errors import StorageError
from nisampler.ui import page as report_page
from nisampler.ui import plots

Row = tuple[str, list[str]]

_NOTABLE = 1e-3


@dataclass(frozen=True)
class ReportData:
    """All that a report shows.

    Attributes
    ----------
    result
        The content of ``evaluation.json``.
    reference, samples
        Features and histograms.
    geometry
        Of all of them.
    training
        Records by part of the model, see `figures.training`.
    layers
        Histograms are drawn of at most so many.
    style
        Of the figures, from `nisampler.ui.plots.style_sheet`.
    """

    result: Mapping[str, Any]
    reference: Measured
    samples: tuple[Measured, ...]
    geometry: Geometry
    training: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    layers: int = 5
    style: plots.Sheet = field(default_factory=lambda: plots.PLAIN)


@dataclass(frozen=True)
class _Picture:
    """A figure with its name and caption; a heading before the first of a section."""

    name: str
    caption: str
    figure: Figure
    heading: str = ""
    wide: bool = False


def write_report(folder: Path, data: ReportData) -> None:
    """Write ``report.html`` and the figures of it as SVG files.

    Raises
    ------
    StorageError
        If the folder cannot be written.
    """
    target = folder / "figures"
    try:
        target.mkdir(exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make {target}: {error.strerror or error}") from error
    shown = []
    for picture in _pictures(data):
        uri = plots.data_uri(picture.figure, data.style)
        with atomic_write(target / f"{picture.name}.svg") as handle:
            handle.write(base64.b64decode(uri.partition(",")[2]))
        if picture.heading:
            shown.append(f'<h3 style="grid-column: 1 / -1; margin: 14px 0 0">{escape(picture.heading)}</h3>')
        body = report_page.plot(uri, picture.name, picture.caption)
        shown.append(f'<div style="grid-column: 1 / -1">{body}</div>' if picture.wide else body)
    with atomic_write(folder / "report.html", "w") as handle:
        handle.write(_page(data, shown))


def _page(data: ReportData, shown: Sequence[str]) -> str:
    result = data.result
    size, voxels = result["reference"]["showers"], result["geometry"]["voxels"]
    names = ", ".join(name for name, sample in result["samples"].items() if sample["kind"] == "candidate")
    return report_page.page(
        title=f"{result['geometry']['name']}: {names or 'reference against itself'}",
        subtitle=f"{size:,} reference showers of {voxels:,} voxels · seed {result['options']['seed']} · "
        f"nisampler {result['versions']['nisampler']}",
        cards=_cards(result),
        warning_box=report_page.warnings(result["warnings"]),
        run_plots=shown,
        distributions=(),
        tables=[
            _wide_table("All samples against the first half of the reference", result),
            report_page.table("Samples", [(name, sample["file"]) for name, sample in result["samples"].items()]),
            report_page.table("Versions", [(name, str(text)) for name, text in result["versions"].items()]),
        ],
    )


def _cards(result: Mapping[str, Any]) -> list[str]:
    """A card for each candidate and classifier, and one for its response."""
    samples = result["samples"]
    cards = []
    for name, sample in samples.items():
        if sample["kind"] != "candidate":
            continue
        for classifier, found in sample["classifiers"].items():
            others = [
                f"{kind} {other['classifiers'][classifier]['auc']:.3f}"
                for kind in ("floor", "control")
                for other in samples.values()
                if other["kind"] == kind
            ]
            count = len(found["trainings"])
            note = f"{found['version']}, {count} training{'s' if count > 1 else ''}; {', '.join(others)}"
            cards.append(report_page.card(f"AUC {classifier}, {name}", _mean(found, "auc"), note))
        summary = sample["summary"]
        note = f"width × {summary['response_width_ratio']:.3f}, occupancy × {summary['occupancy_ratio']:.3f}"
        value = f"× {summary['response_mean_ratio']:.4f}"
        cards.append(report_page.card(f"mean E_tot/E_inc, {name}", value, f"of the reference; {note}"))
    return cards


def _mean(found: Mapping[str, Any], figure: str) -> str:
    spread = found[f"{figure}_std"]
    return f"{found[figure]:.4f}" + ("" if spread is None else f" ± {spread:.4f}")


def table_rows(result: Mapping[str, Any]) -> list[Row]:
    """Name of a figure of merit, and its value for each sample."""
    samples = list(result["samples"].values())
    rows: list[Row] = [("showers", [f"{sample['showers']:,}" for sample in samples])]
    for name in result["options"]["classifiers"]:
        found = [sample["classifiers"][name] for sample in samples]
        version = found[0]["version"]
        rows.append((f"AUC {name} [{version}]", [_mean(item, "auc") for item in found]))
        floor = [item["auc"] for item, sample in zip(found, samples, strict=True) if sample["kind"] == "floor"]
        rows.append((f"AUC {name}, excess over the floor", [f"{item['auc'] - floor[0]:+.4f}" for item in found]))
        rows.append((f"JSD {name} [bit]", [_mean(item, "jsd") for item in found]))
    for key in ("fpd", "kpd"):
        if result["options"]["distances"]:
            shown = [f"{1e3 * sample[key]['value']:.4g} ± {1e3 * sample[key]['error']:.2g}" for sample in samples]
            rows.append((f"{key.upper()} × 1000", shown))
    for key, label in (
        ("response_mean_ratio", "mean of E_tot/E_inc over the reference"),
        ("response_width_ratio", "width of E_tot/E_inc over the reference"),
        ("occupancy_ratio", "occupancy over the reference"),
    ):
        rows.append((label, [f"{sample['summary'][key]:.4f}" for sample in samples]))
    for name, label in _SEPARATIONS.items():
        if name in samples[0]["separation"]:
            rows.append((f"separation {label}", [f"{sample['separation'][name]['mean']:.2g}" for sample in samples]))
    voxels = [f"{sample['histograms'][VOXELS]['separation']:.2g}" for sample in samples]
    rows.append(("separation voxel energies", voxels))
    matrix = [f"{sample['correlations']['mean_difference']:.4f}" for sample in samples]
    rows.append(("layer correlations, mean |difference|", matrix))
    rows.append(
        ("distance to the nearest reference shower, median", [f"{s['neighbours']['median']:.3f}" for s in samples])
    )
    if result["options"]["neighbour_metrics"]:
        for key in ("precision", "recall", "density", "coverage"):
            rows.append((key, [f"{sample['neighbour_metrics'][key]:.4f}" for sample in samples]))
    if any("band" in sample for sample in samples):
        shown = [f"{s['band']['over_counting']:.2f} ({s['band']['draws']} draws)" if "band" in s else "–"
                 for s in samples]  # fmt: skip
        rows.append(("spread over draws of the weights, in counting errors", shown))
    if "multiclass" in result:
        found = result["multiclass"]
        posterior = dict(zip(found["names"], found["log_posterior"], strict=True))
        label = f"log-posterior {found['classifier']} [{found['version']}], random {found['random']:.3f}"
        rows.append((label, [f"{posterior[name]:.3f}" if name in posterior else "–" for name in result["samples"]]))
    return rows + _timing_rows(samples)


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


def _timing_rows(samples: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Milliseconds for each shower and parameters, of the samples that were timed."""
    timed = [
        {(row["device"], row["batch"]): row["generate"] for row in sample.get("timing", {}).get("rows", ())}
        for sample in samples
    ]
    rows: list[Row] = []
    for device, batch in dict.fromkeys(key for times in timed for key in times):
        found = [times.get((device, batch)) for times in timed]
        shown = ["–" if value is None else f"{value:.4g}" for value in found]
        rows.append((f"ms/shower, {device}, batch {batch:,}", shown))
    if any("timing" in sample for sample in samples):
        counts = [sample.get("timing", {}).get("parameters_generation") for sample in samples]
        rows.append(("parameters for generation", ["–" if count is None else f"{count:,}" for count in counts]))
    return rows


def markdown(result: Mapping[str, Any]) -> str:
    """The table as Markdown."""
    head = ("", list(result["samples"]))
    cells = [[text.replace("|", "\\|") for text in (label, *values)] for label, values in (head, *table_rows(result))]
    cells.insert(1, ["---", *("---:" for _ in result["samples"])])
    lines = [f"| {' | '.join(row)} |" for row in cells]
    notes = [f"- {text}" for text in result["warnings"]]
    title = f"{result['geometry']['name']}, {result['reference']['showers']:,} reference showers"
    return "\n".join([title, "", *lines, *(["", "Warnings:", ""] if notes else []), *notes]) + "\n"


def _wide_table(caption: str, result: Mapping[str, Any]) -> str:
    rows: list[Row] = [("", list(result["samples"])), *table_rows(result)]
    body = "".join(
        f"<tr><td>{escape(label)}</td>{''.join(f'<td>{escape(value)}</td>' for value in values)}</tr>"
        for label, values in rows
    )
    inner = f"<table><caption>{escape(caption)}</caption>{body}</table>"
    return f'<div class="table" style="grid-column: 1 / -1">{inner}</div>'


def _pictures(data: ReportData) -> Iterator[_Picture]:
    yield from _overview(data)
    yield from _shower_pictures(data)
    yield from _histograms(data)
    if data.training:
        figure = figures.training(data.training, data.style)
        yield _Picture("training", "Mean loss of every epoch.", figure, "Training")


def _overview(data: ReportData) -> Iterator[_Picture]:
    style, geometry, reference = data.style, data.geometry, data.reference
    features = {sample.name: sample.features for sample in data.samples}
    trained = {
        name: {
            sample: [training["auc"] for training in found["classifiers"][name]["trainings"]]
            for sample, found in data.result["samples"].items()
        }
        for name in data.result["options"]["classifiers"]
    }
    heading = "Scores"
    if trained:
        caption = "Classifiers between a sample and the reference; a point for each training, a bar at their mean."
        yield _Picture("scores", caption, comparison_figures.scores(trained, style), heading)
        heading = ""
    for picture in _comparisons(data):
        yield replace(picture, heading=heading)
        heading = ""
    tables = {sample.name: layer_separations(sample, reference, geometry) for sample in data.samples}
    yield _Picture(
        "separations",
        "Separation power of every layer and family of features; white where a layer has none.",
        figures.separations(tables, geometry, style),
        heading,
    )
    response = figures.response(reference.features, features, geometry.incident, style)
    yield _Picture("response_energy", "Response against the incident energy.", response)
    profile = figures.layer_profile(reference.features, features, geometry, style)
    yield _Picture("layer_profile", "Mean share of the incident energy in each layer.", profile)
    matrices = {sample.name: sample.correlations for sample in data.samples if sample.kind != "control"}
    shown = figures.correlations(reference.correlations, matrices, geometry, style)
    yield _Picture("correlations", "Pearson correlations of the layer energies.", shown, wide=True)


def _comparisons(data: ReportData) -> Iterator[_Picture]:
    """AUC against time, and the posteriors of a multiclass classifier, where they were asked for."""
    result, samples = data.result, data.result["samples"]
    names = result["options"]["classifiers"]
    timed = {name: _milliseconds(sample) for name, sample in samples.items() if "timing" in sample}
    if names and any(timed.values()):
        classifier = next((name for name in names if not classifier_config(name).inputs.startswith("high")), names[0])
        speeds = {
            name: Speed(found["auc"], found["auc_std"], timed.get(name, {}))
            for name, found in ((name, sample["classifiers"][classifier]) for name, sample in samples.items())
        }
        floor = next(speeds[name] for name, sample in samples.items() if sample["kind"] == "floor")
        models = {name: speeds[name] for name, times in timed.items() if times}
        published = PUBLISHED.get(result["geometry"]["name"], {})
        figure = comparison_figures.auc_time(models, floor, classifier, published, data.style)
        caption = f"Fidelity against speed: {'; '.join(f'{name} on {_machine(samples[name])}' for name in models)}."
        if published:
            caption += (
                " Grey: models of the CaloChallenge on its CPUs, of Geant4 showers and another classifier (2410.21611)."
            )
        yield _Picture("auc_time", caption, figure)
    if "multiclass" in result:
        found = result["multiclass"]
        figure = comparison_figures.posteriors(found["names"], found["log_posterior"], found["confusion"], data.style)
        caption = (
            f"Mean log-posterior of {found['classifier']}, trained between all candidates: {found['random']:.2f} if "
            f"they are all alike. In the first row the highest is closest to the reference; the others are the test "
            f"showers of each candidate, {100 * found['accuracy']:.0f} % of which the classifier recognises."
        )
        yield _Picture("multiclass", caption, figure)


def _milliseconds(sample: Mapping[str, Any]) -> dict[tuple[str, int], float]:
    """Of each shower, by device and batch size, where the model ran."""
    rows = sample["timing"]["rows"]
    return {(row["device"], row["batch"]): row["generate"] for row in rows if row["generate"] is not None}


def _machine(sample: Mapping[str, Any]) -> str:
    """Where a sample was timed."""
    machine = sample["timing"].get("machine", {})
    threads = f"{machine['threads']} thread(s) of " if "threads" in machine else ""
    return threads + ", ".join([str(machine.get("processor", "a CPU")), *machine.get("gpu", {}).values()])


def _shower_pictures(data: ReportData) -> Iterator[_Picture]:
    heading = "Showers"
    for number, sample in enumerate(item for item in data.samples if item.kind == "candidate"):
        figure = shower_figures.average_showers(
            data.reference.mean, sample.mean, sample.name, data.geometry, data.style
        )
        caption = f"The average shower of the reference and of {sample.name}. Unequal rings are drawn equally wide."
        yield _Picture(f"average_{number}", caption, figure, heading, wide=True)
        caption = (
            f"Showers of {sample.name}, and below each the reference shower of about the same incident energy that is "
            f"closest in the logarithm of the voxels."
        )
        figure = shower_figures.pairs(sample.pairs, data.geometry, data.style)
        yield _Picture(f"neighbours_{number}", caption, figure, wide=True)
        heading = ""


def _histograms(data: ReportData) -> Iterator[_Picture]:
    """All quantities of some of the layers; every layer is in ``evaluation.json``."""
    layers = shower_figures.chosen_layers(data.geometry, data.layers)
    known = quantities(data.reference.features, data.geometry)
    order = ("response", "total", *FAMILIES)
    names = [item.name for item in sorted(known, key=lambda item: order.index(item.family))
             if item.layer is None or item.layer in layers]  # fmt: skip
    spectra = {sample.name: sample.spectrum for sample in data.samples}
    figure = figures.histogram(data.reference.spectrum, spectra, data.style, _bands(VOXELS, data))
    caption = _caption(VOXELS, data)
    draws = {name: found["band"]["draws"] for name, found in data.result["samples"].items() if "band" in found}
    if draws:
        counted = ", ".join(f"{number} of {name}" for name, number in draws.items())
        caption += f" Bands, here and below: standard deviation between draws of the weights, {counted}."
    yield _Picture(VOXELS, caption, figure, "Histograms")
    for name in names:
        counts = {sample.name: sample.counts[name] for sample in data.samples}
        figure = figures.histogram(data.reference.counts[name], counts, data.style, _bands(name, data))
        yield _Picture(name, _caption(name, data), figure)


def _bands(name: str, data: ReportData) -> dict[str, Band]:
    return {sample.name: sample.bands[name] for sample in data.samples if name in sample.bands}


def _caption(name: str, data: ReportData) -> str:
    """Separation power of each sample, and what its histogram leaves out where that is notable."""
    parts = []
    for sample, found in data.result["samples"].items():
        item = found["histograms"][name]
        text = f"{sample} {item['separation']:.2g}"
        if max(item["outside"], item["outside_reference"]) > _NOTABLE:
            text += f" ({100 * item['outside']:.1f} % outside, reference {100 * item['outside_reference']:.1f} %)"
        parts.append(text)
    return f"Separation power: {'; '.join(parts)}."
