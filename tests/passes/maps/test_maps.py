"""Rules of space, a line each: a map of 8×16 samples through one operator, the image twice as large, or the map twice
as fine.

A rule that said another size than ONNX's own inference would freeze the image, so "None" says that they agree.
"""

from __future__ import annotations

import pytest
from nets import graph

from fnatool.runtime.verify import verify
from passes import Spec, UserError, analyse, apply, plan

NUMBERS = """<int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] three = {3}, int64[1] four = {4}, int64[1] end = {-1},
    int64[1] before = {-99}, int64[2] space = {2,3}, int64[2] halves = {4,4}, int64[4] ones = {1,1,1,1},
    int64[6] blocks = {1,8,4,2,8,2}, int64[4] deep = {1,32,4,8}, int64[5] strips = {1,8,8,2,8},
    int64[4] long = {1,8,32,4}, int64[5] five = {1,8,4,4,8},
    int64[6] depth = {1,2,2,2,8,16}, int64[4] wide = {1,2,16,32}, int64[4] thrice = {1,1,3,1},
    int64[2] picks = {5,0}, int64[8] border = {0,0,1,2,0,0,0,1},
    float[4] twice = {1,1,2,2}, int64[4] full = {1,8,8,16}, int64[3] rows = {1,8,-1}, int64[3] flat = {1,8,128},
    float[1] step = {0.1}, uint8[1] none = {3}, float[1] slope = {0.2}>"""  # fmt: skip
WEIGHTS = {
    "w": (8, 3, 3, 3), "v": (8, 8, 3, 3), "u": (8, 4, 3, 3), "m": (16, 5), "n": (8, 8),
    "scale": (8,), "shift": (8,), "mean": (8,), "var": (8,), "part": (2,),
}  # fmt: skip

