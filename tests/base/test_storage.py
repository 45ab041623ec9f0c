"""Atomic files, strict JSON, checksums, and checkpoints that survive a kill and refuse damage."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nisampler.base.checkpoints import MANIFEST_NAME, has_checkpoint, load_checkpoint, save_checkpoint
from nisampler.base.storage import STALE_SUFFIX, atomic_write, read_json, remove_stale, sha256, write_json
from nisampler.errors import CorruptFileError, StorageError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_atomic_write_replaces(tmp_path):
    path = tmp_path / "a.bin"
    for content in (b"old", b"new"):
        with atomic_write(path) as handle:
            handle.write(content)
            if path.exists():
                assert path.read_bytes() == b"old"
        assert path.read_bytes() == content
    with atomic_write(tmp_path / "a.txt", "w") as handle:
        handle.write("σ = 1 pb\n")
    assert (tmp_path / "a.txt").read_bytes() == "σ = 1 pb\n".encode()
    assert names(tmp_path) == ["a.bin", "a.txt"]


@pytest.mark.parametrize("error", (ValueError, KeyboardInterrupt, SystemExit))
def test_an_exception_leaves_the_target_untouched(error, tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    for target in (path, tmp_path / "b.bin"):
        with pytest.raises(error), atomic_write(target) as handle:
            handle.write(b"half of the new")
            raise error
    assert names(tmp_path) == ["a.bin"] and path.read_bytes() == b"old"


def test_atomic_write_names_what_is_wrong(tmp_path):
    with pytest.raises(StorageError, match="cannot write"), atomic_write(tmp_path / "no" / "a"):
        pass
    with pytest.raises(StorageError, match="must contain 'w'"), atomic_write(tmp_path / "a", "ab"):
        pass
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="it is a folder"), atomic_write(tmp_path / "folder") as handle:
        handle.write(b"")
    assert names(tmp_path) == ["folder"]


def test_remove_stale(tmp_path):
    with atomic_write(tmp_path / "living") as handle:
        handle.write(b"x")
        for name in ("kept.json", f".a.json.12{STALE_SUFFIX}", f".b.34{STALE_SUFFIX}"):
            (tmp_path / name).write_bytes(b"x")
        assert len(remove_stale(tmp_path)) == 2
    assert names(tmp_path) == ["kept.json", "living"]
    assert remove_stale(tmp_path / "missing") == []


DYING = """
import os, signal, sys
from nisampler.base.storage import atomic_write
with atomic_write(sys.argv[1]) as handle:
    handle.write(b"half")
    handle.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_next_writer_takes_away_what_a_killed_one_left(tmp_path):
    died = subprocess.run([sys.executable, "-c", DYING, str(tmp_path / "a")])
    assert died.returncode == -signal.SIGKILL and len(names(tmp_path)) == 1
    with atomic_write(tmp_path / "b") as handle:
        handle.write(b"whole")
    assert names(tmp_path) == ["b"]


def test_json_is_deterministic_and_strict(tmp_path):
    one, two = tmp_path / "1.json", tmp_path / "2.json"
    write_json(one, {"b": [1, 2.5, None], "a": "Γ"})
    write_json(two, {"a": "Γ", "b": [1, 2.5, None]})
    assert one.read_bytes() == two.read_bytes() and one.read_bytes().endswith(b"}\n")
    assert read_json(one) == {"a": "Γ", "b": [1, 2.5, None]}
    before = one.read_bytes()
    for data in ({"x": float("nan")}, [float("inf")], {"x": object()}):
        with pytest.raises(StorageError, match="cannot be written as JSON"):
            write_json(one, data)
    assert one.read_bytes() == before
    for content in (before[:-4], b"", b'{"a": NaN}', b"\xff\xfe", b"{}{}"):
        one.write_bytes(content)
        with pytest.raises(CorruptFileError, match=r"1\.json"):
            read_json(one)
    with pytest.raises(StorageError, match="cannot read"):
        read_json(tmp_path / "missing.json")


