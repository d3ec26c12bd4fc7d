"""Small networks of many kinds for the fuzzer: written as ONNX text, the bundled seed, light graphs of onnx, and timm
exports where they are.

A base is a name and a function to the bytes of a valid model; the same name gives the same bytes on every machine that
has it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper

from benchmarks import zoo
from fnatool import seeds

Weights = Mapping[str, tuple[int, ...] | np.ndarray]

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
SAME3 = "kernel_shape=[3,3],pads=[1,1,1,1]"
HEAD = "p = GlobalAveragePool({0}) f = Flatten(p) y = Gemm<transB=1>(f, m, mb)"


def written(text: str, weights: Weights, opset: int = 17, domains: str = "") -> onnx.ModelProto:
    """The model of the text; a weight is an array, or a shape to fill (He-scaled; 1-D between 0.5 and 1.5)."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}{domains}]>\n{text}')
    rng = np.random.default_rng(0)
    for name, value in weights.items():
        array = value if isinstance(value, np.ndarray) else _filled(value, rng)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


def _filled(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if len(shape) < 2:
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return (rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)


def _norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}{part}": (channels,) for part in "gbmv"}


def residual() -> onnx.ModelProto:
    """Two bottleneck stages with BatchNormalization, a projection between them; a free batch."""
    block = """
        {a}1 = Conv<kernel_shape=[1,1]>({x}, {a}w1) {a}2 = BatchNormalization({a}1, {a}ng, {a}nb, {a}nm, {a}nv) {a}3 = Relu({a}2)
        {a}4 = Conv<kernel_shape=[3,3],pads=[1,1,1,1]>({a}3, {a}w2, {a}c2) {a}5 = Relu({a}4)
        {a}6 = Conv<kernel_shape=[1,1]>({a}5, {a}w3) {a}7 = Add({a}6, {x}) {a}8 = Relu({a}7)"""
    text = (
        f"net (float[N,3,16,16] x) => (float[N,5] y) {{ s = Conv<{SAME3},strides=[2,2]>(x, sw) sr = Relu(s)"
        + block.format(a="a", x="sr")
        + block.format(a="b", x="a8")
        + "j = Conv<kernel_shape=[1,1],strides=[2,2]>(b8, jw) k = Conv<kernel_shape=[1,1],strides=[2,2]>(b8, kw) l = Add(j, k) lr = Relu(l)"
        + block.format(a="c", x="lr")
        + HEAD.format("c8")
        + "}"
    )
    weights: dict[str, tuple[int, ...]] = {
        "sw": (8, 3, 3, 3),
        "jw": (16, 8, 1, 1),
        "kw": (16, 8, 1, 1),
        "m": (5, 16),
        "mb": (5,),
    }
    for name, width, inner in (("a", 8, 4), ("b", 8, 4), ("c", 16, 8)):
        weights |= {f"{name}w1": (inner, width, 1, 1), f"{name}w2": (inner, inner, 3, 3), f"{name}c2": (inner,)}
        weights |= {f"{name}w3": (width, inner, 1, 1), **_norm(f"{name}n", inner)}
    return written(text, weights)


