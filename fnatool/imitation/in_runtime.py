"""Two model files on the same samples in ONNX Runtime: how like the outputs of one are to those of the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from fnatool import terminal
from fnatool.data.unlabelled import Unlabelled
from fnatool.imitation.likeness import Array, Likeness, LikenessSums
from fnatool.runtime import isolate
from fnatool.runtime.session import Runner
from passes.errors import RefusedModel

SECONDS = 120.0  # to load a model and run it once, in a process of its own
Feeds = Mapping[str, Array]


def compare(
    models: tuple[Path, Path],
    data: tuple[Unlabelled, Unlabelled],
    *,
    batch: int = 32,
    provider: str = "cpu",
    done: Callable[[int], None] = lambda count: None,
) -> tuple[Likeness, Mapping[str, str]]:
    """How like the first model is to the second on the same samples, each as that model takes them; and the outputs
    left out, with why.

    Raises RefusedModel where one does not run, computes what is not finite, or where nothing can be compared.
    """
    for path, samples in zip(models, data, strict=True):
        require_runs(path, samples)
    first, second = (Runner(path, provider) for path in models)
    for runner in (first, second):
        if runner.left is not None:
            terminal.console().print(f"{runner.path.name}: {runner.left}", markup=False)
    at_once = _at_once((first, second), data, batch)
    comparison = LikenessSums()
    for own, other in zip(_outputs(first, data[0], at_once), _outputs(second, data[1], at_once), strict=True):
        comparison.add(own, other)
        done(at_once)
    return comparison.result(), comparison.left_out


def require_runs(path: Path, samples: Unlabelled) -> None:
    """ONNX Runtime loads the model and computes something of a sample. Raises RefusedModel otherwise."""
    feeds = next(samples.batches(1))
    try:
        isolate.run(_try, path, feeds, seconds=SECONDS, memory=isolate.GIB * 64)
    except isolate.Died as error:
        raise RefusedModel(f"'{path}' in ONNX Runtime: {error}") from error


def _try(path: Path, feeds: Feeds) -> None:
    Runner(path).over(feeds)


def _at_once(runners: Sequence[Runner], data: Sequence[Unlabelled], batch: int) -> int:
    """As many as asked for, one where an output does not have its samples in front."""
    for runner, samples in zip(runners, data, strict=True):
        feeds = next(samples.batches(1))
        if runner.batch is None:
            feeds = {name: np.concatenate([value, value]) for name, value in feeds.items()}
        if any(value.ndim == 0 or len(value) != (runner.batch or 2) for value in runner(runner.filled(feeds)).values()):
            return 1
    return batch


def _outputs(runner: Runner, data: Unlabelled, at_once: int) -> Iterator[dict[str, Array]]:
    """Of all samples in order, each output with its samples in front; a single number of a file that takes several is
    for all of them.
    """
    for feeds in data.batches(at_once):
        made = runner.over(feeds)
        yield made if at_once > 1 else {name: _with_axis(value, lone=runner.batch == 1) for name, value in made.items()}


def _with_axis(value: Array, *, lone: bool) -> Array:
    """What is made of one sample, with an axis for it."""
    if (value.ndim and len(value) == 1) or not (value.ndim or lone):
        return value
    return value[np.newaxis]
