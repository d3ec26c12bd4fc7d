"""A few operators in torch, enough to train the bundled seed in a test."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F

from passes.view import Node, View

Tensors = dict[str, torch.Tensor]


def parameters(view: View) -> Tensors:
    """Every float constant of more than one element, trainable; running statistics are not."""
    statistics = {name for node in view.nodes if node.op == "BatchNormalization" for name in node.inputs[3:5]}
    values = {name: torch.from_numpy(np.array(view.values(name))) for name in view.constants}
    return {n: v.requires_grad_() if v.is_floating_point() and v.numel() > 1 and n not in statistics else v for n, v in values.items()}


def run(view: View, weights: Mapping[str, torch.Tensor], feeds: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    """The graph's outputs."""
    known: Tensors = {**weights, **feeds}
    for node in view.nodes:
        known[node.outputs[0]] = TORCH[node.op](node, [known[name] for name in node.inputs if name])
    return [known[name] for name in view.outputs]


def _conv(node: Node, x: list[torch.Tensor]) -> torch.Tensor:
    top, left, bottom, right = node.ints("pads", (0, 0, 0, 0))
    padded = F.pad(x[0], (left, right, top, bottom))
    return F.conv2d(
        padded, *x[1:], stride=node.ints("strides", (1, 1)), dilation=node.ints("dilations", (1, 1)), groups=node.int("group", 1)
    )


def _batch_norm(node: Node, x: list[torch.Tensor]) -> torch.Tensor:
    return F.batch_norm(x[0], x[3], x[4], x[1], x[2], eps=float(node.attrs.get("epsilon", 1e-5)))


def _gemm(node: Node, x: list[torch.Tensor]) -> torch.Tensor:
    return x[0] @ (x[1].T if node.int("transB", 0) else x[1]) + x[2]


TORCH: Mapping[str, Callable[[Node, list[torch.Tensor]], torch.Tensor]] = {
    "Conv": _conv,
    "BatchNormalization": _batch_norm,
    "Gemm": _gemm,
    "Clip": lambda node, x: x[0].clamp(x[1].item(), x[2].item()),
    "Relu": lambda node, x: x[0].relu(),
    "Add": lambda node, x: x[0] + x[1],
    "GlobalAveragePool": lambda node, x: x[0].mean((2, 3), keepdim=True),
    "Flatten": lambda node, x: x[0].flatten(1),
    "Reshape": lambda node, x: x[0].flatten(1),
}
