"""Matrix elements from a shared library with the interface UMAMI, version 1, of MadGraph7 (2602.06895, section 3.3).

The library is loaded by ctypes; nothing is compiled. All points of a call are handed over at once: the number of leg i
and component c of event e stands at e + n (i + legs c), c = E, px, py, pz.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nisampler.errors import AmplitudeError, ConfigError
from nisampler.processes.amplitudes.own.combinations import Codes, Combinations, Listed, index_of, order_of, unordered
from nisampler.processes.amplitudes.recursion.model import Couplings
from nisampler.processes.amplitudes.recursion.vertices import Vertices
from nisampler.processes.particles import NAMES, expression

_STATUS = {
    1: "an error",
    2: "not implemented",
    3: "an input that it does not support",
    4: "an output that it does not support",
    5: "metadata that is not initialized",
    6: "metadata that it does not support",
    7: "an input that it needs is missing",
}
_INPUTS = (
    *("momenta", "alpha_s", "a flavour", "a random number for colour", "a random number for helicity"),
    *("a random number for a diagram", "a helicity", "a diagram", "a channel"),
)
_CPU, _MOMENTA, _ALPHA_S, _FLAVOUR, _RANDOM_COLOUR, _RANDOM_HELICITY = 0, 0, 1, 2, 3, 4
_VALUE, _COLOUR, _HELICITY = 0, 2, 3
_META_DEVICE, _META_PARTICLES, _META_MASSES = 0, 1, 5
_NEEDED = ("umami_get_meta", "umami_initialize", "umami_matrix_element", "umami_free")
_SAME_MASS = 1e-6

Tags = Sequence[Sequence[Sequence[int]]]
Helicities = Sequence[Sequence[float]]


class UmamiLibrary:
    """A shared library with the interface UMAMI: tells its legs, and computes |M|² for a flavour index.

    Parameters
    ----------
    path
        The file.
    param_card
        What the library is initialized with: a parameter card, or the folder that one of pyamplicol belongs to.

    Raises
    ------
    AmplitudeError
        If there is no such file, it is no library, lacks functions of the interface, computes on a GPU, asks for
        inputs that a matrix element summed over helicities and colours does not have, or fails.
    ConfigError
        If there is no parameter card of that name.

    Examples
    --------
    >>> UmamiLibrary("nowhere.so")
    Traceback (most recent call last):
    ...
    nisampler.errors.AmplitudeError: there is no matrix element 'nowhere.so'
    """

    def __init__(self, path: str | Path, param_card: str = "") -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise AmplitudeError(f"there is no matrix element {str(path)!r}")
        try:
            self._library = ctypes.CDLL(str(self.path.resolve()))
        except OSError as error:
            raise AmplitudeError(f"{self.path} cannot be loaded as a shared library: {error}") from error
        missing = [name for name in _NEEDED if not hasattr(self._library, name)]
        if missing:
            raise AmplitudeError(
                f"{self.path} is no UMAMI library of version 1: it lacks {', '.join(missing)}; MadGraph7 writes such "
                "libraries, and pyamplicol with --emit-api-bundle"
            )
        self._handle, self._lock = ctypes.c_void_p(), threading.Lock()
        if param_card and not Path(param_card).exists():
            raise ConfigError(f"there is no param_card {param_card!r}")
        card = str(Path(param_card).resolve()) if param_card else ""
        self._check(self._library.umami_initialize(ctypes.byref(self._handle), card.encode()), _CARD)
        self.particles = self._meta(_META_PARTICLES, ctypes.c_int(0), "the number of particles").value
        if self._meta(_META_DEVICE, ctypes.c_int(0), "the device").value != _CPU:
            raise AmplitudeError(f"{self.path} computes on a GPU; take the library of the same process for the CPU")
        self.inputs, self.outputs = self._keys("supported_inputs"), self._keys("supported_outputs")
        known = {_MOMENTA, _ALPHA_S, _FLAVOUR}
        for key in sorted((self._keys("required_inputs") or set()) - known):
            what = _INPUTS[key] if key < len(_INPUTS) else f"input {key} of a newer version of the interface"
            raise AmplitudeError(f"{self.path} needs {what}; |M|² must be a function of momenta, alpha_s and flavours")

    def masses(self) -> list[float] | None:
        """Masses in GeV of all legs, None where the library does not tell them."""
        found = (ctypes.c_double * self.particles)()
        status = self._library.umami_get_meta(_META_MASSES, ctypes.byref(found))
        return None if status else list(found)

    @property
    def selects(self) -> tuple[bool, bool]:
        """Whether it selects a colour and a helicity for each event."""
        pairs = ((_RANDOM_COLOUR, _COLOUR), (_RANDOM_HELICITY, _HELICITY))
        colour, helicity = (i in (self.inputs or ()) and o in (self.outputs or ()) for i, o in pairs)
        return colour, helicity

    def squared(self, momenta: Tensor, alpha_s: Tensor, flavour: int) -> Tensor:
        """|M|² (n,) of momenta (n, legs, 4) in GeV, the strong coupling (n,) and a flavour index.

        Raises
        ------
        AmplitudeError
            If the library says that it failed, or derivatives are asked for.
        """
        if torch.is_grad_enabled() and momenta.requires_grad:
            raise AmplitudeError(f"{self.path} has no derivatives; the matrix elements of nisampler have")
        values = np.zeros(len(momenta))
        self._evaluate(self._arrays(momenta, alpha_s, flavour), {_VALUE: values})
        return torch.from_numpy(values).to(momenta)

    def selected(self, momenta: Tensor, alpha_s: Tensor, flavour: int, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Colour and helicity index (n,) of each event, -1 where the library selects none; uniform (n, 2) draws them.

        Raises
        ------
        AmplitudeError
            If the library says that it failed.
        """
        inputs = self._arrays(momenta, alpha_s, flavour)
        outputs: dict[int, npt.NDArray[Any]] = {_VALUE: np.zeros(len(momenta))}
        chosen: list[npt.NDArray[np.int32]] = []
        for place, (random, output) in enumerate(((_RANDOM_COLOUR, _COLOUR), (_RANDOM_HELICITY, _HELICITY))):
            index = np.full(len(momenta), -1, dtype=np.int32)
            if self.selects[place]:
                inputs[random] = uniform[:, place].double().cpu().contiguous().numpy()
                outputs[output] = index
            chosen.append(index)
        self._evaluate(inputs, outputs)
        colour, helicity = (torch.from_numpy(index).long().to(momenta.device) for index in chosen)
        return colour, helicity

    def _arrays(self, momenta: Tensor, alpha_s: Tensor, flavour: int) -> dict[int, npt.NDArray[Any]]:
        points = momenta.detach().to("cpu", torch.float64)
        found: dict[int, npt.NDArray[Any]] = {_MOMENTA: points.permute(2, 1, 0).contiguous().numpy()}
        if self.inputs is None or _ALPHA_S in self.inputs:
            found[_ALPHA_S] = alpha_s.detach().to("cpu", torch.float64).expand(len(points)).contiguous().numpy()
        if self.inputs is None or _FLAVOUR in self.inputs:
            found[_FLAVOUR] = np.full(len(points), flavour, dtype=np.int32)
        return found

    def _evaluate(self, inputs: dict[int, npt.NDArray[Any]], outputs: dict[int, npt.NDArray[Any]]) -> None:
        n = ctypes.c_size_t(inputs[_MOMENTA].shape[2])
        lists = [item for arrays in (inputs, outputs) for item in (ctypes.c_size_t(len(arrays)), *_pointers(arrays))]
        with self._lock:
            status = self._library.umami_matrix_element(self._handle, n, n, ctypes.c_size_t(0), *lists)
        self._check(status, "umami_matrix_element")

    def _keys(self, function: str) -> set[int] | None:
        """Keys that the library supports or requires, None where it does not say."""
        if not hasattr(self._library, f"umami_{function}"):
            return None
        # Headers differ in whether the count is an int or a size_t.
        flags, count = ctypes.POINTER(ctypes.c_bool)(), ctypes.c_size_t(0)
        ask = getattr(self._library, f"umami_{function}")
        self._check(ask(ctypes.byref(flags), ctypes.byref(count)), f"umami_{function}")
        return {key for key in range(count.value) if flags[key]}

    def _meta(self, key: int, result: Any, what: str) -> Any:
        self._check(self._library.umami_get_meta(key, ctypes.byref(result)), f"umami_get_meta of {what}")
        return result

    def _check(self, status: int, what: str) -> None:
        if status:
            raise AmplitudeError(f"{self.path}: {what} failed with status {status}: {_STATUS.get(status, 'unknown')}")

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._library.umami_free(self._handle)


