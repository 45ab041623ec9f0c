"""Functions that come with the package as code of LLVM for any processor, made into code of the one at hand.

That takes less than a second for each, once: what comes out is kept in the user's cache, see `nisampler.base.kept`.
A file of such functions is a safetensors file. `nisampler.flows.fused.shipping` makes one.
"""

from __future__ import annotations

import ctypes
import json
import lzma
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from nisampler.base.kept import kept

ENTRY = "entry"
"""Name of the function in its code."""
_KIND = "machine-code-1"


@dataclass(slots=True)
class Place:
    """An array for compiled code that nobody else needs as one.

    Parameters
    ----------
    code
        Its number of axes, and the type of its numbers as NumPy calls it, such as ``2f4``.
    numbers
        Where it begins in memory, and the lengths of its axes.

    Examples
    --------
    >>> Place("2f4", (0, 0, 5)).code
    '2f4'
    """

    code: str
    numbers: tuple[int, ...]


class Kernel:
    """A function of a file, which takes arrays, tensors, numbers, and tuples of these.

    Parameters
    ----------
    path
        The file.
    name
        Of the function.

    Raises
    ------
    KeyError
        If it is not in the file.
    Exception
        Whatever llvmlite raises where it cannot read or compile this code.
    TypeError
        From a call, if the arguments are not those that it was compiled for.

    Examples
    --------
    >>> from nisampler.flows.splines.fused_spline import FILE, examples
    >>> arguments = examples("f4", "f4")["spline"]
    >>> Kernel(FILE, "spline f4 f4")(*arguments)
    >>> arguments[2]
    array([[0.5]], dtype=float32)
    """

    def __init__(self, path: Path, name: str) -> None:
        with safe_open(path, "np") as file:
            if name not in file.keys():
                raise KeyError(f"{path} has no function {name!r}")
            code = lzma.decompress(file.get_tensor(name).tobytes())
            note = json.loads(file.metadata()[name])
        self.codes: list[str] = note["codes"]
        self._pack = struct.Struct("".join(map(places, self.codes))).pack
        self._engine, self._call = _linked(code, note["needs"])

    def __call__(self, *arguments: Any) -> None:
        """Call it; the lock of Python is released meanwhile."""
        codes: list[str] = []
        numbers: list[Any] = []
        flatten(arguments, codes, numbers)
        if codes != self.codes:
            raise TypeError(f"compiled for arguments {self.codes}, not {codes}")
        self._call(_NOTHING, _NOTHING, self._pack(*numbers))


_NOTHING = ctypes.create_string_buffer(16)


def flatten(arguments: tuple[Any, ...], codes: list[str], numbers: list[Any]) -> None:
    """Code and numbers of each argument, and of each inside of tuples, added to both lists.

    The code of an array names its type and its axes; its numbers are its place and its lengths.

    >>> codes, numbers = [], []
    >>> flatten((1, (2.0, True), np.zeros((3, 4), np.float32)), codes, numbers)
    >>> codes, numbers[:3], numbers[4:]
    (['i', 'd', 'b', '2f4'], [1, 2.0, True], [3, 4])
    """
    for argument in arguments:
        kind = type(argument)
        if kind is Place:
            codes.append(argument.code)
            numbers += argument.numbers
        elif kind is Tensor:
            if not argument.is_contiguous():
                raise TypeError("compiled code takes contiguous tensors")
            codes.append(_REALS[argument.dtype, argument.dim()])
            numbers.append(argument.data_ptr())
            numbers += argument.shape
        elif kind is np.ndarray:
            if not argument.flags.c_contiguous:
                raise TypeError("compiled code takes contiguous arrays")
            codes.append(_code(argument.dtype, argument.ndim))
            numbers.append(argument.ctypes.data)
            numbers += argument.shape
        elif kind in _SCALARS:
            codes.append(_SCALARS[kind])
            numbers.append(argument)
        elif isinstance(argument, tuple):
            flatten(argument, codes, numbers)
        else:
            raise TypeError(f"compiled code takes arrays, numbers and tuples of them, not {kind.__name__}")


_REALS = {
    (kind, axes): f"{axes}{name}" for kind, name in ((torch.float32, "f4"), (torch.float64, "f8")) for axes in (1, 2, 3)
}
_SCALARS = {int: "i", bool: "b", float: "d"}


@cache
def _code(dtype: Any, axes: int) -> str:
    return f"{axes}{dtype.str[1:]}"


def places(code: str) -> str:
    """How the numbers of an argument are packed, eight bytes each.

    >>> places("2f4"), places("d"), places("b")
    ('qqq', 'd', 'q')
    """
    return {"d": "d", "i": "q", "b": "q"}.get(code) or "q" * (1 + int(code[0]))


@cache
def _binding() -> Any:
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding


@cache
def _processor() -> tuple[str, str]:
    """Its name and what it can do, in LLVM's words."""
    binding = _binding()
    return binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()


def _machine() -> Any:
    binding, (name, features) = _binding(), _processor()
    target = binding.Target.from_default_triple()
    reloc = "static" if target.name.startswith("x86") else "default"
    options = {"opt": 3, "reloc": reloc, "codemodel": "jitdefault", "jit": True}
    return target.create_target_machine(cpu=name, features=features, **options)


def _object(code: bytes) -> bytes:
    """Machine code of this processor."""
    binding, machine = _binding(), _machine()
    module = binding.parse_bitcode(code)
    module.triple, module.data_layout = binding.get_process_triple(), str(machine.target_data)
    optimized(module, machine, final=True)
    return bytes(machine.emit_object(module))


def optimized(module: Any, machine: Any, final: bool) -> None:
    """Let LLVM improve a module for a machine; loops are made into vector instructions in the `final` pass alone.

    >>> callable(optimized)
    True
    """
    binding = _binding()
    options = binding.create_pipeline_tuning_options()
    options.speed_level = 3 if final else 1  # more of it beforehand makes slower code in the end
    options.loop_vectorization, options.loop_unrolling, options.slp_vectorization = final, final, False
    builder = binding.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)


def _linked(code: bytes, needs: list[str]) -> tuple[Any, Callable[..., Any]]:
    """The function in the memory of this process, and what has to live as long as it is used."""
    binding = _binding()
    version = ".".join(map(str, binding.llvm_version_info))
    source = b"\0".join([code, *(word.encode() for word in (*_processor(), version))])

    def make() -> dict[str, torch.Tensor]:
        return {"object": torch.frombuffer(bytearray(_object(code)), dtype=torch.uint8)}

    found = kept(_KIND, source, make)["object"].numpy().tobytes()
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), _machine())
    missing = [name for name in needs if binding.address_of_symbol(name) is None]
    if missing:  # LLVM would end the process
        raise RuntimeError(f"no library here has {missing}")
    engine.add_object_file(binding.ObjectFileRef.from_data(found))
    engine.finalize_object()
    place = engine.get_function_address(ENTRY)
    if not place:
        raise RuntimeError("the code was compiled, but its function is not there")
    return engine, ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 2, ctypes.c_char_p)(place)
