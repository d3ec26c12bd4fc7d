"""An ONNX file as a torch module and back: names, values, batch, shared weights, modes, and what is refused."""

from __future__ import annotations

import copy
import io
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime as ort
import pytest
import torch
import torch.distributed
import torch.nn.functional as F
from nets import Net, graph
from onnx import TensorProto, helper, numpy_helper
from tiny import model, save
from torch.utils._python_dispatch import TorchDispatchMode

from fnatool import nn, seeds
from fnatool.files import model as files
from fnatool.nn.keys import keys
from passes.errors import RefusedModel, UserError

TOLERANCE = 1e-5  # of the spread


def residual(batch: int | str = 1, opset: int = 17) -> onnx.ModelProto:
    """A stem, a residual block with a depthwise convolution, and a classifier."""
    net = Net(opset=opset)
    stem = net.conv_bn_relu("x", "stem", 8, 3)
    inner = net.conv_bn_relu(net.conv_bn_relu(stem, "wide", 12), "depth", 12, 3, group=0)
    net.classifier(net.relu(net.op("Add", "sum", net.conv_bn(inner, "narrow", 8), stem)))
    return net.model(batch=batch)


def loaded(proto: onnx.ModelProto, folder: Path) -> nn.Network:
    return nn.load(save(proto, folder / "m.onnx"))


def images(count: int, size: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((count, 3, size, size)).astype(np.float32))


