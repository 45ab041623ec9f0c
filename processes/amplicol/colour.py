"""Colour flows and Les Houches colour tags from the ordered words of leading colour."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from nisampler.errors import AmplitudeError
from nisampler.processes.amplitudes.tree import ColourFlow
from nisampler.processes.particles import is_coloured, is_quark


def _strings(codes: Sequence[int], word: Sequence[int]) -> list[tuple[list[int], bool]]:
    """Cut a word of 1-based legs into (legs, closed): open strings from quark to antiquark, or one closed loop."""
    strings: list[tuple[list[int], bool]] = []
    current: list[int] = []
    outgoing = [-code if place < 2 and is_quark(code) else code for place, code in enumerate(codes)]
    for label in word:
        code = outgoing[label - 1]
        if is_quark(code) and (code > 0) == bool(current):
            raise AmplitudeError(
                f"the colour word {list(word)} does not run from quarks to antiquarks of {list(codes)}"
            )
        current.append(label - 1)
        if is_quark(code) and code < 0:
            strings.append((current, False))
            current = []
    if current:
        if strings or any(is_quark(outgoing[place]) for place in current):
            raise AmplitudeError(f"the colour word {list(word)} leaves an open string among the legs {list(codes)}")
        strings.append((current, True))
    return strings


def colour_flow(codes: Sequence[int], word: Sequence[int]) -> ColourFlow:
    """The colour lines of one leading-colour word, as `nisampler.processes.amplitudes.tree.colour_tags` takes them.

    Neighbours in a string share a line: the colour of the one is the anticolour of the next, both taken as outgoing.

    Parameters
    ----------
    codes
        PDG codes of the legs, the two incoming ones first.
    word
        Labels of the coloured legs, counted from 1; open strings run from the fundamental to the antifundamental
        index with all legs outgoing.

    Raises
    ------
    AmplitudeError
        If the word does not name every coloured leg once, or its strings do not match the legs.

    Examples
    --------
    u ubar to two gluons: the incoming u ends the string as an outgoing antiquark would.

    >>> colour_flow((2, -2, 21, 21), (2, 3, 4, 1))
    ((1, 2), (2, 3), (3, 0))
    """
    coloured = [place + 1 for place, code in enumerate(codes) if is_coloured(code)]
    if sorted(word) != coloured:
        raise AmplitudeError(f"the colour word {list(word)} does not name the coloured legs {coloured} once each")
    lines: list[tuple[int, int]] = []
    for legs, closed in _strings(codes, word):
        lines += itertools.pairwise([*legs, legs[0]] if closed else legs)
    return tuple(lines)
