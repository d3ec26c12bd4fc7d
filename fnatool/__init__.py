"""fnatool: adapt a pretrained CNN, ONNX in and ONNX out, to another task, shape and budget."""

from __future__ import annotations

__version__ = "0.1.0"

__all__ = ["Options", "remap"]


def __getattr__(name: str) -> object:
    """`fnatool.remap` and `fnatool.Options`, imported when asked for: the command line's --help needs neither."""
    if name in __all__:
        from fnatool import remapping

        return getattr(remapping, name)
    raise AttributeError(f"module 'fnatool' has no attribute '{name}'")