_CARD = "umami_initialize (does it need a param_card?)"


def _pointers(arrays: dict[int, npt.NDArray[Any]]) -> tuple[Any, Any]:
    """Keys and addresses as C arrays."""
    keys = (ctypes.c_int * len(arrays))(*arrays)
    return keys, (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays.values()))


class UmamiFunction:
    """A UMAMI library as the function that `OwnAmplitude` takes.

    Parameters
    ----------
    library
        The library.
    process
        The string whose legs it has; its beams and final legs may stand in another order.
    couplings
        Masses of the particles.
    flavours
        Massless quarks that ``p`` and ``j`` stand for.
    listed
        The combinations of each flavour index in turn, such as "u u~ > e- e+", or several with one matrix element. Not
        needed where the process has just one.
    colours
        Les Houches tags of the legs, in the order of the library, for each colour index; without them colour flows have
        the weights of the Standard Model.
    helicities
        Helicities of the legs for each helicity index; without them event records have none.

    Raises
    ------
    AmplitudeError
        If the library has another number of legs, or there are several combinations and none is listed.
    ConfigError
        If masses differ from those of the library, or a table does not fit its legs.

    Examples
    --------
    See `nisampler.processes.standard_model.process.create_from_string`.

    >>> UmamiFunction.__name__
    'UmamiFunction'
    """

    def __init__(
        self,
        library: UmamiLibrary,
        process: str,
        couplings: Couplings,
        flavours: int = 5,
        listed: Sequence[Listed] = (),
        colours: Tags = (),
        helicities: Helicities = (),
    ) -> None:
        self._library, self.__name__ = library, str(library.path)
        combined = Combinations.of(process, Vertices(couplings), flavours)
        legs = 2 + len(combined.legs.final)
        if legs != library.particles:
            raise AmplitudeError(f"{library.path} has {library.particles} particles, {process!r} has {legs}")
        if not listed:
            listed = [expression(codes) for codes in combined.apart]
            if len(listed) > 1:
                text = ", ".join(repr(item) for item in listed[:3])
                raise AmplitudeError(
                    f"{process!r} stands for {len(listed)} combinations of flavours ({text}, ...): say in combinations "
                    "which ones each flavour index of the library is"
                )
        self.listed = listed
        self._index = index_of(listed)
        self._check_masses(couplings)
        self._tables = _table("colour_indices", colours, (legs, 2)), _table("helicity_indices", helicities, (legs,))
        for name, table, able in zip(("colours", "helicities"), self._tables, library.selects, strict=True):
            if len(table) and not able:
                raise ConfigError(f"{library.path} selects no {name}, so that a table of them has no use")
        if any(map(len, self._tables)):
            self.select = self._select

    def _check_masses(self, couplings: Couplings) -> None:
        masses = self._library.masses()
        for _, codes in self._index.values():
            for code, mass in zip(codes, masses or [], strict=masses is not None):
                own = couplings.mass(code)
                if abs(own - mass) > _SAME_MASS * max(own, mass):
                    raise ConfigError(
                        f"{self._library.path} has a mass of {mass:g} GeV for {NAMES[code]}, the card one of {own:g}: "
                        "give both the same"
                    )

    def __call__(self, momenta: Tensor, alpha_s: Tensor, codes: Codes) -> Tensor:
        """|M|² (n,) at momenta (n, legs, 4) in the order of `codes`; raises AmplitudeError as the library does."""
        index, order = self._placed(codes)
        return self._library.squared(momenta[:, list(order)], alpha_s, index)

    def _placed(self, codes: Codes) -> tuple[int, tuple[int, ...]]:
        """The flavour index of a combination, and the places of the library's legs in it."""
        index, listed = self._index[unordered(codes)]
        return index, order_of(codes, listed)

    def _select(
        self, momenta: Tensor, alpha_s: Tensor, codes: Codes, uniform: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """Colour tags (n, legs, 2) and helicities (n, legs), None of what has no table."""
        index, order = self._placed(codes)
        # The helicity is drawn by the digits that are too low to matter for the colour.
        both = torch.stack([uniform, torch.frac(uniform * 2.0**20)], 1)
        found = self._library.selected(momenta[:, list(order)], alpha_s, index, both)
        back = sorted(range(len(order)), key=order.__getitem__)
        rows = [self._rows(*item)[:, back] if len(item[1]) else None for item in zip(found, self._tables, strict=True)]
        return rows[0], rows[1]

    def _rows(self, index: Tensor, table: Tensor) -> Tensor:
        """The row of each event."""
        if int(index.min()) < 0 or int(index.max()) >= len(table):
            raise AmplitudeError(
                f"{self._library.path} selects the index {int(index.max())} of {len(table)} in colour_indices or "
                "helicity_indices"
            )
        return table.to(index.device)[index]


def _table(name: str, rows: Sequence[Any], shape: tuple[int, ...]) -> Tensor:
    kind = torch.long if len(shape) == 2 else torch.float64
    try:
        found = torch.tensor([list(row) for row in rows], dtype=kind)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} must have a row of shape {shape} for each index: {error}") from error
    if len(rows) and found.shape[1:] != shape:
        raise ConfigError(f"{name} must have a row of shape {shape} for each index, got {tuple(found.shape[1:])}")
    return found
