"""ONNX files: `read` one into a graph, `write` a graph as one, and nothing that the graph type does not know of is lost
in between.

onnx-graphsurgeon drops documentation, metadata, quantisation annotations and a few more; `Model.envelope` keeps them,
by name. A file is untrusted: what it claims is checked before it is believed, and a message says what is wrong.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import onnx_graphsurgeon as gs
from google.protobuf.message import DecodeError
from onnx import AttributeProto, TensorProto

from fnatool import seeds
from fnatool.files import branching, functions, tensors, wire
from fnatool.files.atomic import replacing, require_writable
from fnatool.files.importing import READABLE, import_graph, recorded_graph
from fnatool.files.interface import Inputs, free_inputs, named_shapes
from fnatool.files.tensors import Array
from passes.check.finding import errors
from passes.check.message import check_proto
from passes.errors import RefusedModel, UserError
from passes.graph.order import Order, order
from passes.graph.view import Node, records, whole_records
from passes.nearest import nearest

__all__ = ["Model", "Raw", "import_graph", "load", "of_raw", "read", "require_writable", "with_metadata", "write"]

TOLERATED = {"unsorted"}  # an error by the standard that reading repairs
POINTER = b"version https://git-lfs.github.com/spec/"
CHUNK = 1 << 20
ALIGNMENT = 4096  # of external data, so that runtimes can map it


@dataclass(frozen=True)
class Raw:
    """A file as it is: nothing repaired, nothing refused but what cannot be read at all."""

    proto: onnx.ModelProto  # without the large weights; its initializers keep names, types and dims
    arrays: tuple[Array, ...]  # the values of proto.graph.initializer, in its order
    sha256: str  # hex, of the bytes of the file and then of its external data files, by name
    path: Path
    data: tuple[Path, ...]  # external data files

    @property
    def external(self) -> bool:
        return bool(self.data)


@dataclass(frozen=True)
class Model:
    """A graph and all that its file says beside it. A changed one is `dataclasses.replace(model, graph=changed)`."""

    graph: gs.Graph  # every node has a unique name; every constant an array
    envelope: onnx.ModelProto  # documentation, metadata, versions, annotations by name; no tensor data
    sha256: str
    path: Path
    data: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()  # what reading changed

    @property
    def external(self) -> bool:
        """The weights lie in files of their own, and will where this is written."""
        return bool(self.data)


# --- reading ---


def read(path: Path | str, inputs: Inputs = None, *, tolerated: Collection[str] = ()) -> Model:
    """The model in the file at path, ready for the passes; inputs: shapes, where they decide which branch of an If is
    taken.

    tolerated: codes of errors that who reads will mend. Raises UserError where there is no such file, RefusedModel
    where it is broken or has what the passes do not handle.
    """
    return _model(load(path), inputs, tolerated)


def of_raw(raw: Raw, inputs: Inputs = None) -> Model:
    """The same from what `load` gave, which stays as it is."""
    proto = onnx.ModelProto()
    proto.CopyFrom(raw.proto)
    return _model(replace(raw, proto=proto), inputs, ())


def _model(raw: Raw, inputs: Inputs, tolerated: Collection[str]) -> Model:
    """The message of raw is changed."""
    with _naming(raw.path):
        names = [tensor.name for tensor in raw.proto.graph.initializer]
        sizes = named_shapes(inputs, [value.name for value in free_inputs(raw.proto)])
        proto = functions.inlined(raw.proto)
        arrays = dict(zip(names, raw.arrays, strict=True))
        notes = [f"inlined {len(raw.proto.functions)} local functions"] if raw.proto.functions else []
        proto, decided = branching.without_decided_branches(proto, arrays, sizes)
        notes += decided
        found = order(proto.graph)
        _require_sound(proto, found, tolerated)
        notes += _name_nodes(proto.graph, found.nodes)
        envelope = _envelope(proto)
        graph = recorded_graph(proto, arrays, found)
    if not found.is_given:
        notes.append("sorted the nodes topologically")
    used = _constants(graph)
    unused = [name for name in arrays if name not in used]
    if unused:
        notes.append(
            f"dropped {len(unused)} unused initializers ({', '.join(unused[:3])}{' …' if len(unused) > 3 else ''})"
        )
    return Model(graph=graph, envelope=envelope, sha256=raw.sha256, path=raw.path, data=raw.data, notes=tuple(notes))


class _naming:
    """Within it, a RefusedModel says which file it is about."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, RefusedModel):
            raise RefusedModel(f"'{self.path}': {error}") from error


