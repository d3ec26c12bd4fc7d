"""A graph as a function of its weights and inputs, in torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from torch import Tensor

from fnatool.nn.layers import Norms
from fnatool.nn.memory import require_memory
from fnatool.nn.program import Program, compiled, run, to_tensor
from fnatool.nn.site import LoadFacts
from fnatool.nn.table import TORCH
from fnatool.nn.weights import Weight, prepare
from passes.errors import RefusedModel, UserError
from passes.graph.shapes import PROBE_IMAGE, infer
from passes.graph.tensors import Shape, Shapes
from passes.graph.view import View, view
from passes.nearest import nearest


class Reading:
    """How torch computes a graph: a function of its weights and inputs.

    `weights` are the tensors that training changes, `constants` the other tensors of the graph that are no plain
    numbers. Both may be given in a call, with other widths too: group counts come from the weights, and sizes written
    in the graph follow the tensors.
    """

    def __init__(self, graph: gs.Graph, sizes: Mapping[str, Shape] | None = None) -> None:
        """Raises RefusedModel for an operator that torch has no row for, naming it and the node, and for sizes beyond
        our memory.
        """
        prepared = prepare(graph)
        given = view(prepared.graph)
        _require_elements(given)
        seen = _with_free_batch(given)
        self.sources = prepared.weights
        self.weights = tuple(weight for weight in prepared.weights if weight.role != "fixed")
        self.view = seen
        self.shapes = infer(seen, _sizes(given, sizes))
        self.inputs = tuple(name for name in seen.inputs if name not in seen.constants)
        self.outputs = seen.outputs
        self.facts = facts_of(seen, self.shapes, self.weights)
        require_memory(seen, self.shapes, self.facts.data)
        self.static_batch = any(isinstance((given.inputs[name][0] or (None,))[0], int) for name in self.facts.batched)
        self.constants: dict[str, Tensor] = {}
        self._programs: dict[tuple[str, ...], Program] = {}
        self.program(())

    def __deepcopy__(self, memo: object) -> Reading:
        return self  # nothing in it changes

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors that a run needs beside the inputs: weights, then constants."""
        return (*(weight.name for weight in self.weights), *self.constants)

    def initial(self, weight: Weight) -> Tensor:
        """The values of a weight in the file, as a tensor of their own in the type they are trained in."""
        return to_tensor(self.view.values(weight.name)).clone()

    def program(self, taps: tuple[str, ...]) -> Program:
        """The instructions for the graph's outputs and then the taps. Raises UserError for a name that the graph does
        not compute.
        """
        if taps not in self._programs:
            unknown = [
                name
                for name in taps
                if name not in self.shapes.types or name in self.facts.known or name in self.view.constants
            ]
            if unknown:
                close = nearest(unknown[0], list(self.view.producer))
                hint = f"; did you mean '{close}'?" if close else ""
                raise UserError(f"'{unknown[0]}' is not a tensor that this graph computes in a run{hint}")
            self._programs[taps] = compiled(self.view, self.facts, (*self.outputs, *taps), self.constants, rows=TORCH)
        return self._programs[taps]

    def __call__(
        self,
        values: Mapping[str, Tensor],
        inputs: Sequence[Tensor],
        *,
        norms: Norms = "running",
        training: bool = False,
        taps: tuple[str, ...] = (),
    ) -> tuple[Tensor, ...]:
        """The outputs and then the taps, for all of `weights` and any of `constants` by name."""
        known = {**self.constants, **values}
        return run(self.program(taps), [known[name] for name in self.names], inputs, norms=norms, training=training)


# --- facts --------------------------------------------------------------------------------------


def _require_elements(seen: View) -> None:
    """Every input holds something. Raises RefusedModel for a size of 0."""
    for name, (shape, _) in seen.inputs.items():
        if shape is not None and 0 in shape:
            raise RefusedModel(
                f"input '{name}' has a size of 0 on axis {shape.index(0)}: it runs on no data; export it with a "
                "size, or a free one"
            )


def _with_free_batch(seen: View) -> View:
    """The View whose inputs have a free axis 0, where that is the batch of the first input."""
    sizes = [shape[0] for shape, _ in seen.inputs.values() if shape]
    inputs = {}
    for name, (shape, dtype) in seen.inputs.items():
        is_batch = shape is not None and len(shape) > 1 and shape[0] == sizes[0] and name not in seen.constants
        inputs[name] = ((None, *shape[1:]) if is_batch and shape is not None else shape, dtype)
    return dataclasses.replace(seen, inputs=inputs)


def _sizes(seen: View, sizes: Mapping[str, Shape] | None) -> dict[str, Shape]:
    """Sizes to probe with: those given, else those of the file where its batch is static (it is taken for free, but
    sizes may count it).
    """
    found = dict(sizes or {})
    for name, (shape, _) in seen.inputs.items():
        if name not in found and name not in seen.constants and shape and isinstance(shape[0], int):
            found[name] = tuple(size if isinstance(size, int) and size > 0 else PROBE_IMAGE for size in shape)
    return found


def _from(seen: View, names: Iterable[str], *, sizes: bool = False) -> set[str]:
    """The tensors whose values follow from those of the tensors named, or with sizes also from how large these are."""
    found = set(names)
    for node in seen.nodes:
        if (sizes or node.op not in ("Shape", "Size")) and not found.isdisjoint(node.inputs):
            found.update(node.outputs)
    return found


def facts_of(seen: View, shapes: Shapes, weights: Sequence[Weight]) -> LoadFacts:
    """What is known of a prepared graph, or of a part of one, when it is loaded."""
    names = tuple(weight.name for weight in weights)
    known = {name: np.asarray(seen.values(name)) for name in seen.constants if name not in names}
    trained = _from(seen, names)
    known |= {
        name: value.array for name, value in shapes.values.items() if name not in trained and not value.free.any()
    }
    sizes: dict[int, int] = {}
    for weight in weights:
        sizes[weight.held] = sizes.get(weight.held, 0) + seen.values(weight.name).size
    batched = tuple(
        name for name, (shape, _) in seen.inputs.items() if shape and len(shape) > 1 and not isinstance(shape[0], int)
    )
    return LoadFacts(
        shapes=shapes.shapes,
        types=shapes.types,
        known=known,
        numbers=set(),
        inputs=tuple(name for name in seen.inputs if name not in seen.constants),
        batched=batched,
        batch=shapes.shapes[batched[0]][0] if batched else 1,
        main_type=max(sizes, key=lambda kind: sizes[kind]) if sizes else onnx.TensorProto.UNDEFINED,
        weights=names,
        data=_from(seen, [name for name in seen.inputs if name not in seen.constants], sizes=True),
        samples=_from(seen, batched),
    )
