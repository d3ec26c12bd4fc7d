"""What is wrong with a model file's message: names, order, signatures, what is used."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx
import onnx.defs

from passes.check.finding import Finding, cycle, dangling, dangling_output, duplicate_node
from passes.graph.order import Order, defined_names, needed_names, topological


def check_proto(model: onnx.ModelProto, found: Order | None = None) -> tuple[Finding, ...]:
    """Everything wrong with the names, the order and the use of what is in model, whose initializers need no data.

    found: the order of its nodes, if it is known.
    """
    graph = model.graph
    if not graph.node:
        return (Finding("error", "empty", "graph", "the graph has no nodes", "export the network again"),)
    if not graph.output:
        return (
            Finding(
                "error", "no-output", "graph", "it has no output, so nothing that it computes is seen", "declare one"
            ),
        )
    needed = [needed_names(node) for node in graph.node]
    return (
        *_opset(model),
        *_types(graph),
        *_duplicates(graph),
        *_undefined(graph, needed),
        *_signatures(model),
        *_order(graph, found or topological(needed, [node.output for node in graph.node])),
        *_control_flow(graph),
        *_unused(graph, needed),
        *_training(model),
    )


def _opset(model: onnx.ModelProto) -> Iterator[Finding]:
    for entry in model.opset_import:
        if not 0 < entry.version < 2**31:
            message = f"its version {entry.version} is impossible"
            yield Finding("error", "opset", f"operator set '{entry.domain}'", message, "export the network again")
        elif entry.domain in STANDARD and entry.version > onnx.defs.onnx_opset_version():
            message = (
                f"its version {entry.version} is newer than {onnx.defs.onnx_opset_version()}, the newest that "
                "is known here"
            )
            yield Finding(
                "error",
                "opset",
                f"operator set '{entry.domain}'",
                message,
                "export it in an older opset, or install a newer onnx",
            )
    if not any(entry.domain in STANDARD for entry in model.opset_import) and any(
        node.domain in STANDARD for node in model.graph.node
    ):
        message = "no version of the standard operator set is imported, so the operators have no meaning"
        yield Finding("error", "no-opset", "model", message, "set opset_import, as onnx.helper.make_model does")


def _types(graph: onnx.GraphProto) -> Iterator[Finding]:
    """Element types are known ones, and stated for every input and output."""
    known = set(onnx.TensorProto.DataType.values())
    ends = {value.name for value in (*graph.input, *graph.output)}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type.elem_type
        if kind not in known:
            yield Finding(
                "error",
                "element-type",
                f"tensor '{value.name}'",
                f"its element type {kind} is unknown",
                "is it from a newer ONNX?",
            )
        elif not kind and value.name in ends and value.type.WhichOneof("value") in (None, "tensor_type"):
            yield Finding(
                "error",
                "element-type",
                f"tensor '{value.name}'",
                "it has no element type",
                "state one for inputs and outputs",
            )


def _duplicates(graph: onnx.GraphProto) -> Iterator[Finding]:
    """A tensor comes from one place; initializers may also be listed as inputs (their default)."""
    initializers = [tensor.name for tensor in graph.initializer]
    sources = Counter(name for node in graph.node for name in node.output if name)
    sources.update({*initializers, *(value.name for value in graph.input)})
    for name, count in sources.items():
        if count > 1:
            yield Finding(
                "error", "duplicate-tensor", f"tensor '{name}'", f"{count} sources define it", "give each its own name"
            )
    for kind, names in (
        ("initializer", initializers),
        ("input", [v.name for v in graph.input]),
        ("output", [v.name for v in graph.output]),
    ):
        for name, count in Counter(names).items():
            if count > 1:
                yield Finding(
                    "error", f"duplicate-{kind}", f"{kind} '{name}'", f"it is listed {count} times", "list it once"
                )
    for name, count in Counter(node.name for node in graph.node if node.name).items():
        if count > 1:
            yield duplicate_node(name, count)


def _undefined(graph: onnx.GraphProto, needed: Sequence[Sequence[str]]) -> Iterator[Finding]:
    known = defined_names(graph)
    for index, names in enumerate(needed):
        for name in names:
            if name not in known:
                yield dangling(_site(graph.node[index], index), name)
    for value in graph.output:
        if value.name not in known:
            yield dangling_output(value.name)


STANDARD = ("", "ai.onnx")


@dataclass(frozen=True)
class Signature:
    """What the definition of an operator says of its nodes: how many inputs and outputs, the kinds of attributes, the
    needed ones.
    """

    counts: tuple[tuple[str, int, int], tuple[str, int, int]]
    kinds: Mapping[str, int]
    needed: tuple[str, ...]


def _signatures(model: onnx.ModelProto) -> Iterator[Finding]:
    """Every node has the inputs, outputs and attributes that the definition of its operator demands, where the standard
    defines it.
    """
    version = next((entry.version for entry in model.opset_import if entry.domain in STANDARD), 0)
    own = {(function.domain, function.name) for function in model.functions}
    for index, node in enumerate(model.graph.node):
        if node.domain in STANDARD and (node.domain, node.op_type) not in own and 0 < version < 2**31:
            signature = _signature(node.op_type, version)
            yield from _unlike(node, index, signature) if signature is not None else ()


@functools.cache
def _signature(op: str, version: int) -> Signature | None:
    if not onnx.defs.has(op, version, ""):
        return None
    schema = onnx.defs.get_schema(op, version, "")
    attributes = dict(schema.attributes)
    return Signature(
        (("inputs", schema.min_input, schema.max_input), ("outputs", schema.min_output, schema.max_output)),
        {name: int(attribute.type) for name, attribute in attributes.items()},  # type: ignore[call-overload]
        tuple(name for name, attribute in attributes.items() if attribute.required),
    )


def _unlike(node: onnx.NodeProto, index: int, signature: Signature) -> Iterator[Finding]:
    """What of node differs from its definition; attributes that the definition does not know do no harm."""
    wrong: list[tuple[str, str]] = []
    for (kind, least, most), names in zip(signature.counts, (node.input, node.output), strict=True):
        if not least <= len(names) <= most:
            expected = str(least) if least == most else f"at least {least}" if len(names) < least else f"at most {most}"
            wrong.append(("arity", f"it has {len(names)} {kind} instead of {expected}"))
    if not all(node.input[: signature.counts[0][1]]):
        wrong.append(("arity", "an input is missing that may not be left out"))
    if not any(node.output):
        wrong.append(("arity", "it has no output"))
    given = {attribute.name: attribute for attribute in node.attribute}
    if len(given) < len(node.attribute):
        wrong.append(("attribute", "an attribute stands twice"))
    wrong += [("attribute", f"it lacks the attribute '{name}'") for name in signature.needed if name not in given]
    for name, attribute in given.items():
        wanted = signature.kinds.get(name, attribute.type)
        if attribute.type != wanted and not attribute.ref_attr_name:
            wrong.append(
                ("attribute", f"its attribute '{name}' is of kind {_kind(attribute.type)} instead of {_kind(wanted)}")
            )
    parts = given["num_outputs"].i if node.op_type == "Split" and "num_outputs" in given else len(node.output)
    if parts != len(node.output):
        wrong.append(
            ("arity", f"it has {len(node.output)} outputs instead of the {parts} of its attribute 'num_outputs'")
        )
    for code, message in wrong:
        yield Finding("error", code, _site(node, index), message, "export the network again")


def _kind(kind: int) -> str:
    return (
        onnx.AttributeProto.AttributeType.Name(kind).lower()
        if kind in onnx.AttributeProto.AttributeType.values()
        else str(kind)
    )


def _order(graph: onnx.GraphProto, found: Order) -> Iterator[Finding]:
    if found.stuck:
        yield cycle([_site(graph.node[index], index) for index in found.stuck])
    elif not found.is_given:
        index = next(
            i
            for i, (given, right) in enumerate(zip(range(len(graph.node)), found.nodes, strict=True))
            if given != right
        )
        message = "it comes before a node whose output it reads; ONNX demands topological order"
        yield Finding("error", "unsorted", _site(graph.node[index], index), message, "sort the nodes topologically")


def _control_flow(graph: onnx.GraphProto) -> Iterator[Finding]:
    for index, node in enumerate(graph.node):
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            message = "its body is looked at by ONNX Runtime only, not by the static rules"
            yield Finding("note", "control-flow", _site(node, index), message)


def _unused(graph: onnx.GraphProto, needed: Sequence[Sequence[str]]) -> Iterator[Finding]:
    used = {name for names in needed for name in names} | {value.name for value in graph.output}
    for tensor in graph.initializer:
        if tensor.name not in used:
            message = f"nothing reads it; it only takes space ({math.prod(tensor.dims)} values)"
            yield Finding("warning", "unused-initializer", f"initializer '{tensor.name}'", message, "remove it")
    initial = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        if value.name not in used and value.name not in initial:
            yield Finding("warning", "unused-input", f"input '{value.name}'", "nothing reads it", "remove it")


def _site(node: onnx.NodeProto, index: int) -> str:
    return f"{node.op_type} '{node.name}'" if node.name else f"{node.op_type} (node {index})"


def _training(model: onnx.ModelProto) -> Iterator[Finding]:
    """Nodes on the data that compute as in training: they drop values at random, or normalise a sample by the others of
    its batch.
    """
    graph = model.graph
    version = max((entry.version for entry in model.opset_import if entry.domain in STANDARD), default=0)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    constants |= {
        node.output[0]: attribute.t for node in graph.node if node.op_type == "Constant" and node.output
        for attribute in node.attribute if attribute.name == "value"
    }  # fmt: skip
    following = {value.name for value in graph.input} - set(constants)
    for node in graph.node:
        if following.isdisjoint(node.input):
            continue
        following.update(name for name in node.output if name)
        if node.op_type not in ("BatchNormalization", "Dropout") or node.domain not in STANDARD:
            continue
        flags = {attribute.name: attribute.i for attribute in node.attribute}
        legacy = 0 < version < 7 and not flags.get("is_test", 0)
        where = f"{node.op_type} '{node.name or ', '.join(node.output)}'"
        fix = (
            "export the network in evaluation mode (model.eval()), or bring it to inference with 'fnatool cut "
            "--inference'"
        )
        if node.op_type == "BatchNormalization" and (flags.get("training_mode") or legacy):
            yield Finding(
                "error",
                "training-mode",
                where,
                "it normalises by the batch it sees, so a sample depends on the others",
                fix,
            )
        if node.op_type == "Dropout" and (legacy or _drops(node, constants)):
            yield Finding("error", "training-mode", where, "it drops values at random in every run", fix)


def _drops(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether a Dropout of version 12 on is active, by constants."""
    switch = constants.get(node.input[2]) if len(node.input) > 2 else None
    ratio = constants.get(node.input[1]) if len(node.input) > 1 else None
    if switch is None or not _has_content(switch):
        return False
    return ratio is None or _has_content(ratio)


def _has_content(tensor: onnx.TensorProto) -> bool:
    """Whether a small tensor, whose data may be kept elsewhere, holds anything but zeros."""
    return any(tensor.raw_data) or any(
        any(field) for field in (tensor.float_data, tensor.int32_data, tensor.double_data)
    )
