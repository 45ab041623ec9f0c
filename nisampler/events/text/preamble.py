"""What stands before the events of a Les Houches file: ``<header>`` and ``<init>``.

The layout is that of hep-ph/0609017 and, for the names of weights, of 1405.1067.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement, indent, tostring
from xml.sax.saxutils import quoteattr

from nisampler._version import __version__
from nisampler.events.info import InitInfo
from nisampler.events.weights import Attributes, WeightGroup

HEADER_TAG = "nisampler"
"""The element of the header that holds what a file of ours tells of itself."""
TOTAL = ("cross_section", "error")
"""Its attributes for the total cross-section, where it is known."""
ROOT_END = "</LesHouchesEvents>"
"""What stands after the events."""


def preamble(info: InitInfo, n_events: int | None = None) -> str:
    """The text of a file up to its first event.

    Parameters
    ----------
    info
        Beams in GeV, cross-sections in pb, names of weights and texts.
    n_events
        Number of events that the file declares, if it is known.

    Examples
    --------
    >>> from nisampler.events.info import ProcessInfo
    >>> info = InitInfo((11, -11), (5.0, 5.0), (ProcessInfo(1.5, 0.1),), version="1", header=(("process", "e & e"),))
    >>> print(preamble(info, 20))
    <LesHouchesEvents version="3.0">
    <header>
      <nisampler events="20">
        <process>e &amp; e</process>
      </nisampler>
    </header>
    <BLANKLINE>
    <init>
    11 -11 5.0000000000000000e+00 5.0000000000000000e+00 0 0 0 0 3 1
    1.5000000000000000e+00 1.0000000000000001e-01 1.0000000000000000e+00 1
    <generator name="nisampler" version="1"></generator>
    </init>
    <BLANKLINE>
    """
    energies = " ".join(f"{energy:.16e}" for energy in info.beam_energies)
    codes = [*info.pdf_groups, *info.pdf_sets, info.strategy, len(info.processes)]
    lines = [
        '<LesHouchesEvents version="3.0">',
        _header(info, n_events),
        "<init>",
        f"{info.beam_ids[0]} {info.beam_ids[1]} {energies} {' '.join(map(str, codes))}",
    ]
    for item in info.processes:
        lines.append(f"{item.cross_section:.16e} {item.error:.16e} {item.max_weight:.16e} {item.process_id}")
    version = quoteattr(info.version or __version__)
    lines += [f"<generator name={quoteattr(info.generator)} version={version}></generator>", "</init>", ""]
    return "\n".join(lines)


def _header(info: InitInfo, n_events: int | None) -> str:
    root = Element("header")
    own = SubElement(root, HEADER_TAG, {} if n_events is None else {"events": str(n_events)})
    if info.total is not None:
        own.attrib.update(zip(TOTAL, map(repr, info.total), strict=True))
    for name, text in info.header:
        SubElement(own, name).text = text
    if info.weight_groups:
        named = SubElement(root, "initrwgt")
        for group in info.weight_groups:
            _add_weights(named, group)
    indent(root)
    return tostring(root, encoding="unicode") + "\n"


def _add_weights(parent: Element, group: WeightGroup) -> None:
    """Name the weights of a group below `parent`; those without a group have none around them."""
    if group.name:
        known = {"name": group.name, **({"combine": group.combine} if group.combine else {})}
        parent = SubElement(parent, "weightgroup", _others(group.attributes, known) | known)
    for weight in group.weights:
        known = {"id": weight.id}
        SubElement(parent, "weight", _others(weight.attributes, known) | known).text = weight.text


def _others(attributes: Attributes, known: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in attributes if name not in known}
