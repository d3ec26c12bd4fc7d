"""Whether a deployed graph answers as the model that it was made of: on pictures of many sizes, and on a data set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from fnatool import terminal
from fnatool.data.placement import Size
from fnatool.data.split import Split
from fnatool.deploy.answering import Answering
from fnatool.tasks.samples import picture
from fnatool.tasks.table import TASKS

SIDES: tuple[Size, ...] = ((1, 1), (2, 3), (1, 2), (3, 2), (5, 4))
"""Of pictures, in units of half the input, for which answers are compared: smaller and larger, wider and higher."""


@dataclass(frozen=True)
class Judged:
    """How far answers are apart (see `Task.apart`): the farthest, on which picture, the mean, and how many were
    compared.
    """

    worst: float
    where: str
    mean: float
    count: int


def pictures(size: Size, fixed: Size | None) -> Iterator[tuple[str, Image.Image]]:
    """Pictures of several sizes, coarse and fine patterns of colours, each with a name; of one size where the graph
    takes one alone.
    """
    rng = np.random.default_rng(0)
    for number, (rows, columns) in enumerate(SIDES if fixed is None else SIDES[:1] * len(SIDES)):
        high, wide = fixed or (max(size[0] * rows // 2 + number, 8), max(size[1] * columns // 2 - number, 8))
        parts = [rng.integers(0, 256, (max(high // cell, 2), max(wide // cell, 2), 3), np.uint8) for cell in (1, 4, 16)]
        layers = [np.asarray(Image.fromarray(part).resize((wide, high)), np.float32) for part in parts]
        mixed = (layers[0] * 0.2 + layers[1] * 0.3 + layers[2] * 0.5).astype(np.uint8)
        yield f"a pattern of {high}×{wide}", Image.fromarray(mixed)


def judged(one: Answering, other: Answering, shown: Iterator[tuple[str, Image.Image]]) -> Judged:
    """How far the answers of two are apart."""
    task = TASKS[one.description.task]
    found = [(task.apart(one.answer(image, None), other.answer(image, None)), name) for name, image in shown]
    worst, where = max(found)
    return Judged(worst, where, float(np.mean([apart for apart, _ in found])), len(found))


def figures(whose: Answering, split: Split, what: str) -> dict[str, float]:
    """The figures of the task on a checked split, picture by picture, as they are."""
    task = TASKS[split.task]
    evidence: list[Any] = []
    with terminal.progress(what, len(split.items)) as advance:
        for item in split.items:
            answer = whose.answer(picture(split, item), item)
            evidence.append(task.compare(answer, task.truth(split, item), whose.description))
            advance(1)
    return task.score(evidence, whose.description)


def outputs_apart(one: Answering, other: Answering, shown: Iterator[tuple[str, Image.Image]]) -> Judged:
    """How far the outputs are apart, as a share of the spread of each: where nothing is found in a picture, answers say
    little.
    """
    found = []
    for name, image in shown:
        before, after = one.raw(image), other.raw(image)
        for output, values in before.items():
            spread = float(np.ptp(values)) or 1.0
            found.append(
                (float(np.abs(values - after[output][: len(values)]).max(initial=0)) / spread, f"'{output}' on {name}")
            )
    worst, where = max(found)
    return Judged(worst, where, float(np.mean([apart for apart, _ in found])), len(found))
