"""Published fidelity and speed of models of the CaloChallenge (2410.21611), to be seen beside one's own.

They are of other hardware, of Geant4 showers and of the challenge's low-level classifier in ten trainings. The times
are its measurements on a CPU, from the start of the program to the finished file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

GEANT4 = "Geant4"
"""Geant4 against Geant4: the floor."""


@dataclass(frozen=True)
class Speed:
    """How well and how fast a model makes showers.

    Attributes
    ----------
    auc, error
        Mean area under the ROC curve of the trainings of a classifier, and their standard deviation; None for one.
    milliseconds
        For each shower, by device and batch size.

    Examples
    --------
    >>> PUBLISHED["ds1-photons"]["CaloINN"].auc
    0.6259
    """

    auc: float
    error: float | None
    milliseconds: Mapping[tuple[str, int], float] = field(default_factory=dict)


def _cpu(auc: float, error: float, one: float, hundred: float, most: float | None) -> Speed:
    """Times in batches of 1, 100 and 10000; None where it did not run."""
    times = {("cpu", 1): one, ("cpu", 100): hundred, ("cpu", 10_000): most}
    return Speed(auc, error, {key: value for key, value in times.items() if value is not None})


PUBLISHED: Mapping[str, Mapping[str, Speed]] = MappingProxyType(
    {
        "ds1-photons": {
            GEANT4: Speed(0.4992, 0.0024),
            "CaloINN": _cpu(0.6259, 0.0042, 37.9, 2.78, 2.88),
            "CaloDiffusion": _cpu(0.6346, 0.0028, 15700, 4270, 4500),
            "CaloFlow teacher": _cpu(0.7330, 0.0035, 42900, 2050, 1910),
            "CaloScore": _cpu(0.7515, 0.0024, 19300, 9420, 12900),
            "CaloFlow student": _cpu(0.7606, 0.0023, 576, 11.1, 6.11),
            "CaloScore single-shot": _cpu(0.8656, 0.0027, 223, 20.5, 19.8),
            "CaloVAE+INN": _cpu(0.8888, 0.0028, 38, 1.58, 1.2),
        },
        "ds1-pions": {
            GEANT4: Speed(0.6089, 0.0035),
            "DNN CaloSim": _cpu(0.6764, 0.0037, 3.85, 0.465, 0.387),
            "CaloDiffusion": _cpu(0.6804, 0.0021, 15100, 4570, 4500),
            "CaloINN": _cpu(0.7841, 0.0024, 42.8, 3.92, 4.57),
            "CaloGraph": _cpu(0.8112, 0.0049, 3170, 1260, 2420),
            "CaloFlow teacher": _cpu(0.8447, 0.0026, 198000, 5430, 3510),
            "CaloVAE+INN": _cpu(0.8528, 0.0034, 40.8, 1.72, 1.2),
            "CaloFlow student": _cpu(0.8838, 0.0017, 620, 14.2, 10.2),
        },
        "ds2": {
            GEANT4: Speed(0.4996, 0.0024),
            "CaloDREAM": _cpu(0.5308, 0.0032, 16900, 5050, 5730),
            "CaloDiffusion": _cpu(0.5766, 0.0039, 36500, 23300, None),
            "CaloScore": _cpu(0.5946, 0.0035, 134000, 148000, None),
            "SuperCalo": _cpu(0.6936, 0.0063, 398000, 7990, 7610),
            "conv. L2LFlows": _cpu(0.7083, 0.0041, 1970, 121, 89.2),
            "CaloINN": _cpu(0.7426, 0.0023, 388, 59.7, 46.2),
            "iCaloFlow teacher": _cpu(0.7625, 0.0039, 250000, 11600, 8180),
            "iCaloFlow student": _cpu(0.8186, 0.0044, 3050, 135, 77.6),
            "CaloPointFlow": _cpu(0.8634, 0.0051, 155, 161, 133),
            "CaloVAE+INN": _cpu(0.9070, 0.0041, 64.1, 4.6, 3.38),
        },
        "ds3": {
            GEANT4: Speed(0.4975, 0.0021),
            "CaloDiffusion": _cpu(0.5613, 0.0026, 205000, 269000, None),
            "conv. L2LFlows": _cpu(0.5876, 0.0042, 2360, 340, 429),
            "CaloDREAM": _cpu(0.6300, 0.0051, 33300, 32100, None),
            "CaloPointFlow": _cpu(0.7200, 0.0123, 302, 308, None),
            "L2LFlows MAF": _cpu(0.7203, 0.0159, 880000, 141000, None),
            "CaloVAE+INN": _cpu(0.8812, 0.0046, 90.6, 13.6, 16.2),
            "iCaloFlow student": _cpu(0.8909, 0.0034, 20200, 455, 446),
            "iCaloFlow teacher": _cpu(0.9110, 0.0027, 15500000, 439000, None),
        },
    }
)
"""By geometry and model."""
