"""Channel identity: the change of a vector, atoms, and what is tied together or frozen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from nets import Net, graph, values

from passes import Spec, apply, own_spec, plan
from passes.channels.atoms import Identities
from passes.channels.identities import flow_identities
from passes.channels.resize import Change, Positions, length, modelled, resized
from passes.errors import RefusedModel
from passes.graph.normalise import normalise
from passes.graph.shapes import infer
from passes.graph.view import view
from passes.network.analyse import analyse
from passes.network.analysis import Analysis


def identities(made: gs.Graph) -> Identities:
    seen = view(normalise(made).graph)
    return flow_identities(seen, infer(seen))


def sizes_and_reasons(found: Identities) -> list[tuple[str, int, str | None]]:
    return [(atom.first.tensor, atom.value, atom.frozen) for atom in found.atoms]


# --- resized ------------------------------------------------------------------------------------


def change(count: int, drop: tuple[int, ...] = (), grow: dict[int, int] | None = None) -> Change:
    keep, born = np.ones(count, bool), np.zeros(count, np.int64)
    keep[list(drop)] = False
    for c, by in (grow or {}).items():
        born[c] = by
    return Change(keep, born)


def marks(ids: list[int], what: Change) -> list[str]:
    """The resized vector: '3' the old position 3, '3*1' its first fresh copy."""
    found = resized(np.array(ids, np.int64), what)
    assert len(found) == length(np.array(ids, np.int64), what)
    return [
        str(old) if copy == 0 else f"{old}*{copy}"
        for old, copy in zip(found.old.tolist(), found.copy.tolist(), strict=True)
    ]


@pytest.mark.parametrize(
    ("ids", "what", "expected"),
    [
        ([0, 1, 2, 3], change(4), "0 1 2 3"),
        ([0, 1, 2, 3], change(4, drop=(1, 3)), "0 2"),
        ([0, 1, 2, 3], change(4, grow={3: 2}), "0 1 2 3 3*1 3*2"),
        ([0, 1, 2, 3], change(4, grow={1: 1}), "0 1 1*1 2 3"),
        ([0, 1, 2, 3], change(4, drop=(0,), grow={3: 1}), "1 2 3 3*1"),
        ([-1, 0, 1, -1, -1], change(2, grow={1: 1}), "0 1 2 2*1 3 4"),
        ([-1, 0, 1, -1], change(2, drop=(0, 1)), "0 3"),
        ([0, 1, 0, 1], change(2, grow={1: 1}), "0 1 1*1 2 3 3*1"),  # tiled, as groups are
        # runs, as flattened space: a copy is a whole run
        ([0, 0, 1, 1], change(2, grow={1: 2}), "0 1 2 3 2*1 3*1 2*2 3*2"),
        ([0, 0, 1, 1, 0, 0], change(2, drop=(1,), grow={0: 1}), "0 1 0*1 1*1 4 5 4*1 5*1"),
        ([2, 0, 1, 3], change(4, drop=(0,), grow={1: 1, 3: 1}), "0 2 2*1 3 3*1"),  # two atoms in one vector
        ([1, 1, 1], change(2, grow={1: 1}), "0 1 2 0*1 1*1 2*1"),
        ([], change(1, grow={0: 1}), ""),
    ],
)
def test_a_vector_after_a_change_is(ids: list[int], what: Change, expected: str) -> None:
    assert marks(ids, what) == expected.split()


def test_fresh_positions_have_index_minus_one_and_a_parent() -> None:
    found = resized(np.array([0, 1, 2]), change(3, drop=(0,), grow={2: 2}))
    assert found.index.tolist() == [1, 2, -1, -1]
    assert found.old.tolist() == [1, 2, 2, 2]
    assert len(found) == 4


def labels(ids: np.ndarray, what: Change) -> np.ndarray:
    """The vector itself after the change, fresh classes numbered apart."""
    found = resized(ids, what)
    return ids[found.old] + 1000 * found.copy


CHANGES = [change(6), change(6, drop=(0, 4)), change(6, grow={5: 3}), change(6, drop=(1,), grow={2: 2, 5: 1})]


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_commutes_with_tiling(what: Change) -> None:
    ids = np.arange(6)
    np.testing.assert_array_equal(labels(np.tile(ids, 3), what), np.tile(labels(ids, what), 3))


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_commutes_with_repeating(what: Change) -> None:
    ids = np.arange(6)
    np.testing.assert_array_equal(labels(np.repeat(ids, 4), what), np.repeat(labels(ids, what), 4))


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_commutes_with_joining(what: Change) -> None:
    first, second = np.arange(3), np.array([3, 4, 5, 1, -1])
    joined = labels(np.concatenate([first, second]), what)
    np.testing.assert_array_equal(joined, np.concatenate([labels(first, what), labels(second, what)]))


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([0, 1, 2], [0, 1, 2, 0, 1]),
        ([0, 1, 2, 0, 1, 2], [0, 1, 2, 0, 1, 3, 4, 5, 3, 4]),  # each group from itself
        ([0, 0, 1, 1, 2, 2], [0, 1, 2, 3, 4, 5, 0, 1, 2, 3]),  # each position of a run from the same one
        ([-1, 1, 0, 2, -1], [0, 1, 2, 3, 2, 1, 4]),
    ],
)
def test_a_fresh_position_takes_after_the_same_place_of_its_model(ids: list[int], expected: list[int]) -> None:
    vector = np.array(ids)
    found = resized(vector, change(3, grow={2: 2}))
    assert modelled(vector, found, {2: np.array([0, 1])}).tolist() == expected


# --- atoms --------------------------------------------------------------------------------------


def chain() -> Net:
    net = Net()
    net.conv_bn_relu("x", "c1", 6)
    net.conv_bn_relu("c1.n.r", "c2", 8)
    net.classifier("c2.n.r")
    return net


def test_each_convolution_of_a_chain_is_one_atom_and_the_output_is_frozen() -> None:
    assert sizes_and_reasons(identities(chain().graph())) == [
        ("c1.w", 6, None),
        ("c2.w", 8, None),
        ("fc.w", 5, "graph output 'y'"),
    ]


def test_an_atom_reaches_all_that_makes_carries_and_reads_its_channels() -> None:
    atom = identities(chain().graph()).atoms[0]
    roles = {(site.tensor, site.axis): (site.role, site.fill) for site in atom.sites}
    assert roles == {
        ("c1.w", 0): ("creates", 0.0),
        ("c1.n.gamma", 0): ("creates", 1.0),
        ("c1.n.beta", 0): ("creates", 0.0),
        ("c1.n.mean", 0): ("creates", 0.0),
        ("c1.n.var", 0): ("creates", 1.0),
        ("c2.w", 1): ("consumes", 0.0),
    }


def test_a_residual_addition_makes_one_atom_of_both_sides() -> None:
    net = Net()
    net.conv("x", "c1", 8)
    net.conv("c1", "c2", 8)
    net.op("Add", "s", "c1", "c2")
    net.classifier("s")
    found = identities(net.graph())
    assert sizes_and_reasons(found)[0] == ("c1.w", 8, None)
    assert len(found.atoms) == 2
    assert {(site.tensor, site.axis) for site in found.atoms[0].sites} == {
        ("c1.w", 0),
        ("c2.w", 0),
        ("c2.w", 1),
        ("fc.w", 1),
    }


def test_the_two_halves_of_a_split_are_atoms_of_their_own() -> None:
    made = graph(
        """g (float[1,3,4,4] x) => (float[1,4,4,4] y) {
            c = Conv (x, w)
            a, b = Split <axis = 1> (c)
            d = Conv (a, u)
            e = Conv (b, v)
            y = Add (d, e)
        }""",
        {"w": (8, 3, 1, 1), "u": (4, 4, 1, 1), "v": (4, 4, 1, 1)},
    )
    assert sizes_and_reasons(identities(made)) == [("w", 4, None), ("w", 4, None), ("u", 4, "graph output 'y'")]


def test_a_channel_shuffle_ties_the_two_halves_together() -> None:
    made = graph(
        """g (float[1,3,4,4] x) => (float[1,5,4,4] y) <int64[5] split = {1,2,4,4,4}, int64[4] back = {1,8,4,4}> {
            c = Conv (x, w)
            r = Reshape (c, split)
            t = Transpose <perm = [0,2,1,3,4]> (r)
            s = Reshape (t, back)
            y = Conv (s, u)
        }""",
        {"w": (8, 3, 1, 1), "u": (5, 8, 1, 1)},
    )
    first = identities(made).atoms[0]
    assert (first.value, first.multiple, first.classes.size) == (8, 2, 4)


def one(made: gs.Graph) -> list[tuple[str, str | None]]:
    return [(atom.first.node, atom.one) for atom in identities(made).atoms]


def test_one_channel_is_said_to_be_one_and_not_tied() -> None:
    net = Net()
    net.conv("x", "c1", 1)
    net.conv("c1", "c2", 8)
    net.classifier("c2")
    first, second, _ = one(net.graph())
    assert first == (
        "c1",
        "'c1' makes one channel: a size of 1 may be one channel or stand for any number, so it stays",
    )
    assert second == ("c2", None)


def test_a_convolution_with_one_channel_per_group_names_its_groups() -> None:
    net = Net()
    net.conv("x", "c1", 8)
    net.conv("c1", "c2", 4, 3, group=4)
    net.classifier("c2")
    assert ("c2", "'c2' makes one channel in each of its 4 groups, and groups stay equal") in one(net.graph())


def test_a_channel_that_goes_a_way_of_its_own_names_the_convolution_that_makes_it() -> None:
    made = graph(
        """g (float[1,3,4,4] x) => (float[1,4,4,4] y) <int64[2] sizes = {7, 1}> {
            c = Conv (x, w)
            a, b = Split <axis = 1> (c, sizes)
            d = Conv (a, u)
            e = Conv (b, v)
            y = Add (d, e)
        }""",
        {"w": (8, 3, 1, 1), "u": (4, 7, 1, 1), "v": (4, 1, 1, 1)},
    )
    reasons = [reason for node, reason in one(made) if node == "c"]
    assert reasons == [
        None,
        "of the 8 channels of 'c' no other goes the same way through the graph, and one alone keeps its number",
    ]


def test_channels_that_are_tied_name_the_node_that_ties_them() -> None:
    made = graph(
        """g (float[1,3,4,4] x) => (float[1,5,4,4] y) <int64[4] swap = {1,2,3,0}> {
            c = Conv (x, w)
            p = Gather <axis = 1> (c, swap)
            z = Add (c, p)
            y = Conv (z, u)
        }""",
        {"w": (4, 3, 1, 1), "u": (5, 4, 1, 1)},
    )
    assert one(made)[0] == ("c", "its 4 channels are tied together, by 'z' (Add)")


def test_channels_that_are_tied_by_several_nodes_name_the_last() -> None:
    made = graph(
        """g (float[1,3,4,4] x) => (float[1,5,4,4] y) <int64[5] split = {1,2,2,4,4}, int64[4] back = {1,4,4,4}, int64[4] swap = {1,0,3,2}> {
            c = Conv (x, w)
            r = Reshape (c, split)
            q = Relu (r)
            s = Reshape (q, back)
            p = Gather <axis = 1> (s, swap)
            z = Add (s, p)
            y = Conv (z, u)
        }""",
        {"w": (4, 3, 1, 1), "u": (5, 4, 1, 1)},
    )
    assert one(made)[0] == ("c", "its 4 channels are tied together, the last of them by 'z' (Add)")


def test_a_grouped_convolution_asks_for_a_multiple_of_its_groups_on_both_sides() -> None:
    net = Net()
    net.conv("x", "c1", 8)
    net.conv("c1", "c2", 12, 3, group=4)
    net.classifier("c2")
    found = identities(net.graph()).atoms
    assert [(atom.value, atom.multiple) for atom in found[:2]] == [(8, 4), (12, 4)]


def test_a_weight_used_twice_is_one_parameter_and_ties_what_goes_in() -> None:
    made = graph(
        """g (float[1,3,4,4] x) => (float[1,5,4,4] y) {
            a = Conv (x, w)
            b = Conv (x, v)
            p = Conv (a, head)
            q = Conv (b, head)
            c = Concat <axis = 1> (p, q)
            y = Conv (c, u)
        }""",
        {"w": (6, 3, 1, 1), "v": (6, 3, 1, 1), "head": (4, 6, 1, 1), "u": (5, 8, 1, 1)},
    )
    atoms = identities(made).atoms
    assert [(atom.first.tensor, atom.value) for atom in atoms[:2]] == [("w", 6), ("head", 4)]
    assert {(site.tensor, site.axis) for site in atoms[0].sites} == {("w", 0), ("v", 0), ("head", 1)}
    consumed = next(site for site in atoms[1].sites if site.tensor == "u")
    assert consumed.ids.tolist() == [*atoms[1].classes.tolist()] * 2


def test_channels_of_one_weight_with_different_readers_are_different_atoms() -> None:
    made = graph(
        """g (float[1,3,4,4] x) => (float[1,5,4,4] y, float[1,2,4,4] z) <int64[1] i0 = {0}, int64[1] i2 = {2}, int64[1] one = {1}> {
            c = Conv (x, w)
            z = Slice (c, i0, i2, one)
            y = Conv (c, u)
        }""",
        {"w": (6, 3, 1, 1), "u": (5, 6, 1, 1)},
    )
    assert sizes_and_reasons(identities(made)) == [
        ("w", 2, "graph output 'z'"),
        ("w", 4, None),
        ("u", 5, "graph output 'y'"),
    ]


# --- frozen -------------------------------------------------------------------------------------


def test_an_operator_without_a_rule_freezes_what_it_reads_and_names_itself() -> None:
    made = graph(
        """g (float[1,3,4,4] x) => (float[1,6,4,4] y) {
            c = Conv (x, w)
            k = CumSum (c, axis)
            y = Conv (k, u)
        }""",
        {"w": (4, 3, 1, 1), "u": (6, 4, 1, 1), "axis": np.array(2)},
    )
    found = identities(made)
    assert sizes_and_reasons(found)[0] == ("w", 4, "operator CumSum ('k') has no rule")
    assert "k" not in found.labels


def test_an_operator_without_a_rule_leaves_what_does_not_reach_it_free() -> None:
    made = graph(
        """g (float[1,3,4,4] x) => (float[1,6,4,4] y) {
            b = Conv (x, v)
            c = Conv (b, w)
            k = CumSum (c, axis)
            y = Conv (k, u)
        }""",
        {"v": (8, 3, 1, 1), "w": (4, 8, 1, 1), "u": (6, 4, 1, 1), "axis": np.array(1)},
    )
    analysis = analyse(made)
    found = plan(analysis, Spec({"node:b.width": 5}))
    target = apply(made, found)
    assert analysis.knobs["node:c.width"].growth == "frozen"
    assert values(target, analysis, "k")[0].shape == (1, 4, 4, 4)


def test_an_operator_of_another_domain_freezes_what_it_reads() -> None:
    net = Net()
    net.conv("x", "c1", 8)
    net.op("Odd", "o", "c1", domain="vendor")
    net.conv("c1", "y", 4)
    assert sizes_and_reasons(identities(net.graph("y", "o")))[0] == (
        "c1.w",
        8,
        "operator vendor::Odd ('o') has no rule",
    )


def test_a_graph_output_in_the_middle_freezes_its_channels() -> None:
    net = chain()
    assert sizes_and_reasons(identities(net.graph("y", "c1")))[0] == ("c1.w", 6, "graph output 'c1'")


def test_meeting_channels_that_no_weight_makes_freezes() -> None:
    net = Net()
    net.conv("x", "c1", 3)
    net.op("Add", "s", "c1", "x")
    net.classifier("s")
    tensor, value, why = sizes_and_reasons(identities(net.graph()))[0]
    assert (tensor, value) == ("c1.w", 3)
    assert why is not None
    assert "'s' (Add)" in why


# --- a planted error ----------------------------------------------------------------------------


def joined() -> tuple[gs.Graph, Analysis]:
    net = Net()
    net.conv("x", "c1", 4, 3)
    net.conv("x", "c2", 6, 3)
    net.op("Concat", "j", "c1", "c2", axis=1)
    net.channels["j"] = 10
    net.conv("j", "c3", 5)
    net.classifier("c3")
    made = net.graph()
    return made, analyse(made)


def drift(made: gs.Graph, analysis: Analysis) -> float:
    """How far c3 moves when c1 is widened without a change of the function."""
    target = apply(made, plan(analysis, Spec({"node:c1.width": 7}), strategy="preserve"))
    before, after = values(made, analysis, "c3"), values(target, analysis, "c3")
    return float(np.abs(before[0] - after[0]).max())


def test_widening_one_part_of_a_concatenation_leaves_what_reads_it_as_it_was() -> None:
    assert drift(*joined()) < 1e-5


def test_a_label_in_the_wrong_order_is_noticed_in_the_values() -> None:
    made, analysis = joined()
    sites = dict(analysis.identities.sites)
    site = sites["c3.w", 1]
    sites["c3.w", 1] = replace(site, ids=np.concatenate([site.ids[4:], site.ids[:4]]))  # as if Concat had joined c2, c1
    wrong = replace(analysis, identities=replace(analysis.identities, sites=sites))
    assert drift(made, wrong) > 1e-2


def test_positions_are_as_many_as_the_change_says() -> None:
    found = resized(np.arange(5), change(5, drop=(0, 1), grow={4: 4}))
    assert isinstance(found, Positions)
    assert len(found) == 5 - 2 + 4


# --- weights that do not fit --------------------------------------------------------------------

MISFITS = {
    "a bias": ("c=Conv(x,w,b) y=Conv(c,v)", {"w": (8, 3, 1, 1), "b": (7,), "v": (4, 8, 1, 1)}),
    "input channels": ("c=Conv(x,w) y=Conv(c,v)", {"w": (8, 3, 1, 1), "v": (4, 9, 1, 1)}),
    "groups": ("c=Conv(x,w) y=Conv<group=3>(c,v)", {"w": (8, 3, 1, 1), "v": (6, 2, 1, 1)}),
    "no groups": ("c=Conv(x,w) y=Conv<group=0>(c,v)", {"w": (8, 3, 1, 1), "v": (6, 2, 1, 1)}),
    "statistics": ("c=Conv(x,w) y=BatchNormalization(c,b,b,b,b)", {"w": (8, 3, 1, 1), "b": (4,)}),
    "pads": ("c=Conv<pads=[1,1]>(x,w) y=Relu(c)", {"w": (8, 3, 1, 1)}),
    "a slope": ("c=Conv(x,w) y=PRelu(c,s)", {"w": (8, 3, 1, 1), "s": (5, 1, 1)}),
    "a matrix": ("f=Flatten(x) c=Gemm(f,w) y=Gemm(c,v)", {"w": (192, 8), "v": (9, 4)}),
    "blocks of space": ("c=Conv(x,w) y=DepthToSpace<blocksize=3>(c)", {"w": (8, 3, 1, 1)}),
    "groups to normalise": ("c=Conv(x,w) y=GroupNormalization<num_groups=3>(c,s,s)", {"w": (8, 3, 1, 1), "s": (8,)}),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_weight_that_does_not_fit_is_refused_by_name(case: str) -> None:
    body, weights = MISFITS[case]
    with pytest.raises(RefusedModel, match=r"'(c|y)'"):
        analyse(graph(f"g (float[1,3,8,8] x) => (float[A] y) {{ {body} }}", weights, 21))


def test_every_width_the_seed_had_can_be_had_again_after_growth() -> None:
    """Pairs of channels tied by a shuffle: the axis of pairs stays the longer one by what the others of its channels
    keep.
    """
    made = graph(
        """net (float[1,3,4,4] x) => (float[1,5,4,4] y, float[1,5,4,4] z)
        <int64[5] pairs = {1,4,2,4,4}, int64[4] again = {1,8,4,4}, int64[2] parts = {4,4}> {
            a = Conv (x, u)
            b = Reshape (a, pairs)
            c = Transpose <perm = [0,2,1,3,4]> (b)
            d = Reshape (c, again)
            e, f = Split <axis = 1> (a, parts)
            i = Conv (e, v)
            y = Conv (i, r)
            j = Conv (d, t)
            z = Conv (j, s)
        }""",
        {"u": (8, 3, 1, 1), "v": (4, 4, 1, 1), "t": (4, 8, 1, 1), "r": (5, 4, 1, 1), "s": (5, 4, 1, 1)},
    )
    analysis = analyse(made)
    moving = {
        name: knob.value for name, knob in analysis.knobs.items() if knob.kind == "width" and knob.growth == "exact"
    }
    found = plan(analysis, Spec({name: 3 * value for name, value in moving.items()}), strategy="preserve")
    again = analyse(apply(made, found), table=found.table)
    assert moving
    assert all(again.knobs[name].min <= value for name, value in moving.items())
    back = apply(apply(made, found), plan(again, Spec(own_spec(analysis).knobs)))
    assert np.array_equal(view(back).values("u"), view(made).values("u"))
