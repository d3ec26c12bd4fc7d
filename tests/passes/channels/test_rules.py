"""Every operator of the table, as lines: what its axes mean.

A line is (operator, attributes, rule[, facts]); the operator may carry an opset (`Slice-9`). In a rule `inputs ->
outputs`

* `n h w` are sizes without channels, numbers too; `a`, `b`, … are channels with identities (sizes in LETTERS);
* `(n,a,h,w)` is an activation, `W(…)` an initializer, `[…]` and `f[…]` constants of integers and floats, `_` nothing;
* on an initializer's axis `+o` creates channels, `-a` consumes them, `a` has one entry per channel that starts at 0,
  `a:1` at 1;
* `a+b` joins, `a[1:]` picks, `a*2` tiles, `a@2` repeats each, `x(2)` are two channels that are fixed,
  a vector that nothing else makes has the channels of a constant, or those that a number adds;
* channels in a list of numbers or an attribute (`"=a"`) say: this number counts them; `-a` counts from the end, `a+5`
  goes 5 beyond;
* `p[…]` is a list of positions that follows the channels it picks.

Facts: `a=b` unites; `frozen a: reason`, `drift a: reason` quote a piece of the reason. What a line does not say must
not be.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from passes.channels.atoms import Identities
from passes.channels.identities import flow_identities
from passes.channels.rules.table import RULES
from passes.graph.shapes import infer
from passes.graph.view import view

OPSET = 21
LETTERS = {"a": 4, "b": 6, "c": 4, "o": 8, "p": 2}
SIZES = {"n": 2, "h": 4, "w": 6}

Line = tuple[str, Mapping[str, object], str] | tuple[str, Mapping[str, object], str, str]

UNARY = """
    Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Cast Ceil Celu Clip Cos Cosh Dropout Elu Erf Exp Floor Gelu HardSigmoid HardSwish
    Identity IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Swish-24
    Tan Tanh ThresholdedRelu
"""
BINARY = """
    Add And BitwiseAnd BitwiseOr Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul Or Pow PRelu Sub Sum Xor
"""
REDUCTIONS = """
    ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare
