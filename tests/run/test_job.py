"""From card to process: look-up, parameters, formats, devices."""

from __future__ import annotations

from importlib.metadata import EntryPoints
from pathlib import Path

import pytest
import torch

from nisampler.base.device import cpu_threads
from nisampler.base.estimate import Estimate
from nisampler.errors import CardError, MissingExtraError, ProcessError, UnknownProcessError
from nisampler.run import lookup
from nisampler.run.card import parse_card
from nisampler.run.job import Job, build_job, card_device

OWN = """
import math
dim = 2

class Bump:
    dim = 2
    def __init__(self, width: float = 0.3) -> None:
        self.width = width
    def __call__(self, x):
        return (-((x - 1.0) ** 2).sum(1) / self.width**2).exp()
"""


def job_of(text: str) -> Job:
    card = parse_card(text)
    return build_job(card, lookup.absolute(card.process), "cpu")


def test_available_lists_the_registry() -> None:
    assert {"ee_to_3jets", "gauss"} <= lookup.available().keys() or "gauss4" in lookup.available()


def test_unknown_process_suggests_a_name() -> None:
    with pytest.raises(UnknownProcessError, match=r"Did you mean 'ee_to_3jets'\?"):
        lookup.create("ee_to_3jet")
    with pytest.raises(CardError, match=r"process: no process 'ee_to_3jet'"):
        job_of('process = "ee_to_3jet"')


def test_wrong_parameters_are_named() -> None:
    with pytest.raises(CardError, match=r"parameters: .*y_cutt"):
        job_of('process = "ee_to_3jets"\n[parameters]\ny_cutt = 0.1')
    with pytest.raises(CardError, match=r"parameters: .*y_cut"):
        job_of('process = "ee_to_3jets"\n[parameters]\ny_cut = 0.5')


def test_missing_registry_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "entry_points", lambda **_: EntryPoints())
    with pytest.raises(ProcessError, match=r"entry point 'available' of the group 'nisampler\.processes'"):
        lookup.available()


def test_own_callable_on_a_domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    assert lookup.absolute("own.py:Bump") == f"{tmp_path.resolve()}/own.py:Bump"
    assert lookup.absolute("own:Bump") == "own:Bump"
    head = 'process = "own.py:Bump"\n[parameters]\nwidth = 0.5\n'
    job = job_of(head + "[integrand]\ndomain = [[0, 2], [0.5, 1.5]]")
    u = torch.tensor([[0.5, 0.5], [0.0, 0.5]], dtype=torch.float64)
    assert job.integrand(u).tolist() == pytest.approx([2.0, 2.0 * torch.e**-4])
    assert job.formats == ("h5",)
    with pytest.raises(CardError, match=r"\[integrand\]: domain has 1 intervals"):
        job_of(head + "[integrand]\ndomain = [[0, 2]]")
    with pytest.raises(CardError, match=r"events\.weights: .* no event record"):
        job_of(head + "[events]\nweights = 'average'")
    assert not job.average and job.record_calls(10) == 0
    with pytest.raises(CardError, match=r"events\.formats = \['lhe'\]: .* no event record"):
        job_of(head + "[events]\nformats = ['lhe']")


def test_process_with_events() -> None:
    job = job_of('process = "ee_to_3jets"')
    assert job.formats == ("lhe.gz",)
    assert job.average and job.record_calls(10) == 10
    assert not job_of('process = "ee_to_3jets"\n[events]\nweights = "unit"').average
    info = job.init_info(Estimate(3.0, 0.1, 10), signed=True)
    assert (info.beam_ids, info.strategy, info.cross_section) == ((11, -11), -3, 3.0)
    assert job.init_info(Estimate(3.0, 0.1, 10), signed=False).strategy == 3
    with pytest.raises(CardError, match=r"integrand\.domain"):
        job_of('process = "ee_to_3jets"\n[integrand]\ndomain = [[0, 1], [0, 1], [0, 1], [0, 1], [0, 1]]')


def test_lhe_without_pylhe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"lheh5 needs pylhe: pip install .*\[lhe\]"):
        job_of('process = "ee_to_3jets"\n[events]\nformats = ["lheh5"]')
    assert job_of('process = "ee_to_3jets"').formats == ("lhe.gz",)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[hepmc\]"):
        job_of('process = "ee_to_3jets"\n[events]\nformats = ["hepmc"]')


OTHER_UNIT = """
class Process:
    dim = 2
    unit = "nb"
    def __call__(self, u):
        return u.sum(1)
    def events(self, u, weights, generator):
        raise RuntimeError
"""


def test_events_need_beams_and_picobarns(tmp_path: Path) -> None:
    (tmp_path / "nanobarn.py").write_text(OTHER_UNIT)
    with pytest.raises(CardError, match="needs beams and the unit pb, not 'nb'"):
        job_of(f'process = "{tmp_path}/nanobarn.py:Process"')


def test_devices_and_threads() -> None:
    assert card_device("cpu") == "cpu"
    assert card_device("auto") in ("cpu", "cuda")
    with pytest.raises(CardError, match="'cuda:99'"):
        card_device("cuda:99")
    before = torch.get_num_threads()
    with cpu_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
