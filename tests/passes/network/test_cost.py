"""What a network costs: multiply-adds and parameters."""

from __future__ import annotations

from nets import graph
from plans import chain, seed

from passes import analyse
from passes.network.cost import cost


def test_a_network_costs_what_its_convolutions_multiply() -> None:
    analysis = analyse(chain())
    pixels = 8 * 8
    assert analysis.cost.macs == pixels * 9 * (3 * 6 + 6 * 8 + 4 * 4) + 4 * 5
    weights = 6 * 27 + 8 * 54 + 8 + 4 * 36 + 4 * 5 + 5
    assert analysis.cost.params == weights + 2 * (6 + 8 + 4)  # running statistics are not parameters


def test_a_free_image_size_leaves_the_multiplications_unknown() -> None:
    made = chain()
    made.inputs[0].shape = [1, 3, "H", "W"]
    analysis = analyse(made)
    assert analysis.cost.macs is None
    assert analysis.cost.params == analyse(chain()).cost.params


def test_a_transposed_convolution_spreads_every_input() -> None:
    made = graph(
        "g (float[1,4,5,5] x) => (float[1,6,10,10] y) { y = ConvTranspose <strides = [2,2]> (x, w) }",
        {"w": (4, 6, 2, 2)},
    )
    analysis = analyse(made)
    assert cost(analysis.view, analysis.shapes).macs == 5 * 5 * 4 * 6 * 4


def test_the_bundled_seed_costs_what_mobilenetv2_does() -> None:
    _, analysis = seed()
    convolutions = sum(
        macs for name, macs in analysis.cost.node_macs.items() if analysis.view.by_name[name].op == "Conv"
    )
    assert convolutions * 7**2 == 299_494_272 * 5**2  # 224 is 7 · 32 pixels, 160 is 5 · 32
    assert analysis.cost.params == 3_504_872 - 1000 * 1281 + 19 * 1281  # 19 classes instead of 1000
