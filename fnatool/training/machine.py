"""What a run works on: how torch is set, and what the user is told of device, type and processes before the first
step.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch

from fnatool import terminal
from fnatool.training.processes import World
from passes.errors import UserError


class Running(Protocol):
    """The part of a config's [run] that is about the machine."""

    @property
    def device(self) -> str: ...
    @property
    def amp(self) -> bool: ...
    @property
    def channels_last(self) -> bool: ...
    @property
    def threads(self) -> int | None: ...
    @property
    def deterministic(self) -> bool: ...
    @property
    def compile(self) -> bool: ...


WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def arranged(run: Running) -> Iterator[None]:
    """torch has the threads that are asked for, and within it only deterministic kernels where they are wanted and a
    device is used.

    Raises UserError for an operator without such a kernel.
    """
    if run.threads is not None:
        torch.set_num_threads(run.threads)
    if run.compile:
        warnings.filterwarnings("ignore", NOT_A_LEAF)
    if not run.deterministic or run.device == "cpu" or not torch.cuda.is_available():
        yield
        return
    os.environ.setdefault(WORKSPACE, ":4096:8")  # cuBLAS reads it when its first handle is made
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    except RuntimeError as error:
        if "does not have a deterministic implementation" not in str(error):
            raise
        what = str(error).partition(" does not have")[0]
        raise UserError(
            f"'run.deterministic' cannot be kept: torch has no such kernel for {what}; set it to false"
        ) from error
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


def amp_type(wanted: bool) -> torch.dtype | None:
    """The type of mixed precision on this CUDA device; None where it is not wanted. bfloat16 only where it is not
    emulated.
    """
    if not wanted:
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def memory_order(world: World, run: Running) -> torch.memory_format:
    """How weights lie in memory, and with them what convolutions make."""
    return torch.channels_last if world.device.type == "cuda" and run.channels_last else torch.preserve_format


BACKEND = "inductor"  # of torch.compile
NOT_A_LEAF = "The .grad attribute of a Tensor that is not a leaf"
"""torch warns itself of it, where what it compiles is given what another part has made."""


def compiling(run: Running) -> Callable[[Callable[..., Any]], Callable[..., Any]] | None:
    """What makes of a function or a module one that torch compiles when it first runs; None where that is not wanted.

    What was compiled before is forgotten: torch would keep it, and stop compiling after a few networks.
    """
    if not run.compile:
        return None
    torch.compiler.reset()
    return lambda function: torch.compile(function, backend=BACKEND, dynamic=False)


def require_compiler(world: World, run: Running) -> None:
    """torch can compile for the device, where that is wanted: it has done so once. Raises UserError with what is
    missing.
    """
    wrap = compiling(run)
    if wrap is None:
        return
    try:
        with warnings.catch_warnings(action="ignore"):
            wrap(_tried)(torch.ones(8, device=world.device))
    except RuntimeError as error:
        raise UserError(
            f"'run.compile' is true, but torch cannot compile here: {_cause(error)}; set it to false"
        ) from error


def _tried(x: torch.Tensor) -> torch.Tensor:
    return x.sin() + 1


def _cause(error: BaseException) -> str:
    """The first line of what the backend of torch.compile says."""
    error = getattr(error, "inner_exception", error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__


def say(world: World, run: Running) -> None:
    """The user knows on what and in which type the run computes, and hears of a GPU that it does not use."""
    if not world.first:
        return
    terminal.say(about(world, run))
    if world.device.type == "cpu" and run.device != "cpu" and (why := unusable()) is not None:
        terminal.say(f"warning: {why}")


def about(world: World, run: Running) -> str:
    """'on NVIDIA H200 (cuda:0), in bfloat16, 4 processes'"""
    on_device = world.device.type == "cuda"
    where = f"{torch.cuda.get_device_name(world.device)} ({world.device})" if on_device else "the CPU"
    kind = amp_type(on_device and run.amp) or torch.float32
    processes = "1 process" if world.size == 1 else f"{world.size} processes"
    return f"on {where}, in {str(kind).removeprefix('torch.')}, {processes}"


GPUS = (Path("/proc/driver/nvidia/gpus"), Path("/dev/nvidia0"))
"""Where the driver of an NVIDIA GPU shows that there is one."""


def unusable() -> str | None:
    """Why torch does not use the GPU that is here, in words; None where there is none, or it does."""
    if torch.cuda.is_available() or not any(path.exists() for path in GPUS):
        return None
    if torch.version.cuda is None:
        return f"a GPU is here, but this torch ({torch.__version__}) is built without CUDA; the run is on the CPU"
    try:
        with warnings.catch_warnings(action="ignore"):
            torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        why = str(error).strip().splitlines()[0]
    else:
        why = "it finds no device"
    return f"a GPU is here, but torch (for CUDA {torch.version.cuda}) cannot use it: {why}; the run is on the CPU"
