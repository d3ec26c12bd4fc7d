"""Specs for a network, right and wrong: drawn from the knobs that `fnatool inspect --json` lists, whatever kinds of
knob there are.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Knob = Mapping[str, Any]  # a row of "knobs": name, kind, value, min, max, multiple, growth

GARBAGE: tuple[object, ...] = (
    "", "x", "x0", "x1.0", "x-1", "x1e3", "x1e400", "xnan", "xinf", "x" + "9" * 400, "x0.0000001", "+0", "-0", "+99999",
    "-99999", "+1.5", "++1", "1", "x٣", "+٣", "x1.25 ", " x2", "x 2", "0x10", "x1,5", None, True, False, [], {}, [1, 2],
    [512, 1024], [0, 0], [-1], {"a": 1}, 0, -1, 1, 1.0, 1.5, 2**31, 2**63, 2**64, -(2**63), 10**30, 1e308, float("inf"),
    float("-inf"), float("nan"), "\x00", "x" * 5000,
)  # fmt: skip
KEYS = (
    "", "*", "**", "***", "*.*", "**.**", ".", "..", "stage*", "stage*.depth", "stage0", "stage0.depth",
    "stage99.depth", "stage0.block99.kernel", "stage-1.depth", "stage٣.depth", "Stage0.depth", "stage0.kernal",
    "node:*", "node:*.width", "node:nothing.width", "**.width*", "**.hidden*", "**.kernel*", "**.from", "**.se",
    "**.groups*", "input.size", "input.*", "output_stride", "[a-z]+", "(a+)+$", "stage0.block0.from", "\x00", "é",
    "a" * 5000, "*" * 300, "**a" * 30, "seed", "version", "knobs",
)  # fmt: skip


@dataclass(frozen=True)
class Wish:
    """A spec file and how to remap with it. `sound`: every value lies within what its knob allows, so it should not be
    refused as wrong.
    """

    text: str
    options: tuple[str, ...]
    sound: bool


def wish(knobs: Sequence[Knob], rng: random.Random) -> Wish:
    """A spec and the options of remap."""
    options = _options(rng)
    draw = rng.random()
    if draw < 0.45:
        return Wish(json.dumps({"version": 1, "knobs": sound(knobs, rng)}), options, not set(options) & WRONG)
    if draw < 0.65:
        return Wish(json.dumps({"version": 1, "knobs": _patterns(knobs, rng)}), options, False)
    if draw < 0.90:
        return Wish(json.dumps({"version": 1, "knobs": _mixed(knobs, rng)}), options, False)
    return Wish(rng.choice(DOCUMENTS)(knobs, rng), options, False)


def sound(knobs: Sequence[Knob], rng: random.Random) -> dict[str, object]:
    """Some knobs that are not frozen, each by its own name at a value it allows; nothing that depends on another knob
    of the spec.
    """
    free = [knob for knob in knobs if knob["growth"] != "frozen"]
    chosen = rng.sample(free, min(len(free), rng.choice((0, 1, 1, 2, 3, 5, 10))))
    if groups := [knob for knob in chosen if knob["kind"] == "groups"]:
        chosen = groups[:1]  # they decide which widths are possible
    shrunk = {knob["name"].rpartition(".")[0] for knob in chosen if knob["kind"] == "depth"}
    chosen = [knob for knob in chosen if not any(knob["name"].startswith(f"{stage}.block") for stage in shrunk)]
    return {knob["name"]: _allowed(knob, rng) for knob in chosen}


def _allowed(knob: Knob, rng: random.Random) -> object:
    """A value in range, mostly near the seed's; a list stays a list."""
    if isinstance(knob["value"], list):
        return [
            _number(value, low, high, knob["multiple"], rng)
            for value, low, high in zip(knob["value"], *_bounds(knob), strict=True)
        ]
    if knob["kind"] == "batch":
        return rng.choice((knob["value"], "free", 1, 2, 3))
    if knob["kind"] in ("groups", "stride"):  # not all between the bounds divide what they have to
        return rng.choice((knob["value"], knob["min"], knob["max"]))
    step = 2 if knob["kind"] == "kernel" else int(knob["multiple"])
    value = int(knob["value"])
    near = value + step * rng.choice((-3, -2, -1, 0, 1, 2, 3, -value // (2 * step), value // step // 2))
    if rng.random() < 0.1:
        near = int(knob["min"])
    low, high = int(knob["min"]), int(knob["max"])
    return max(min(near, high), low)


def _bounds(knob: Knob) -> tuple[list[int], list[int]]:
    """Lowest and highest of each entry, where a bound may be one number for all."""
    count = len(knob["value"])
    low, high = (bound if isinstance(bound, list) else [bound] * count for bound in (knob["min"], knob["max"]))
    return low, high


def _number(value: int, low: int, high: int, multiple: int, rng: random.Random) -> int:
    return max(low, min(high, value + multiple * rng.choice((-2, -1, 0, 1, 2))))


def _relative(rng: random.Random) -> str:
    return rng.choice(
        (
            "x0.5",
            "x0.25",
            "x1.25",
            "x1.5",
            "x2",
            "x0.9",
            "x1.1",
            "+1",
            "+2",
            "+8",
            "-1",
            "-2",
            "-8",
            "x1",
            "+0",
            "x0.01",
        )
    )


def _value(knob: Knob, rng: random.Random) -> object:
    """Allowed, relative, just outside, or garbage."""
    draw = rng.random()
    if draw < 0.45:
        return _allowed(knob, rng)
    if draw < 0.75:
        return _relative(rng)
    if draw < 0.85 and not isinstance(knob["value"], list):
        return rng.choice((int(knob["max"]) + 1, int(knob["min"]) - 1, int(knob["value"]) + 1, int(knob["max"])))
    return rng.choice(GARBAGE)


def _pattern(name: str, rng: random.Random) -> str:
    """A pattern that matches the name, or nearly."""
    parts = name.split(".")
    for _ in range(rng.choice((1, 1, 2))):
        k = rng.randrange(len(parts))
        stem = parts[k].rstrip("0123456789")
        parts[k] = rng.choice(("*", "**", f"{stem}*", f"*{parts[k][1:]}", parts[k]))
    if rng.random() < 0.3:
        parts = ["**", parts[-1]]
    return ".".join(parts)


def _patterns(knobs: Sequence[Knob], rng: random.Random) -> dict[str, object]:
    """Patterns with relative values, as people write them, and an exact key that beats one."""
    found: dict[str, object] = {}
    for _ in range(rng.choice((1, 1, 2, 3))):
        key = (
            rng.choice(("**.width*", "**.hidden*", "**.kernel*", "**.depth", "**.se*", "**.groups*", "**.from"))
            if not knobs or rng.random() < 0.5
            else _pattern(rng.choice(knobs)["name"], rng)
        )
        found[key] = _relative(rng)
    if knobs and rng.random() < 0.4:
        knob = rng.choice(knobs)
        found[knob["name"]] = _allowed(knob, rng)
    return found


def _mixed(knobs: Sequence[Knob], rng: random.Random) -> dict[str, object]:
    """Knobs and keys of all kinds, values of all kinds; also of blocks that only a deeper target has."""
    found: dict[str, object] = {}
    for _ in range(rng.choice((1, 2, 3, 6))):
        draw = rng.random()
        if not knobs or draw < 0.2:
            found[rng.choice(KEYS)] = rng.choice((*GARBAGE, "x0.5", 3))
            continue
        knob = rng.choice(knobs)
        name = str(knob["name"])
        if draw < 0.35:
            name = _pattern(name, rng)
        elif draw < 0.45:
            name = name.replace("block0", f"block{rng.randrange(6)}").replace("stage0", f"stage{rng.randrange(4)}")
        elif draw < 0.5:
            name = (
                name[: rng.randrange(len(name) + 1)]
                + rng.choice(("", "x", ".", "2"))
                + name[rng.randrange(len(name) + 1) :]
            )
        found[name] = _value(knob, rng)
    if rng.random() < 0.3:
        depths = [knob for knob in knobs if knob["kind"] == "depth"]
        if depths:
            depth = rng.choice(depths)
            found[depth["name"]] = rng.choice((int(depth["value"]) + 2, 1, "+3", 256))
            found[f"{str(depth['name']).partition('.')[0]}.block{depth['value']}.from"] = rng.randrange(4)
    return found


WRONG = frozenset({"--input", "-1", "best"})  # some models do have the input


def _options(rng: random.Random) -> tuple[str, ...]:
    found = ["--strategy", rng.choice(("fna", "fna", "preserve"))]
    if rng.random() < 0.4:
        found.append("--allow-drift")
    found += ["--select", rng.choice(("first", "first", "bn", "l1", "std"))]
    if rng.random() < 0.3:
        found += ["--seed", str(rng.randrange(2**32))]
    if rng.random() < 0.05:
        found += rng.choice(
            (
                ["--input", "x=1x3x16x16"],
                ["--input", "nothing=1"],
                ["--input", "x=1"],
                ["--seed", "-1"],
                ["--select", "best"],
            )
        )
    return tuple(found)


# --- documents that are no specs, or odd ones ---------------------------------------------------

Document = Callable[[Sequence[Knob], random.Random], str]

DOCUMENTS: tuple[Document, ...] = (
    lambda knobs, rng: "",
    lambda knobs, rng: "{",
    lambda knobs, rng: rng.choice(("null", "1", "[]", '"x"', "true", "NaN", "-Infinity", "1e400", "١")),
    lambda knobs, rng: json.dumps({"knobs": sound(knobs, rng)}),
    lambda knobs, rng: json.dumps({"version": rng.choice((0, 2, "1", 1.0, True, None, [1], 10**30)), "knobs": {}}),
    lambda knobs, rng: json.dumps({"version": 1, "knobs": rng.choice((None, [], "x", 1, {"stage0": {"depth": 2}}))}),
    lambda knobs, rng: json.dumps(
        {"version": 1, "seed": rng.choice(("sha256:0", 1, None, "", "\x00", "s" * 10**6)), "knobs": {}}
    ),
    lambda knobs, rng: json.dumps({"version": 1, **sound(knobs, rng)}),
    lambda knobs, rng: json.dumps({"version": 1, "knobs": {}, "x" * 10**6: 1}),
    lambda knobs, rng: '{"version": 1, "knobs": {"a": 1, "a": 2}}',
    lambda knobs, rng: '{"version": 1, "knobs": {' + ", ".join(f'"k{k}": {k}' for k in range(30_000)) + "}}",
    lambda knobs, rng: "[" * rng.choice((500, 100_000)),
    lambda knobs, rng: '{"a":' * rng.choice((500, 100_000)),
    lambda knobs, rng: '{"version": 1, "knobs": {"stage0.depth": ' + "9" * rng.choice((30, 10_000)) + "}}",
    lambda knobs, rng: '{"version": 1, "knobs": {"stage0.depth": 1e400, "stage0.width": NaN}}',
    lambda knobs, rng: "\ufeff" + json.dumps({"version": 1, "knobs": sound(knobs, rng)}),
    lambda knobs, rng: json.dumps({"version": 1, "knobs": {"x" * 10**6: 1}}),
    lambda knobs, rng: json.dumps({"version": 1, "knobs": {_repeated(knobs, rng): "x0.5"}}),
    lambda knobs, rng: json.dumps({"version": 1, "knobs": {"\ud800": 1, "stage0.depth": "\udfff"}}),
    lambda knobs, rng: json.dumps({"version": 1, "knobs": {"**.width*": "\ud800"}}, ensure_ascii=True),
)


def _repeated(knobs: Sequence[Knob], rng: random.Random) -> str:
    """A pattern whose naive match would take for ever."""
    return rng.choice(("*e*a*i*o", "**a", "*" + "a*" * 20, "**t**a**g**e")) * rng.choice((1, 20)) + rng.choice(
        ("", "!", "**", "width")
    )
