"""The seeds that come with the package; README.md beside this file states where they come from and their licence."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
NAMES = ("mobilenetv2_bn",)
DEFAULT = FOLDER / f"{NAMES[0]}.onnx"
PIXELS = {"mobilenetv2_bn": ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5))}
"""Seed → mean and scale: its input is (pixel − mean) / scale, pixels from 0 to 255."""


def bundled(name: str) -> Path | None:
    """The file of the bundled seed of that name (without `.onnx`), or None where there is none."""
    return FOLDER / f"{name}.onnx" if name in NAMES else None


def find(model: Path | str) -> Path:
    """The path of a model, or that of the bundled seed of this name where no file has it."""
    path = Path(model)
    return path if path.exists() else bundled(str(model)) or path
