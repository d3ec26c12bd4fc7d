"""Small seeds and spaces for the tests of the super network."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import onnx_graphsurgeon as gs
import torch
from nets import Net
from seeds_of_heads import again, made, mobile, small
from torch import Tensor

from fnatool.runtime.verify import run_inner
from fnatool.supernet.network import Relaxation, SuperNetwork, build
from passes import Spec, analyse, apply, plan
from passes.network.analysis import Analysis
from passes.space.space import Choices, Space, choices

Seed = tuple[gs.Graph, Analysis, Choices]
ALL = {"stage*.*.kernel*": (3, 5), "stage*.*.hidden*": ("x0.5", "x1")}


def residual(activation: str = "Relu", blocks: int = 2) -> Net:
    """A stem and blocks conv(hidden 8) → conv, added to their input, then the activation."""
    net = Net(channels=3)
    y = net.conv_bn_relu("x", "stem", 6, 3)
    for k in range(blocks):
        inner = net.conv_bn(net.conv_bn_relu(y, f"e{k}", 8, 3), f"l{k}", 6, 3)
        y = net.op(activation, f"o{k}", net.op("Add", f"s{k}", y, inner))
    net.classifier(y)
    return net


def gated(blocks: int = 2) -> Net:
    """Inverted bottlenecks of hidden width 8 with squeeze and excitation, without an activation after the addition."""
    net = Net(channels=3)
    y = net.conv_bn_relu("x", "stem", 6, 3)
    for k in range(blocks):
        wide = net.conv_bn_relu(net.conv_bn_relu(y, f"e{k}", 8), f"d{k}", 8, 3, group=0)
        squeeze = net.relu(net.conv(net.op("GlobalAveragePool", f"p{k}", wide), f"q{k}", 4, bias=True))
        gate = net.op("Sigmoid", f"g{k}", net.conv(squeeze, f"x{k}", 8, bias=True))
        y = net.op("Add", f"s{k}", y, net.conv_bn(net.op("Mul", f"m{k}", wide, gate), f"l{k}", 6))
    net.classifier(y)
    return net


def normalised(blocks: int = 2) -> Net:
    """The same without a gate, its hidden channels divided by their mean over all of them."""
    net = Net(channels=3)
    y = net.conv_bn_relu("x", "stem", 6, 3)
    for k in range(blocks):
        wide = net.relu(net.conv(y, f"e{k}", 8, 3))
        mean = net.op("ReduceMean", f"a{k}", wide, axes=[1])
        y = net.op("Add", f"s{k}", y, net.conv_bn(net.op("Sub", f"d{k}", wide, mean), f"l{k}", 6))
    net.classifier(y)
    return net


def headed() -> Seed:
    """A network whose SSDLite head reads hidden channels of a block that may choose them."""
    found = made(mobile().graph(), small("ssdlite"))
    analysis = again(found)
    return found.graph, analysis, choices(analysis, Space({**ALL, "stage0.depth": (1, 2, 3)}))


def plain(net: Net, space: Mapping[str, tuple[int | str, ...]] = ALL) -> Seed:
    """The network with a space, and one block fewer to one more."""
    graph = net.graph()
    analysis = analyse(graph)
    return graph, analysis, choices(analysis, Space({**space, "stage0.depth": (1, 2, 3)}))


@functools.cache
def seed(name: str) -> Seed:
    """The seeds by name."""
    if name == "headed":
        return headed()
    if name == "grouped":
        return plain(
            residual(), {"stage*.*.kernel2": (3, 5), "stage*.*.hidden": ("x0.5", "x1"), "stage*.*.groups*": (1, 2)}
        )
    if name == "gated":
        return plain(gated(), {**ALL, "stage*.*.se": (2, 4)})
    nets = {"residual": residual, "smooth": lambda: residual("Sigmoid"), "normalised": normalised}
    return plain(nets[name]())


SEEDS = ("residual", "grouped", "gated", "smooth", "normalised", "headed")


def network(name: str, relaxation: Relaxation = "entangled") -> SuperNetwork:
    """A super network of its own."""
    return build(*seed(name), relaxation=relaxation).train()


def trained(name: str, relaxation: Relaxation = "entangled") -> SuperNetwork:
    """The same after some training: no weight is what it was, none is zero."""
    net = network(name, relaxation)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in net.weight_parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    return net


def images(name: str, count: int = 1) -> Tensor:
    """Noise of the size that the seed takes."""
    shape = seed(name)[1].shapes.shapes["x"]
    return torch.from_numpy(np.random.default_rng(3).standard_normal((count, *shape[1:])).astype(np.float32))


def remapped(name: str, spec: Spec, x: Tensor) -> dict[str, np.ndarray]:
    """The outputs of remap(seed, spec) in ONNX Runtime."""
    graph, analysis, _ = seed(name)
    target = apply(graph, plan(analysis, spec))
    return dict(run_inner(target, {"x": x.numpy()}, [tensor.name for tensor in target.outputs], "the member"))


def one_hot(found: Choices, member: tuple[int, ...]) -> list[Tensor]:
    """Probabilities that leave no doubt."""
    rows = [torch.zeros(len(block.candidates) + block.skippable) for block in found.blocks]
    for row, k in zip(rows, member, strict=True):
        row[k] = 1
    return rows


def apart(a: dict[str, Tensor], b: dict[str, Tensor] | dict[str, np.ndarray]) -> float:
    """The largest difference of any output, of its spread."""
    worst = 0.0
    for name, value in b.items():
        other = value.detach().numpy() if isinstance(value, Tensor) else value
        difference = np.abs(a[name].detach().numpy() - other).max() / max(np.ptp(other), 1e-12)
        worst = float(np.maximum(worst, difference))  # nan stays nan
    return worst
