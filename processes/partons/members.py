"""Several members of a set of parton densities at once, at the partons of events.

Members of a set share their knots, so that the sixteen weights of a point are worked out once and one pass over a table
with a column for each member gives them all. Values are those of `PartonDensity` before it clips them at zero: where a
density is not sampled but compared with another one, what a fit has below zero counts as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nisampler.errors import PdfError
from nisampler.processes.partons.interpolation.axes import STENCIL, CubicAxis
from nisampler.processes.partons.pdf import PDF_FLAVOURS, PartonDensity, axes_of, knot_values, require_fitting
from nisampler.processes.partons.sets import StoredMember, members_of, stored_member

# Points at a time, so that their rows of the table stay in the cache of a core.
_POINTS = 4096


class PdfMembers:
    """Members of one set.

    Parameters
    ----------
    name
        The set or its path, as `load_pdf` takes it.
    members
        Their numbers, rising; all by default.

    Raises
    ------
    PdfError
        If there is no such set, a member is not in it, or a file is not a valid grid.
    MissingExtraError
        If a name is not found and pythia8mc is not installed.

    Attributes
    ----------
    set_name, size, members
        Name of the set, how many members it has, and the numbers of these.
    labels
        LHAPDF's number of each member, or the name of its file where the set has none.
    error_type, confidence
        How the members make an uncertainty, and its confidence level in percent, as the .info file says.

    Examples
    --------
    >>> PdfMembers("nowhere.dat", [0])
    Traceback (most recent call last):
    ...
    nisampler.errors.PdfError: there is no PDF grid nowhere.dat
    """

    def __init__(self, name: str | Path, members: Sequence[int] | None = None) -> None:
        count = members_of(name)
        self.size, self.members = count, tuple(range(count)) if members is None else tuple(members)
        wrong = [member for member in self.members if member >= count]
        if wrong:
            last = f"members 0 to {count - 1}" if count > 1 else "no member but 0"
            raise PdfError(f"no member {wrong[0]} of {name}: the set has {last}")
        found = [stored_member(name, member) for member in self.members]
        self.set_name, info = found[0].set_name, found[0].info
        self.labels = tuple(str(item.lhapdf_id or item.path.stem) for item in found)
        self.error_type = info.get("ErrorType", "unknown").strip().strip("'\"") or "unknown"
        self.confidence = _confidence(info.get("ErrorConfLevel", ""), self.set_name)
        self._couplings = [item.coupling for item in found]
        self._blocks = _blocks(found)

    def xf(self, codes: Tensor, x: Tensor, q2: Tensor) -> Tensor:
        """x f(x, Q²) of all members, unclipped.

        Parameters
        ----------
        codes
            (n,) PDG codes of partons.
        x, q2
            (n,) momentum fractions, and squared scales in GeV².

        Returns
        -------
        (n, members); 0 for x >= 1, and for flavours that the set does not hold.

        Raises
        ------
        PdfError
            If a code is none of a parton.
        """
        columns = _columns(codes)
        result = torch.empty(len(x), len(self.members), dtype=torch.float64)
        for block in self._blocks:
            for start in range(0, len(x), _POINTS):
                part = slice(start, start + _POINTS)
                result[part, block.places] = block.values(columns[part], x[part], q2[part])
        return result

    def alpha_s(self, q2: Tensor) -> Tensor:
        """The coupling (n, members) of each member at the squared scales q2 (n,) in GeV².

        Raises
        ------
        PdfError
            If the files do not tell of one.
        """
        known: dict[int, Tensor] = {}
        for coupling in self._couplings:
            if coupling is None:
                raise PdfError(f"{self.set_name} has no .info file and no alpha_s in its name: leave its members out")
            if id(coupling) not in known:
                known[id(coupling)] = coupling(q2)
        return torch.stack([known[id(coupling)] for coupling in self._couplings], 1)


def _confidence(text: str, name: str) -> float:
    """The confidence level in percent that an .info file states; LHAPDF takes one standard deviation without one."""
    try:
        level = float(text) if text.strip() else 68.0
    except ValueError:
        level = 0.0
    if not 0 < level < 100:
        raise PdfError(f"{name}.info: ErrorConfLevel must be a percentage, got {text.strip()[:40]!r}")
    return level


def _columns(codes: Tensor) -> Tensor:
    """Columns (n,) of `PDF_FLAVOURS` for PDG codes (n,)."""
    found, places = torch.unique(codes, return_inverse=True)
    return torch.tensor([PartonDensity.column(code) for code in found.tolist()], dtype=torch.long)[places]


@dataclass(frozen=True)
class _Block:
    """Members whose grids have the same knots.

    `table` (Q knots * x knots * flavours, members) holds the values on the knots; `places` are the columns of the
    members in the whole set.
    """

    x_axis: CubicAxis
    q_axis: CubicAxis
    x_knots: int
    table: Tensor
    places: list[int]

    def values(self, columns: Tensor, x: Tensor, q2: Tensor) -> Tensor:
        """x f (n, members) of the partons in `columns` (n,)."""
        in_x, x_weights = self.x_axis.stencil(x.clamp(min=1e-300).log())
        in_q, q_weights = self.q_axis.stencil(q2.log())
        four = torch.arange(STENCIL)
        knots = ((in_q * self.x_knots + in_x).unsqueeze(1) + four * self.x_knots).unsqueeze(2) + four
        rows = knots * len(PDF_FLAVOURS) + columns.view(-1, 1, 1)
        weights = q_weights.unsqueeze(2) * (x_weights * (x < 1).unsqueeze(1)).unsqueeze(1)
        return torch.nn.functional.embedding_bag(
            rows.flatten(1), self.table, per_sample_weights=weights.flatten(1), mode="sum"
        )


def _blocks(members: Sequence[StoredMember]) -> list[_Block]:
    places: dict[tuple[tuple[float, ...], ...], list[int]] = {}
    for place, member in enumerate(members):
        knots = tuple(tuple(axis.tolist()) for grid in member.grids for axis in (grid.x, grid.q))
        places.setdefault(knots, []).append(place)
    return [_block([members[place] for place in shared], shared) for shared in places.values()]


def _block(members: Sequence[StoredMember], places: list[int]) -> _Block:
    first = members[0]
    require_fitting(first.grids, first.set_name)
    values = torch.stack([knot_values(member.grids) for member in members], -1)
    return _Block(*axes_of(first.grids), values.shape[1], values.flatten(0, 2), places)
