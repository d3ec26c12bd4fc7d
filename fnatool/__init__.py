"""fnatool: adapt a pretrained CNN, ONNX in and ONNX out, to another task, shape and budget."""

from __future__ import annotations

__version__ = "0.1.0"

HOMES = {
    "RemapOptions": "model.remap",
    "remap": "model.remap",
    "StatisticsOptions": "model.fold",
    "fold": "model.fold",
    "unfold": "model.fold",
}

__all__ = ["RemapOptions", "StatisticsOptions", "fold", "remap", "unfold"]


def __getattr__(name: str) -> object:
    """What is in __all__, imported when asked for: the command line's --help needs none of it, and only `export` needs torch."""
    if name in HOMES:
        from importlib import import_module

        return getattr(import_module(f"fnatool.{HOMES[name]}"), name)
    raise AttributeError(f"module 'fnatool' has no attribute '{name}'")
