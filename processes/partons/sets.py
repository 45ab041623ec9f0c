"""Sets of parton densities on disk, as LHAPDF stores them: where a member is, its grid, its number and its coupling."""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from nisampler.base.extras import install
from nisampler.base.findings import Finding
from nisampler.errors import ConfigError, MissingExtraError, PdfError
from nisampler.processes.constants import MASS_Z
from nisampler.processes.partons.alpha_s import AlphaS, RunningAlphaS, TabulatedAlphaS
from nisampler.processes.partons.grid_files import SubGrid, read_info, read_member

# Numbers of the sets in LHAPDF's index (pdfsets.index); a set with an .info file brings its own.
LHAPDF_IDS = {
    "CT14qed_proton": 13300,
    "NNPDF23_nlo_as_0119_qed": 244800,
    "NNPDF23_nnlo_as_0119_qed": 246000,
    "NNPDF23_lo_as_0119_qed": 246800,
    "NNPDF23_lo_as_0130_qed": 247000,
    "NNPDF31_lo_as_0118": 315000,
    "NNPDF31_lo_as_0130": 315200,
    "NNPDF31_nlo_as_0118_luxqed": 324900,
    "NNPDF31_nnlo_as_0118_luxqed": 325100,
}
# Charm, bottom and top masses in GeV of the fits, by the beginning of their names; five flavours at most.
_FAMILY_MASSES = {"NNPDF23": (1.414214, 4.75, float("inf")), "NNPDF31": (1.51, 4.92, float("inf"))}
_PATH = "LHAPDF_DATA_PATH"
_LOOPS = {"lo": 1, "nlo": 2, "nnlo": 3}
_COUPLING_KEYS = frozenset(
    ("AlphaS_MZ", "AlphaS_OrderQCD", "AlphaS_Qs", "AlphaS_Vals", "MZ", "MCharm", "MBottom", "MTop")
)
# Digits of a set's number in LHAPDF's index, with room.
_DIGITS = 9
_MOST_MEMBERS = 10_000


@dataclass(frozen=True)
class StoredMember:
    """A member of a set, as its files tell.

    Attributes
    ----------
    set_name, path
        Name of the set, and the grid file.
    grids
        Sub-grids by rising Q.
    lhapdf_id
        LHAPDF's number of this member; 0 where there is none.
    coupling
        The coupling of this member, None where the files do not tell.
    info
        The entries of the .info file.

    Examples
    --------
    >>> StoredMember("toy", Path("toy_0000.dat"), [], 0, None, {}).set_name
    'toy'
    """

    set_name: str
    path: Path
    grids: list[SubGrid]
    lhapdf_id: int
    coupling: AlphaS | None
    info: Mapping[str, str]


def stored_member(name: str | Path, member: int = 0) -> StoredMember:
    """A member of a set by the name of the set or by the path of a grid file; see `load_pdf`, which raises the same.

    >>> stored_member("nowhere.dat")
    Traceback (most recent call last):
    ...
    nisampler.errors.PdfError: there is no PDF grid nowhere.dat
    """
    path = member_path(name, member)
    head, grids = read_member(path)
    set_name = _set_name(path)
    source = path.with_name(f"{set_name}.info")
    info = read_info(source)
    lhapdf_id = _set_index(info["SetIndex"], source) if "SetIndex" in info else LHAPDF_IDS.get(set_name, 0)
    own = {key: value for key, value in head.items() if key in _COUPLING_KEYS}
    # What a member says of its coupling holds, as in LHAPDF: the set says it for the others.
    said = {key: value for key, value in (info | own).items() if key in _COUPLING_KEYS}
    try:
        coupling = _coupling(set_name, tuple(sorted(said.items())))
    except ValueError as error:
        place = f"{path.name} and {source.name} do" if own else f"{source.name} does"
        raise PdfError(f"{place} not describe a coupling: {error}") from error
    return StoredMember(set_name, path, grids, lhapdf_id + member if lhapdf_id else 0, coupling, info)


def member_path(name: str | Path, member: int = 0) -> Path:
    """The grid file of a member; raises as `load_pdf` does where there is none.

    >>> member_path("nowhere/some_0000.dat", 3)
    Traceback (most recent call last):
    ...
    nisampler.errors.PdfError: there is no PDF grid nowhere/some_0003.dat: no member 3 of the set
    """
    text = os.fspath(name)
    if Path(text).suffix == ".dat" or os.sep in text:
        return _member_of(Path(text), member)
    return _find(text, member)


def members_of(name: str | Path) -> int:
    """How many members a set has: as many as its .info file says, or as there are files in a row.

    >>> members_of("nowhere.dat")
    Traceback (most recent call last):
    ...
    nisampler.errors.PdfError: there is no PDF grid nowhere.dat
    """
    path = member_path(name)
    set_name = _set_name(path)
    source = path.with_name(f"{set_name}.info")
    said = read_info(source).get("NumMembers", "").strip()
    if said:
        if not said.isdecimal() or not 1 <= int(said[:_DIGITS]) <= _MOST_MEMBERS:
            raise PdfError(f"{source}: NumMembers must be a whole number from 1 to {_MOST_MEMBERS}, got {said[:40]!r}")
        return int(said)
    count = 0
    while path.with_name(f"{set_name}_{count:04d}.dat").is_file():
        count += 1
    return max(count, 1)


