"""Networks in whose files a height and a width are written, each made for any size."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from nets import graph

W3 = {"w": (8, 3, 3, 3)}


def shuffled(h: int, w: int) -> gs.Graph:
    """Channels shuffled by reshapes that name the size."""
    return graph(
        f"""g (float[1,3,{h},{w}] x) => (float[1,4,{h // 2},{w // 2}] y)
        <int64[5] split = {{1,2,4,{h // 2},{w // 2}}}, int64[4] joined = {{1,8,-1,{w // 2}}}> {{
            c = Conv <pads = [1,1,1,1], strides = [2,2]> (x, w)
            a = Reshape (c, split)
            b = Transpose <perm = [0,2,1,3,4]> (a)
            d = Reshape (b, joined)
            y = Conv <pads = [1,1,1,1]> (d, v)
        }}""",
        {**W3, "v": (4, 8, 3, 3)},
    )


def unet(h: int, w: int) -> gs.Graph:
    """Down twice, and up by a transposed convolution, by a factor, and to the image's size, which is written."""
    return graph(
        f"""g (float[1,3,{h},{w}] x) => (float[1,4,{h},{w}] y)
        <int64[4] sizes = {{1,4,{h},{w}}}, float[4] scales = {{1,1,2,2}}> {{
            a = Conv <pads = [1,1,1,1], strides = [2,2]> (x, w)
            b = Conv <pads = [1,1,1,1], strides = [2,2]> (a, v)
            c = MaxPool <kernel_shape = [2,2], strides = [2,2]> (b)
            d = ConvTranspose <strides = [2,2]> (c, u)
            e = Concat <axis = 1> (b, d)
            f = Conv <pads = [1,1,1,1]> (e, t)
            g1 = Resize <mode = "linear"> (f, , scales)
            i = Add (g1, a)
            j = Conv (i, s)
            y = Resize <mode = "linear"> (j, , , sizes)
        }}""",
        {**W3, "v": (8, 8, 3, 3), "u": (8, 8, 2, 2), "t": (8, 16, 3, 3), "s": (4, 8, 1, 1)},
    )


def image_pooling(h: int, w: int) -> gs.Graph:
    """A branch that pools the whole map and spreads it again, to a size that is written."""
    return graph(
        f"""g (float[1,3,{h},{w}] x) => (float[1,4,{h // 4},{w // 4}] y) <int64[4] sizes = {{1,8,{h // 4},{w // 4}}}> {{
            a = Conv <pads = [1,1,1,1], strides = [4,4]> (x, w)
            b = GlobalAveragePool (a)
            c = Conv (b, v)
            d = Resize <mode = "linear"> (c, , , sizes)
            e = Concat <axis = 1> (a, d)
            y = Conv (e, u)
        }}""",
        {**W3, "v": (8, 8, 1, 1), "u": (4, 16, 1, 1)},
    )


def whole_map(h: int, w: int) -> gs.Graph:
    """Older exporters pool globally with a window as large as the map."""
    return graph(
        f"""g (float[N,3,{h},{w}] x) => (float[N,5] y) <int64[2] flat = {{-1,8}}> {{
            a = Conv <pads = [1,1,1,1], strides = [4,4]> (x, w)
            b = AveragePool <kernel_shape = [{h // 4},{w // 4}], strides = [{h // 4},{w // 4}]> (a)
            c = Reshape (b, flat)
            y = Gemm <transB = 1> (c, v)
        }}""",
        {**W3, "v": (5, 8)},
    )


def attention(h: int, w: int) -> gs.Graph:
    """Every position looks at all others; their number is written."""
    n = h * w // 16
    return graph(
        f"""g (float[1,3,{h},{w}] x) => (float[1,8,{h // 4},{w // 4}] y)
        <int64[3] flat = {{1,8,{n}}}, int64[4] back = {{1,8,{h // 4},{w // 4}}}> {{
            a = Conv <pads = [1,1,1,1], strides = [4,4]> (x, w)
            b = Reshape (a, flat)
            t = Transpose <perm = [0,2,1]> (b)
            m = MatMul (t, b)
            s = Softmax <axis = -1> (m)
            o = MatMul (s, t)
            p = Transpose <perm = [0,2,1]> (o)
            y = Reshape (p, back)
        }}""",
        W3,
    )


def focus(h: int, w: int) -> gs.Graph:
    """Every second row and column, up to an end that is written."""
    return graph(
        f"""g (float[1,3,{h},{w}] x) => (float[1,4,{h // 2},{w // 2}] y)
        <int64[2] zero = {{0,0}}, int64[2] one = {{1,1}}, int64[2] ends = {{{h},{w}}}, int64[2] axes = {{2,3}}, int64[2] steps = {{2,2}}> {{
            a = Slice (x, zero, ends, axes, steps)
            b = Slice (x, one, ends, axes, steps)
            c = Concat <axis = 1> (a, b)
            d = Conv <pads = [1,1,1,1]> (c, w)
            y = Conv (d, v)
        }}""",
        {"w": (8, 6, 3, 3), "v": (4, 8, 1, 1)},
    )


def channels_last(h: int, w: int) -> gs.Graph:
    """Images with their colours last, as TensorFlow has them, and a normalisation over channels there."""
    return graph(
        f"""g (float[1,{h},{w},3] x) => (float[1,{h // 4},{w // 4},8] y) {{
            t = Transpose <perm = [0,3,1,2]> (x)
            a = Conv <auto_pad = "SAME_UPPER", strides = [2,2]> (t, w)
            b = MaxPool <auto_pad = "SAME_UPPER", kernel_shape = [3,3], strides = [2,2]> (a)
            p = Transpose <perm = [0,2,3,1]> (b)
            n = LayerNormalization (p, scale, shift)
            y = Relu (n)
        }}""",
        {**W3, "scale": (8,), "shift": (8,)},
    )


def computed(h: int, w: int) -> gs.Graph:
    """A mean written as a sum over as many positions as a shape says."""
    return graph(
        f"""g (float[1,3,{h},{w}] x) => (float[1,8,1,1] y) <int64[2] axes = {{2,3}}, int64[1] two = {{2}}, int64[1] four = {{4}}> {{
            a = Conv <pads = [1,1,1,1], strides = [4,4]> (x, w)
            b = ReduceSum (a, axes)
            s = Shape (a)
            t = Slice (s, two, four)
            n = ReduceProd <keepdims = 0> (t)
            f = Cast <to = 1> (n)
            y = Div (b, f)
        }}""",
        W3,
    )


def levels(h: int, w: int) -> gs.Graph:
    """Predictions of two maps, row by row in one list, as a detector has them."""
    a, b = h * w // 16, h * w // 64
    return graph(
        f"""g (float[1,3,{h},{w}] x) => (float[1,{a + b},4] y) <int64[3] first = {{1,{a},4}}, int64[3] second = {{1,-1,4}}> {{
            a = Conv <pads = [1,1,1,1], strides = [4,4]> (x, w)
            b = Conv <pads = [1,1,1,1], strides = [2,2]> (a, v)
            c = Conv (a, u)
            d = Conv (b, u)
            e = Transpose <perm = [0,2,3,1]> (c)
            f = Transpose <perm = [0,2,3,1]> (d)
            i = Reshape (e, first)
            j = Reshape (f, second)
            k = Concat <axis = 1> (i, j)
            y = Sigmoid (k)
        }}""",
        {**W3, "v": (8, 8, 3, 3), "u": (4, 8, 1, 1)},
    )


def gated(h: int, w: int) -> gs.Graph:
    """Gates expanded to their map's size, which is written or computed from it."""
    return graph(
        f"""g (float[N,3,{h},{w}] x) => (float[N,8,{h // 4},{w // 4}] y) <int64[4] same = {{1,8,{h // 4},{w // 4}}}> {{
            a = Conv <pads = [1,1,1,1], strides = [2,2]> (x, w)
            b = GlobalAveragePool (a)
            s = Shape (a)
            c = Expand (b, s)
            d = Mul (c, a)
            e = Conv <pads = [1,1,1,1], strides = [2,2]> (d, v)
            f = GlobalAveragePool (e)
            i = Expand (f, same)
            y = Mul (e, i)
        }}""",
        {**W3, "v": (8, 8, 3, 3)},
    )


def left_out(h: int, w: int) -> gs.Graph:
    """Regions and factors that a Resize does without are empty lists, as many exporters write them."""
    return graph(
        f"""g (float[1,3,{h},{w}] x) => (float[1,4,{h},{w}] y)
        <float[0] none, float[4] scales = {{1,1,2,2}}, int64[4] sizes = {{1,4,{h},{w}}}> {{
            a = Conv <pads = [1,1,1,1], strides = [4,4]> (x, w)
            b = Resize <mode = "linear"> (a, none, scales)
            c = Conv (b, v)
            y = Resize <mode = "nearest"> (c, none, none, sizes)
        }}""",
        {**W3, "v": (4, 8, 1, 1), "none": np.zeros(0, np.float32)},
    )


def beside_a_map(h: int, w: int) -> gs.Graph:
    """A map made as large as another, as torch's older exporter writes it: batch and channels are computed, the size is
    written.
    """
    return graph(
        f"""g (float[1,3,{h},{w}] x) => (float[1,4,{h},{w}] y)
        <int64[1] zero = {{0}}, int64[1] two = {{2}}, int64[2] same = {{{h // 4},{w // 4}}}, int64[2] whole = {{{h},{w}}}> {{
            a = Conv <pads = [1,1,1,1], strides = [4,4]> (x, w)
            b = Conv <pads = [1,1,1,1], strides = [2,2]> (a, v)
            s = Shape (b)
            few = Slice (s, zero, two, zero)
            sizes = Concat <axis = 0> (few, same)
            c = Resize <mode = "nearest"> (b, , , sizes)
            d = Add (c, a)
            e = Conv (d, u)
            t = Shape (e)
            more = Slice (t, zero, two, zero)
            image = Concat <axis = 0> (more, whole)
            y = Resize <mode = "linear"> (e, , , image)
        }}""",
        {**W3, "v": (8, 8, 3, 3), "u": (4, 8, 1, 1)},
    )


def by_computed_factor(h: int, w: int) -> gs.Graph:
    """The same before Resize had sizes: a written size over that of the map is a factor."""
    return graph(
        f"""g (float[1,3,{h},{w}] x) => (float[1,8,{h // 4},{w // 4}] y)
        <float[2] same = {{{h // 4},{w // 4}}}, float[2] ones = {{1,1}}> {{
            a = Conv <pads = [1,1,1,1], strides = [4,4]> (x, w)
            b = Conv <pads = [1,1,1,1], strides = [2,2]> (a, v)
            s = Shape (b)
            hw = Slice <starts = [2], ends = [4], axes = [0]> (s)
            f = Cast <to = 1> (hw)
            by = Div (same, f)
            scales = Concat <axis = 0> (ones, by)
            c = Upsample <mode = "nearest"> (b, scales)
            y = Add (c, a)
        }}""",
        {**W3, "v": (8, 8, 3, 3)},
        opset=9,
    )


def shuffled_up(h: int, w: int) -> gs.Graph:
    """Channels become positions by reshapes (a pixel shuffle before the operator was exported); the image is added and
    a window slides.
    """
    return graph(
        f"""g (float[1,3,{h},{w}] x) => (float[1,5,{2 * h},{2 * w}] y)
        <int64[6] split = {{1,3,2,2,{h},{w}}}, int64[4] joined = {{1,3,{2 * h},{2 * w}}}, float[4] scales = {{1,1,2,2}}> {{
            a = Conv <pads = [1,1,1,1]> (x, w)
            b = Reshape (a, split)
            c = Transpose <perm = [0,1,4,2,5,3]> (b)
            d = Reshape (c, joined)
            e = Resize <mode = "linear"> (x, , scales)
            f = Add (d, e)
            i = Add (e, d)
            j = Sub (f, i)
            k = Conv <pads = [1,1,1,1]> (d, v)
            l = Conv <pads = [1,1,1,1]> (j, v)
            y = Add (k, l)
        }}""",
        {"w": (12, 3, 3, 3), "v": (5, 3, 3, 3)},
    )


def spread(h: int, w: int) -> gs.Graph:
    """Slopes and zeros spread over the map by sizes that are written, as converters from other frameworks leave
    them.
    """
    return graph(
        f"""g (float[1,3,{h},{w}] x) => (float[1,8,{h // 2},{w // 2}] y)
        <int64[4] wide = {{1,8,{h // 2},{w // 2}}}, int64[4] more = {{1,2,{h // 2},{w // 2}}}, float[1,1,1,1] zero = {{0}}> {{
            a = Conv <auto_pad = "SAME_UPPER", strides = [2,2]> (x, w)
            slopes = Expand (slope, wide)
            b = PRelu (a, slopes)
            zeros = Expand (zero, more)
            c = Concat <axis = 1> (b, zeros)
            d = Conv (c, v)
            others = Expand (other, wide)
            y = PRelu (d, others)
        }}""",
        {
            **W3,
            "slope": np.linspace(0.1, 0.5, 8, dtype=np.float32).reshape(1, 8, 1, 1),
            "other": np.full((1, 8, 1, 1), 0.3, np.float32),
            "v": (8, 10, 1, 1),
        },
        opset=11,
    )


OF_SIZES = (beside_a_map, by_computed_factor, left_out, shuffled_up, spread)


SIZED = (gated, shuffled, unet, image_pooling, whole_map, attention, focus, channels_last, computed, levels, *OF_SIZES)
