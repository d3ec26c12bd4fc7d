"""The sections of the page: what stands in each, from the document of a run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fnatool.report import figures
from fnatool.report.architecture import FATES
from fnatool.report.drawing import Bar, panels
from fnatool.report.headline import COSTS, Json, Path, main_metric
from fnatool.report.networks import NetworkPair
from fnatool.search.words import BASELINES, PROBABILITIES, cost_text

MANY = 3  # values of a candidate that are all written
BEYOND = 1.0  # a distance from which on nothing is like the seed any more


def architecture(document: Json, networks: NetworkPair | None) -> dict[str, Any]:
    if networks is None:
        return {"panels": [], "fates": [], "costs": [], "cost_rows": []}
    related = networks.before is not None
    known = [key for key in COSTS if document["networks"]["after"].get(key) is not None]
    fates = [(_legend(fate), FATES[fate]) for fate, count in document["networks"]["fates"].items() if count]
    names = [row["name"] for row in document["networks"]["parts"]]
    rows = [(name, ("networks", "parts", k)) for k, name in enumerate(names)]
    paths: list[tuple[str, Mapping[str, Path]]] = [
        (name, {side: (*at, side) for side in ("before", "after")}) for name, at in rows
    ]
    paths.append(("whole", {"before": ("networks", "before"), "after": ("networks", "after")}))
    return {
        "panels": panels(networks.parts),
        "fates": fates,
        "costs": [COSTS[key] for key in known],
        "cost_rows": [
            {"name": name, "cells": list(_cells(document, at, known, related=related))} for name, at in paths
        ],
    }


def _legend(fate: str) -> dict[str, Any]:
    bar = Bar(2, 6, 22, 18, 24, None, None, "", "", fate, fate)
    return {"name": fate, "bar": bar, "path": ("networks", "fates", fate)}


def _cells(document: Json, at: Mapping[str, Path], keys: Sequence[str], *, related: bool) -> Iterator[dict[str, Any]]:
    for key in keys:
        largest = max(
            (document["networks"][side].get(key) or 0 for side in ("before", "after") if document["networks"][side]),
            default=0,
        )
        for side in ("before", "after") if related else ("after",):
            part = _look_up(document, at[side])
            value = None if part is None else part.get(key)
            share = 0.0 if not value or not largest else value / largest
            yield {
                "path": None if value is None else (*at[side], key),
                "how": COSTS[key][1],
                "share": f"{share:.3f}",
                "side": side,
            }


def _look_up(document: Any, path: Path) -> Any:
    for step in path:
        document = document[step]
    return document


def choice(document: Json) -> dict[str, Any]:
    search = document["search"]
    empty: dict[str, Any] = {"heat": None, "front": None, "learning": [], "refit": [], "fixed": []}
    if search is None:
        return empty
    found = search["architecture"]
    refit = found.get("refit")
    rows = [] if refit is None else [
        {"tensor": row["tensor"], "of": row.get("block") or what, **{
            side: ("search", "architecture", "refit", kind, k, side) for side in ("before", "after")}}
        for kind, what in (("layers", "–"), ("outputs", "output"))
        for k, row in enumerate(refit[kind])
    ]  # fmt: skip
    return {
        **empty,
        "heat": _heat(search),
        "front": _front(search) if search.get("predicted") else None,
        "learning": list(_learning(document)),
        "refit": rows,
        "fixed": list(search["not_searched"].items()),
    }


def _heat(search: Json) -> dict[str, Any]:
    """Blocks × candidates: what each single change costs in distance, or how likely each candidate is."""
    by_distance = "changes" in search
    blocks = search["changes" if by_distance else "preferences"]
    chosen = dict(zip(search["architecture"]["blocks"], search["architecture"]["member"], strict=True))
    key, what = ("distances", "changes") if by_distance else ("log_probabilities", "preferences")
    most = min(max((value for block in blocks.values() for value in block[key]), default=0.0), BEYOND) or BEYOND
    rows = []
    for name, block in blocks.items():
        labels = _candidates(block["candidates"]) + (["skip"] if block["skippable"] else [])
        cells = []
        for k, (label, value) in enumerate(zip(labels, block[key], strict=True)):
            at = chosen.get(name)
            is_chosen = at is not None and (at == k or (at < 0 and label == "skip"))
            level = min(max(value, 0.0) / most, 1.0) if by_distance else min(math.exp(value), 1.0)
            cells.append(
                {"label": label, "path": ("search", what, name, key, k), "chosen": is_chosen, "level": round(level, 3)}
            )
        rows.append({"name": name, "cells": cells})
    said = (
        "How far the features move from the seed's where one block alone is changed so: 0 is the same, 1 as "
        "far as from their mean."
        if by_distance
        else "How likely each candidate is after the search (logarithms: 0 is certain); the darker, the likelier."
    )
    return {
        "said": said,
        "rows": rows,
        "columns": max((len(row["cells"]) for row in rows), default=0),
        "how": "distance",
    }


def _candidates(rows: Sequence[Json]) -> list[str]:
    """What each candidate is, as far as others are not the same; of many values the first and the last."""
    differ = [name for name in rows[0] if any(row[name] != rows[0][name] for row in rows)] or list(rows[0])
    if len(differ) > MANY:
        return [f"{differ[0]} {row[differ[0]]} … {differ[-1]} {row[differ[-1]]}" for row in rows]
    return [", ".join(f"{name} {row[name]}" for name in differ) or "as in the seed" for row in rows]


def _front(search: Json) -> dict[str, Any]:
    kind = search["kind"]
    words = {str(row["cost"]): cost_text(kind, row["cost"]) for row in search["predicted"]}
    knee = search.get("knee")
    said = "What single changes predict at other costs."
    if knee is not None:
        said += (
            f" The knee is at {cost_text(kind, knee['cost'])}: what is saved above it costs little, below it "
            "the distance grows faster."
        )
    rows = [
        {
            key: ("search", "predicted", k, key) if row[key] is not None else None
            for key in ("cost", "share", "trunk", "distance")
        }
        for k, row in enumerate(search["predicted"])
    ]
    return {"kind": kind, "said": said, "figure": figures.front(search, words), "rows": rows}


def _learning(document: Json) -> Iterator[tuple[figures.Figure, str]]:
    """Of a search by gradient: losses, and what its architectures are expected to cost."""
    rows = [row for row in document["learning"] if row["kind"] != PROBABILITIES]
    likely = _chosen_over_steps(document)
    if likely["data"]:
        yield likely, "How likely what was chosen was in each block, over the steps of the search"
    for kind in dict.fromkeys(row["kind"] for row in rows):
        names = sorted(
            {name for row in rows if row["kind"] == kind for name in row} - {"step", "kind", "lr", "gradient"}
        )
        for name in names:
            figure = figures.over_steps(rows, kind, {name: name}, name)
            if figure["data"]:
                yield figure, f"{kind}: {name}"


def _chosen_over_steps(document: Json) -> figures.Figure:
    """A line for each block in which something could be chosen."""
    rows = [row for row in document["learning"] if row["kind"] == PROBABILITIES]
    found, names = document["search"]["architecture"], {}
    for block, k in zip(found["blocks"], found["member"], strict=True):
        count = sum(key.startswith(f"{block}/") for key in rows[0]) if rows else 0
        if count > 1 and k is not None:
            names[f"{block}/{k if k >= 0 else count - 1}"] = block
    return figures.over_steps(rows, PROBABILITIES, names, "probability")


def training(document: Json) -> dict[str, Any]:
    tuning = document["tuning"]
    if not tuning:
        return {"curves": [], "runs": [], "figure_rows": []}
    first = next(iter(tuning.values()))
    metric = main_metric(first["report"])
    names = list(dict.fromkeys(name for run in tuning.values() for name in run["report"]["in_runtime"]))
    best = {name: run["report"]["step"] for name, run in tuning.items()}
    curves = [
        (
            figures.training({name: run["rows"] for name, run in tuning.items()}, metric, best),
            f"{metric} on validation data",
        )
    ]
    curves += [(figures.losses(run["rows"]), f"Loss of {said_of(name)}") for name, run in tuning.items()]
    return {
        "curves": [(figure, said) for figure, said in curves if figure["data"]],
        "runs": [{"name": said_of(name), "step": ("tuning", name, "report", "step")} for name in tuning],
        "figure_rows": [
            {"name": figure, "paths": [_figure(tuning, name, figure) for name in tuning]} for figure in names
        ],
    }  # fmt: skip


def said_of(run: str) -> str:
    """What was tuned, in words."""
    return {"found": "what was found", "model": "the model"}.get(run) or BASELINES[run]


def _figure(tuning: Json, name: str, figure: str) -> Path | None:
    return ("tuning", name, "report", "in_runtime", figure) if figure in tuning[name]["report"]["in_runtime"] else None


def made(facts: Json) -> Iterator[tuple[str, str]]:
    yield "fnatool", facts["fnatool"]
    yield "Python", facts["python"]
    yield from facts["packages"].items()
    yield "machine that wrote this page", f"{facts['processor']}, {facts['cores']} cores, {facts['system']}"
