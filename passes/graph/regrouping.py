"""How the axes of a tensor are regrouped, and how far a slice can go."""

from __future__ import annotations

from collections.abc import Sequence

UNBOUNDED = 1 << 30  # a slice's end from here on means: to the end, whatever the size


def regrouped(source: Sequence[int], target: Sequence[int]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The finest groups of consecutive axes with equal products: (2,6,5) → (4,3,5) is [((0,1),(0,1)), ((2,),(2,))]."""
    groups: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    i = j = 0
    while i < len(source) and j < len(target):
        i0, j0, a, b = i, j, source[i], target[j]
        i, j = i + 1, j + 1
        while a != b:
            if a < b and i < len(source):
                a, i = a * source[i], i + 1
            elif b < a and j < len(target):
                b, j = b * target[j], j + 1
            else:
                return groups
        groups.append((tuple(range(i0, i)), tuple(range(j0, j))))
    if groups and (i < len(source) or j < len(target)):
        before, after = groups[-1]
        groups[-1] = (before + tuple(range(i, len(source))), after + tuple(range(j, len(target))))
    return groups
