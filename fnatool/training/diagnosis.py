"""Why a step failed, in words: which tensor is not finite, what needs too much memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from fnatool.nn.network import Network

TAPS = 64  # inner tensors looked at in one pass


def not_finite(network: Network, inputs: Sequence[Tensor]) -> str:
    """The first tensor that is not finite, in words: a parameter, an inner value for these inputs, or else a
    gradient.
    """
    broken = broken_value(network)
    if broken is not None:
        return broken
    reading = network.origin.reading
    computed = [
        name
        for node in reading.view.nodes
        for name in node.outputs
        if name in reading.facts.data and name not in reading.facts.known
    ]
    with torch.no_grad():
        for start in range(0, len(computed), TAPS):
            names = tuple(name for name in computed[start : start + TAPS] if name)
            _, values = network(*inputs, taps=names)
            for name in names:
                if _is_broken(values[name]):
                    return f"the value '{name}' of node '{reading.view.producer[name]}' is not finite"
    return broken_gradient(network.named_parameters())


def broken_value(network: torch.nn.Module) -> str | None:
    """The first parameter or statistic that is not finite, in words."""
    for name, value in network.state_dict().items():
        if _is_broken(value):
            return f"the parameter '{name}' is not finite"
    return None


def broken_state(state: object, where: str = "") -> str | None:
    """The first tensor in the state of a checkpoint that is not finite, in words."""
    if _is_broken(state):
        part, _, name = where.partition(".")
        owner = {"network": "the parameter", "average": "the average of the parameter"}.get(part)
        return f"{owner} '{name}' is not finite" if owner else f"the memory of the optimiser is not finite ({where})"
    rows = state.items() if isinstance(state, Mapping) else enumerate(state) if isinstance(state, list) else ()
    found = (broken_state(value, f"{where}.{name}" if where else str(name)) for name, value in rows)
    return next((words for words in found if words is not None), None)


def broken_gradient(parameters: Iterable[tuple[str, Tensor]]) -> str:
    """The first parameter whose gradient is not finite, in words; else the loss is at fault."""
    for name, parameter in parameters:
        if parameter.grad is not None and _is_broken(parameter.grad):
            return f"the gradient of '{name}' is not finite, all values are"
    return "the loss is not finite, all values are"


def _is_broken(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and not bool(torch.isfinite(value).all())


OUT_OF_MEMORY = (
    *("can't allocate memory", "not enough memory"),  # torch on the CPU
    *("out of memory", "cudaerrormemoryallocation"),  # the driver
    *(
        "alloc_failed",
        "allocation_failed",
    ),  # cuBLAS, cuDNN: CUBLAS_STATUS_ALLOC_FAILED, CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED
    *("failed to cuda calloc", "failed to cuda malloc", "failed to cuda host alloc"),  # NCCL
)
"""What is in the messages of those that have no type of their own for it, in small letters."""


def is_out_of_memory(error: BaseException) -> bool:
    """torch says so by a type of its own on an accelerator, by words on the CPU, and in words too hands on what the
    libraries say.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in OUT_OF_MEMORY)
