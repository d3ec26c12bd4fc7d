"""A section of a network has the names, sizes and values of the whole; what cannot be cut is refused with what to
do.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from nets import Net, graph

from fnatool.runtime.verify import run_inner
from passes.errors import RefusedModel, UserError
from passes.graph.section import section
from passes.graph.view import records

IMAGES = {"x": np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)}


def net(batch: int | str = "N") -> gs.Graph:
    """A stem `a.n.r`, two arms `b` and `c`, their sum `s`, a classifier `y`."""
    made = Net()
    stem = made.conv_bn_relu("x", "a", 4, 3)
    made.op("Add", "s", made.conv_bn_relu(stem, "b", 4, 3), made.conv(stem, "c", 4))
    made.classifier("s")
    return made.graph(batch=batch)


def ends(made: gs.Graph) -> dict[str, list[int | str | None]]:
    return {tensor.name: list(tensor.shape) for tensor in (*made.inputs, *made.outputs)}


def test_a_network_ends_at_an_inner_tensor_with_its_type_and_sizes() -> None:
    made = section(net(), ["b.n.r", "s"])
    assert ends(made) == {"x": ["N", 3, 8, 8], "b.n.r": ["N", 4, 8, 8], "s": ["N", 4, 8, 8]}
    assert {tensor.dtype for tensor in made.outputs} == {np.dtype(np.float32)}
    assert [node.name for node in records(made)[0]] == ["a", "a.n", "a.n.r", "b", "b.n", "b.n.r", "c", "s"]
    assert "fc.w" not in records(made)[1]


def test_an_end_computes_what_the_whole_does_there() -> None:
    whole, tensors = net(), ["a.n.r", "s"]
    made = section(whole, tensors)
    inner, own = (
        run_inner(whole, IMAGES, tensors, "it", optimised=False),
        run_inner(made, IMAGES, tensors, "it", optimised=False),
    )
    assert all(inner[name].tobytes() == own[name].tobytes() for name in tensors)
    planted = run_inner(section(whole, ["b", "s"]), {"x": IMAGES["x"] + 1}, ["s"], "it", optimised=False)
    assert planted["s"].tobytes() != inner["s"].tobytes()


def test_a_network_begins_at_an_inner_tensor() -> None:
    whole = net()
    made = section(whole, (), ["a.n.r"])
    assert ends(made) == {"a.n.r": ["N", 4, 8, 8], "y": ["N", 5]}
    inner = run_inner(whole, IMAGES, ["a.n.r", "y"], "it", optimised=False)
    own = run_inner(made, {"a.n.r": inner["a.n.r"]}, ["y"], "it", optimised=False)
    assert own["y"].tobytes() == inner["y"].tobytes()


def test_the_graph_given_is_not_changed() -> None:
    whole = net()
    before = ends(whole), [node.name for node in whole.nodes]
    section(whole, ["s"], ["a.n.r"])
    assert (ends(whole), [node.name for node in whole.nodes]) == before


def test_free_axes_have_the_names_that_they_have_in_the_input() -> None:
    made = Net()
    made.op("Concat", "t", made.conv("x", "a", 4, 3, stride=2), "a", axis=0)
    whole = made.graph("t")
    whole.inputs[0].shape = ["N", 3, "h", None]
    assert ends(section(whole, ["a"])) == {"x": ["N", 3, "h", None], "a": ["N", 4, None, None]}
    made = Net()
    made.conv("x", "a", 4, 3)
    made.op("Relu", "y", "a")
    whole = made.graph()
    whole.inputs[0].shape = ["N", 3, "h", "w"]
    assert ends(section(whole, ["a"]))["a"] == ["N", 4, "h", "w"]


def test_an_axis_that_only_happens_to_be_as_long_is_no_free_one() -> None:
    made = graph("g (float[N,1,4,4] x) => (float[N,1,4,4] y) { a = Relu(x) y = Relu(a) }")
    assert ends(section(made, ["a"]))["a"] == ["N", 1, 4, 4]
    tied = graph("g (float[N,4,4,4] x) => (float[M,4,4,4] y) { t = Concat<axis = 0>(x, x) y = Relu(t) }")
    assert ends(section(tied, ["t"]))["t"] == [None, 4, 4, 4]


def test_an_input_that_nothing_reads_goes() -> None:
    made = graph("g (float[1,4] x, float[1,4] z) => (float[1,4] y) { a = Relu(x) y = Add(a, z) }")
    assert list(ends(section(made, ["a"]))) == ["x", "a"]


def test_a_number_known_without_the_data_is_a_constant_behind_a_cut() -> None:
    body = "a = Relu(x) s = Shape<start = 0, end = 1>(x) t = Concat<axis = 0>(s, m) y = Reshape(a, t)"
    whole = graph(f"g (float[1,4,4] x) => (float[1,16] y) {{ {body} }}", {"m": np.array([-1])})
    made = section(whole, ["y"], ["a"])
    assert list(ends(made)) == ["a", "y"]
    assert [node.op for node in records(made)[0]] == ["Reshape"]


@pytest.mark.parametrize(
    ("outputs", "inputs", "said"),
    [
        (["sum"], [], "'sum' is no tensor of this model"),
        (["a.w"], [], "'a.w' holds weights"),
        (["x"], [], "'x' is an input of the model"),
        (["s"], ["s"], "'s' cannot be both"),
        ([], ["y"], "'y' cannot be both"),
        (["a"], ["s"], "no output that is kept comes from 's'"),
        (["s"], ["b.n.r"], "also needs the input 'x', by a way beside 'b.n.r' that begins at node 'a'"),
    ],
)
def test_what_cannot_be_cut_is_refused(outputs: list[str], inputs: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said.replace(".", r"\.")):
        section(net(), outputs, inputs)


def test_an_output_that_no_input_reaches_is_refused() -> None:
    made = graph("g (float[1,4] x) => (float[1,4] y) { k = ConstantOfShape(s) y = Add(x, k) }", {"s": np.array([1, 4])})
    with pytest.raises(UserError, match="'k' comes from no input"):
        section(made, ["k"])


def test_an_output_of_a_split_beside_a_new_input_keeps_its_node() -> None:
    text = "g (float[1,4,2] x) => (float[1,2,2] y) { a, b = Split<axis = 1>(x, n) y = Add(a, b) }"
    made = section(graph(text, {"n": np.array([2, 2])}), ["y"], ["a", "x"])
    assert list(ends(made)) == ["a", "x", "y"]
    feeds = {"x": np.ones((1, 4, 2), np.float32), "a": np.full((1, 2, 2), 2, np.float32)}
    assert run_inner(made, feeds, ["y"], "it")["y"].tolist() == [[[3, 3], [3, 3]]]


def test_a_network_cannot_begin_where_the_size_is_unknown() -> None:
    made = graph("g (float[1,4] x) => (float[1,K] y) { n = NonZero(x) c = Cast<to = 1>(n) y = Relu(c) }")
    with pytest.raises(RefusedModel, match="the size of tensor 'c' is not known"):
        section(made, ["y"], ["c"])
