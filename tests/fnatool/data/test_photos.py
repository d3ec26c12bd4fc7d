"""Growth leaves predictions on real photographs as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

import fnatool
from benchmarks.trials import exact_growth
from fnatool import seeds
from fnatool.files.model import read
from fnatool.model.analysed import analyse_model
from fnatool.model.remapped import RemapOptions

PHOTOS = ("chelsea.png", "coffee.png", "astronaut.png", "camera.png")


def photograph(name: str) -> np.ndarray:
    """A photograph of scikit-image as the bundled seed wants it: [1,3,160,160], x / 127.5 − 1."""
    import skimage

    with Image.open(Path(skimage.__file__).parent / "data" / name) as image:
        pixels = np.asarray(image.convert("RGB").resize((160, 160)), np.float32)
    return (pixels.transpose(2, 0, 1) / 127.5 - 1)[None]


def logits(path: Path, image: np.ndarray) -> np.ndarray:
    """The network's answer in ONNX Runtime."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: image})[0])


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled seed, a quarter wider, a block deeper in every stage, with kernels of 5."""
    path = tmp_path_factory.mktemp("grown") / "grown.onnx"
    spec = exact_growth(analyse_model(read(seeds.DEFAULT)))
    made = fnatool.remap(seeds.DEFAULT, spec, path, options=RemapOptions(strategy="preserve"))
    assert made.cost().params > 1.5 * made.analysis.cost.params
    return path


@pytest.mark.parametrize("name", PHOTOS)
def test_a_grown_network_predicts_what_the_seed_does(grown: Path, name: str) -> None:
    image = photograph(name)
    before, after = logits(seeds.DEFAULT, image), logits(grown, image)
    assert before.argmax() == after.argmax()
    assert np.abs(after - before).max() <= 1e-4 * np.ptp(before)
