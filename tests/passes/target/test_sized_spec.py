"""Size and stride in a Spec: which values there are, what they come to, and how a model is held against them."""

from __future__ import annotations

import pytest
from nets import graph
from strided import encoder_with_classifier, free, refused, seed

from passes import Analysis, Spec, UserError, analyse, apply, parse, plan, resolve
from passes.target.plan import planned_cost
from passes.target.resolve import differences


def image_of(analysis: Analysis, value: object) -> tuple[int, int] | None:
    return resolve(analysis, parse({"version": 1, "knobs": {"input.size": value}})).image


def test_the_size_is_a_pair_an_integer_for_both_or_relative() -> None:
    _, analysis = seed()
    asked = ([512, 1024], 96, "x2", "x0.5", "+32", "-64")
    assert [image_of(analysis, value) for value in asked] == [
        (512, 1024),
        (96, 96),
        (320, 320),
        (80, 80),
        (192, 192),
        (96, 96),
    ]


@pytest.mark.parametrize("value", [[1, 2, 3], [224], [1.5, 2], [True, 2], ["a", "b"], {}, None, True, 1.5])
def test_other_sizes_are_no_sizes(value: object) -> None:
    with pytest.raises(UserError, match=r"'input\.size' must be"):
        parse({"version": 1, "knobs": {"input.size": value}})


@pytest.mark.parametrize("value", [0, -5, [0, 5], [32769, 32], "x1000", "-160", "big"])
def test_sizes_out_of_range_are_refused(value: object) -> None:
    _, analysis = seed()
    with pytest.raises(UserError, match=r"'input\.size': "):
        image_of(analysis, value)


def test_a_list_is_for_the_size_only() -> None:
    with pytest.raises(UserError, match=r"'output_stride' must be an integer or a string .* not a list"):
        parse({"version": 1, "knobs": {"output_stride": [16, 16]}})


def test_strides_are_those_on_the_way_and_never_larger() -> None:
    made, analysis = seed()
    assert resolve(analysis, Spec({"output_stride": "x0.5"})).values["output_stride"] == 16
    assert (
        refused(made, {"output_stride": 12})
        == "'output_stride': 12 is not possible for 'output_stride', which can be 1, 2, 4, 8, 16, 32"
    )
    dilated = apply(made, plan(analysis, Spec({"output_stride": 8})))
    assert refused(dilated, {"output_stride": 16}) == (
        "'output_stride': 16 is more than the 8 of this network; dilations are not turned back into strides"
    )


def test_patterns_say_nothing_of_size_and_stride() -> None:
    _, analysis = seed()
    found = resolve(analysis, Spec({"**": "x1"}))
    assert (found.values["output_stride"], found.image) == (32, (160, 160))
    for pattern in ("output_*", "input.*"):
        with pytest.raises(UserError, match="matches no knob of this model"):
            resolve(analysis, Spec({pattern: 8}))


def test_a_model_that_is_not_what_the_spec_says_is_told_so() -> None:
    made, analysis = seed()
    target = analyse(apply(made, plan(analysis, Spec({"output_stride": 8, "input.size": (96, 224)}))))
    assert differences(target, Spec({"input.size": (96, 224), "output_stride": 8})) == []
    assert differences(target, Spec({"input.size": 96, "output_stride": 16})) == [
        "'input.size' should be 96×96, the model has 96×224",
        "'output_stride' should be 16, the model has 8",
    ]
    assert "which the model does not tell" in differences(target, Spec({"input.size": "x2"}))[0]
    unsized = analyse(free(encoder_with_classifier(), "h", "w"))
    assert differences(unsized, Spec({"input.size": 64})) == ["'input.size' should be 64×64, the model leaves it free"]
    frozen_image = analyse(graph("g (float[1,6] x) => (y) { y = Gemm (x, m) }", {"m": (6, 5)}))
    assert differences(frozen_image, Spec({"input.size": 64})) == ["'input.size' should be 64×64, the model has none"]
    assert "'input.size' is frozen: convolutions slide over no input" in refused_size(frozen_image, 64)


def refused_size(analysis: Analysis, value: int) -> str:
    with pytest.raises(UserError) as caught:
        resolve(analysis, Spec({"input.size": value}))
    return str(caught.value)


def test_the_papers_segmentation_backbone_has_the_published_multiply_adds() -> None:
    """FNA++: the seed at 1024×2048 and output stride 16 takes 19.04B, without the last 1×1 convolution and the head."""
    _, analysis = seed()
    found = planned_cost(plan(analysis, Spec({"input.size": (1024, 2048), "output_stride": 16})), analysis)
    assert found.macs is not None
    assert round((found.macs - found.node_macs["head"] - found.node_macs["fc"]) / 1e9, 2) == 19.04
