"""Torch-Pruning on an ONNX file: its layers as torch's own modules, pruned, and what is left in the same graph.

As its README says it: BasePruner, global pruning by the norm of groups, isomorphic (arXiv 2407.04616), no rounding of
channels. Layers that make the outputs of the network are left alone; where they go with the old head, nothing is lost
by that.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
import torch

from fnatool.files import model as files
from fnatool.nn.layers import batch_normalization, convolution, gemm
from fnatool.nn.program import compiled, run
from fnatool.nn.reading import Reading, facts_of
from fnatool.nn.site import NodeSite, Step
from fnatool.nn.table import TORCH
from fnatool.nn.weights import prepare
from fnatool.nn.windows import padded, window
from passes.graph.view import Node, View


class NotPruned(Exception):
    """Torch-Pruning cannot prune this network: why."""


class Layered(torch.nn.Module):
    """A graph whose convolutions, linear layers, normalisations and slopes are modules of torch; `layers` has them by
    node.
    """

    def __init__(self, graph: gs.Graph) -> None:
        super().__init__()
        self.reading = Reading(graph)
        seen, own = self.reading.view, self.reading.weights
        self.layers: dict[str, torch.nn.Module] = {}
        facts = facts_of(seen, self.reading.shapes, own)
        rows = {
            **TORCH,
            "Conv": self._conv,
            "Gemm": self._linear,
            "BatchNormalization": self._norm,
            "PRelu": self._slopes,
        }
        constants: dict[str, torch.Tensor] = {}
        self.program = compiled(seen, facts, self.reading.outputs, constants, rows=rows)
        self.values = [*(self.reading.initial(weight) for weight in own), *constants.values()]

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The outputs, by the statistics of the file."""
        return run(self.program, self.values, inputs, norms="running", training=False)

    def _placed(self, site: NodeSite, module: torch.nn.Module) -> Step:
        self.layers[site.node.name] = module
        self.add_module(f"layer{len(self.layers)}", module)
        return Step(module, (site.node.inputs[0],))

    def _values(self, site: NodeSite, slot: int) -> np.ndarray:
        return np.asarray(self.reading.view.values(site.node.inputs[slot]))

    def _holds(self, site: NodeSite, *slots: int) -> bool:
        """These inputs are constants of the graph."""
        return all(site.node.inputs[slot] in self.reading.view.constants for slot in slots if site.has(slot))

    def _conv(self, site: NodeSite) -> Step:
        weight, groups = site.shape(1) or (), site.node.int("group", 1)
        if len(weight) != 4 or not self._holds(site, 1, 2):
            return convolution(site)
        at = window(site, weight[2:])
        module = torch.nn.Conv2d(
            weight[1] * groups,
            weight[0],
            tuple(weight[2:]),
            stride=tuple(at.strides),
            padding=tuple(at.before) if at.is_even else 0,
            dilation=tuple(at.dilations),
            groups=groups,
            bias=site.has(2),
        )
        step = self._placed(site, _filled(module, **self._learnt(site, self._values(site, 1))))
        if at.is_even:
            return step
        return replace(step, run=lambda x: module(padded(x, *at.pads(x.shape[2:]), 0.0)))

    def _learnt(self, site: NodeSite, weight: np.ndarray) -> dict[str, np.ndarray]:
        return {"weight": weight, **({"bias": self._values(site, 2)} if site.has(2) else {})}

    def _linear(self, site: NodeSite) -> Step:
        node = site.node
        plain = site.real("alpha", 1.0) == site.real("beta", 1.0) == 1.0 and not node.int("transA", 0)
        if not plain or not self._holds(site, 1, 2):
            return gemm(site)
        weight = self._values(site, 1)
        weight = weight if node.int("transB", 0) else weight.T
        module = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=site.has(2))
        return self._placed(site, _filled(module, **self._learnt(site, weight)))

    def _norm(self, site: NodeSite) -> Step:
        if len(site.shape(0) or ()) != 4 or not self._holds(site, 1, 2, 3, 4):
            return batch_normalization(site)
        values = {name: self._values(site, slot) for name, slot in NORM.items()}
        module = torch.nn.BatchNorm2d(len(values["weight"]), eps=site.real("epsilon", 1e-5))
        return self._placed(site, _filled(module, **values))

    def _slopes(self, site: NodeSite) -> Step:
        shape = site.shape(1) or ()
        if len(shape) < 3 or shape[-3] != max(shape) or not self._holds(site, 1):
            return TORCH["PRelu"](site)
        weight = self._values(site, 1)
        return self._placed(site, _filled(torch.nn.PReLU(weight.size), weight=weight))


