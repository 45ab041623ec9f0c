"""Events of a Les Houches file read in bulk, compiled; what is not written in the common way is left to others.

Common are a line for the event, a line for each particle, comments, ``#pdf``, then ``<rwgt>`` with known names in a
known order, and ``<scales>``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nisampler.base.kernels import kept
from nisampler.events.columns import MOST_SLOTS
from nisampler.events.text.numba_digits import OPTIONS, compiled
from nisampler.events.text.numba_numbers import number

HEAD, PARTICLE, EXTRA = 6, 13, 8
"""Numbers of an event, of a particle, and what else an event may say: mu_r, and the seven numbers of ``#pdf``."""
_PDF = 7
_INTEGERS = (2, 6)
END, FULL, UNUSUAL = 0, 1, 2
"""Why it stops: there is no more text, an array is full, or something else is there than what it reads."""
_SPACE, _TAB, _LINE, _HASH, _LESS, _MORE, _AND, _IS = (ord(letter) for letter in " \t\n#<>&=")
_QUOTES = ord("'"), ord('"')
_ZERO, _NINE, _DELETE = ord("0"), ord("9"), 127
_EVENT, _EVENT_END = np.frombuffer(b"<event>", np.uint8), np.frombuffer(b"</event>", np.uint8)
_PDF_MARK = np.frombuffer(b"#pdf", np.uint8)
_RWGT, _RWGT_END = np.frombuffer(b"<rwgt>", np.uint8), np.frombuffer(b"</rwgt>", np.uint8)
_WGT_END = np.frombuffer(b"</wgt>", np.uint8)
_SCALES, _SCALES_END = np.frombuffer(b"<scales", np.uint8), np.frombuffer(b"></scales>", np.uint8)
_MUF, _MUR, _MUPS = (np.frombuffer(name, np.uint8) for name in (b"muf=", b"mur=", b"mups="))
_CLUSTERED, _CLOSED = np.frombuffer(b"pt_clust_", np.uint8), np.frombuffer(b"/>", np.uint8)


@compiled
def _after(text: Any, at: Any, word: Any) -> Any:
    """Where a word ends that begins here, negative where it does not."""
    for i in range(len(word)):
        if text[at + i] != word[i]:
            return np.int64(-1)
    return at + len(word)


@compiled
def _blank(text: Any, at: Any) -> Any:
    while text[at] == _SPACE or text[at] == _TAB:
        at += 1
    return at


@compiled
def _white(text: Any, at: Any) -> Any:
    while text[at] == _SPACE or text[at] == _TAB or text[at] == _LINE:
        at += 1
    return at


@compiled
def _real(text: Any, at: Any, values: Any, place: Any, hard: Any, powers: Any) -> Any:
    """One number into its place; where it ends. What is not certain is noted in `hard`, whose first row counts."""
    begin = at
    at, value, certain = number(text, at, powers)
    if at >= 0:
        values[place] = value
        if not certain:
            count = hard[0, 0] + 1
            if count >= len(hard):
                return np.int64(-1)
            hard[0, 0] = count
            hard[count, 0], hard[count, 1], hard[count, 2] = place, begin, at
    return at


@compiled
def _row(text: Any, at: Any, values: Any, place: Any, size: Any, whole: Any, hard: Any, powers: Any) -> Any:
    """A line of numbers, the first ones whole; where the next line begins."""
    noted = hard[0, 0]
    for i in range(size):
        at = _real(text, _blank(text, at), values, place + i, hard, powers)
        if at < 0 or not (text[at] == _SPACE or text[at] == _TAB or text[at] == _LINE):
            return np.int64(-1)
        x = values[place + i]
        if i < whole and not (hard[0, 0] == noted and abs(x) < 1e15 and x == np.int64(x)):
            return np.int64(-1)
    at = _blank(text, at)
    return at + 1 if text[at] == _LINE else np.int64(-1)


@compiled
def _comment(text: Any, at: Any) -> Any:
    """Behind a line that begins with a number sign."""
    while text[at] != _LINE:
        letter = text[at]
        if letter == _LESS or letter == _MORE or letter == _AND or letter >= _DELETE:
            return np.int64(-1)
        if letter < _SPACE and letter != _TAB:
            return np.int64(-1)
        at += 1
    return at + 1


@compiled
def _weights(text: Any, at: Any, values: Any, place: Any, tags: Any, ends: Any, hard: Any, powers: Any) -> Any:
    """All named weights behind ``<rwgt>``."""
    for i in range(len(ends)):
        at = _after(text, _white(text, at), tags[(ends[i - 1] if i else 0) : ends[i]])
        if at < 0:
            return at
        at = _real(text, _white(text, at), values, place + i, hard, powers)
        if at < 0:
            return at
        at = _after(text, _white(text, at), _WGT_END)
        if at < 0:
            return at
    return _after(text, _white(text, at), _RWGT_END)


