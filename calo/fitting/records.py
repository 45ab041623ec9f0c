"""What is told of the training of a part: its epochs and its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nisampler.calo.recipe import Part

RECORD = "training.json"
Watch = Callable[[str, "EpochRecord", float], object]
"""What is told of each epoch that is over: the name of the part, the record, and the seconds that it took."""


@dataclass(frozen=True)
class EpochRecord:
    """One pass: mean training loss and its terms, validation loss, last learning rate, largest gradient norm.

    Examples
    --------
    >>> EpochRecord(1, 0.5, 0.6, 1e-3, 2.0, {"kl": 0.1}).terms
    {'kl': 0.1}
    """

    epoch: int
    loss: float
    validation: float
    learning_rate: float
    gradient: float
    terms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PartResult:
    """How the training of a part went.

    Examples
    --------
    >>> PartResult("total", 1, 0.6, 0, [EpochRecord(1, 0.5, 0.6, 1e-3, 2.0)], []).figures()
    {'epoch': '1', 'loss': '0.5', 'validation': '0.6', 'best': '0.6'}
    """

    name: str
    best_epoch: int
    best_loss: float
    roll_backs: int
    history: list[EpochRecord]
    warnings: list[str]

    @classmethod
    def of(cls, name: str, meta: Mapping[str, Any]) -> PartResult:
        """The result that the metadata of a part's last checkpoint tells."""
        history = [EpochRecord(**record) for record in meta["history"]]
        return cls(
            name, meta["best_epoch"], meta["best_loss"], meta["roll_backs"]["count"], history, list(meta["warnings"])
        )

    def figures(self) -> dict[str, str]:
        """Epochs and losses for a monitor."""
        last = self.history[-1]
        shown = {"loss": last.loss, "validation": last.validation, "best": self.best_loss}
        return {"epoch": f"{len(self.history)}"} | {name: f"{value:.5g}" for name, value in shown.items()}


def stage_of(part: Part) -> str:
    """What monitors call the training of a part.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> stage_of(SimpleNamespace(name="layer-3"))
    'fit layer-3'
    """
    return f"fit {part.name}"
