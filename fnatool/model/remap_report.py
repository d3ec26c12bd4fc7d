"""What a remap did, as JSON, tensor by tensor."""

from __future__ import annotations

import math
from collections.abc import Iterator

from fnatool.model.refit_result import Refit, RefitDistance
from fnatool.model.remapped import Remapped
from passes.channels.groups import regrouped_shape
from passes.graph.tensors import Shape
from passes.network.knobs import BATCH, CHANNELS, FREE, IMAGE, Size, batch_text
from passes.target.take import Take

Json = dict[str, object]


def report(made: Remapped) -> Json:
    """Seed, strategy, resolved spec, drifts, verification, and a row per target tensor."""
    verified = made.verified
    return {
        "seed": f"sha256:{made.seed.sha256}",
        "strategy": made.plan.strategy,
        "spec": dict(made.plan.resolved.spec().knobs),
        "changes": [
            {"knob": name, "from": None if (name, old) == (IMAGE, FREE) else old, "to": new}
            for name, old, new in changes(made)
        ],
        "drifts": [*made.plan.drifts, *averages(made)],
        "notes": [*made.analysis.notes, *made.plan.notes],
        "verified": None if verified is None else verified.to_json(),
        **({} if made.refit is None else {"refit": refit_rows(made.refit)}),
        "tensors": tensor_rows(made),
    }


def refit_rows(found: Refit) -> Json:
    """Which layers were solved anew, and how far their tensors and the outputs are from the seed's on the samples kept
    back.

    `strength` is null for a layer that stays as it is, as none helped; a distance, where values are not finite.
    """
    return {
        "used": found.used,
        "kept_back": found.kept,
        "layers": [
            {"node": row.node, "block": row.block, "strength": row.strength, **_distance(row.distance)}
            for row in found.layers
        ],
        "outputs": [_distance(row) for row in found.outputs],
        "skipped": dict(found.skipped),
    }


def _distance(found: RefitDistance) -> Json:
    return {"tensor": found.tensor, "before": _number(found.before), "after": _number(found.after)}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def changes(made: Remapped) -> list[tuple[str, int | str | Size, int | str | Size]]:
    """(knob, seed's value, target's value); a block that the seed lacks compares with the block it comes from."""
    resolved, image = made.plan.resolved, made.analysis.image
    size = FREE if image.free or image.size is None else image.size
    found: list[tuple[str, int | str | Size, int | str | Size]] = []
    own = made.analysis.batching.value
    if resolved.image is not None and resolved.image != size:
        found.append((IMAGE, size, resolved.image))
    if resolved.channels is not None and resolved.channels != made.analysis.colours.value:
        found.append((CHANNELS, made.analysis.colours.value or 0, resolved.channels))
    if made.plan.unbatched is not None:
        found.append((BATCH, batch_text(own), batch_text(resolved.batch)))
    for name, value in resolved.values.items():
        if value != resolved.knobs[name].value:
            found.append((name, resolved.knobs[name].value, value))
    return found


def averages(made: Remapped) -> list[str]:
    """Why tensors of the target are not compared: what comes after a node that averages over a finer map."""
    nodes = [f"'{name}'" for name in made.plan.averages]
    averages = "average over finer maps" if len(nodes) > 1 else "averages over a finer map"
    return [f"output_stride shrinks: {', '.join(nodes)} {averages}"] if nodes else []


def tensor_rows(made: Remapped) -> list[Json]:
    """One row per target tensor: its source, the index vector of each changed axis (−1 fresh), and a word for each
    change.

    A weight whose groups change is resized while it has `resized_at` groups: its index vectors speak of that shape.
    """
    rows: list[Json] = []
    for take in made.plan.takes:
        shape = made.analysis.shapes.shapes[take.source]
        axes = {str(axis): along.index.tolist() for axis, along in take.axes.items()}
        row: Json = {
            "target": take.target,
            "source": take.source,
            "from": list(shape),
            "to": list(take.shape(shape)),
            "indices": axes,
        }
        groups = take.regroup
        if groups is not None:
            row["groups"] = {"from": groups.seed, "resized_at": groups.ground, "to": groups.target}
        rows.append({**row, "what": list(dict.fromkeys(_words(take, shape)))})
    for name, array in made.plan.numbers.items():
        rows.append(
            {"target": name, "source": None, "from": None, "to": list(array.shape), "indices": {}, "what": ["size"]}
        )
    return rows


def _words(take: Take, shape: Shape) -> Iterator[str]:
    """copied or duplicated, then regrouped, silenced (or made the identity), cropped, padded, fresh."""
    groups = take.regroup
    if groups is not None:
        shape = regrouped_shape(shape, groups.seed, groups.ground)
    yield "duplicated" if take.target != take.source else "copied"
    if groups is not None:
        yield "regrouped"
    if take.held is not None:
        yield "silenced" if take.silent else "identity"
    for axis, along in take.axes.items():
        fresh = along.index < 0
        if len(set(along.index[~fresh].tolist())) < shape[axis]:
            yield "cropped"
        if fresh.any():
            yield "padded" if along.role == "kernel" else "fresh"
