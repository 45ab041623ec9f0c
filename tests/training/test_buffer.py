"""The buffer: a ring of bounded memory, fair draws, exact state."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nisampler.base.checkpoints import load_checkpoint, save_checkpoint
from nisampler.errors import ConfigError, ShapeError
from nisampler.training.buffer import Buffer


def numbered(first: int, n: int, dim: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Points that carry their number."""
    number = torch.arange(first, first + n, dtype=torch.float32)
    return number.unsqueeze(1).expand(n, dim).contiguous(), number + 0.25, -number


def draw(buffer: Buffer, n: int, seed: int = 1) -> tuple[Tensor, ...]:
    return buffer.draw(n, torch.Generator().manual_seed(seed))


@given(st.integers(1, 30), st.lists(st.integers(0, 30), min_size=1, max_size=8))
def test_the_newest_points_are_kept(capacity: int, sizes: list[int]) -> None:
    buffer = Buffer(2, capacity)
    total = 0
    for size in sizes:
        n = min(size, capacity)
        buffer.add(*numbered(total, n))
        total += n
    kept = list(range(max(0, total - capacity), total))
    assert len(buffer) == len(kept)
    x, f, log_g, _ = buffer.newest(1000)
    assert sorted(x[:, 0].int().tolist()) == kept
    assert torch.equal(f, x[:, 0] + 0.25) and torch.equal(log_g, -x[:, 1])
    few = min(3, len(kept))
    assert sorted(buffer.newest(3)[0][:, 0].int().tolist()) == kept[len(kept) - few :]


def test_columns_stay_together() -> None:
    buffer = Buffer(3, 50, extra=2)
    for first in range(0, 130, 13):
        x, f, log_g = numbered(first, 13, 3)
        buffer.add(x, f, log_g, 2 * x[:, :2])
    x, f, log_g, extra = draw(buffer, 500)
    assert torch.equal(f, x[:, 0] + 0.25) and torch.equal(log_g, -x[:, 2]) and torch.equal(extra, 2 * x[:, :2])


def test_draws_are_uniform_over_what_is_stored() -> None:
    buffer = Buffer(1, 40)
    buffer.add(*numbered(0, 25, 1))
    counts = torch.bincount(draw(buffer, 50_000)[0][:, 0].long(), minlength=40)
    assert bool((counts[25:] == 0).all())
    expected = 50_000 / 25
    assert float(((counts[:25] - expected) ** 2 / expected).sum()) < 24 + 4.5 * (2 * 24) ** 0.5
    buffer.add(*numbered(25, 30, 1))
    counts = torch.bincount(draw(buffer, 50_000)[0][:, 0].long(), minlength=55)
    assert bool((counts[:15] == 0).all()) and bool((counts[15:] > 0).all())


def test_draws_depend_on_the_generator_alone() -> None:
    buffer = Buffer(1, 100)
    buffer.add(*numbered(0, 100, 1))
    first = draw(buffer, 50)[0]
    torch.rand(5)
    assert torch.equal(draw(buffer, 50)[0], first)
    assert not torch.equal(draw(buffer, 50, seed=2)[0], first)


def test_more_than_two_to_the_24_points() -> None:
    """float32 cannot count them: indices must be integers throughout."""
    capacity = 2**24 + 8
    buffer = Buffer(1, capacity, dtype=torch.uint8)
    buffer.written = capacity - 4
    tail = torch.arange(1, 9, dtype=torch.uint8)
    buffer.add(tail.unsqueeze(1), tail, tail)
    assert len(buffer) == capacity and buffer.written == capacity + 4
    assert buffer.f[-4:].tolist() == [1, 2, 3, 4] and buffer.f[:4].tolist() == [5, 6, 7, 8]
    assert sorted(buffer.newest(8)[1].tolist()) == list(range(1, 9))
    buffer.f[2**24 :] = 100
    buffer.f[2**24 + 1 :: 2] = 200
    index = torch.randint(capacity, (200_000,), generator=torch.Generator().manual_seed(7))
    assert int(index.max()) > 2**23 and bool((index % 2 == 1).any())
    assert torch.equal(buffer.draw(200_000, torch.Generator().manual_seed(7))[1], buffer.f[index])
    odd = (index[index > 2**23] % 2).double().mean()
    assert float(odd) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("added", [0, 7, 20, 33])
def test_the_state_is_complete(added: int, tmp_path: Path) -> None:
    buffer = Buffer(2, 20)
    for number in range(added):
        buffer.add(*numbered(number, 1))
    save_checkpoint(tmp_path, buffer.state(), {})
    again = Buffer(2, 20)
    again.load_state(load_checkpoint(tmp_path)[0])
    assert len(again) == len(buffer) and again.written == buffer.written
    for one in (buffer, again):
        one.add(*numbered(100, 5))
    for one, other in zip(draw(buffer, 100), draw(again, 100), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(buffer.newest(9), again.newest(9), strict=True):
        assert torch.equal(one, other)


def test_misuse_is_named() -> None:
    with pytest.raises(ConfigError):
        Buffer(2, 0)
    buffer = Buffer(2, 5)
    with pytest.raises(ShapeError, match="empty"):
        draw(buffer, 1)
    with pytest.raises(ShapeError, match="do not fit"):
        buffer.add(*numbered(0, 6))
