"""Comparisons with Pythia are collected where pythia8mc is installed."""

from __future__ import annotations

import importlib.util

collect_ignore: list[str] = []
if importlib.util.find_spec("pythia8mc") is None:
    collect_ignore += ["hadron/test_lhc_pythia.py", "hadron/test_z_prime_pulls.py", "partons/test_pdf_pythia.py"]
