"""Two model files side by side, by name: knobs, stages and blocks, inputs and outputs, nodes, and the values of
tensors.

Equal means that nothing of this differs; the order of nodes, documentation and what a file claims of inner shapes are
not looked at.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import onnx
import onnx.numpy_helper
from onnx import AttributeProto, TensorProto

from fnatool import seeds
from fnatool.files import model as files
from fnatool.files.atomic import write_text
from fnatool.files.interface import Inputs, free_inputs, named_shapes, signature
from fnatool.files.tensors import Array
from fnatool.model.analysed import analyse_model, metadata
from fnatool.model.rows import Json, block_rows, image_row, stage_rows
from passes.errors import RefusedModel, UserError
from passes.graph.tensors import Shape, typed
from passes.network.analysis import Analysis
from passes.network.knobs import BATCH, CHANNELS, FREE, IMAGE, batch_text

Change = TypeVar("Change")

CHUNK = 1 << 22  # elements compared at once


@dataclass(frozen=True, kw_only=True)
class DiffOptions:
    """`inputs` gives shapes for free dimensions, to the model that has the input."""

    inputs: Inputs = None


@dataclass(frozen=True)
class NetworkFacts:
    """What an analysis says of a network, without its arrays."""

    params: int
    macs: int | None
    knobs: Mapping[str, object]
    stages: Mapping[str, object]
    blocks: Mapping[str, object]


@dataclass(frozen=True)
class DiffSide:
    """One of the two models: the file, and what the analysis found or why there is none."""

    path: Path
    sha256: str
    proto: onnx.ModelProto
    tensors: Mapping[str, Array]
    facts: NetworkFacts | None
    refused: str | None


@dataclass(frozen=True)
class Difference:
    """Something named that both sides have and that is not the same; None: that side lacks it."""

    name: str
    a: object
    b: object


@dataclass(frozen=True)
class NodeChange:
    """A node that both sides have, and a difference per thing that is not the same: op, an attribute, inputs,
    outputs.
    """

    name: str
    op: str
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class TensorChange:
    """A tensor that both sides have: type and shape in A and in B, the largest change of a value, and that relative to
    A's spread.

    The spread is max − min of A's finite values, or their largest magnitude where all are equal. largest and relative
    are None where the shapes differ or the values are no numbers, infinite where a value is finite on one side only.
    """

    name: str
    a: str
    b: str
    largest: float | None
    relative: float | None


@dataclass(frozen=True)
class Named:
    """What one side has and the other has not: a node with its op, or a tensor with its type and shape."""

    name: str
    what: str


@dataclass(frozen=True)
class Compared(Generic[Change]):
    """What only B has, what only A has, what both have and is different, and how many are equal."""

    added: tuple[Named, ...]
    removed: tuple[Named, ...]
    changed: tuple[Change, ...]
    equal: int

    @property
    def differs(self) -> bool:
        return bool(self.added or self.removed or self.changed)


@dataclass(frozen=True)
class Comparison:
    """Everything in which two models differ."""

    a: DiffSide
    b: DiffSide
    model: tuple[Difference, ...]
    knobs: tuple[Difference, ...]
    stages: tuple[Difference, ...]
    blocks: tuple[Difference, ...]
    inputs: tuple[Difference, ...]
    outputs: tuple[Difference, ...]
    nodes: Compared[NodeChange]
    tensors: Compared[TensorChange]

    @property
    def equal(self) -> bool:
        rows = (*self.model, *self.knobs, *self.stages, *self.blocks, *self.inputs, *self.outputs)
        return not rows and not self.nodes.differs and not self.tensors.differs

    def to_json(self) -> Json:
        """All differences; None stands for what one side lacks, and for a change that is not finite."""
        return comparison_json(self)

    def write(self, path: Path | str, *, force: bool = False) -> None:
        """The same as a JSON file."""
        write_text(Path(path), json.dumps(self.to_json(), indent=2) + "\n", force=force)


def diff(a: Path | str, b: Path | str, *, options: DiffOptions | None = None) -> Comparison:
    """In what two model files differ, by name: knobs, stages, inputs and outputs, nodes, and the values of tensors.

    a and b: paths, or the bundled seed's name. Raises UserError where a file is not there or cannot be read, or neither
    model has an input that a shape is given for.
    """
    given = (options or DiffOptions()).inputs
    raws = tuple(_load(seeds.find(path)) for path in (a, b))
    known = {value.name for raw in raws for value in free_inputs(raw.proto)}
    for name in given if isinstance(given, Mapping) else ():
        if name not in known:
            raise UserError(f"--input names '{name}', but the inputs are: {', '.join(sorted(known))}")
    first, second = (_side(raw, named_shapes(given, [value.name for value in free_inputs(raw.proto)])) for raw in raws)
    return compare(first, second)


def compare(a: DiffSide, b: DiffSide) -> Comparison:
    """The differences of two models, each list in the order of A, then of B; changed tensors by how much they
    changed.
    """
    return Comparison(
        a,
        b,
        model=_differences(_beside(a.proto), _beside(b.proto)),
        knobs=_both(a, b, lambda facts: facts.knobs),
        stages=_both(a, b, lambda facts: facts.stages),
        blocks=_both(a, b, lambda facts: facts.blocks),
        inputs=_ends(free_inputs(a.proto), free_inputs(b.proto)),
        outputs=_ends(a.proto.graph.output, b.proto.graph.output),
        nodes=_nodes(a.proto.graph, b.proto.graph),
        tensors=_tensors(a.tensors, b.tensors),
    )


# --- reading ---


def _load(path: Path) -> files.Raw:
    try:
        return files.load(path)
    except RefusedModel as error:
        raise UserError(f"{error}; there is nothing to compare") from error


def _side(raw: files.Raw, inputs: Mapping[str, Shape]) -> DiffSide:
    names = (tensor.name for tensor in raw.proto.graph.initializer)
    tensors = dict(zip(names, raw.arrays, strict=True))
    for node in raw.proto.graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.type == AttributeProto.TENSOR and node.output:
                tensors[node.output[0]] = onnx.numpy_helper.to_array(attribute.t)
    own = {value.name for value in free_inputs(raw.proto)}
    try:
        sizes = {name: shape for name, shape in inputs.items() if name in own}
        facts = _facts(analyse_model(files.of_raw(raw, sizes), sizes or None))
    except RefusedModel as error:
        return DiffSide(
            path=raw.path,
            sha256=raw.sha256,
            proto=raw.proto,
            tensors=tensors,
            facts=None,
            refused=str(error).removeprefix(f"'{raw.path}': "),
        )
    return DiffSide(path=raw.path, sha256=raw.sha256, proto=raw.proto, tensors=tensors, facts=facts, refused=None)


def _facts(analysis: Analysis) -> NetworkFacts:
    image = image_row(analysis.image)
    size = FREE if analysis.image.free else image["value"]
    sizes: dict[str, object] = {
        IMAGE: size,
        CHANNELS: analysis.colours.value,
        BATCH: batch_text(analysis.batching.value),
    }
    return NetworkFacts(
        analysis.cost.params,
        analysis.cost.macs,
        {**sizes, **{knob.name: knob.value for knob in analysis.knobs.values()}},
        _rows(stage_rows(analysis)),
        _rows(block_rows(analysis)),
    )


def _rows(rows: Sequence[Json]) -> dict[str, object]:
    return {
        str(row["name"]): {key: value for key, value in row.items() if key not in ("name", "nodes")} for row in rows
    }


def _beside(proto: onnx.ModelProto) -> dict[str, object]:
    """What the file says beside its graph, documentation apart."""
    facts: dict[str, object] = {"IR version": proto.ir_version}
    facts |= {f"operator set {entry.domain or 'ai.onnx'}": entry.version for entry in proto.opset_import}
    facts |= {f"metadata {key}": value for key, value in metadata(proto).items()}
    return facts | {f"function {f.domain}::{f.name}": f.SerializeToString(deterministic=True) for f in proto.functions}


# --- knobs, stages, ends ---


def _both(a: DiffSide, b: DiffSide, rows: Callable[[NetworkFacts], Mapping[str, object]]) -> tuple[Difference, ...]:
    """The differences of two analyses; none where one is missing, which `refused` says."""
    return () if a.facts is None or b.facts is None else _differences(rows(a.facts), rows(b.facts))


def _differences(a: Mapping[str, object], b: Mapping[str, object]) -> tuple[Difference, ...]:
    names = (*a, *(name for name in b if name not in a))
    return tuple(Difference(name, a.get(name), b.get(name)) for name in names if a.get(name) != b.get(name))


def _ends(a: Sequence[onnx.ValueInfoProto], b: Sequence[onnx.ValueInfoProto]) -> tuple[Difference, ...]:
    """By name: type and shape; and the order where the names are the same."""
    first, second = ({value.name: signature(value, names=True) for value in side} for side in (a, b))
    found = _differences(first, second)
    if set(first) == set(second) and list(first) != list(second):
        found += (Difference("(order)", ", ".join(first), ", ".join(second)),)
    return found


# --- nodes ---


def _nodes(a: onnx.GraphProto, b: onnx.GraphProto) -> Compared[NodeChange]:
    first, second = _by_name(a), _by_name(b)
    common = [name for name in first if name in second]
    changes = [NodeChange(name, _op(second[name]), tuple(_node_changes(first[name], second[name]))) for name in common]
    return Compared(
        tuple(Named(name, _op(node)) for name, node in second.items() if name not in first),
        tuple(Named(name, _op(node)) for name, node in first.items() if name not in second),
        tuple(change for change in changes if change.differences),
        sum(not change.differences for change in changes),
    )


def _by_name(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """The nodes by name, or by their first output where they have no name of their own."""
    counts = Counter(node.name for node in graph.node)
    named: dict[str, onnx.NodeProto] = {}
    for k, node in enumerate(graph.node):
        own = (
            node.name
            if counts[node.name] == 1 and node.name
            else next((f"→ {name}" for name in node.output if name), "")
        )
        named[own if own and own not in named else f"(node {k})"] = node
    return named


def _op(node: onnx.NodeProto) -> str:
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"


def _node_changes(a: onnx.NodeProto, b: onnx.NodeProto) -> Iterator[Difference]:
    if _op(a) != _op(b):
        yield Difference("op", _op(a), _op(b))
    first, second = _attributes(a), _attributes(b)
    for name in (*first, *(name for name in second if name not in first)):
        one, two = first.get(name), second.get(name)
        if (
            one is None
            or two is None
            or one.SerializeToString(deterministic=True) != two.SerializeToString(deterministic=True)
        ):
            yield Difference(name, one and _value(one), two and _value(two))
    for kind, here, there in (("input", a.input, b.input), ("output", a.output, b.output)):
        if len(here) != len(there):
            yield Difference(f"{kind}s", list(here), list(there))
            continue
        for k, (one, two) in enumerate(zip(here, there, strict=True)):
            if one != two:
                yield Difference(f"{kind} {k}", one, two)


def _attributes(node: onnx.NodeProto) -> dict[str, AttributeProto]:
    """By name; the tensor of a Constant is compared among the tensors."""
    of_constant = node.op_type == "Constant"
    return {entry.name: entry for entry in node.attribute if not (of_constant and entry.type == AttributeProto.TENSOR)}


def _value(attribute: AttributeProto) -> object:
    """An attribute's value for people and for JSON; tensors and graphs in a word."""
    if attribute.type == AttributeProto.TENSOR:
        return f"tensor {TensorProto.DataType.Name(attribute.t.data_type).lower()} {typed(attribute.t.dims)}"
    if attribute.type not in PLAIN:
        return f"{AttributeProto.AttributeType.Name(attribute.type).lower()}"
    value = onnx.helper.get_attribute_value(attribute)
    return (
        [_scalar(entry) for entry in value]
        if isinstance(value, Sequence) and not isinstance(value, bytes)
        else _scalar(value)
    )