def test_sha256(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(bytes(range(256)) * 10_000)
    assert sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(StorageError, match="cannot read"):
        sha256(tmp_path / "missing")


def some_tensors(device="cpu"):
    generator = torch.Generator().manual_seed(3)
    matrix = torch.randn(5, 7, generator=generator, dtype=torch.float64)
    return {
        "bool": torch.tensor([True, False, True], device=device),
        "int64": torch.tensor([2**60, -1], device=device),
        "float32": torch.randn(4, 3, generator=generator).to(device),
        "float64": matrix.to(device),
        "transposed": matrix.to(device).T,
        "strided": matrix.to(device)[::2, 1::3],
        "expanded": torch.ones(1, 3, device=device).expand(4, 3),
        "shared": matrix.to(device),
        "empty": torch.zeros(0, 3, device=device),
        "scalar": torch.tensor(1.5, device=device),
        "nan": torch.tensor([float("nan"), float("inf")], device=device),
        "parameter": torch.nn.Parameter(torch.ones(2, device=device)),
    }


DEVICES = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)


@pytest.mark.parametrize("device", DEVICES)
def test_checkpoint_round_trip(device, tmp_path):
    tensors = some_tensors(device)
    meta = {"step": 3, "rates": [1e-3, 0.1], "name": "σ", "none": None}
    assert not has_checkpoint(tmp_path / "new")
    manifest = save_checkpoint(tmp_path / "new", tensors, meta)
    assert manifest.name == MANIFEST_NAME and has_checkpoint(tmp_path / "new")
    found, found_meta = load_checkpoint(tmp_path / "new", device)
    assert found_meta == meta and found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        assert found[name].device.type == device
        torch.testing.assert_close(found[name], tensor.detach(), rtol=0, atol=0, equal_nan=True)


