"""Named weights in an LHE file, and what its header tells: ``<initrwgt>``, ``<rwgt>`` and the texts of ``<nisampler>``.

Groups and attributes of weights are those that MadGraph writes, and each event lists every id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nisampler.errors import EventFormatError
from nisampler.events.text.preamble import HEADER_TAG, TOTAL
from nisampler.events.weights import Attributes, WeightGroup, WeightInfo


def read_header_block(header: Any) -> tuple[dict[str, str], dict[str, Any]]:
    """The attributes of our element, and texts and groups of weights as `InitInfo` takes them; none without a header.

    >>> read_header_block(None)
    ({}, {'header': (), 'weight_groups': (), 'total': None})
    """
    attributes: dict[str, str] = {}
    texts: dict[str, str] = {}
    for element in header.extra_elements if header else ():
        if element.tag == HEADER_TAG:
            attributes = dict(element.attrib)
            texts = {item.tag: item.text or "" for item in element}
    groups: list[WeightGroup] = []
    seen: set[str] = set()
    for entry in header.initrwgt.entries if header else ():
        group = _group_of(entry)
        # Of weights of one id the first is declared.
        first = {item.id: item for item in reversed(group.weights) if item.id not in seen}
        seen.update(first)
        groups.append(replace(group, weights=tuple(reversed(first.values()))))
    told = tuple(group for group in groups if group.weights)
    total = tuple(float(attributes[name]) for name in TOTAL) if TOTAL[0] in attributes else None
    return attributes, {"header": tuple(texts.items()), "weight_groups": told, "total": total}


def _group_of(entry: Any) -> WeightGroup:
    """A group of pylhe, or a weight that stands outside of groups."""
    weights = getattr(entry, "weights", [entry])
    infos = tuple(WeightInfo(item.id, _line(item.name), _pairs(item.extra_attributes)) for item in weights)
    if weights == [entry]:
        return WeightGroup("", weights=infos)
    # MadGraph once wrote the name of a group as its type.
    more = dict(entry.extra_attributes)
    name = entry.name or more.pop("type", "")
    return WeightGroup(_line(name), _line(entry.combine or ""), infos, _pairs(more))


def _line(text: str) -> str:
    return " ".join(text.split())


def _pairs(attributes: dict[str, str]) -> Attributes:
    return tuple((name, _line(text)) for name, text in attributes.items())


def listed(groups: Sequence[WeightGroup], record: Any) -> tuple[str, ...]:
    """Ids of the declared weights that an event of pylhe lists: others declare weights and then write none.

    >>> from types import SimpleNamespace
    >>> groups = [WeightGroup("", weights=(WeightInfo("1"), WeightInfo("2")))]
    >>> listed(groups, SimpleNamespace(weights={"2": 0.5, "3": 0.1}))
    ('2',)
    """
    return tuple(item.id for group in groups for item in group.weights if item.id in record.weights)


def named_weights(records: Sequence[Any], ids: Sequence[str], start: int) -> dict[str, NDArray[np.float64]]:
    """The column of the weights with these ids from pylhe's events; `start` events came before.

    Raises
    ------
    EventFormatError
        If an event lacks one; both are named.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> named_weights([SimpleNamespace(weights={"1": 0.5})], ["1"], 0)
    {'named_weights': array([[0.5]])}
    """
    if not ids:
        return {}
    rows = []
    for index, record in enumerate(records):
        try:
            rows.append([record.weights[name] for name in ids])
        except KeyError as error:
            raise EventFormatError(f"event {start + index + 1} lacks the weight {error}, which others have") from error
    return {"named_weights": np.array(rows)}
