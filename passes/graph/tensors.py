"""What is known of the tensors of a graph: sizes, element types, and the values of small ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

Shape = tuple[int, ...]


def typed(shape: Iterable[int | str | None]) -> str:
    """A shape as people type it, 1x3x224x224, with ? for a size that is not known; 'scalar' where it has no axes."""
    return "x".join("?" if size in (-1, None) else str(size) for size in shape) or "scalar"


def printed(shape: Iterable[object]) -> str:
    """A shape as people read it: 1×3×224×224."""
    return "×".join(map(str, shape))


@dataclass(frozen=True)
class Value:
    """A known small tensor: its array, which elements depend on a free dimension, and where each element is written in
    the file.

    `source` holds (constant's name, flat index) per element, flattened, None where the element was computed.
    """

    array: np.ndarray
    free: np.ndarray
    source: tuple[tuple[str, int] | None, ...]


@dataclass(frozen=True)
class Shapes:
    """Shapes under the probe sizes, element types, known values, and which input dimensions are free."""

    shapes: Mapping[str, Shape]
    types: Mapping[str, int]
    values: Mapping[str, Value]
    free_axes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def free_space(self) -> bool:
        """Whether an input has a free dimension other than its batch that nobody gave a size for."""
        return any(axis > 0 for axes in self.free_axes.values() for axis in axes)

    @property
    def guess(self) -> str:
        """What to do where the network does not run at sizes that nobody said; '' where all are known."""
        guessed = [name for name, axes in self.free_axes.items() if any(axis > 0 for axis in axes)]
        if not guessed:
            return ""
        taken = " and ".join(f"'{name}' was taken as {typed(self.shapes[name])}" for name in guessed)
        form = typed(
            "…" if axis in self.free_axes[guessed[0]] else size for axis, size in enumerate(self.shapes[guessed[0]])
        )
        return (
            f"nobody said what its free sizes are ({taken}): give those that it runs at with --input "
            f"{guessed[0]}={form}"
        )