POOLED = "p, i = MaxPool <kernel_shape = [2,2], strides = [2,2]> (a)"
THIRDS = "p, i = MaxPool <kernel_shape = [3,3], strides = [3,3]> (a)"
# operator → why the image is frozen (None: it is not), and what becomes of a finer map: "exact", "approximate", or why
# not
LINES = [
    ("y = Relu (a)", None, "exact"),
    ("y = Clip (a, ,)", None, "exact"),
    ("y = PRelu (a, slope)", None, "exact"),
    ("b = Equal (a, a) y = Where (b, a, a)", None, "exact"),
    ("y = Dropout (a)", None, "exact"),
    ("y = LRN <size = 3> (a)", None, "exact"),
    ("y = BatchNormalization (a, scale, shift, mean, var)", None, "exact"),
    ("q = QuantizeLinear (a, step, none) y = DequantizeLinear (q, step, none)", None, "exact"),
    ("y = InstanceNormalization (a, scale, shift)", None, "approximate"),
    ("y = GroupNormalization <num_groups = 2> (a, part, part)", None, "approximate"),
    ("y = MeanVarianceNormalization (a)", None, "approximate"),
    ("y = LpNormalization <axis = 1> (a)", None, "exact"),
    ("y = LpNormalization <axis = 3> (a)", None, "approximate"),
    ("y = Softmax <axis = 1> (a)", None, "exact"),
    ("y = Softmax <axis = -1> (a)", None, "approximate"),
    ("t = Transpose <perm = [0,2,3,1]> (a) y = LayerNormalization (t, scale, shift)", None, "exact"),
    ("y = GlobalAveragePool (a)", None, "exact"),
    ("y = GlobalMaxPool (a)", None, "exact"),
    ("y = GlobalLpPool (a)", None, "'y' (GlobalLpPool) sums over a map, which would have more samples"),
    ("g1 = GlobalMaxPool (a) y = Mul (g1, a)", None, "approximate"),
    ("y = ReduceMean (a, space)", None, "exact"),
    ("y = ReduceMax <keepdims = 0> (a, one)", None, "exact"),
    ("r = ReduceMean (a, two) y = Mul (r, a)", None, "approximate"),
    (
        "y = ReduceSum (a, space)",
        None,
        "'y' (ReduceSum) sums over a map or counts in it, which would have more samples",
    ),
    ("y = ReduceL2 (a, two)", None, "'y' (ReduceL2) sums over a map or counts in it, which would have more samples"),
    ("y = ArgMax <axis = 1> (a)", None, "exact"),
    ("y = ArgMin <axis = 2> (a)", None, "'y' (ArgMin) sums over a map or counts in it, which would have more samples"),
    ("y = LpPool <kernel_shape = [2,2], strides = [2,2]> (a)", None, "exact"),
    ("y = LpPool <kernel_shape = [8,16]> (a)", None, "'y' (LpPool) sums over a map, which would have more samples"),
    ("y = AveragePool <kernel_shape = [8,16]> (a)", None, "exact"),
    ("y = AveragePool <kernel_shape = [3,3], pads = [1,1,1,1]> (a)", None, "exact"),
    ("y, i = MaxPool <kernel_shape = [2,2], strides = [2,2]> (a) z = Relu (y)", None, "exact"),
    (
        "z, y = MaxPool <kernel_shape = [2,2], strides = [2,2]> (a)",
        None,
        "the positions that 'z' (MaxPool) gives would be others",
    ),
    (
        f"{POOLED} y = MaxUnpool <kernel_shape = [2,2], strides = [2,2]> (p, i)",
        None,
        "the positions that 'p' (MaxPool) gives",
    ),
    (
        f"{POOLED} y = MaxUnpool <kernel_shape = [2,2], strides = [2,2]> (p, i, full)",
        None,
        "the positions that 'p' (MaxPool) gives",
    ),
    (
        f"{THIRDS} y = MaxUnpool <kernel_shape = [3,3], strides = [3,3]> (p, i, full)",
        None,
        "the positions that 'p' (MaxPool) gives",
    ),
    (
        f"{THIRDS} y = MaxUnpool <kernel_shape = [3,3], strides = [3,3]> (p, i)",
        "'y' (MaxUnpool) makes another map",
        "'p' (MaxPool)",
    ),
    (
        "b = Reshape (a, blocks) t = Transpose <perm = [0,1,3,5,2,4]> (b) y = Reshape (t, deep)",
        None,
        "cutting a map into parts of 2",
    ),
    (
        "b = Reshape (a, strips) y = ReduceMean <keepdims = 0> (b, three)",
        "'b' (Reshape) cuts a map into parts of a size that is written in the file",
        "'b' (Reshape) cuts a map into parts of a size that is written in the file",
    ),
    (
        """b = Reshape (a, blocks) t = Transpose <perm = [0,1,2,4,3,5]> (b) k = Reshape (t, long)
        d = Transpose <perm = [0,1,3,2]> (k) e = Reshape (d, five) f = Transpose <perm = [0,2,1,3,4]> (e)
        y = Reshape (f, deep)""",
        None,
        "cutting a map into parts of 2",
    ),
    ("b = Reshape (a, depth) t = Transpose <perm = [0,3,4,1,5,2]> (b) y = Reshape (t, wide)", None, "exact"),
    ("y = ConvTranspose <strides = [2,2], output_padding = [1,0]> (a, u)", None, "'y' (ConvTranspose) resamples a map"),
    (
        'y = ConvTranspose <strides = [2,2], auto_pad = "SAME_UPPER"> (a, u)',
        None,
        "'y' (ConvTranspose) resamples a map",
    ),
    (
        "y = ConvTranspose <strides = [2,2], output_shape = [16,32]> (a, u)",
        "the output size of 'y'",
        "'y' (ConvTranspose)",
    ),
    ("y = Resize (a, , twice)", None, "'y' (Resize) resamples a map, which has no dilation"),
    ("y = DepthToSpace <blocksize = 2> (a)", None, "'y' (DepthToSpace) resamples a map, which has no dilation"),
    ("y = SpaceToDepth <blocksize = 2> (a)", None, "'y' (SpaceToDepth) strides by moving positions into channels"),
    ("y = Transpose <perm = [0,3,1,2]> (a)", None, "exact"),
    ("y = Flatten <axis = 2> (a)", None, "exact"),
    ("y = Reshape (a, flat)", None, "exact"),
    ("y = Reshape (a, rows)", None, "exact"),
    ("b = Unsqueeze (a, one) y = Squeeze (b, one)", None, "exact"),
    ("g1 = GlobalAveragePool (a) y = Squeeze (g1, space)", None, "exact"),
    ("y = Concat <axis = 1> (a, a)", None, "exact"),
    ("y = Concat <axis = 2> (a, a)", None, "'y' (Concat) lays maps end to end"),
    ("y, z = Split <axis = 1> (a, halves)", None, "exact"),
    ("y, z = Split <axis = 2> (a, halves)", "'y' (Split) cuts a map into parts", "'y' (Split) cuts a map into parts"),
    ("y = Gather <axis = 1> (a, picks)", None, "exact"),
    (
        "y = Gather <axis = 3> (a, picks)",
        "'y' (Gather) picks positions of a map",
        "'y' (Gather) picks positions of a map",
    ),
    ("y = Slice (a, zero, four, one)", None, "exact"),
    ("y = Slice (a, one, end, three)", None, "'y' (Slice) takes positions of a map, which no dilation could do"),
    (
        "y = Slice (a, end, before, two, end)",
        "'y' (Slice) takes a map backwards",
        "'y' (Slice) takes positions of a map",
    ),
    ("y = Tile (a, ones)", None, "exact"),
    ("y = Tile (a, thrice)", "'y' (Tile) repeats a map", "'y' (Tile) repeats a map"),
    ("y = Expand (a, full)", None, "exact"),
    ("y = Pad (a, border)", None, "exact"),
    ('y = Pad <mode = "edge"> (a, border)', None, "'y' (Pad) repeats the border of a map"),
    ("y = MatMul (a, m)", "'y' (MatMul) has a weight for each position", "'y' (MatMul) has a weight for each position"),
    ("t = Transpose <perm = [0,2,3,1]> (a) y = MatMul (t, n)", None, "exact"),
    (
        "t = Transpose <perm = [0,1,3,2]> (a) y = MatMul (a, t)",
        None,
        "'y' (MatMul) sums over a map, which would have more samples",
    ),
    ("f = Reshape (a, flat) t = Transpose <perm = [0,2,1]> (f) y = MatMul (t, f)", None, "exact"),
]


@pytest.mark.parametrize(("line", "image", "finer"), LINES, ids=[row[0] for row in LINES])
def test_a_line(line: str, image: str | None, finer: str) -> None:
    body = (
        "c = Conv <pads = [1,1,1,1], strides = [2,2]> (x, w) a = Conv <pads = [1,1,1,1], strides = [2,2]> (c, "
        f"v) {line}"
    )
    made = graph(f"g (float[1,3,32,64] x) => (y) {NUMBERS} {{ {body} }}", WEIGHTS, opset=19)
    analysis = analyse(made)
    why = analysis.image.why
    assert why == image if image is None else (why or "").startswith(image)
    spec = Spec({"output_stride": 2})
    if finer in ("exact", "approximate"):
        assert analysis.strides.growth == finer
        found = plan(analysis, spec)
        assert bool(found.averages) == (finer == "approximate")
        assert verify(made, apply(made, found), analysis, found).first is None
    else:
        with pytest.raises(UserError) as caught:
            plan(analysis, spec)
        assert finer in str(caught.value)