def runtime(path: Path, *inputs: torch.Tensor) -> np.ndarray:
    """The first output in ONNX Runtime, for one sample after the other."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    rows = [
        session.run(None, {n: x[k : k + 1].numpy() for n, x in zip(names, inputs, strict=True)})[0]
        for k in range(len(inputs[0]))
    ]
    return np.concatenate(rows)


def drift(a: torch.Tensor, b: np.ndarray) -> float:
    """max |a − b| of the spread of b."""
    assert tuple(a.shape) == b.shape
    return float(np.abs(a.detach().float().numpy() - b).max() / np.ptp(b))


def train(module: torch.nn.Module, *, steps: int = 3, size: int = 8) -> torch.nn.Module:
    """A few steps of plain SGD on noise."""
    module.train()
    for step in range(steps):
        module.zero_grad()
        F.cross_entropy(module(images(4, size, step)), torch.tensor([0, 1, 2, 3])).backward()
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.grad is not None:
                    parameter -= 0.05 * parameter.grad
    return module.eval()


def initializers(path: Path) -> dict[str, bytes]:
    return {tensor.name: tensor.SerializeToString() for tensor in onnx.load(path).graph.initializer}


# --- names ---


def test_parameters_and_buffers_have_the_names_of_the_initializers(tmp_path: Path) -> None:
    proto = residual()
    module = loaded(proto, tmp_path)
    assert set(module.state_dict()) == {tensor.name for tensor in proto.graph.initializer}
    assert {name for name, _ in module.named_buffers()} == {
        name for name in module.state_dict() if name.endswith((".mean", ".var"))
    }
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_names_that_torch_cannot_have_are_marked_and_stay_apart() -> None:
    names = ["a", "a.b", "a..b", "", "%a", "float", "float.float", "/conv1/Conv.weight", "x::y", "7", "%", "a.b.c"]
    found = {name: ".".join(key) for name, key in keys(names, {"float"}).items()}
    assert len(set(found.values())) == len(names)
    assert found["/conv1/Conv.weight"] == "/conv1/Conv.weight"
    assert found["7"] == "7"
    assert found["x::y"] == "x::y"
    assert (found["a"], found["a.b"], found["a.b.c"]) == ("%a", "a.%b", "a.b.c")
    assert (found["float"], found["float.float"]) == ("%%float", "%float.%float")
    assert found["%a"] == "%%a"
    parts = [tuple(name.split(".")) for name in found.values()]
    assert not any(a != b and b[: len(a)] == a for a in parts for b in parts)


def test_a_network_with_awkward_names_loads_trains_and_saves(tmp_path: Path) -> None:
    odd = {
        "stem.w": "a",
        "wide.w": "a.b",
        "depth.w": "training",
        "narrow.w": "..",
        "fc.w": "%a",
        "fc.b": "forward.forward",
    }
    proto = residual()
    for tensor in proto.graph.initializer:
        tensor.name = odd.get(tensor.name, tensor.name)
    for node in proto.graph.node:
        node.input[:] = [odd.get(name, name) for name in node.input]
    module = loaded(proto, tmp_path)
    assert set(odd.values()) <= set(module.initializers.values())
    assert set(module.initializers) == set(module.state_dict())
    moved = torch.func.functional_call(module, {k: v + 0.1 for k, v in module.named_parameters()}, (images(2),))
    assert not torch.allclose(moved, module(images(2)))
    nn.save(train(module), tmp_path / "out.onnx")
    assert drift(module(images(2)), runtime(tmp_path / "out.onnx", images(2))) < TOLERANCE


# --- values ---


def test_the_module_computes_what_the_runtime_does_for_any_batch(tmp_path: Path) -> None:
    for batch in (1, "N"):
        module = loaded(residual(batch), tmp_path)
        for count in (1, 2, 5):
            assert drift(module(images(count)), runtime(tmp_path / "m.onnx", images(count))) < TOLERANCE


def test_a_wrong_weight_would_be_noticed(tmp_path: Path) -> None:
    module = loaded(residual(), tmp_path)
    with torch.no_grad():
        module.get_parameter("depth.w")[3] *= 1.01
    assert drift(module(images(2)), runtime(tmp_path / "m.onnx", images(2))) > TOLERANCE


def test_the_bundled_seed_is_loaded_by_name() -> None:
    module = nn.load("mobilenetv2_bn")
    x = images(2, 160)
    assert not module.training
    assert drift(module(x), runtime(seeds.DEFAULT, x)) < TOLERANCE
    assert len(list(module.parameters())) == 158


def test_inner_tensors_come_back_by_name(tmp_path: Path) -> None:
    module = loaded(residual(), tmp_path)
    y, inner = module(images(2), taps=("stem.n", "sum"))
    assert torch.equal(y, module(images(2)))
    assert list(inner) == ["stem.n", "sum"]
    assert inner["stem.n"].shape == (2, 8, 8, 8)
    assert (inner["stem.n"] < 0).any()  # not overwritten by the Relu after it
    with pytest.raises(UserError, match=r"did you mean 'stem\.n'"):
        module(images(2), taps=("stem.m",))


def test_a_tap_between_fused_nodes_is_computed(tmp_path: Path) -> None:
    net = Net()
    y = net.conv("x", "c", 8, 3)
    net.classifier(net.op("Mul", "act", net.op("Sigmoid", "gate", y), y))
    module = loaded(net.model(), tmp_path)
    _, inner = module(images(2), taps=("gate", "c", "act"))
    assert torch.allclose(inner["gate"], inner["c"].sigmoid())
    assert torch.allclose(inner["act"], F.silu(inner["c"]))


def test_a_tap_between_a_view_written_as_a_gather_changes_nothing(tmp_path: Path) -> None:
    places = np.arange(3 * 8 * 8).reshape(1, 3, 8, 8)
    module = loaded(model(FLAT_PICKED, {"all": np.array([-1]), "places": places, "w": (3, 3, 1, 1)}), tmp_path)
    plain = module(images(2))
    y, inner = module(images(2), taps=("flat",))
    assert torch.equal(y, plain)
    assert y.shape[0] == 2
    assert inner["flat"].shape == (2 * 3 * 8 * 8,)


FLAT_PICKED = """
m (float[1,3,8,8] x) => (float[1,3,8,8] y)
{
    flat = Reshape (x, all)
    view = Gather <axis = 0> (flat, places)
    y = Conv (view, w)
}
"""

# --- saving ---


def test_saving_an_untrained_module_gives_the_bytes_of_the_file(tmp_path: Path) -> None:
    for proto in (residual(), constants_in_nodes(), deduplicated(), half(), odd_weights()):
        module = loaded(proto, tmp_path)
        nn.save(module, tmp_path / "out.onnx", force=True)
        assert onnx.load(tmp_path / "out.onnx") == onnx.load(tmp_path / "m.onnx")
    nn.save(nn.load(seeds.DEFAULT), tmp_path / "out.onnx", force=True)
    assert (tmp_path / "out.onnx").read_bytes() == seeds.DEFAULT.read_bytes()


def test_training_changes_values_and_nothing_else(tmp_path: Path) -> None:
    proto = residual()
    proto.metadata_props.add(key="fnatool.stages", value="kept")
    proto.graph.node[0].doc_string = "kept too"
    module = loaded(proto, tmp_path)
    module.get_parameter("fc.b").requires_grad_(False)
    nn.save(train(module), tmp_path / "out.onnx", metadata={"fnatool.task": "new"})
    before, after = onnx.load(tmp_path / "m.onnx"), onnx.load(tmp_path / "out.onnx")
    assert {entry.key: entry.value for entry in after.metadata_props} == {
        "fnatool.stages": "kept",
        "fnatool.task": "new",
    }
    assert before.graph.node == after.graph.node
    assert before.opset_import == after.opset_import
    old, new = initializers(tmp_path / "m.onnx"), initializers(tmp_path / "out.onnx")
    assert list(old) == list(new)
    assert [name for name in old if old[name] == new[name]] == ["fc.b"]
    assert drift(module(images(3)), runtime(tmp_path / "out.onnx", images(3))) < TOLERANCE


def test_no_activation_between_two_bounds_copies_what_it_is_given(tmp_path: Path) -> None:
    net = Net(opset=11)
    net.constant("low", 0.0)
    net.constant("high", 6.0)
    net.classifier(net.op("Clip", "clipped", net.conv_bn("x", "c", 8, 3), "low", "high"))
    module = loaded(net.model(), tmp_path).train()
    with Operators() as done:
        module(images(2)).sum().backward()
    assert "hardtanh_backward" in done.names
    assert not {"clone", "copy_"} & set(done.names)


class Operators(TorchDispatchMode):
    """Remembers what torch computes by."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_what_is_loaded_again_is_what_was_saved(tmp_path: Path) -> None:
    module = train(loaded(residual(), tmp_path))
    nn.save(module, tmp_path / "out.onnx")
    again = nn.load(tmp_path / "out.onnx")
    for key, value in module.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)


