"""Curves, as plotly.js draws them: {"data": traces, "layout": …}. Colours are the page's, so that it is readable in
light and dark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Figure = dict[str, Any]
Rows = Sequence[Mapping[str, Any]]  # of a metrics.jsonl
FEW = 40  # points of a line that are marked
SMOOTH = 20  # points of a curve of losses that its bold line runs over, at the most


def front(search: Mapping[str, Any], words: Mapping[str, str]) -> Figure:
    """Predicted distance over cost, from the cheapest to the seed, and the architecture that was found.

    words: the text of a cost by the number, as the page writes it. A point carries the command that derives it.
    """
    kind, rows, found = search["kind"], search["predicted"], search["architecture"]
    text = [_hover(row, words[str(row["cost"])]) for row in rows]
    commands = [f"fnatool derive RUN --budget {kind}={row['cost']}" for row in rows]
    costs, distances = [row["cost"] for row in rows], [row["distance"] for row in rows]
    at = ([found["costs"][kind]], [found["distance"]])
    traces = [
        _trace("predicted", costs, distances, "seed", text=text, customdata=commands),
        _trace("found", *at, "found", mode="markers", symbol="star", text=["found, measured whole"]),
    ]
    knee = search.get("knee")
    if knee is not None:
        traces.append(
            _trace(
                "knee",
                [knee["cost"]],
                [knee["distance"]],
                "knee",
                mode="markers",
                symbol="diamond-open",
                text=["the knee"],
            )
        )
    return {"data": traces, "layout": _layout(f"{kind} of the whole network", "distance from the seed")}


def _hover(row: Mapping[str, Any], cost: str) -> str:
    share = "" if row["share"] is None else f", {row['share']:.0%} of the seed"
    blocks = row.get("blocks") or {}
    return "<br>".join(
        [
            f"{cost}{share}",
            f"widths outside blocks ×{row['trunk']:g}",
            *(f"{name}: {said}" for name, said in blocks.items()),
        ]
    )


def training(runs: Mapping[str, Rows], metric: str, best: Mapping[str, int]) -> Figure:
    """The metric on validation data over steps, a line for each run; the step of each that was written is marked."""
    traces = []
    for name, rows in runs.items():
        points = [(row["step"], row[metric]) for row in rows if row["kind"] == "val" and metric in row]
        if not points:
            continue
        steps, values = zip(*points, strict=True)
        traces.append(_trace(name, list(steps), list(values), COLOURS.get(name, "other")))
        at = best[name]
        if at in steps:
            traces.append(
                _trace(
                    f"{name}, written",
                    [at],
                    [values[steps.index(at)]],
                    COLOURS.get(name, "other"),
                    mode="markers",
                    symbol="star",
                )
            )
    return {"data": traces, "layout": _layout("steps", metric)}


COLOURS = {"found": "found", "model": "found", "seed": "seed", "uniform": "knee"}
"""Which of the page's colours a run has."""


def losses(rows: Rows, kind: str = "train") -> Figure:
    """The loss of every step, its running mean in bold, and the learning rate on an axis of its own."""
    points = [row for row in rows if row["kind"] == kind and "loss" in row]
    steps = [row["step"] for row in points]
    values = [row["loss"] for row in points]
    width = max(min(SMOOTH, len(values) // 5), 1)
    means = [sum(values[max(k - width + 1, 0) : k + 1]) / min(k + 1, width) for k in range(len(values))]
    traces = [_trace("loss", steps, values, "faint"), _trace(f"mean of {width}", steps, means, "found")]
    layout = _layout("steps", "loss")
    if points and "lr" in points[0]:
        traces.append(_trace("learning rate", steps, [row["lr"] for row in points], "knee", dash="dot", yaxis="y2"))
        layout["yaxis2"] = {"title": {"text": "learning rate"}, **ON_THE_RIGHT}
    return {"data": traces, "layout": layout}


TICKS = {"tickmode": "auto", "nticks": 5, "tickformat": ".1e"}
TICKS = {"tickmode": "auto", "nticks": 5, "tickformat": ".1e"}
ON_THE_RIGHT = {"overlaying": "y", "side": "right", "showgrid": False, "rangemode": "tozero", **TICKS}


def over_steps(rows: Rows, kind: str, names: Mapping[str, str], title: str) -> Figure:
    """Values of rows of a kind over steps, a line for each name; names: what each is called."""
    traces = []
    for k, (name, said) in enumerate(names.items()):
        points = [(row["step"], row[name]) for row in rows if row["kind"] == kind and name in row]
        if points:
            steps, values = zip(*points, strict=True)
            dash = DASHES[k // len(HUES) % len(DASHES)]
            traces.append(_trace(said, list(steps), list(values), HUES[k % len(HUES)], dash=dash))
    return {"data": traces, "layout": _layout("steps", title)}


HUES, DASHES = ("found", "seed", "knee", "other"), ("solid", "dash", "dot", "dashdot")
"""What tells the lines of one figure apart."""


def _trace(
    name: str, x: Sequence[float], y: Sequence[float], colour: str, *,
    mode: str = "lines", symbol: str = "circle", dash: str = "solid", **more: Any,
) -> Figure:  # fmt: skip
    """A line or points; `meta` says which of the page's colours it has."""
    if mode == "lines":  # few points are seen as such, a single one only so
        mode = "markers" if len(x) < 2 else "lines+markers" if len(x) <= FEW else "lines"
    drawn: Figure = {}
    if "lines" in mode:
        drawn["line"] = {"dash": dash, "width": 1 if colour == "faint" else 2}
    if "markers" in mode:
        drawn["marker"] = {"symbol": symbol, "size": 13 if symbol != "circle" else 6}
    hover = {"hovertemplate": "%{text}<br>%{y:.4g}<extra></extra>"} if "text" in more else {}
    return {
        "type": "scatter",
        "name": name,
        "x": list(x),
        "y": list(y),
        "meta": colour,
        "mode": mode,
        **drawn,
        **hover,
        **more,
    }


def _layout(x: str, y: str) -> Figure:
    return {
        "xaxis": {"title": {"text": x}},
        "yaxis": {"title": {"text": y}},
        "margin": {"l": 60, "r": 60, "t": 10, "b": 50},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"},
        "height": 360,
    }
