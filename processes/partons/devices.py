"""Tables that follow the points: a copy on each device that was asked for."""

from __future__ import annotations

from typing import Generic, Protocol, Self, TypeVar

import torch


class Movable(Protocol):
    """What has a copy on another device.

    Examples
    --------
    >>> torch.zeros(2).to(torch.device("meta")).device.type
    'meta'
    """

    def to(self, device: torch.device) -> Self:
        """The same on another device."""


T = TypeVar("T", bound=Movable)


class OnDevices(Generic[T]):
    """Copies of tables, made when a device is asked for the first time.

    Parameters
    ----------
    original
        The tables.
    device
        Where they are.

    Examples
    --------
    >>> tables = OnDevices(torch.arange(3), torch.device("cpu"))
    >>> tables.on(torch.device("cpu")).tolist(), tables.on(torch.device("meta")).device.type
    ([0, 1, 2], 'meta')
    """

    def __init__(self, original: T, device: torch.device) -> None:
        self._copies = {device: original}

    def on(self, device: torch.device) -> T:
        """The tables on a device."""
        if device not in self._copies:
            self._copies[device] = next(iter(self._copies.values())).to(device)
        return self._copies[device]