def test_the_seed_is_never_overwritten_and_other_files_only_by_force(tmp_path: Path) -> None:
    module = loaded(residual(), tmp_path)
    with pytest.raises(UserError, match=r"m\.onnx"):
        nn.save(module, tmp_path / "m.onnx", force=True)
    nn.save(module, tmp_path / "out.onnx")
    with pytest.raises(UserError, match=r"out\.onnx"):
        nn.save(module, tmp_path / "out.onnx")


def test_wrappers_are_saved_by_the_network_in_them(tmp_path: Path) -> None:
    module = loaded(residual(), tmp_path)
    average = torch.optim.swa_utils.AveragedModel(module, avg_fn=lambda old, new, _: 0.5 * old + 0.5 * new)
    average.update_parameters(module)
    train(module)
    average.update_parameters(module)
    nn.save(average, tmp_path / "average.onnx")
    assert drift(average.module.eval()(images(2)), runtime(tmp_path / "average.onnx", images(2))) < TOLERANCE
    with pytest.raises(UserError, match="0 networks"):
        nn.save(torch.nn.Linear(1, 1), tmp_path / "none.onnx")


# --- ways to store weights ---


def constants_in_nodes() -> onnx.ModelProto:
    """All weights in Constant nodes."""
    proto = residual()
    nodes = [
        helper.make_node("Constant", [], [t.name], name=f"{t.name}.constant", value=t) for t in proto.graph.initializer
    ]
    nodes += list(proto.graph.node)
    del proto.graph.initializer[:], proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return proto


def test_weights_in_constant_nodes_are_trained_and_stay_there(tmp_path: Path) -> None:
    module = loaded(constants_in_nodes(), tmp_path)
    assert "stem.w" in dict(module.named_parameters())
    nn.save(train(module), tmp_path / "out.onnx")
    assert not onnx.load(tmp_path / "out.onnx").graph.initializer
    assert drift(module(images(2)), runtime(tmp_path / "out.onnx", images(2))) < TOLERANCE


def deduplicated() -> onnx.ModelProto:
    """Two BatchNormalizations whose γ and variance are one tensor of ones, β and mean one of zeros; the second reads
    them by Identity.
    """
    net = Net()
    net.constant("ones", np.ones(8))
    net.constant("zeros", np.zeros(8))
    y = net.op("BatchNormalization", "n1", net.conv("x", "c1", 8, 3), "ones", "zeros", "zeros", "ones")
    net.op("Identity", "n2.gamma", "ones")
    y = net.conv(net.relu(y), "c2", 8, 3, bias=True)
    net.op("Identity", "n2.beta", "zeros")
    y = net.op("BatchNormalization", "n2", y, "n2.gamma", "n2.beta", "zeros", "ones")
    net.classifier(net.relu(y))
    return net.model()


