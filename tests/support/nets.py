"""Small networks for the tests of the passes: ONNX text as a graph, a writer for longer ones, and the values of their
tensors.

Every node is named after its first output. Weights are He-scaled, 1-D tensors lie between 0.5 and 1.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto, helper, numpy_helper
from tiny import model

from fnatool.files import model as files
from fnatool.runtime.verify import noise, run_inner
from passes.network.analyse import analyse
from passes.network.analysis import Analysis

SEED = Path(__file__).parent.parent.parent / "fnatool" / "seeds" / "mobilenetv2_bn.onnx"

Weights = Mapping[str, tuple[int, ...] | np.ndarray]


def bundled() -> gs.Graph:
    """The bundled seed as a graph."""
    return files.read(SEED).graph


def weight(shape: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Random values: He-scaled (fan-in from axis 1 on) for two or more axes, else between 0.5 and 1.5."""
    if len(shape) < 2:
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return (rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)


def graph(text: str, weights: Weights | None = None, opset: int = 17) -> gs.Graph:
    """The graph of ONNX text; a weight is an array, or a shape to be filled."""
    rng = np.random.default_rng(1)
    arrays = {
        name: value if isinstance(value, np.ndarray) else weight(value, rng) for name, value in (weights or {}).items()
    }
    return named(model(text, arrays, f'<ir_version: 8, opset_import: ["" : {opset}]>'))


def named(proto: onnx.ModelProto) -> gs.Graph:
    """The graph of a model, its nodes named after their first outputs."""
    for node in proto.graph.node:
        node.name = node.name or node.output[0]
    return gs.import_onnx(proto)


class Net:
    """Writes a network node by node: every method adds a node, named like its output, and returns that name."""

    def __init__(self, channels: int = 3, size: int = 8, opset: int = 17, seed: int = 0) -> None:
        self.opset = opset
        self.size = size
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.channels = {"x": channels}

    def op(self, kind: str, out: str, *inputs: str, **attributes: object) -> str:
        """Any operator; the output has the channels of the first input."""
        self.nodes.append(helper.make_node(kind, list(inputs), [out], name=out, **attributes))
        self.channels[out] = self.channels.get(inputs[0], 0)
        return out

    def constant(self, name: str, values: object, dtype: type = np.float32) -> str:
        """An initializer."""
        self.weights[name] = np.array(values, dtype)
        return name

    def conv(
        self, x: str, out: str, width: int, kernel: int = 1, *, stride: int = 1, group: int = 1, bias: bool = False
    ) -> str:
        """A convolution with pads that keep the size at stride 1; group 0 is depthwise."""
        channels = self.channels[x]
        group = group or channels
        self.weights[f"{out}.w"] = weight((width, channels // group, kernel, kernel), self.rng)
        inputs = [x, f"{out}.w"]
        if bias:
            self.weights[f"{out}.b"] = weight((width,), self.rng)
            inputs.append(f"{out}.b")
        attributes = {"kernel_shape": [kernel] * 2, "pads": [kernel // 2] * 4, "strides": [stride] * 2, "group": group}
        self.op("Conv", out, *inputs, **attributes)
        self.channels[out] = width
        return out

    def bn(self, x: str, out: str = "") -> str:
        """A BatchNormalization, named `<x>.n` unless said otherwise."""
        out = out or f"{x}.n"
        names = [f"{out}.{part}" for part in ("gamma", "beta", "mean", "var")]
        for name in names:
            self.weights[name] = weight((self.channels[x],), self.rng)
        return self.op("BatchNormalization", out, x, *names)

    def relu(self, x: str) -> str:
        """A Relu, named `<x>.r`."""
        return self.op("Relu", f"{x}.r", x)

    def conv_bn(self, x: str, out: str, width: int, kernel: int = 1, **how: int) -> str:
        """A convolution and its BatchNormalization."""
        return self.bn(self.conv(x, out, width, kernel, **how))

    def conv_bn_relu(self, x: str, out: str, width: int, kernel: int = 1, **how: int) -> str:
        """A convolution, its BatchNormalization and a Relu."""
        return self.relu(self.conv_bn(x, out, width, kernel, **how))

    def classifier(self, x: str, classes: int = 5) -> str:
        """Global pooling and a Gemm to the output y."""
        self.op("GlobalAveragePool", "pool", x)
        self.op("Flatten", "flat", "pool")
        self.weights["fc.w"] = weight((classes, self.channels[x]), self.rng)
        self.weights["fc.b"] = weight((classes,), self.rng)
        return self.op("Gemm", "y", "flat", "fc.w", "fc.b", transB=1)

    def model(self, *outputs: str, batch: int | str = 1) -> onnx.ModelProto:
        """The model from input x [batch, channels, size, size] to the outputs (y if none is named)."""
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, self.channels["x"], self.size, self.size])
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs or ("y",)]
        constants = [numpy_helper.from_array(array, name) for name, array in self.weights.items()]
        body = helper.make_graph(self.nodes, "net", [x], ends, constants)
        others = dict.fromkeys(node.domain for node in self.nodes if node.domain)
        imports = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(domain, 1) for domain in others)]
        made = onnx.shape_inference.infer_shapes(helper.make_model(body, opset_imports=imports, ir_version=8))
        del made.graph.value_info[:]
        return made

    def graph(self, *outputs: str, batch: int | str = 1) -> gs.Graph:
        """The same as a graph."""
        return named(self.model(*outputs, batch=batch))

    def analysis(self, *outputs: str) -> Analysis:
        """The analysis of it."""
        return analyse(self.graph(*outputs))


def values(made: gs.Graph, analysis: Analysis, *tensors: str) -> list[np.ndarray]:
    """The tensors of a graph in ONNX Runtime, for noise of the analysed sizes."""
    return list(run_inner(made, noise(analysis, 3), tensors, "the graph").values())
