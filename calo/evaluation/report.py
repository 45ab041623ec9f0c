"""The report of an evaluation: figures in sections, headline numbers and a table, on one self-contained page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from nisampler.base.storage import atomic_write, make_folder
from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.evaluation import comparison_figures, figures, point_figures, shower_figures
from nisampler.calo.evaluation.bands import VOXELS, Band
from nisampler.calo.evaluation.classifiers import classifier_config
from nisampler.calo.evaluation.conditions import condition_rows
from nisampler.calo.evaluation.measure import Measured, layer_separations
from nisampler.calo.evaluation.points import PointSamples
from nisampler.calo.evaluation.published import PUBLISHED, Speed
from nisampler.calo.evaluation.quantities import FAMILIES, quantities
from nisampler.calo.evaluation.table import energy_rows, mean_of, table_rows
from nisampler.ui import plots
from nisampler.ui.page import Card, Page, Picture, Table

_NOTABLE = 1e-3
_MOST_CURVES = 20
"""Of candidates in the histograms of a family: with many candidates fewer layers are drawn."""


@dataclass(frozen=True)
class EvaluationReport:
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
    points
        Point clouds, where they are compared.

    Examples
    --------
    >>> import numpy as np
    >>> from nisampler.calo.data.showers import Showers
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.evaluation.measure import measure
    >>> showers, toy = Showers(np.full(2, 1e3), np.ones((2, 240), dtype=np.float32)), geometry("toy")
    >>> data = EvaluationReport({}, measure("reference", "reference", "a.h5", showers, toy, None, showers), (), toy)
    >>> data.picture("empty", "Nothing.", Figure()).name
    'empty'
    """

    result: Mapping[str, Any]
    reference: Measured
    samples: tuple[Measured, ...]
    geometry: Geometry
    training: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    layers: int = 5
    style: plots.Sheet = field(default_factory=lambda: plots.PLAIN)
    points: PointSamples = field(default_factory=lambda: PointSamples(None, {}))

    @property
    def shown(self) -> tuple[Measured, ...]:
        """The samples in figures of physics: all but the control, which would ruin their axes."""
        return tuple(sample for sample in self.samples if sample.kind != "control")

    def picture(self, name: str, caption: str, figure: Figure, wide: bool = False) -> Picture:
        """A figure for the page, drawn in the style of the report."""
        return Picture(name, caption, plots.svg(figure, self.style), wide)

    def write(self, folder: Path) -> None:
        """Write ``report.html`` and the figures of it as SVG files.

        Raises
        ------
        StorageError
            If the folder cannot be written.
        """
        target = make_folder(folder / "figures")
        page = _page(self)
        for picture in page.pictures:
            with atomic_write(target / f"{picture.name}.svg") as handle:
                handle.write(picture.svg)
        with atomic_write(folder / "report.html", "w") as handle:
            handle.write(page.html())


def _page(data: EvaluationReport) -> Page:
    result = data.result
    size, voxels = result["reference"]["showers"], result["geometry"]["voxels"]
    names = ", ".join(name for name, sample in result["samples"].items() if sample["kind"] == "candidate")
    every = [["", *result["samples"]], *([label, *cells] for label, cells in table_rows(result))]
    by_condition = [[label, *cells] for label, cells in condition_rows(result)]
    energies = ([label, *cells] for label, cells in energy_rows(result))
    return Page(
        title=f"{result['geometry']['name']}: {names or 'reference against itself'}",
        subtitle=f"{size:,} reference showers of {voxels:,} voxels · seed {result['options']['seed']} · "
        f"nisampler {result['versions']['nisampler']}",
        cards=list(_cards(result)),
        tables=[
            Table("All samples against the first half of the reference", every),
            Table("E_tot/E_inc at each incident energy", [["", *result["samples"]], *energies]),
            *([Table("In bins of the conditions", [["", *result["samples"]], *by_condition])] if by_condition else []),
            Table("Samples", [(name, sample["file"]) for name, sample in result["samples"].items()]),
            Table("Versions", [(name, str(text)) for name, text in result["versions"].items()]),
        ],
        warnings=result["warnings"],
        sections={
            "Scores": list(_scores(data)),
            "Showers": list(_shower_pictures(data)),
            **({"Points": list(_point_pictures(data))} if data.points.reference is not None else {}),
            "Histograms": list(_histograms(data)),
            "Training": list(_training(data)),
        },
    )


