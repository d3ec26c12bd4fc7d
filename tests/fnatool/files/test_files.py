"""What a file says survives reading and writing; what a file gets wrong is one clear message; an output is whole or
absent.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx.external_data_helper
import onnx.numpy_helper
import onnx_graphsurgeon as gs
import pytest
from onnx import TensorProto
from tiny import NET, WEIGHTS, model, net, save

from fnatool import seeds
from fnatool.files import model as files
from fnatool.files.atomic import write_text
from passes.errors import RefusedModel, UserError

# --- round trip ---


def round_trip(proto: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    files.write(files.read(save(proto, folder / "in.onnx")), folder / "out.onnx")
    return onnx.load(folder / "out.onnx")


def test_the_bundled_seed_is_written_back_byte_for_byte(tmp_path: Path) -> None:
    seed = files.read(seeds.DEFAULT)
    files.write(seed, tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() == seeds.DEFAULT.read_bytes()
    assert seed.notes == ()


def test_arrays_are_the_weights_of_the_file(tmp_path: Path) -> None:
    proto = net(w=(8, 3, 9, 9))  # large enough to be read past protobuf
    graph = files.read(save(proto, tmp_path / "a.onnx")).graph
    expected = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    found = {t.name: t.values for node in graph.nodes for t in node.inputs if isinstance(t, gs.Constant)}
    assert found.keys() == expected.keys()
    for name, values in found.items():
        np.testing.assert_array_equal(values, expected[name])


def test_documentation_and_metadata_of_everything_survive(tmp_path: Path) -> None:
    proto = net()
    proto.doc_string, proto.domain, proto.model_version, proto.producer_name, proto.producer_version = (
        "doc",
        "d",
        7,
        "p",
        "1.2",
    )
    proto.metadata_props.add(key="k", value="v")
    proto.opset_import.add(domain="com.example", version=3)
    graph = proto.graph
    graph.doc_string = "graph doc"
    graph.metadata_props.add(key="g", value="1")
    for index, node in enumerate(graph.node):
        node.name, node.doc_string = f"n{index}", f"doc {index}"
        node.metadata_props.add(key="scope", value=f"layer{index}")
    graph.input[0].doc_string = "an image"
    graph.input[0].type.tensor_type.shape.dim[1].denotation = "DATA_CHANNEL"
    graph.output[0].metadata_props.add(key="o", value="2")
    graph.value_info.append(onnx.helper.make_tensor_value_info("c", TensorProto.FLOAT, ["N", 8, 8, 8], "inner doc"))
    graph.initializer[0].doc_string = "kernel"
    graph.initializer[0].metadata_props.add(key="i", value="3")
    graph.quantization_annotation.add(tensor_name="c").quant_parameter_tensor_names.add(
        key="SCALE_TENSOR", value="scale"
    )
    assert round_trip(proto, tmp_path) == proto


def test_a_clone_gets_the_documentation_of_its_origin_and_metadata_is_merged(tmp_path: Path) -> None:
    proto = net()
    proto.metadata_props.add(key="old", value="1")
    proto.metadata_props.add(key="changed", value="1")
    proto.graph.node[2].name = "relu"
    proto.graph.node[2].doc_string = "activation"
    read = files.read(save(proto, tmp_path / "in.onnx"))
    graph = read.graph.copy()
    pool = graph.nodes[3]
    relu = pool.inputs[0]
    twice = gs.Variable("r2", relu.dtype, relu.shape)
    graph.nodes.insert(3, gs.Node("Relu", "relu_copy", inputs=[relu], outputs=[twice]))
    pool.inputs = [twice]
    changed = dataclasses.replace(read, graph=graph)
    files.write(changed, tmp_path / "out.onnx", metadata={"changed": "2", "new": "3"}, origin={"relu_copy": "relu"})
    result = onnx.load(tmp_path / "out.onnx")
    onnx.checker.check_model(result, full_check=True)
    assert {node.name: node.doc_string for node in result.graph.node}["relu_copy"] == "activation"
    assert {entry.key: entry.value for entry in result.metadata_props} == {"old": "1", "changed": "2", "new": "3"}


@pytest.mark.parametrize(
    "dtype", [np.float16, np.float64, np.int64, np.bool_, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.int4]
)
def test_every_element_type_keeps_its_bits(dtype: type, tmp_path: Path) -> None:
    for count in (3, 3000):  # inline and apart
        array = (np.arange(count) % 5).astype(dtype)
        proto = model("g (float[3] x) => (float[3] y) { y = Relu (x) z = Identity (w) }", {"w": array})
        result = round_trip(proto, tmp_path)
        (tmp_path / "out.onnx").unlink()
        assert result.graph.initializer[0].data_type == proto.graph.initializer[0].data_type
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(result.graph.initializer[0]), array)


def test_typed_data_strings_scalars_and_empty_tensors_survive(tmp_path: Path) -> None:
    proto = model("g (float[3] x) => (float[3] y) { y = Relu (x) p = Foo (a, b, c, d) }")
    proto.graph.initializer.extend(
        [
            onnx.helper.make_tensor("a", TensorProto.FLOAT, [2], [1.5, 2.5]),
            onnx.helper.make_tensor("b", TensorProto.STRING, [2], [b"one", b"two"]),
            onnx.helper.make_tensor("c", TensorProto.INT64, [], [7]),
            onnx.helper.make_tensor("d", TensorProto.FLOAT, [0], []),
        ]
    )
    result = {t.name: onnx.numpy_helper.to_array(t) for t in round_trip(proto, tmp_path).graph.initializer}
    assert result["a"].tolist() == [1.5, 2.5]
    assert result["b"].tolist() == ["one", "two"]
    assert result["c"].shape == ()
    assert result["d"].shape == (0,)


def test_an_empty_list_attribute_and_a_constant_node_survive(tmp_path: Path) -> None:
    proto = model("g (float[3] x) => (float[3] y) { k = Constant <value = float[1] {2.0}> () y = Mul (x, k) }")
    empty = proto.graph.node[0].attribute.add(name="nothing", type=onnx.AttributeProto.FLOATS)
    result = round_trip(proto, tmp_path)
    assert empty in result.graph.node[0].attribute
    assert onnx.numpy_helper.to_array(result.graph.node[0].attribute[0].t).tolist() == [2.0]


def test_initializers_stay_inputs_where_the_file_lists_them(tmp_path: Path) -> None:
    proto = net()
    proto.ir_version = 3
    proto.graph.input.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in proto.graph.initializer
    )
    result = round_trip(proto, tmp_path)
    assert result.graph.input == proto.graph.input
    onnx.checker.check_model(result)


def test_nodes_get_unique_names_in_topological_order(tmp_path: Path) -> None:
    proto = model("g (float[3] x) => (float[3] y) { y = Relu (b) b = Relu (a) a = Relu (x) }")
    proto.graph.node[1].name = "Relu_0"
    read = files.read(save(proto, tmp_path / "a.onnx"))
    assert [node.name for node in read.graph.nodes] == ["Relu_1", "Relu_0", "Relu_2"]
    assert read.notes == ("sorted the nodes topologically",)
    for node in proto.graph.node:
        node.name = "same"
    read = files.read(save(proto, tmp_path / "a.onnx"))
    assert [node.name for node in read.graph.nodes] == ["same", "same_0", "same_1"]
    assert any("shared a name" in note for note in read.notes)


def test_unused_initializers_are_dropped_with_a_note(tmp_path: Path) -> None:
    read = files.read(save(model(NET, WEIGHTS | {"extra": (2,)}), tmp_path / "a.onnx"))
    assert read.notes == ("dropped 1 unused initializers (extra)",)


def test_an_output_that_is_no_tensor_survives(tmp_path: Path) -> None:
    proto = model("g (float[3] x) => (float[3] y) { y = Relu (x) o = Optional (y) }")
    proto.graph.output.append(onnx.helper.make_value_info("o", onnx.helper.make_optional_type_proto(FLOATS)))
    for index, node in enumerate(proto.graph.node):
        node.name = f"n{index}"
    assert round_trip(proto, tmp_path) == proto


def test_local_functions_are_inlined(tmp_path: Path) -> None:
    header = '<ir_version: 8, opset_import: ["" : 17, "local" : 1]>'
    text = """g (float[3] x) => (float[3] y) { y = local.twice (x) }
    <domain: "local", opset_import: ["" : 17]> twice (a) => (b) { c = Relu (a) b = Add (c, c) }"""
    read = files.read(save(model(text, header=header), tmp_path / "a.onnx"))
    assert [node.op for node in read.graph.nodes] == ["Relu", "Add"]
    assert read.notes == ("inlined 1 local functions",)


def test_local_functions_that_call_themselves_are_refused(tmp_path: Path) -> None:
    header = '<ir_version: 8, opset_import: ["" : 17, "local" : 1]>'
    text = """g (float[3] x) => (float[3] y) { y = local.again (x) }
    <domain: "local", opset_import: ["" : 17, "local" : 1]> again (a) => (b) { b = local.again (a) }"""
    with pytest.raises(RefusedModel, match="some of them call themselves"):
        files.read(save(model(text, header=header), tmp_path / "a.onnx"))


@pytest.mark.parametrize("where", ["then", "beside"])
def test_local_functions_that_stand_for_too_many_nodes_are_refused(where: str, tmp_path: Path) -> None:
    """Forty functions that call the next one twice: 2⁴⁰ nodes; also where the calls stand in the branches of an If."""
    imports = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("local", 1)]
    proto = model(
        "g (float[3] x) => (float[3] y) { y = local.f0 (x) }",
        header='<ir_version: 8, opset_import: ["" : 17, "local" : 1]>',
    )
    for k in range(40):
        nodes = [onnx.helper.make_node(f"f{k + 1}", [a], [b], domain="local") for a, b in (("a", "c"), ("c", "b"))]
        if where == "then":
            inner = onnx.helper.make_graph(nodes, "inner", [], [onnx.helper.make_empty_tensor_value_info("b")])
            nodes = [onnx.helper.make_node("If", ["a"], ["b"], then_branch=inner, else_branch=inner)]
        proto.functions.append(onnx.helper.make_function("local", f"f{k}", ["a"], ["b"], nodes, imports))
    proto.functions.append(
        onnx.helper.make_function("local", "f40", ["a"], ["b"], [onnx.helper.make_node("Relu", ["a"], ["b"])], imports)
    )
    start = time.process_time()
    with pytest.raises(RefusedModel, match="they stand for more than 200000 nodes"):
        files.read(save(proto, tmp_path / "a.onnx"))
    assert time.process_time() - start < 2


def test_a_graph_of_too_many_nodes_is_refused(tmp_path: Path) -> None:
    proto = model("g (float[3] x) => (float[3] y) { y = Relu (x) }")
    proto.graph.MergeFromString(b"\x0a\x00" * 200_000)
    with pytest.raises(RefusedModel, match="it has 200001 nodes; at most 200000 are supported"):
        files.read(save(proto, tmp_path / "a.onnx"))


# --- external data ---


def save_external(proto: onnx.ModelProto, path: Path) -> Path:
    onnx.save(proto, path, save_as_external_data=True, location=f"{path.name}.bin", size_threshold=0)
    return path


def test_external_data_stays_external_and_is_part_of_the_hash(tmp_path: Path) -> None:
    expected = net(w=(8, 3, 9, 9))
    source = save_external(net(w=(8, 3, 9, 9)), tmp_path / "in.onnx")
    read = files.read(source)
    files.write(read, tmp_path / "out.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.onnx", "in.onnx.bin", "out.onnx", "out.onnx.data"]
    onnx.checker.check_model(tmp_path / "out.onnx", full_check=True)
    for one, other in zip(onnx.load(tmp_path / "out.onnx").graph.initializer, expected.graph.initializer, strict=True):
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(one), onnx.numpy_helper.to_array(other))
    with (tmp_path / "in.onnx.bin").open("r+b") as file:
        file.write(b"\1")
    assert files.read(source).sha256 != read.sha256


def locate(proto: onnx.ModelProto, **entries: str) -> None:
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"location": "missing.bin"}, "is missing; copy it beside the model"),
        ({"location": "a\0b.bin"}, "is missing; copy it beside the model"),
        ({"location": "long" * 2000}, "is missing; copy it beside the model"),
        ({"location": "/etc/passwd"}, "must be a path within the model's folder"),
        ({"location": "../secret.bin"}, "must be a path within the model's folder"),
        ({"location": "link.bin"}, "leads out of the model's folder through a link"),
        ({"location": ""}, "must be a path within the model's folder"),
        ({"location": "folder"}, "is not a regular file"),
        ({"location": "data.bin", "offset": "4000"}, "needs 864 bytes at offset 4000 of 'data.bin', which has 0"),
        ({"location": "data.bin", "offset": "200"}, "needs 864 bytes at offset 200 of 'data.bin', which has 800"),
        ({"location": "data.bin", "offset": "-1"}, "impossible offset '-1'"),
        ({"location": "data.bin", "length": "5"}, "needs 864 bytes, the file has 5"),
    ],
)
def test_external_data_may_not_lie_elsewhere_or_end_early(
    entries: dict[str, str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(1000))
    inside = tmp_path / "models"
    (inside / "folder").mkdir(parents=True)
    (inside / "data.bin").write_bytes(bytes(1000))
    (inside / "link.bin").symlink_to(tmp_path / "secret.bin")
    proto = net()
    locate(proto, **entries)
    with pytest.raises(RefusedModel, match=message) as caught:
        files.read(save(proto, inside / "a.onnx"))
    assert "a.onnx" in str(caught.value)
    assert "'w'" in str(caught.value)


# --- bad input ---


def test_a_path_that_is_no_file_is_the_users_mistake(tmp_path: Path) -> None:
    for path, message in (
        (tmp_path / "no.onnx", "does not exist"),
        (tmp_path, "is a folder"),
        (Path("/dev/null"), "is not a regular file"),
        (save(net(), tmp_path / "file") / "below.onnx", "a part of it is not a folder"),
    ):
        with pytest.raises(UserError, match=message):
            files.read(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"hello, this is no model", b"\x00" * 100, b"\x0a\xff\xff\xff\xff\x0f", b"PK\x03\x04" * 20, os.urandom(500)],
)
def test_bytes_that_are_no_model_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(RefusedModel, match="not an ONNX model"):
        files.read(tmp_path / "a.onnx")


def test_a_model_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    content = net().SerializeToString()
    for length in range(0, len(content) - 4, 7):  # the last 4 bytes are the opset
        (tmp_path / "a.onnx").write_bytes(content[:length])
        with pytest.raises(RefusedModel):
            files.read(tmp_path / "a.onnx")


def with_dims(*dims: int) -> onnx.ModelProto:
    proto = net()
    del proto.graph.initializer[0].dims[:]
    proto.graph.initializer[0].dims.extend(dims)
    return proto


def with_type(kind: int) -> onnx.ModelProto:
    proto = net()
    proto.graph.initializer[0].data_type = kind
    return proto


def without_opset() -> onnx.ModelProto:
    proto = net()
    del proto.opset_import[:]
    return proto


def with_opset(version: int) -> onnx.ModelProto:
    proto = net()
    proto.opset_import[0].version = version
    return proto


def with_input(kind: onnx.TypeProto) -> onnx.ModelProto:
    proto = model("g (float[3] x) => (float[3] y) { y = Relu (x) }")
    proto.graph.input.append(onnx.helper.make_value_info("odd", kind))
    return proto


FLOATS = onnx.helper.make_tensor_type_proto(TensorProto.FLOAT, [3])


def without_nodes() -> onnx.ModelProto:
    proto = net()
    del proto.graph.node[:]
    return proto


def badly_named() -> bytes:
    return net().SerializeToString().replace(b"GlobalAveragePool", b"Global\xffveragePool")


IF = """g (bool c, float[3] x) => (float[3] y) {
    y = If (c) <then_branch = t () => (a) { a = Relu (x) }, else_branch = e () => (b) { b = Neg (x) }>
}"""

BROKEN: list[tuple[str, Callable[[], onnx.ModelProto], str]] = [
    ("huge", lambda: with_dims(2**40, 2**40), "impossible shape"),
    ("large", lambda: with_dims(2**40), "needs 4398046511104 bytes, the file has 864"),
    ("negative", lambda: with_dims(-8, 3, 3, 3), "impossible shape -8x3x3x3"),
    ("short", lambda: with_dims(8, 3, 3, 4), "shape 8x3x3x4 needs 1152 bytes, the file has 864"),
    ("type", lambda: with_type(99), "unknown element type 99"),
    ("opset", without_opset, "no version of the standard operator set"),
    ("nodes", without_nodes, "has no nodes"),
    ("control flow", lambda: model(IF), "If 'y' has a subgraph"),
    (
        "cycle",
        lambda: model("g (float[3] x) => (float[3] y) { a = Add (x, y) y = Relu (a) }"),
        "2 nodes wait for each other",
    ),
    (
        "dangling",
        lambda: model("g (float[3] x) => (float[3] y) { y = Add (x, ghost) }"),
        "it reads 'ghost', which nothing defines",
    ),
    (
        "no output",
        lambda: model("g (float[3] x) => () { y = Relu (x) }"),
        "it has no output, so nothing that it computes is seen",
    ),
    ("newer", lambda: with_opset(99), "its version 99 is newer than"),
    ("sequence", lambda: with_input(onnx.helper.make_sequence_type_proto(FLOATS)), "input 'odd' is of kind sequence"),
    ("optional", lambda: with_input(onnx.helper.make_optional_type_proto(FLOATS)), "input 'odd' is of kind optional"),
    ("duplicate", lambda: model("g (float[3] x) => (float[3] y) { y = Relu (x) y = Neg (x) }"), "2 sources define it"),
]


@pytest.mark.parametrize(("make", "message"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_a_broken_model_is_refused_with_the_reason(
    make: Callable[[], onnx.ModelProto], message: str, tmp_path: Path
) -> None:
    with pytest.raises(RefusedModel, match=message) as caught:
        files.read(save(make(), tmp_path / "a.onnx"))
    assert str(caught.value).startswith(f"'{tmp_path / 'a.onnx'}': ")


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(badly_named())
    with pytest.raises(RefusedModel, match="is not UTF-8 text"):
        files.read(tmp_path / "a.onnx")


def test_strings_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    proto = net()
    proto.graph.initializer.append(onnx.helper.make_tensor("words", TensorProto.STRING, [1], [b"\xff"]))
    with pytest.raises(RefusedModel, match="which is not UTF-8 text"):
        files.read(save(proto, tmp_path / "a.onnx"))


def test_no_memory_is_taken_for_what_is_not_there(tmp_path: Path) -> None:
    proto = with_dims(2**33)
    locate(proto, location="data.bin")
    (tmp_path / "data.bin").write_bytes(b"")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RefusedModel):
        files.read(save(proto, tmp_path / "a.onnx"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


# --- output ---


def test_an_existing_file_is_overwritten_with_force_only(tmp_path: Path) -> None:
    read = files.read(save(net(), tmp_path / "in.onnx"))
    target = tmp_path / "out.onnx"
    target.write_text("precious")
    with pytest.raises(UserError, match="pass --force"):
        files.write(read, target)
    assert target.read_text() == "precious"
    files.write(read, target, force=True)
    assert onnx.load(target).graph.node


def test_the_seed_is_never_overwritten_whatever_its_name(tmp_path: Path) -> None:
    source = save(net(), tmp_path / "in.onnx")
    other = save(net(), tmp_path / "other.onnx")
    (tmp_path / "link.onnx").symlink_to(source)
    (tmp_path / "hard.onnx").hardlink_to(source)
    read = files.read(source)
    for target in (source, tmp_path / "link.onnx", tmp_path / "hard.onnx", tmp_path / "." / "in.onnx"):
        with pytest.raises(UserError, match="never overwritten"):
            files.write(read, target, force=True)
    with pytest.raises(UserError, match="never overwritten"):
        files.write(read, other, force=True, forbid=[other])


def test_an_impossible_target_is_the_users_mistake(tmp_path: Path) -> None:
    read = files.read(save(net(), tmp_path / "in.onnx"))
    with pytest.raises(UserError, match="does not exist; create it"):
        files.write(read, tmp_path / "no" / "out.onnx")
    with pytest.raises(UserError, match="is a folder"):
        files.write(read, tmp_path)
    with pytest.raises(UserError, match="not a regular file"):
        files.write(read, Path("/dev/null"), force=True)


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("external", [False, True])
def test_a_failure_leaves_nothing_behind(
    failure: BaseException, external: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proto = net(w=(8, 3, 9, 9))
    read = files.read(save_external(proto, tmp_path / "in.onnx") if external else save(proto, tmp_path / "in.onnx"))
    before = sorted(tmp_path.iterdir())

    def fail(_: int) -> None:
        raise failure

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(failure)):
        files.write(read, tmp_path / "out.onnx")
    assert sorted(tmp_path.iterdir()) == before


def test_the_umask_decides_who_may_read_the_result(tmp_path: Path) -> None:
    read = files.read(save(net(), tmp_path / "in.onnx"))
    old = os.umask(0o027)
    try:
        files.write(read, tmp_path / "out.onnx")
    finally:
        os.umask(old)
    assert (tmp_path / "out.onnx").stat().st_mode & 0o777 == 0o640


def test_text_is_written_whole_and_not_over_another_file(tmp_path: Path) -> None:
    write_text(tmp_path / "r.json", "{}\n")
    with pytest.raises(UserError, match="exists"):
        write_text(tmp_path / "r.json", "other")
    write_text(tmp_path / "r.json", "ä", force=True)
    assert (tmp_path / "r.json").read_text(encoding="utf-8") == "ä"
    assert len(list(tmp_path.iterdir())) == 1


PROBE = """
import resource, sys
from fnatool.files import model as files
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
files.write(files.read(sys.argv[1]), sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_reading_and_writing_take_the_memory_of_the_weights_once(tmp_path: Path) -> None:
    mib = 64
    weights = {f"w{i}": (mib * 2**20 // 32,) for i in range(8)}
    text = (
        "g (float[1] x) => (float[N] y) {"
        + "".join(f"t{i + 1} = Add (t{i}, w{i}) " for i in range(8))
        + "y = Relu (t8) t0 = Relu (x) }"
    )
    source = save(model(text, weights), tmp_path / "in.onnx")
    output = subprocess.run(
        [sys.executable, "-c", PROBE, source, tmp_path / "out.onnx"], capture_output=True, text=True, check=True
    )
    assert int(output.stdout) < 1.3 * mib * 1024
