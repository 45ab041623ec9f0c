"""The matrix products that torch's own library lends to compiled code."""

from __future__ import annotations

import ctypes
from functools import cache

import torch

NAMES = {"sgemm_": "nisampler_sgemm", "dgemm_": "nisampler_dgemm"}
"""What these routines are called in the library, and in compiled code."""


@cache
def lent() -> bool:
    """Whether they are there, after which compiled code finds them.

    >>> lent() in (True, False)
    True
    """
    from llvmlite import binding

    try:
        library = ctypes.CDLL(torch._C.__file__)
        places = {name: ctypes.cast(getattr(library, name), ctypes.c_void_p).value for name in NAMES}
    except (AttributeError, OSError):
        return False
    for name, place in places.items():
        binding.add_symbol(NAMES[name], place)
    return True
