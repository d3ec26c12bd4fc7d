"""Small models with a head for each style, as files, and pictures for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
from PIL import Image
from seeds_of_heads import mobile
from tiny import save

import fnatool

TASKS_OF = {
    "linear": "classification",
    "deeplabv3": "segmentation",
    "retinanet": "detection",
    "ssdlite": "detection",
    "simplebaseline": "pose",
}


def headed(folder: Path, style: str, size: int = 64) -> Path:
    """A model of random weights with such a head, in a file of the style's name."""
    seed = save(mobile(size).model(batch="N"), folder / f"seed_{style}.onnx")
    counts = {"joints": "4", "classes": "1"} if style == "simplebaseline" else {"classes": "3"}
    width = {"width": 8} if style in ("deeplabv3", "retinanet", "simplebaseline") else {}
    levels = {"retinanet": {"levels": 4}, "ssdlite": {"levels": 3}}.get(style, {})
    how = fnatool.HeadOptions(
        task=TASKS_OF[style],
        style=style,
        mean=(120.0, 110.0, 100.0),
        scale=(60.0,),
        verify=False,
        **counts,
        **width,
        **levels,
    )
    fnatool.head(seed, folder / f"{style}.onnx", options=how)
    if TASKS_OF[style] == "detection":
        _make_sure(folder / f"{style}.onnx")
    return folder / f"{style}.onnx"


def _make_sure(path: Path) -> None:
    """Scores that are not all near nothing, as a fresh detector's are: its biases and the spread of its answers are
    larger.
    """
    made, rng = onnx.load(path), np.random.default_rng(3)
    for tensor in made.graph.initializer:
        if tensor.name.startswith("head") and tensor.name.endswith("bias") and "bn" not in tensor.name:
            values = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(
                onnx.numpy_helper.from_array((0.5 * rng.standard_normal(values.shape)).astype(np.float32), tensor.name)
            )
    onnx.save(made, path)


def pictures(folder: Path, *sizes: tuple[int, int]) -> list[Path]:
    """Smooth pictures of these heights and widths."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, paths = np.random.default_rng(0), []
    for number, (height, width) in enumerate(sizes):
        path = folder / f"p{number}.png"
        Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8)).resize((width, height)).save(path)
        paths.append(path)
    return paths