def test_each_reader_of_a_deduplicated_vector_trains_its_own(tmp_path: Path) -> None:
    module = loaded(deduplicated(), tmp_path)
    assert {"ones", "zeros", "n2.gamma", "n2.beta"} <= set(dict(module.named_parameters()))
    assert {name for name, _ in module.named_buffers()} == {"zeros_n1", "ones_n1", "zeros_n2", "ones_n2"}
    nn.save(train(module), tmp_path / "out.onnx")
    assert drift(module(images(2)), runtime(tmp_path / "out.onnx", images(2))) < TOLERANCE
    after = onnx.load(tmp_path / "out.onnx")
    by_name = {tensor.name: numpy_helper.to_array(tensor) for tensor in after.graph.initializer}
    assert np.array_equal(by_name["ones"], module.get_parameter("ones").detach().numpy())
    assert [n.op_type for n in after.graph.node] == [n.op_type for n in onnx.load(tmp_path / "m.onnx").graph.node]
    onnx.checker.check_model(after, full_check=True)
    # eight of the norms, one bias
    assert len({array.tobytes() for array in by_name.values() if array.shape == (8,)}) == 9


def test_a_shared_vector_whose_readers_stay_equal_stays_shared(tmp_path: Path) -> None:
    module = loaded(deduplicated(), tmp_path)
    with torch.no_grad():
        for key, value in module.state_dict().items():
            value += 0.5 * key.startswith(("ones", "n2.gamma"))
    nn.save(module, tmp_path / "out.onnx")
    assert set(initializers(tmp_path / "out.onnx")) == set(initializers(tmp_path / "m.onnx"))
    assert drift(module(images(2)), runtime(tmp_path / "out.onnx", images(2))) < TOLERANCE


def shared_head() -> onnx.ModelProto:
    """One convolution with its bias and its normalisation on two maps, as a detection head's on two levels."""
    net = Net()
    stem = net.relu(net.conv("x", "stem", 8, 3, bias=True))
    small = net.op("MaxPool", "small", stem, kernel_shape=[2, 2], strides=[2, 2])
    pooled = []
    net.weights |= {
        "head.w": net.rng.standard_normal((8, 8, 3, 3)).astype(np.float32),
        "head.b": np.zeros(8, np.float32),
    }
    net.weights |= {"scale": np.ones(8, np.float32)}
    for k, level in enumerate((stem, small)):
        y = net.op("Conv", f"level{k}", level, "head.w", "head.b", kernel_shape=[3, 3], pads=[1] * 4)
        y = net.op("InstanceNormalization", f"norm{k}", y, "scale", "head.b")
        pooled.append(net.op("GlobalAveragePool", f"pool{k}", net.relu(net.op("Add", f"shifted{k}", y, y))))
    net.channels["joined"] = 16
    net.classifier(net.op("Concat", "joined", *pooled, axis=1) and "joined")
    net.channels["joined"] = 16
    net.weights["fc.w"] = net.rng.standard_normal((5, 16)).astype(np.float32)
    return net.model()


def test_a_head_shared_by_several_levels_is_one_set_of_parameters(tmp_path: Path) -> None:
    module = loaded(shared_head(), tmp_path)
    names = set(dict(module.named_parameters()))
    # the zeros are the bias of the convolution and that of the norm: two meanings, each for both levels
    assert names == {"stem.w", "stem.b", "head.w", "head.b", "head.b_norm0", "scale", "fc.w", "fc.b"}
    nn.save(train(module), tmp_path / "out.onnx")
    assert drift(module(images(2)), runtime(tmp_path / "out.onnx", images(2))) < TOLERANCE
    assert set(initializers(tmp_path / "out.onnx")) == names


