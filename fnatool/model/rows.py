"""What an analysis says, as rows: the image, stages, blocks, and the weights that move with a knob."""

from __future__ import annotations

from collections.abc import Iterable

from passes.errors import UserError
from passes.nearest import closest
from passes.network.analysis import Analysis, blocks_named, group_of
from passes.network.colours import Colours
from passes.network.images import Image
from passes.network.knobs import BATCH, CHANNELS, IMAGE, batch_text
from passes.network.profile import Profile, ProfilePart
from passes.network.samples import Batching
from passes.target.spec import MAX_BATCH, MAX_CHANNELS, MAX_SIDE

Json = dict[str, object]


def image_row(image: Image) -> Json:
    """The image's size as a knob: its value is [height, width], null where it is free or there is no image."""
    frozen, value = image.why is not None, None if image.free or image.size is None else list(image.size)
    low, high = (value, value) if frozen else ([1, 1], [MAX_SIDE, MAX_SIDE])
    row = {"name": IMAGE, "kind": "size", "value": value, "min": low, "max": high, "multiple": 1}
    return {**row, "growth": "frozen" if frozen else "exact", "why": image.why, "values": []}


def channels_row(colours: Colours) -> Json:
    """The channels of the image as a knob: null where there is no image whose channels are known."""
    why, value = colours.why, colours.value
    fewest, most = (value, value) if why is not None else (1, MAX_CHANNELS)
    if why is not None and value not in (None, 1) and colours.refused(1) is None:
        fewest, why = 1, f"no more: {why}"  # one is always possible where the image may be repeated
    row = {"name": CHANNELS, "kind": "channels", "value": value, "min": fewest, "max": most, "multiple": 1}
    return {**row, "growth": "frozen" if colours.why is not None else "exact", "why": why, "values": []}


def batch_row(batching: Batching) -> Json:
    """How many samples there are as a knob: its value is a number, or "free"; null where no input has an axis of
    samples.
    """
    why = batching.why
    value = batch_text(batching.value) if batching.inputs else None
    low, high = (value, value) if why is not None else (1, MAX_BATCH)
    row = {"name": BATCH, "kind": BATCH, "value": value, "min": low, "max": high, "multiple": 1}
    return {**row, "growth": "frozen" if why is not None else "exact", "why": why, "values": []}


def block_rows(analysis: Analysis) -> list[Json]:
    """One row per block: name, kind, entry and exit tensor, nodes, parameters, multiply-adds."""
    rows: list[Json] = []
    for name, block in blocks_named(analysis):
        params, macs = cost_of(analysis, block.nodes)
        rows.append(
            {
                "name": name,
                "kind": block.kind,
                "entry": block.entry,
                "exit": block.exit,
                "nodes": list(block.nodes),
                "params": params,
                "macs": macs,
            }
        )
    return rows


def stage_rows(analysis: Analysis) -> list[Json]:
    """One row per stage: depth, channels and space of its exit, parameters, multiply-adds."""
    rows: list[Json] = []
    for i, stage in enumerate(analysis.stages):
        params, macs = cost_of(analysis, [node for block in stage.blocks for node in block.nodes])
        label = analysis.identities.labels.get(stage.blocks[-1].exit)
        width = None if label is None else int(label.ids.size)
        shape = analysis.shapes.shapes.get(stage.blocks[-1].exit)
        space = None if analysis.shapes.free_space or shape is None else list(shape[2:])
        rows.append(
            {
                "name": f"stage{i}",
                "depth": len(stage.blocks),
                "width": width,
                "space": space,
                "params": params,
                "macs": macs,
            }
        )
    return rows


def cost_of(analysis: Analysis, nodes: Iterable[str]) -> tuple[int, int | None]:
    """Parameters and multiply-adds of some nodes; a shared weight belongs to the first node that reads it."""
    params = macs = 0
    readers = analysis.view.readers
    for node in nodes:
        macs += analysis.cost.node_macs.get(node, 0)
        for name in analysis.view.by_name[node].inputs:
            if name in analysis.cost.tensor_params and readers[name][0][0] == node:
                params += analysis.cost.tensor_params[name]
    return params, None if analysis.cost.macs is None else macs


def group_rows(analysis: Analysis, knob: str) -> list[Json]:
    """Every (initializer, axis, indices, role) that moves with a width or kernel knob. Raises UserError for other
    knobs.
    """
    found = analysis.knobs.get(knob)
    if knob in (IMAGE, CHANNELS, BATCH):
        raise UserError(f"'{knob}' changes no weight; --group shows the weights of width and kernel knobs")
    if found is None:
        raise UserError(
            f"'{knob}' is not a knob of this model{closest(knob, [IMAGE, CHANNELS, BATCH, *analysis.knobs])}"
        )
    if knob in analysis.kernels:
        kernel = analysis.kernels[knob]
        return [
            {"initializer": kernel.weight, "axis": axis, "indices": list(range(extent)), "role": "kernel"}
            for axis, extent in enumerate(kernel.extents, 2)
            if extent > 1
        ]
    if knob in analysis.groups:
        raise UserError(
            f"'{knob}' cuts '{analysis.groups[knob].weight}' into blocks; --group shows the weights of width "
            "and kernel knobs"
        )
    if knob not in analysis.atoms:
        what = WHOLE.get(found.kind, "moves no weight axis alone")
        raise UserError(f"'{knob}' {what}; --group shows the weights of width and kernel knobs")
    return group_of(analysis, knob)


WHOLE = {"stride": "changes no weight", "depth": "repeats whole blocks", "from": "chooses a whole block"}


def numbers_of(part: ProfilePart, found: Profile) -> Json:
    """Parameters, multiply-adds, bytes of activations in all and at once; None where a free image size leaves them
    open.
    """
    return {
        "params": part.params,
        "macs": part.macs if found.sized else None,
        "activations": part.activations if found.sized else None,
        "peak_activations": part.peak if found.sized else None,
    }
