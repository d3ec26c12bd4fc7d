"""Every operator of the table `TORCH`, as lines: torch computes what ONNX Runtime does, or ONNX's own reference where
that is marked.

A line is (operator, attributes, inputs); the operator may carry an opset (`Slice-9`) and `@ref` for the reference.
Among the inputs `(2,4,5)` is an activation, `W(…)` an initializer, `i(…)` and `b(…)` are activations of whole numbers
and truths, `[…]`, `f[…]` and `b[…]` constants of integers and floats, `n` and `f` before a number scalars, and `_` is
an absent input. `s(…)` is the shape of a further input, computed, `z1(…)` one of its sizes, `w(…)` its sizes as floats.
`P(…)` is a positive initializer, `k(…)` and `u(…)` are positive numbers, `p[…]` numbers fed. `-> k` asks for k outputs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from fnatool.nn import TORCH, Reading
from passes.channels.rules.table import RULES
from passes.errors import RefusedModel

OPSET = 21
Line = tuple[str, Mapping[str, object], str]

UNARY = """
    Abs Acos Acosh Asin Asinh Atan Atanh Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity IsNaN LeakyRelu Log Mish
    Neg Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Tan Tanh ThresholdedRelu
"""
COMPARISONS = "Equal Greater GreaterOrEqual Less LessOrEqual"
TRUTHS = "And Or Xor"
REDUCTIONS = (
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare"
)
COORDINATES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def resize(mode: str, coordinates: str, **others: object) -> dict[str, object]:
    return {"mode": mode, "coordinate_transformation_mode": coordinates, **others}


LINES: list[Line] = [
    # element by element
    *((op, {}, "(2,3,4)") for op in UNARY.split()),
    ("Celu", {"alpha": 0.3}, "(2,3,4)"),
    ("Elu", {"alpha": 0.3}, "(2,3,4)"),
    ("Gelu", {"approximate": "tanh"}, "(2,3,4)"),
    ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}, "(2,3,4)"),
    ("HardSigmoid", {"alpha": 0.7, "beta": 0.1}, "(2,3,4)"),
    ("IsInf@ref", {}, "(2,3,4)"),
    ("IsInf", {"detect_negative": 0}, "f[1,inf,-inf]"),
    ("IsInf", {"detect_positive": 0}, "f[1,inf,-inf]"),
    ("IsInf", {"detect_positive": 0, "detect_negative": 0}, "f[1,inf,-inf]"),
    ("LeakyRelu", {"alpha": 0.3}, "(2,3,4)"),
    ("Selu", {"alpha": 1.2, "gamma": 0.7}, "(2,3,4)"),
    ("Shrink", {"lambd": 1.0, "bias": 0.3}, "(2,3,4)"),
    ("ThresholdedRelu", {"alpha": 0.4}, "(2,3,4)"),
    ("Swish-24@ref", {}, "(2,3,4)"),
    ("Swish-24@ref", {"alpha": 1.7}, "(2,3,4)"),
    ("Not", {}, "b(2,3)"),
    ("BitwiseNot@ref", {}, "i(2,3)"),
    ("Clip-6", {"min": -0.5, "max": 0.5}, "(2,3,4)"),
    ("Clip-6", {"min": -0.5}, "(2,3,4)"),
    ("Clip-6", {}, "(2,3,4)"),
    ("Clip", {}, "(2,3,4), f-0.5, f0.5"),
    ("Clip", {}, "(2,3,4), _, f0.5"),
    ("Clip", {}, "(2,3,4), f-0.5"),
    ("Clip", {}, "(2,3,4), f0.5, f0.5"),
    ("Clip@ref", {}, "(2,3,4), (), ()"),
    ("Clip@ref", {}, "(2,3,4), _, ()"),
    ("Clip", {}, "i(2,3), n1, n3"),
    ("Cast", {"to": TensorProto.INT32}, "(2,3)"),
    ("Cast", {"to": TensorProto.DOUBLE}, "(2,3)"),
    ("Cast", {"to": TensorProto.FLOAT}, "i(2,3)"),
    ("Cast", {"to": TensorProto.BOOL}, "i(2,3)"),
    ("CastLike@ref", {}, "i(2,3), (1)"),
    ("Dropout", {}, "(2,3,4)"),
    ("Dropout", {}, "(2,3,4), f0.3 -> 2"),
    ("Dropout-10", {"ratio": 0.3}, "(2,3,4)"),
    # operands
    ("Add", {}, "(2,3,4), (3,1)"),
    ("Add", {}, "(2,3,4), W(4)"),
    ("Add", {}, "(2,3,4), f0.3"),
    ("Add", {}, "f0.3, (2,3,4)"),
    ("Add", {}, "(4), W(1,1,1)"),
    ("Sub", {}, "(2,3,4), (3,1)"),
    ("Sub", {}, "f0.3, (2,3,4)"),
    ("Mul", {}, "(2,3,4), (2,1,1)"),
    ("Mul", {}, "f0.3, (2,3,4)"),
    ("Div", {}, "(2,3,4), (3,1)"),
    ("Div", {}, "f0.3, (2,3,4)"),
    ("Div", {}, "i(2,3), n2"),
    ("Div", {}, "i(2,3), n-2"),
    ("Div", {}, "n-7, k(2,3)"),
    ("Mod", {}, "i(2,3), n-3"),
    ("Mod", {"fmod": 1}, "(2,3), (2,1)"),
    ("Pow", {}, "(2,3,4), f2"),
    ("Pow", {}, "(2,3,4), f0.5"),
    ("Pow", {}, "(2,3,4), (3,1)"),
    ("Pow", {}, "(2,3,4), i(4)"),
    ("PRelu", {}, "(2,4,3), W(4,1)"),
    ("PRelu", {}, "(2,4,3), W(1)"),
    ("PRelu", {}, "(2,4,3), W(4,3)"),
    ("PRelu", {}, "(2,3,4), W(4)"),
    ("PRelu", {}, "(2,4), W(4)"),
    *((op, {}, "(2,3,4), (3,1)") for op in COMPARISONS.split()),
    *((op, {}, "(2,3,4), f0.3") for op in COMPARISONS.split()),
    *((op, {}, "b(2,3), b(3)") for op in TRUTHS.split()),
    ("BitwiseAnd@ref", {}, "i(2,3), i(3)"),
    ("BitwiseOr@ref", {}, "i(2,3), i(3)"),
    ("BitwiseXor@ref", {}, "i(2,3), i(3)"),
    ("BitShift@ref", {"direction": "LEFT"}, "u(2,3), u(3)"),
    ("BitShift@ref", {"direction": "RIGHT"}, "u(2,3), u(3)"),
    *((op, {}, "(2,3,4), (3,1), (4)") for op in ("Max", "Min", "Mean", "Sum")),
    *((op, {}, "(2,3,4)") for op in ("Max", "Min", "Mean", "Sum")),
    ("Max", {}, "(2,3,4), f0.3"),
    ("Min", {}, "f0.3, (2,3,4)"),
    ("Where", {}, "b(2,3), (2,3), (3)"),
    ("Where", {}, "b(2,3), (2,3), f0.3"),
    ("Where", {}, "b(2,3), f0.3, f0.7"),
    # convolutions
    ("Conv", {"pads": [1, 1, 1, 1]}, "(2,4,5,6), W(8,4,3,3), W(8)"),
    ("Conv", {"pads": [1, 0, 2, 1], "strides": [2, 1]}, "(2,4,5,6), W(8,4,3,3), W(8)"),
    ("Conv", {"dilations": [2, 1], "strides": [1, 2]}, "(2,4,7,6), W(8,4,3,3)"),
    ("Conv", {"group": 2}, "(2,4,5,6), W(6,2,3,3)"),
    ("Conv", {"group": 4, "pads": [1, 1, 1, 1]}, "(2,4,5,6), W(8,1,3,3), W(8)"),
    ("Conv", {"pads": [1, 2]}, "(2,4,7), W(8,4,3), W(8)"),
    ("Conv", {"pads": [1, 1, 1, 1, 1, 1]}, "(2,3,4,5,6), W(4,3,3,3,3)"),
    ("Conv", {}, "(2,4,5,6), (8,4,3,3)"),
    *(
        ("Conv", {"auto_pad": mode, "strides": [2, 3]}, f"(2,4,{h},{w}), W(8,4,{k},2), W(8)")
        for mode in ("SAME_UPPER", "SAME_LOWER", "VALID")
        for h, w, k in ((7, 6, 3), (8, 9, 3), (6, 7, 1))
    ),
    ("Conv@ref", {"auto_pad": "SAME_UPPER", "dilations": [2, 2]}, "(2,4,7,6), W(8,4,3,3)"),
    ("ConvTranspose", {"strides": [2, 2]}, "(2,4,5,6), W(4,3,3,3), W(3)"),
    (
        "ConvTranspose",
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
        "(2,4,5,6), W(4,3,3,3), W(3)",
    ),
    (
        "ConvTranspose",
        {"strides": [2, 2], "pads": [0, 1, 2, 1], "output_padding": [1, 0]},
        "(2,4,5,6), W(4,3,3,3), W(3)",
    ),
    ("ConvTranspose", {"strides": [2, 2], "pads": [0, 0, 1, 1]}, "(2,4,5,6), W(4,3,3,3)"),
    ("ConvTranspose", {"strides": [3, 2], "dilations": [2, 1]}, "(2,4,5,6), W(4,3,3,3), W(3)"),
    ("ConvTranspose", {"group": 2, "strides": [2, 2]}, "(2,4,5,6), W(4,3,2,2), W(6)"),
    ("ConvTranspose", {"group": 4, "strides": [2, 2]}, "(2,4,5,6), W(4,1,2,2), W(4)"),
    ("ConvTranspose", {"strides": [2, 2], "output_shape": [10, 12]}, "(2,4,5,6), W(4,3,3,3), W(3)"),
    (
        "ConvTranspose",
        {"strides": [2, 2], "output_shape": [10, 12], "auto_pad": "SAME_UPPER"},
        "(2,4,5,6), W(4,3,3,3), W(3)",
    ),
    (
        "ConvTranspose",
        {"strides": [2, 2], "output_shape": [10, 12], "auto_pad": "SAME_LOWER"},
        "(2,4,5,6), W(4,3,3,3), W(3)",
    ),
    ("ConvTranspose", {"strides": [2, 2], "output_shape": [12, 14]}, "(2,4,5,6), W(4,3,3,3), W(3)"),
    ("ConvTranspose", {"strides": [2, 2], "auto_pad": "SAME_UPPER"}, "(2,4,5,6), W(4,3,3,3)"),
    ("ConvTranspose", {"strides": [2, 2], "auto_pad": "SAME_LOWER"}, "(2,4,5,6), W(4,3,3,3)"),
    ("ConvTranspose", {"strides": [2, 2], "auto_pad": "VALID"}, "(2,4,5,6), W(4,3,3,3)"),
    ("ConvTranspose", {"strides": [2], "pads": [1, 1]}, "(2,4,5), W(4,3,4)"),
    # products
    ("Gemm", {"transB": 1}, "(2,4), W(3,4), W(3)"),
    ("Gemm", {"transB": 1}, "(2,4), W(3,4)"),
    ("Gemm", {}, "(2,4), W(4,3), W(3)"),
    ("Gemm", {}, "(2,4), W(4,3), W(1,3)"),
    ("Gemm", {}, "(2,4), W(4,3), W()"),
    ("Gemm", {"transB": 1, "beta": 0.5}, "(2,4), W(3,4), W(3)"),
    ("Gemm", {"transA": 1, "alpha": 0.3, "beta": 0.5}, "(4,2), W(4,3), (2,3)"),
    ("Gemm", {"alpha": 0.3}, "(2,4), W(4,3)"),
    ("MatMul", {}, "(2,3,4), W(4,5)"),
    ("MatMul", {}, "W(5,3), (2,3,4)"),
    ("MatMul", {}, "(2,3,4), (2,4,5)"),
    ("MatMul", {}, "(2,3,4), W(4)"),
    ("Einsum", {"equation": "bij,bjk->bik"}, "(2,3,4), (2,4,5)"),
    # normalisation
    ("BatchNormalization", {"epsilon": 1e-3}, "(2,4,3,3), W(4), W(4), W(4), P(4)"),
    ("BatchNormalization-9", {}, "(2,4), W(4), W(4), W(4), P(4)"),
    ("BatchNormalization@ref", {"training_mode": 1, "momentum": 0.7}, "(2,4,3,3), W(4), W(4), W(4), P(4) -> 3"),
    ("InstanceNormalization", {"epsilon": 1e-2}, "(2,4,3,3), W(4), W(4)"),
    ("InstanceNormalization", {}, "(2,4,7), W(4), W(4)"),
    ("GroupNormalization", {"num_groups": 2, "epsilon": 1e-2}, "(2,4,3,3), W(4), W(4)"),
    ("GroupNormalization-18@ref", {"num_groups": 2}, "(2,6,3,3), W(2), W(2)"),
    ("LayerNormalization", {"epsilon": 1e-2}, "(2,3,4), W(4), W(4)"),
    ("LayerNormalization", {"axis": 1}, "(2,3,4), W(3,4), W(3,4)"),
    ("LayerNormalization", {"axis": -1}, "(2,3,4), W(4)"),
    ("LayerNormalization@ref", {"axis": 1}, "(2,3,4), W(4), W(4)"),
    ("LayerNormalization", {}, "(2,3,4), W(4), W(4) -> 3"),
    ("RMSNormalization-23@ref", {"axis": -1, "epsilon": 1e-2}, "(2,3,4), W(4)"),
    ("LRN", {"size": 3, "alpha": 0.3, "beta": 0.6, "bias": 1.5}, "(2,6,3,3)"),
    ("LRN", {"size": 5}, "(2,6,3,3)"),
    ("LpNormalization", {}, "(2,3,4)"),
    ("LpNormalization", {"axis": 1, "p": 1}, "(2,3,4)"),
    ("MeanVarianceNormalization", {}, "(2,3,4,4)"),
    ("MeanVarianceNormalization@ref", {"axes": [1, 2, 3]}, "(2,3,4,4)"),
    *(
        line
        for op in ("Softmax", "LogSoftmax", "Hardmax")
        for line in (
            (op, {}, "(2,3,4)"),
            (op, {"axis": 1}, "(2,3,4)"),
            (f"{op}-11", {}, "(2,3,4)"),
            (f"{op}-11", {"axis": 2}, "(2,3,4)"),
            (f"{op}-11", {"axis": 0}, "(2,3,4)"),
            (f"{op}-11", {"axis": -1}, "(2,3,4)"),
        )
    ),
    # pooling
    ("MaxPool", {"kernel_shape": [3, 2], "strides": [2, 1]}, "(2,3,7,6)"),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, "(2,3,7,6)"),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, "(2,3,8,6)"),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}, "(2,3,8,6)"),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1], "ceil_mode": 1}, "(2,3,7,6)"),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 1, 1, 0], "ceil_mode": 1}, "(2,3,8,9)"),
    ("MaxPool", {"kernel_shape": [2, 2], "dilations": [2, 2]}, "(2,3,7,6)"),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}, "(2,3,7,6)"),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"}, "(2,3,7,6)"),
    ("MaxPool", {"kernel_shape": [3, 3], "auto_pad": "VALID"}, "(2,3,7,6)"),
    ("MaxPool", {"kernel_shape": [3], "pads": [1, 1]}, "(2,3,7)"),
    ("MaxPool", {"kernel_shape": [2, 2, 2]}, "(2,3,4,5,4)"),
    ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]}, "(2,3,7,6) -> 2"),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, "(2,3,7,6) -> 2"),
    ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2], "storage_order": 1}, "(2,3,4,6) -> 2"),
    ("MaxUnpool", {"kernel_shape": [2, 2], "strides": [2, 2]}, "(1,1,2,2), p[[[[5,7],[13,15]]]]"),
    ("MaxUnpool@ref", {"kernel_shape": [2, 2], "strides": [2, 2]}, "(1,1,2,2), p[[[[5,7],[13,15]]]], [1,1,5,5]"),
    *(
        ("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "count_include_pad": count, **pads}, "(2,3,8,7)")
        for count in (0, 1)
        for pads in (
            {},
            {"pads": [1, 1, 1, 1]},
            {"pads": [0, 0, 1, 1]},
            {"ceil_mode": 1},
            {"ceil_mode": 1, "pads": [1, 1, 1, 1]},
            {"ceil_mode": 1, "pads": [1, 0, 1, 0]},
            {"ceil_mode": 1, "pads": [0, 0, 1, 1]},
            {"auto_pad": "SAME_UPPER"},
            {"auto_pad": "SAME_LOWER"},
            {"auto_pad": "VALID"},
            {"dilations": [2, 2]},
            {"dilations": [2, 1], "pads": [1, 1, 1, 1]},
        )
    ),
    ("AveragePool", {"kernel_shape": [3], "pads": [1, 1]}, "(2,3,7)"),
    ("AveragePool", {"kernel_shape": [2, 2, 2], "strides": [2, 2, 2]}, "(2,3,4,5,4)"),
    ("LpPool", {"kernel_shape": [2, 2], "p": 3}, "(2,3,5,6)"),
    ("LpPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, "(2,3,5,6)"),
    ("LpPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1], "ceil_mode": 1}, "(2,3,6,7)"),
    ("LpPool", {"kernel_shape": [2, 2], "dilations": [2, 2]}, "(2,3,5,6)"),
    ("GlobalAveragePool", {}, "(2,3,4,5)"),
    ("GlobalAveragePool", {}, "(2,3,5)"),
    ("GlobalMaxPool", {}, "(2,3,4,5)"),
    ("GlobalLpPool", {"p": 3}, "(2,3,4,5)"),
    # reductions and positions
    *(
        line
        for op in REDUCTIONS.split()
        for line in (
            (op, {}, "(2,3,4), [1,2]"),
            (op, {"keepdims": 0}, "(2,3,4), [-1]"),
            (op, {"keepdims": 0}, "(2,3,4)"),
            (op, {}, "(2,3,4)"),
            (f"{op}-11", {"axes": [0, 2]}, "(2,3,4)"),
            (f"{op}-11", {"axes": [1], "keepdims": 0}, "(2,3,4)"),
        )
    ),
    ("ReduceSum", {"noop_with_empty_axes": 1}, "(2,3,4)"),
    ("ReduceSumSquare@ref", {"noop_with_empty_axes": 1}, "(2,3,4)"),
    ("ReduceSum", {}, "i(2,3,4), [1]"),
    ("ReduceMax", {}, "i(2,3,4), [1]"),
    ("ArgMax", {"axis": 1}, "(2,3,4)"),
    ("ArgMax", {"axis": -1, "keepdims": 0}, "(2,3,4)"),
    ("ArgMax", {"axis": 1, "select_last_index": 1}, "f[[1,3,3,2]]"),
    ("ArgMin", {"axis": 2}, "(2,3,4)"),
    ("ArgMin", {"axis": 1, "select_last_index": 1, "keepdims": 0}, "f[[4,3,3,5]]"),
    ("CumSum", {}, "(2,3,4), n1"),
    ("CumSum", {"exclusive": 1}, "(2,3,4), n-1"),
    ("CumSum", {"reverse": 1}, "(2,3,4), n1"),
    ("CumSum", {"reverse": 1, "exclusive": 1}, "(2,3,4), n1"),
    ("TopK", {}, "(2,3,6), [2] -> 2"),
    ("TopK", {}, "i(2,3,16), [9] -> 2"),  # of equal ones the first
    ("TopK", {"largest": 0}, "i(2,3,16), [9] -> 2"),
    ("TopK", {"axis": 1, "largest": 0}, "(2,5,3), [2] -> 2"),
    # moving
    ("Reshape", {}, "(2,3,4), [2,12]"),
    ("Reshape", {}, "(2,3,4), [0,-1]"),
    ("Reshape", {}, "(2,6,4), [2,2,3,4]"),
    ("Reshape", {}, "(2,6,4), [-1,2,3,4]"),
    ("Reshape", {}, "(2,3,4), [4,6]"),
    ("Reshape", {}, "(2,3,4), [-1]"),
    ("Reshape", {"allowzero": 1}, "(2,3,4), [2,4,3]"),
    ("Reshape", {}, "(2,3,4), s(2,12)"),
    ("Expand", {}, "W(3,1), s(2,3,4)"),
    ("Tile", {}, "(2,3), s(2,3)"),
    ("Mul", {}, "(2,3,4), w(5)"),
    ("Mul", {}, "(2,4,3), w(2,3,4)"),
    ("Slice", {}, "(4,6,5), s(1,2), s(3,4)"),
    ("Pad", {}, "(2,3), s(1,1,2,1)"),
    ("Resize", resize("nearest", "asymmetric", nearest_mode="floor"), "(2,3,5,4), _, _, s(2,3,10,12)"),
    ("Flatten", {}, "(2,3,4)"),
    ("Flatten", {"axis": 0}, "(2,3,4)"),
    ("Flatten", {"axis": 2}, "(2,3,4)"),
    ("Flatten", {"axis": 3}, "(2,3,4)"),
    ("Flatten", {"axis": -1}, "(2,3,4)"),
    ("Squeeze", {}, "(2,1,3,1), [1,-1]"),
    ("Squeeze", {}, "(2,1,3,1)"),
    ("Squeeze-11", {"axes": [1]}, "(2,1,3,1)"),
    ("Unsqueeze", {}, "(2,3), [0,-1]"),
    ("Unsqueeze", {}, "(2,3), [-1,1]"),
    ("Unsqueeze-11", {"axes": [1, 3]}, "(2,3)"),
    ("Transpose", {"perm": [0, 2, 3, 1]}, "(2,3,4,5)"),
    ("Transpose", {}, "(2,3,4)"),
    ("Expand", {}, "(2,1,4), [2,3,4]"),
    ("Expand", {}, "(3,1), [2,3,4]"),
    ("Expand", {}, "(2,3,4), [1,3,1]"),
    ("Expand", {}, "W(1,3), [2,3]"),
    ("Tile", {}, "(2,3), [2,3]"),
    ("Concat", {"axis": 1}, "(2,3,4), (2,1,4), W(2,2,4)"),
    ("Concat", {"axis": -1}, "(2,3,4), (2,3,1)"),
    ("Concat", {"axis": 0}, "(2,3), W(1,3)"),
    ("Split", {"axis": 1}, "(2,6,4), [1,2,3] -> 3"),
    ("Split", {"axis": -1, "num_outputs": 3}, "(2,3,7) -> 3"),
    ("Split-13", {"axis": 1}, "(2,6,4) -> 3"),
    ("Split-11", {"axis": 1, "split": [4, 2]}, "(2,6,4) -> 2"),
    ("Slice", {}, "(4,6,5), [1,0], [3,-1]"),
    ("Slice", {}, "(4,6,5), [1], [99], [1], [2]"),
    ("Slice", {}, "(4,6,5), [-1], [-99], [1], [-1]"),
    ("Slice", {}, "(4,6,5), [4,3], [1,0], [-1,1], [-2,-1]"),
    ("Slice", {}, "(4,6,5), [-3], [9223372036854775807], [2]"),
    ("Slice-9", {"starts": [1, 0], "ends": [3, -1]}, "(4,6,5)"),
    ("Slice-9", {"starts": [1], "ends": [3], "axes": [2]}, "(4,6,5)"),
    ("Gather", {"axis": 1}, "(2,4,3), [3,0,-2]"),
    ("Gather", {"axis": 1}, "(2,4,3), n2"),
    ("Gather", {"axis": -1}, "(2,4,3), n-1"),
    ("Gather", {}, "(4,3), [[0,1],[3,-1]]"),
    ("GatherElements", {"axis": 1}, "(2,3), [[0,1],[2,-1]]"),
    ("GatherND", {}, "(3,4,2), [[0,1],[2,3]]"),
    ("GatherND", {"batch_dims": 1}, "(2,4,3), [[1],[0]]"),
    ("ScatterElements", {"axis": 1}, "(2,3), [[0,1],[2,-1]], (2,2)"),
    ("ScatterElements", {"axis": 1, "reduction": "add"}, "(2,3), [[0,0],[2,-1]], (2,2)"),
    ("OneHot", {}, "p[0,2,1], [3], f[0.1,0.9]"),
    ("OneHot", {"axis": 0}, "p[0,2,1], [3], f[0.1,0.9]"),
    ("EyeLike", {"k": 1}, "(3,4)"),
    ("EyeLike", {"dtype": TensorProto.INT64}, "(3,4)"),
    ("Trilu", {}, "(2,3,4)"),
    ("Trilu", {"upper": 0}, "(2,3,4), n1"),
    ("Pad", {}, "(2,3,4), [0,1,0,0,0,2], f0.5"),
    ("Pad", {}, "(2,3,4), [1,2], _, [-1]"),
    ("Pad", {}, "(2,3,4), [0,0,-1,0,0,-1]"),
    ("Pad", {"mode": "reflect"}, "(2,3,4,5), [0,0,1,2,0,0,2,1]"),
    ("Pad", {"mode": "edge"}, "(2,3,4,5), [0,0,1,2,0,0,2,1]"),
    ("Pad", {"mode": "reflect"}, "(2,3,4), [0,2,1,0,1,0]"),
    ("Pad", {"mode": "edge"}, "(2,3,4), [1,2,1,0,1,0]"),
    ("Pad", {"mode": "wrap"}, "(2,3,4), [0,2,1,0,1,3]"),
    ("Pad-10", {"pads": [0, 0, 1, 0, 0, 2], "value": 0.5}, "(2,3,4)"),
    ("Pad-10", {"pads": [0, 0, 1, 0, 0, 2], "mode": "edge"}, "(2,3,4)"),
    ("DepthToSpace", {"blocksize": 2}, "(2,8,3,4)"),
    ("DepthToSpace", {"blocksize": 2, "mode": "CRD"}, "(2,8,3,4)"),
    ("SpaceToDepth", {"blocksize": 2}, "(2,3,4,6)"),
    # sizes
    ("Shape", {}, "(2,3,4)"),
    ("Shape", {"start": 1, "end": -1}, "(2,3,4,5)"),
    ("Size", {}, "(2,3,4)"),
    ("ConstantOfShape", {}, "s(2,3)"),
    ("EyeLike", {}, "(3,4)"),
    ("Range", {}, "n1, n7, n2"),
    ("Range", {}, "f1, f3, f0.5"),
    ("Range", {}, "n1, z1(2,5), n2"),
    # resampling
    *(
        ("Resize", resize(mode, coordinates), f"(2,3,5,4), _, f[1,1,{scales}]")
        for mode in ("linear", "cubic")
        for coordinates in COORDINATES
        for scales in ("2,3", "0.6,1.5", "1.3,0.5")
        if (coordinates, scales) != ("align_corners", "1.3,0.5")  # sizes that are not whole: refused
    ),
    *(
        ("Resize", resize("nearest", coordinates, nearest_mode=rounding), f"(2,3,5,4), _, f[1,1,{scales}]")
        for coordinates in COORDINATES
        for rounding in ROUNDINGS
        for scales in ("2,3", "0.7,1.5")
        if (coordinates, scales) != ("align_corners", "0.7,1.5")
    ),
    *(
        ("Resize", resize(mode, coordinates), "(2,3,5,4), _, _, [2,3,7,6]")
        for mode in ("linear", "cubic", "nearest")
        for coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
    ),
    ("Resize", resize("linear", "pytorch_half_pixel"), "(2,3,5,4), _, _, [2,3,1,6]"),
    ("Resize", resize("linear", "align_corners"), "(2,3,5,4), _, _, [2,3,1,6]"),
    ("Resize", resize("nearest", "asymmetric", axes=[2, 3], nearest_mode="floor"), "(2,3,5,4), _, f[2,3]"),
    ("Resize", resize("linear", "half_pixel", axes=[3, 2]), "(2,3,5,4), _, _, [6,7]"),
    (
        "Resize@ref",
        resize("linear", "half_pixel", axes=[2, 3], keep_aspect_ratio_policy="not_larger"),
        "(2,3,5,4), _, _, [10,12]",
    ),
    (
        "Resize@ref",
        resize("linear", "half_pixel", axes=[2, 3], keep_aspect_ratio_policy="not_smaller"),
        "(2,3,5,4), _, _, [10,12]",
    ),
    ("Resize", resize("cubic", "half_pixel", cubic_coeff_a=-0.5), "(2,3,5,4), _, f[1,1,2,3]"),
    ("Resize", resize("cubic", "half_pixel", exclude_outside=1), "(2,3,5,4), _, f[1,1,2,3]"),
    *(
        ("Resize", resize(mode, "half_pixel", antialias=1, exclude_outside=outside), f"(2,3,8,9), _, f[1,1,{scales}]")
        for mode in ("linear", "cubic")
        for outside in (0, 1)
        for scales in ("0.5,0.4", "0.5,1.5", "2,2")
    ),
    ("Resize", resize("linear", "half_pixel", antialias=1), "(2,3,8,9), _, _, [2,3,4,3]"),
    (
        "Resize",
        resize("linear", "tf_crop_and_resize", extrapolation_value=0.7),
        "(1,3,5,4), f[0,0,0.2,0.1,1,1,0.9,1.2], _, [1,3,6,7]",
    ),
    (
        "Resize",
        resize("nearest", "tf_crop_and_resize", extrapolation_value=0.7),
        "(1,3,5,4), f[0,0,0.2,0.1,1,1,0.9,1.2], _, [1,3,6,7]",
    ),
    ("Resize", resize("linear", "half_pixel"), "(2,3,6), _, f[1,1,2]"),
    ("Resize", resize("linear", "half_pixel"), "(2,3,4,5,3), _, f[1,1,2,1,2]"),
    ("Resize-11", resize("nearest", "tf_half_pixel_for_nn"), "(2,3,5,4), f[], f[1,1,2,3]"),
    ("Resize-10", {"mode": "nearest"}, "(2,3,5,4), f[1,1,2,3]"),
    ("Resize-10", {"mode": "linear"}, "(2,3,5,4), f[1,1,2,3]"),
    ("Upsample-9", {"mode": "nearest"}, "(2,3,5,4), f[1,1,2,3]"),
    ("Upsample-9", {"mode": "linear"}, "(2,3,5,4), f[1,1,2,3]"),
    *(
        ("GridSample", {"mode": mode, "padding_mode": padding, "align_corners": aligned}, "(2,3,5,4), (2,3,4,2)")
        for mode in ("linear", "nearest", "cubic")
        for padding in ("zeros", "border", "reflection")
        for aligned in (0, 1)
    ),
    # where versions and types differ
    ("Upsample-7", {"mode": "nearest", "scales": [1.0, 1.0, 1.5, 2.5]}, "(2,3,6,4)"),
    ("Upsample-7", {"mode": "linear", "scales": [1.0, 1.0, 1.5, 1.25]}, "(2,3,6,4)"),
    ("Resize-10", {"mode": "nearest"}, "(2,3,5,10), f[1,1,2,0.6]"),
    ("ConvTranspose", {"auto_pad": "SAME_UPPER", "strides": [2, 2], "kernel_shape": [1, 1]}, "(2,3,4,4), W(3,2,1,1)"),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}, "u(2,3,8,6)"),
    ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}, "(2,3,5,5)"),
    ("Resize", resize("nearest", "asymmetric", nearest_mode="floor"), "u(2,3,5,4), _, f[1,1,2,3]"),
    ("OneHot", {}, "p[7,1,-1,-9], n4, f[0.1,2]"),
    ("SpaceToDepth-28@ref", {"blocksize": 2, "mode": "CRD"}, "(2,3,4,6)"),
    # quantised networks, detectors, transformers
    ("QuantizeLinear", {}, "(2,3,4), f0.1"),
    ("QuantizeLinear", {"axis": 1}, "(2,3,4), P(3)"),
    ("DequantizeLinear", {}, "u(2,3,4), f0.1"),
    ("DequantizeLinear", {"axis": 1}, "u(2,3,4), P(3)"),
    ("DequantizeLinear@ref", {"axis": 2, "block_size": 2}, "u(2,3,4), P(2,3,2)"),
    ("Attention-23@ref", {}, "(2,4,3,8), (2,4,5,8), (2,4,5,6)"),
    ("Attention-23@ref", {"is_causal": 1, "softcap": 2.0, "scale": 0.2}, "(2,4,5,8), (2,4,5,8), (2,4,5,6), (5,5)"),
    ("Attention-23@ref", {"q_num_heads": 4, "kv_num_heads": 2}, "(2,3,32), (2,5,16), (2,5,12), b(3,5)"),
    (
        "Attention-24@ref",
        {"is_causal": 1, "qk_matmul_output_mode": 3},
        "(2,4,3,8), (2,4,3,8), (2,4,3,6), _, (2,4,2,8), (2,4,2,6) -> 4",
    ),
    ("ScatterND", {}, "(4,3,2), [[0],[-1]], (2,3,2)"),
    ("ScatterND", {}, "(4,3,2), [[0,1],[2,-1]], (2,2)"),
    *(("ScatterND", {"reduction": r}, "(4,3,2), [[0,1],[0,1],[2,2]], (3,2)") for r in ("add", "mul", "max", "min")),
    (
        "RoiAlign",
        {"output_height": 2, "output_width": 3, "sampling_ratio": 2},
        "(2,3,8,9), f[[0,0,5,6],[1,2,7,7]], [1,0]",
    ),
    (
        "RoiAlign-10",
        {"output_height": 2, "output_width": 2, "spatial_scale": 0.5},
        "(2,3,8,9), f[[0,0,9,9],[1,2,14,7]], [1,0]",
    ),
    *(("AffineGrid@ref", {"align_corners": aligned}, "(2,2,3), [2,3,4,5]") for aligned in (0, 1)),
    ("Col2Im", {}, "(2,12,20), [5,6], [2,2]"),
    ("Col2Im", {"pads": [0, 1, 1, 0], "strides": [2, 1], "dilations": [1, 2]}, "(2,12,15), [5,6], [2,2]"),
    ("CenterCropPad@ref", {}, "(5,4,7), [3,9,7]"),
    ("CenterCropPad@ref", {"axes": [-1, 1]}, "(2,4,7), [4,7]"),
    ("NonMaxSuppression", {}, "(2,30,4), (2,3,30), n5, f0.3, f-1"),
    ("NonMaxSuppression", {"center_point_box": 1}, "(2,30,4), (2,3,30), n20, f0.1"),
    ("NonMaxSuppression", {}, "(2,30,4), (2,3,30)"),
]

SAFE = {
    "Acosh": (1.1, 3.0),
    "Log": (0.5, 3.0),
    "Sqrt": (0.5, 3.0),
    "ReduceLogSum": (0.5, 3.0),
    "Acos": (-0.9, 0.9),
    "Atanh": (-0.9, 0.9),
}
SAFE |= {"Asin": (-0.9, 0.9), "Pow": (0.5, 2.0), "Mod": (0.5, 2.0), "GridSample": (-1.2, 1.2)}
KINDS = {"b": np.bool_, "i": np.int64, "k": np.int64, "u": np.uint8, "p": np.int64, "n": np.int64, "f": np.float32}


@dataclass
class Case:
    """A line as a model, its feeds, and which outputs are looked at."""

    op: str
    opset: int
    reference: bool
    node: onnx.NodeProto
    makers: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    feeds: dict[str, np.ndarray] = field(default_factory=dict)

    def model(self) -> onnx.ModelProto:
        """The one-node model."""
        inputs = [
            helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for k, v in self.feeds.items()
        ]
        outputs = [onnx.ValueInfoProto(name=name) for name in self.node.output]
        constants = [numpy_helper.from_array(v, k) for k, v in self.constants.items()]
        for maker in self.makers:
            maker.name = maker.output[0]
        graph = helper.make_graph([*self.makers, self.node], "case", inputs, outputs, constants)
        opsets = [
            helper.make_opsetid("", self.opset),
            *([helper.make_opsetid(self.node.domain, 1)] if self.node.domain else []),
        ]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    def expected(self) -> list[np.ndarray]:
        """What the runtime, or the reference, computes."""
        model = self.model()
        if self.reference:
            return [np.asarray(v) for v in ReferenceEvaluator(model).run(None, self.feeds)]
        options = ort.SessionOptions()
        options.log_severity_level = 4
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return [np.asarray(v) for v in session.run(None, self.feeds)]

    def computed(self) -> list[np.ndarray]:
        """What torch computes."""
        reading = Reading(gs.import_onnx(self.model()))
        values = {weight.name: reading.initial(weight) for weight in reading.weights}
        inputs = [torch.from_numpy(self.feeds[name].copy()) for name in reading.inputs]
        return [np.asarray(v) for v in reading(values, inputs)]


def case(line: Line) -> Case:
    """The line, read."""
    head, attributes, text = line
    reference = head.endswith("@ref")
    op, _, version = head.removesuffix("@ref").partition("-")
    text, _, count = text.partition("->")
    outputs = [f"out_{k}" for k in range(int(count or 1))]
    made = Case(op, int(version or OPSET), reference, onnx.NodeProto())
    rng = np.random.default_rng(0)
    names = [_take(made, item, (f"in_{slot}", rng)) for slot, item in enumerate(_pieces(text))]
    domain, _, kind = op.rpartition("::")
    made.node = helper.make_node(kind, names, outputs, name="node", domain=domain, **attributes)
    return made


def _pieces(text: str) -> list[str]:
    """The parts between commas outside brackets."""
    found, depth = [""], 0
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth == 0:
            found.append("")
        else:
            found[-1] += letter
    return [piece.strip() for piece in found]


def _take(made: Case, item: str, how: tuple[str, np.random.Generator]) -> str:
    """The input of that name, made as the item says; '' for an absent one."""
    name, rng = how
    if item == "_":
        return ""
    if item[0] in "szw":
        return _computed(made, item, name)
    if item[0] in "WP":
        made.constants[name] = rng.uniform(0.5 if item[0] == "P" else -1, 1.5, _shape(item)).astype(np.float32)
        return name
    letter = item[0] if item[0].isalpha() else ""
    if "(" in item:
        made.feeds[name] = _activation(made.op, letter, _shape(item), rng)
        return name
    values = np.array(
        eval(item[item.index("[") :] if "[" in item else item[1:], {"inf": np.inf}), KINDS.get(letter, np.int64)
    )
    fed = letter == "p" or made.op in ("IsInf", "ArgMax", "ArgMin")
    (made.feeds if fed else made.constants)[name] = values
    return name


def _computed(made: Case, item: str, name: str) -> str:
    """Shape of an input of its own, and what the letter says of it."""
    like = f"{name}_like"
    made.feeds[like] = np.zeros(_shape(item[item.index("(") :]), np.float32)
    if item[0] == "s":
        made.makers.append(helper.make_node("Shape", [like], [name]))
    elif item[0] == "w":
        made.makers.append(helper.make_node("Shape", [like], [f"{name}_whole"]))
        made.makers.append(helper.make_node("Cast", [f"{name}_whole"], [name], to=TensorProto.FLOAT))
    else:
        made.constants[f"{name}_at"] = np.array(int(item[1]))
        made.makers.append(helper.make_node("Shape", [like], [f"{name}_whole"]))
        made.makers.append(helper.make_node("Gather", [f"{name}_whole", f"{name}_at"], [name]))
    return name


def _activation(op: str, letter: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if letter == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if letter:
        return rng.integers(-5 if letter == "i" else 1, 6, shape).astype(KINDS[letter])
    return rng.uniform(*SAFE.get(op, (-2.0, 2.0)), shape).astype(np.float32)


def _shape(item: str) -> tuple[int, ...]:
    return tuple(int(size) for size in re.findall(r"\d+", item[item.index("(") :]))


def same(computed: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    """The same shapes and kinds, and values within rounding."""
    return all(
        a.shape == b.shape and a.dtype.kind == b.dtype.kind and np.allclose(a, b, rtol=1e-4, atol=2e-5, equal_nan=True)
        for a, b in zip(computed, expected, strict=True)
    )


@pytest.mark.parametrize("line", LINES, ids=[f"{k}-{line[0]}" for k, line in enumerate(LINES)])
def test_torch_computes_what_the_standard_says(line: Line) -> None:
    made = case(line)
    computed, expected = made.computed(), made.expected()
    assert same(computed, expected), f"{line}\n{computed}\n{expected}"


# What no operator does: a line, and another that computes something else for the same inputs.
WRONG: list[tuple[Line, Line]] = [
    (("Clip-6", {"min": -0.5, "max": 0.5}, "(2,3,4)"), ("Clip-6", {"min": -0.5, "max": 0.6}, "(2,3,4)")),
    (("Softmax", {"axis": 1}, "(2,3,4)"), ("Softmax-11", {"axis": 1}, "(2,3,4)")),
    (("Gelu", {}, "(2,3,4)"), ("Gelu", {"approximate": "tanh"}, "(2,3,4)")),
    (
        ("Conv", {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, "(2,4,8,8), W(8,4,3,3)"),
        ("Conv", {"auto_pad": "SAME_LOWER", "strides": [2, 2]}, "(2,4,8,8), W(8,4,3,3)"),
    ),
    (
        ("AveragePool", {"kernel_shape": [3, 3], "pads": [1] * 4}, "(2,3,8,7)"),
        ("AveragePool", {"kernel_shape": [3, 3], "pads": [1] * 4, "count_include_pad": 1}, "(2,3,8,7)"),
    ),
    (("DepthToSpace", {"blocksize": 2}, "(2,8,3,4)"), ("DepthToSpace", {"blocksize": 2, "mode": "CRD"}, "(2,8,3,4)")),
    (("Pad", {"mode": "reflect"}, "(2,3,4), [0,0,1,0,0,1]"), ("Pad", {"mode": "edge"}, "(2,3,4), [0,0,1,0,0,1]")),
    (("Mod", {"fmod": 1}, "i(2,3), n3"), ("Mod", {}, "i(2,3), n3")),
    *(
        (
            ("Resize", resize("linear", "half_pixel"), "(2,3,5,4), _, f[1,1,2,3]"),
            ("Resize", resize("linear", other), "(2,3,5,4), _, f[1,1,2,3]"),
        )
        for other in ("align_corners", "asymmetric")
    ),
    *(
        (
            ("Resize", resize("nearest", "half_pixel", nearest_mode="floor"), "(2,3,5,4), _, f[1,1,2,3]"),
            ("Resize", resize("nearest", "half_pixel", nearest_mode=other), "(2,3,5,4), _, f[1,1,2,3]"),
        )
        for other in ("ceil", "round_prefer_floor")
    ),
]


@pytest.mark.parametrize("pair", WRONG, ids=[f"{k}-{pair[0][0]}" for k, pair in enumerate(WRONG)])
def test_another_meaning_would_be_noticed(pair: tuple[Line, Line]) -> None:
    right, wrong = (case(line) for line in pair)
    assert same(right.computed(), right.expected())
    assert not same(wrong.computed(), right.expected())


def test_every_row_has_a_line() -> None:
    assert {line[0].removesuffix("@ref").partition("-")[0] for line in LINES} == set(TORCH)


def test_torch_runs_every_operator_whose_axes_are_known() -> None:
    assert set(RULES) - set(TORCH) == set()  # an operator that cannot be run goes here, with the reason


REFUSED: list[tuple[Line, str]] = [
    (("Cast", {"to": TensorProto.FLOAT8E4M3FN}, "(2,3)"), "no element type FLOAT8E4M3FN"),
    (("Reshape", {}, "(2,3), i(1)"), "its input 'in_1' is an input of the graph; only constants and sizes"),
    (("ReduceSum", {}, "(2,3), i(1)"), "its input 'in_1' is an input of the graph; only a constant"),
    (
        ("MaxPool", {"kernel_shape": [3, 3], "pads": [0, 0, 1, 1]}, "(2,3,7,6) -> 2"),
        "positions of a pooling with uneven",
    ),
    (("ReduceMean", {}, "i(2,3)"), "does not compute it for its inputs"),
    (("Resize", {"mode": "linear"}, "u(2,3,8,6), _, f[1,1,2,2]"), "only 'nearest' resamples"),
    (("Dropout", {}, "(2,3), f0.5, b1"), "it drops values at random"),
    (("RoiAlign", {"mode": "max"}, "(2,3,8,9), f[[0,0,5,6]], [1]"), "not the largest"),
]


@pytest.mark.parametrize(("line", "reason"), REFUSED, ids=[line[0] for line, _ in REFUSED])
def test_what_a_row_cannot_do_is_refused_with_the_node(line: Line, reason: str) -> None:
    with pytest.raises(RefusedModel, match=rf"node 'node' \({line[0]}\) cannot be read by torch: .*{reason}"):
        Reading(gs.import_onnx(case(line).model()))


def test_an_even_neighbourhood_has_its_odd_channel_behind() -> None:
    """LRN of even size, which no runtime here computes: Σ over channels c − ⌊(size − 1) / 2⌋ … c + ⌈(size − 1) / 2⌉."""
    made = case(("LRN", {"size": 4, "alpha": 0.5}, "(2,6,3,3)"))
    x = made.feeds["in_0"].astype(np.float64)
    sums = np.stack([np.square(x[:, max(c - 1, 0) : c + 3]).sum(axis=1) for c in range(6)], axis=1)
    assert np.allclose(made.computed()[0], x / (1 + 0.5 / 4 * sums) ** 0.75, atol=1e-6)


COMPILED = [
    line
    for line in LINES
    if line[0] in ("Slice", "Expand", "Pad", "ConvTranspose") or line[1].get("auto_pad") == "SAME_UPPER"
]
COMPILED += [line for line in LINES if "s(" in line[2] or line[0] in ("Upsample-9", "Reshape")]


@pytest.mark.filterwarnings("ignore")
def test_what_follows_the_sizes_of_a_run_compiles_without_graph_breaks() -> None:
    for line in COMPILED[::6]:
        made = case(line)
        reading = Reading(gs.import_onnx(made.model()))
        values = {weight.name: reading.initial(weight) for weight in reading.weights}
        inputs = [torch.from_numpy(made.feeds[name].copy()) for name in reading.inputs]
        torch.compiler.reset()
        compiled = torch.compile(reading.__call__, fullgraph=True, backend="eager")
        assert same([np.asarray(value) for value in compiled(values, inputs)], made.computed()), line