def _cards(result: Mapping[str, Any]) -> Iterator[Card]:
    """A card for each candidate and classifier, and one for its response."""
    samples = result["samples"]
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
            yield Card(f"AUC {classifier}, {name}", mean_of(found, "auc"), note)
        summary = sample["summary"]
        note = f"width × {summary['response_width_ratio']:.3f}, occupancy × {summary['occupancy_ratio']:.3f}"
        yield Card(f"mean E_tot/E_inc, {name}", f"× {summary['response_mean_ratio']:.4f}", f"of the reference; {note}")


def _training(data: EvaluationReport) -> Iterator[Picture]:
    if data.training:
        yield data.picture("training", "Mean loss of every epoch.", figures.training(data.training, data.style))


def _scores(data: EvaluationReport) -> Iterator[Picture]:
    style, geometry, reference = data.style, data.geometry, data.reference
    features = {sample.name: sample.features for sample in data.shown}
    trained = {
        name: {
            sample: [training["auc"] for training in found["classifiers"][name]["trainings"]]
            for sample, found in data.result["samples"].items()
        }
        for name in data.result["options"]["classifiers"]
    }
    if trained:
        caption = "Classifiers between a sample and the reference; a point for each training, a bar at their mean."
        yield data.picture("scores", caption, comparison_figures.scores(trained, style))
    yield from _comparisons(data)
    tables = {sample.name: layer_separations(sample, reference, geometry) for sample in data.shown}
    yield data.picture(
        "separations",
        "Separation power of every layer and family of features; white where a layer has none.",
        figures.separations(tables, geometry, style),
    )
    response = figures.response(reference.features, features, geometry.incident, style)
    yield data.picture("response_energy", "Linearity and resolution against the incident energy.", response)
    profile = figures.layer_profile(reference.features, features, geometry, style)
    yield data.picture("layer_profile", "Mean share of the incident energy in each layer.", profile)
    caption = "Share of the showers that have energy in a layer; histograms of a layer show these showers alone."
    occupancy = figures.layer_occupancy(reference.features, features, geometry, style)
    yield data.picture("layer_occupancy", caption, occupancy)
    matrices = {sample.name: sample.correlations for sample in data.shown}
    shown = figures.correlations(reference.correlations, matrices, geometry, style)
    yield data.picture("correlations", "Rank correlations (Spearman) of the layer energies.", shown, wide=True)


def _comparisons(data: EvaluationReport) -> Iterator[Picture]:
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
        yield data.picture("auc_time", caption, figure)
    if "multiclass" in result:
        found = result["multiclass"]
        figure = comparison_figures.posteriors(found["names"], found["log_posterior"], found["confusion"], data.style)
        caption = (
            f"Mean log-posterior of {found['classifier']}, trained between all candidates: {found['random']:.2f} if "
            f"they are all alike. In the first row the highest is closest to the reference; the others are the test "
            f"showers of each candidate, {100 * found['accuracy']:.0f} % of which the classifier recognises."
        )
        yield data.picture("multiclass", caption, figure)


def _milliseconds(sample: Mapping[str, Any]) -> dict[tuple[str, int], float]:
    """Of each shower, by device and batch size, where the model ran."""
    rows = sample["timing"]["rows"]
    return {(row["device"], row["batch"]): row["generate"] for row in rows if row["generate"] is not None}


def _machine(sample: Mapping[str, Any]) -> str:
    """Where a sample was timed."""
    machine = sample["timing"].get("machine", {})
    threads = f"{machine['threads']} thread(s) of " if "threads" in machine else ""
    return threads + ", ".join([str(machine.get("processor", "a CPU")), *machine.get("gpu", {}).values()])


