"""The production is collected where pythia8mc is installed."""

from __future__ import annotations

import importlib.util

collect_ignore = [] if importlib.util.find_spec("pythia8mc") else ["test_production.py"]