NORM = {"weight": 1, "bias": 2, "running_mean": 3, "running_var": 4}  # torch's name → the slot of the input


def _filled(module: torch.nn.Module, **values: np.ndarray) -> torch.nn.Module:
    """The module with these parameters and buffers, in evaluation mode."""
    state = module.state_dict()
    for name, value in values.items():
        state[name] = torch.from_numpy(np.array(value, np.float32).reshape(state[name].shape))
    module.load_state_dict(state)
    return module.eval()


def pruned(model: files.Model, ratio: float) -> files.Model:
    """The model with this share of its channels gone, by Torch-Pruning. Raises NotPruned where that does not do it."""
    import torch_pruning  # type: ignore[import-untyped]

    graph = prepare(model.graph).graph
    made = Layered(graph).eval()
    inputs = [_example(made.reading, name) for name in made.reading.inputs]
    ends = {made.layers[name] for name in ending(made.reading.view, made.layers)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = [tuple(value.shape) for value in _outputs(made, inputs)]
        try:
            pruner = torch_pruning.pruner.BasePruner(
                made,
                tuple(inputs),
                importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
                global_pruning=True,
                isomorphic=True,
                pruning_ratio=ratio,
                ignored_layers=list(ends),
                forward_fn=lambda module, given: module(*given),
            )
            pruner.step()
            after = [tuple(value.shape) for value in _outputs(made, inputs)]
        except Exception as error:  # whatever it raises is the finding
            raise NotPruned(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}") from error
    if after != before:
        raise NotPruned(f"the outputs have shapes {after}, not {before}")
    return replace(model, graph=_written(graph, made), notes=())


def _outputs(made: Layered, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    with torch.no_grad():
        return [value for value in made(*inputs) if isinstance(value, torch.Tensor)]


def _example(reading: Reading, name: str) -> torch.Tensor:
    shape = reading.shapes.shapes[name]
    return torch.randn((1, *shape[1:]), generator=torch.Generator().manual_seed(0))


def ending(seen: View, layers: Mapping[str, torch.nn.Module]) -> set[str]:
    """The convolutions and linear layers whose channels are those of an output: none of them lies behind."""
    found: set[str] = set()
    waiting, known = list(seen.outputs), set(seen.outputs)
    while waiting:
        name = waiting.pop()
        node = seen.by_name.get(seen.producer.get(name, ""))
        if node is None:
            continue
        if node.name in layers and _mixes(node, seen):
            found.add(node.name)
            continue
        more = [tensor for tensor in node.inputs if tensor and tensor not in known]
        known.update(more)
        waiting += more
    return found


def _mixes(node: Node, seen: View) -> bool:
    """Whether its channels are other ones than those it reads."""
    return node.op == "Gemm" or (node.op == "Conv" and seen.values(node.inputs[1]).shape[1] > 1)


def _written(graph: gs.Graph, made: Layered) -> gs.Graph:
    """The graph with what the modules hold now."""
    copy = graph.copy()
    constants: dict[str, gs.Constant] = {
        tensor.name: tensor for node in copy.nodes for tensor in node.inputs if isinstance(tensor, gs.Constant)
    }
    for node in copy.nodes:
        module = made.layers.get(node.name)
        if module is None:
            continue
        for slot, values in _held(node, module):
            constant = constants[node.inputs[slot].name]
            form = [-1, 1, 1] if isinstance(module, torch.nn.PReLU) else values.shape
            constant.values = values.reshape(form).astype(constant.values.dtype)
        if isinstance(module, torch.nn.Conv2d):
            node.attrs["group"] = module.groups
    for tensor in copy.tensors().values():
        if isinstance(tensor, gs.Variable) and all(tensor is not end for end in (*copy.inputs, *copy.outputs)):
            tensor.shape = None  # that of the seed
    return copy


def _held(node: gs.Node, module: torch.nn.Module) -> Iterator[tuple[int, np.ndarray]]:
    """Slot and values of what a module took from its node."""
    state = {name: value.detach().numpy() for name, value in module.state_dict().items()}
    if isinstance(module, torch.nn.BatchNorm2d):
        yield from ((slot, state[name]) for name, slot in NORM.items())
        return
    weight: Callable[[np.ndarray], np.ndarray] = np.asarray
    attrs: Mapping[str, Any] = node.attrs
    if isinstance(module, torch.nn.Linear) and not attrs.get("transB", 0):
        weight = np.transpose
    yield 1, np.ascontiguousarray(weight(state["weight"]))
    if "bias" in state:
        yield 2, state["bias"]