def stored_sets() -> Iterator[Finding]:
    """Where sets of parton densities are looked for by name, in this order, and which are there.

    >>> {found.part for found in stored_sets()}
    {'parton densities'}
    """
    part = "parton densities"
    folders = _search_path()
    if not folders:
        yield Finding(part, f"${_PATH}", "note", "not set: it may name folders with sets as LHAPDF stores them")
    for folder in folders:
        names = sorted(path.name for path in folder.glob("*") if (path / f"{path.name}_0000.dat").is_file())
        yield Finding(part, str(folder), "good" if names else "note", ", ".join(names) or "no sets")
    try:
        folder = _pythia_folder()
    except (MissingExtraError, PdfError) as error:
        mend = install("shower") if isinstance(error, MissingExtraError) else ""
        yield Finding(part, "pythia8mc", "missing", "brings sets by name, the default one among them", mend)
    else:
        yield Finding(part, str(folder), "good", ", ".join(_members(folder)))


def _set_name(path: Path) -> str:
    return re.sub(r"_\d{4}$", "", path.stem)


def _member_of(path: Path, member: int) -> Path:
    """The file of that member: in the directory of a set, or beside the given file."""
    if path.is_dir():
        path = path / f"{path.name}_0000.dat"
    wanted = path
    if member:
        wanted = path.with_name(f"{re.sub(r'_[0-9]{4}$', '', path.stem)}_{member:04d}.dat")
    if not wanted.is_file():
        raise PdfError(f"there is no PDF grid {wanted}" + (f": no member {member} of the set" if member else ""))
    return wanted


def _find(name: str, member: int) -> Path:
    for folder in _search_path():
        if (folder / name).is_dir():
            return _member_of(folder / name, member)
    folder = _pythia_folder()
    if (folder / f"{name}_0000.dat").is_file():
        return _member_of(folder / f"{name}_0000.dat", member)
    raise PdfError(
        f"no PDF set {name!r}: {folder} holds {', '.join(_members(folder))}; a path to a .dat file works too"
    )


def _search_path() -> list[Path]:
    return [Path(entry) for entry in os.environ.get(_PATH, "").split(os.pathsep) if entry]


def _members(folder: Path) -> list[str]:
    """Sets whose grids lie in a folder themselves."""
    return sorted(path.name.removesuffix("_0000.dat") for path in folder.glob("*_0000.dat"))


def _pythia_folder() -> Path:
    """The directory of the grids that an installed pythia8mc brings."""
    data = os.environ.get("PYTHIA8DATA")
    if data and (Path(data).parent / "pdfdata").is_dir():
        return Path(data).parent / "pdfdata"
    try:
        installed = importlib.metadata.distribution("pythia8mc")
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingExtraError(
            f"PDF sets by name come with pythia8mc: {install('shower')}; or give the path of a .dat file"
        ) from error
    # The list of its 2,000 files as text: to parse it takes longer than to read a grid.
    found = re.search(r"^[^,\n]*/pdfdata/(?=[^/,\n]*,)", installed.read_text("RECORD") or "", re.MULTILINE)
    if found is not None:
        return Path(str(installed.locate_file(found[0]))).resolve()
    raise PdfError("the installed pythia8mc brings no PDF grids: give the path of a .dat file")


def _set_index(text: str, source: Path) -> int:
    """The number of a set in LHAPDF's index; PdfError names the file where it is none."""
    if not text.strip().isdecimal() or len(text.strip()) > _DIGITS:
        raise PdfError(f"{source}: SetIndex must be a whole number, got {text.strip()[:40]!r}")
    return int(text)


@lru_cache(maxsize=64)
def _coupling(name: str, entries: tuple[tuple[str, str], ...]) -> AlphaS | None:
    """The coupling that an .info file or, without one, the name of the set tells of; members with the same share it."""
    info = dict(entries)
    if {"AlphaS_Qs", "AlphaS_Vals"} <= info.keys():
        scales, values = (
            [float(number) for number in info[key].strip(" []\n").split(",")] for key in ("AlphaS_Qs", "AlphaS_Vals")
        )
        return TabulatedAlphaS(scales, values)
    if "AlphaS_MZ" in info:
        if not {"AlphaS_OrderQCD", "MCharm", "MBottom", "MTop"} <= info.keys():
            raise ConfigError("AlphaS_MZ needs AlphaS_OrderQCD, MCharm, MBottom and MTop beside it")
        charm, bottom, top = (float(info[key]) for key in ("MCharm", "MBottom", "MTop"))
        loops = int(info["AlphaS_OrderQCD"]) + 1
        return RunningAlphaS(float(info["AlphaS_MZ"]), float(info.get("MZ", MASS_Z)), loops, (charm, bottom, top))
    found = re.search(r"_(lo|nlo|nnlo)_as_(\d{4})", name)
    masses = next((masses for family, masses in _FAMILY_MASSES.items() if name.startswith(family)), None)
    if found is None or masses is None:
        return None
    return RunningAlphaS(float(f"0.{found[2][1:]}"), MASS_Z, _LOOPS[found[1]], masses)
