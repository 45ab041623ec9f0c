"""Training settings for tests, each by its own name, whichever part it belongs to."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from nisampler.training.config import ChannelSettings, ChoiceSettings, FlowSettings, TrainingConfig, TreeSettings

PARTS = {"flow": FlowSettings, "channels": ChannelSettings, "tree": TreeSettings, "choice": ChoiceSettings}


def training(**settings: Any) -> TrainingConfig:
    """`training(calls=6000, hidden=8, on=False)` is a `TrainingConfig` with its parts."""
    parts: dict[str, Any] = {}
    for name, kind in PARTS.items():
        own = {item.name: settings.pop(item.name) for item in fields(kind) if item.name in settings}
        parts |= {name: kind(**own)} if own else {}
    return TrainingConfig(**settings, **parts)
