"""Makes the file of compiled functions that comes with the package; to be done again when one of them has changed.

    python -m nisampler.flows.fused.shipping

numba is needed for that alone. It takes some minutes.
"""

from __future__ import annotations

import hashlib
import json
import lzma
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from safetensors.numpy import save_file

from nisampler.base.machine_code import ENTRY, flatten, optimized
from nisampler.flows.fused.chain import examples as chains
from nisampler.flows.fused.plan import ACTIVATIONS, COLUMNS
from nisampler.flows.fused.products import lent
from nisampler.flows.splines.fused_spline import BLOCK, FILE, ROWS, Shape
from nisampler.flows.splines.fused_spline import examples as splines

SOURCES = "sources"
"""Name of the checksum of what a file was made from."""
# What may be missing in the code: routines of the mathematics library, of torch, and what LLVM puts in for loops.
_OUTSIDE = {"sqrtf", "sqrt", "expm1", "nisampler_sgemm", "nisampler_dgemm"}


def sources() -> str:
    """The checksum of everything that compiled code is made from.

    >>> len(sources())
    64
    """
    found = hashlib.sha256(repr((ACTIVATIONS, BLOCK, COLUMNS, ROWS, Shape._fields)).encode())
    for folder in (Path(__file__).parent, Path(FILE).parent):
        for path in sorted(folder.glob("numba_*.py")):
            found.update(path.read_bytes())
    return found.hexdigest()


def bitcode(function: Any, arguments: tuple[Any, ...]) -> tuple[bytes, list[str]]:
    """Code of a function for arguments like these, as `machine_code.Kernel` reads it, and what else it calls.

    It reads its arguments from a row of numbers, and has no name for any processor in it.

    >>> from numba import njit
    >>> code, needs = bitcode(njit(lambda number: None), (1,))
    >>> code[:2], needs
    (b'BC', [])
    """
    from llvmlite import binding
    from numba import njit, typeof, types
    from numba.core import config

    from nisampler.flows.fused.numba_arguments import reader
    from nisampler.flows.splines.numba_maths import OPTIONS, WHOLE

    lent()  # numba runs what it compiles
    read = reader(typeof(arguments))

    def entry(numbers: Any) -> None:
        function(*read(numbers))

    with patch.object(config, "OPT", config._OptLevel(0)):
        # What the entry may round otherwise, whatever it calls may, too.
        compiled = njit(**OPTIONS | {"fastmath": function.targetoptions.get("fastmath", False)})(entry)
        compiled.compile((types.CPointer(types.int64),))
    (result,) = compiled.overloads.values()
    module = binding.parse_assembly(str(result.library._final_module))
    for own in module.functions:
        if own.name == result.fndesc.llvm_func_name:
            own.name = ENTRY
        elif not own.is_declaration:
            own.linkage = "internal"
            if any(f"{len(name)}{name}B" in own.name for name in WHOLE):
                own.add_function_attribute("noinline")
    optimized(module, binding.Target.from_default_triple().create_target_machine(), final=False)
    missing = {own.name for own in module.functions if own.is_declaration and not own.name.startswith("llvm.")}
    fixed = [own.name for own in module.global_variables if "dynamic" in own.name]
    if missing - _OUTSIDE or fixed:
        raise RuntimeError(f"{function.__name__} cannot be shipped: it needs {sorted(missing - _OUTSIDE)} and {fixed}")
    return bytes(module.as_bitcode()), sorted(missing)


def functions() -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """Name, source and arguments of everything that is shipped.

    >>> next(functions())[0]
    'spline f4 f4'
    """
    from nisampler.flows.fused import numba_chain
    from nisampler.flows.splines import numba_spline

    for points, weights in (("f4", "f4"), ("f8", "f8"), ("f8", "f4")):
        for module, found in ((numba_spline, splines(points, weights)), (numba_chain, chains(points, weights))):
            for name, arguments in found.items():
                yield f"{name} {points} {weights}", getattr(module, name), arguments


def main() -> None:
    """Write the file.

    >>> callable(main)
    True
    """
    write(Path(FILE), functions(), sources())


def write(file: Path, functions: Iterable[tuple[str, Any, tuple[Any, ...]]], checksum: str) -> None:
    """Write a file of functions, each with its name and arguments like those that it is to take.

    >>> import tempfile
    >>> from numba import njit
    >>> from nisampler.base.machine_code import Kernel
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(Path(folder, "kernels"), [("nothing", njit(lambda number: None), (1,))], "checksum")
    ...     Kernel(Path(folder, "kernels"), "nothing")(5)
    """
    content, notes = {}, {SOURCES: checksum}
    for name, function, arguments in functions:
        codes: list[str] = []
        flatten(arguments, codes, [])
        code, needs = bitcode(function, arguments)
        content[name] = np.frombuffer(lzma.compress(code, preset=9), np.uint8)
        notes[name] = json.dumps({"codes": codes, "needs": needs})
    save_file(content, file, notes)


if __name__ == "__main__":
    main()