def inverted() -> onnx.ModelProto:
    """Inverted residuals with depthwise convolutions, clips and a squeeze-excite."""
    block = """
        {a}1 = Conv<kernel_shape=[1,1]>({x}, {a}w1) {a}2 = Clip({a}1, low, high)
        {a}3 = Conv<kernel_shape=[3,3],pads=[1,1,1,1],group=16>({a}2, {a}w2) {a}4 = BatchNormalization({a}3, {a}ng, {a}nb, {a}nm, {a}nv)
        {a}p = GlobalAveragePool({a}4) {a}q = Conv({a}p, {a}w4, {a}c4) {a}r = Relu({a}q) {a}t = Conv({a}r, {a}w5, {a}c5)
        {a}u = HardSigmoid<alpha=0.1666667,beta=0.5>({a}t) {a}5 = Mul({a}u, {a}4)
        {a}6 = Conv<kernel_shape=[1,1]>({a}5, {a}w3) {a}7 = Add({x}, {a}6)"""
    text = (
        f"net (float[1,3,16,16] x) => (float[1,5] y) {{ s = Conv<{SAME3},strides=[2,2]>(x, sw)"
        + block.format(a="a", x="s")
        + block.format(a="b", x="a7")
        + HEAD.format("b7")
        + "}"
    )
    weights: dict[str, tuple[int, ...] | np.ndarray] = {"sw": (8, 3, 3, 3), "m": (5, 8), "mb": (5,)}
    weights |= {"low": np.array(0, np.float32), "high": np.array(6, np.float32)}
    for name in "ab":
        weights |= {
            f"{name}w1": (16, 8, 1, 1),
            f"{name}w2": (16, 1, 3, 3),
            f"{name}w3": (8, 16, 1, 1),
            **_norm(f"{name}n", 16),
        }
        weights |= {f"{name}w4": (4, 16, 1, 1), f"{name}c4": (4,), f"{name}w5": (16, 4, 1, 1), f"{name}c5": (16,)}
    return written(text, weights, 13)


def dense() -> onnx.ModelProto:
    """Channels joined, cut and picked: Concat, Split, Slice, Gather, pools with every kind of pad."""
    text = f"""net (float[2,3,20,20] x) => (float[2,5] y) {{
        s = Conv<kernel_shape=[5,5],auto_pad="SAME_UPPER",strides=[2,2]>(x, sw, sb) r = LeakyRelu<alpha=0.1>(s)
        q = MaxPool<kernel_shape=[3,3],strides=[2,2],pads=[1,1,1,1],ceil_mode=1>(r)
        a = Conv<{SAME3}>(q, aw) b = Concat<axis=1>(q, a) c = Relu(b) d = Conv<{SAME3}>(c, dw) e = Concat<axis=1>(c, d)
        g, h = Split<axis=1,split=[8,12]>(e) i = Conv<kernel_shape=[1,1]>(g, iw) j = AveragePool<kernel_shape=[2,2],auto_pad="VALID">(h)
        k = Slice(h, from, to, one) l = Gather<axis=1>(h, picks) n = Sum(k, l) o = Conv<kernel_shape=[1,1]>(n, ow) t = Add(i, o)
        {HEAD.format("t")} }}"""
    weights: dict[str, tuple[int, ...] | np.ndarray] = {
        "sw": (8, 3, 5, 5),
        "sb": (8,),
        "aw": (6, 8, 3, 3),
        "dw": (6, 14, 3, 3),
    }
    weights |= {"iw": (10, 8, 1, 1), "ow": (10, 4, 1, 1), "m": (5, 10), "mb": (5,)}
    weights |= {"from": np.array([2]), "to": np.array([6]), "one": np.array([1]), "picks": np.array([0, 5, 7, 11])}
    return written(text, weights, 12)


def shuffle() -> onnx.ModelProto:
    """Grouped convolutions and a channel shuffle, in an old opset."""
    text = f"""net (float[1,3,12,12] x) => (float[1,5] y) {{
        s = Conv<{SAME3}>(x, sw) r = Relu(s) a = Conv<kernel_shape=[1,1],group=2>(r, aw) b = BatchNormalization(a, ng, nb, nm, nv)
        c = Reshape(b, five) d = Transpose<perm=[0,2,1,3,4]>(c) e = Reshape(d, four)
        g = Conv<{SAME3},group=12>(e, gw) h = Conv<kernel_shape=[1,1],group=2>(g, hw) i = Add(r, h) j = Relu(i)
        k = Pad<pads=[0,0,1,1,0,0,1,1],mode="reflect">(j) n = Conv<kernel_shape=[3,3],dilations=[2,2]>(k, nw)
        {HEAD.format("n")} z = Softmax<axis=1>(y) }}"""
    weights: dict[str, tuple[int, ...] | np.ndarray] = {
        "sw": (8, 3, 3, 3),
        "aw": (12, 4, 1, 1),
        "gw": (12, 1, 3, 3),
        "hw": (8, 6, 1, 1),
    }
    weights |= {"nw": (6, 8, 3, 3), "m": (5, 6), "mb": (5,), **_norm("n", 12)}
    weights |= {"five": np.array([1, 2, 6, 12, 12]), "four": np.array([1, 12, 12, 12])}
    return written(text, weights, 9)


