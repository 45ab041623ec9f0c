r"""Parton densities from LHAPDF grid files, interpolated in torch.

A grid file (format `lhagrid1`, 1412.7420, section 3.4) holds $x f(x, Q)$ on knots in x and Q, in sub-grids that
meet at the flavour thresholds. In each of them the interpolation is bicubic in $(\ln x, \ln Q^2)$ through the
four nearest knots in either direction, as Pythia 8 does it (LHAPDF's own takes its slopes from finite
differences; the two differ by 1e-5 to 1e-4 inside the grid). The polynomial of every cell is worked out once, so
that a call gathers 16 coefficients a flavour and adds them up.

Everywhere in this package a density is $x f(x, Q^2)$, not $f$; it is clipped at zero, where a fit goes below. Below
the smallest x and outside the range in Q the value at the border holds. At x >= 1 there is nothing. All three are
counted (`PartonDensity.tally`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from nisampler.base.checks import Whole, checked
from nisampler.errors import PdfError, ShapeError
from nisampler.processes.constants import GLUON
from nisampler.processes.partons.alpha_s import AlphaS
from nisampler.processes.partons.devices import OnDevices
from nisampler.processes.partons.grid_files import SubGrid
from nisampler.processes.partons.interpolation import CubicAxis, powers
from nisampler.processes.partons.sets import stored_member
from nisampler.processes.tally import Tally

# What a density counts: those asked for, those a fit has below zero, places outside its grid.
DENSITIES, CLIPPED, FROZEN_X, FROZEN_Q = "densities", "densities below zero", "x below the grid", "Q outside the grid"
PDF_FLAVOURS = (-6, -5, -4, -3, -2, -1, GLUON, 1, 2, 3, 4, 5, 6)


Member = Annotated[Whole, Field(ge=0, le=9999)]
"""Number of a member: its file has four digits."""


@dataclass(frozen=True)
class _Tables:
    x_axis: CubicAxis
    q_axis: CubicAxis
    coefficients: Tensor  # (q cells, x cells, 4, 4, flavours): powers in ln Q^2, then in ln x

    def to(self, device: torch.device) -> _Tables:
        return _Tables(self.x_axis.to(device), self.q_axis.to(device), self.coefficients.to(device))


class PartonDensity:
    """The parton densities x f(x, Q^2) of one hadron, all flavours at a time.

    Parameters
    ----------
    grids
        Sub-grids by rising Q, with the same knots in x and without gaps in Q.
    name
        Name of the set.
    member
        Number of the member in the set.
    lhapdf_id
        LHAPDF's number of this member; 0 where there is none.
    coupling
        The coupling that belongs to the set, where it is known.

    Raises
    ------
    PdfError
        If the sub-grids do not fit together.

    Examples
    --------
    >>> x, q = torch.linspace(0.1, 1.0, 10, dtype=torch.float64), torch.tensor([1.0, 100.0], dtype=torch.float64)
    >>> pdf = PartonDensity([SubGrid(x, q, (21,), (1 - x).reshape(10, 1, 1).expand(10, 2, 1))], "toy")
    >>> pdf.xf(x[4:5], 50.0)[0, pdf.column(21)]
    tensor(0.5000, dtype=torch.float64)
    """

    def __init__(
        self, grids: Sequence[SubGrid], name: str, member: int = 0, lhapdf_id: int = 0, coupling: AlphaS | None = None
    ) -> None:
        self.name, self.member, self.lhapdf_id = name, member, lhapdf_id
        self.flavours = tuple(pdg for pdg in PDF_FLAVOURS if pdg in grids[0].flavours)
        require_fitting(grids, name)
        self.x_min, self.x_max = float(grids[0].x[0]), float(grids[0].x[-1])
        self.q2_min, self.q2_max = float(grids[0].q[0]) ** 2, float(grids[-1].q[-1]) ** 2
        self._coupling = coupling
        self.tally = Tally(DENSITIES, CLIPPED, FROZEN_X, FROZEN_Q)
        tables = _tables(grids)
        self._tables = OnDevices(tables, tables.coefficients.device)
        self._slice: tuple[float, torch.device, Tensor] | None = None

    @staticmethod
    def column(pdg: int) -> int:
        """Column of a parton in the result of `xf`; raises PdfError if it has none."""
        if pdg not in PDF_FLAVOURS:
            raise PdfError(f"no parton density for PDG code {pdg}: there are {', '.join(map(str, PDF_FLAVOURS))}")
        return PDF_FLAVOURS.index(pdg)

    def xf(self, x: Tensor, q2: Tensor | float) -> Tensor:
        """x f(x, Q^2) of all flavours.

        Parameters
        ----------
        x
            Momentum fractions, any shape: (n,), or (n, 2) for both beams at once.
        q2
            Squared scale in GeV^2, of a shape that broadcasts with x, such as (n, 1) for two beams. One number
            for all points is several times faster: the scale is then interpolated once.

        Returns
        -------
        Shape (..., 13), the columns in the order of `PDF_FLAVOURS`, never negative; 0 for x >= 1 and for flavours
        that the set does not hold. NaN where x or q2 is NaN. Differentiable in x and q2.

        Raises
        ------
        ShapeError
            If x and q2 do not broadcast.
        PdfError
            If q2 is one number and not positive.
        """
        tables = self._tables.on(x.device)
        if isinstance(q2, Tensor):
            try:
                shape = np.broadcast_shapes(x.shape, q2.shape)
            except ValueError as error:
                raise ShapeError(f"x {tuple(x.shape)} and q2 {tuple(q2.shape)} do not broadcast") from error
            x, q2 = x.expand(shape), q2.expand(shape)
        flat = x.reshape(-1).to(torch.float64)
        cell, u = tables.x_axis.locate(flat.clamp(min=self.x_min).log())
        weights = powers(u, (flat < 1).to(torch.float64))
        if isinstance(q2, Tensor):
            q_flat = q2.reshape(-1).to(torch.float64)
            q_cell, v = tables.q_axis.locate(q_flat.clamp(min=self.q2_min).log())
            cell = q_cell * tables.x_axis.cells + cell
            weights = (powers(v).unsqueeze(-1) * weights.unsqueeze(-2)).flatten(1)
            table = tables.coefficients.flatten(0, 3)
        else:
            table = self._at_scale(float(q2), tables)
        terms = weights.shape[1]
        rows = (cell * terms).unsqueeze(-1) + torch.arange(terms, device=x.device)
        # A sum of table rows with weights, in one pass: the gathered rows are never stored.
        values = torch.nn.functional.embedding_bag(rows, table, per_sample_weights=weights, mode="sum")
        self._count(flat, q2, values)
        return values.clamp(min=0).reshape(*x.shape, len(PDF_FLAVOURS))

    def _count(self, x: Tensor, q2: Tensor | float, values: Tensor) -> None:
        """Note how many densities (n, flavours) will be clipped, and points that lie outside the grid."""
        self.tally.add(DENSITIES, values.numel())
        # On a CPU one look at the smallest value is ten times cheaper than counting, and most fits stay above zero.
        if values.device.type != "cpu" or (values.numel() and float(values.detach().amin()) < 0):
            self.tally.add(CLIPPED, values < 0)
        self.tally.add(FROZEN_X, x < self.x_min)
        if isinstance(q2, Tensor):
            self.tally.add(FROZEN_Q, (q2 < self.q2_min) | (q2 > self.q2_max))
        elif not self.q2_min <= q2 <= self.q2_max:
            self.tally.add(FROZEN_Q, len(x))

    def alpha_s(self, q2: Tensor | float) -> Tensor:
        """The coupling of the set at the squared scales q2 in GeV^2, of the shape of q2.

        From the table in the head of the member's file or in the set's .info file, or by running with the reference
        value there; without either, by running with what the name of the set says (`NNPDF31_lo_as_0118`: one loop,
        0.118 at the Z mass).

        Raises
        ------
        PdfError
            If neither is there.
        """
        if self._coupling is None:
            raise PdfError(f"{self.name} has no .info file and no alpha_s in its name: use RunningAlphaS instead")
        return self._coupling(torch.as_tensor(q2, dtype=torch.float64))

    @property
    def q2_range(self) -> tuple[float, float]:
        """Squared scales in GeV^2 outside which the coupling is frozen."""
        known: tuple[float, float] = getattr(self._coupling, "q2_range", (0.0, math.inf))
        return known

    def _at_scale(self, q2: float, tables: _Tables) -> Tensor:
        """The cubics in ln x at one scale, shape (x cells * 4, flavours); the last one is kept."""
        if not q2 > 0:
            raise PdfError(f"q2 must be positive, got {q2}")
        device = tables.coefficients.device
        kept = self._slice
        if kept is not None and kept[:2] == (q2, device):
            return kept[2]
        cell, v = tables.q_axis.locate(torch.tensor([q2], dtype=torch.float64, device=device).log())
        table = torch.einsum("p,xpkf->xkf", powers(v)[0], tables.coefficients.index_select(0, cell)[0]).flatten(0, 1)
        self._slice = (q2, device, table)
        return table


def load_pdf(name: str | Path, member: int = 0) -> PartonDensity:
    """A parton density by the name of its set or by the path of its grid file.

    Parameters
    ----------
    name
        The name of a set (`NNPDF31_lo_as_0118`), looked up in the directories of LHAPDF_DATA_PATH and then among
        the grids that pythia8mc brings; or the path of a .dat file, or of the directory of an LHAPDF set.
    member
        Number of the member; beside a given file, the one of that number is taken.

    Raises
    ------
    PdfError
        If there is no such set, file or member, or the file is not a valid grid.
    MissingExtraError
        If a name is not found and pythia8mc is not installed.

    Examples
    --------
    >>> import tempfile
    >>> text = "Format: lhagrid1\\n---\\n0.1 1.0\\n1.0 100.0\\n21\\n2 2 0 0\\n---\\n"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     size = Path(folder, "toy_0000.dat").write_text(text)
    ...     pdf = load_pdf(f"{folder}/toy_0000.dat")
    >>> pdf.name, pdf.q2_max, round(pdf.xf(torch.tensor(0.1), 10.0)[pdf.column(21)].item(), 6)
    ('toy', 10000.0, 2.0)
    """
    checked("name", name, str | Path)
    checked("member", member, Member)
    found = stored_member(name, member)
    return PartonDensity(found.grids, found.set_name, member, found.lhapdf_id, found.coupling)


def require_fitting(grids: Sequence[SubGrid], name: str) -> None:
    """PdfError unless the sub-grids of a member have the same knots in x and follow one another in Q.

    >>> require_fitting([], "none")
    """
    for below, above in itertools.pairwise(grids):
        if not torch.equal(below.x, above.x):
            raise PdfError(f"{name}: the sub-grids have different knots in x, which this reader does not support")
        if below.q[-1] != above.q[0]:
            raise PdfError(f"{name}: the sub-grids leave a gap in Q, {below.q[-1]} to {above.q[0]} GeV")


def by_flavour(grid: SubGrid) -> Tensor:
    """The values (k, l, flavours) on the knots of a sub-grid, flavours as in `PDF_FLAVOURS`; zero where it has none.

    >>> knots = torch.tensor([0.1, 1.0])
    >>> by_flavour(SubGrid(knots, knots, (21,), torch.ones(2, 2, 1)))[0, 0, 5:8]
    tensor([0., 1., 0.])
    """
    values = grid.values.new_zeros(*grid.values.shape[:2], len(PDF_FLAVOURS))
    for column, pdg in enumerate(grid.flavours):
        if pdg in PDF_FLAVOURS:
            values[:, :, PDF_FLAVOURS.index(pdg)] = grid.values[:, :, column]
    return values


def _tables(grids: Sequence[SubGrid]) -> _Tables:
    x_axis = CubicAxis([grids[0].x.log()])
    q_axis = CubicAxis([2 * grid.q.log() for grid in grids])
    in_x = []
    for grid in grids:
        in_x.append(x_axis.coefficients([by_flavour(grid)]).permute(2, 0, 1, 3))
    coefficients = q_axis.coefficients(in_x).transpose(1, 2).contiguous()
    return _Tables(x_axis, q_axis, coefficients)
