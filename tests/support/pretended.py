"""A device that is not there: tensors that say they lie on it, are computed on the CPU, and count every time the host
would wait for them.

with pretended() as device:
    x = torch.rand(3).to(PLACE)
    x.sum().item()
device.waits                                # ["_local_scalar_dense"]
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from fnatool.supernet.alpha import on_device
from fnatool.tasks.boxes import anchors_on
from fnatool.tasks.constants import constant

OUTSIDE = torch._C.DispatchKeySet(torch._C.DispatchKey.Python) | torch._C.DispatchKeySet(
    torch._C.DispatchKey.PythonTLSSnapshot
)
PLACE = torch.device("meta")  # the only one besides the CPU that autograd runs without a driver
SCALAR = {
    "_local_scalar_dense",
    "equal",
    "is_nonzero",
    "nonzero",
    "masked_select",
    "unique_dim",
    "_unique2",
    "repeat_interleave",
}
"""Operators that have an answer for the host, or a shape that only values tell."""


class There(Tensor):
    """A tensor of the device; `here` are its values."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> There:
        made: There = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, here.shape, strides=here.stride(), storage_offset=here.storage_offset(), dtype=here.dtype,
            device="meta", requires_grad=False,
        )  # fmt: skip
        made.here = here
        return made

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} outside of the device")


@dataclass
class Device(TorchDispatchMode):
    """Runs everything of the device, and remembers what the host waited for."""

    waits: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = func.overloadpacket.__name__
        tensors: list[Tensor] = []
        tree_map(lambda value: tensors.append(value) if isinstance(value, Tensor) else None, (args, kwargs))
        there = any(isinstance(value, There) for value in tensors)
        asked = kwargs.get("device")
        to_there = torch.device(asked) == PLACE if asked is not None else there
        moved = bool(tensors) and asked is not None and to_there != there
        if moved and not kwargs.get("non_blocking"):
            self.waits.append(f"{name} to {'the device' if to_there else 'the host'}")
        elif there and (name in SCALAR or _picks(name, args)):
            self.waits.append(name)
        elif (
            name == "copy_"
            and isinstance(args[0], There) != isinstance(args[1], There)
            and not (len(args) > 2 and args[2])
        ):
            self.waits.append("copy_")
        elif there and any(not isinstance(value, There) and value.dim() for value in tensors) and name != "copy_":
            raise AssertionError(f"{name} mixes tensors of the device with others")
        inner_kwargs = {**kwargs, "device": torch.device("cpu")} if asked is not None else kwargs
        made = func(*tree_map(_here, args), **tree_map(_here, inner_kwargs))
        if made is None:
            return None
        if torch.Tag.inplace_view in func.tags:  # it changes no values but the shape, which the tensor outside has too
            with torch._C._ExcludeDispatchKeyGuard(OUTSIDE):
                func(*args, **kwargs)
            return args[0]
        if func._schema.is_mutable and name.endswith("_") and not isinstance(made, list | tuple):
            return args[0]
        if name == "_local_scalar_dense" or not to_there:
            return made
        return tree_map(lambda value: There(value) if isinstance(value, Tensor) else value, made)


def _here(value: Any) -> Any:
    return value.here if isinstance(value, There) else value


def _picks(name: str, args: tuple[Any, ...]) -> bool:
    """Reads or writes at places of a mask, of which there may be any number."""
    if name not in ("index", "index_put", "index_put_", "_index_put_impl_"):
        return False
    return any(isinstance(index, Tensor) and index.dtype == torch.bool for index in args[1])


@contextmanager
def pretended() -> Iterator[Device]:
    """Within it torch has a device that computes on the CPU."""
    made = torch.tensor

    def tensor(values: Any, **how: Any) -> Tensor:
        if how.get("device") != PLACE:
            return made(values, **how)
        device.waits.append("tensor to the device")
        return There(made(values, **{**how, "device": "cpu"}))

    with pytest.MonkeyPatch.context() as patch, Device() as device:
        patch.setattr(torch, "tensor", tensor)  # which copies behind the back of every mode
        try:
            yield device
        finally:
            constant.cache_clear()
            anchors_on.cache_clear()
            on_device.cache_clear()