def _shower_pictures(data: EvaluationReport) -> Iterator[Picture]:
    for number, sample in enumerate(item for item in data.samples if item.kind == "candidate"):
        figure = shower_figures.average_showers(
            data.reference.mean, sample.mean, sample.name, data.geometry, data.style
        )
        caption = f"The average shower of the reference and of {sample.name}. Unequal rings are drawn equally wide."
        yield data.picture(f"average_{number}", caption, figure, wide=True)
        caption = (
            f"A look for copies: showers of {sample.name}, and below each the reference shower of about the same "
            f"incident energy that is closest in the logarithm of the voxels; copies are equal to it."
        )
        figure = shower_figures.pairs(sample.pairs, data.geometry, data.style)
        yield data.picture(f"copies_{number}", caption, figure, wide=True)


def _point_pictures(data: EvaluationReport) -> Iterator[Picture]:
    points = data.points
    if points.reference is None:
        return
    own = {sample.name for sample in data.samples if sample.kind == "candidate"}
    shown = {"reference": points.reference.clouds}
    shown |= {name: found.clouds for name, found in points.samples.items() if name in own}
    caption = "A shower of each sample, of about the same incident energy: along the axis, and from the side."
    yield data.picture("clouds", caption, point_figures.clouds(shown, data.style), wide=True)
    caption = "Numbers of points, where they are, and their energies, before they are projected to cells."
    figure = point_figures.distributions(points.reference, points.samples, data.style)
    yield data.picture("points", caption, figure, wide=True)


def _histograms(data: EvaluationReport) -> Iterator[Picture]:
    """All quantities of some of the layers; every layer is in ``evaluation.json``."""
    models = sum(sample.kind == "candidate" for sample in data.shown)
    most = min(data.layers, max(2, _MOST_CURVES // max(models, 1)))
    layers = shower_figures.chosen_layers(data.geometry, most)
    known = quantities(data.reference.features, data.geometry)
    order = ("response", "total", *FAMILIES)
    names = [item.name for item in sorted(known, key=lambda item: order.index(item.family))
             if item.layer is None or item.layer in layers]  # fmt: skip
    spectra = {sample.name: sample.spectrum for sample in data.shown}
    style = None if data.style == plots.PLAIN else data.style
    figure = figures.histogram(data.reference.spectrum, spectra, style, _bands(VOXELS, data))
    caption = _caption(VOXELS, data)
    draws = {name: found["band"]["draws"] for name, found in data.result["samples"].items() if "band" in found}
    if draws:
        counted = ", ".join(f"{number} of {name}" for name, number in draws.items())
        caption += f" Bands, here and below: standard deviation between draws of the weights, {counted}."
    yield data.picture(VOXELS, caption, figure)
    for name in names:
        # bands are those of all showers
        whole = bool(_bands(name, data))
        reference, *others = (item.counts if whole else item.drawn for item in (data.reference, *data.shown))
        counts = {sample.name: found[name] for sample, found in zip(data.shown, others, strict=True)}
        figure = figures.histogram(reference[name], counts, style, _bands(name, data))
        yield data.picture(name, _caption(name, data), figure)


def _bands(name: str, data: EvaluationReport) -> dict[str, Band]:
    return {sample.name: sample.bands[name] for sample in data.samples if name in sample.bands}


def _caption(name: str, data: EvaluationReport) -> str:
    """Separation power of each sample, and what its histogram leaves out where that is notable."""
    parts = []
    for sample, found in data.result["samples"].items():
        item = found["histograms"][name]
        text = f"{sample} {item['separation']:.2g}"
        if found["kind"] == "control":
            continue
        if max(item["outside"], item["outside_reference"]) > _NOTABLE:
            text += f" ({100 * item['outside']:.1f} % outside, reference {100 * item['outside_reference']:.1f} %)"
        parts.append(text)
    return f"Separation power: {'; '.join(parts)}."
