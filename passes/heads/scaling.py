"""Whether a network scales its pixels itself: what its first operators do to the image before they meet anything else.

They map x to a·x + b. The zero of that map, m = −b/a, and a say what x is meant to be: a mean of dark to bright pixels
(m from 16 to 240), or a division by some hundred, means pixels from 0 to 255; a mean between 0 and 1 means shares of 1.
Anything else (torchvision's Inception turns one normalisation into another) says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from passes.graph.operators import SIZES, of
from passes.graph.view import Node, View

PIXELS, SHARES = 255.0, 1.0
DARK, BRIGHT = 16.0, 240.0  # a mean of pixels lies between
SMALL = 1 / 16  # what pixels are multiplied with at most, where no mean is taken off
WHOLE = 0.9  # what shares are multiplied with at least


@dataclass(frozen=True)
class Scaling:
    """The last node that scales, and the brightest value that the input is meant to have."""

    node: str
    brightest: float


@dataclass(frozen=True)
class Affine:
    """x ↦ slope · x + offset, by `node` last ('' for x itself); means over the channels."""

    slope: float = 1.0
    offset: float = 0.0
    node: str = ""

    def then(self, slope: float, offset: float, node: str) -> Affine:
        """This, and another one after it."""
        return Affine(slope * self.slope, slope * self.offset + offset, node)


def own_scaling(seen: View, name: str) -> Scaling | None:
    """How the network scales what its input of this name brings; None where it does not, or the graph does not tell
    from what.
    """
    found = list(_ends(seen, name))
    if not found or not all(end.node for end in found):
        return None
    brightest = _brightest(found[0])
    return None if brightest is None else Scaling(found[0].node, brightest)


def _brightest(found: Affine) -> float | None:
    if found.slope == 0:
        return None
    size, zero = abs(found.slope), -found.offset / found.slope
    if DARK <= zero <= BRIGHT:
        return PIXELS if size <= 1 else None
    if abs(zero) < DARK and size <= SMALL:
        return PIXELS
    if (0 < zero <= 1 and size >= WHOLE) or (zero == 0 and size >= 100):
        return SHARES
    return None


def _ends(seen: View, name: str) -> Iterator[Affine]:
    """What has become of the image where something reads it that is no such operator."""
    waiting = [(name, Affine())]
    done: set[str] = set()
    while waiting:
        tensor, affine = waiting.pop()
        if tensor in done:
            continue
        done.add(tensor)
        for reader, slot in seen.readers.get(tensor, ()):
            node = seen.by_name[reader]
            if node.op in SIZES:
                continue
            step = (
                affine
                if of(node.op).keeps_values and (slot == 0 or node.op == "Concat")
                else _step(node, slot, affine, seen)
            )
            if step is None:
                yield affine
            else:
                waiting.extend((output, step) for output in node.outputs if output)


def _step(node: Node, slot: int, before: Affine, seen: View) -> Affine | None:
    """The map with this node after it; None where the node is not affine with constants."""
    if node.op == "BatchNormalization" and slot == 0:
        return _normalised(node, before, seen)
    value = _mean(seen, node.inputs[1 - slot]) if len(node.inputs) == 2 else None
    if value is None:
        return None
    if node.op == "Mul":
        return before.then(value, 0, node.name)
    if node.op == "Add":
        return before.then(1, value, node.name)
    if node.op == "Sub":
        return before.then(1, -value, node.name) if slot == 0 else before.then(-1, value, node.name)
    if node.op == "Div" and slot == 0 and value:
        return before.then(1 / value, 0, node.name)
    return None


def _normalised(node: Node, before: Affine, seen: View) -> Affine | None:
    """y = γ · (x − μ) / √(σ² + ε) + β."""
    if any(name not in seen.constants for name in node.inputs[1:]):
        return None
    scale, bias, mean, variance = (np.asarray(seen.values(name), np.float64) for name in node.inputs[1:])
    slope = scale / np.sqrt(variance + float(node.attrs.get("epsilon", 1e-5)))
    return before.then(float(slope.mean()), float((bias - mean * slope).mean()), node.name)


def _mean(seen: View, name: str) -> float | None:
    """Of a constant of numbers."""
    if name not in seen.constants:
        return None
    values = np.asarray(seen.values(name))
    return float(values.mean(dtype=np.float64)) if values.size and values.dtype.kind in "fiu" else None
