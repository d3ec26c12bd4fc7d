"""What ONNX Runtime raises: a class of its own per kind of failure, each derived from Exception alone."""

from __future__ import annotations

from onnxruntime.capi import onnxruntime_pybind11_state as states

FAILURES: tuple[type[Exception], ...] = (
    *(kind for kind in vars(states).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    *(RuntimeError, ValueError, TypeError),  # from its Python side
)
