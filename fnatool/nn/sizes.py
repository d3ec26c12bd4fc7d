"""Shape arithmetic in a run: on flat lists of Python numbers, never on tensors.

How many numbers there are and which goes where is known at load, so moving them is a list of positions, found by doing
the same move on a numbering of the elements.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from fnatool.nn.site import LoadFacts, NodeSite, Numbers, Step
from passes.graph.shapes import MOVES
from passes.graph.view import Node, element_type

Flat = Sequence[Any]


def arithmetic(site: NodeSite) -> Step | None:
    """The node as a step on lists of numbers, None where it is not shape arithmetic."""
    node, facts = site.node, site.facts
    if node.op == "Shape":
        start, end = node.int("start", 0), node.attrs.get("end")
        return Step(lambda x: list(x.shape[start:end]), (node.inputs[0],))
    if node.op == "Size":
        return Step(lambda x: [math.prod(x.shape)], (node.inputs[0],))
    if not _is_numbers(node, facts):
        return None
    if node.op in MOVES:
        return _move(site)
    if node.op in REDUCTIONS:
        return _reduce(site)
    function = FUNCTIONS.get(node.op)
    return (
        None
        if function is None
        else _each(site, _whole_division if node.op == "Div" and site.is_whole(0) else function)
    )


def _is_numbers(node: Node, facts: LoadFacts) -> bool:
    named = [name for name in node.inputs if name]
    few = all(name in facts.numbers or (name in facts.known and facts.known[name].size <= MOST) for name in named)
    return few and any(name in facts.numbers for name in named) and node.op not in MADE


MADE = frozenset({"ConstantOfShape", "Range", "Expand", "Tile"})  # as long as the numbers say: tensors
MOST = 64  # constants of more elements make tensors of the result


def _numbering(site: NodeSite) -> list[np.ndarray]:
    """An array per input that numbers the elements of all inputs, one after the other."""
    start, found = 0, []
    for name in site.node.inputs:
        shape = site.facts.shapes[name]
        count = math.prod(shape)
        found.append(np.arange(start, start + count).reshape(shape))
        start += count
    return found


def _joined(lists: Sequence[Flat]) -> list[Any]:
    return [number for numbers in lists for number in numbers]


def _move(site: NodeSite) -> Step | None:
    """Positions of the inputs' elements in the output. The other inputs (indices, axes) must be known at load."""
    node = site.node
    data = len(node.inputs) if node.op == "Concat" else 1
    others = [site.facts.known.get(name) for name in node.inputs[data:]]
    if any(other is None and name for other, name in zip(others, node.inputs[data:], strict=True)):
        return None
    if node.op == "Cast":
        return _each(site, _caster(node))
    order = np.ravel(MOVES[node.op](node, [*_numbering(site)[:data], *others], site.opset)).tolist()
    return Step(lambda *lists: [_joined(lists)[i] for i in order], tuple(Numbers(name) for name in node.inputs[:data]))


def _caster(node: Node) -> Callable[[Any], Any]:
    to = node.attrs["to"]
    kind = onnx.helper.tensor_dtype_to_np_dtype(to if isinstance(to, int) else element_type(to)).kind
    return {"f": float, "b": bool}.get(kind, _to_whole)


def _to_whole(number: Any) -> Any:
    return math.trunc(number) if isinstance(number, float) else number


def _each(site: NodeSite, function: Callable[..., Any]) -> Step:
    """Element by element, broadcast."""
    numberings = np.broadcast_arrays(*_numbering(site))
    picks = np.stack([numbering.ravel() for numbering in numberings], axis=1).tolist()

    def run(*lists: Flat) -> list[Any]:
        numbers = _joined(lists)
        return [function(*[numbers[i] for i in pick]) for pick in picks]

    return Step(run, tuple(Numbers(name) for name in site.node.inputs))


def _reduce(site: NodeSite) -> Step | None:
    axes = site.known(1) if site.has(1) else site.node.attrs.get("axes")
    if axes is None and site.has(1):
        return None
    (numbering,) = _numbering(site)[:1]
    if (axes is None or not np.size(axes)) and site.node.int("noop_with_empty_axes", 0):
        return Step(list, (Numbers(site.node.inputs[0]),))
    over = (
        tuple(range(numbering.ndim))
        if axes is None or not np.size(axes)
        else tuple(int(axis) for axis in np.ravel(axes))
    )
    kept = [axis for axis in range(numbering.ndim) if axis not in {axis % numbering.ndim for axis in over}]
    rows = np.transpose(numbering, [*kept, *(axis for axis in range(numbering.ndim) if axis not in kept)])
    picks = rows.reshape(math.prod(numbering.shape[axis] for axis in kept), -1).tolist()
    function = REDUCTIONS[site.node.op]
    return Step(
        lambda numbers: [function([numbers[i] for i in pick]) for pick in picks], (Numbers(site.node.inputs[0]),)
    )


def _whole_division(a: Any, b: Any) -> Any:
    return -(-a // b) if (a < 0) != (b < 0) else a // b


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Div": operator.truediv,
    "Mod": operator.mod,
    "Pow": operator.pow,
    "Neg": operator.neg,
    "Abs": abs,
    "Floor": math.floor,
    "Ceil": math.ceil,
    "Round": round,
    "Sqrt": math.sqrt,
    "Min": min,
    "Max": max,
    "Equal": operator.eq,
    "Less": operator.lt,
    "Greater": operator.gt,
    "LessOrEqual": operator.le,
    "GreaterOrEqual": operator.ge,
    "Not": operator.not_,
    "And": lambda a, b: a and b,
    "Or": lambda a, b: a or b,
    "Where": lambda condition, a, b: a if condition else b,
}
REDUCTIONS: Mapping[str, Callable[[Sequence[Any]], Any]] = {
    "ReduceProd": math.prod,
    "ReduceSum": sum,
    "ReduceMax": max,
    "ReduceMin": min,
}
