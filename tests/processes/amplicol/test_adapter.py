"""The pyamplicol adapter with a stand-in for pyamplicol: cache, workers, errors, protocol. Live: benchmarks/."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nisampler.base.storage import read_sealed, write_sealed
from nisampler.errors import AmplitudeError, ConfigError, MissingExtraError, ShapeError, StorageError
from nisampler.processes.amplicol import AmplicolAmplitude
from nisampler.processes.amplicol.cache import MANIFEST, default_cache, open_artifact, request_for
from nisampler.processes.amplicol.couplings import ALPHA_S, model_parameters
from nisampler.processes.amplicol.evaluators import WorkerPool
from nisampler.processes.parameters import StandardModel
from nisampler.processes.particles import expression
from nisampler.processes.phase_space.rambo import RamboOnDiet

STAND_IN = Path(__file__).parent / "data" / "amplicol_stand_in"
PROCESS = "p p > e+ ve j"


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the stand-in first on the path; leave no module of it behind."""
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "pyamplicol"}
    symbolica = sys.modules.get("symbolica")
    monkeypatch.syspath_prepend(str(STAND_IN))
    monkeypatch.delenv("STAND_IN", raising=False)
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "pyamplicol"]:
        del sys.modules[name]
    sys.modules.update(before)
    if symbolica is None:
        sys.modules.pop("symbolica", None)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def points(legs: int, n: int) -> tuple[Tensor, Tensor]:
    space = RamboOnDiet([0.0] * legs)
    u = torch.rand(n, space.dim, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    beams = u.new_tensor([[250.0, 0, 0, 250.0], [250.0, 0, 0, -250.0]]).expand(n, 2, 4)
    return beams.contiguous(), space.forward(u, 500.0)[0]


def expected(amplitude: AmplicolAmplitude, incoming: Tensor, outgoing: Tensor, alpha_s: Tensor) -> Tensor:
    """The stand-in's formula, written out for every element."""
    momenta = torch.cat([incoming, outgoing], 1)
    mass_z = amplitude.model.mass_w / math.sqrt(1 - amplitude.model.sin2_theta_w)
    columns = []
    for element in amplitude.table.elements:
        moved = momenta[:, list(element.permutation)]
        reflected = -moved[:, 2, 2] if element.conjugated else moved[:, 2, 2]
        weights = torch.arange(1, moved.shape[1] + 1, dtype=torch.float64)
        name = sum(map(ord, expression(element.process)))
        columns.append(name + moved[..., 0] @ weights + 0.5 * torch.exp(reflected / 1000))
    return torch.stack(columns, 1) * mass_z * alpha_s.unsqueeze(1)


@pytest.mark.parametrize("workers", [0, 2])
def test_values_permutations_reflections_and_couplings(cache: Path, workers: int) -> None:
    amplitude = AmplicolAmplitude(PROCESS, cache=cache, workers=workers)
    incoming, outgoing = points(3, 2500)
    alpha_s = torch.linspace(0.05, 0.3, 2500, dtype=torch.float64)
    assert {element.conjugated for element in amplitude.table.elements} == {False, True}
    values = amplitude.squared(incoming, outgoing, alpha_s)
    assert values.shape == (2500, amplitude.elements) == (2500, 6)
    assert torch.allclose(values, expected(amplitude, incoming, outgoing, alpha_s), rtol=1e-12, atol=0)
    amplitude.close()
    assert torch.equal(amplitude.squared(incoming, outgoing, alpha_s), values)
    amplitude.close()


def test_no_points_and_strided_points(cache: Path) -> None:
    amplitude = AmplicolAmplitude(PROCESS, cache=cache)
    incoming, outgoing = points(3, 10)
    alpha_s = torch.full((10,), ALPHA_S, dtype=torch.float64)
    assert amplitude.squared(incoming[:0], outgoing[:0], alpha_s[:0]).shape == (0, 6)
    strided = outgoing.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    values = amplitude.squared(incoming, strided, alpha_s)
    assert torch.equal(values, amplitude.squared(incoming, outgoing, alpha_s))


def test_wrong_shapes_and_elements_are_named(cache: Path) -> None:
    amplitude = AmplicolAmplitude(PROCESS, cache=cache)
    incoming, outgoing = points(3, 4)
    alpha_s = torch.ones(4, dtype=torch.float64)
    with pytest.raises(ShapeError, match=r"\(n, 3, 4\)"):
        amplitude.squared(incoming, outgoing[:, :2], alpha_s)
    with pytest.raises(AmplitudeError, match="elements 0 to 5"):
        amplitude.colour_flows(6, incoming, outgoing, alpha_s)


@pytest.mark.parametrize("workers", [0, 1])
def test_colour_flows_conserve_colour_in_every_subprocess(cache: Path, workers: int) -> None:
    amplitude = AmplicolAmplitude("u d~ > e+ ve g g", cache=cache, workers=workers)
    incoming, outgoing = points(4, 6)
    weights, tags = amplitude.colour_flows(0, incoming, outgoing, torch.full((6,), ALPHA_S, dtype=torch.float64))
    assert torch.allclose(weights[:, 1], 2 * weights[:, 0])
    assert (weights > 0).all()
    # Incoming u (colour), incoming dbar (anticolour), leptons, gluons: the string runs dbar - g - g - u.
    assert tags[0].tolist() == [[503, 0], [0, 501], [0, 0], [0, 0], [502, 501], [503, 502]]
    assert tags[1].tolist() == [[503, 0], [0, 501], [0, 0], [0, 0], [503, 502], [502, 501]]
    amplitude.close()


def test_colour_tags_fit_the_flavours_of_each_element(cache: Path) -> None:
    amplitude = AmplicolAmplitude(PROCESS, cache=cache)
    incoming, outgoing = points(3, 2)
    for one in amplitude.subprocesses:
        _, tags = amplitude.colour_flows(one.element, incoming, outgoing, torch.ones(2, dtype=torch.float64))
        for flow in tags.tolist():
            for code, (colour, anticolour) in zip((*one.initial, *one.final), flow, strict=True):
                assert (colour > 0) == (code == 21 or 1 <= code <= 6)
                assert (anticolour > 0) == (code == 21 or -6 <= code <= -1)


def test_the_cache_is_used_again_and_shared_by_w_plus_and_w_minus(cache: Path) -> None:
    told: list[str] = []
    AmplicolAmplitude(PROCESS, cache=cache, on_progress=told.append)
    assert any("generating 2 matrix elements" in text for text in told)
    assert [text for text in told if "jit" in text] == ["generation:jit 1/2", "generation:jit 2/2"]
    told.clear()
    AmplicolAmplitude(PROCESS, cache=cache, on_progress=told.append)
    AmplicolAmplitude("p p > e- ve~ j", cache=cache, on_progress=told.append)
    assert told == []
    assert not list(cache.glob(".partial-*"))


def spoil_content(folder: Path) -> None:
    (folder / "artifact" / "artifact.json").write_text("{}")


def spoil_version(folder: Path) -> None:
    manifest = read_sealed(folder / MANIFEST)
    manifest["request"]["pyamplicol"] = "0.9"
    write_sealed(folder / MANIFEST, manifest)


def spoil_record(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"] = {}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def spoil_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text('{"format":')


def spoil_files(folder: Path) -> None:
    (folder / MANIFEST).unlink()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_content, "artifact/artifact.json missing, added or altered"),
        (spoil_version, "describes another artifact"),
        (spoil_record, "was altered, its checksum does not match"),
        (spoil_manifest, "is not JSON"),
        (spoil_files, "cannot read"),
    ],
)
def test_a_damaged_cache_is_named_and_made_again(cache: Path, spoil: Callable[[Path], None], reason: str) -> None:
    request = request_for(("u d~ > e+ ve",), "full")
    told: list[str] = []
    folder = open_artifact(request, cache, lambda path: None).parent
    spoil(folder)
    assert open_artifact(request, cache, lambda path: None, told.append).parent == folder
    assert "made again" in told[0] and reason in told[0]
    told.clear()
    open_artifact(request, cache, lambda path: None, told.append)
    assert told == []