"""
ATTRIBUTES: Mapping[str, Mapping[str, object]] = {"Cast": {"to": TensorProto.DOUBLE}, "Mod": {"fmod": 1}}

POOLED: Mapping[str, object] = {"kernel_shape": [2, 2], "strides": [2, 2]}
LINES: list[Line] = [
    # element by element
    *((op, ATTRIBUTES.get(op, {}), "(n,a,h,w) -> (n,a,h,w)") for op in UNARY.split()),
    ("Clip", {}, "(n,a,h,w), W(), _ -> (n,a,h,w)"),
    ("Clip", {}, "(n,a,h,w), _, W() -> (n,a,h,w)"),
    ("Clip-6", {"min": 0.0, "max": 6.0}, "(n,h,a) -> (n,h,a)"),
    ("Dropout", {}, "(n,a,h,w), W() -> (n,a,h,w)"),
    ("CastLike", {}, "(n,a,h,w), W(1) -> (n,a,h,w)"),
    ("CastLike", {}, "(n,a,h,w), (n,c,h,w) -> (n,a,h,w)"),
    *((op, ATTRIBUTES.get(op, {}), "(n,a,h,w), (n,c,h,w) -> (n,a,h,w)", "a=c") for op in BINARY.split()),
    ("Where", {}, "(n,a,h,w), (n,c,h,w), W() -> (n,a,h,w)", "a=c"),
    ("Sum", {}, "(n,a,h,w), (n,c,1,1), (n,a,h,1) -> (n,a,h,w)", "a=c"),
    ("Add", {}, "(n,a,h,w), W(a,1,1) -> (n,a,h,w)"),
    ("Add", {}, "(n,a,h,w), W(1,a,1,1) -> (n,a,h,w)"),
    ("Add", {}, "W(a), (n,h,w,a) -> (n,h,w,a)"),
    ("Add", {}, "(n,a,h,w), W() -> (n,a,h,w)"),
    ("Add", {}, "(n,a,h,w), W(h,w) -> (n,a,h,w)"),
    ("Mul", {}, "(n,a,h,w), (n,c,1,1) -> (n,a,h,w)", "a=c"),
    ("Mul", {}, "(n,a,h,w), (n,1,h,w) -> (n,a,h,w)"),
    ("Mul", {}, "(n,a,h,w), W(a:1,1,1) -> (n,a,h,w)"),
    ("Mul", {}, "W(a:1,1,1), (n,a,h,w) -> (n,a,h,w)"),
    ("Div", {}, "(n,a,h,w), W(a:1,1,1) -> (n,a,h,w)"),
    ("Div", {}, "W(a,1,1), (n,a,h,w) -> (n,a,h,w)"),
    ("Pow", {}, "(n,a,h,w), W(a:1,1,1) -> (n,a,h,w)"),
    ("PRelu", {}, "(n,a,h,w), W(a:0.25,1,1) -> (n,a,h,w)"),
    ("Add", {}, "(n,a,h,w), (n,4,h,w) -> (n,a,h,w)", "frozen a: merges it with 'in_1', whose channels are fixed"),
    ("Add", {}, "(n,a,1), (n,1,c) -> _", "frozen a+c: combines channels on different axes"),
    ("Add", {}, "(n,4,h,w), W(4,1,1) -> _"),
    # weights
    ("Conv", {"pads": [1, 1, 1, 1]}, "(n,a,h,w), W(+o,-a,3,3), W(o) -> (n,o,h,w)"),
    ("Conv", {"strides": [2, 2]}, "(n,a,h,w), W(+o,-a,1,1) -> (n,o,2,3)"),
    ("Conv", {"pads": [2, 2, 2, 2], "dilations": [2, 2]}, "(n,a,h,w), W(+o,-a,3,3) -> (n,o,h,w)"),
    ("Conv", {"pads": [1, 1]}, "(n,a,w), W(+o,-a,3) -> (n,o,w)"),
    ("Conv", {}, "(n,a,3,h,w), W(+o,-a,1,1,1) -> (n,o,3,h,w)"),
    ("Conv", {}, "(n,3,h,w), W(+o,3,1,1) -> (n,o,h,w)"),
    ("Conv", {"group": "=a"}, "(n,a,h,w), W(a,1,1,1), W(a) -> (n,a,h,w)"),
    ("Conv", {"group": "=a", "pads": [2, 2, 2, 2], "dilations": [2, 2]}, "(n,a,h,w), W(a,1,3,3) -> (n,a,h,w)"),
    ("Conv", {"group": "=a"}, "(n,a,h,w), W(a@2,1,1,1), W(a@2) -> (n,a@2,h,w)"),
    ("Conv", {"group": 2}, "(n,a,h,w), W(+c*2,-a[:2],1,1), W(c*2) -> (n,c*2,h,w)", "a[:2]=a[2:]"),
    ("Conv", {"group": 3}, "(n,6,h,w), W(+p*3,2,1,1) -> (n,p*3,h,w)"),
    ("Conv", {"group": 4}, "(n,4,h,w), W(8,1,1,1) -> _"),
    ("Conv", {}, "(n,a,h,w), (8,4,1,1) -> _", "frozen a: weight of 'node' is computed"),
    ("Conv", {}, "(n,a,h,w), W(+o,-a,1,1), (8) -> (n,o,h,w)", "frozen o: bias of 'node' is computed"),
    ("Conv", {"pads": [1, 1]}, "(n,1,a), W(1,1,3) -> (n,1,a)", "drift a: slides over its channels"),
    ("Conv", {}, "(n,1,a), W(1,1,3) -> _", "frozen a: slides over its channels"),
    ("ConvTranspose", {"strides": [2, 2]}, "(n,a,h,w), W(-a,+o,2,2), W(o) -> (n,o,8,12)"),
    ("ConvTranspose", {"group": "=a"}, "(n,a,h,w), W(a,1,1,1), W(a) -> (n,a,h,w)"),
    ("ConvTranspose", {"group": "=a"}, "(n,a,h,w), W(a,2,1,1) -> (n,a@2,h,w)"),
    ("ConvTranspose", {"group": 2}, "(n,a,h,w), W(-a,+c,1,1), W(c*2) -> (n,c*2,h,w)", "a[:2]=a[2:]"),
    ("Gemm", {}, "(n,a), W(-a,+o), W(o) -> (n,o)"),
    ("Gemm", {"transB": 1}, "(n,a), W(+o,-a), W(o) -> (n,o)"),
    ("Gemm", {"transB": 1}, "(n,a), W(+o,-a), W(1,o) -> (n,o)"),
    ("Gemm", {"transB": 1}, "(n,a), W(+o,-a), W(1) -> (n,o)"),
    ("Gemm", {"transB": 1}, "(n,a), W(+o,-a) -> (n,o)"),
    ("Gemm", {"transA": 1}, "(a,n), W(4,8) -> _", "frozen a: multiplies it in an order without a rule"),
    ("Gemm", {}, "(n,a), (4,o) -> _", "frozen a: multiplies it in an order; frozen o: uses it as a weight"),
    ("MatMul", {}, "(n,h,a), W(-a,+o) -> (n,h,o)"),
    ("MatMul", {}, "(n,a,w), W(6,8) -> (n,a,8)"),
    ("MatMul", {}, "W(+o,-a), (n,a,w) -> (n,o,w)"),
    ("MatMul", {}, "W(8,6), (n,w,a) -> (n,8,a)"),
    ("MatMul", {}, "(n,h,a), (n,c,h) -> (n,h,h)", "a=c; drift a: sums products over its channels"),
    ("MatMul", {}, "(n,a,h), (n,h,w) -> (n,a,w)"),
    ("MatMul", {}, "(n,w,h), (n,h,a) -> (n,w,a)"),
    ("MatMul", {}, "(n,a,h), (n,h,c) -> _", "frozen a+c: makes a matrix of channels by channels"),
    ("MatMul", {}, "(n,a,h), (n,h,b) -> (n,4,b)", "frozen a: makes a matrix of channels by channels"),
    ("MatMul", {}, "(n,b,h), (n,h,a) -> (n,b,4)", "frozen a: makes a matrix of channels by channels"),
    ("MatMul", {}, "(n,h,w,a), W(4,-a,+o) -> (n,h,w,o)"),
    ("MatMul", {}, "(n,h,w,a), W(3,1,4,-a,+o) -> (3,n,h,w,o)"),
    ("MatMul", {}, "(n,h,a,6), W(4,6,8) -> (n,h,a,8)"),
    ("MatMul", {}, "(n,a,h,6), W(4,6,8) -> _", "frozen a: has a matrix for each of them"),
    ("MatMul", {}, "(n,a,h,6), W(1,6,8) -> (n,a,h,8)"),
    ("MatMul", {}, "W(4,+o,-a), (n,h,a,w) -> (n,h,o,w)"),
    ("MatMul", {}, "W(4,8,6), (n,h,6,a) -> (n,h,8,a)"),
    ("MatMul", {}, "(n,h,a), (n,4,w) -> _", "frozen a: sums it against an axis that is fixed"),
    ("MatMul", {}, "(n,a,h,w), (n,c,w,1) -> (n,a,h,1)", "a=c"),
    # normalisation
    ("BatchNormalization", {}, "(n,a,h,w), W(a:1), W(a), W(a), W(a:1) -> (n,a,h,w)"),
    ("BatchNormalization", {}, "(n,a), W(a:1), W(a), W(a), W(a:1) -> (n,a)"),
    ("BatchNormalization", {}, "(n,a,h), (4), W(4), W(4), W(4) -> (n,a,h)", "frozen a: computed statistics"),
    ("InstanceNormalization", {}, "(n,a,h,w), W(a:1), W(a) -> (n,a,h,w)"),
    ("InstanceNormalization", {}, "(n,3,a), W(3), W(3) -> (n,3,a)", "drift a: normalises over its channels"),
    (
        "GroupNormalization",
        {"num_groups": 2},
        "(n,a,h,w), W(a:1), W(a) -> (n,a,h,w)",
        "a[:2]=a[2:]; drift a: normalises over its channels",
    ),
    (
        "GroupNormalization-18",
        {"num_groups": 2},
        "(n,a,h,w), W(2), W(2) -> (n,a,h,w)",
        "a[:2]=a[2:]; drift a: normalises over",
    ),
    (
        "LayerNormalization",
        {"axis": -1},
        "(n,h,w,a), W(a:1), W(a) -> (n,h,w,a)",
        "drift a: normalises over its channels",
    ),
    (
        "LayerNormalization",
        {"axis": 1},
        "(n,a,h), W(a:1,h), W(a,h) -> (n,a,h)",
        "drift a: normalises over its channels",
    ),
    ("LayerNormalization", {"axis": -1}, "(n,a,w), W(w), W(w) -> (n,a,w)"),
    ("RMSNormalization-23", {"axis": -1}, "(n,h,a), W(a:1) -> (n,h,a)", "drift a: normalises over its channels"),
    ("LRN", {"size": 3}, "(n,a,h,w) -> (n,a,h,w)", "drift a: neighbouring channels"),
    ("LpNormalization", {}, "(n,h,a) -> (n,h,a)", "drift a: normalises over its channels"),
    ("LpNormalization", {"axis": 2}, "(n,a,h) -> (n,a,h)"),
    ("MeanVarianceNormalization", {}, "(n,a,h,w) -> (n,a,h,w)"),
    (
        "MeanVarianceNormalization",
        {"axes": [1, 2, 3]},
        "(n,a,h,w) -> (n,a,h,w)",
        "drift a: normalises over its channels",
    ),
    *(
        line
        for op in ("Softmax", "LogSoftmax", "Hardmax")
        for line in (
            (op, {}, "(n,h,a) -> (n,h,a)", "drift a: normalises over its channels"),
            (op, {"axis": 1}, "(n,a,h,w) -> (n,a,h,w)", "drift a: normalises over its channels"),
            (op, {"axis": -1}, "(n,a,w) -> (n,a,w)"),
            (f"{op}-11", {}, "(n,h,a) -> (n,h,a)", "drift a: normalises over its channels"),
            (f"{op}-11", {"axis": 2}, "(n,a,h) -> (n,a,h)"),
            (f"{op}-11", {"axis": 2}, "(n,h,w,a) -> (n,h,w,a)", "drift a: normalises over its channels"),
        )
    ),
    # pooling, reductions, positions
    ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]}, "(n,a,h,w) -> (n,a,2,3), (n,a,2,3)"),
    ("MaxPool", {"kernel_shape": [3], "pads": [1, 1]}, "(n,1,a) -> (n,1,a)", "drift a: slides over its channels"),
    ("AveragePool", {"kernel_shape": [2, 2]}, "(n,a,h,w) -> (n,a,3,5)"),
    ("AveragePool", {"kernel_shape": [2]}, "(n,3,a) -> _", "frozen a: slides over its channels"),
    ("LpPool", {"kernel_shape": [2, 2]}, "(n,a,h,w) -> (n,a,3,5)"),
    *((op, {}, "(n,a,h,w) -> (n,a,1,1)") for op in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")),
    ("GlobalAveragePool", {}, "(n,h,a) -> _", "drift a: reduces over its channels"),
    *(
        line
        for op in REDUCTIONS.split()
        for line in (
            (op, {}, "(n,a,h,w), [2,3] -> (n,a,1,1)"),
            (op, {}, "(n,a,h,w), [-1,1] -> _", "drift a: reduces over its channels"),
            (op, {"keepdims": 0}, "(n,h,a), [1] -> (n,a)"),
            (op, {}, "(n,a,h) -> _", "drift a: reduces over its channels"),
            (f"{op}-11", {"axes": [2]}, "(n,a,h) -> (n,a,1)"),
            (f"{op}-11", {"axes": [1], "keepdims": 0}, "(n,a,h) -> _", "drift a: reduces over its channels"),
        )
    ),
    ("ReduceSum", {"noop_with_empty_axes": 1}, "(n,a,h) -> (n,a,h)"),
    *(
        line
        for op in ("ArgMax", "ArgMin")
        for line in (
            (op, {"axis": 2}, "(n,a,h) -> (n,a,1)"),
            (op, {"axis": 1, "keepdims": 0}, "(n,h,a) -> (n,a)"),
            (op, {"axis": 1}, "(n,a,h) -> _", "frozen a: returns positions among its channels"),
        )
    ),
    # moving channels
    ("Transpose", {"perm": [0, 2, 3, 1]}, "(n,a,h,w) -> (n,h,w,a)"),
    ("Transpose", {}, "(n,a,h) -> (h,a,n)"),
    ("Reshape", {}, "(n,a,h,w), [2,a,24] -> (n,a,24)"),
    ("Reshape", {}, "(n,a,h,w), [0,0,-1] -> (n,a,24)"),
    ("Reshape", {}, "(n,a,h,w), [2,-1] -> (n,a@24)"),
    ("Reshape", {}, "(n,a,h,w), [2,a@24] -> (n,a@24)"),
    ("Reshape", {}, "(n,h,a), [2,a*4] -> (n,a*4)"),
    ("Reshape", {}, "(n,a,h,w), [2,2,a[:2],4,6] -> (n,2,a[:2],h,w)", "a[:2]=a[2:]"),
    ("Reshape", {}, "(n,b,h,w), [2,b[::2],2,4,6] -> (n,b[::2],2,h,w)", "b[::2]=b[1::2]"),
    ("Reshape", {}, "(n,o,h), [2,2,2,o[:2],4] -> (n,2,2,o[:2],h)", "o[0:2]=o[2:4]; o[0:2]=o[4:6]; o[0:2]=o[6:]"),
    ("Reshape", {"allowzero": 1}, "(n,a,h), [2,a,4] -> (n,a,h)"),
    ("Reshape", {}, "(n,3,a), [2,a,3] -> (n,a[[0,3,2,1]],3)", "a[:1]=a[1:]"),
    ("Flatten", {}, "(n,a,1,1) -> (n,a)"),
    ("Flatten", {}, "(n,a,h,w) -> (n,a@24)"),
    ("Flatten", {}, "(n,h,w,a) -> (n,a*24)"),
    ("Flatten", {"axis": 2}, "(1,a,h,w) -> (a,24)"),
    ("Squeeze", {}, "(n,a,1,1), [2,3] -> (n,a)"),
    ("Squeeze", {}, "(n,1,a,1) -> (n,a)"),
    ("Squeeze-1", {"axes": [1]}, "(n,1,h,a) -> (n,h,a)"),
    ("Unsqueeze", {}, "(n,a), [2,3] -> (n,a,1,1)"),
    ("Unsqueeze", {}, "(n,a), [-2] -> (n,1,a)"),
    ("Unsqueeze-11", {"axes": [0]}, "(n,a) -> (1,n,a)"),
    ("Concat", {"axis": 1}, "(n,a,h,w), (n,b,h,w) -> (n,a+b,h,w)"),
    ("Concat", {"axis": -1}, "(n,h,b), (n,h,a), (n,h,b) -> (n,h,b+a+b)"),
    ("Concat", {"axis": 1}, "(n,a,h,w), (n,2,h,w) -> (n,a+x(2),h,w)"),
    ("Concat", {"axis": 1}, "W(2,p,4), (n,a,h) -> (n,p+a,h)"),
    ("Concat", {"axis": 1}, "(n,a,h), W(2,p,4), W(2,c,4) -> (n,a+p+c,h)"),
    ("Concat", {"axis": 2}, "(n,a,h), (n,c,w) -> (n,a,10)", "a=c"),
    ("Concat", {"axis": 2}, "(n,a,h), W(2,a,1) -> (n,a,5)"),
    ("Concat", {"axis": 2}, "(n,a,h), (n,4,w) -> (n,a,10)", "frozen a: joins it with 'in_1', whose channels are fixed"),
    ("Concat", {"axis": 2}, "(n,a,4), (n,4,c) -> _", "frozen a+c: joins channels on different axes"),
    ("Split", {"axis": 1}, "(n,b,h), [b[:2],b[2:]] -> (n,b[:2],h), (n,b[2:],h)"),
    ("Split", {"axis": -1}, "(n,h,a), [a[:2],a[2:]] -> (n,h,a[:2]), (n,h,a[2:])"),
    ("Split", {"axis": 2}, "(n,a,h), [1,3] -> (n,a,1), (n,a,3)"),
    (
        "Split-11",
        {"axis": 1, "split": ["=o[:2]", "=o[2:5]", "=o[5:]"]},
        "(n,o,h) -> (n,o[:2],h), (n,o[2:5],h), (n,o[5:],h)",
    ),
    ("Slice", {}, "(n,b,h), [b[:1]], [b[:4]], [1] -> (n,b[1:4],h)"),
    ("Slice", {}, "(n,b,h), [0], [b[:4]], [1] -> (n,b[:4],h)"),
    ("Slice", {}, "(n,b,h), [b[:2]], [999999999999], [1] -> (n,b[2:],h)"),
    ("Slice", {}, "(n,b,h), [b[:2]], [b+3], [-2], [1] -> (n,b[2:],h)"),
    ("Slice", {}, "(n,b,h), [0], [-b[4:]], [1] -> (n,b[:4],h)"),
    ("Slice", {}, "(n,b,h), [-b[3:]], [b], [1] -> (n,b[3:],h)"),
    ("Slice", {}, "(n,b,h), [1,0], [2,b[:3]], [2,1] -> (n,b[:3],1)"),
    ("Slice", {}, "(n,b,h), [0], [2], [2] -> (n,b,2)"),
    ("Slice", {}, "(n,b,h), [0], [6], [1], [2] -> (n,b[::2],h)", "frozen b: takes its channels in steps of 2"),
    ("Slice", {}, "(n,b,h), [-1], [-99], [1], [-1] -> (n,b[::-1],h)", "frozen b: takes its channels in steps of -1"),
    ("Slice-9", {"axes": [1], "starts": ["=b[:1]"], "ends": ["=b[:5]"]}, "(n,b,h) -> (n,b[1:5],h)"),
    ("Slice-9", {"axes": [2], "starts": [1], "ends": [3]}, "(n,b,h) -> (n,b,2)"),
    ("Gather", {"axis": 1}, "(n,a,h), p[3,0,-3] -> (n,a[[3,0,1]],h)"),
    ("Gather", {"axis": 2}, "(n,a,h), [1,0] -> (n,a,2)"),
    ("Gather", {"axis": 1}, "(n,h,a), W[2] -> (n,a)"),
    ("Gather", {"axis": 1}, "(n,a,h), W[2] -> _", "frozen a: picks single channels of it"),
    ("Expand", {}, "(n,a,1,1), [2,a,4,6] -> (n,a,h,w)"),
    ("Expand", {}, "(n,a,1), [1,1,6] -> (n,a,w)"),
    ("Expand", {}, "(a,1), [2,a,4] -> (n,a,h)"),
    ("Tile", {}, "(n,a,h), [1,3,2] -> (n,a*3,8)"),
    ("Pad", {}, "(n,a,h), [0,0,1,0,0,2] -> (n,a,7)"),
    ("Pad", {}, "(n,a,h), [0,p,0,0,c,0] -> (n,p+a+c,h)"),
    ("Pad", {}, "(n,a,h), [p,c], W(), [1] -> (n,p+a+c,h)"),
    ("Pad", {}, "(n,h,a), [0,0,0,0,0,p] -> (n,h,a+p)"),
    ("Pad", {"mode": "edge"}, "(n,a,h), [0,0,0,0,2,0] -> _", "frozen a: repeats some of its channels"),
    ("Pad", {"mode": "reflect"}, "(n,a,h), [0,0,1,0,0,2] -> (n,a,7)"),
    ("Pad", {}, "(n,a,h), [0,0,0,0,-1,0] -> _", "frozen a: cuts its channels"),
    ("Pad-10", {"pads": [0, "=p", 0, 0, "=c", 0]}, "(n,a,h) -> (n,p+a+c,h)"),
    ("Pad-10", {"pads": [0, 0, 0, 0, "=p", 0], "value": 1.0}, "(n,a,h) -> (n,a+p,h)"),
    ("Resize", {}, "(n,a,h,w), _, f[1,1,2,2] -> (n,a,8,12)"),
    ("Resize", {}, "(n,a,h,w), _, _, [2,a,8,12] -> (n,a,8,12)"),
    ("Resize", {"axes": [2, 3]}, "(n,a,h,w), _, _, [8,12] -> (n,a,8,12)"),
    ("Resize", {}, "(n,a,h,w), _, f[1,2,1,1] -> _", "frozen a: resamples its channels"),
    ("Upsample-9", {}, "(n,a,h,w), f[1,1,2,2] -> (n,a,8,12)"),
    (
        "DepthToSpace",
        {"blocksize": 2, "mode": "DCR"},
        "(n,o,h,w) -> (n,o[:2],8,12)",
        "o[:2]=o[2:4]; o[:2]=o[4:6]; o[:2]=o[6:]",
    ),
    ("DepthToSpace", {"blocksize": 2, "mode": "CRD"}, "(n,o,h,w) -> (n,o[::4],8,12)", "o[:1]=o[1:4]; o[4:5]=o[5:]"),
    ("DepthToSpace", {"blocksize": 2}, "(n,4,h,a) -> _", "frozen a: mixes it with space"),
    ("SpaceToDepth", {"blocksize": 2}, "(n,a,h,w) -> (n,a*4,2,3)"),
    ("SpaceToDepth", {"blocksize": 2}, "(n,3,h,a) -> _", "frozen a: mixes it with space"),
    ("MaxUnpool", POOLED, "(n,a,h,w), (n,c,h,w) -> (n,a,8,12)", "a=c"),
    ("MaxUnpool", POOLED, "(n,a,h,w), (n,c,h,w), [2,a,8,12] -> (n,a,8,12)", "a=c"),
    ("MaxUnpool", POOLED, "(n,a,h,w), W(n,4,h,w) -> _", "frozen a: needs a position for each of its values"),
    # about sizes, not channels
    ("Shape", {}, "(n,a,h,w) -> _"),
    ("Size", {}, "(n,a,h,w) -> _"),
    ("ConstantOfShape", {}, "[2,4] -> _"),
    ("Range", {}, "W[0], W[4], W[1] -> _"),
]

# What no operator does: each of these lines must be found wrong.
WRONG: list[Line] = [
    ("Relu", {}, "(n,a,h,w) -> (n,a[::-1],h,w)"),
    ("Relu", {}, "(n,a,h,a) -> (n,a,h,a)"),
    ("Add", {}, "(n,a,h,w), (n,c,h,w) -> (n,a,h,w)"),
    ("Add", {}, "(n,a,h,w), (n,c,h,w) -> (n,a,h,w)", "a=c[::-1]"),
    ("Add", {}, "(n,a,h,w), W(1,4,1,1) -> (n,a,h,w)"),
    ("Mul", {}, "(n,a,h,w), W(a,1,1) -> (n,a,h,w)"),
    ("Conv", {}, "(n,a,h,w), W(+o,a,1,1) -> (n,o,h,w)"),
    ("Conv", {"group": "=a"}, "(n,a,h,w), W(a*2,1,1,1) -> (n,a*2,h,w)"),
    ("Conv", {"group": 4}, "(n,a,h,w), W(a,1,1,1) -> (n,a,h,w)"),
    ("Reshape", {}, "(n,a,h,w), [2,-1] -> (n,a*24)"),
    ("Reshape", {}, "(n,a,h,w), [2,4,24] -> (n,a,24)"),
    ("Reshape", {}, "(n,a,h,w), [2,2,a[:2],4,6] -> (n,2,a[:2],h,w)"),
    ("Concat", {"axis": 1}, "(n,a,h,w), (n,b,h,w) -> (n,b+a,h,w)"),
    ("Split", {"axis": 1}, "(n,a,h), [a[:2],a[2:]] -> (n,a[2:],h), (n,a[:2],h)"),
    ("Gather", {"axis": 1}, "(n,a,h), p[3,0] -> (n,a[[0,3]],h)"),
    ("Softmax", {"axis": 1}, "(n,a,h,w) -> (n,a,h,w)"),
    ("Softmax", {"axis": 2}, "(n,a,h,w) -> (n,a,h,w)", "drift a: normalises over its channels"),
    ("ArgMax", {"axis": 1}, "(n,a,h) -> _", "frozen a: no such reason"),
    ("Pad", {}, "(n,a,h), [0,p,0,0,c,0] -> (n,c+a+p,h)"),
    ("Pad", {}, "(n,a,h), [0,1,0,0,2,0] -> (n,x(1)+a+x(2),h)"),
    ("Concat", {"axis": 1}, "(n,a,h), W(2,1,4) -> (n,a+x(1),h)"),
    ("Slice", {}, "(n,b,h), [2], [b], [1] -> (n,b[2:],h)"),
    ("Transpose", {"perm": [0, 2, 3, 1]}, "(n,a,h,w) -> (n,a,w,h)"),
]


# --- reading a line -----------------------------------------------------------------------------


class Vec(tuple[str, ...]):
    """Identities by name, `-` for a fixed one; `beyond` and `from_end` say how a number counts them."""

    beyond = 0
    from_end = False

    def __add__(self, other: object) -> Vec:
        if isinstance(other, int):
            made = Vec(self)
            made.beyond = other
            return made
        assert isinstance(other, Vec)
        return Vec(tuple(self) + tuple(other))

    def __mul__(self, times: object) -> Vec:
        return Vec(tuple(self) * int(str(times)))

    def __matmul__(self, times: int) -> Vec:
        return Vec(name for name in self for _ in range(times))

    def __neg__(self) -> Vec:
        made = Vec(self)
        made.from_end = True
        return made

    def __getitem__(self, key: object) -> Vec:  # type: ignore[override]
        return Vec(np.array(self, object)[key])

    @property
    def number(self) -> int:
        """The number that counts these channels."""
        return -len(self) if self.from_end else len(self) + self.beyond


NAMES = {
    **SIZES,
    **{letter: Vec(f"{letter}{i}" for i in range(size)) for letter, size in LETTERS.items()},
    "x": lambda count: Vec("-" * count),
}


def read(text: str) -> int | Vec:
    """A size, or identities."""
    return eval(text, {}, dict(NAMES))  # the lines of this file, nobody else's


def pieces(text: str, separator: str = ",") -> list[str]:
    """Parts between separators outside brackets."""
    found, depth = [""], 0
    for letter in text.strip():
        depth += (letter in "([") - (letter in ")]")
        if letter == separator and depth == 0:
            found.append("")
        else:
            found[-1] += letter
    return [part.strip() for part in found if part.strip()]


@dataclass(frozen=True)
class Axis:
    """One axis of a tensor in a line: its size or identities, its mark (+, - or nothing), and what a fresh entry
    holds.
    """

    meaning: int | Vec
    mark: str = ""
    fill: float = 0.0

    @property
    def size(self) -> int:
        return self.meaning if isinstance(self.meaning, int) else len(self.meaning)


def axes_of(item: str, *, weight: bool = False) -> list[Axis]:
    """The axes in `(n,a,h,w)` or `W(+o,-a,3,3)`."""
    found = []
    for part in pieces(item[item.index("(") + 1 : item.rindex(")")]):
        mark = part[0] if weight and part[0] in "+-" else ""
        text, _, fill = (
            part.removeprefix(mark).partition(":") if weight and "[" not in part else (part.removeprefix(mark), "", "")
        )
        found.append(Axis(read(text), mark, float(fill or 0)))
    return found


BOOLEAN = {"And", "Or", "Xor", "Not"}
WHOLE = {"BitwiseAnd", "BitwiseOr", "BitwiseNot"}
SAFE = {
    "Acosh": (1.1, 3.0),
    "Log": (0.5, 3.0),
    "Sqrt": (0.5, 3.0),
    "ReduceLogSum": (0.5, 3.0),
    "Acos": (-0.9, 0.9),
    "Atanh": (-0.9, 0.9),
}
SAFE |= {"Asin": (-0.9, 0.9), "Pow": (0.5, 2.0), "Mod": (0.5, 2.0)}


class Case:
    """One line as a model: the node, its inputs, and what is expected of them."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.op, _, version = line[0].partition("-")
        self.opset = int(version or OPSET)
        self.facts = line[3] if len(line) > 3 else ""
        left, _, right = line[2].partition("->")
        self.rng = np.random.default_rng(0)
        self.makers: list[onnx.NodeProto] = []
        self.feeds: list[onnx.ValueInfoProto] = []
        self.direct: dict[str, tuple[int, ...]] = {}  # activations, by name
        self.types: dict[str, int] = {}
        self.constants: dict[str, np.ndarray] = {}
        self.labels: dict[str, tuple[int, Vec]] = {}
        self.sites: dict[tuple[str, int], Axis] = {}
        self.sizes: dict[tuple[object, ...], Vec] = {}
        self.picks: list[int] | None = None
        self.inputs = [self.take(item, slot) for slot, item in enumerate(pieces(left))]
        self.results = [None if item == "_" else axes_of(item) for item in pieces(right)]
        self.attributes = {key: self.attribute(key, value) for key, value in line[1].items()}
        self.outputs = [f"out_{i}" for i in range(len(self.results))]
        domain, _, op = self.op.rpartition("::")
        self.opsets = [helper.make_opsetid("", self.opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
        self.node = helper.make_node(op, self.inputs, self.outputs, name="node", domain=domain, **self.attributes)

    def attribute(self, key: str, value: object) -> object:
        if isinstance(value, str) and value.startswith("="):
            vector = read(value[1:])
            assert isinstance(vector, Vec)
            self.sizes["node", key, -1] = vector
            return vector.number
        if isinstance(value, list):
            entries = [read(v[1:]) if isinstance(v, str) else v for v in value]
            self.sizes |= {("node", key, i): entry for i, entry in enumerate(entries) if isinstance(entry, Vec)}
            return [entry.number if isinstance(entry, Vec) else entry for entry in entries]
        return value

    def kind(self, slot: int) -> int:
        """The element type of an input."""
        if self.op == "MaxUnpool" and slot == 1:
            return TensorProto.INT64
        if self.op in BOOLEAN or (self.op == "Where" and slot == 0):
            return TensorProto.BOOL
        return TensorProto.INT32 if self.op in WHOLE else TensorProto.FLOAT

    def sample(self, shape: tuple[int, ...]) -> np.ndarray:
        low, high = SAFE.get(self.op, (-2.0, 2.0))
        return np.asarray(self.rng.uniform(low, high, shape), np.float32)

    def take(self, item: str, slot: int) -> str:
        if item == "_":
            return ""
        name = f"in_{slot}"
        if item[0] == "(":
            return self.activation(name, axes_of(item), slot)
        if item.startswith("W("):
            axes = axes_of(item, weight=True)
            self.sites |= {(name, i): axis for i, axis in enumerate(axes) if isinstance(axis.meaning, Vec)}
            shape = tuple(axis.size for axis in axes)
            values = (
                self.rng.uniform(0.1, 0.9, shape) if "Normalization" in self.op or not shape else self.sample(shape)
            )
            self.constants[name] = np.asarray(values).astype(helper.tensor_dtype_to_np_dtype(self.kind(slot)))
            return name
        entries = [read(part) for part in pieces(item[item.index("[") + 1 : -1])]
        numbers = [entry.number if isinstance(entry, Vec) else entry for entry in entries]
        if item[0] == "p":
            self.picks = [int(n) for n in numbers]
        self.sizes |= {(name, i): entry for i, entry in enumerate(entries) if isinstance(entry, Vec)}
        values = np.array(numbers, np.float32 if item[0] == "f" else np.int64)
        self.constants[name] = values.reshape(()) if item[0] == "W" else values
        return name

    def activation(self, name: str, axes: list[Axis], slot: int) -> str:
        """Channels on an axis come from a matrix product with 3 columns, transposed to where they belong."""
        shape = tuple(axis.size for axis in axes)
        carrying = [i for i, axis in enumerate(axes) if isinstance(axis.meaning, Vec)]
        assert len(carrying) <= 1, "a tensor has one axis of channels"
        self.direct[name] = shape
        self.types[name] = self.kind(slot)
        if not carrying:
            self.feeds.append(helper.make_tensor_value_info(name, self.kind(slot), shape))
            return name
        axis = carrying[0]
        vector = axes[axis].meaning
        assert isinstance(vector, Vec)
        letter = vector[0][0]
        self.labels[name] = (axis, vector)
        rest = tuple(size for i, size in enumerate(shape) if i != axis)
        self.feeds.append(helper.make_tensor_value_info(f"{name}.raw", TensorProto.FLOAT, (*rest, 3)))
        self.constants.setdefault(f"make_{letter}", np.ones((3, shape[axis]), np.float32))
        order = list(range(len(rest)))
        order.insert(axis, len(rest))
        self.makers += [
            helper.make_node("MatMul", [f"{name}.raw", f"make_{letter}"], [f"{name}.made"], name=f"make_{name}"),
            helper.make_node("Transpose", [f"{name}.made"], [f"{name}.moved"], perm=order, name=f"move_{name}"),
        ]
        if self.kind(slot) == TensorProto.FLOAT:
            self.makers[-1].output[0] = name
        else:
            self.makers.append(
                helper.make_node("Cast", [f"{name}.moved"], [name], to=self.kind(slot), name=f"cast_{name}")
            )
        return name

    def groups(self) -> dict[str, set[str]]:
        """Every identity with those it is one with."""
        vectors = [vector for _, vector in self.labels.values()]
        vectors += [axis.meaning for axis in self.sites.values() if isinstance(axis.meaning, Vec)]
        vectors += self.sizes.values()
        together = {name: {name} for vector in vectors for name in tuple(vector)}
        for fact in pieces(self.facts, ";"):
            if fact.startswith(("frozen ", "drift ")):
                continue
            left, right = (read(side) for side in fact.split("="))
            assert isinstance(left, Vec)
            assert isinstance(right, Vec)
            for one, other in zip(tuple(left) * (len(right) // len(left)), tuple(right), strict=True):
                joined = together[one] | together[other]
                for name in joined:
                    together[name] = joined
        return together

    def reasons(self, kind: str) -> dict[str, str]:
        """Every identity that is frozen or drifts, with the piece of its reason."""
        found = {}
        for fact in pieces(self.facts, ";"):
            if fact.startswith(kind):
                what, _, why = fact.removeprefix(kind).partition(": ")
                vector = read(what.strip())
                assert isinstance(vector, Vec)
                found |= dict.fromkeys(tuple(vector), why)
        return found

    def identities(self) -> Identities:
        """What the passes find."""
        initializers = [numpy_helper.from_array(array, name) for name, array in self.constants.items()]
        graph = helper.make_graph([*self.makers, self.node], "line", self.feeds, [], initializers)
        imported = gs.import_onnx(helper.make_model(graph, opset_imports=self.opsets))
        seen = view(imported)
        return flow_identities(seen, infer(seen))


class Reading:
    """What the passes found, compared with a line."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.found = case.identities()
        self.classes: dict[str, int] = {"-": -1}
        for name, (axis, vector) in case.labels.items():
            label = self.found.labels[name]
            assert label.axis == axis
            self.bind(vector, label.ids)
        for (tensor, axis), meaning in case.sites.items():
            if meaning.mark == "+":
                assert (tensor, axis) in self.found.sites, f"{tensor} axis {axis} creates nothing"
                assert isinstance(meaning.meaning, Vec)
                self.bind(meaning.meaning, self.found.sites[tensor, axis].ids)
        for vector, ids in self.made_by_no_weight():
            self.bind(vector, ids)

    def made_by_no_weight(self) -> Iterator[tuple[Vec, np.ndarray]]:
        """Channels that only a number counts (padded ones) or a constant holds, and their identities."""
        written = {size.place: size.ids for size in self.found.sizes}
        yield from (
            (vector, written[place])
            for place, vector in self.case.sizes.items()
            if place in written and self.is_new(vector)
        )
        for place, axis in self.case.sites.items():
            if isinstance(axis.meaning, Vec) and place in self.found.sites and self.is_new(axis.meaning):
                yield axis.meaning, self.found.sites[place].ids

    def is_new(self, vector: Vec) -> bool:
        return self.classes.keys().isdisjoint(tuple(vector))

    def bind(self, vector: Vec, ids: np.ndarray) -> None:
        assert len(vector) == len(ids)
        for name, c in zip(tuple(vector), ids.tolist(), strict=True):
            assert self.classes.setdefault(name, c) == c, f"{name} is not one channel"

    def ids(self, vector: Vec) -> list[int]:
        return [self.classes[name] for name in tuple(vector)]

    def compare(self) -> None:
        """Every fact of the line, and no other."""
        self.outputs()
        self.weights()
        self.numbers()
        self.unions()
        self.reasons("frozen")
        self.reasons("drift")

    def outputs(self) -> None:
        for name, axes in zip(self.case.outputs, self.case.results, strict=True):
            label = self.found.labels.get(name)
            expected = [(i, axis.meaning) for i, axis in enumerate(axes or ()) if isinstance(axis.meaning, Vec)]
            actual = [] if label is None else [(label.axis, label.ids.tolist())]
            assert actual == [(i, self.ids(vector)) for i, vector in expected], name

    def weights(self) -> None:
        sites = {key: site for key, site in self.found.sites.items() if site.node == "node"}
        assert set(sites) == set(self.case.sites)
        for key, axis in self.case.sites.items():
            site = sites[key]
            assert isinstance(axis.meaning, Vec)
            role = {"+": ("creates", True), "-": ("consumes", True), "": ("creates", False)}[axis.mark]
            assert (site.role, site.dense, site.fill) == (*role, axis.fill), key
            assert site.ids.tolist() == self.ids(axis.meaning), key

    def numbers(self) -> None:
        actual = {size.place: (size.ids.tolist(), size.from_end, size.beyond) for size in self.found.sizes}
        for cut in self.found.splits:
            place = ("in_1",) if len(self.case.inputs) > 1 else ("node", "split")
            actual |= {(*place, i): (part.tolist(), False, 0) for i, part in enumerate(cut.parts)}
        assert actual == {place: (self.ids(v), v.from_end, v.beyond) for place, v in self.case.sizes.items()}
        picks = [pick.picks.tolist() for pick in self.found.picks]
        if self.case.picks is None:
            assert picks == []
        else:
            size = len(self.found.labels["in_0"].ids)
            assert picks == [[position % size for position in self.case.picks]]

    def unions(self) -> None:
        together = self.case.groups()
        assert set(together) == set(self.classes) - {"-"}
        for name, group in together.items():
            same = {other for other in together if self.classes[other] == self.classes[name]}
            assert same == group, f"{name} is united with {sorted(same)}"

    def reasons(self, kind: str) -> None:
        atoms = self.found.atoms
        actual = {k: getattr(atom, kind) for k, atom in enumerate(atoms) if getattr(atom, kind) is not None}
        expected = {int(self.found.atom_of[self.classes[name]]): why for name, why in self.case.reasons(kind).items()}
        assert set(actual) == set(expected), f"{kind}: {actual}"
        for k, why in expected.items():
            assert why in actual[k]


# --- what the operator computes, whatever the rules say -----------------------------------------


class Experiment:
    """The operator itself: which positions of its outputs move when one channel of one input does."""

    def __init__(self, case: Case) -> None:
        self.case = case
        inputs = [helper.make_tensor_value_info(name, kind, case.direct[name]) for name, kind in case.types.items()]
        foreign = bool(case.node.domain)
        outputs = [helper.make_empty_tensor_value_info(name) for name in case.outputs]
        outputs = (
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in case.outputs]
            if foreign
            else outputs
        )
        used = [numpy_helper.from_array(array, name) for name, array in case.constants.items() if name in case.inputs]
        graph = helper.make_graph([case.node], "operator", inputs, outputs, used)
        model = helper.make_model(graph, opset_imports=case.opsets, ir_version=10)
        self.model = (
            ort.InferenceSession(model.SerializeToString())
            if foreign or case.op in NOT_IN_REFERENCE
            else ReferenceEvaluator(model)
        )
        self.feeds = {name: self.values(name) for name in case.types}
        self.before = self.model.run(None, self.feeds)

    def values(self, name: str) -> np.ndarray:
        kind, shape = self.case.types[name], self.case.direct[name]
        if kind == TensorProto.BOOL:
            return self.case.rng.random(shape) < 0.5
        if kind == TensorProto.INT64:  # positions for 2×2 windows, in the channel that they are of
            area = 4 * shape[2] * shape[3]
            return area * np.arange(shape[0] * shape[1]).reshape(*shape[:2], 1, 1) + self.case.rng.integers(
                0, area, shape
            )
        return self.case.rng.integers(0, 99, shape, np.int32) if kind == TensorProto.INT32 else self.case.sample(shape)

    def moved(self, name: str, position: int) -> list[np.ndarray]:
        """Per output, where it differs when the position of the input's channels holds other values."""
        axis = self.case.labels[name][0]
        values = self.feeds[name].copy()
        where = (slice(None),) * axis + (position,)
        values[where] = self.values(name)[where]
        after = self.model.run(None, self.feeds | {name: values})
        return [np.asarray(a != b) for a, b in zip(self.before, after, strict=True)]


NOT_IN_REFERENCE = {"GlobalLpPool", "ConvTranspose"}  # the second only in groups
QUIET = {"IsInf", "IsNaN", "Shape", "Size", "ConstantOfShape", "Range", "Equal"}
COMPUTABLE = [
    line
    for line in LINES
    if "- " not in line[2] and "-a" not in line[2] and "frozen" not in str(line) and "drift" not in str(line)
]


def reached(line: Line) -> tuple[int, set[tuple[str, str]]]:
    """How many positions moved in all, and the pairs (moved channel, position that moved) that the line does not know
    of.
    """
    case = Case(line)
    experiment = Experiment(case)
    together = case.groups()
    count, strange = 0, set()
    for name, (_, vector) in case.labels.items():
        for position, identity in enumerate(tuple(vector)):
            for moved, axes in zip(experiment.moved(name, position), case.results, strict=True):
                for axis, meaning in ((i, a.meaning) for i, a in enumerate(axes or ()) if isinstance(a.meaning, Vec)):
                    found = np.flatnonzero(moved.any(tuple(i for i in range(moved.ndim) if i != axis)))
                    count += found.size
                    strange |= {(identity, tuple(meaning)[i]) for i in found} - {
                        (identity, other) for other in together[identity]
                    }
    return count, strange


@pytest.mark.parametrize("line", COMPUTABLE, ids=lambda line: " ".join(str(part) for part in line if part))
def test_a_channel_reaches_the_positions_that_carry_it_and_no_other(line: Line) -> None:
    count, strange = reached(line)
    assert strange == set()
    assert count > 0 or Case(line).op in QUIET or not Case(line).labels


@pytest.mark.parametrize(
    "line",
    [
        ("Relu", {}, "(n,a,h,w) -> (n,a[::-1],h,w)"),
        ("Concat", {"axis": 1}, "(n,a,h,w), (n,b,h,w) -> (n,b+a,h,w)"),
        ("Add", {}, "(n,a,h,w), (n,c,h,w) -> (n,a,h,w)"),
        ("Reshape", {}, "(n,a,h,w), [2,-1] -> (n,a*24)"),
        ("Reshape", {}, "(n,a,h,w), [2,2,2,4,6] -> (n,2,a[:2],h,w)"),
        (
            "DepthToSpace",
            {"blocksize": 2, "mode": "CRD"},
            "(n,o,h,w) -> (n,o[:2],8,12)",
            "o[:2]=o[2:4]; o[:2]=o[4:6]; o[:2]=o[6:]",
        ),
        ("SpaceToDepth", {"blocksize": 2}, "(n,a,h,w) -> (n,a@4,2,3)"),
        ("Softmax", {"axis": 1}, "(n,a,h,w) -> (n,a,h,w)"),
    ],
)
def test_a_channel_that_arrives_elsewhere_is_noticed(line: Line) -> None:
    assert reached(line)[1] != set()


def ids_of(line: Line) -> str:
    return " ".join(str(part) for part in line if part)


@pytest.mark.parametrize("line", LINES, ids=ids_of)
def test_the_rule_says_what_the_line_says(line: Line) -> None:
    Reading(Case(line)).compare()


@pytest.mark.parametrize("line", WRONG, ids=ids_of)
def test_a_wrong_line_is_noticed(line: Line) -> None:
    with pytest.raises(AssertionError):
        Reading(Case(line)).compare()


def test_every_operator_of_the_table_has_a_line() -> None:
    assert {re.sub(r"-\d+$", "", line[0]) for line in LINES} == set(RULES)


def test_no_operator_has_two_rows() -> None:
    for package in ("channels.rules", "maps"):
        kinds = ("elementwise", "windows", "products", "normalisation", "reductions", "moving", "resampling")
        names = {"reductions": "REDUCING"}
        parts = [
            getattr(importlib.import_module(f"passes.{package}.{kind}"), names.get(kind, kind.upper()))
            for kind in kinds
        ]
        table = importlib.import_module(f"passes.{package}.table")
        assert sum(map(len, parts)) == len(table.RULES if package == "channels.rules" else table.SPACE)