def next_() -> onnx.ModelProto:
    """Large depthwise kernels, LayerNormalization over the last axis, matrix products, a written-out GELU and layer
    scales.
    """
    block = """
        {a}1 = Conv<kernel_shape=[7,7],pads=[3,3,3,3],group=8>({x}, {a}w1, {a}b1) {a}2 = Transpose<perm=[0,2,3,1]>({a}1)
        {a}3 = LayerNormalization<axis=-1>({a}2, {a}lg, {a}lb) {a}4 = MatMul({a}3, {a}w2) {a}5 = Add({a}4, {a}b2)
        {a}6 = Div({a}5, root) {a}7 = Erf({a}6) {a}8 = Add({a}7, one) {a}9 = Mul({a}5, {a}8) {a}10 = Mul({a}9, half)
        {a}11 = MatMul({a}10, {a}w3) {a}12 = Mul({a}11, {a}s) {a}13 = Transpose<perm=[0,3,1,2]>({a}12) {a}14 = Add({x}, {a}13)"""
    text = (
        "net (float[1,3,16,16] x) => (float[1,5] y) { s = Conv<kernel_shape=[4,4],strides=[4,4]>(x, sw, sb)"
        + block.format(a="a", x="s")
        + block.format(a="b", x="a14")
        + "t = ReduceMean<axes=[2,3],keepdims=0>(b14) u = LayerNormalization<axis=-1>(t, ug, ub) y = Gemm<transB=1>(u, m, mb) }"
    )
    weights: dict[str, tuple[int, ...] | np.ndarray] = {
        "sw": (8, 3, 4, 4),
        "sb": (8,),
        "ug": (8,),
        "ub": (8,),
        "m": (5, 8),
        "mb": (5,),
    }
    weights |= {name: np.array(value, np.float32) for name, value in (("root", 2**0.5), ("one", 1), ("half", 0.5))}
    for name in "ab":
        weights |= {
            f"{name}w1": (8, 1, 7, 7),
            f"{name}b1": (8,),
            f"{name}lg": (8,),
            f"{name}lb": (8,),
            f"{name}w2": (8, 32),
        }
        weights |= {f"{name}b2": (32,), f"{name}w3": (32, 8), f"{name}s": (8,)}
    return written(text, weights, 17)


def segmenting() -> onnx.ModelProto:
    """A free image size: sizes computed from shapes, a Resize to another map, a transposed convolution, two outputs."""
    text = f"""net (float[N,3,H,W] x) => (float[N,4,h,w] y, float[N,2,u,v] z) {{
        s = Conv<{SAME3},strides=[2,2]>(x, sw) r = Relu(s) a = Conv<{SAME3},strides=[2,2]>(r, aw) b = Relu(a)
        c = Shape(r) d = Slice(c, two, four, zero) e = Shape(b) g = Slice(e, zero, two, zero) h = Concat<axis=0>(g, d)
        i = Resize<mode="linear">(b, , , h) j = Concat<axis=1>(i, r) k = Conv<{SAME3}>(j, kw)
        y = ConvTranspose<kernel_shape=[2,2],strides=[2,2]>(k, yw, yb)
        l = GlobalAveragePool(k) n = Shape(k) o = Expand(l, n) q = Mul(o, k) z = Conv<kernel_shape=[1,1]>(q, zw) }}"""
    weights: dict[str, tuple[int, ...] | np.ndarray] = {"sw": (8, 3, 3, 3), "aw": (12, 8, 3, 3), "kw": (8, 20, 3, 3)}
    weights |= {"yw": (8, 4, 2, 2), "yb": (4,), "zw": (2, 8, 1, 1)}
    weights |= {"zero": np.array([0]), "two": np.array([2]), "four": np.array([4])}
    return written(text, weights, 18)


