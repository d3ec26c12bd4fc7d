"""Knobs set one by one, KNOB=VALUE, as people type them on a command line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from passes.errors import UserError
from passes.network.knobs import IMAGE
from passes.target.spec import Spec, Value, parse

SIZE = re.compile(r"\[?\s*(\d{1,9})\s*[x×,]\s*(\d{1,9})\s*\]?", re.ASCII)


def assigned(given: Iterable[str]) -> dict[str, Value]:
    """knob → value, of each KNOB=VALUE. Raises UserError for what is not of that form, and for a knob that is set
    twice.
    """
    found: dict[str, Value] = {}
    for text in given:
        key, equals, value = text.rpartition("=")
        if not equals or not key.strip():
            raise UserError(f"--set {text}: say KNOB=VALUE, as in --set stage2.depth=4 or --set batch=free")
        key = key.strip()
        if key in found:
            raise UserError(f"--set sets '{key}' twice")
        found[key] = _value(key, value.strip())
    return dict(parse({"version": 1, "knobs": found}).knobs)


def listed(given: Iterable[str]) -> dict[str, list[int | str]]:
    """knob → values, of each KNOB=VALUE,VALUE. Raises UserError for what is not of that form, and for a knob that is
    set twice.
    """
    found: dict[str, list[int | str]] = {}
    for text in given:
        key, equals, values = text.rpartition("=")
        key = key.strip()
        if not equals or not key:
            raise UserError(f"--set {text}: say KNOB=VALUE,VALUE, as in --set stage2.*.kernel=3,5")
        if key in found:
            raise UserError(f"--set sets '{key}' twice")
        row = [value.strip() for value in values.strip(" []").split(",")]
        found[key] = [int(value) if value.isascii() and value.isdigit() else value.strip("\"'") for value in row]
    return found


def _value(key: str, text: str) -> Value:
    size = SIZE.fullmatch(text) if key == IMAGE else None
    if size is not None:
        return int(size[1]), int(size[2])
    return int(text) if re.fullmatch(r"-?\d{1,18}", text, re.ASCII) and not text.startswith("-") else text


def with_knobs(spec: Spec | None, knobs: Mapping[str, Value]) -> Spec:
    """The Spec in which these knobs have these values; of nothing but them where there is none."""
    return Spec(dict(knobs)) if spec is None else Spec({**spec.knobs, **knobs}, spec.seed)
