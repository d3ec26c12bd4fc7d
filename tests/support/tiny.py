"""Tiny models for the tests: ONNX text plus weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser

HEADER = '<ir_version: 8, opset_import: ["" : 17]>'

# x → Conv → BatchNormalization → Relu → pool → Gemm → y
NET = """
net (float[N,3,8,8] x) => (float[N,4] y) {
    c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w, b)
    n = BatchNormalization (c, scale, shift, mean, variance)
    r = Relu (n)
    p = GlobalAveragePool (r)
    f = Flatten (p)
    y = Gemm <transB = 1> (f, m, mb)
}
"""

WEIGHTS = {
    "w": (8, 3, 3, 3),
    "b": (8,),
    "scale": (8,),
    "shift": (8,),
    "mean": (8,),
    "variance": (8,),
    "m": (4, 8),
    "mb": (4,),
}


def model(
    text: str, weights: dict[str, tuple[int, ...] | np.ndarray] | None = None, header: str = HEADER
) -> onnx.ModelProto:
    """The model of text; weights are arrays, or shapes to be filled with positive random values."""
    proto = onnx.parser.parse_model(f"{header}\n{text}")
    rng = np.random.default_rng(0)
    for name, value in (weights or {}).items():
        array = value if isinstance(value, np.ndarray) else rng.uniform(0.5, 1.5, value).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return proto


def net(**changes: tuple[int, ...] | np.ndarray) -> onnx.ModelProto:
    """NET with some weights in another shape or of other values."""
    return model(NET, WEIGHTS | changes)


def save(proto: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(proto.SerializeToString())
    return path