def odd_weights() -> onnx.ModelProto:
    """Weights that are transposed, scaled, cast or standardised on their way."""
    net = Net()
    net.constant("w.stored", net.rng.standard_normal((8, 3, 3, 3)) * 0.3, np.float16)
    net.op("Cast", "w", "w.stored", to=TensorProto.FLOAT)
    y = net.relu(net.op("Conv", "c", "x", "w", kernel_shape=[3, 3], pads=[1] * 4))
    net.channels[y] = 8
    net.constant("raw", net.rng.standard_normal((8, 8, 1, 1)))
    net.op("ReduceMean", "mean", "raw", axes=[1, 2, 3])
    net.op("Sub", "centred", "raw", "mean")
    net.constant("gain", np.full((8, 1, 1, 1), 0.7))
    net.op("Mul", "standard", "centred", "gain")
    y = net.op("Conv", "c2", y, "standard", kernel_shape=[1, 1])
    net.constant("layer_scale", np.full((8,), 0.5))
    net.constant("shape", [1, 8, 1, 1], np.int64)
    net.op("Reshape", "layer_scale.4d", "layer_scale", "shape")
    y = net.op("Mul", "scaled", y, "layer_scale.4d")
    net.op("GlobalAveragePool", "pool", y)
    net.op("Flatten", "flat", "pool")
    net.constant("m", net.rng.standard_normal((5, 8)))
    net.op("Transpose", "m.t", "m", perm=[1, 0])
    net.constant("b", net.rng.standard_normal(5))
    net.op("MatMul", "product", "flat", "m.t")
    net.op("Add", "y", "product", "b")
    return net.model()


def test_weights_on_their_way_through_other_nodes_are_trained_where_they_are(tmp_path: Path) -> None:
    module = loaded(odd_weights(), tmp_path)
    assert set(dict(module.named_parameters())) == {"w.stored", "raw", "gain", "layer_scale", "m", "b"}
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    nn.save(train(module), tmp_path / "out.onnx")
    stored = {t.name: t.data_type for t in onnx.load(tmp_path / "out.onnx").graph.initializer}
    assert stored["w.stored"] == TensorProto.FLOAT16
    # one weight is rounded to half precision
    assert drift(module(images(2)), runtime(tmp_path / "out.onnx", images(2))) < 2e-3


def half() -> onnx.ModelProto:
    """The residual network in half precision."""
    proto = residual()
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return proto


def test_a_network_in_half_precision_trains_in_single_and_is_saved_in_half(tmp_path: Path) -> None:
    module = loaded(half(), tmp_path)
    assert {value.dtype for value in module.state_dict().values()} == {torch.float32}
    assert drift(module(images(2).half()), runtime(tmp_path / "m.onnx", images(2).half()).astype(np.float32)) < 2e-3
    nn.save(train(module), tmp_path / "out.onnx")
    saved = onnx.load(tmp_path / "out.onnx")
    assert {t.data_type for t in saved.graph.initializer} == {TensorProto.FLOAT16}
    assert drift(module(images(2)), runtime(tmp_path / "out.onnx", images(2).half()).astype(np.float32)) < 5e-3


def test_numbers_and_what_prepares_the_input_are_not_trained(tmp_path: Path) -> None:
    net = Net()
    net.constant("image.mean", np.full((1, 3, 1, 1), 0.45))
    net.constant("image.scale", np.full((1, 3, 1, 1), 0.22))
    net.constant("low", 0.0)
    net.constant("high", 6.0)
    y = net.op("Div", "prepared", net.op("Sub", "shifted", "x", "image.mean"), "image.scale")
    y = net.op("Clip", "clipped", net.conv(y, "c", 8, 3), "low", "high")
    net.constant("two", 2.0)
    net.classifier(net.op("Mul", "twice", y, "two"))
    module = loaded(net.model(), tmp_path)
    assert set(dict(module.named_parameters())) == {"c.w", "fc.w", "fc.b"}
    assert set(module.state_dict()) == {"c.w", "fc.w", "fc.b"}
    assert drift(module(images(2)), runtime(tmp_path / "m.onnx", images(2))) < TOLERANCE


# --- the batch ---


def test_sizes_written_for_a_batch_of_one_follow_the_batch(tmp_path: Path) -> None:
    net = Net()
    y = net.conv_bn_relu("x", "c", 8, 3)
    for name, shape in {"split": [1, 2, 4, 8, 8], "back": [1, 8, 8, 8], "row": [1, -1], "ones": [1, 8, 1, 1]}.items():
        net.constant(name, shape, np.int64)
    y = net.op("Reshape", "groups", y, "split")
    y = net.op("Reshape", "shuffled", net.op("Transpose", "swapped", y, perm=[0, 2, 1, 3, 4]), "back")
    net.channels[y] = 8
    net.constant("extra", net.rng.standard_normal((1, 2, 8, 8)))
    y = net.op("Concat", "joined", y, "extra", axis=1)
    net.channels[y] = 10
    y = net.conv(y, "d", 8)
    net.op("GlobalAveragePool", "pool", net.op("Expand", "same", y, "ones"))
    net.op("Reshape", "flat", "pool", "row")
    net.weights |= {"fc.w": net.rng.standard_normal((5, 8)).astype(np.float32), "fc.b": np.ones(5, np.float32)}
    net.op("Gemm", "y", "flat", "fc.w", "fc.b", transB=1)
    module = loaded(net.model(), tmp_path)
    for count in (1, 2, 5):
        assert drift(module(images(count)), runtime(tmp_path / "m.onnx", images(count))) < TOLERANCE


