"""Two model files on the same samples in ONNX Runtime: how like the outputs of one are to those of the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

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
    """How like the first model is to the second on the same samples, each as that model takes them; and the outputs left out, with why.

    Raises RefusedModel where one does not run, computes what is not finite, or where nothing can be compared.
    """
    for path, samples in zip(models, data, strict=True):
        feeds = next(samples.batches(1))
        try:
            isolate.run(_try, path, feeds, seconds=SECONDS, memory=isolate.GIB * 64)
        except isolate.Died as error:
            raise RefusedModel(f"'{path}' in ONNX Runtime: {error}") from error
    first, second = (Runner(path, provider) for path in models)
    at_once = _at_once((first, second), data, batch)
    comparison = LikenessSums()
    for own, other in zip(_outputs(first, data[0], at_once), _outputs(second, data[1], at_once), strict=True):
        comparison.add(own, other)
        done(at_once)
    return comparison.result(), comparison.left_out


def _try(path: Path, feeds: Feeds) -> None:
    runner = Runner(path)
    runner(_filled(feeds, runner.batch or 1))


def _at_once(runners: Sequence[Runner], data: Sequence[Unlabelled], batch: int) -> int:
    """As many as asked for, one where an output has no axis of samples."""
    for runner, samples in zip(runners, data, strict=True):
        if runner.batch is not None:
            continue
        feeds = {name: np.concatenate([value, value]) for name, value in next(samples.batches(1)).items()}
        if any(value.ndim == 0 or len(value) != 2 for value in runner(feeds).values()):
            return 1
    return batch


def _outputs(runner: Runner, data: Unlabelled, at_once: int) -> Iterator[dict[str, Array]]:
    for feeds in data.batches(at_once):
        count = len(next(iter(feeds.values())))
        step = runner.batch or count
        parts = []
        for start in range(0, count, step):
            part = {name: value[start : start + step] for name, value in feeds.items()}
            parts.append(runner(_filled(part, step)))
        yield {name: _joined([part[name] for part in parts], count) for name in runner.outputs}


def _joined(parts: Sequence[Array], count: int) -> Any:
    return parts[0] if len(parts) == 1 and (not parts[0].ndim or len(parts[0]) <= count) else np.concatenate(parts)[:count]


def _filled(feeds: Feeds, count: int) -> dict[str, Array]:
    """So many samples, the last one repeated."""
    return {
        name: value if len(value) == count else np.concatenate([value, np.repeat(value[-1:], count - len(value), axis=0)])
        for name, value in feeds.items()
    }
