"""Networks and documents for tests of remapping."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from nets import Net

from passes.target.take import Take

Knobs = dict[str, int | str]

GROWN: Knobs = {"stage0.depth": "+1", "stage0.width": 8, "stage0.block0.hidden": 14, "stage0.block1.kernel": 5}


def residual(hidden: int = 10, batch: int | str = 1) -> onnx.ModelProto:
    """A stem, two residual blocks e → l at width 6, and a classifier."""
    net = Net()
    y = net.conv_bn_relu("x", "stem", 6, 3)
    for k in range(2):
        inner = net.conv_bn_relu(y, f"e{k}", hidden, 3)
        y = net.op("Add", f"s{k}", y, net.conv_bn(inner, f"l{k}", 6))
    net.classifier(y)
    return net.model(batch=batch)


def normalised() -> onnx.ModelProto:
    """c1 cannot grow exactly: what follows it normalises over neighbouring channels."""
    net = Net()
    y = net.op("LRN", "lrn", net.conv_bn_relu("x", "c1", 8, 3), size=3, alpha=1.0)
    net.classifier(net.conv_bn_relu(y, "c2", 8, 3))
    return net.model()


def save_external(proto: onnx.ModelProto, path: Path) -> Path:
    """The model with its weights in `<name>.data`."""
    onnx.save(proto, path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=0)
    return path


def document(values: Knobs) -> dict[str, object]:
    """The JSON document of a spec."""
    return {"version": 1, "knobs": values}


def weights(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def everything_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- verification ---


def plant(monkeypatch: pytest.MonkeyPatch, tensor: str) -> None:
    """From now on the rows of one target weight arrive in another order."""
    module = importlib.import_module("passes.target.apply")
    right = module.taken

    def wrong(take: Take, *rest: object) -> np.ndarray:
        values: np.ndarray = right(take, *rest)
        return np.ascontiguousarray(np.roll(values, 1, 0)) if take.target == tensor else values

    monkeypatch.setattr(sys.modules["passes.target.apply"], "taken", wrong)