def load(path: Path | str) -> Raw:
    """The file at path with its weights as arrays, each byte read into memory once. Raises UserError and RefusedModel
    as read does.
    """
    path = Path(path)
    with _open(path) as file, _naming(path):
        try:
            slim = wire.slim(file)
            proto = onnx.ModelProto.FromString(slim.message)
        except (wire.Malformed, DecodeError) as error:
            file.seek(0)
            if file.read(len(POINTER)) == POINTER:
                raise RefusedModel(
                    "this is no ONNX model but a pointer of Git LFS to one: 'git lfs pull' fetches the model"
                ) from error
            raise RefusedModel(
                f"this is not an ONNX model, or not a whole one: {error}; copy or export it again"
            ) from error
        if not proto.HasField("graph"):
            raise RefusedModel("this is not an ONNX model: it has no graph; copy or export it again")
        functions.require_few(proto)
        _require_text(proto)
        if proto.graph.sparse_initializer:
            name = proto.graph.sparse_initializer[0].values.name
            raise RefusedModel(f"initializer '{name}' is sparse, which is not supported; save it dense")
        folder = path.parent
        data = _external_files(proto, folder)
        arrays = tuple(
            tensors.to_array(t, w, folder) for t, w in zip(proto.graph.initializer, slim.weights, strict=True)
        )
        _load_attributes(proto.graph, folder)
        return Raw(proto, arrays, _sha256(slim.digest, data), path, data)


def _require_text(message: wire.Message) -> None:
    """Every name and text in message is UTF-8; protobuf hands others over as bytes, which surprise whoever meets them
    first.
    """
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if isinstance(value, Iterable) else (value,):
                _require_text(inner)
        elif field.type == field.TYPE_STRING:
            for text in (value,) if isinstance(value, str | bytes) else value:
                if isinstance(text, bytes):
                    raise RefusedModel(
                        f"the {field.name} {text[:40]!r} is not UTF-8 text; the file is damaged, copy or export "
                        "it again"
                    )


def _open(path: Path) -> BinaryIO:
    try:
        kind = path.stat().st_mode
    except FileNotFoundError:
        meant = nearest(path.name.removesuffix(".onnx"), seeds.NAMES)
        hint = f"; did you mean '{meant}', the bundled seed?" if meant else "; give the path of an ONNX file"
        raise UserError(f"'{path}' does not exist{hint}") from None
    except NotADirectoryError:
        raise UserError(f"'{path}' does not exist: a part of it is not a folder") from None
    if stat.S_ISDIR(kind):
        raise UserError(f"'{path}' is a folder; give the ONNX file in it")
    if not stat.S_ISREG(kind):
        raise UserError(f"'{path}' is not a regular file; give the path of an ONNX file")
    try:
        return path.open("rb")
    except PermissionError:
        raise UserError(f"'{path}' may not be read; change its permissions") from None


def _external_files(proto: onnx.ModelProto, folder: Path) -> tuple[Path, ...]:
    inside = [a.t for node in proto.graph.node for a in node.attribute if a.type == AttributeProto.TENSOR]
    external = [t for t in (*proto.graph.initializer, *inside) if t.data_location == TensorProto.EXTERNAL]
    return tuple(sorted({tensors.external_file(tensor, folder) for tensor in external}))


def _load_attributes(graph: onnx.GraphProto, folder: Path) -> None:
    """Every tensor in an attribute is what it says, and holds its data itself."""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                values = tensors.to_array(attribute.t, None, folder)
                if attribute.t.data_location == TensorProto.EXTERNAL:
                    attribute.t.CopyFrom(onnx.numpy_helper.from_array(values, attribute.t.name))


def _sha256(digest: hashlib._Hash, data: Sequence[Path]) -> str:
    """Of what the digest knows and the files after it."""
    for path in data:
        with path.open("rb") as other:
            _feed(digest, other)
    return digest.hexdigest()


def _feed(digest: hashlib._Hash, file: BinaryIO) -> None:
    while chunk := file.read(CHUNK):
        digest.update(chunk)


