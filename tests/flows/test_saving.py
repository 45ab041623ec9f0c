"""Flows lie in a folder and come back with the same bits, or with an error that says what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nisampler.base.checkpoints import save_checkpoint
from nisampler.errors import CorruptFileError, StorageError
from nisampler.flows import (
    Affine,
    AutoregressiveConfig,
    ContinuousFlow,
    ConvCouplingConfig,
    CouplingConfig,
    Flow,
    GroupedFlow,
    NetConfig,
    Saved,
    Spline,
    StandardNormal,
    UNetConfig,
    VelocityConfig,
    assembly,
    continuous_flow,
    conv_flow,
    coupling_flow,
    draw,
    iaf,
    maf,
)
from nisampler.flows.saving import ASSEMBLIES

NET = NetConfig(hidden=6, layers=1, context_dim=2)
LINE = Spline(bins=4, domain="line", bound=3.0)
VIT = VelocityConfig("velocity-vit", hidden=4, layers=1, heads=2, steps=1, patch=(1, 1, 3), divergence="hutchinson")
IMAGES = ConvCouplingConfig(
    UNetConfig(hidden=4, kernels=((2, 1),), cyclic=1), (2, 1), blocks=1, spline=LINE, context_images=1, embedding=2
)
Build = Callable[..., Saved]
FLOWS: dict[str, Build] = {
    "coupling": partial(coupling_flow, 3),
    "coupling-random": partial(coupling_flow, 5, CouplingConfig(Spline("cubic", 4), NET, "random", 3)),
    "coupling-fourier": partial(coupling_flow, 3, CouplingConfig(Spline("cubic", 4), NetConfig(hidden=6, fourier=2))),
    "coupling-bayesian": partial(coupling_flow, 3, CouplingConfig(LINE, NetConfig("bayesian", 6, 1))),
    "maf": partial(maf, 4, AutoregressiveConfig(LINE, NET, 2, "random", (3, 1))),
    "iaf": partial(iaf, 3, AutoregressiveConfig(LINE, NET, 2)),
    "images": partial(conv_flow, (1, 4, 3), IMAGES),
    "continuous": partial(continuous_flow, 3, VelocityConfig(hidden=4, layers=1, steps=1), 2),
    "continuous-vit": partial(continuous_flow, 3, VIT, 2, grid=(1, 1, 3)),
    "grouped": partial(GroupedFlow, 3, 2, CouplingConfig(Spline(bins=4), NetConfig(hidden=6), "random", 2)),
}


def build(name: str, seed: int = 3) -> Any:
    """A flow whose masks, orders and weights are not those of a fresh one."""
    flow = FLOWS[name](generator=torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return flow.eval()


@torch.no_grad()
def both(flow: Any, n: int = 5, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """What a flow makes of some points, in both directions."""
    generator = torch.Generator().manual_seed(8)
    x = torch.rand(n, flow.dim, generator=generator, dtype=dtype)
    if isinstance(flow, GroupedFlow):
        second: Tensor | None = torch.arange(n) % flow.groups
    else:
        second = torch.randn(n, flow.context_dim, generator=generator, dtype=dtype) if flow.context_dim else None
    return (*flow.from_latent(x, second), flow.log_prob(x, second))


def same(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", FLOWS)
def test_same_bits_and_same_making(name: str, tmp_path: Path) -> None:
    flow = build(name)
    flow.save(tmp_path)
    loaded = type(flow).load(tmp_path)
    assert same(both(loaded), both(flow))
    assert not same(both(loaded), both(build(name, seed=5))), "other weights, other numbers"
    assert loaded.origin == flow.origin
    assert not loaded.training
    assert [p.requires_grad for p in loaded.parameters()] == [p.requires_grad for p in flow.parameters()]


def test_every_assembly_has_its_case() -> None:
    assert {build(name).origin[0] for name in FLOWS} == set(ASSEMBLIES)


@pytest.mark.parametrize("name", ["coupling-fourier", "continuous"])
def test_double_precision(name: str, tmp_path: Path) -> None:
    flow = build(name).double()
    flow.save(tmp_path)
    loaded = Flow.load(tmp_path)
    assert next(loaded.parameters()).dtype == torch.float64
    assert same(both(loaded, dtype=torch.float64), both(flow, dtype=torch.float64))


def test_saved_again_in_the_same_folder(tmp_path: Path) -> None:
    for seed in (1, 2):
        build("maf", seed).save(tmp_path / "flow")
    assert same(both(Flow.load(tmp_path / "flow")), both(build("maf", 2)))
    assert len(list((tmp_path / "flow").iterdir())) == 2


def test_a_posterior_draw_is_kept(tmp_path: Path) -> None:
    flow = build("coupling-bayesian")
    means = both(flow)
    draw(flow, torch.Generator().manual_seed(4))
    flow.save(tmp_path)
    assert same(both(Flow.load(tmp_path)), both(flow))
    assert not same(both(flow), means)


def test_only_plain_files(tmp_path: Path) -> None:
    build("images").save(tmp_path)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".safetensors"]
    meta = json.loads((tmp_path / "checkpoint.json").read_text())["meta"]
    assert meta["assembly"] == "convolutional"
    assert meta["arguments"]["config"]["unet"]["kernels"] == [[2, 1]]


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
@pytest.mark.parametrize("damage", ["cut", "altered"])
def test_damaged_files(suffix: str, damage: str, tmp_path: Path) -> None:
    build("maf").save(tmp_path)
    path = next(tmp_path.glob(f"*.{suffix}"))
    content = path.read_bytes()
    where = content.index(b"maf") if suffix == "json" else len(content) - 2
    path.write_bytes(content[:where] + (b"" if damage == "cut" else bytes([content[where] ^ 1]) + content[where + 1 :]))
    with pytest.raises(CorruptFileError, match=str(tmp_path)):
        Flow.load(tmp_path)


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    weights = {f"weights.{key}": value for key, value in build("maf").state_dict().items()}
    for arguments, message in (
        ({"dim": 3}, "size mismatch"),
        ({"dim": 4, "config": {"blocks": 0}}, "config.*blocks = 0|blocks = 0: must be"),
        ({"dim": 4, "config": {"spline": {"colour": 1}}}, "unknown setting spline.colour"),
        ({"dimension": 4}, "dimension"),
    ):
        save_checkpoint(tmp_path, weights, {"assembly": "maf", "arguments": arguments})
        with pytest.raises(CorruptFileError, match=message):
            Flow.load(tmp_path)
    save_checkpoint(tmp_path, weights, {"kind": "a sampler"})
    with pytest.raises(CorruptFileError, match="assembly"):
        Flow.load(tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="does not exist"):
        Flow.load(tmp_path / "nowhere")


def test_an_unknown_assembly(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {}, {"assembly": "splines", "arguments": {}})
    with pytest.raises(StorageError, match=r"no assembly 'splines' is known, only continuous, .*@nisampler.flows.asse"):
        Flow.load(tmp_path)


def test_another_class(tmp_path: Path) -> None:
    build("grouped").save(tmp_path)
    with pytest.raises(StorageError, match=r"is a GroupedFlow, not a Flow: read it with GroupedFlow\.load"):
        Flow.load(tmp_path)
    build("continuous").save(tmp_path)
    assert isinstance(Flow.load(tmp_path), ContinuousFlow)


def test_by_hand_and_by_an_assembly_of_ones_own(tmp_path: Path) -> None:
    def by_hand(dim: int) -> Flow:
        return Flow(StandardNormal(dim), Affine(dim))

    with pytest.raises(StorageError, match=r"put together by hand.*safetensors\.torch\.save_file\(flow\.state_dict"):
        by_hand(2).save(tmp_path)
    assert list(tmp_path.iterdir()) == []

    @assembly("affine")
    def affine(dim: int) -> nn.Module:
        return by_hand(dim).assembled("affine", dim=dim)

    try:
        flow: Any = affine(2)
        with torch.no_grad():
            flow.transform.shift += 1.0
        flow.save(tmp_path)
        assert same(both(Flow.load(tmp_path)), both(flow))
    finally:
        del ASSEMBLIES["affine"]
