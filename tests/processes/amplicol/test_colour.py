"""Colour tags from the words of leading-colour flows."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nisampler.errors import AmplitudeError
from nisampler.processes.amplicol.colour import colour_flow
from nisampler.processes.amplitudes.flavours import move_tags
from nisampler.processes.amplitudes.tree import colour_tags


def word_tags(codes: list[int], word: list[int]) -> list[tuple[int, ...]]:
    return [tuple(tags) for tags in colour_tags(colour_flow(codes, word), len(codes))]


def lines(codes: list[int], tags: list[tuple[int, ...]]) -> tuple[Counter[int], Counter[int]]:
    """Colours and anticolours, the incoming legs taken as outgoing antiparticles."""
    outgoing = [tag[::-1] if place < 2 else tag for place, tag in enumerate(tags)]
    return Counter(tag[0] for tag in outgoing if tag[0]), Counter(tag[1] for tag in outgoing if tag[1])


def test_an_open_string() -> None:
    # u dbar -> e+ nu g: with all legs outgoing u is an antiquark and dbar a quark, so the string is dbar, g, u.
    assert word_tags([2, -1, -11, 12, 21], [2, 5, 1]) == [(502, 0), (0, 501), (0, 0), (0, 0), (502, 501)]


def test_a_closed_string() -> None:
    assert word_tags([21, 21, 21, 21], [1, 2, 3, 4]) == [(504, 501), (501, 502), (503, 502), (504, 503)]


def test_two_strings() -> None:
    # u s -> d s: strings from an outgoing quark to an incoming one.
    assert word_tags([2, 3, 1, 3], [3, 2, 4, 1]) == [(502, 0), (501, 0), (501, 0), (502, 0)]


def test_conjugation_exchanges_colours() -> None:
    tags = [(501, 0), (0, 502), (502, 501)]
    assert move_tags(tags, [1, 0, 2], conjugated=False) == [(0, 502), (501, 0), (502, 501)]
    assert move_tags(tags, [1, 0, 2], conjugated=True) == [(502, 0), (0, 501), (501, 502)]


@given(st.permutations([0, 1, 2, 3, 4, 5]), st.integers(0, 4))
def test_every_line_begins_and_ends_once(order: list[int], cut: int) -> None:
    # Quarks 0 and 1, antiquarks 2 and 3, gluons 4 and 5, all outgoing, at the places of a random order.
    kinds = [1, 2, -1, -2, 21, 21]
    place = {leg: order.index(leg) for leg in order}
    outgoing = [kinds[leg] for leg in order]
    codes = [-c if where < 2 and c != 21 else c for where, c in enumerate(outgoing)]
    gluons = {0: [[4, 5], []], 1: [[5, 4], []], 2: [[4], [5]], 3: [[5], [4]], 4: [[], [5, 4]]}[cut]
    word = [place[leg] + 1 for leg in (0, *gluons[0], 3, 1, *gluons[1], 2)]
    tags = word_tags(codes, word)
    begins, ends = lines(codes, tags)
    assert begins == ends
    assert set(begins.values()) == {1}
    for code, (colour, anticolour) in zip(codes, tags, strict=True):
        assert (colour > 0) == (code == 21 or code > 0)
        assert (anticolour > 0) == (code == 21 or code < 0)


@pytest.mark.parametrize("word", [[2, 1], [2, 5, 5], [1, 5, 2], [2, 1, 5]])
def test_words_that_do_not_fit(word: list[int]) -> None:
    with pytest.raises(AmplitudeError, match="colour word"):
        colour_flow([2, -1, -11, 12, 21], word)
