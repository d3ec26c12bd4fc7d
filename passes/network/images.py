"""What is known of the image that a network reads, and of its strides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import onnx_graphsurgeon as gs

from passes.network.knobs import Size


@dataclass(frozen=True)
class Image:
    """The image that a network reads: the input, which of its axes are height and width, and their size.

    `free`: the file leaves the size open, so that any runs already; `refusal`: why it cannot change, where that is seen
    at once, and `tried` finds out where it takes a try. `graph` is the network as it was given, where numbers in its
    normal form are computed from the size (None: none is).
    """

    input: str
    axes: tuple[int, ...]
    size: Size | None
    free: bool = False
    refusal: str | None = None
    tried: Callable[[], str | None] | None = field(default=None, repr=False, compare=False)
    graph: gs.Graph | None = field(default=None, repr=False)

    @cached_property
    def why(self) -> str | None:
        """Why the size cannot change, which is found out when it is first asked for; None: it can."""
        return self.refusal if self.tried is None else self.tried()


@dataclass(frozen=True)
class Strides:
    """The output stride, the values it can take (its own is the largest), and whether a smaller one keeps the samples
    there are.
    """

    value: int
    values: tuple[int, ...]
    growth: str
    why: str | None


@dataclass(frozen=True)
class Resolution:
    """What is known of a network's maps: the image, the strides, and of which nodes it is known whether they make a
    map.
    """

    image: Image
    strides: Strides
    makes_map: Mapping[str, bool]
