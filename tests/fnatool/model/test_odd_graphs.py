"""Odd but legal graphs through the whole trial: right, or frozen with the reason; never half done."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from nets import graph
from tiny import model, save

import fnatool
from benchmarks.trials import trial
from fnatool.cli.main import run
from fnatool.model import check as checking
from fnatool.runtime.verify import verify
from passes import Spec, analyse, apply, plan
from passes.errors import RefusedModel

K1, K3 = "kernel_shape=[1,1]", "kernel_shape=[3,3],pads=[1,1,1,1]"
END = " p=GlobalAveragePool({0}) f=Flatten(p) y=Gemm<transB=1>(f,m,mb) }}"


def net(body, last, weights, channels, x="float[N,3,8,8] x"):
    return graph(f"g ({x}) => (float[N,4] y) {{ {body}" + END.format(last), {**weights, "m": (4, channels), "mb": (4,)})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_network_whose_weights_are_not_finite_is_compared_with_nothing(value, tmp_path):
    weights = np.ones((8, 3, 3, 3), np.float32)
    weights[0, 0, 0, 0] = value
    text = f"g (float[N,3,8,8] x) => (float[N,4] y) {{ a=Conv<{K3}>(x,w) b=Relu(a)" + END.format("b")
    path = save(model(text.replace("}}", "}"), {"w": weights, "m": (4, 8), "mb": (4,)}), tmp_path / "m.onnx")
    spec = Spec({"node:Conv_0.width": 4})
    with pytest.raises(RefusedModel, match="initializer 'w' of the model: 1 of its 216 values are not finite"):
        fnatool.remap(path, spec)
    assert fnatool.remap(path, spec, options=fnatool.RemapOptions(verify=False)).verified is None
    with pytest.raises(RefusedModel, match="the model itself is broken, and so the result would be: initializer 'w'"):
        fnatool.head(path, options=fnatool.HeadOptions(task="classification", classes="3"))


def test_of_an_output_that_is_not_finite_nothing_is_known(tmp_path, capsys):
    text = f"g (float[N,3,8,8] x) => (float[N,4] y) {{ a=Conv<{K3}>(x,w) b=Log(a)" + END.format("b")
    path = save(model(text.replace("}}", "}"), {"w": (8, 3, 3, 3), "m": (4, 8), "mb": (4,)}), tmp_path / "m.onnx")
    made = fnatool.remap(path, Spec({"node:Conv_0.width": 4}))
    assert made.verified is not None
    assert (made.verified.blind, made.verified.compared, made.verified.whole) == (("y",), 1, None)
    (tmp_path / "s.json").write_text('{"version": 1, "knobs": {"**.width": "x0.5"}}')
    assert run(["remap", str(path), "--spec", str(tmp_path / "s.json"), "-o", str(tmp_path / "o.onnx")]) == 0
    said = capsys.readouterr().out
    assert "exact on what stays: 1 inner tensors compared" in said
    assert "nothing is known of 'y', which is not finite in the seed on noise" in said


def test_a_network_that_makes_a_sequence_on_its_way_is_compared_with_its_seed(tmp_path):
    """The file says that the tensor is a sequence, which no graph in memory can."""
    text = (
        f"g (float[N,3,8,8] x) => (float[N,4] y) {{ a=Conv<{K3}>(x,w) s=SplitToSequence<axis=1>(a,four) b=SequenceAt(s,one)"
        + END.format("b")
    )
    weights = {"w": (8, 3, 3, 3), "m": (4, 4), "mb": (4,), "four": np.array(4), "one": np.array(1)}
    proto = onnx.shape_inference.infer_shapes(model(text.replace("}}", "}"), weights))
    assert any(value.type.HasField("sequence_type") for value in proto.graph.value_info)
    made = fnatool.remap(save(proto, tmp_path / "m.onnx"), Spec({"node:Conv_0.kernel": 5}), tmp_path / "o.onnx")
    assert made.verified is not None
    assert made.verified.worst < 1e-6
    assert run(["check", str(tmp_path / "o.onnx")]) == 0


SHARED = {
    "conv on the image and on features": (
        "float[N,8,8,8] x",
        f"a=Conv<{K3}>(x,w) b=Relu(a) c=Conv<{K3}>(b,w)",
        "c",
        {"w": (8, 8, 3, 3)},
        8,
    ),
    "tied autoencoder": (
        "float[N,3,8,8] x",
        f"a=Conv<{K3}>(x,w) b=Relu(a) c=ConvTranspose<{K3}>(b,w) d=Relu(c) e=Conv<{K1}>(d,v)",
        "e",
        {"w": (8, 3, 3, 3), "v": (5, 3, 1, 1)},
        5,
    ),
    "modulated conv": (
        "float[N,3,8,8] x, float[1] s",
        f"a=Conv<{K3}>(x,w) ws=Mul(w,s) c=Conv<{K3}>(x,ws) d=Concat<axis=1>(a,c) e=Conv<{K1}>(d,v)",
        "e",
        {"w": (8, 3, 3, 3), "v": (5, 16, 1, 1)},
        5,
    ),
    "embedding used twice": (
        "float[N,8,8,8] x",
        f"x2=Add(x,P) a=Conv<{K3}>(x2,w) b=Relu(a) c=Add(b,P)",
        "c",
        {"w": (8, 8, 3, 3), "P": (1, 8, 8, 8)},
        8,
    ),
    "unknown operator reads the weight": (
        "float[N,3,8,8] x, float[N,8] q",
        f'a=Conv<{K1}>(x,w) z=Einsum<equation="nc,cdhw->nd">(q,w) z1=Unsqueeze(z,k) z2=Unsqueeze(z1,k) o=Conv<{K1}>(z2,v2) e=Conv<{K1}>(a,v) h=Add(e,o)',
        "h",
        {"w": (8, 3, 1, 1), "v": (5, 8, 1, 1), "v2": (5, 3, 1, 1), "k": np.array([2])},
        5,
    ),
}


@pytest.mark.parametrize("case", SHARED)
def test_a_shared_weight_with_a_reader_that_is_fixed(case):
    x, body, last, weights, channels = SHARED[case]
    assert trial(net(body, last, weights, channels, x)).problems == ()


def test_a_weight_tied_to_its_transpose():
    tied = graph("g (float[N,16] x) => (float[N,16] y) { a=Gemm<transB=1>(x,w) b=Relu(a) y=Gemm(b,w) }", {"w": (8, 16)})
    assert trial(tied).problems == ()


def test_a_kernel_shared_across_blocks():
    body = (
        f"s=Conv<{K3}>(x,w) b=Relu(s) c=Conv<{K3}>(b,v) c1=Relu(c) c2=Conv<{K3}>(c1,u) d=Add(b,c2) "
        f"e=Conv<{K3}>(d,v) e1=Relu(e) e2=Conv<{K3}>(e1,u) o=Add(d,e2)"
    )
    assert trial(net(body, "o", {"w": (8, 3, 3, 3), "v": (12, 8, 3, 3), "u": (8, 12, 3, 3)}, 8)).problems == ()


def test_a_residual_gate_is_not_silenced_by_what_lies_before_the_block():
    body = f"s=Conv<{K3}>(x,w) b=BatchNormalization(s,n1,n2,n3,n4) g=Conv<{K1}>(b,v) h=Sigmoid(g) k=Mul(b,h) o=Add(b,k) e=Conv<{K1}>(o,u)"
    shapes = {"w": (8, 3, 3, 3), "v": (8, 8, 1, 1), "u": (8, 8, 1, 1), **{f"n{i}": (8,) for i in range(1, 5)}}
    assert trial(net(body, "e", shapes, 8)).problems == ()


def test_ort_errors_are_refusals():
    double = {k: np.ones(s) for k, s in (("w", (8, 3, 1, 1)), ("v", (4, 8, 1, 1)))}
    made = graph("g (double[N,3,8,8] x) => (double[N,4,8,8] y) { a=Conv(x,w) b=Relu(a) y=Conv(b,v) }", double)
    analysis = analyse(made)
    found = plan(analysis, Spec({"node:a.width": 4}))
    with pytest.raises(RefusedModel):
        verify(made, apply(made, found), analysis, found)


def test_a_slice_from_both_ends():
    weights = {"w": (8, 3, 3, 3), "v": (8, 4, 1, 1), "st": np.array([2]), "en": np.array([-2]), "ax": np.array([1])}
    assert trial(net(f"s=Conv<{K3}>(x,w) b=Slice(s,st,en,ax) c=Conv<{K1}>(b,v)", "c", weights, 8)).problems == ()


def test_a_slice_from_minus_all():
    weights = {"w": (8, 3, 3, 3), "v": (8, 8, 1, 1), "st": np.array([-8]), "en": np.array([2**62]), "ax": np.array([1])}
    assert trial(net(f"s=Conv<{K3}>(x,w) b=Slice(s,st,en,ax) c=Conv<{K1}>(b,v)", "c", weights, 8)).problems == ()


def test_zeros_like_in_a_concat():
    made = graph(
        f"g (float[N,3,8,8] x) => (float[N,5,8,8] y) {{ s=Conv<{K3}>(x,w) h=Shape(s) z=ConstantOfShape(h) b=Concat<axis=1>(s,z) y=Conv<{K1}>(b,v) }}",
        {"w": (8, 3, 3, 3), "v": (5, 16, 1, 1)},
    )
    assert trial(made).problems == ()


def test_a_scale_computed_from_the_channel_count():
    made = graph(
        f"g (float[N,3,H,W] x) => (float[N,5,H,W] y) {{ s=Conv<{K3}>(x,w) h=Shape(s) c=ReduceProd<keepdims=0>(h) d=Cast<to=1>(c) q=Sqrt(d) b=Div(s,q) y=Conv<{K1}>(b,v) }}",
        {"w": (8, 3, 3, 3), "v": (5, 8, 1, 1)},
    )
    assert trial(made).problems == ()


def test_pixel_shuffle_by_reshape_closes():
    made = graph(
        f"g (float[N,3,8,8] x) => (float[N,3,16,16] y) {{ s=Conv<{K3}>(x,w) r=Reshape(s,s1) t=Transpose<perm=[0,1,4,2,5,3]>(r) e=Reshape(t,s2) y=Conv<{K3}>(e,v) }}",
        {"w": (16, 3, 3, 3), "v": (3, 4, 3, 3), "s1": np.array([-1, 4, 2, 2, 8, 8]), "s2": np.array([-1, 4, 16, 16])},
    )
    assert trial(made).problems == ()


def test_grouped_transposed_convolution_closes():
    body = f"s=Conv<{K3}>(x,w) b=Relu(s) c=ConvTranspose<kernel_shape=[2,2],strides=[2,2],group=4>(b,v,vb) d=Relu(c)"
    made = net(body, "d", {"w": (8, 3, 3, 3), "v": (8, 3, 2, 2), "vb": (12,)}, 12)
    assert trial(made).problems == ()
    assert analyse(made).knobs["node:c.width"].value == 12


def test_training_mode_batch_normalization():
    made = graph(
        f"g (float[N,3,8,8] x) => (float[N,5,8,8] y) {{ a=Conv<{K3}>(x,w) b,rm,rv=BatchNormalization<training_mode=1>(a,s,t,m,v) y=Conv<{K1}>(b,u) }}",
        {"w": (8, 3, 3, 3), "u": (5, 8, 1, 1), "s": (8,), "t": (8,), "m": (8,), "v": (8,)},
    )
    assert trial(made).problems == ()


def test_same_pads_with_a_stride_beyond_the_kernel():
    made = graph(
        f'g (float[N,3,H,W] x) => (float[N,4,A,B] y) {{ a=Conv<auto_pad="SAME_UPPER",kernel_shape=[3,3],strides=[4,4]>(x,w) b=Relu(a) y=Conv<{K1}>(b,v) }}',
        {"w": (8, 3, 3, 3), "v": (4, 8, 1, 1)},
    )
    assert trial(made).problems == ()


def test_verification_of_a_uint8_model_sees_a_wiring_error():
    made = net(
        f"xc=Cast<to=1>(x) a=Conv<{K3}>(xc,w) b=Relu(a) c=Conv<{K1}>(b,v)",
        "c",
        {"w": (8, 3, 3, 3), "v": (6, 8, 1, 1)},
        6,
        "uint8[N,3,8,8] x",
    )
    analysis = analyse(made)
    found = plan(analysis, Spec({"node:a.width": 10}), strategy="preserve")
    target = apply(made, found)
    for node in target.nodes:
        if node.name == "a":
            node.inputs[1] = gs.Constant("w", np.ascontiguousarray(node.inputs[1].values[::-1]))
    assert verify(made, target, analysis, found).first is not None


def test_check_accepts_an_initializer_as_output(tmp_path):
    proto = model(
        "g (float[N,3,8,8] x) => (float[N,8,8,8] y, float[8,3,1,1] w) { y = Conv (x, w) }", {"w": (8, 3, 1, 1)}
    )
    report = checking.check(save(proto, tmp_path / "m.onnx"), options=checking.CheckOptions(seconds=60.0))
    assert [f for f in report.findings if f.severity == "error"] == []


def test_a_channel_vector_with_space_axes_is_no_weight_under_the_paper_rule() -> None:
    made = net(
        f"a=Conv<{K3}>(x,w) b=Relu(a) c=Add(b,e) d=Log(c) o=Conv<{K1}>(d,v)",
        "o",
        {"w": (8, 3, 3, 3), "e": (8, 1, 1), "v": (5, 8, 1, 1)},
        5,
    )
    analysis = analyse(made)
    target = apply(made, plan(analysis, Spec({"node:a.width": 12})))
    assert not next(t for t in target.tensors().values() if t.name == "e").values[8:].any()


def test_a_result_that_is_not_finite_where_the_seed_is_is_refused(tmp_path) -> None:
    proto = model(
        f"g (float[N,3,8,8] x) => (float[N,5,8,8] y) {{ a=Conv<{K3}>(x,w) b=Relu(a) c=Add(b,e) d=Log(c) y=Conv<{K1}>(d,v) }}",
        {"w": (8, 3, 3, 3), "e": np.full((8, 1, 1), 1e-3, np.float32), "v": (5, 8, 1, 1)},
    )
    with pytest.raises(RefusedModel, match="infinities or NaN"):
        fnatool.remap(save(proto, tmp_path / "m.onnx"), Spec({"node:Conv_0.width": 12}), tmp_path / "o.onnx")
    assert not (tmp_path / "o.onnx").exists()


COMPUTED = {
    "the bias of a convolution": f"g=GlobalAveragePool(a) h=Flatten(g) i=ReduceMean<axes=[0],keepdims=0>(h) o=Conv<{K1}>(x,v,i)",
    "the bias of a Gemm": "g=GlobalAveragePool(a) h=Flatten(g) q=GlobalAveragePool(x) r=Flatten(q) s=Gemm<transB=1>(r,u,h) t=Unsqueeze<axes=[2,3]>(s) o=Add(a,t)",
    "the scale of a normalisation": f"g=GlobalAveragePool(a) h=Flatten(g) i=ReduceMean<axes=[0],keepdims=0>(h) c=Conv<{K1}>(x,v) o=InstanceNormalization(c,i,z)",
}


@pytest.mark.parametrize("case", COMPUTED)
def test_channels_that_become_a_weight_keep_their_number(case: str) -> None:
    made = graph(
        f"g (float[1,3,8,8] x) => (float[1,4] y) {{ a=Conv<{K3}>(x,w) {COMPUTED[case]}" + END.format("o"),
        {"w": (8, 3, 3, 3), "v": (8, 3, 1, 1), "u": (8, 3), "z": (8,), "m": (4, 8), "mb": (4,)},
        11,
    )
    analysis = analyse(made)
    name = next(name for name, atom in analysis.atoms.items() if any(site.tensor == "w" for site in atom.sites))
    assert analysis.knobs[name].growth == "frozen"
    assert trial(made).problems == ()


def test_padding_that_repeats_channels_freezes_them() -> None:
    made = net(
        f'a=Conv<{K3}>(x,w) q=Pad<mode="edge">(a,n) o=Conv<{K1}>(q,v)',
        "o",
        {"w": (8, 3, 3, 3), "v": (5, 10, 1, 1), "n": np.array([0, 1, 0, 0, 0, 1, 0, 0])},
        5,
    )
    assert analyse(made).knobs["node:a.width"].why.endswith("repeats some of its channels")
    assert trial(made).problems == ()


def test_nodes_without_names_are_named_by_the_analysis() -> None:
    made = net(f"a=Conv<{K3}>(x,w) b=Relu(a) c=Conv<{K1}>(b,v)", "c", {"w": (8, 3, 3, 3), "v": (6, 8, 1, 1)}, 6)
    for node in made.nodes:
        node.name = ""
    assert "node:Conv_0.width" in analyse(made).knobs
    assert trial(made).problems == ()
