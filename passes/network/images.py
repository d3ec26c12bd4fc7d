"""What is known of the image that a network reads, and of its strides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_graphsurgeon as gs

from passes.network.knobs import Size


@dataclass(frozen=True)
class Image:
    """The image that a network reads: the input, which of its axes are height and width, and their size.

    `free`: the file leaves the size open, so that any runs already; `why`: why it cannot change (None: it can). `graph` is the network as
    it was given, where numbers in its normal form are computed from the size (None: none is).
    """

    input: str
    axes: tuple[int, ...]
    size: Size | None
    free: bool = False
    why: str | None = None
    graph: gs.Graph | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Strides:
    """The output stride, the values it can take (its own is the largest), and whether a smaller one keeps the samples there are."""

    value: int
    values: tuple[int, ...]
    growth: str
    why: str | None


@dataclass(frozen=True)
class Resolution:
    """What is known of a network's maps: the image, the strides, and of which nodes it is known whether they make a map."""

    image: Image
    strides: Strides
    makes_map: Mapping[str, bool]
