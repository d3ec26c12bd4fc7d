"""What a rule is, and what rules of several kinds use."""

from __future__ import annotations

from collections.abc import Callable

from passes.channels.axes import Flow, Ids, Label
from passes.errors import RefusedModel
from passes.graph.tensors import Shape
from passes.graph.view import Node

Labels = Label | None | tuple[Label | None, ...]
Rule = Callable[[Node, Flow], Labels]


def shape_of(flow: Flow, name: str) -> Shape:
    """The tensor's shape, which is known."""
    shape = flow.shape(name)
    if shape is None:
        raise KeyError(name)  # flow_identities lets no node through whose sizes are unknown
    return shape


def in_groups(node: Node, ids: Ids, groups: int) -> Ids:
    """The channels as [groups, channels of a group]. Raises RefusedModel where they do not come out even."""
    if groups < 1 or ids.size % groups:
        raise RefusedModel(
            f"'{node.name}' ({node.op}) takes {ids.size} channels in {groups} groups; 'fnatool check' lists "
            "what is wrong"
        )
    return ids.reshape(groups, -1)


def freeze(flow: Flow, label: Label | None, why: str) -> None:
    """What the label carries is frozen, for this reason; None carries nothing."""
    if label is not None:
        flow.freeze(label.ids, why)


def axes_of(node: Node, flow: Flow, slot: int) -> tuple[int, ...] | None:
    """The axes from input `slot` or the attribute, () where neither is given, None where they are computed."""
    if node.input(slot):
        value = flow.shapes.values.get(node.input(slot))
        return None if value is None else tuple(int(a) for a in value.array.ravel())
    return node.ints("axes", ())
