"""Settings every test shares: reproducible hypothesis, one torch thread, no display."""

from __future__ import annotations

import matplotlib
import torch
from hypothesis import HealthCheck, settings

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
