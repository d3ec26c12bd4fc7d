"""An ONNX graph as a trainable torch module: `load` it, train it with any loop, `save` the values back into the same graph."""

from __future__ import annotations

from passes.errors import UserError


class MissingTorch(UserError, ImportError):
    """torch is not installed; `pip install fnatool` alone does not bring it."""


try:
    import torch  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingTorch("fnatool.nn needs torch, which is not installed: pip install 'fnatool[search]'") from error

from fnatool.nn.network import Network, load, save
from fnatool.nn.reading import Reading
from fnatool.nn.table import TORCH

__all__ = ["TORCH", "MissingTorch", "Network", "Reading", "load", "save"]
