"""What a model's metadata say of its pixels, for an image of another number of channels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from fnatool.files.interface import SOURCE_KEY, TASK_KEY

ORDERS = {1: "GREY", 3: "RGB"}  # the orders of colours that a task's description knows


def recoloured_metadata(said: Mapping[str, str], old: int, new: int) -> dict[str, str | None]:
    """The keys that are others then, None for one that has to go: no task takes pictures of as many channels.

    One mean and scale for grey pixels are the mean of those of the colours; those of a fresh channel too.
    """
    found: dict[str, str | None] = {}
    task, source = (_document(said.get(key)) for key in (TASK_KEY, SOURCE_KEY))
    if task is not None:
        inner = task.get("input")
        known = new in ORDERS and (inner is None or isinstance(inner, Mapping))
        turned = isinstance(inner, Mapping) and inner.get("channels") == "BGR" and old == new
        order = "BGR" if turned else ORDERS.get(new)
        own = {"mean": [127.5] * old, "scale": [127.5] * old, **(inner if isinstance(inner, Mapping) else {})}
        found[TASK_KEY] = (
            json.dumps({**task, "input": {**_scaled(own, old, new), "channels": order}}) if known else None
        )
    if source is not None and ("mean" in source or "scale" in source):
        made = _scaled(source, old, new)
        found[SOURCE_KEY] = json.dumps(
            {**made, **({"channels": ORDERS[new]} if "channels" in source and new in ORDERS else {})}
        )
    return found


def _document(text: str | None) -> Mapping[str, object] | None:
    try:
        found = json.loads(text or "null")
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, Mapping) else None


def _scaled(said: Mapping[str, object], old: int, new: int) -> dict[str, object]:
    """The same with a mean and a scale for as many channels."""
    return {**said, **{word: _resized(said[word], old, new) for word in ("mean", "scale") if word in said}}


def _resized(values: object, old: int, new: int) -> object:
    if (
        not isinstance(values, Sequence)
        or isinstance(values, str)
        or not values
        or not all(type(v) in (int, float) for v in values)
    ):
        return values
    numbers = [float(v) for v in values] * (old if len(values) == 1 else 1)
    mean = sum(numbers) / len(numbers)
    return [mean] if new == 1 else [*numbers[:new], *[mean] * (new - len(numbers))]
