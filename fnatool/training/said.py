"""What a run of training says of itself: while it goes on, and at its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

Figures = Mapping[str, float]


@dataclass(frozen=True)
class TrainingWatch:
    """Who is told how a run goes: after resuming, after every step (values, steps done, steps in all), and after every
    evaluation.
    """

    started: Callable[[int, int], None]
    stepped: Callable[[int, Figures], None]
    evaluated: Callable[[int, Figures], None]


@dataclass(frozen=True)
class Tuned:
    """What came of it: the figures that training reported, and those of the written file in ONNX Runtime."""

    figures: Mapping[str, float]
    in_runtime: Mapping[str, float]
    metric: str
    step: int
