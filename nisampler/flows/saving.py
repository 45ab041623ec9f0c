"""Flows that can be saved: the call that made them, and their weights, as safetensors and JSON with checksums.

An assembly is a function, such as `coupling_flow`, that makes a flow of its arguments, all of them plain data or
settings. It says on the flow what it was given; `load` looks the function up, calls it again and fills in the weights.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Self, TypeVar, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from nisampler.base.checkpoints import load_checkpoint, part, prefixed, save_checkpoint
from nisampler.base.checks import from_data, to_data
from nisampler.errors import CorruptFileError, StorageError

ASSEMBLIES: dict[str, str | Callable[..., nn.Module]] = {
    "continuous": "nisampler.flows.continuous:continuous_flow",
    "convolutional": "nisampler.flows.convolutional:conv_flow",
    "coupling": "nisampler.flows.assemblies:coupling_flow",
    "grouped": "nisampler.flows.grouped:GroupedFlow",
    "iaf": "nisampler.flows.assemblies:iaf",
    "maf": "nisampler.flows.assemblies:maf",
}
"""The function of each kind of flow, or "module:function"."""
Function = TypeVar("Function", bound=Callable[..., nn.Module])
Module = TypeVar("Module", bound=nn.Module)

_WEIGHTS, _NOISE = "weights.", "noise."


def assembly(name: str) -> Callable[[Function], Function]:
    """Let `load` read flows of an assembly of one's own: a decorator for a function that ends in `assembled`.

    >>> from nisampler.flows import Affine, Flow, StandardNormal
    >>> @assembly("scaled")
    ... def scaled(dim: int) -> Flow:
    ...     return Flow(StandardNormal(dim), Affine(dim)).assembled("scaled", dim=dim)
    >>> scaled(2).origin, ASSEMBLIES.pop("scaled") is scaled
    (('scaled', {'dim': 2}), True)
    """

    def register(function: Function) -> Function:
        ASSEMBLIES[name] = function
        return function

    return register


class Saved(nn.Module):
    """A module that knows the assembly that made it, and can be saved.

    Attributes
    ----------
    origin
        Name of the assembly and its arguments; None for a module put together by hand.

    Examples
    --------
    >>> from nisampler.flows import coupling_flow
    >>> name, arguments = coupling_flow(3).origin
    >>> name, arguments["dim"]
    ('coupling', 3)
    """

    origin: tuple[str, Mapping[str, Any]] | None = None

    def assembled(self, name: str, **arguments: Any) -> Self:
        """This module, once it knows the assembly that made it: its name in `ASSEMBLIES`, and what it was given.

        Initial weights, random masks and orders are part of the weights, so that generators need not be named.

        >>> from nisampler.flows import coupling_flow
        >>> coupling_flow(3).origin[0]
        'coupling'
        """
        self.origin = (name, arguments)
        return self

    def blueprint(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON data from which `rebuild` makes the same flow.

        Raises
        ------
        StorageError
            If the flow was put together by hand.

        Examples
        --------
        >>> from nisampler.flows import Flow, maf
        >>> Flow.rebuild(*maf(3).blueprint()).origin[0]
        'maf'
        """
        if self.origin is None:
            raise StorageError(
                f"this {type(self).__name__} was put together by hand, so nothing says how to build it again: make it "
                "in a function with @nisampler.flows.assembly(name) that returns flow.assembled(name, ...), or keep "
                "its weights alone, with safetensors.torch.save_file(flow.state_dict(), path)"
            )
        name, arguments = self.origin
        noise = {key: value for key, value in self.named_buffers() if key.rpartition(".")[2] == "noise"}
        tensors = prefixed(self.state_dict(), _WEIGHTS) | prefixed(noise, _NOISE)
        data = {key: to_data(value) for key, value in arguments.items()}
        return tensors, {"assembly": name, "arguments": data}

    def save(self, folder: str | Path) -> Path:
        """Store the weights and what the flow was made of: a kill at any moment leaves the old or the new flow.

        A posterior draw that a Bayesian network was frozen at is stored too.

        Parameters
        ----------
        folder
            Made if missing; one flow lies in it.

        Returns
        -------
        Path
            The manifest.

        Raises
        ------
        StorageError
            If the flow was put together by hand, or the folder cannot be written.

        Examples
        --------
        >>> import tempfile
        >>> from nisampler.flows import coupling_flow
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     coupling_flow(3).save(folder).name
        'checkpoint.json'
        """
        return save_checkpoint(folder, *self.blueprint())

    @classmethod
    def load(cls, folder: str | Path, device: torch.device | str = "cpu") -> Self:
        """The flow that `save` stored, in evaluation mode: the same bits, on a device.

        Raises
        ------
        StorageError
            If there is none, its assembly is not known, or it is a flow of another class.
        CorruptFileError
            If a file is truncated or altered, or weights and settings do not fit each other.

        Examples
        --------
        >>> import tempfile
        >>> from nisampler.flows import Flow, maf
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = maf(3).save(folder)
        ...     Flow.load(folder).origin[0]
        'maf'
        """
        try:
            return cls.rebuild(*load_checkpoint(folder, device))
        except CorruptFileError as error:
            raise CorruptFileError(f"{folder}: {error}") from error

    @classmethod
    def rebuild(cls, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Self:
        """The flow whose `blueprint` this is, in evaluation mode, on the device of the tensors; raises as `load`."""
        try:
            flow = _rebuilt(str(meta["assembly"]), meta["arguments"])
            if isinstance(flow, cls):
                return _filled(flow, tensors)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise CorruptFileError(f"the stored flow cannot be rebuilt: {error}") from error
        kind = type(flow).__name__
        raise StorageError(f"what is stored is a {kind}, not a {cls.__name__}: read it with {kind}.load")


def _rebuilt(name: str, data: Mapping[str, Any]) -> nn.Module:
    """Call an assembly with arguments from plain data."""
    if name not in ASSEMBLIES:
        raise StorageError(
            f"no assembly {name!r} is known, only {', '.join(sorted(ASSEMBLIES))}: import the module whose function is "
            f"decorated with @nisampler.flows.assembly({name!r}) first"
        )
    function = ASSEMBLIES[name]
    if isinstance(function, str):
        module, _, attribute = function.partition(":")
        function = getattr(import_module(module), attribute)
    signature: Any = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
    hints = get_type_hints(signature, include_extras=True)
    return function(**{key: _argument(hints[key], value) for key, value in data.items()})


def _argument(hint: Any, value: Any) -> Any:
    """One argument from plain data; of what may be None, the other type."""
    if value is None:
        return None
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(part for part in get_args(hint) if part is not types.NoneType)
    return from_data(hint, value)


def _filled(flow: Module, tensors: Mapping[str, Tensor]) -> Module:
    """A fresh flow with stored weights, on their device and in their dtype, and the posterior draw if there is one."""
    weights = part(tensors, _WEIGHTS)
    first = next(tensor for tensor in weights.values() if tensor.is_floating_point())
    flow.to(first.device, first.dtype).load_state_dict(weights)
    for name, noise in part(tensors, _NOISE).items():
        module, _, attribute = name.rpartition(".")
        setattr(flow.get_submodule(module), attribute, noise)
    return flow.eval()
