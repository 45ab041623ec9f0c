"""Groups of sub-processes, each with a code and a cross-section of its own in an event file.

As in the folders of MadGraph (``P1_gq_epveq``) a group is which legs are quarks and which are gluons: "q" is any quark
or antiquark, both orders of the beams belong together, and so do all orders of jets.
"""

from __future__ import annotations

from collections.abc import Sequence

from nisampler.processes.amplitudes.protocol import SubProcess
from nisampler.processes.constants import GLUON, MASSLESS_QUARKS
from nisampler.processes.particles import NAMES

_KINDS = {GLUON: "g"} | {sign * quark: "q" for quark in MASSLESS_QUARKS for sign in (1, -1)}


def group_name(process: SubProcess) -> str:
    """What the group of a sub-process is called.

    >>> group_name(SubProcess((2, 21), (12, -11, 1), element=0))
    'g q > ve e+ q'
    """
    initial = sorted(_KINDS.get(code, NAMES.get(code, str(code))) for code in process.initial)
    jets = sorted(_KINDS[code] for code in process.final if code in _KINDS)
    others = [NAMES.get(code, str(code)) for code in process.final if code not in _KINDS]
    return f"{' '.join(initial)} > {' '.join([*others, *jets])}"


def group_codes(processes: Sequence[SubProcess]) -> tuple[dict[int, str], list[int]]:
    """The names of all groups by their codes, which count from 1 in alphabetical order, and the code of each process.

    >>> group_codes([SubProcess(pair, (6, -6), element=0) for pair in ((2, -2), (21, 21), (-1, 1))])
    ({1: 'g g > t t~', 2: 'q q > t t~'}, [2, 1, 2])
    """
    names = [group_name(process) for process in processes]
    codes = {name: code for code, name in enumerate(sorted(set(names)), 1)}
    return {code: name for name, code in codes.items()}, [codes[name] for name in names]
