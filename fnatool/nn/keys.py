"""Names of initializers as keys of a torch module.

A dot in a name is a step into a submodule, as in torch's own names: `layer1.0.bn2.weight` is the key of the initializer
of that name. What torch cannot have as a name gets a `%` in front of the part between dots: an empty part, one that
begins with `%`, one that names something else of a module (`training`, `float`, …), and the last part of a name that is
also the beginning of another (`a` beside `a.b`).
"""

from __future__ import annotations

from collections.abc import Container, Iterable

Key = tuple[str, ...]


def keys(names: Iterable[str], reserved: Container[str]) -> dict[str, Key]:
    """Name → its key, part by part; no two are the same, and none is the beginning of another."""
    whole = {name: tuple(_part(part, reserved) for part in name.split(".")) for name in names}
    folders = {key[:depth] for key in whole.values() for depth in range(1, len(key))}
    taken: set[Key] = set()
    found = {}
    for name, key in whole.items():
        while key in folders or key in taken:
            key = (*key[:-1], f"%{key[-1]}")
        taken.add(key)
        found[name] = key
    return found


def _part(part: str, reserved: Container[str]) -> str:
    return f"%{part}" if not part or part.startswith("%") or part in reserved else part