def _require_sound(proto: onnx.ModelProto, found: Order, tolerated: Collection[str]) -> None:
    """The names fit together and the passes know every construct. Raises RefusedModel with the first problem and the
    number of others.
    """
    for node in proto.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g") or attribute.graphs:
                known = (
                    "; its condition depends on the data, or on a free size that --input can give"
                    if node.op_type == "If"
                    else ""
                )
                raise RefusedModel(
                    f"{_shown(node)} has a subgraph, which cannot be remapped{known}; export the network "
                    f"without {node.op_type}"
                )
            if attribute.ref_attr_name or attribute.type not in READABLE:
                raise RefusedModel(
                    f"attribute '{attribute.name}' of {_shown(node)} is of a kind that is not supported; export "
                    "without it"
                )
    for value in proto.graph.input:
        if (kind := value.type.WhichOneof("value")) not in (None, "tensor_type"):
            what = str(kind).removesuffix("_type").replace("_", " ")
            raise RefusedModel(f"input '{value.name}' is of kind {what}; only tensors are supported")
    wrong = [finding for finding in errors(check_proto(proto, found)) if finding.code not in {*TOLERATED, *tolerated}]
    if wrong:
        more = f" ({len(wrong) - 1} more; 'fnatool check' lists all)" if len(wrong) > 1 else ""
        fix = f"; {wrong[0].fix}" if wrong[0].fix else ""
        raise RefusedModel(f"{wrong[0].where}: {wrong[0].message}{fix}{more}")


def _shown(node: onnx.NodeProto) -> str:
    return f"{node.op_type} '{node.name or ', '.join(node.output)}'"


def _name_nodes(graph: onnx.GraphProto, topological: Iterable[int]) -> list[str]:
    """Every node has a name of its own: the first keeps it, the nameless get `<Op>_<k>` in topological order. Returns
    notes.
    """
    taken = {node.name for node in graph.node if node.name}
    seen: set[str] = set()
    counts: dict[str, int] = {}
    renamed: list[str] = []
    for index in topological:
        node = graph.node[index]
        if node.name and node.name not in seen:
            seen.add(node.name)
            continue
        if node.name:
            renamed.append(node.name)
        stem = node.name or node.op_type
        k = counts.get(stem, 0)
        while f"{stem}_{k}" in taken:
            k += 1
        counts[stem] = k + 1
        node.name = f"{stem}_{k}"
        taken.add(node.name)
        seen.add(node.name)
    return (
        [f"renamed {len(renamed)} nodes that shared a name ({', '.join(sorted(set(renamed))[:3])})"] if renamed else []
    )


def _envelope(proto: onnx.ModelProto) -> onnx.ModelProto:
    """All of proto but tensor data and what the graph type keeps: of nodes and initializers the name and what is
    documented.
    """
    envelope = onnx.ModelProto()
    wire.copy_fields(proto, envelope, leave=("graph", "functions", "training_info"))
    wire.copy_fields(proto.graph, envelope.graph, leave=("node", "initializer", "sparse_initializer"))
    for node in proto.graph.node:
        stub = envelope.graph.node.add()
        wire.copy_fields(node, stub, leave=("input", "output", "op_type", "domain", "attribute"))
        # An empty list does not tell its type to the exporter.
        stub.attribute.extend(a for a in node.attribute if a.type in LISTS and not (a.ints or a.floats or a.strings))
    for tensor in proto.graph.initializer:
        documented = envelope.graph.initializer.add(name=tensor.name, metadata_props=tensor.metadata_props)
        if tensor.HasField("doc_string"):
            documented.doc_string = tensor.doc_string
    return envelope


LISTS = {AttributeProto.FLOATS, AttributeProto.INTS, AttributeProto.STRINGS}


def _constants(graph: gs.Graph) -> dict[str, gs.Constant]:
    """The constants that graph uses, by name, in the order of use."""
    return records(graph)[1]


# --- writing ---


def data_path(path: Path) -> Path:
    """Where the weights of a model at path lie if they are external."""
    return path.with_name(f"{path.name}.data")


def with_metadata(model: Model, metadata: Mapping[str, str | None], origin: Mapping[str, str] | None = None) -> Model:
    """The model as its file would be read, with metadata added to its own; origin (new name → old name) lends new nodes
    documentation.

    What is None goes. The model given stays as it is.
    """
    envelope = onnx.ModelProto()
    envelope.CopyFrom(model.envelope)
    del envelope.metadata_props[:]
    for key, value in ({entry.key: entry.value for entry in model.envelope.metadata_props} | dict(metadata)).items():
        if value is not None:
            envelope.metadata_props.add(key=key, value=value)
    stubs = {stub.name: stub for stub in model.envelope.graph.node} if origin else {}
    for new, old in (origin or {}).items():
        if old in stubs and new not in stubs:
            stub = envelope.graph.node.add()
            stub.CopyFrom(stubs[old])
            stub.name = new
    known = {stub.name for stub in envelope.graph.initializer}
    for name in _constants(model.graph):  # their order is that of the file, also where the graph changes again
        if name not in known:
            envelope.graph.initializer.add(name=name)
    return replace(model, envelope=envelope)