def test_checkpoints_replace_each_other_and_are_deterministic(tmp_path):
    for step in range(3):
        save_checkpoint(tmp_path / "a", {"x": torch.full((3,), float(step))}, {"step": step})
        (tmp_path / "a" / f".x{STALE_SUFFIX}").write_bytes(b"left by a killed run")
    save_checkpoint(tmp_path / "a", {"x": torch.full((3,), 2.0)}, {"step": 2})
    assert len(names(tmp_path / "a")) == 2
    save_checkpoint(tmp_path / "b", {"x": torch.full((3,), 2.0)}, {"step": 2})
    assert names(tmp_path / "a") == names(tmp_path / "b")
    for name in names(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_bad_metadata_leaves_the_old_checkpoint(tmp_path):
    save_checkpoint(tmp_path, {"x": torch.zeros(2)}, {"step": 1})
    with pytest.raises(StorageError, match="metadata"):
        save_checkpoint(tmp_path, {"x": torch.ones(2)}, {"loss": float("nan")})
    assert load_checkpoint(tmp_path)[1] == {"step": 1} and len(names(tmp_path)) == 2
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot make"):
        save_checkpoint(tmp_path / "file", {}, {})


def test_damaged_checkpoints_are_refused(tmp_path):
    with pytest.raises(StorageError, match="no checkpoint was saved"):
        load_checkpoint(tmp_path)
    save_checkpoint(tmp_path, some_tensors(), {"step": 1})
    for name in names(tmp_path):
        path = tmp_path / name
        content = path.read_bytes()
        positions = range(0, len(content), max(1, len(content) // 40))
        spoiled = [content[:cut] for cut in (0, 1, len(content) // 2, len(content) - 2)]
        spoiled += [content + b" x"]
        spoiled += [content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :] for at in positions]
        for version in spoiled:
            path.write_bytes(version)
            with pytest.raises(CorruptFileError, match=name):
                load_checkpoint(tmp_path)
        path.write_bytes(content)
        load_checkpoint(tmp_path)
    tensor_file = next(path for path in tmp_path.iterdir() if path.name != MANIFEST_NAME)
    tensor_file.unlink()
    with pytest.raises(CorruptFileError, match=r"is missing .* delete the checkpoint to start again"):
        load_checkpoint(tmp_path)


def resealed(folder, **changes):
    """Alter the manifest and give it a matching checksum."""
    body = read_json(folder / MANIFEST_NAME) | changes
    body.pop("manifest_sha256")
    text = json.dumps(body, sort_keys=True, indent=2, ensure_ascii=False) + "\n"
    write_json(folder / MANIFEST_NAME, body | {"manifest_sha256": hashlib.sha256(text.encode()).hexdigest()})


def test_manifests_of_other_formats_are_refused(tmp_path):
    save_checkpoint(tmp_path, {"x": torch.zeros(2)}, {})
    resealed(tmp_path)
    load_checkpoint(tmp_path)
    resealed(tmp_path, tensors={"x": ["torch.float32", [3]]})
    with pytest.raises(CorruptFileError, match="does not hold the tensors"):
        load_checkpoint(tmp_path)
    resealed(tmp_path, version=99)
    with pytest.raises(StorageError, match="version 99"):
        load_checkpoint(tmp_path)
    write_json(tmp_path / MANIFEST_NAME, [1, 2])
    with pytest.raises(CorruptFileError, match="not what this release writes"):
        load_checkpoint(tmp_path)


def test_a_file_that_is_no_safetensors_is_named(tmp_path):
    save_checkpoint(tmp_path, {"x": torch.zeros(2)}, {})
    content = b"not tensors"
    (tmp_path / "tensors-0.safetensors").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    resealed(tmp_path, file="tensors-0.safetensors", bytes=len(content), sha256=digest)
    with pytest.raises(CorruptFileError, match="not a safetensors file"):
        load_checkpoint(tmp_path)


KILLER = """
import json, os, signal, sys
import torch
from nisampler.base.checkpoints import load_checkpoint, save_checkpoint

torch.set_num_threads(1)
folder = sys.argv[1]
for wanted in (1, 2, 3, 5, 8, 13, 21, 34):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        for step in range(10**6):
            save_checkpoint(folder, {"x": torch.full((20_000,), float(step))}, {"step": step})
            os.write(writer, b".")
    os.close(writer)
    written = sum(len(os.read(reader, 1)) for _ in range(wanted))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    while more := os.read(reader, 1000):
        written += len(more)
    os.close(reader)
    tensors, meta = load_checkpoint(folder)
    whole = bool((tensors["x"] == meta["step"]).all()) and tensors["x"].shape == (20_000,)
    print(json.dumps([written, meta["step"], whole, os.WTERMSIG(status)]))
"""


def test_a_kill_at_any_moment_leaves_a_complete_checkpoint(tmp_path):
    """SIGKILL a loop of writes, eight times: the last reported checkpoint or the one after it is there."""
    folder = tmp_path / "checkpoint"
    result = subprocess.run([sys.executable, "-c", KILLER, str(folder)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    kills = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(kills) == 8
    for written, step, whole, killed_by in kills:
        assert whole and killed_by == signal.SIGKILL
        assert step in (written - 1, written)
    save_checkpoint(folder, {"x": torch.zeros(1)}, {"step": 0})
    assert len(names(folder)) == 2


@pytest.mark.parametrize("call", range(12))
def test_a_crash_between_any_two_steps_leaves_a_complete_checkpoint(call, tmp_path, monkeypatch):
    """Stop at the n-th file-system call of a save: the old or the new checkpoint is there, whole."""
    save_checkpoint(tmp_path, {"x": torch.zeros(5)}, {"step": 0})
    seen = 0

    def counted(function):
        def wrapper(*args, **kwargs):
            nonlocal seen
            seen += 1
            if seen == call + 1:
                raise SystemExit
            return function(*args, **kwargs)

        return wrapper

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", counted(os.replace))
        patch.setattr(os, "fsync", counted(os.fsync))
        patch.setattr(Path, "unlink", counted(Path.unlink))
        try:
            save_checkpoint(tmp_path, {"x": torch.ones(5)}, {"step": 1})
            finished = True
        except SystemExit:
            finished = False
    tensors, meta = load_checkpoint(tmp_path)
    assert (tensors["x"] == meta["step"]).all()
    assert meta["step"] == 1 or not finished
    save_checkpoint(tmp_path, {"x": torch.full((5,), 2.0)}, {"step": 2})
    assert load_checkpoint(tmp_path)[1] == {"step": 2} and len(names(tmp_path)) == 2
