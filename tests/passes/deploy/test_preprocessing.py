"""Resizing written as a graph is the resize of evaluation, bit for bit."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime as ort
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from fnatool.tasks import augment
from fnatool.tasks.description import Input
from fnatool.tasks.pixels import to_array
from passes.deploy.preprocessing import Framing, Taking, preprocessed
from passes.deploy.steps import Steps
from passes.errors import RefusedModel
from passes.graph.view import build

SIZE = (96, 128)
FILL = (124, 116, 104)
SIDES = [(96, 128), (48, 64), (192, 256), (300, 127), (1, 1), (2, 399), (37, 61), (97, 129), (480, 640)]
LIKES = {
    "RGB": Input(mean=(123.675, 116.28, 103.53), scale=(58.395, 57.12, 57.375)),
    "BGR": Input(mean=(103.53, 116.28, 123.675), scale=(1.0, 2.0, 3.0), channels="BGR", layout="NHWC"),
    "GREY": Input(mean=(127.5,), scale=(127.5,), channels="GREY"),
}


def graph(framing: Framing, like: Input, real: type = np.float64) -> gs.Graph:
    """Images, and a box where one is asked for → values, and where the image lies."""
    steps = Steps(17, ["image", "box"], real=real)
    taking = Taking(SIZE, like.layout, like.channels, like.mean, like.scale, np.float32)
    values, placed = preprocessed(steps, "image", "box", framing, taking)
    image, box = gs.Variable("image", np.uint8, ["N", "H", "W", 3]), gs.Variable("box", np.float32, [4])
    ends = [
        gs.Variable(values, np.float32, ["N", "a", "b", "c"]),
        *(gs.Variable(name, real, []) for name in (*placed.scale, *placed.shift)),
    ]
    inputs = [image, box] if framing.kind == "around" else [image]
    frame = gs.Graph(inputs=inputs, outputs=ends, opset=17)
    return build(steps.nodes, steps.constants, frame)


def session(framing: Framing, like: Input, real: type = np.float64) -> ort.InferenceSession:
    """The same, to run."""
    proto = gs.export_onnx(graph(framing, like, real), do_type_check=False)
    proto.ir_version = 8
    onnx.checker.check_model(proto, full_check=True)
    return ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])


def picture(size: tuple[int, int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def around(seed: int, size: tuple[int, int]) -> np.ndarray:
    """A box that reaches out of the image."""
    rng = np.random.default_rng(seed)
    ends = [rng.uniform(-10, extent / 2) for extent in size[::-1]] + [
        rng.uniform(extent / 2 + 1, extent + 10) for extent in size[::-1]
    ]
    return np.array(ends, np.float32)


@pytest.mark.parametrize("colours", LIKES)
@pytest.mark.parametrize(("kind", "share"), [("fitted", 1.0), ("middle", 0.875), ("middle", 1.0), ("around", 1.25)])
def test_the_graph_shows_what_evaluation_shows(kind: str, share: float, colours: str) -> None:
    like = LIKES[colours]
    made = session(Framing(kind, share, FILL), like)  # type: ignore[arg-type]
    for seed, size in enumerate(SIDES):
        pixels, box = picture(size, seed), around(seed, size)
        image = F.to_image(pixels)
        if kind == "fitted":
            shown, placed = augment.fitted(image, SIZE, FILL)
        elif kind == "middle":
            shown, placed = augment.middle(image, SIZE, share, FILL)
        else:
            none = augment.points_of(np.zeros((0, 2), np.float32), size)
            shown, _, placed = augment.around(image, none, torch.from_numpy(box), size=SIZE, factor=share, fill=FILL)
        feeds = {"image": pixels[None], **({"box": box} if kind == "around" else {})}
        values, *numbers = made.run(None, feeds)
        assert np.array_equal(values, to_array(shown.numpy()[None], like)), size
        assert [float(number) for number in numbers] == [*placed.scale, *placed.shift], size


def test_a_large_reduction_is_exact_too() -> None:
    like = Input(mean=(0.0, 0.0, 0.0), scale=(1.0, 1.0, 1.0))
    pixels = picture((2000, 3000), 1)
    pixels[:1200, :1200] = 255  # the largest sums
    shown, _ = augment.fitted(F.to_image(pixels), SIZE, FILL)
    values = session(Framing("fitted", fill=FILL), like).run(None, {"image": pixels[None]})[0]
    assert np.array_equal(values, to_array(shown.numpy()[None], like))


@pytest.mark.parametrize("most", [None, 4])
def test_all_of_the_image_may_be_read_where_sizes_cannot_be_computed(most: int | None) -> None:
    like = LIKES["RGB"]
    pixels, box = picture((300, 270), 0), around(0, (300, 270))
    feeds = {"image": pixels[None], "box": box}
    cut, whole = (session(Framing("around", 1.25, FILL, **how), like) for how in ({}, {"cut": False, "most": most}))  # type: ignore[arg-type]
    assert np.array_equal(cut.run(None, feeds)[0], whole.run(None, feeds)[0])


def test_products_are_exact_where_a_gpu_multiplies_with_8_bits() -> None:
    made = graph(Framing("fitted"), LIKES["RGB"])
    products = [node.inputs[0].name for node in made.nodes if node.op == "MatMul"]
    made.outputs = [tensor for tensor in made.tensors().values() if tensor.name in products]
    for tensor in made.outputs:
        tensor.dtype = np.float32
    proto = gs.export_onnx(made, do_type_check=False)
    proto.ir_version = 8
    found = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"image": picture((700, 500), 0)[None]}
    )
    assert len(found) == 2
    for weight in found:
        assert torch.equal(torch.from_numpy(weight).bfloat16().float(), torch.from_numpy(weight))
        assert weight.max() > 1


def test_places_in_single_precision_change_a_pixel_by_one_level_at_most() -> None:
    like = Input(mean=(0.0, 0.0, 0.0), scale=(1.0, 1.0, 1.0))
    one, other = session(Framing("fitted"), like), session(Framing("fitted"), like, np.float32)
    for seed, size in enumerate(SIDES[:5]):
        feeds = {"image": picture(size, seed)[None]}
        values = [made.run(None, feeds)[0] for made in (one, other)]
        assert np.abs(values[0] - values[1]).max() <= 1


def test_another_filter_is_noticed() -> None:
    """The planted error: without antialiasing the picture is another one."""
    like = Input(mean=(0.0, 0.0, 0.0), scale=(1.0, 1.0, 1.0))
    pixels = picture((192, 256), 0)
    plain = torch.nn.functional.interpolate(
        torch.from_numpy(pixels).permute(2, 0, 1)[None].float(), SIZE, mode="bilinear"
    )
    (values, *_) = session(Framing("fitted"), like).run(None, {"image": pixels[None]})
    assert np.abs(values - plain.numpy()).max() > 10


def test_several_images_are_each_resized() -> None:
    made = session(Framing("fitted", fill=FILL), LIKES["RGB"])
    images = np.stack([picture((50, 70), seed) for seed in range(3)])
    together, *_ = made.run(None, {"image": images})
    for place in range(3):
        alone, *_ = made.run(None, {"image": images[place : place + 1]})
        assert np.array_equal(together[place], alone[0])


def test_an_old_opset_is_refused() -> None:
    with pytest.raises(RefusedModel, match="written for 13 and newer"):
        Steps(11, [])