@compiled
def _scales(text: Any, at: Any, values: Any, extra: Any, count: Any, hard: Any, powers: Any) -> Any:
    """The attributes behind ``<scales``, each at most once: those of particles in their order."""
    known, last = 0, 0
    while True:
        begin = at
        at = _white(text, at)
        end = _after(text, at, _CLOSED)
        if end < 0:
            end = _after(text, at, _SCALES_END)
        if end >= 0:
            return end
        if at == begin:
            return np.int64(-1)
        # What is not kept goes where the next number is written over it, or nobody looks.
        place, bit = np.int64(len(values) - 1), 0
        muf, mur, mups = _after(text, at, _MUF), _after(text, at, _MUR), _after(text, at, _MUPS)
        clustered = _after(text, at, _CLUSTERED)
        if clustered >= 0:
            at, slot = clustered, 0
            while _ZERO <= text[at] <= _NINE and slot <= count:
                slot = slot * 10 + (text[at] - _ZERO)
                at += 1
            if text[clustered] == _ZERO or slot <= last or slot > count or text[at] != _IS:
                return np.int64(-1)
            last, place = slot, extra + EXTRA + slot - 1
            at += 1
        elif mur >= 0:
            at, place, bit = mur, extra, 1
        elif muf >= 0:
            at, bit = muf, 2
        elif mups >= 0:
            at, bit = mups, 4
        else:
            return np.int64(-1)
        quote = text[at]
        if known & bit or not (quote == _QUOTES[0] or quote == _QUOTES[1]):
            return np.int64(-1)
        known |= bit
        at = _real(text, at + 1, values, place, hard, powers)
        if at < 0 or text[at] != quote:
            return np.int64(-1)
        at += 1


@compiled
def _body(text: Any, at: Any, values: Any, base: Any, count: Any, tags: Any, ends: Any, hard: Any, powers: Any) -> Any:
    """All that follows the first line of an event of `count` particles; where the event ends."""
    extra = base + HEAD + PARTICLE * count
    named = extra + EXTRA + count
    found, dense, weighted, scaled = 0, False, len(ends) == 0, False
    while True:
        begin = _blank(text, at)
        if text[begin] == _LESS:
            break
        word = _after(text, begin, _PDF_MARK)
        if text[begin] == _HASH and word < 0:
            at = _comment(text, begin)
        elif found < count or (word >= 0 and not dense):
            place, size, whole = base + HEAD + PARTICLE * found, PARTICLE, _INTEGERS[1]
            if word >= 0:
                if dense or not (text[word] == _SPACE or text[word] == _TAB):
                    return np.int64(-1)
                begin, dense, place, size, whole = word, True, extra + 1, _PDF, 0
            else:
                found += 1
            at = _row(text, begin, values, place, size, whole, hard, powers)
        else:
            return np.int64(-1)
        if at < 0:
            return at
    while True:
        at = _white(text, at)
        end = _after(text, at, _EVENT_END)
        if end >= 0:
            return end if found == count and weighted else np.int64(-1)
        rwgt, scales = _after(text, at, _RWGT), _after(text, at, _SCALES)
        if rwgt >= 0 and not weighted:
            at, weighted = _weights(text, rwgt, values, named, tags, ends, hard, powers), True
        elif scales >= 0 and not scaled:
            at, scaled = _scales(text, scales, values, extra, count, hard, powers), True
        else:
            return np.int64(-1)
        if at < 0:
            return at


def _events(
    text: Any, tags: Any, ends: Any, limits: Any, powers: Any, values: Any, begins: Any, counts: Any, hard: Any
) -> Any:
    """Read events until something stops it: how many, where it stopped in the text, and why.

    Parameters
    ----------
    text
        Bytes, the last one zero
    tags
        The tags of named weights in their order, one after the other
    ends
        Where each of them ends
    limits
        The number of events before, the most particles of one of them, and how many slots all may take together
    powers
        See `powers_of_ten`
    values
        Takes the numbers of one event after the other: its line, its particles, `EXTRA` ones, `pt_clust` of each
        particle, named weights
    begins
        Takes where the numbers of each event begin
    counts
        Takes how many particles it has
    hard
        (m, 3) takes how many numbers are not certain, and from the second row on for each its place in `values`, and
        where its text begins and ends
    """
    before, most, slots = limits
    at, base, n = np.int64(0), np.int64(0), 0
    while True:
        at = _white(text, at)
        if at >= len(text) - 1:
            return n, at, END
        if n == len(counts):
            return n, at, FULL
        begin, noted = at, hard[0, 0]
        at = _after(text, at, _EVENT)
        if at >= 0 and base + HEAD <= len(values):
            at = _row(text, _white(text, at), values, base, HEAD, _INTEGERS[0], hard, powers)
            if at >= 0 and 0 < values[base] <= MOST_SLOTS:
                count = np.int64(values[base])
                size = HEAD + (PARTICLE + 1) * count + EXTRA + len(ends)
                wide = max(most, count)
                if before + n > 0 and (before + n + 1) * wide > slots:
                    hard[0, 0] = noted
                    return n, begin, FULL
                if base + size < len(values):
                    for i in range(base + HEAD + PARTICLE * count, base + size):
                        values[i] = 0.0
                    at = _body(text, at, values, base, count, tags, ends, hard, powers)
                    if at >= 0:
                        begins[n], counts[n] = base, count
                        n, base, most = n + 1, base + size, wide
                        continue
        hard[0, 0] = noted
        return n, begin, UNUSUAL


events = kept(_events, **OPTIONS)