def perceptron() -> onnx.ModelProto:
    """Matrices alone."""
    text = "net (float[N,12] x) => (float[N,4] y) { a = Gemm(x, w, b) c = PRelu(a, s) d = MatMul(c, v) e = Sigmoid(d) y = Gemm<transB=1>(e, u) }"
    return written(text, {"w": (12, 16), "b": (16,), "s": (16,), "v": (16, 10), "u": (4, 10)}, 16)


def quantised() -> onnx.ModelProto:
    """Weights and activations behind quantisers, and a convolution that is not."""
    text = f"""net (float[1,3,8,8] x) => (float[1,5] y) {{
        q = QuantizeLinear(x, scale, zero) d = DequantizeLinear(q, scale, zero) w = DequantizeLinear<axis=0>(wq, ws, wz)
        a = Conv<{SAME3}>(d, w) r = Relu(a) b = Conv<{SAME3}>(r, bw) c = Conv<kernel_shape=[1,1]>(b, cw) {HEAD.format("c")} }}"""
    rng = np.random.default_rng(0)
    weights: dict[str, tuple[int, ...] | np.ndarray] = {
        "scale": np.array(0.02, np.float32),
        "zero": np.array(3, np.int8),
    }
    weights |= {"wq": rng.integers(-99, 99, (8, 3, 3, 3)).astype(np.int8), "ws": (8,), "wz": np.zeros(8, np.int8)}
    return written(text, {**weights, "bw": (8, 8, 3, 3), "cw": (6, 8, 1, 1), "m": (5, 6), "mb": (5,)}, 13)


def functions() -> onnx.ModelProto:
    """Operators that the file defines itself."""
    text = f"""net (float[1,3,8,8] x) => (float[1,5] y) {{
        s = Conv<{SAME3}>(x, sw) a = local.swish(s) b = Conv<{SAME3}>(a, bw) c = local.twice<by=2.0>(b) d = Add(s, c) {HEAD.format("d")} }}
        <domain: "local", opset_import: ["" : 17]> swish (v) => (o) {{ g = Sigmoid(v) o = Mul(v, g) }}
        <domain: "local", opset_import: ["" : 17]> twice <by> (v) => (o) {{ k = Constant<value_float: float = @by>() o = Mul(v, k) }}"""
    return written(text, {"sw": (8, 3, 3, 3), "bw": (8, 8, 3, 3), "m": (5, 8), "mb": (5,)}, 17, ', "local" : 1')


def branching() -> onnx.ModelProto:
    """A subgraph inside a node."""
    text = f"""net (float[1,3,8,8] x, bool flag) => (float[1,5] y) {{
        s = Conv<{SAME3}>(x, sw) b = If(flag)<then_branch = one () => (float[1,8,8,8] t) {{ t = Relu(s) }},
            else_branch = two () => (float[1,8,8,8] e) {{ e = Neg(s) }}> {HEAD.format("b")} }}"""
    return written(text, {"sw": (8, 3, 3, 3), "m": (5, 8), "mb": (5,)}, 17)