UNBATCHED = {
    # the shape of the output says so
    "moves the batch": """net (float[1,3,8,8] x) => (float[1,9] y) {
        s = Constant <value_ints = [3, 64]> () f = Reshape (x, s) t = Transpose (f) g = MatMul (f, t)
        r = Constant <value_ints = [1, 9]> () y = Reshape (g, r) }""",
    # only values do
    "depends on the others": """net (float[1,3,8,8] x) => (float[1,3,8,8] y) {
        m = ReduceMean <axes = [0], keepdims = 1> (x) y = Sub (x, m) }""",
}


@pytest.mark.parametrize("reason", UNBATCHED)
def test_a_batch_that_cannot_be_freed_is_refused_with_the_reason(reason: str, tmp_path: Path) -> None:
    with pytest.raises(RefusedModel, match=reason):
        loaded(model(UNBATCHED[reason]), tmp_path)


# --- widths from the weights ---


def test_the_same_reading_computes_with_narrower_weights() -> None:
    made = graph(
        """net (float[1,3,8,8] x) => (float[1,5] y) {
            c = Conv <kernel_shape = [1, 1]> (x, w1)
            d = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], group = 12> (c, w2)
            s = Constant <value_ints = [1, 2, 6, 8, 8]> () g = Reshape (d, s)
            t = Transpose <perm = [0, 2, 1, 3, 4]> (g)
            s2 = Constant <value_ints = [1, 12, 8, 8]> () h = Reshape (t, s2)
            a, b = Split <axis = 1> (h, sizes)
            m = Mul (a, b)
            p = GlobalAveragePool (m) f = Flatten (p) y = Gemm <transB = 1> (f, w3, b3) }""",
        {"w1": (12, 3, 1, 1), "w2": (12, 1, 3, 3), "w3": (5, 6), "b3": (5,), "sizes": np.array([6, 6])},
    )
    for node in made.nodes:
        node.name = node.outputs[0].name
    reading = nn.Reading(made)
    values = {weight.name: reading.initial(weight) for weight in reading.weights}
    kept = torch.tensor([0, 1, 2, 3, 6, 7, 8, 9])  # four of six in each group
    narrow = dict(values, w1=values["w1"][kept], w2=values["w2"][kept], w3=values["w3"][:, :4])
    x = images(3)
    c = F.conv2d(F.conv2d(x, narrow["w1"]), narrow["w2"], padding=1, groups=8)
    a, b = c.reshape(3, 2, 4, 8, 8).transpose(1, 2).reshape(3, 8, 8, 8).split(4, 1)
    expected = F.linear((a * b).mean((2, 3)), narrow["w3"], narrow["b3"])
    assert torch.allclose(reading(narrow, [x])[0], expected, atol=1e-6)
    assert reading(values, [x])[0].shape == (3, 5)
    with pytest.raises(ValueError, match=r"node 'g' \(Reshape\) was exported for \(1, 2, 6, 8, 8\)"):
        reading(dict(values, w1=values["w1"][:7], w2=values["w2"][:7]), [x])


# --- modes ---


def test_batch_normalisation_trains_as_torch_does(tmp_path: Path) -> None:
    module = loaded(residual(), tmp_path)
    norm = torch.nn.BatchNorm2d(8)
    state = module.state_dict()
    values = {"weight": "gamma", "bias": "beta", "running_mean": "mean", "running_var": "var"}
    norm.load_state_dict({key: state[f"stem.n.{part}"] for key, part in values.items()}, strict=False)
    _, inner = module.train()(images(4), taps=("stem", "stem.n"))
    assert torch.equal(norm(inner["stem"]), inner["stem.n"])
    assert torch.equal(norm.running_mean, module.get_buffer("stem.n.mean"))  # type: ignore[arg-type]
    assert torch.equal(norm.running_var, module.get_buffer("stem.n.var"))  # type: ignore[arg-type]


