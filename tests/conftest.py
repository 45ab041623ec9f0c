"""Settings every test shares: reproducible hypothesis, one torch thread, no display, shared helpers."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import matplotlib
import torch
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent / "helpers"))

# A shell that starts the tests in the background has them ignore SIGINT, and nohup SIGHUP.
signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGHUP, signal.SIGTERM):
    signal.signal(number, signal.SIG_DFL)

matplotlib.use("Agg")
torch.set_num_threads(1)

settings.register_profile(
    "nisampler",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("nisampler")
