"""A model file as it runs in ONNX Runtime: what it makes of images, and its figures on samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from fnatool import terminal
from fnatool.data.placement import Size
from fnatool.runtime import isolate
from fnatool.runtime.session import Runner
from fnatool.tasks.description import Description
from fnatool.tasks.pixels import to_array
from fnatool.training.figures import Predict, evaluate
from fnatool.training.processes import World, cores
from fnatool.training.samples import Evaluation
from passes.errors import RefusedModel

SECONDS = 120.0  # to load a model and run it once, in a process of its own


def evaluate_file(
    path: Path, samples: Evaluation, *, batch: int = 32, workers: int = 2, provider: str = "cpu",
    done: Callable[[int], None] | None = None
) -> dict[str, float]:  # fmt: skip
    """The figures of the task on all samples. Raises RefusedModel where the model does not run, UserError without the
    provider.
    """
    require_runs(path, samples.description, samples.size)
    return evaluate(predicting(path, samples.description, provider), samples, batch=batch, workers=workers, done=done)


def evaluate_together(path: Path, samples: Evaluation, world: World, *, batch: int, workers: int) -> dict[str, float]:
    """The same on the CPU, of a file that is known to run, each process doing its part of the samples."""
    return evaluate(
        predicting(path, samples.description, threads=cores()), samples, batch=batch, workers=workers, world=world
    )


def require_runs(path: Path, described: Description, size: Size) -> None:
    """The model in a file runs on an image of that size, in a process of its own. Raises RefusedModel where it does
    not.
    """
    try:
        isolate.run(_try, path, (1, 3, *size), described, seconds=SECONDS, memory=16 * isolate.GIB)
    except isolate.Died as error:
        raise RefusedModel(f"'{path}' in ONNX Runtime: {error}") from error


def predicting(
    path: Path, described: Description, provider: str = "cpu", *, threads: int = 0, optimised: str = "all"
) -> Predict:  # fmt: skip
    """What the model in a file makes of images, uint8 RGB [N, 3, H, W]; one whose batch is fixed sees as many at once
    as it takes.

    The user is told what the provider leaves to the CPU.
    """
    runner = Runner(path, provider, threads=threads, optimised=optimised)
    if runner.left is not None:
        terminal.console().print(f"{path.name}: {runner.left}", markup=False)
    name = next(iter(runner.types))
    dtype = runner.dtype(name)
    return lambda images: runner.over({name: to_array(images.numpy(), described.input, dtype)})


def _try(path: Path, shape: tuple[int, ...], described: Description) -> None:
    images = torch.zeros(shape, dtype=torch.uint8)
    predicting(path, described)(images)
