"""The evaluation of generated jets: every distance beside its floor, figures, a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nisampler.base.checks import Several, checked
from nisampler.base.storage import atomic_write, make_folder, write_json
from nisampler.base.versions import versions
from nisampler.calo.jets.figures import images, spectra
from nisampler.calo.jets.files import read_jets
from nisampler.calo.jets.jets import TYPES, Jets
from nisampler.calo.jets.metrics import MASS, POLYNOMIALS, PT, Measured, Numbers, measure, mixed
from nisampler.errors import ConfigError, ShapeError
from nisampler.ui import plots
from nisampler.ui.monitor import SILENT, Monitor
from nisampler.ui.page import Card, Page, Picture, Table

REFERENCE, FLOOR, CONTROL = "reference", "reference, other half", "mixed constituents"
FORMAT, VERSION = "nisampler-jet-evaluation", 1
OWN = ("evaluation.json", "table.md", "report.html", "figures")
"""What an evaluation writes."""
_MOST_CANDIDATES = 5
_UNLIKE = 0.02


def evaluate(
    reference: str | Path,
    candidates: Mapping[str, str | Path],
    output: str | Path,
    seed: int = 1,
    jets: int | None = None,
    monitor: Monitor = SILENT,
) -> dict[str, Any]:
    """Compare files of generated jets with a file of reference jets that no model has seen.

    Each candidate is compared with one half of the reference; the other half gives the floor, and reference jets whose
    constituents were exchanged a control.

    Parameters
    ----------
    reference, candidates
        Files in the layout of JetNet, candidates by name; best the reference has twice as many jets.
    output
        Folder to make: ``evaluation.json``, ``table.md``, ``report.html``, ``figures``.
    seed
        Of random choices.
    jets
        At most so many of each file.
    monitor
        Is told the progress.

    Returns
    -------
    dict
        The content of ``evaluation.json``.

    Raises
    ------
    ConfigError
        If there is no candidate, more than five, or one with a name that the evaluation uses itself.
    ShapeError
        If a file has another number of places for constituents.
    JetDataError
        If a file is malformed or has fewer than 40 jets.
    StorageError
        If the folder cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.calo.jets.files import write_jets
    >>> rng = np.random.default_rng(0)
    >>> points, whole = rng.random((80, 3, 3)), np.ones((80, 3), dtype=bool)
    >>> jets = Jets(points, whole, np.zeros(80), 500 + rng.random(80), rng.random(80), rng.random(80))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_jets(f"{folder}/a.hdf5", jets)
    ...     result = evaluate(f"{folder}/a.hdf5", {"model": f"{folder}/a.hdf5"}, f"{folder}/out")
    >>> list(result["samples"])
    ['model', 'reference, other half', 'mixed constituents']
    """
    wrong = [name for name in candidates if name in (REFERENCE, FLOOR, CONTROL)]
    if wrong or not 1 <= len(candidates) <= _MOST_CANDIDATES:
        raise ConfigError(
            f"candidates must be 1 to {_MOST_CANDIDATES} files with names other than {REFERENCE!r}, {FLOOR!r} and "
            f"{CONTROL!r}, got {', '.join(candidates) or 'none'}"
        )
    limit = None if jets is None else checked("jets", jets, Several)
    real = read_jets(reference, limit=limit)
    made = {name: read_jets(path, limit=limit) for name, path in candidates.items()}
    for name, sample in made.items():
        if sample.most != real.most:
            raise ShapeError(f"{name} has places for {sample.most} constituents, the reference for {real.most}")
    base = Numbers.of(real)
    shown = {REFERENCE: base, **{name: Numbers.of(sample) for name, sample in made.items()}}
    samples: dict[str, Numbers | None] = {name: shown[name] for name in made}
    samples |= {FLOOR: None, CONTROL: Numbers.of(mixed(real, seed))}
    found = {}
    monitor.plan({"evaluating": len(samples)})
    for number, (name, numbers) in enumerate(samples.items(), 1):
        found[name] = measure(name, base, numbers, seed)
        monitor.progress("evaluating", number, len(samples), {"sample": name})
    result = _result(reference, candidates, found, seed, list(_warnings(real, made)), len(real))
    _write(make_folder(output), result, found, shown)
    return result


def _warnings(real: Jets, made: Mapping[str, Jets]) -> Iterator[str]:
    """Candidates of another composition than the reference."""
    wanted = _shares(real)
    for name, sample in made.items():
        shares = _shares(sample)
        for kind in TYPES:
            if abs(shares[kind] - wanted[kind]) > _UNLIKE:
                yield (
                    f"{name} has {100 * shares[kind]:.0f} % of jets of type {kind}, the reference "
                    f"{100 * wanted[kind]:.0f} %: distances of all jets together measure that, too"
                )


def _shares(jets: Jets) -> dict[str, float]:
    return {kind: float(np.mean(jets.types == number)) for number, kind in enumerate(TYPES)}


def _result(
    reference: str | Path,
    candidates: Mapping[str, str | Path],
    found: Mapping[str, Measured],
    seed: int,
    warnings: list[str],
    count: int,
) -> dict[str, Any]:
    floor = found[FLOOR]
    kinds = {FLOOR: "floor", CONTROL: "control"}
    return {
        "format": FORMAT,
        "version": VERSION,
        "reference": {"file": str(reference), "jets": count},
        "seed": seed,
        "versions": versions(),
        "samples": {
            name: {
                "kind": kinds.get(name, "candidate"),
                "file": str(candidates.get(name, reference)),
                "times_floor": item.times_floor(floor),
                **item.as_dict(),
            }
            for name, item in found.items()
        },
        "warnings": warnings,
    }


def table_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """The table of an evaluation: a head, then W1 of every number with its multiple of the floor, FPD and KPD.

    >>> floor = {"w1": {"mass [GeV]": [2.0, 0.5]}, "times_floor": {"mass [GeV]": 1.0}}
    >>> table_rows({"samples": {"reference, other half": floor}})
    [['', 'reference, other half'], ['W1 mass [GeV]', '2 ± 0.5']]
    """
    samples = result["samples"]
    rows = [["", *samples]]
    for name in samples[FLOOR]["w1"]:
        cells = []
        for sample, item in samples.items():
            value, error = item["w1"].get(name, (float("nan"), float("nan")))
            times = item["times_floor"].get(name)
            factor = f" (× {times:.2g})" if sample != FLOOR and times is not None else ""
            cells.append(f"{value:.3g} ± {error:.2g}{factor}")
        rows.append([f"W1 {name}", *cells])
    for key in ("fpd", "kpd"):
        if key in samples[FLOOR]:
            pairs = [(1e3 * item[key]["value"], 1e3 * item[key]["error"]) for item in samples.values()]
            rows.append([f"{key.upper()} × 1000", *(f"{value:.3g} ± {error:.2g}" for value, error in pairs)])
    return rows


def _write(folder: Path, result: dict[str, Any], found: Mapping[str, Measured], shown: Mapping[str, Numbers]) -> None:
    """All files of an evaluation."""
    write_json(folder / "evaluation.json", result)
    head, *rows = table_rows(result)
    lines = [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows)]
    with atomic_write(folder / "table.md", "w") as handle:
        handle.write("\n".join(lines) + "\n")
    page = _page(result, found, shown)
    target = make_folder(folder / "figures")
    for picture in page.pictures:
        with atomic_write(target / f"{picture.name}.svg") as handle:
            handle.write(picture.svg)
    with atomic_write(folder / "report.html", "w") as handle:
        handle.write(page.html())


def _page(result: Mapping[str, Any], found: Mapping[str, Measured], shown: Mapping[str, Numbers]) -> Page:
    names = [name for name in shown if name != REFERENCE]
    pictures = [Picture(name, caption, plots.svg(figure, None)) for name, caption, figure in spectra(shown)]
    whole = {name: numbers.jets for name, numbers in shown.items()}
    image = Picture(
        "images", "The average jet: mean share of the pT in each cell.", plots.svg(images(whole)), wide=len(whole) > 2
    )
    cards = []
    for name in names:
        for key in (MASS, PT, POLYNOMIALS):
            value, error = found[name].w1[key]
            times = found[name].times_floor(found[FLOOR]).get(key)
            note = "" if times is None else f"{times:.2f} times the floor"
            cards.append(Card(f"W1 of {key}, {name}", f"{value:.3g} ± {error:.1g}", note))
    jets = [picture for picture in pictures if picture.name not in ("etarel", "phirel", "ptrel")]
    return Page(
        title=f"Jets: {', '.join(names)}",
        subtitle=f"{result['reference']['jets']:,} reference jets · seed {result['seed']} · "
        f"nisampler {result['versions']['nisampler']}",
        cards=cards,
        tables=[
            Table("All samples against one half of the reference", table_rows(result)),
            Table("Samples", [(name, item["file"]) for name, item in result["samples"].items()]),
            Table("Versions", [(name, str(text)) for name, text in result["versions"].items()]),
        ],
        warnings=result["warnings"],
        sections={
            "Jets": jets,
            "Constituents": [picture for picture in pictures if picture not in jets],
            "Images": [image],
        },
    )