def rare() -> onnx.ModelProto:
    """Operators that few networks have, in a row."""
    text = f"""net (float[1,4,12,12] x) => (float[1,5] y, int64[1,3] top) {{
        s = Conv<{SAME3}>(x, sw) a = InstanceNormalization(s, ig, ib) b = PRelu(a, slope) c = LRN<size=3>(b)
        d = DepthToSpace<blocksize=2>(c) e = SpaceToDepth<blocksize=2>(d) g = Pad(e, pads, value) h = Conv<{SAME3}>(g, hw)
        i = Tile(h, times) j = Conv<kernel_shape=[1,1]>(i, jw) k = GroupNormalization<num_groups=2>(j, gg, gb) l = Mish(k)
        n = GlobalMaxPool(l) o = Squeeze(n, axes) q = Unsqueeze(o, axes) r = Mul(l, q) t = HardSwish(r) u = Softmax<axis=1>(t)
        v = Cast<to=10>(u) w = Cast<to=1>(v) z = Where(less, w, t) {HEAD.format("z")} val, top = TopK(y, three) }}"""
    weights: dict[str, tuple[int, ...] | np.ndarray] = {
        "sw": (8, 4, 3, 3),
        "ig": (8,),
        "ib": (8,),
        "slope": (8, 1, 1),
        "hw": (6, 8, 3, 3),
    }
    weights |= {
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "value": np.array(0.5, np.float32),
        "times": np.array([1, 2, 1, 1]),
    }
    weights |= {
        "jw": (8, 12, 1, 1),
        "gg": (8,),
        "gb": (8,),
        "axes": np.array([2, 3]),
        "less": np.ones((1, 8, 1, 1), bool),
    }
    return written(text, {**weights, "three": np.array([3]), "m": (5, 8), "mb": (5,)}, 21)


def folded() -> onnx.ModelProto:
    """Weights that are computed from others: standardised, cast, made of one number, read through Identity and Constant
    nodes.
    """
    text = f"""net (float[1,3,10,10] x) => (float[1,5] y) {{
        mean = ReduceMean<axes=[1,2,3],keepdims=1>(raw) sw = Sub(raw, mean) s = Conv<{SAME3}>(x, sw)
        hw = Cast<to=1>(half) r = Relu(s) a = Conv<{SAME3}>(r, hw)
        size = Constant<value_ints=[6,8,3,3]>() cw = ConstantOfShape<value=float[1] {{0.01}}>(size) c = Conv<{SAME3}>(a, cw)
        dw = Identity(dr) d = Conv<kernel_shape=[1,1]>(c, dw) k = Constant<value_float=0.5>() e = Mul(d, k)
        {HEAD.format("e")} }}"""
    rng = np.random.default_rng(1)
    half = (rng.standard_normal((8, 8, 3, 3)) * 0.1).astype(np.float16)
    return written(text, {"raw": (8, 3, 3, 3), "half": half, "dr": (6, 6, 1, 1), "m": (5, 6), "mb": (5,)}, 17)


def _file(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _text(make: Callable[[], onnx.ModelProto]) -> bytes:
    return make().SerializeToString()


WRITTEN: Mapping[str, Callable[[], onnx.ModelProto]] = {
    make.__name__.rstrip("_"): make
    for make in (
        residual,
        inverted,
        dense,
        shuffle,
        next_,
        segmenting,
        perceptron,
        quantised,
        functions,
        branching,
        rare,
        folded,
    )
}
TIMM = ("timm:lcnet_050", "timm:tinynet_e", "timm:edgenext_xx_small")

BASES: Mapping[str, Callable[[], bytes | None]] = {
    **{name: functools.partial(_text, make) for name, make in WRITTEN.items()},
    "light_squeezenet": lambda: _file(LIGHT / "light_squeezenet.onnx"),
    "light_shufflenet": lambda: _file(LIGHT / "light_shufflenet.onnx"),
    "seed": lambda: _file(seeds.DEFAULT),
    **{name: functools.partial(lambda export: _file(zoo.place(export)), zoo.Export(name)) for name in TIMM},
}
"""name → its bytes, None where this machine does not have it."""

LARGE = ("light_squeezenet", "light_shufflenet", "seed", *TIMM)
"""Those that take a second a command; drawn less often."""


@functools.cache
def base(name: str) -> bytes:
    """The bytes of a base; where this machine lacks it, those of the first."""
    return BASES[name]() or _text(residual)
