"""Files of a traced model: ONNX, a program of `torch.export`, or a package compiled by AOTInductor."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch

from nisampler._version import __version__
from nisampler.base.checks import checked
from nisampler.base.extras import install
from nisampler.base.storage import atomic_write
from nisampler.calo.export.targets import Target
from nisampler.errors import MissingExtraError
from nisampler.flows.splines.fused_spline import using

Format = Literal["onnx", "torch-export", "aoti"]
_OPSET, _EXAMPLES = 20, 7


def needed(*modules: str) -> list[Any]:
    """The modules of the extra "export".

    Raises
    ------
    MissingExtraError
        If one is not installed.

    Examples
    --------
    >>> [module.__name__ for module in needed("math")]
    ['math']
    """
    try:
        return [import_module(name) for name in modules]
    except ImportError as error:
        raise MissingExtraError(f"ONNX files need {error.name}: {install('export')}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch's exporters say of themselves and of packages that are not needed here."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "torch._inductor")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _traced(target: Target) -> Any:
    """The module of a target as a program of `torch.export`: plain operations, any number of showers if it takes them.

    Log-determinants, which showers do not need, are left out.
    """
    inputs, many = target.inputs(_EXAMPLES if target.any_batch else 1, seed=1), torch.export.Dim("showers")
    shapes = tuple({0: many} if len(tensor) == _EXAMPLES else None for tensor in inputs.values())
    with _quiet(), torch.no_grad(), using("reference"):
        program = torch.export.export(target.eval(), tuple(inputs.values()), dynamic_shapes=shapes, strict=False)
        graph = program.graph_module.graph
        for node in list(graph.nodes):
            if node.target is torch.ops.aten._assert_tensor_metadata.default:
                graph.erase_node(node)
        graph.eliminate_dead_code()
        program.graph_module.recompile()
    return program


def write(target: Target, path: str | Path, form: Format = "onnx", seed: int | None = None) -> None:
    """Write a target to a file.

    Parameters
    ----------
    target
        What `target_for` gives.
    path
        The file; one that is there is replaced.
    form
        "onnx"; "torch-export", which `torch.export.load` reads; "aoti", machine code for processors like this one,
        which `torch._inductor.aoti_load_package` and the C++ class `torch::inductor::AOTIModelPackageLoader` load.
    seed
        Of noise that the ONNX runtime draws inside; without one it differs from process to process.

    Raises
    ------
    MissingExtraError
        If ONNX is wanted and the extra "export" is not installed.
    StorageError
        If the file cannot be written.
    ConfigError
        If there is no such format.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.export.targets import target_for
    >>> from nisampler.calo.models import build_model
    >>> write(target_for(build_model("small-inn", geometry("toy"))), "toy.tf", "tensorflow")
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: form = "tensorflow": must be "onnx" or "torch-export" or "aoti"
    """
    if checked("form", form, Format) == "onnx":
        needed("onnx", "onnxscript")
    program, content = _traced(target), io.BytesIO()
    with _quiet():
        if form == "onnx":
            content.write(_onnx(target, program, seed))
        elif form == "torch-export":
            torch.export.save(program, content)
        else:
            torch._inductor.aoti_compile_and_package(program, package_path=content)
    with atomic_write(path) as file:
        file.write(content.getbuffer())


def _onnx(target: Target, program: Any, seed: int | None) -> bytes:
    """The bytes of an ONNX file."""
    optimizer, passes = needed("onnxscript.optimizer", "onnx_ir.passes.common")
    made: Any = torch.onnx.export(
        program,
        input_names=list(target.inputs(1, seed=1)),
        output_names=[target.output],
        opset_version=_OPSET,
        dynamo=True,
        optimize=False,  # which tries hundreds of patterns at each operation: minutes
        verbose=False,
    )
    optimizer.fold_constants(made.model)
    passes.CommonSubexpressionEliminationPass()(made.model)
    passes.RemoveUnusedNodesPass()(made.model)
    geometry = target.plain.model.geometry
    made.model.producer_name, made.model.producer_version = "nisampler", __version__
    made.model.metadata_props.update({"geometry": geometry.name, "cells": geometry.digest})
    for node in made.model.graph:
        if node.op_type.startswith("RandomNormal") and seed is not None:
            node.attributes["seed"] = needed("onnx_ir")[0].AttrFloat32("seed", float(seed))
    content: bytes = made.model_proto.SerializeToString()
    return content