def test_batch_normalisation_can_be_frozen_or_leave_its_statistics_alone(tmp_path: Path) -> None:
    module = loaded(residual(), tmp_path)
    still = module(images(4))
    before = copy.deepcopy(module.state_dict())
    module.train().norms_in_training = "running"
    assert torch.equal(module(images(4)), still)
    module.norms_in_training = "batch"
    assert not torch.allclose(module(images(4)), still)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    module.norms_in_training = "update"
    module(images(4))
    assert not torch.equal(module.get_buffer("stem.n.mean"), before["stem.n.mean"])


def test_the_momentum_is_the_one_of_the_graph(tmp_path: Path) -> None:
    proto = residual()
    for node in proto.graph.node:
        if node.op_type == "BatchNormalization":
            node.attribute.append(helper.make_attribute("momentum", 0.99))
    module = loaded(proto, tmp_path)
    mean = module.get_buffer("stem.n.mean").clone()
    _, inner = module.train()(images(4), taps=("stem",))
    expected = mean * 0.99 + 0.01 * inner["stem"].mean((0, 2, 3))
    assert torch.allclose(module.get_buffer("stem.n.mean"), expected, atol=1e-6)


def test_dropout_is_active_in_training_only(tmp_path: Path) -> None:
    net = Net()
    net.constant("ratio", 0.5)
    y = net.conv("x", "c", 16, 3)
    net.classifier(net.op("Dropout", "drop", y, "ratio"))
    module = loaded(net.model(), tmp_path)
    assert torch.equal(module(images(2)), module(images(2)))
    torch.manual_seed(0)
    _, inner = module.train()(images(2), taps=("drop",))
    assert 0.3 < float((inner["drop"] == 0).float().mean()) < 0.7


def test_statistics_of_a_weight_let_gradients_through(tmp_path: Path) -> None:
    """Standardisation of a weight, as exporters write it: BatchNormalization with computed statistics, scale ones and
    bias zeros.
    """
    made = model(
        """net (float[1,3,8,8] x) => (float[1,4] y) {
            s = Constant <value_ints = [1, 4, 27]> () flat = Reshape (w, s)
            m = ReduceMean <axes = [0, 2], keepdims = 0> (flat)
            mk = ReduceMean <axes = [0, 2], keepdims = 1> (flat)
            d = Sub (flat, mk) q = Mul (d, d) v = ReduceMean <axes = [0, 2], keepdims = 0> (q)
            n = BatchNormalization (flat, ones, zeros, m, v)
            s2 = Constant <value_ints = [4, 3, 3, 3]> () ws = Reshape (n, s2)
            c = Conv <kernel_shape = [3, 3]> (x, ws) p = GlobalAveragePool (c) y = Flatten (p) }""",
        {"w": (4, 3, 3, 3), "ones": np.ones(4, np.float32), "zeros": np.zeros(4, np.float32)},
    )
    module = loaded(made, tmp_path)
    assert [name for name, _ in module.named_parameters()] == ["w"]
    w = module.get_parameter("w").detach().clone().requires_grad_()
    standard = F.batch_norm(w.reshape(1, 4, 27), None, None, training=True, eps=1e-5).reshape(w.shape)
    F.conv2d(images(2), standard).mean((2, 3)).square().sum().backward()
    for mode in (module.train, module.eval):
        mode()
        module.zero_grad()
        module(images(2)).square().sum().backward()
        gradient = module.get_parameter("w").grad
        assert gradient is not None
        assert w.grad is not None
        assert torch.allclose(gradient, w.grad, atol=1e-5)


# --- any training loop ---


def test_copies_state_and_pickles_are_those_of_any_module(tmp_path: Path) -> None:
    module = loaded(residual(), tmp_path)
    twin = copy.deepcopy(module)
    train(twin)
    assert not torch.equal(twin(images(2)), module(images(2)))
    buffer = io.BytesIO()
    torch.save(twin.state_dict(), buffer)
    buffer.seek(0)
    module.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(twin(images(2)), module(images(2)))
    with pytest.raises(TypeError, match="state_dict"):
        torch.save(module, io.BytesIO())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_the_module_can_be_cast(dtype: torch.dtype, tmp_path: Path) -> None:
    module = loaded(odd_weights(), tmp_path)
    single = module(images(2)).detach().numpy()
    made = module.to(dtype)(images(2).to(dtype))
    assert made.dtype == dtype
    assert drift(made, single) < 0.05


