"""Places of a network that a head can tap and that a model can be cut at, as rows in the order of the graph."""

from __future__ import annotations

from passes.errors import UserError
from passes.heads import chart
from passes.heads.classifier import own_classifier
from passes.heads.taps import Chart
from passes.network.analysis import Analysis
from passes.network.knobs import named, stage_name

Json = dict[str, object]


def place_rows(analysis: Analysis) -> list[Json]:
    """One row per place: stage (None outside of stages), name, tensor, shape, stride in pixels of the image, and
    whether a head can tap it.

    Places are the exits of stages and blocks, the hidden maps of blocks, the maps that every path passes, and what the
    network's own classifier reads.
    """
    rows = own_classifier(analysis)
    found = chart(analysis, None if rows is None else rows.features)
    places = list(found.names.items())
    known = set(found.names.values())
    others = [*_maps(found), *([] if rows is None else [rows.features])]
    places += [(found.name_of(tensor), tensor) for tensor in dict.fromkeys(others) if tensor not in known]
    order = {name: k for k, node in enumerate(analysis.view.nodes) for name in node.outputs}
    inside = _stages(analysis)
    return [
        _row(name, tensor, found, inside) for name, tensor in sorted(places, key=lambda place: order.get(place[1], -1))
    ]


def _maps(found: Chart) -> list[str]:
    """The maps on the way; none where none is."""
    try:
        return found.maps()
    except UserError:
        return []


def _stages(analysis: Analysis) -> dict[str, str]:
    """Tensor → the stage in which it is computed."""
    nodes = {
        node: stage_name(i) for i, stage in enumerate(analysis.stages) for block in stage.blocks for node in block.nodes
    }
    return {tensor: nodes[node.name] for node in analysis.view.nodes if node.name in nodes for tensor in node.outputs}


def _row(name: str, tensor: str, found: Chart, inside: dict[str, str]) -> Json:
    known, shape, grid = named(name), found.analysis.shapes.shapes.get(tensor), found.grids.get(tensor)
    return {
        "stage": stage_name(known.stage) if known is not None else inside.get(tensor),
        "name": name,
        "tensor": tensor,
        "shape": None if shape is None else list(shape),
        "stride": None if grid is None else [float(step) for step in grid.stride],
        "tap": found.is_map(tensor),
    }
