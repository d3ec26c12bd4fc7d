"""Engines of TensorRT for RTX: four tasks on two seeds, parsed and built, which needs no GPU."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from deployable import TASKS_OF

import fnatool

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed (fnatool[tensorrt-rtx])"
)
SIZE = 64


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The bundled one, and one of another library with random weights."""
    folder = tmp_path_factory.mktemp("seeds")
    fnatool.remap("mobilenetv2_bn", {"version": 1, "knobs": {"input.size": [SIZE, SIZE]}}, folder / "mobilenetv2.onnx")
    fnatool.export("timm:resnet18", folder / "resnet18.onnx", options=fnatool.ExportOptions(inputs=(1, 3, SIZE, SIZE)))
    return {path.stem: path for path in folder.glob("*.onnx")}


@pytest.mark.parametrize("style", [style for style in TASKS_OF if style != "ssdlite"])
@pytest.mark.parametrize("seed", ["mobilenetv2", "resnet18"])
def test_an_engine_is_built_in_both_precisions(seed: str, style: str, seeds: dict[str, Path], tmp_path: Path) -> None:
    counts = {"joints": "4", "classes": "1"} if style == "simplebaseline" else {"classes": "3"}
    width = {} if style == "linear" else {"width": 8, **({"levels": 4} if style == "retinanet" else {})}
    how = fnatool.HeadOptions(
        task=TASKS_OF[style], style=style, mean=(127.5,), scale=(127.5,), verify=False, **counts, **width
    )
    fnatool.head(seeds[seed], tmp_path / "model.onnx", options=how)
    for precision in ("fp32", "fp16"):
        asked = fnatool.DeployOptions(target="tensorrt-rtx", precision=precision, verify=False)
        made = fnatool.deploy(tmp_path / "model.onnx", tmp_path / precision, options=asked).document
        assert "engine.plan" in made.files
        assert (tmp_path / precision / "engine.plan").stat().st_size > 10_000