def write(
    model: Model,
    path: Path | str,
    *,
    force: bool = False,
    forbid: Iterable[Path] = (),
    metadata: Mapping[str, str] | None = None,
    origin: Mapping[str, str] | None = None,
    beside: Mapping[Path, str] | None = None,
) -> None:
    """The file at path holds model, with metadata added to the model's own; origin (new name → old name) lends new
    nodes documentation.

    The file that model was read from is never overwritten, nor any in forbid; another existing one only with force.
    External data goes into one file beside it. The files in `beside` hold their texts. All are complete or, after any
    failure, as they were before. Raises UserError and OSError.
    """
    path = Path(path)
    weights = _weights(model)
    separate = model.external or sum(weight.size for weight in weights) > wire.LIMIT - CHUNK
    blob = data_path(path)
    texts = dict(beside or {})
    targets = (path, *([blob] if separate else ()), *texts)
    for target in targets:
        require_writable(target, force=force, forbid=(*forbid, model.path, *model.data))
    proto = _proto(model, metadata or {}, origin or {})
    with replacing(*targets, force=force) as (file, *others):
        for other, text in zip(others[len(others) - len(texts) :], texts.values(), strict=True):
            other.write(text.encode())
        wire.write(file, proto, _write_data(others[0], blob.name, weights) if separate else weights)


def _weights(model: Model) -> list[wire.WireInitializer]:
    """The initializers: those of the file in its order, then the new ones in order of use."""
    constants = _constants(model.graph)
    stubs = {stub.name: stub for stub in model.envelope.graph.initializer}
    names = [name for name in stubs if name in constants]
    names += [name for name in constants if name not in stubs]
    return [tensors.to_weight(name, constants[name].values, stubs.get(name)) for name in names]


def _write_data(file: BinaryIO, location: str, weights: Iterable[wire.WireInitializer]) -> list[wire.WireInitializer]:
    """The large weights are in file; returned are all of them as the model then holds them."""
    result: list[wire.WireInitializer] = []
    for weight in weights:
        data = weight.data() if tensors.is_large(weight) else None
        if data is None:
            result.append(weight)
            continue
        file.write(bytes(-file.tell() % ALIGNMENT))
        result.append(wire.WireInitializer(tensors.outside(weight, location, file.tell()), lambda: None, 0))
        file.write(data.data)
    return result


def _proto(model: Model, metadata: Mapping[str, str], origin: Mapping[str, str]) -> onnx.ModelProto:
    """The message of model without initializers."""
    graph, old = model.graph, model.envelope
    proto = onnx.ModelProto()
    wire.copy_fields(old, proto, leave=("graph", "opset_import", "metadata_props"))
    versions = {entry.domain: entry.version for entry in (*old.opset_import, *(graph.import_domains or ()))}
    nodes = list(_written(graph))
    versions |= {domain: 1 for _, domain in nodes if domain and domain not in versions}
    proto.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in versions.items())
    merged = {entry.key: entry.value for entry in old.metadata_props} | dict(metadata)
    for key, value in merged.items():
        proto.metadata_props.add(key=key, value=value)
    wire.copy_fields(
        old.graph,
        proto.graph,
        leave=("node", "initializer", "input", "output", "value_info", "quantization_annotation"),
    )
    stubs = {stub.name: stub for stub in old.graph.node}
    for node, domain in nodes:
        _write_node(node, domain, stubs.get(node.name) or stubs.get(origin.get(node.name, "")), proto.graph.node.add())
    _add_values(model, proto.graph)
    return proto


def _written(graph: gs.Graph) -> Iterator[tuple[Node, str | None]]:
    """The nodes, with their operator as the file writes it, and the domain where one is written."""
    known = whole_records(graph)
    if known is None:
        for node in graph.nodes:
            names = ([tensor.name for tensor in node.inputs], [tensor.name for tensor in node.outputs])
            yield Node(node.name, node.op, tuple(names[0]), tuple(names[1]), node.attrs), node.domain
        return
    for node in known[0]:
        domain, _, op = node.op.rpartition("::")
        yield (replace(node, op=op), domain) if domain else (node, None)


