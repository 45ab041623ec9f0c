"""Named weights of events: what each stands for, and the groups that are combined to an uncertainty.

The names are those that MadGraph, Sherpa 2 and CMS use: the id ``MUR0.5_MUF1.0_PDF315000`` says the factors of both
scales and the number of the member in LHAPDF's index; the attributes and the text say it again, for readers of either.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from nisampler.errors import EventFormatError

# What XML cannot hold, and the carriage return, which it does not keep.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff\ufffe\uffff]")

Attributes = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class WeightInfo:
    """One named weight.

    Parameters
    ----------
    id
        Its name, not empty; showers and analyses find it by this.
    text
        For people.
    attributes
        Pairs such as ("MUR", "0.5").

    Raises
    ------
    EventFormatError
        If the name is empty, or a name, text or attribute has more than one line.

    Examples
    --------
    >>> weight = WeightInfo("MUR0.5_MUF1.0_PDF315000", attributes=(("MUR", "0.5"), ("MUF", "1.0")))
    >>> weight.get("MUR"), weight.get("PDF")
    ('0.5', None)
    """

    id: str
    text: str = ""
    attributes: Attributes = ()

    def __post_init__(self) -> None:
        if not self.id:
            raise EventFormatError("a named weight needs an id")
        require_lines((self.id, self.text), self.attributes)

    def get(self, name: str) -> str | None:
        """The attribute of that name, None if there is none."""
        return dict(self.attributes).get(name)


@dataclass(frozen=True)
class WeightGroup:
    """Named weights that belong together.

    Parameters
    ----------
    name
        Of the group; weights outside of every group have one without a name.
    combine
        How they make an uncertainty: "envelope", or the ErrorType of a PDF set, such as "replicas", "symmhessian+as".
    weights
        Of the group, in the order of their columns.
    attributes
        Others, such as ("confidence", "90").

    Raises
    ------
    EventFormatError
        If a text has more than one line.

    Examples
    --------
    >>> WeightGroup("Central scale variation", "envelope", (WeightInfo("MUR0.5_MUF0.5_PDF315000"),)).ids
    ('MUR0.5_MUF0.5_PDF315000',)
    """

    name: str
    combine: str = ""
    weights: tuple[WeightInfo, ...] = ()
    attributes: Attributes = ()

    def __post_init__(self) -> None:
        require_lines((self.name, self.combine), self.attributes)

    @property
    def ids(self) -> tuple[str, ...]:
        """The names of its weights."""
        return tuple(weight.id for weight in self.weights)


def is_plain(text: str) -> bool:
    """Whether a text can stand in a file of events: lines of UTF-8 with no other control characters than tabs.

    >>> is_plain("seed = 1\\n"), is_plain("\\x00")
    (True, False)
    """
    return _CONTROL.search(text) is None


def require_lines(texts: Sequence[str], attributes: Attributes) -> None:
    """EventFormatError unless each text is one line and each attribute has a name.

    >>> require_lines(("one",), (("MUR", "0.5"),))
    """
    flat = (*texts, *(part for pair in attributes for part in pair))
    if any(len(text.splitlines()) > 1 or "\n" in text or not is_plain(text) for text in flat):
        raise EventFormatError(f"names and texts of weights are single lines of plain text, got {flat}")
    if any(not name or "=" in name for name, _ in attributes):
        raise EventFormatError(f"attributes of weights need names without '=', got {attributes}")


def ids_of(groups: Iterable[WeightGroup]) -> tuple[str, ...]:
    """The names of all weights, in the order of their columns.

    >>> ids_of([WeightGroup("", weights=(WeightInfo("a"), WeightInfo("b"))), WeightGroup("c")])
    ('a', 'b')
    """
    return tuple(weight_id for group in groups for weight_id in group.ids)


def only(groups: Iterable[WeightGroup], wanted: Iterable[str]) -> tuple[WeightGroup, ...]:
    """The groups with none but the wanted weights; those that lose all of them are left out.

    >>> only([WeightGroup("", weights=(WeightInfo("a"), WeightInfo("b"))), WeightGroup("c")], ["b"])[0].ids
    ('b',)
    """
    names = set(wanted)
    kept = [replace(group, weights=tuple(item for item in group.weights if item.id in names)) for group in groups]
    return tuple(group for group in kept if group.weights)