def test_channels_last_gives_the_same(tmp_path: Path) -> None:
    module = loaded(residual(), tmp_path)
    plain = module(images(3)).detach().numpy()
    last = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert drift(last(images(3).to(memory_format=torch.channels_last)), plain) < TOLERANCE
    nn.save(last, tmp_path / "out.onnx")
    assert initializers(tmp_path / "out.onnx") == initializers(tmp_path / "m.onnx")


def test_it_trains_under_autocast(tmp_path: Path) -> None:
    module = loaded(residual(), tmp_path)
    single = module(images(3)).detach().numpy()
    with torch.autocast("cpu", torch.bfloat16):
        y = module(images(3))
        assert y.dtype == torch.bfloat16
        assert drift(y, single) < 0.05
        loss = F.cross_entropy(module.train()(images(3)), torch.tensor([0, 1, 2]))
    loss.backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in module.parameters())


def test_it_trains_under_distributed_data_parallel(tmp_path: Path) -> None:
    module = loaded(residual(), tmp_path)
    expected = copy.deepcopy(module).train()(images(4))
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        wrapped = torch.nn.parallel.DistributedDataParallel(module.train())
        y, inner = wrapped(images(4), taps=("sum",))
        assert torch.equal(y, expected)
        assert inner["sum"].requires_grad
        y.square().mean().backward()
        assert all(parameter.grad is not None for parameter in module.parameters())
        nn.save(wrapped, tmp_path / "out.onnx")
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore")
def test_it_compiles_without_graph_breaks(tmp_path: Path) -> None:
    module = loaded(residual(), tmp_path)
    plain = copy.deepcopy(module)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for mode in (True, False):
        y, expected = compiled.train(mode)(images(3)), plain.train(mode)(images(3))
        assert drift(y, expected.detach().numpy()) < TOLERANCE
        y.square().mean().backward()
    nn.save(compiled, tmp_path / "out.onnx")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no compiler")
def test_it_compiles_to_machine_code(tmp_path: Path) -> None:
    net = Net()
    net.bn(net.conv("x", "c", 4, 3), "y")
    module = loaded(net.model(), tmp_path)
    compiled = torch.compile(module, fullgraph=True)
    with torch.no_grad():
        assert drift(compiled(images(3)), module(images(3)).numpy()) < TOLERANCE


# --- what is refused ---


def test_an_operator_without_a_row_is_named_with_its_node_before_training(tmp_path: Path) -> None:
    net = Net()
    net.op("NonZero", "odd", net.relu(net.conv("x", "c", 8, 3)))
    net.op("Cast", "y", "odd", to=TensorProto.FLOAT)
    with pytest.raises(
        RefusedModel, match=r"node 'odd' \(NonZero\) cannot be read by torch: fnatool has no such operator there"
    ):
        loaded(net.model(), tmp_path)


def test_an_operator_of_another_domain_is_named_with_it() -> None:
    net = Net()
    net.op("FusedConv", "y", net.conv("x", "c", 8, 3), domain="com.microsoft")
    with pytest.raises(RefusedModel, match=r"node 'y' \(com\.microsoft::FusedConv\)"):
        nn.Reading(net.graph())


def test_an_error_in_a_run_names_the_node(tmp_path: Path) -> None:
    module = loaded(residual(), tmp_path)
    with pytest.raises(RuntimeError) as caught:
        module(torch.zeros(2, 4, 8, 8))
    assert "in node 'stem' of the ONNX graph" in caught.value.__notes__
    with pytest.raises(TypeError, match=r"1 inputs \(x\), 2 are given"):
        module(images(1), images(1))


def test_without_torch_the_error_says_how_to_get_it() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\ntry:\n    import fnatool.nn\nexcept ImportError as e:\n    "
        "print(type(e).__name__, e)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (
        done.stdout.strip()
        == "MissingTorch fnatool.nn needs torch, which is not installed: pip install 'fnatool[search]'"
    )


def test_a_file_that_is_not_there_is_a_user_error() -> None:
    with pytest.raises(UserError, match="does not exist"):
        nn.load("nowhere.onnx")
    assert isinstance(nn.load(files.read(seeds.DEFAULT)), nn.Network)


def test_what_is_in_the_way_is_told_in_the_words_of_python(tmp_path: Path) -> None:
    module = loaded(residual(), tmp_path)
    (tmp_path / "out.onnx").write_bytes(b"mine")
    with pytest.raises(UserError, match="pass force=True to overwrite it"):
        nn.save(module, tmp_path / "out.onnx")