PLAIN = {getattr(AttributeProto, kind) for kind in ("FLOAT", "INT", "STRING", "FLOATS", "INTS", "STRINGS")}


def _scalar(value: bytes | float) -> str | float:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value if np.isfinite(value) else str(value)  # JSON has no infinity


# --- tensors ---


def _tensors(a: Mapping[str, Array], b: Mapping[str, Array]) -> Compared[TensorChange]:
    common = [name for name in a if name in b]
    changes = [change for name in common if (change := _tensor_change(name, a[name], b[name])) is not None]
    return Compared(
        tuple(Named(name, _kind(array)) for name, array in b.items() if name not in a),
        tuple(Named(name, _kind(array)) for name, array in a.items() if name not in b),
        tuple(sorted(changes, key=lambda change: -float("inf") if change.relative is None else -change.relative)),
        len(common) - len(changes),
    )


def _tensor_change(name: str, a: Array, b: Array) -> TensorChange | None:
    """How b differs from a; None where it does not."""
    kinds = _kind(a), _kind(b)
    if a.shape == b.shape and a.dtype == b.dtype and np.array_equal(a, b):
        return None
    if a.shape != b.shape or "O" in (a.dtype.kind, b.dtype.kind) or a.dtype.kind == "c" or b.dtype.kind == "c":
        return TensorChange(name, *kinds, None, None)
    largest, spread = _measure(a.reshape(-1), b.reshape(-1))
    if not largest and a.dtype == b.dtype:  # NaN in the same places
        return None
    return TensorChange(name, *kinds, largest, largest / spread)