def test_a_failed_check_and_a_killed_generation_leave_nothing(cache: Path) -> None:
    def refuse(path: Path) -> None:
        raise AmplitudeError("not this one")

    request = request_for(("u d~ > e+ ve",), "full")
    (cache / ".partial-of-a-killed-run").mkdir(parents=True)
    with pytest.raises(AmplitudeError, match="not this one"):
        open_artifact(request, cache, refuse)
    assert [path.name for path in cache.iterdir()] == ["generate.lock"]


def test_requests_differ_by_all_that_matters() -> None:
    one = request_for(("u d~ > e+ ve",), "full")
    assert one.key == request_for(("u d~ > e+ ve",), "full").key
    assert len({one.key, request_for(("u d~ > e+ ve",), "lc").key, request_for(("u s~ > e+ ve",), "full").key}) == 3
    assert one.pyamplicol == "1.0.1"


def test_a_second_generation_waits_for_the_first(cache: Path) -> None:
    cache.mkdir()
    told: list[str] = []
    with (cache / "generate.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        def release(text: str) -> None:
            told.append(text)
            fcntl.flock(lock, fcntl.LOCK_UN)

        open_artifact(request_for(("u d~ > e+ ve",), "full"), cache, lambda path: None, release)
    assert told[0].startswith("waiting for another generation")


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        open_artifact(request_for(("u d~ > e+ ve",), "full"), tmp_path / "file" / "cache", lambda path: None)


def test_the_default_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NISAMPLER_CACHE", str(tmp_path))
    assert default_cache() == tmp_path / "amplicol"
    monkeypatch.delenv("NISAMPLER_CACHE")
    assert default_cache() == Path.home() / ".cache" / "nisampler" / "amplicol"


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("abort", r"killed by signal 6.*one process of a user at a time"),
        ("refuse", r"exit code 3.*no such vertex"),
        ("power", r"alpha_s\^0 instead of alpha_s\^1"),
        ("zero", "no tree matrix element at leading order"),
    ],
)
def test_a_generation_that_fails_says_why(
    cache: Path, monkeypatch: pytest.MonkeyPatch, mode: str, message: str
) -> None:
    monkeypatch.setenv("STAND_IN", mode)
    with pytest.raises(AmplitudeError, match=f"(?s){message}"):
        AmplicolAmplitude(PROCESS, cache=cache)
    assert not list(cache.glob("*/manifest.json"))


