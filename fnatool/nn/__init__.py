"""An ONNX graph as a trainable torch module: `load` it, train it with any loop, `save` the values back into the same
graph.
"""

from __future__ import annotations

from fnatool.nn.missing import MissingTorch
from fnatool.nn.network import Network, load, save
from fnatool.nn.reading import Reading
from fnatool.nn.table import TORCH

__all__ = ["TORCH", "MissingTorch", "Network", "Reading", "load", "save"]
