"""What the native parts of onnx raise about a broken model where `isolate` runs them."""

from __future__ import annotations

import onnx.checker
import onnx.shape_inference
from google.protobuf.message import DecodeError

from fnatool.runtime.parent import Died

FAILURES: tuple[type[Exception], ...] = (
    *(Died, onnx.checker.ValidationError, onnx.shape_inference.InferenceError),
    *(RuntimeError, ValueError, TypeError, OverflowError, DecodeError),  # as pybind11 translates what C++ throws
)