def test_without_pyamplicol_the_extra_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[sm\]"):
        AmplicolAmplitude(PROCESS, cache=cache)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_failing_evaluation_is_named_and_the_next_one_works(
    cache: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    amplitude = AmplicolAmplitude(PROCESS, cache=cache, workers=workers)
    incoming, outgoing = points(3, 5)
    alpha_s = torch.ones(5, dtype=torch.float64)
    monkeypatch.setenv("STAND_IN", "raise")
    with pytest.raises(AmplitudeError, match="a broken kernel"):
        amplitude.squared(incoming, outgoing, alpha_s)
    monkeypatch.delenv("STAND_IN")
    assert (amplitude.squared(incoming, outgoing, alpha_s) > 0).all()
    amplitude.close()


def test_the_death_of_a_worker_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    amplitude = AmplicolAmplitude(PROCESS, cache=cache, workers=2)
    monkeypatch.setenv("STAND_IN", "die")
    incoming, outgoing = points(3, 5)
    with pytest.raises(AmplitudeError, match="killed by signal 9"):
        amplitude.squared(incoming, outgoing, torch.ones(5, dtype=torch.float64))


def test_an_artifact_without_the_process_is_named(cache: Path) -> None:
    artifact = open_artifact(request_for(("u d~ > e+ ve",), "full"), cache, lambda path: None)
    pool = WorkerPool({"artifact": str(artifact), "parameters": {}}, 1)
    with pytest.raises(AmplitudeError, match=r"c s~ > e\+ ve is not in"):
        pool.words("c s~ > e+ ve")


def test_an_interpreter_that_cannot_run(cache: Path) -> None:
    pool = WorkerPool({"artifact": "nowhere", "parameters": {}}, 1, interpreter=str(cache / "python"))
    with pytest.raises(AmplitudeError, match=r"interpreter .* cannot run"):
        pool.words("u d~ > e+ ve")


PARENT = """
import sys
from pathlib import Path
from nisampler.processes.amplicol.evaluators import WorkerPool
pool = WorkerPool({"artifact": sys.argv[1], "parameters": {}}, 2)
pool.words("u d~ > e+ ve")
print(*[one.process.pid for one in pool._workers], flush=True)
sys.stdin.read()
"""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_workers_end_with_a_killed_parent(cache: Path) -> None:
    artifact = open_artifact(request_for(("u d~ > e+ ve",), "full"), cache, lambda path: None)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(artifact)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(workers) == 2 and all(map(is_alive, workers))
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 15
    while any(map(is_alive, workers)) and time.monotonic() < deadline:
        os.sched_yield()
    assert not any(map(is_alive, workers))


def test_another_thread_is_refused_in_this_process_and_served_by_workers(cache: Path) -> None:
    incoming, outgoing = points(3, 3)
    alpha_s = torch.ones(3, dtype=torch.float64)

    def in_a_thread(amplitude: AmplicolAmplitude) -> list[Any]:
        amplitude.squared(incoming, outgoing, alpha_s)
        caught: list[Any] = []

        def run() -> None:
            try:
                caught.append(amplitude.squared(incoming, outgoing, alpha_s))
            except AmplitudeError as error:
                caught.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        amplitude.close()
        return caught

    assert "workers to 1 or more" in str(in_a_thread(AmplicolAmplitude(PROCESS, cache=cache))[0])
    assert isinstance(in_a_thread(AmplicolAmplitude(PROCESS, cache=cache, workers=1))[0], Tensor)


@pytest.mark.parametrize("workers", [-1, 1.0, True])
def test_bad_numbers_of_workers(cache: Path, workers: Any) -> None:
    with pytest.raises(ConfigError, match="workers"):
        AmplicolAmplitude(PROCESS, cache=cache, workers=workers)
    if workers is not True:
        with pytest.raises(ConfigError, match="workers"):
            WorkerPool({}, workers)


def test_both_heavy_bosons_need_a_choice(cache: Path) -> None:
    with pytest.raises(AmplitudeError, match="set derived_mass"):
        AmplicolAmplitude("p p > W+ W-", cache=cache)
    with pytest.raises(ConfigError, match="derived_mass"):
        AmplicolAmplitude("p p > W+ W-", cache=cache, derived_mass="H")  # type: ignore[arg-type]


def test_parameters_give_back_the_couplings_and_the_mass() -> None:
    model = StandardModel()
    for boson, kept in (("W", model.mass_w), ("Z", model.mass_z)):
        values = model_parameters(model, boson)  # type: ignore[arg-type]
        alpha, mass_z = 1 / values["aEWM1"], values["MZ"]
        mass_w2 = mass_z**2 / 2 + np.sqrt(mass_z**4 / 4 - np.pi * alpha * mass_z**2 / (np.sqrt(2) * values["Gf"]))
        assert 1 - mass_w2 / mass_z**2 == pytest.approx(model.sin2_theta_w, rel=1e-12)
        assert alpha == pytest.approx(model.alpha_em, rel=1e-12)
        assert (np.sqrt(mass_w2) if boson == "W" else mass_z) == pytest.approx(kept, rel=1e-12)
    with pytest.raises(AmplitudeError, match="below 1/2"):
        model_parameters(StandardModel(sin2_theta_w=0.6), "W")
