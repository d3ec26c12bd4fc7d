"""What is known of the channels of the image that a network reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from passes.graph.tensors import Shapes
from passes.graph.view import View
from passes.network.images import Image


@dataclass(frozen=True)
class Colours:
    """The input that is an image, the axis of its channels, and how many there are; None where there is no such
    input.
    """

    image: str
    axis: int
    value: int | None
    view: View = field(repr=False, compare=False)
    shapes: Shapes = field(repr=False, compare=False)

    @cached_property
    def why(self) -> str | None:
        """Why there cannot be more channels, which is found out when it is first asked for; None: there can."""
        return self.refused(4 if self.value != 4 else 5)

    def refused(self, channels: int) -> str | None:
        """Why there cannot be so many; None where there can."""
        from passes.colours.following import Lost  # not above: most who analyse a network never ask
        from passes.colours.recoloured import Recolouring, recoloured

        if self.value is None:
            return "there is no image whose channels could be others"
        try:
            recoloured(self.view, self.shapes, Recolouring(self.image, self.axis, channels))
        except Lost as why:
            return str(why)
        return None


def read_colours(image: Image, seen: View, shapes: Shapes) -> Colours:
    """The channels of the image."""
    shape = shapes.shapes.get(image.input, ())
    left = [axis for axis in range(1, len(shape)) if axis not in image.axes]
    if len(shape) != 4 or len(left) != 1:
        return Colours(image.input, -1, None, seen, shapes)
    declared = seen.inputs[image.input][0]
    known = declared is not None and isinstance(declared[left[0]], int)
    return Colours(image.input, left[0], shape[left[0]] if known else None, seen, shapes)
