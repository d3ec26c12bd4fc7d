"""Verification on finer maps: exact where it must be, and an error planted in dilations, pads or sampling is found and
named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import onnx_graphsurgeon as gs
import pytest
from strided import encoder_with_classifier, refused, remapped, seed, squeezing, strides

from fnatool.runtime.verify import verify
from passes import Spec, analyse, apply, own_spec, parse, plan
from passes.network.cost import cost
from passes.target.plan import planned_cost


def test_the_bundled_seed_at_every_stride_and_an_odd_size() -> None:
    made, analysis = seed()
    for limit in (16, 8):
        found = plan(analysis, Spec({"output_stride": limit, "input.size": (97, 130)}))
        assert found.compared is not None
        for one in (found.compared, plan(analysis, Spec({"output_stride": limit}))):
            result = verify(made, apply(made, one), analysis, one)
            assert len(result.drifts) == 52  # all but the classifier, which averages over the finer map
            assert result.exact
            assert result.first is None
            assert result.worst < 1e-4
        sized = apply(made, plan(analysis, Spec({"input.size": (97, 130)})))
        again = analyse(sized)
        small = plan(again, Spec({"output_stride": limit}))
        assert verify(sized, apply(sized, small), again, small).worst < 1e-4


def test_a_gate_that_averages_over_a_finer_map_makes_it_approximate() -> None:
    made = squeezing()
    assert strides(made) == ((1, 2, 4, 8), "approximate", "'g2' averages over the finer map")
    message = refused(made, {"output_stride": 4}, strategy="preserve")
    assert (
        message == "'output_stride' cannot shrink exactly: 'g2' averages over the finer map; use --strategy fna, or "
        "--allow-drift"
    )
    analysis, found, target = remapped(made, {"output_stride": 4}, strategy="preserve", allow_drift=True)
    assert found.averages == ("g2",)
    result = verify(made, target, analysis, found)
    assert [one.tensor for one in result.drifts] == ["c0", "c1", "w1", "d1", "c2"]
    assert result.exact
    assert result.first is None


def test_an_average_at_the_head_is_not_compared_and_nothing_else_is_left_out() -> None:
    made = encoder_with_classifier()
    analysis, found, target = remapped(made, {"output_stride": 4}, strategy="preserve")
    assert [one.tensor for one in verify(made, target, analysis, found).drifts] == [
        "c0",
        "s1",
        "c1",
        "s2",
        "c2",
        "s3",
        "c3",
    ]
    same = plan(analysis, Spec({"node:c1.width": 8}), strategy="preserve")
    assert [one.tensor for one in verify(made, apply(made, same), analysis, same).drifts][-1] == "y"


WRONG: Mapping[str, Callable[[gs.Node], None]] = {
    "dilation": lambda node: node.attrs.update(dilations=[1, 1], pads=[1, 1, 1, 1]),
    "pads": lambda node: node.attrs.update(pads=[3, 3, 5, 5]),
    "shift": lambda node: node.attrs.update(pads=[1, 2, 3, 2]),
    "size": lambda node: node.attrs.update(strides=[2, 2]),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("name", ["c2", "s3", "c3"])
def test_a_planted_error_is_found_and_named(name: str, wrong: Callable[[gs.Node], None]) -> None:
    made = encoder_with_classifier()
    analysis, found, target = remapped(made, {"output_stride": 4})
    assert verify(made, target, analysis, found).first is None
    node = next(node for node in target.nodes if node.name == name)
    if name == "c3" and wrong is not WRONG["size"]:
        wrong(node)
        node.attrs["pads"] = (
            [pad + 2 for pad in node.attrs["pads"]] if node.attrs["dilations"] == [4, 4] else node.attrs["pads"]
        )
    else:
        wrong(node)
    first = verify(made, target, analysis, found).first
    assert first is not None
    assert first.node == name


def test_sampling_that_is_shifted_is_found() -> None:
    made = encoder_with_classifier()
    analysis, found, target = remapped(made, {"output_stride": 4})
    # the first 8 rows of 16
    samples = {**found.samples, "s2": replace(found.samples["s2"], sizes=(6, 2, 8, 16), steps=(1, 2, 1, 2))}
    first = verify(made, target, analysis, replace(found, samples=samples)).first
    assert first is not None
    assert first.node == "s2"


def test_depth_width_kernel_stride_and_size_in_one_spec() -> None:
    made, analysis = seed()
    knobs = {
        "stage3.depth": 5,
        "stage4.width": "x1.25",
        "stage2.*.kernel": 5,
        "output_stride": 8,
        "input.size": [96, 224],
    }
    found = plan(analysis, parse({"version": 1, "knobs": knobs}), strategy="preserve")
    target = apply(made, found)
    assert found.compared is not None
    result = verify(made, apply(made, found.compared), analysis, found.compared)
    assert (result.exact, result.first) == (True, None)
    again = analyse(target, table=found.table)
    assert (again.image.size, again.strides.value) == ((96, 224), 8)
    assert own_spec(again).knobs == found.resolved.spec().knobs
    assert planned_cost(found, analysis) == cost(again.view, again.shapes)
