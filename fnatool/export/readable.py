"""An exported graph made readable: parameters under their own names, nodes named after modules, and nothing of the
exporter's own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from fnatool.files import model as files
from passes.graph.normalise import normalise
from passes.graph.view import CORE_DOMAINS, Node, View, unique, view

Sizes = Sequence[int | str]


@dataclass(frozen=True)
class ModuleOrigin:
    """What is known of the module: the name of its class, the paths of its parts, its parameters and buffers, and
    torch's version.
    """

    name: str
    modules: frozenset[str]
    parameters: frozenset[str]
    version: str


def tidy(model: files.Model, origin: ModuleOrigin, shapes: Mapping[str, Sizes]) -> files.Model:
    """The same network in readable form; shapes are those of its inputs and outputs, by name, with a word for what is
    free.
    """
    graph = _simplified(model.graph, origin.parameters)
    _rename(graph, _paths(graph, model.envelope, origin.modules), origin.parameters, frozenset(shapes))
    for tensor in (*graph.inputs, *graph.outputs):
        tensor.shape = list(shapes[tensor.name])
    envelope = onnx.ModelProto(
        ir_version=model.envelope.ir_version, producer_name="pytorch", producer_version=origin.version
    )
    used = {node.domain or "" for node in graph.nodes}
    envelope.opset_import.extend(entry for entry in model.envelope.opset_import if entry.domain in used)
    graph.import_domains = list(envelope.opset_import)
    envelope.graph.name = origin.name
    return replace(model, graph=graph, envelope=envelope, data=(), notes=())


def _simplified(graph: gs.Graph, parameters: frozenset[str]) -> gs.Graph:
    """In normal form, except that nothing is computed from parameters beforehand: they stay as the module has them, to
    be trained.
    """
    _untie(graph, parameters)
    constants = {
        t.name: t for node in graph.nodes for t in node.inputs if isinstance(t, gs.Constant) and t.name in parameters
    }
    inputs = {name: gs.Variable(name, constant.dtype, list(constant.shape)) for name, constant in constants.items()}
    _exchange(graph, inputs)
    graph.inputs.extend(inputs.values())
    graph = normalise(graph).graph
    graph.inputs = [tensor for tensor in graph.inputs if tensor.name not in constants]
    _exchange(graph, {name: gs.Constant(name, constant.values) for name, constant in constants.items()})
    _drop_zero_biases(graph, parameters)
    _mark_pads(graph)
    return graph


def _drop_zero_biases(graph: gs.Graph, parameters: frozenset[str]) -> None:
    """One exporter writes a bias of zeros where the module has none."""
    for node in graph.nodes:
        has_bias = node.op in ("Conv", "ConvTranspose") and len(node.inputs) > 2
        if has_bias and node.inputs[2].name not in parameters and _is_zero(node.inputs[2]):
            node.inputs.pop()


def _mark_pads(graph: gs.Graph) -> None:
    """A zero padded in front of a MaxPool is −0: the same number, but +0 makes ONNX Runtime fuse it into padding by
    −∞.
    """
    pooled = {node.inputs[0].name for node in graph.nodes if node.op == "MaxPool"}
    for node in graph.nodes:
        if node.op != "Pad" or node.outputs[0].name not in pooled or len(node.inputs) < 2:
            continue
        value = node.inputs[2] if len(node.inputs) > 2 else gs.Variable.empty()
        if node.attrs.get("mode", "constant") != "constant" or (value.name and not _is_zero(value)):
            continue
        minus = gs.Constant(f"{node.name}/minus_zero", np.array(-0.0, value.values.dtype if value.name else np.float32))
        if len(node.inputs) > 2:
            node.inputs[2] = minus
        else:
            node.inputs.append(minus)


def _is_zero(tensor: gs.Tensor) -> bool:
    return isinstance(tensor, gs.Constant) and not np.any(tensor.values)


def _untie(graph: gs.Graph, parameters: frozenset[str]) -> None:
    """Parameters of equal values are several again: the tracing exporter keeps one and passes it on through
    Identity.
    """
    own: dict[str, gs.Tensor] = {}
    for node in graph.nodes:
        name = node.outputs[0].name if node.outputs else ""
        if node.op == "Identity" and name in parameters and isinstance(node.inputs[0], gs.Constant):
            own[name] = gs.Constant(name, node.inputs[0].values)
    _exchange(graph, own)
    graph.nodes[:] = [node for node in graph.nodes if not (node.outputs and node.outputs[0].name in own)]


def _exchange(graph: gs.Graph, tensors: Mapping[str, gs.Tensor]) -> None:
    """Every node reads the tensors given in place of those of their names."""
    for node in graph.nodes:
        for slot, tensor in enumerate(node.inputs):
            if tensor.name in tensors:
                node.inputs[slot] = tensors[tensor.name]


def _paths(graph: gs.Graph, envelope: onnx.ModelProto, modules: frozenset[str]) -> dict[str, str]:
    """Node name → the path of the module that made it, '' for the outermost."""
    scopes = {
        stub.name: entry.value for stub in envelope.graph.node for entry in stub.metadata_props if entry.key == SCOPES
    }
    found = {}
    for node in graph.nodes:
        if node.name in scopes:
            names = [name for name in _strings(scopes[node.name]) if name in modules]
            found[node.name] = names[-1] if names else ""
        else:
            found[node.name] = _path_of_scope(node.name.split("/")[1:-1], modules)
    return found


SCOPES = "pkg.torch.onnx.name_scopes"


def _strings(text: str) -> list[str]:
    """The strings in a list written as Python does."""
    return text.replace('"', "'").split("'")[1::2]


def _path_of_scope(parts: Sequence[str], modules: frozenset[str]) -> str:
    """The path of /layer1/layer1.0/conv1: each part continues the path before it, or that of a container further
    out.
    """
    path = ""
    for part in parts:
        outer = path
        while (joined := f"{outer}.{part}" if outer else part) not in modules:
            if not outer:
                return path
            outer = outer.rpartition(".")[0]
        path = joined
    return path


def _rename(graph: gs.Graph, paths: Mapping[str, str], parameters: frozenset[str], ends: frozenset[str]) -> None:
    """Nodes are named after their modules, what they compute after them, constants after their place; parameters keep
    their names.
    """
    seen = view(graph)
    names = _node_names(seen, paths, parameters)
    taken = {*ends, *parameters}
    renamed: dict[str, str] = {}
    for node in seen.nodes:
        for k, tensor in enumerate(node.outputs):
            if tensor and tensor not in ends:
                renamed[tensor] = unique(f"{names[node.name]}/out" + (f"_{k}" if k else ""), taken.__contains__)
                taken.add(renamed[tensor])
        for slot, tensor in enumerate(node.inputs):
            if tensor in seen.constants and tensor not in taken and tensor not in renamed:
                renamed[tensor] = unique(f"{names[node.name]}.{_slot_name(node, slot, seen)}", taken.__contains__)
                taken.add(renamed[tensor])
    tensors = {id(tensor): tensor for node in graph.nodes for tensor in (*node.inputs, *node.outputs)}
    for tensor in tensors.values():
        tensor.name = renamed.get(tensor.name, tensor.name)
    for node in graph.nodes:
        node.name = names[node.name]


def _node_names(seen: View, paths: Mapping[str, str], parameters: frozenset[str]) -> dict[str, str]:
    """A module's path for the node that carries it out; for others the path and what they do: `layer1.0.add`,
    `layers.2.gamma`.
    """
    inside = Counter(paths.values())
    leaves = {path for path in inside if not any(other.startswith(f"{path}.") for other in inside)}
    behind = _parameters_behind(seen, parameters)
    names: dict[str, str] = {}
    taken: set[str] = set()
    for node in seen.nodes:
        path = paths[node.name]
        own = [name for name in node.inputs if name in parameters and name.rpartition(".")[0] == path]
        on_data = node.outputs[0] not in behind
        reads = {name for tensor in node.inputs for name in behind.get(tensor, ())} if on_data else set()
        if path and (any(f"{path}.{part}" in reads for part in MAIN) or (inside[path] == 1 and path in leaves)):
            name = path
        elif own and on_data:
            name = own[0]
        else:
            name = ".".join(filter(None, (path, node.op.rpartition("::")[2].lower())))
        names[node.name] = unique(name, taken.__contains__)
        taken.add(names[node.name])
    return names


MAIN = ("weight", "running_mean")  # what reads one of these is what the module is for


def _parameters_behind(seen: View, parameters: frozenset[str]) -> dict[str, frozenset[str]]:
    """Every tensor that is computed without the network's inputs → the parameters in it."""
    behind = {name: frozenset({name} & parameters) for name in seen.constants}
    for node in seen.nodes:
        known = [behind.get(name) for name in node.inputs if name]
        if all(names is not None for names in known):
            names = frozenset().union(*(names for names in known if names is not None))
            behind |= {name: names for name in node.outputs if name}
    return behind


def _slot_name(node: Node, slot: int, seen: View) -> str:
    """What the operator calls this input."""
    domain, _, op = node.op.rpartition("::")
    if domain in CORE_DOMAINS and onnx.defs.has(op, seen.opset, ""):
        slots = onnx.defs.get_schema(op, seen.opset, "").inputs
        if slot < len(slots):
            return str(slots[slot].name).lower()
    return f"input{slot}"