def _measure(a: Array, b: Array) -> tuple[float, float]:
    """max |b − a| and the spread of a, in double precision and in pieces."""
    largest, low, high = 0.0, np.inf, -np.inf
    for start in range(0, a.size, CHUNK):
        one, two = a[start : start + CHUNK].astype(np.float64), b[start : start + CHUNK].astype(np.float64)
        same = (one == two) | (np.isnan(one) & np.isnan(two))
        moved = np.abs(two[~same] - one[~same])
        if moved.size:
            largest = max(largest, float(np.nan_to_num(moved, nan=np.inf, posinf=np.inf).max()))
        finite = one[np.isfinite(one)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return largest, (high - low if high > low else abs(high) if np.isfinite(high) else 0.0) or 1.0


def _kind(array: Array) -> str:
    return f"{'text' if array.dtype.kind == 'O' else array.dtype.name} {typed(array.shape)}"


# --- JSON ---


def comparison_json(found: Comparison) -> Json:
    """All differences; None stands for what one side lacks, and for a change that is not finite."""
    return {
        "equal": found.equal,
        "a": _side_json(found.a),
        "b": _side_json(found.b),
        **{
            kind: [vars(row) for row in getattr(found, kind)]
            for kind in ("knobs", "stages", "blocks", "inputs", "outputs")
        },
        "model": [{"name": row.name, "a": printable_value(row.a), "b": printable_value(row.b)} for row in found.model],
        "nodes": {
            "equal": found.nodes.equal,
            "added": [{"name": node.name, "op": node.what} for node in found.nodes.added],
            "removed": [{"name": node.name, "op": node.what} for node in found.nodes.removed],
            "changed": [
                {"name": n.name, "op": n.op, "changes": [vars(row) for row in n.differences]}
                for n in found.nodes.changed
            ],
        },
        "tensors": {
            "equal": found.tensors.equal,
            "added": [{"name": tensor.name, "type": tensor.what} for tensor in found.tensors.added],
            "removed": [{"name": tensor.name, "type": tensor.what} for tensor in found.tensors.removed],
            "changed": [
                {"name": t.name, "a": t.a, "b": t.b, "max": _finite(t.largest), "relative": _finite(t.relative)}
                for t in found.tensors.changed
            ],
        },
    }


def _side_json(side: DiffSide) -> Json:
    facts = side.facts
    return {
        "model": str(side.path),
        "sha256": side.sha256,
        "params": None if facts is None else facts.params,
        "macs": None if facts is None else facts.macs,
        "refused": side.refused,
    }


def printable_value(value: object) -> object:
    """The value, bytes as how many they are."""
    return f"{len(value)} bytes" if isinstance(value, bytes) else value


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None
