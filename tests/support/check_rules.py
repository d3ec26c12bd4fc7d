"""The lines of the rules of check."""

from __future__ import annotations

import numpy as np
import onnx
from tiny import model


def one(
    line: str, weights: dict[str, tuple[int, ...] | np.ndarray], x: str = "float[1,4,8,8]", opset: int = 17
) -> onnx.ModelProto:
    """x → the operator of line → y."""
    return model(
        f"g ({x} x) => (float[N] y) {{ y = {line} }}", weights, f'<ir_version: 8, opset_import: ["" : {opset}]>'
    )


# operator, the shapes of its weights, the code found ("" for a correct one)
RULES = [
    ("Conv (x, w, b)", {"w": (6, 4, 3, 3), "b": (6,)}, ""),
    ("Conv (x, w, b)", {"w": (6, 4, 3, 3), "b": (5,)}, "bias-length"),
    ("Conv (x, w, b)", {"w": (6, 4, 3, 3), "b": (1, 6)}, "bias-length"),
    ("Conv (x, w)", {"w": (6, 3, 3, 3)}, "input-channels"),
    ("Conv <group = 2> (x, w)", {"w": (6, 2, 3, 3)}, ""),
    ("Conv <group = 2> (x, w)", {"w": (6, 4, 3, 3)}, "input-channels"),
    ("Conv <group = 2> (x, w)", {"w": (5, 2, 3, 3)}, "group"),
    ("Conv <group = 3> (x, w)", {"w": (6, 1, 3, 3)}, "group"),
    ("Conv <group = 0> (x, w)", {"w": (6, 4, 3, 3)}, "group"),
    ("Conv <kernel_shape = [5, 5]> (x, w)", {"w": (6, 4, 3, 3)}, "kernel-shape"),
    ("Conv <pads = [1, 1]> (x, w)", {"w": (6, 4, 3, 3)}, "attribute-length"),
    ("Conv (x, w)", {"w": (6, 4)}, "weight-rank"),
    ("Conv (x, w)", {"w": (0, 4, 3, 3)}, "zero-sized"),
    ("ConvTranspose <group = 2> (x, w, b)", {"w": (4, 3, 2, 2), "b": (6,)}, ""),
    ("ConvTranspose <group = 2> (x, w, b)", {"w": (4, 3, 2, 2), "b": (3,)}, "bias-length"),
    ("ConvTranspose (x, w)", {"w": (6, 3, 2, 2)}, "input-channels"),
    ("ConvTranspose <group = 3> (x, w)", {"w": (4, 3, 2, 2)}, "group"),
    ("PRelu (x, s)", {"s": (4, 1, 1)}, ""),
    ("PRelu (x, s)", {"s": (5, 1, 1)}, "slope"),
    ("PRelu (x, s)", {"s": (4,)}, "slope"),  # broadcasts along the width, 8
    ("BatchNormalization (x, s, b, m, v)", {"s": (4,), "b": (4,), "m": (4,), "v": (4,)}, ""),
    ("BatchNormalization (x, s, b, m, v)", {"s": (4,), "b": (4,), "m": (4,), "v": (3,)}, "vector-length"),
    ("BatchNormalization (x, s, b, m, v)", {"s": (5,), "b": (5,), "m": (5,), "v": (5,)}, "vector-length"),
    (
        "BatchNormalization (x, s, b, m, v)",
        {"s": (4,), "b": (4,), "m": (4,), "v": np.float32([1, 1, -1, 1])},
        "variance",
    ),
    ("InstanceNormalization (x, s, b)", {"s": (4,), "b": (3,)}, "vector-length"),
    ("LayerNormalization (x, s, b)", {"s": (8,), "b": (8,)}, ""),
    ("LayerNormalization (x, s, b)", {"s": (8,), "b": (7,)}, "vector-length"),
    ("MatMul (x, w)", {"w": (8, 5)}, ""),
    ("MatMul (x, w)", {"w": (7, 5)}, "input-channels"),
    ("Add (x, w)", {"w": (1, 4, 1, 1)}, ""),
    ("Add (x, w)", {"w": (1, 5, 1, 1)}, "shape"),
    ("Concat <axis = 1> (x, w)", {"w": (1, 5, 8, 8)}, ""),
    ("Concat <axis = 1> (x, w)", {"w": (1, 5, 7, 8)}, "shape"),
    ("Conv (x, w)", {"w": np.full((6, 4, 3, 3), np.nan, np.float32)}, "not-finite"),
    ("Conv (x, w)", {"w": np.full((6, 4, 3, 3), -np.inf, np.float32)}, "not-finite"),
    ("Clip (x, low, high)", {"low": np.zeros((), np.float32), "high": np.full((), np.inf, np.float32)}, ""),
    ("Mul (x, w)", {"w": np.full((), np.nan, np.float32)}, "not-finite"),
]