def _write_node(node: Node, domain: str | None, stub: onnx.NodeProto | None, proto: onnx.NodeProto) -> None:
    """The message, which is empty, says what the node is and what is documented of it."""
    proto.op_type = node.op
    proto.input.extend(node.inputs)
    proto.output.extend(node.outputs)
    empty = {attribute.name: attribute for attribute in stub.attribute} if stub else {}
    for name, value in node.attrs.items():
        if type(value) is list and value and all(type(each) is int for each in value):
            # as below, which looks through all that it might be
            proto.attribute.add(name=name, type=AttributeProto.INTS, ints=value)
        else:
            proto.attribute.append(_attribute(name, value, empty.get(name)))
    if stub is not None:
        wire.copy_fields(stub, proto, leave=("attribute", "name"))
    proto.name = node.name
    if domain is not None:
        proto.domain = domain


AttributeValue = float | int | str | Sequence[float] | Sequence[int] | Sequence[str]  # or a gs.Constant


def _attribute(name: str, value: AttributeValue | gs.Constant, empty: AttributeProto | None) -> AttributeProto:
    if isinstance(value, gs.Constant):
        return onnx.helper.make_attribute(name, onnx.numpy_helper.from_array(value.values, value.name))
    if isinstance(value, list | tuple) and not value:
        return onnx.helper.make_attribute(name, [], attr_type=empty.type if empty is not None else AttributeProto.INTS)
    return onnx.helper.make_attribute(name, value)


def _add_values(model: Model, graph: onnx.GraphProto) -> None:
    """Inputs, outputs, intermediate values and annotations; what exists no longer is left out."""
    old, new = model.envelope.graph, model.graph
    known = {value.name: value for value in (*old.value_info, *old.input, *old.output)}
    constants = _constants(new)
    inputs = {tensor.name: tensor for tensor in new.inputs}
    # A file may list initializers as inputs too: defaults that a caller may override. Before IR 4 it must.
    listed = [value.name for value in old.input if value.name in inputs or value.name in constants]
    listed += [name for name in inputs if name not in listed]
    if model.envelope.ir_version < 4:
        seen = set(listed)
        listed += [name for name in constants if name not in seen]
    graph.input.extend(_value(constants[name] if name in constants else inputs[name], known) for name in listed)
    graph.output.extend(_value(tensor, known) for tensor in new.outputs)
    ends = {*listed, *(tensor.name for tensor in new.outputs)}
    known_nodes = whole_records(new)
    inner: dict[str, gs.Tensor] = {}  # where records are all there is, no shape within is known
    if known_nodes is None:
        inner = {
            tensor.name: tensor
            for node in new.nodes
            for tensor in node.outputs
            if tensor.name and tensor.name not in ends
        }
    described = [value.name for value in old.value_info]  # torch's exporter describes its initializers too
    listed = list(dict.fromkeys(name for name in (*described, *inner) if name in inner or name in constants))
    values = [inner[name] if name in inner else constants[name] for name in listed]
    graph.value_info.extend(
        _value(tensor, known) for tensor in values if tensor.dtype is not None and tensor.shape is not None
    )
    names = {*ends, *inner, *constants, *(name for node in (known_nodes or [()])[0] for name in node.outputs)}
    graph.quantization_annotation.extend(entry for entry in old.quantization_annotation if entry.tensor_name in names)


def _value(tensor: gs.Tensor, known: Mapping[str, onnx.ValueInfoProto]) -> onnx.ValueInfoProto:
    """The type and shape of tensor, with the documentation and axis denotations that the file has for its name."""
    value = onnx.ValueInfoProto()
    if tensor.name in known:
        value.CopyFrom(known[tensor.name])
    value.name = tensor.name
    kind = value.type.WhichOneof("value")
    if tensor.dtype is None or kind not in (None, "tensor_type"):  # sequences and optionals: as the file says
        return value
    fresh = onnx.helper.make_tensor_type_proto(_element_type(tensor.dtype), tensor.shape)
    if not value.type.tensor_type.HasField("shape") or not fresh.tensor_type.HasField("shape"):
        value.type.CopyFrom(fresh)
        return value
    value.type.tensor_type.elem_type = fresh.tensor_type.elem_type
    old, new = value.type.tensor_type.shape, fresh.tensor_type.shape
    if len(old.dim) != len(new.dim):
        old.CopyFrom(new)
        return value
    for axis, size in zip(old.dim, new.dim, strict=True):
        denotation = axis.denotation
        axis.CopyFrom(size)
        if denotation:
            axis.denotation = denotation
    return value


def _element_type(dtype: np.dtype[np.generic] | int) -> int:
    return dtype if isinstance(dtype, int) else onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
