"""The machine that a computation runs on: its device, and the threads of its CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nisampler.errors import ConfigError


def resolve_device(name: str | torch.device) -> torch.device:
    """The device of a name: "auto" is a GPU where there is one, and the CPU elsewhere.

    Raises
    ------
    ConfigError
        If the device is unknown or not there.

    Examples
    --------
    >>> resolve_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ConfigError(f"device {str(name)!r} is not available here; use 'auto', 'cpu' or 'cuda'") from error
    return device


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Let torch use `count` threads for a while.

    One is the default everywhere: the batches are small, more threads gain little, and where other work competes for
    the cores they wait for each other. It also makes results independent of the machine's number of cores.

    Raises
    ------
    ConfigError
        If the count is not positive.

    Examples
    --------
    >>> with cpu_threads(1):
    ...     torch.get_num_threads()
    1
    """
    if count < 1:
        raise ConfigError(f"threads must be at least 1, got {count}")
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
