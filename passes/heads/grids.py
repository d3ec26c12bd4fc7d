"""How maps lie in the image."""

from __future__ import annotations

from fractions import Fraction

from passes.heads.tap import Grid
from passes.maps.contents import Axes, one_side, sides
from passes.maps.following import follow
from passes.maps.positions import MapSpace
from passes.network.analysis import Analysis
from passes.network.resolution import image_maps


def followed(analysis: Analysis) -> MapSpace:
    """All maps of the network as it is: what becomes of the image's height and width."""
    image = analysis.image
    return follow(
        analysis.view, analysis.shapes, image_maps(analysis.shapes, {image.input: image.axes} if image.axes else {})
    )


def grids_of(analysis: Analysis) -> dict[str, Grid]:
    """Every tensor [N, channels, h, w] or [N, h, w, channels] of the image, by how it lies there."""
    found = {}
    for tensor, known in followed(analysis).maps.items():
        down, across = (_along(known.axes, axis) for axis in analysis.image.axes)
        label = analysis.identities.labels.get(tensor)
        if len(known.axes) != 4 or down is None or across is None or (down[0], across[0]) not in ((2, 3), (1, 2)):
            continue
        axis = 1 if down[0] == 2 else 3
        if label is None or label.axis == axis:
            found[tensor] = Grid((down[1], across[1]), axis)
    return found


def _along(axes: Axes, image_axis: int) -> tuple[int, Fraction] | None:
    """Which axis of a tensor counts positions along that axis of the image, and every how many pixels; None where that
    is not one axis.
    """
    places = [k for k, content in enumerate(axes) if any(side.axis[1] == image_axis for side in sides(content))]
    side = one_side(axes[places[0]]) if len(places) == 1 else None
    return None if side is None or side.stride is None else (places[0], side.stride)
