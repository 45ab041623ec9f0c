"""Jets of Pythia and FastJet in the layout of JetNet: their constituents make up what FastJet says of the jet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nisampler.calo.jets.files import read_jets
from nisampler.calo.jets.jets import RADIUS
from nisampler.calo.jets.kinematics import totals

SCRIPT = Path(__file__).parents[2] / "examples" / "pythia_jets.py"


def test_jets_of_pythia_are_those_of_fastjet(tmp_path: Path) -> None:
    pytest.importorskip("pythia8mc", exc_type=ImportError)
    pytest.importorskip("fastjet", exc_type=ImportError)
    words = ["jets.hdf5", "--jets", "12", "--constituents", "200", "--types", "g,t", "--hard-only"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    jets = read_jets(tmp_path / "jets.hdf5")
    assert jets.types.tolist() == [0, 2] * 6 and jets.count.min() > 5
    pt, mass = totals(jets.constituents)
    np.testing.assert_allclose(pt, 1.0, atol=0.01)
    assert np.all((jets.pt > 800) & (jets.pt < 1300) & (np.abs(jets.eta) < 2.5))
    # FastJet's mass has the masses of the constituents, too.
    np.testing.assert_allclose(mass * jets.pt, jets.mass, rtol=0.25)
    hard = jets.constituents[..., 2] > 0.02
    assert np.hypot(jets.constituents[..., 0], jets.constituents[..., 1])[hard].max() < 1.1 * RADIUS
    assert np.all(np.diff(jets.constituents[..., 2], axis=1) <= 0)
