"""What decides: the title of the page, what was asked, and the few numbers that matter, the seed's beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fnatool.search.words import BASELINES

Json = Mapping[str, Any]
Path = tuple[str | int, ...]  # of a number in the document
COSTS = {
    "macs": ("multiply-adds", "count"),
    "params": ("parameters", "count"),
    "activations": ("activations", "bytes"),
    "latency": ("latency of the blocks", "cost:latency"),
}
"""What a profile says of a network: key → its name, and how it is written."""


@dataclass(frozen=True)
class Tile:
    """A number that decides, and the seed's beside it."""

    what: str
    path: Path
    how: str
    beside: Path | None = None
    words: str = "of"
    share: str = ""


def title(document: Json) -> str:
    """What this is about."""
    if document["kind"] == "search":
        found = document["search"]
        task = "like what the seed computes" if found["task"] == "none" else found["task"]
        return f"{task}: searched from {found['seed']['model']}"
    if document["kind"] == "finetune":
        return f"{document['config'].get('task', 'like another network')}: fine-tuned"
    sides = document["networks"]
    return f"{sides['before']['file']} → {sides['after']['file']}"


def lead(document: Json) -> Iterator[str]:
    """What was asked, in a sentence or two."""
    if document["kind"] == "search":
        found = document["search"]
        budget = ", ".join(found["budgets"]) or "none"
        yield (
            f"Budget: {budget}. Method: {found['method']}; 10^{found['space']['log10_members']} architectures to "
            "choose from."
        )
    sides = document["networks"]
    if sides is not None and sides["before"] is not None:
        told = ", ".join(f"{count} {fate}" for fate, count in sides["fates"].items() if count)
        yield f"Of the blocks and layers: {told}."
        if sides["after"]["depths"]:
            yield f"Blocks of the stages: {_row(sides['before']['depths'])} → {_row(sides['after']['depths'])}."


def _row(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def tiles(document: Json) -> Iterator[Tile]:
    """Costs, distance and figures of the result beside the seed's."""
    search, tuning, sides = document["search"], document["tuning"], document["networks"]
    if search is not None:
        for kind in search["architecture"]["costs"]:
            own, got = search["seed"]["costs"].get(kind), search["architecture"]["costs"][kind]
            beside: Path | None = None if own is None else ("search", "seed", "costs", kind)
            share = f"{got / own:.1%} of it" if own else ""
            yield Tile(kind, ("search", "architecture", "costs", kind), f"cost:{kind}", beside, "seed", share)
        if "distance" in search["architecture"]:
            yield Tile("distance from the seed before training", ("search", "architecture", "distance"), "distance")
    elif sides is not None:
        for key, (name, how) in COSTS.items():
            own = None if sides["before"] is None else sides["before"].get(key)
            got = sides["after"].get(key)
            if got is not None:
                share = f"{got / own:.1%} of it" if own else ""
                yield Tile(
                    name,
                    ("networks", "after", key),
                    how,
                    ("networks", "before", key) if own is not None else None,
                    "seed",
                    share,
                )
    for name, run in tuning.items():
        if name in ("found", "model"):
            metric = run["report"].get("metric") or main_metric(run["report"])
            base: Path | None = ("tuning", "seed", "report", "in_runtime", metric) if "seed" in tuning else None
            at = ("tuning", name, "report", "in_runtime", metric)
            yield Tile(f"{metric} after fine-tuning", at, "figure", base, BASELINES["seed"])


def main_metric(report: Json) -> str:
    """The first figure of a fine-tuning that is of all classes together."""
    return str(next(name for name in report["in_runtime"] if "/" not in name))
