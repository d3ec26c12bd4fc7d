"""Groups: the diagonal blocks of a dense weight, zeros around them on the way back, and both together with widths,
kernels and copies.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from nets import Net, graph, values

from fnatool.runtime.verify import verify
from passes import Analysis, Plan, Spec, UserError, analyse, apply, own_spec, plan
from passes.channels.groups import possible, regrouped, regrouped_shape
from passes.graph.view import view
from passes.network.cost import cost

Knobs = Mapping[str, int | str]


def net(width: int = 16, hidden: int = 16, *, groups: int = 1, count: int = 2) -> gs.Graph:
    """A stem and residual blocks of two 3×3 convolutions, the first with groups."""
    made = Net()
    y = made.conv_bn_relu("x", "stem", width, 3)
    for k in range(count):
        inner = made.conv_bn_relu(y, f"a{k}", hidden, 3, group=groups)
        y = made.relu(made.op("Add", f"s{k}", y, made.conv_bn(inner, f"b{k}", width, 3)))
    made.classifier(y)
    return made.graph()


def remapped(made: gs.Graph, knobs: Knobs, **how: object) -> tuple[Analysis, Plan, gs.Graph]:
    analysis = analyse(made)
    found = plan(analysis, Spec(knobs), **how)  # type: ignore[arg-type]
    return analysis, found, apply(made, found)


def require_exact(made: gs.Graph, knobs: Knobs, **how: object) -> tuple[Analysis, Plan, gs.Graph]:
    analysis, found, target = remapped(made, knobs, **how)
    result = verify(made, target, analysis, found)
    assert result.exact
    assert result.first is None
    return analysis, found, target


def weights(made: gs.Graph) -> dict[str, np.ndarray]:
    seen = view(made)
    return {name: seen.values(name) for name in seen.constants}


def dense(weight: np.ndarray, groups: int) -> np.ndarray:
    """The equation of passes/groups.py, entry by entry."""
    rows, columns = weight.shape[:2]
    full = np.zeros((rows, columns * groups, *weight.shape[2:]), weight.dtype)
    for row in range(rows):
        first = row // (rows // groups) * columns
        full[row, first : first + columns] = weight[row]
    return full


# --- arrays -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 6, 12])
@pytest.mark.parametrize("target", [1, 2, 3, 4, 6, 12])
def test_a_weight_in_other_groups_has_what_both_can_hold(seed: int, target: int) -> None:
    weight = np.random.default_rng(0).standard_normal((24, 48 // seed, 3, 1)).astype(np.float32)
    full = dense(weight, seed)
    wanted = np.stack([full[row, row // (24 // target) * (48 // target) :][: 48 // target] for row in range(24)])
    made = regrouped(weight, seed, target)
    assert np.array_equal(made, wanted)
    assert made.shape == regrouped_shape(weight.shape, seed, target)


def test_groups_divide_both_axes_and_leave_two_inputs_each() -> None:
    assert possible(16, 24, 24) == [1, 2, 4, 8]
    assert possible(8, 8, 8) == [1, 2, 4]
    assert possible(7, 5, 5) == [1]


# --- from dense to groups -----------------------------------------------------------------------


@pytest.mark.parametrize("groups", [2, 4, 8])
def test_dense_to_groups_takes_the_diagonal_blocks(groups: int) -> None:
    made = net()
    seed = weights(made)
    _, _, target = require_exact(made, {"stage0.block1.groups2": groups})
    got = weights(target)
    assert np.array_equal(got["b1.w"], regrouped(seed["b1.w"], 1, groups))
    for group in range(groups):
        rows = slice(group * 16 // groups, (group + 1) * 16 // groups)
        assert np.array_equal(got["b1.w"][rows], seed["b1.w"][rows, rows])
    assert view(target).by_name["b1"].attrs["group"] == groups
    assert all(np.array_equal(got[name], seed[name]) for name in seed if name != "b1.w")


def test_a_block_cut_out_at_the_wrong_place_is_found() -> None:
    made = net()
    analysis, found, target = remapped(made, {"stage0.block1.groups2": 4})
    for node in target.nodes:
        if node.name == "b1":
            node.inputs[1] = gs.Constant("b1.w", np.roll(np.asarray(node.inputs[1].values), 1, axis=1))
    result = verify(made, target, analysis, found)
    assert result.first is not None
    assert result.first.node == "b1"


def test_more_groups_are_refused_by_preserve_and_dropped_when_allowed() -> None:
    made = net()
    with pytest.raises(UserError, match=r"'stage0.block0.groups' cannot go from 1 to 2 exactly: more groups drop"):
        remapped(made, {"stage0.block0.groups": 2}, strategy="preserve")
    require_exact(made, {"stage0.block0.groups": 2}, strategy="preserve", allow_drift=True)


# --- and back -----------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 2])
def test_fewer_groups_keep_the_function_with_zeros_outside_the_blocks(groups: int) -> None:
    made = net(groups=4)
    analysis, _, target = require_exact(made, {"stage0.block0.groups": groups}, strategy="preserve")
    new = dense(weights(target)["a0.w"], groups)
    assert np.array_equal(new, dense(weights(made)["a0.w"], 4))
    (before,), (after,) = values(made, analysis, "y"), values(target, analysis, "y")
    assert np.allclose(before, after, atol=1e-5)


def test_there_and_back_gives_the_blocks_of_the_dense_weight() -> None:
    made = net()
    _, _, grouped = require_exact(made, {"**.groups*": 4})
    _, _, back = require_exact(grouped, {"**.groups*": 1}, strategy="preserve")
    seed = weights(made)["a0.w"]
    assert np.array_equal(weights(back)["a0.w"], dense(regrouped(seed, 1, 4), 4))
    assert view(back).by_name["a0"].attrs["group"] == 1


# --- together with other knobs ------------------------------------------------------------------


def test_width_and_groups_are_judged_on_the_final_shapes() -> None:
    made = net(128, 128, groups=32)
    knobs = {"**.groups": 16, "stage0.width": 144, "stage0.block*.hidden": 144}
    _, found, target = require_exact(made, knobs, strategy="preserve")
    assert found.resolved.knobs["stage0.width"].multiple == 16
    assert weights(target)["a0.w"].shape == (144, 9, 3, 3)
    with pytest.raises(UserError, match="must be a multiple of 32"):
        remapped(made, {"stage0.width": 144})


def test_groups_that_fit_the_target_only_are_cut_out_at_the_end() -> None:
    made = net(24, 24)
    seed = weights(made)["b0.w"]
    knobs = {"stage0.block0.groups2": 16, "stage0.block0.hidden": 32, "stage0.width": 32}
    analysis, found, target = remapped(made, knobs)
    result = verify(made, target, analysis, found)
    assert result.first is None
    new = weights(target)["b0.w"]
    assert new.shape == (32, 2, 3, 3)
    for row in range(24):
        first = row // 2 * 2
        assert np.array_equal(new[row], seed[row, first : first + 2])


def test_groups_that_fit_the_target_only_are_verified_where_it_shrinks() -> None:
    made = net(24, 24)
    require_exact(made, {"stage0.block0.groups2": 10, "stage0.block0.hidden": 20, "stage0.width": 20})


@pytest.mark.parametrize("strategy", ["fna", "preserve"])
@pytest.mark.parametrize("select", ["first", "l1"])
def test_narrowing_together_with_groups_is_groups_first_and_narrowing_then(strategy: str, select: str) -> None:
    made = net()
    groups, widths = {"**.groups*": 2}, {"stage0.width": 8, "stage0.*.hidden": 12}
    how = {"strategy": strategy, "select": select, "allow_drift": True}
    _, _, at_once = require_exact(made, {**groups, **widths}, **how)
    _, _, first = remapped(made, groups, **how)
    _, _, then = remapped(first, widths, **how)
    one, two = weights(at_once), weights(then)
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_copies_of_a_block_have_groups_of_their_own() -> None:
    made = net()
    knobs = {"stage0.depth": 4, "stage0.block2.groups": 2, "stage0.block3.groups": 4, "stage0.block3.kernel": 5}
    analysis, found, target = remapped(made, knobs)
    assert found.resolved.spec().knobs["stage0.block3.groups"] == 4
    seen = view(target)
    groups = [
        node.attrs.get("group", 1)
        for node in seen.nodes
        if node.op == "Conv" and found.origin()[node.name] in ("a0", "a1")
    ]
    assert groups == [1, 1, 2, 4]
    again = analyse(target, table=found.table)
    assert [again.knobs[f"stage0.block{j}.groups"].value for j in range(4)] == [1, 1, 2, 4]
    assert cost(again.view, again.shapes).params == sum(w.size for n, w in weights(target).items() if _trained(n))
    assert verify(made, target, analysis, found).drifts


def _trained(name: str) -> bool:
    return not name.split("_copy")[0].endswith((".mean", ".var"))


def test_a_silent_copy_with_fewer_groups_stays_silent() -> None:
    made = net(groups=4)
    knobs = {"stage0.depth": 3, "stage0.block2.groups": 2, "stage0.block2.hidden": 24}
    _, found, target = require_exact(made, knobs, strategy="preserve")
    quiet = {take.target for take in found.takes if take.silent}
    assert quiet == {"b1.n.gamma_copy", "b1.n.beta_copy"}
    assert not weights(target)["b1.n.gamma_copy"].any()


def test_the_written_shape_is_read_back_as_the_spec() -> None:
    made = net()
    _, found, target = remapped(made, {"stage*.block*.groups*": 4, "stage0.depth": 3, "stage0.width": "x1.25"})
    again = analyse(target, table=found.table)
    read = own_spec(again).knobs
    wanted = {name: value for name, value in found.resolved.spec().knobs.items() if not name.endswith(".from")}
    assert {name: read[name] for name in wanted} == wanted


# --- other convolutions -------------------------------------------------------------------------


def test_a_transposed_convolution_is_cut_along_its_inputs() -> None:
    made = graph(
        """net (float[1,3,4,4] x) => (float[1,5,8,8] y) {
            a = Conv (x, wa)
            t = ConvTranspose <kernel_shape = [2, 2], strides = [2, 2]> (a, wt)
            y = Conv (t, wy)
        }""",
        {"wa": (8, 3, 1, 1), "wt": (8, 12, 2, 2), "wy": (5, 12, 1, 1)},
    )
    _, _, target = require_exact(made, {"node:t.groups": 4})
    new, old = weights(target)["wt"], weights(made)["wt"]
    assert new.shape == (8, 3, 2, 2)
    assert all(np.array_equal(new[row], old[row, row // 2 * 3 : row // 2 * 3 + 3]) for row in range(8))
    require_exact(target, {"node:t.groups": 1}, strategy="preserve")
    require_exact(target, {"node:t.groups": 2, "node:t.width": 8, "node:a.width": 6})


def test_a_weight_that_two_convolutions_share_changes_for_both() -> None:
    made = graph(
        """net (float[1,3,8,8] x) => (float[1,4,8,8] y, float[1,4,4,4] z) {
            a = Conv (x, wa)
            b = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a)
            c = Conv (a, w)
            d = Conv (b, w)
            y = Conv (c, wy)
            z = Conv (d, wy)
        }""",
        {"wa": (8, 3, 1, 1), "w": (8, 8, 1, 1), "wy": (4, 8, 1, 1)},
    )
    analysis, _, target = require_exact(made, {"node:c.groups": 2})
    assert "node:d.groups" not in analysis.knobs
    assert [view(target).by_name[name].attrs["group"] for name in ("c", "d")] == [2, 2]


def test_depthwise_convolutions_have_no_groups_knob_and_the_first_one_is_frozen() -> None:
    made = Net()
    made.classifier(made.conv_bn_relu(made.conv_bn_relu("x", "stem", 8, 3), "dw", 8, 3, group=0))
    knobs = analyse(made.graph()).knobs
    assert "node:dw.groups" not in knobs
    assert knobs["node:stem.groups"].growth == "frozen"


# --- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        (
            {"stage0.block0.groups": 3},
            "'stage0.block0.groups': 3 groups are not possible with 16 input and 16 output channels",
        ),
        ({"stage0.block0.groups": 16}, "at least two inputs; possible are 1, 2, 4, 8"),
        ({"stage0.block0.groups": 8, "stage0.width": 20}, "'stage0.width' must be a multiple of 8"),
        ({"stage0.block0.groups": 0}, "0 is out of range"),
        ({"stage0.block0.groups": 10**9}, "groups are not possible"),
        ({"stage0.block0.groups": "x0.5"}, "0 is out of range"),
        ({"node:stem.groups": 3}, "'node:stem.groups' is frozen at 1: the channels that 'stem' reads are no weight's"),
        ({"stage0.block0.groups9": 2}, "did you mean 'stage0.block0.groups"),
    ],
)
def test_an_impossible_number_of_groups_says_what_is_possible(knobs: Knobs, message: str) -> None:
    with pytest.raises(UserError) as error:
        remapped(net(), knobs)
    assert message in str(error.value)


def test_a_width_that_the_new_groups_tie_to_another_is_named() -> None:
    made = Net()
    one = made.conv_bn_relu("x", "one", 8, 3)
    two = made.conv_bn_relu("x", "two", 8, 3)
    joined = made.op("Concat", "joined", one, two, axis=1)
    made.channels[joined] = 16
    made.classifier(made.conv_bn_relu(joined, "last", 8, 3))
    seed = made.graph()
    assert "node:two.width" in analyse(seed).knobs
    with pytest.raises(UserError, match=r"'node:two.width' is no knob any more with these groups"):
        remapped(seed, {"node:last.groups": 2, "node:two.width": 6})
    require_exact(seed, {"node:last.groups": 2, "node:one.width": 6})


def test_a_free_batch_stays_free_where_groups_change() -> None:
    made = graph(
        """net (float[N,3,4,4] x) => (y, z) {
            a = Conv (x, u)
            f = Flatten <axis = 2> (a)
            y = Relu (f)
            c = Conv (a, v)
            z = Conv (c, t)
        }""",
        {"u": (8, 3, 1, 1), "v": (4, 8, 1, 1), "t": (4, 4, 1, 1)},
    )
    found = plan(analyse(made), Spec({"node:z.groups": 2}))
    assert (
        found.resolved.knobs["node:a.width"].why
        == analyse(made).knobs["node:a.width"].why
        == "'f' (Flatten) merges its channels with the batch"
    )
