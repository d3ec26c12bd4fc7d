"""What a remap did: as JSON, tensor by tensor, and in a few lines on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fnatool import terminal
from fnatool.folding import Normalised
from fnatool.remapping import Remapped
from passes.take import Take

if TYPE_CHECKING:
    from fnatool.exporting import Exported  # which needs torch

Json = dict[str, object]


def as_json(made: Remapped) -> Json:
    """Seed, strategy, resolved spec, drifts, verification, and a row per target tensor."""
    verified = made.verified
    return {
        "seed": f"sha256:{made.seed.sha256}",
        "strategy": made.plan.strategy,
        "spec": dict(made.plan.resolved.spec().knobs),
        "changes": [{"knob": name, "from": old, "to": new} for name, old, new in changed_knobs(made)],
        "drifts": list(made.plan.drifts),
        "notes": [*made.analysis.notes, *made.plan.notes],
        "verified": None if verified is None else {"worst": verified.worst, "compared": verified.compared, "tolerance": verified.tolerance},
        "tensors": tensor_rows(made),
    }


def changed_knobs(made: Remapped) -> list[tuple[str, int, int]]:
    """(knob, seed's value, target's value); a block that the seed lacks compares with the block it comes from."""
    resolved = made.plan.resolved
    return [(name, resolved.knobs[name].value, value) for name, value in resolved.values.items() if value != resolved.knobs[name].value]


def tensor_rows(made: Remapped) -> list[Json]:
    """One row per target tensor: its source, the index vector of each changed axis (−1 fresh), and a word for each change."""
    rows: list[Json] = []
    for take in made.plan.takes:
        shape = list(made.analysis.shapes.shapes[take.source])
        target = list(shape)
        axes = {}
        for axis, along in take.axes.items():
            target[axis] = int(along.index.size)
            axes[str(axis)] = along.index.tolist()
        what = list(dict.fromkeys(_words(take, shape)))
        rows.append({"target": take.target, "source": take.source, "from": shape, "to": target, "indices": axes, "what": what})
    for name, array in made.plan.numbers.items():
        rows.append({"target": name, "source": None, "from": None, "to": list(array.shape), "indices": {}, "what": ["size"]})
    return rows


def _words(take: Take, shape: list[int]) -> Iterator[str]:
    """copied or duplicated, then silenced, cropped, padded, fresh."""
    yield "duplicated" if take.target != take.source else "copied"
    if take.silent:
        yield "silenced"
    for axis, along in take.axes.items():
        fresh = along.index < 0
        if len(set(along.index[~fresh].tolist())) < shape[axis]:
            yield "cropped"
        if fresh.any():
            yield "padded" if along.role == "kernel" else "fresh"


def show(made: Remapped, where: str) -> None:
    """What changed, what it cost, and what verification found."""
    from rich.markup import escape

    console = terminal.console()
    for note in made.plan.notes:
        console.print(f"note: {escape(note)}")
    changed = changed_knobs(made)
    if made.plan.identity:
        console.print(f"nothing changes: the result is the seed, byte for byte ({escape(where)})")
        return
    for name, old, new in changed[:SHOWN]:
        console.print(f"  {escape(name)}: {old} → {new}")
    if len(changed) > SHOWN:
        console.print(f"  … and {len(changed) - SHOWN} more")
    before, after = made.analysis.cost, made.cost()
    console.print(f"parameters {before.params:,} → {after.params:,}")
    if before.macs is not None and after.macs is not None:
        console.print(f"MAdds {before.macs:,} → {after.macs:,}")
    console.print(_verdict(made))
    console.print(f"→ {escape(where)}")


SHOWN = 12  # knobs listed on the terminal; all are in the report


def _verdict(made: Remapped) -> str:
    verified, drifts = made.verified, made.plan.drifts
    if verified is None:
        return "not verified"
    compared = f"{verified.compared} inner tensors compared with the seed in ONNX Runtime"
    if not drifts:
        return f"exact: {compared}, worst drift {verified.worst:.1e} of the spread"
    more = f" and {len(drifts) - 1} more" if len(drifts) > 1 else ""
    return f"the function changes ({drifts[0]}{more}): {compared}, drift up to {verified.worst:.1e} of the spread"


def show_export(made: Exported, notes: Sequence[str], where: str) -> None:
    """How the export was made, what it keeps, and how far it is from the module."""
    from rich.markup import escape

    console = terminal.console()
    for note in (*notes, *made.notes):
        console.print(f"note: {escape(note)}")
    drifts = ", ".join(f"{drift:.1e} at batch {batch}" for batch, drift in made.drifts)
    console.print(f"parameters {made.params:,}, BatchNorms {made.norms} (exporter: {made.exporter})")
    console.print(f"computes what the module does in ONNX Runtime: drift of the outputs {drifts}, of their spread")
    console.print(f"→ {escape(where)}")


def show_folding(made: Normalised, words: tuple[str, str], where: str) -> None:
    """How many BatchNorms went or came (words: folded into, or put behind), what is left and why, and what verification found."""
    from rich.markup import escape

    console = terminal.console()
    for note in made.notes:
        console.print(f"note: {escape(note)}")
    reasons: dict[str, list[str]] = {}
    for left in made.left:
        reasons.setdefault(left.why, []).append(left.node)
    for why, nodes in reasons.items():
        more = f", {nodes[1]} and {len(nodes) - 2} more" if len(nodes) > 2 else f" and {nodes[1]}" if len(nodes) > 1 else ""
        console.print(f"  left: {escape(nodes[0] + more)}: {escape(why)}")
    if not made.changed:
        console.print(f"nothing changes: the result is the model, byte for byte ({escape(where)})")
        return
    norm, conv = made.changed[0]
    console.print(
        f"{len(made.changed)} BatchNorms {words[0]}: {escape(norm)} {words[1]} {escape(conv)}" + (" …" if len(made.changed) > 1 else "")
    )
    verified = made.verified
    if verified is None:
        console.print("not verified")
    else:
        console.print(f"exact: {verified.compared} inner tensors compared in ONNX Runtime, worst drift {verified.worst:.1e} of the spread")
    console.print(f"→ {escape(where)}")
