"""Where the CPU-seconds of a training go."""

from __future__ import annotations

import re
import time

import torch

from nisampler.base.rng import Streams
from nisampler.density.integrand import Integrand
from nisampler.training import spent
from nisampler.training.config import FlowSettings, TrainingConfig
from nisampler.training.trainer import Trainer
from nisampler.ui.monitor import Monitor


class Lines(Monitor):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, text: str) -> None:
        self.lines.append(text)


def test_a_training_says_at_its_end_where_they_went() -> None:
    integrand = Integrand(lambda x: x[:, 0] ** 2 * (1 + torch.sin(5 * x[:, 1])), 2, kind="torch")
    flow = FlowSettings(fourier=0, bins=4, hidden=8, layers=1)
    monitor = Lines()
    Trainer(integrand, TrainingConfig(calls=2000, sampler="flow", flow=flow), Streams(1), monitor=monitor).fit()
    (line,) = monitor.lines
    assert re.fullmatch(r"CPU-seconds of the training: functions \d+\.\d, networks \d+\.\d, rest \d+\.\d", line)


def test_parts_are_counted_where_somebody_measures() -> None:
    with spent.timed("functions"):
        time.process_time()
    with spent.measured() as seconds:
        with spent.timed("networks"):
            start = time.process_time()
            while time.process_time() < start + 0.01:
                pass
        assert seconds["networks"] >= 0.01
    assert seconds["functions"] == 0.0
    assert seconds["total"] >= seconds["networks"]
