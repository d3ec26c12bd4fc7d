"""How a block's branch can be made to add nothing."""

from __future__ import annotations

from dataclasses import replace

from passes.channels.atoms import Identities
from passes.graph.learnt import dense_weights
from passes.graph.operators import HOMOGENEOUS, IDEMPOTENT, MERGES, SLOPE, ZERO, of
from passes.graph.view import Node, View
from passes.network.stages import Block, Silence, Stage


def silences(stage: Stage, view: View, identities: Identities) -> dict[int, Silence]:
    """For each repeatable block of a stage, by its number, how a copy of it is silenced."""
    # what a copy's entry comes from
    exits = frozenset(_operator(view.by_name[view.producer[block.exit]], view) for block in stage.blocks)
    return {j: _silence(stage.blocks[j], exits, view, identities) for j in stage.repeatable}


def _operator(node: Node, view: View) -> tuple[object, ...]:
    """What an activation computes: its type, attributes and bounds; of other nodes the type is enough."""
    if IDEMPOTENT not in of(node.op).has:
        return (node.op,)
    bounds = [view.values(name).tolist() for name in node.inputs[1:] if name in view.constants]
    return (node.op, repr(sorted(node.attrs.items())), repr(bounds))


def _silence(block: Block, exits: frozenset[tuple[object, ...]], view: View, identities: Identities) -> Silence:
    """The last affine of the block's branch: with it at zero, exit = activation(entry) = entry where the activation is
    idempotent.

    y = γ(x−μ)/√(σ²+ε)+β: γ=β=0 gives 0 whatever x is, and ∂y/∂γ stays non-zero, so the copy learns from the first step.
    """
    merge = view.by_name.get(block.merge)
    if merge is None:
        return Silence(why="it has no addition whose branch could be silenced")
    if block.exit != merge.outputs[0]:
        activation = view.by_name[view.producer[block.exit]]
        if IDEMPOTENT not in of(activation.op).has or exits != {_operator(activation, view)}:
            return Silence(why=f"'{activation.name}' ({activation.op}) after the addition changes what passes it twice")
    arms = _summands(merge, block, view)
    through = [arm for arm in arms if arm == block.entry]
    held = None if through else next(filter(None, (_identity(arm, block, view, identities) for arm in arms)), None)
    if not through and held is None:
        return Silence(
            why=f"no arm of '{merge.name}' is the block's input itself, or a normalisation or scale of it that "
            "could become that"
        )
    if len(through) > 1:
        return Silence(why=f"'{merge.name}' adds the block's input to itself")
    tensors: list[str] = []
    scales = held is None
    for name in arms:
        if name == block.entry or (held is not None and name == held[0]):
            continue
        found = _last_affine(name, block, view, identities)
        if found.why is not None:
            return found
        tensors += found.tensors
        scales &= found.scales
    return Silence(tuple(dict.fromkeys(tensors)), scales=scales, held=() if held is None else held[1])


def _last_affine(
    tensor: str, block: Block, view: View, identities: Identities, *, extra: tuple[str, ...] = ()
) -> Silence:
    producer = view.producer.get(tensor)
    if producer is None or producer not in block.nodes:
        return Silence(
            why=f"the branch passes on '{tensor}' from before the block, which no weight of its own could silence"
        )
    node = view.by_name[producer]
    if node.op == "BatchNormalization":
        return Silence((*extra, node.inputs[1], node.inputs[2]))
    row = of(node.op)
    weights = dense_weights(node, view)
    if weights:
        bias = "" if row.bias is None else node.input(row.bias)
        return Silence((*extra, weights[-1], *((bias,) if bias else ())))
    constants = [name for name in node.inputs if name in view.constants]
    others = [name for name in node.inputs if name and name not in view.constants]
    per_channel = [name for name in constants if any(key[0] == name for key in identities.sites)]
    if node.op == "Mul" and per_channel:
        return Silence((*extra, *per_channel))
    if node.op == "Mul" and others:
        widest = max(others, key=lambda name: view_size(name, identities))
        return _passed(_last_affine(widest, block, view, identities, extra=extra), scales=len(others) == 1)
    if node.op in ("Add", "Sub") and per_channel and others:  # a bias, whatever its sign
        return _last_affine(others[0], block, view, identities, extra=(*extra, *per_channel))
    if node.op == "Div" and others and others[0] == node.inputs[0]:
        return _passed(_last_affine(others[0], block, view, identities, extra=extra), scales=len(others) == 1)
    if ZERO | SLOPE in row.has:  # without a slope, as Relu, it would let no gradient through
        return _passed(
            _last_affine(node.inputs[0], block, view, identities, extra=extra), scales=HOMOGENEOUS in row.has
        )
    if node.op == "Concat":
        parts = [_last_affine(name, block, view, identities) for name in node.inputs]
        failed = next((part for part in parts if part.why is not None), None)
        tensors = (*extra, *(name for part in parts for name in part.tensors))
        return failed or Silence(tensors, scales=all(part.scales for part in parts))
    return Silence(why=f"the branch ends in '{node.name}' ({node.op}), behind which a silent copy could not learn")


def _passed(silence: Silence, *, scales: bool) -> Silence:
    """The silence of an affine behind which there is another operator, homogeneous or not."""
    return replace(silence, scales=silence.scales and scales)


def view_size(name: str, identities: Identities) -> int:
    """How many elements a tensor has: a gate of extent one must not be taken for the branch itself."""
    return identities.extents.get(name, 0)


def _summands(merge: Node, block: Block, view: View) -> list[str]:
    """What an addition adds up, partial sums within the block taken apart."""
    found = []
    for name in merge.inputs:
        maker = view.by_name.get(view.producer.get(name, ""))
        partial = (
            maker is not None and maker.name in block.nodes and maker.op in MERGES and len(view.readers[name]) == 1
        )
        if maker is not None and partial and not any(other in view.constants for other in maker.inputs):
            found += _summands(maker, block, view)
        else:
            found.append(name)
    return found


def _identity(
    arm: str, block: Block, view: View, identities: Identities
) -> tuple[str, tuple[tuple[str, float], ...]] | None:
    """The arm, and what its tensors hold to make it the block's entry: a normalisation of it as it is before training,
    or a scale of 1.

    y = γ(x−μ)/√(σ²+ε)+β: γ=1, β=μ=0 and σ²=1−ε give y=x.
    """
    node = view.by_name.get(view.producer.get(arm, ""))
    if node is None or node.name not in block.nodes or block.entry not in node.inputs or len(view.readers[arm]) != 1:
        return None
    if node.op == "BatchNormalization" and all(name in view.constants for name in node.inputs[1:5]):
        values = (1.0, 0.0, 0.0, 1.0 - float(node.attrs.get("epsilon", 1e-5)))
        return arm, tuple(zip(node.inputs[1:5], values, strict=True))
    others = [name for name in node.inputs if name != block.entry]
    per_channel = [
        name for name in others if name in view.constants and any(key[0] == name for key in identities.sites)
    ]
    if node.op == "Mul" and len(others) == 1 and per_channel:
        return arm, ((per_channel[0], 1.0),)
    return None
