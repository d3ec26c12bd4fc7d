"""What a graph has that TensorRT and TensorRT for RTX do not read, by looking only.

The tables are what the parser of tensorrt-rtx 1.7.1, which is TensorRT's own, says and does; opsets are those that
release notes name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from passes.check.finding import Finding
from passes.graph.tensors import typed
from passes.graph.view import Node, records

TENSORRT, RTX = "tensorrt", "tensorrt-rtx"
NEWEST_OPSET: Mapping[str, int] = {TENSORRT: 25, RTX: 28}
UNKNOWN = frozenset({
    "AffineGrid", "Bernoulli", "BitCast", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor",
    "CenterCropPad", "Col2Im", "Compress", "ConcatFromSequence", "ConvInteger", "CumProd", "DFT", "DeformConv", "Det",
    "DynamicQuantizeLinear", "ImageDecoder", "MatMulInteger", "MaxRoiPool", "MaxUnpool", "MelWeightMatrix",
    "Multinomial", "NegativeLogLikelihoodLoss", "Optional", "OptionalGetElement", "OptionalHasElement", "QLinearConv",
    "QLinearMatMul", "RegexFullMatch", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase",
    "SequenceInsert", "SequenceLength", "SequenceMap", "SoftmaxCrossEntropyLoss", "SplitToSequence", "StringConcat",
    "StringNormalizer", "StringSplit", "SwiGLU", "TfIdfVectorizer", "Unique"
})  # fmt: skip
"""Operators that the parser says it has nothing for."""
LACKING: Mapping[str, Mapping[str, str]] = {
    RTX: {
        "NonMaxSuppression": "it parses, but no engine is built of it: there is no kernel",
        "NonZero": "the parser has no plugin for it",
    }
}
"""target → operator → why it does not come to an engine."""
READ = frozenset({
    "FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "INT8", "UINT8", "INT32", "INT64", "BOOL", "FLOAT8E4M3FN", "INT4",
    "FLOAT4E2M1"
})  # fmt: skip
"""Element types that there are; uint8 for inputs and outputs alone."""
QUANTISATION = ("QuantizeLinear", "DequantizeLinear")


def check_for_engine(graph: gs.Graph, target: str) -> tuple[Finding, ...]:
    """What keeps the graph from becoming an engine of the target, one of TENSORRT and RTX; and what it needs for
    that.
    """
    nodes, constants = records(graph)
    outputs = {tensor.name for tensor in graph.outputs}
    found = [*_opset(graph, target), *_interface(graph)]
    for node in nodes:
        found += [*_operator(node, target), *_cast(node, outputs)]
        if node.op in QUANTISATION:
            found += _quantisation(node, constants)
    return tuple(found)


def _opset(graph: gs.Graph, target: str) -> Iterator[Finding]:
    newest = NEWEST_OPSET[target]
    if graph.opset > newest:
        message = f"it has opset {graph.opset}, and {target} knows those up to {newest}"
        yield Finding("error", "engine-opset", "model", message, "export it in an older one")


def _operator(node: Node, target: str) -> Iterator[Finding]:
    where = f"{node.op} '{node.name}'"
    if "::" in node.op:
        yield Finding(
            "error",
            "engine-operator",
            where,
            f"{target} does not know operators of other domains",
            "run it in ONNX Runtime",
        )
    elif node.op in UNKNOWN:
        yield Finding(
            "error",
            "engine-operator",
            where,
            f"the parser of {target} has nothing for {node.op}",
            "run it in ONNX Runtime",
        )
    elif node.op in LACKING.get(target, {}):
        fix = "leave it to what reads the outputs; 'fnatool deploy' of a detector does"
        yield Finding("error", "engine-operator", where, LACKING[target][node.op], fix)


def _interface(graph: gs.Graph) -> Iterator[Finding]:
    for kind, tensors in (("input", graph.inputs), ("output", graph.outputs)):
        for tensor in tensors:
            name = None if tensor.dtype is None else _name_of(tensor.dtype)
            if name is not None and name not in READ:
                yield Finding(
                    "error",
                    "engine-type",
                    f"{kind} '{tensor.name}'",
                    f"engines have no {name.lower()}",
                    "use int32 or float32",
                )
    for tensor in graph.inputs:
        free = [axis for axis in tensor.shape or () if not isinstance(axis, int) or axis < 1]
        if free:
            message = (
                f"its shape {typed(tuple(tensor.shape))} is free: an engine is built for a least, a usual and "
                "a largest one"
            )
            fix = "'fnatool deploy --batch 1:8:32' sets them, or trtexec's --minShapes, --optShapes and --maxShapes"
            yield Finding("note", "engine-profile", f"input '{tensor.name}'", message, fix)


def _name_of(dtype: object) -> str | None:
    number = dtype if isinstance(dtype, int) else onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))  # type: ignore[call-overload]
    return onnx.TensorProto.DataType.Name(number) if number else None


def _cast(node: Node, outputs: set[str]) -> Iterator[Finding]:
    to = node.attrs.get("to")
    name = _name_of(to) if node.op == "Cast" and isinstance(to, int) else None
    if name is None:
        return
    where = f"Cast '{node.name}'"
    if name not in READ:
        yield Finding("error", "engine-type", where, f"engines have no {name.lower()}", "cast to int32 or float32")
    elif name == "UINT8" and node.outputs[0] not in outputs:
        yield Finding("error", "engine-type", where, "engines have uint8 for inputs and outputs alone", "cast to int32")


def _quantisation(node: Node, constants: Mapping[str, gs.Constant]) -> Iterator[Finding]:
    where, zero = f"{node.op} '{node.name}'", constants.get(node.input(2))
    fix = "'fnatool deploy --precision int8 --target tensorrt' quantises the float model as engines want it"
    if zero is not None and bool(np.asarray(zero.values).any()):
        yield Finding(
            "error", "engine-quantised", where, "its zero point is not zero, and engines quantise symmetrically", fix
        )
    stored = constants.get(node.input(0)) if node.op == "DequantizeLinear" else None
    if stored is not None and np.dtype(stored.dtype) in (np.dtype(np.int32), np.dtype(np.uint8)):
        yield Finding(
            "error",
            "engine-quantised",
            where,
            f"it reads constants of {np.dtype(stored.dtype)}, which engines do not",
            fix,
        )
