"""Requests to end: once, as an exception, and not in the middle of what must not be cut."""

from __future__ import annotations

import gc
import signal
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from nisampler.base.signals import Terminated, ending_signals_raise, signals_wait
from nisampler.events import PointBatch, write_points


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_request_to_end_is_an_exception(number: signal.Signals) -> None:
    with pytest.raises(Terminated, match=number.name), ending_signals_raise():
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(number)  # does not cut the clearing up
    assert signal.getsignal(number) == signal.SIG_DFL


def test_what_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ending_signals_raise():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.mark.parametrize("error", [KeyboardInterrupt, Terminated])
def test_signals_wait_for_the_end(error: type[KeyboardInterrupt]) -> None:
    number = signal.SIGINT if error is KeyboardInterrupt else signal.SIGTERM
    steps = []
    with ending_signals_raise(), pytest.raises(error), signals_wait():
        signal.raise_signal(number)
        steps.append("done")
    assert steps == ["done"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_hdf5_is_not_left_half_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library crashes when an exception leaves a write: signals come between the steps."""
    from nisampler.base import hdf5_output

    write = hdf5_output._Stream.write

    def interrupted(self: hdf5_output._Stream, data: bytes) -> int:
        signal.raise_signal(signal.SIGINT)
        return write(self, data)

    monkeypatch.setattr(hdf5_output._Stream, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_points(tmp_path / "a.h5", (PointBatch(np.ones((5000, 2)), np.ones(5000)) for _ in range(3)))
    assert list(tmp_path.iterdir()) == []


def test_a_request_while_a_file_is_opened_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from nisampler.base import hdf5_output

    class Interrupted(h5py.File):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(hdf5_output.h5py, "File", Interrupted)
    with pytest.raises(KeyboardInterrupt), hdf5_output.new_hdf5(tmp_path / "a.h5"):
        pass
    gc.collect()
    assert list(tmp_path.iterdir()) == [] and capfd.readouterr().err == ""
