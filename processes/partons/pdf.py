r"""Parton densities from LHAPDF grid files, interpolated in torch.

A grid file (format `lhagrid1`, 1412.7420, section 3.4) holds $x f(x, Q)$ on knots in x and Q, in sub-grids that
meet at the flavour thresholds. In each of them the interpolation is bicubic in $(\ln x, \ln Q^2)$ through the
four nearest knots in either direction, as Pythia 8 does it (LHAPDF's own takes its slopes from finite
differences; the two differ by 1e-5 to 1e-4 inside the grid). The weights of these knots are cubics that are worked out
once; a call adds up 16 rows of the grid, which hold all flavours.

Everywhere in this package a density is $x f(x, Q^2)$, not $f$; it is clipped at zero, where a fit goes below. Below
the smallest x and outside the range in Q the value at the border holds. At x >= 1 there is nothing. All three are
counted (`PartonDensity.tally`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
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
from nisampler.processes.partons.interpolation.axes import CubicAxis, padded
from nisampler.processes.partons.interpolation.compiled import rows
from nisampler.processes.partons.interpolation.tables import Bicubics, Cubics
from nisampler.processes.partons.sets import stored_member
from nisampler.processes.tally import Tally

# What a density counts: those asked for, those a fit has below zero, places outside its grid.
DENSITIES, CLIPPED, FROZEN_X, FROZEN_Q = "densities", "densities below zero", "x below the grid", "Q outside the grid"
PDF_FLAVOURS = (-6, -5, -4, -3, -2, -1, GLUON, 1, 2, 3, 4, 5, 6)


Member = Annotated[Whole, Field(ge=0, le=9999)]
"""Number of a member: its file has four digits."""


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
        table = Bicubics(knot_values(grids), *axes_of(grids), lowest=0.0)
        self._tables = OnDevices(table, table.table.device)
        self._slice: tuple[float, torch.device, Cubics] | None = None

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
            for all points is faster: the scale is then interpolated once.

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
        table, shape = self._tables.on(x.device), tuple(x.shape)
        if isinstance(q2, Tensor):
            try:
                shape = np.broadcast_shapes(x.shape, q2.shape)
            except ValueError as error:
                raise ShapeError(f"x {tuple(x.shape)} and q2 {tuple(q2.shape)} do not broadcast") from error
            q2 = q2.expand(shape).reshape(-1).to(torch.float64)
        flat = x.expand(shape).reshape(-1).to(torch.float64)
        log_x = flat.clamp(min=self.x_min).log()
        if isinstance(q2, Tensor):
            values, below = rows(table, log_x, q2.clamp(min=self.q2_min).log())
        else:
            values, below = rows(self._at_scale(float(q2), table), log_x)
        self._count(flat, q2, values.numel(), below)
        inside = flat < 1
        if x.device.type != "cpu" or not bool(inside.all()):
            values = values * inside.to(torch.float64).unsqueeze(1)
        return values.reshape(*shape, len(PDF_FLAVOURS))

    def _count(self, x: Tensor, q2: Tensor | float, densities: int, below: Tensor | int) -> None:
        """Note how many densities were clipped, and points that lie outside the grid."""
        self.tally.add(DENSITIES, densities)
        self.tally.add(CLIPPED, below)
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

    def _at_scale(self, q2: float, table: Bicubics) -> Cubics:
        """The table in ln x at one scale; the last one is kept."""
        if not q2 > 0:
            raise PdfError(f"q2 must be positive, got {q2}")
        device = table.table.device
        if self._slice is None or self._slice[:2] != (q2, device):
            self._slice = (q2, device, table.at(torch.tensor([q2], dtype=torch.float64, device=device).log()))
        return self._slice[2]


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


def knot_values(grids: Sequence[SubGrid]) -> Tensor:
    """The values (Q knots, x knots, flavours) of all sub-grids, with the knots that `CubicAxis.stencil` needs beyond.

    >>> knots = torch.tensor([0.1, 1.0])
    >>> knot_values([SubGrid(knots, knots, (21,), torch.ones(2, 2, 1))]).shape
    torch.Size([4, 4, 13])
    """
    return padded(padded(torch.cat([by_flavour(grid).transpose(0, 1) for grid in grids])), 1)


def axes_of(grids: Sequence[SubGrid]) -> tuple[CubicAxis, CubicAxis]:
    """The axes of sub-grids, in ln x and in ln Q².

    >>> knots = torch.tensor([0.1, 1.0])
    >>> [axis.cells for axis in axes_of([SubGrid(knots, knots, (21,), torch.ones(2, 2, 1))])]
    [1, 1]
    """
    return CubicAxis([grids[0].x.log()]), CubicAxis([2 * grid.q.log() for grid in grids])
