"""Networks that are remapped, the plan, and what its takes say."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import onnx_graphsurgeon as gs
from nets import Net, bundled

from fnatool.runtime.verify import Verification, verify
from passes import Analysis, Plan, Spec, analyse, apply, plan
from passes.graph.view import view

Knobs = Mapping[str, int | str]


@functools.cache
def seed() -> tuple[gs.Graph, Analysis]:
    made = bundled()
    return made, analyse(made)


def chain() -> gs.Graph:
    """x → c1 (6) → c2 (8) → c3 (4, grouped in 2) → classifier, each with BatchNormalization and Relu."""
    net = Net()
    y = net.conv_bn_relu("x", "c1", 6, 3)
    y = net.conv_bn_relu(y, "c2", 8, 3, bias=True)
    y = net.conv_bn_relu(y, "c3", 4, 3, group=2)
    net.classifier(y)
    return net.graph()


def blocks(count: int = 2, *, pooled: bool = True) -> gs.Graph:
    """A stem and residual blocks of hidden width 10 at width 6."""
    net = Net()
    y = net.conv_bn_relu("x", "stem", 6, 3)
    for k in range(count):
        hidden = net.conv_bn_relu(y, f"e{k}", 10, 3)
        y = net.op("Add", f"s{k}" if pooled or k < count - 1 else "y", y, net.conv_bn(hidden, f"l{k}", 6))
    if pooled:
        net.classifier(y)
    return net.graph()


def remapped(made: gs.Graph, knobs: Knobs, **how: object) -> tuple[Analysis, Plan, gs.Graph]:
    analysis = analyse(made)
    found = plan(analysis, Spec(knobs), **how)  # type: ignore[arg-type]
    return analysis, found, apply(made, found)


def arrays(made: gs.Graph) -> dict[str, np.ndarray]:
    seen = view(made)
    return {name: seen.values(name) for name in seen.constants}


def indices(found: Plan, tensor: str) -> dict[int, list[int]]:
    take = next(take for take in found.takes if take.target == tensor)
    return {axis: along.index.tolist() for axis, along in take.axes.items()}


def bound(fan_in: int) -> float:
    """1e-5 · kaiming_uniform (FNA++, issue 18)."""
    return 1e-5 * float(np.sqrt(6 / fan_in))


def checked(made: gs.Graph, knobs: Knobs, **how: object) -> Verification:
    analysis, found, target = remapped(made, knobs, **how)
    return verify(made, target, analysis, found)


def marked(part: str) -> gs.Graph:
    """The chain with channels 1 and 4 of c1 far larger than the others in one of its tensors."""
    made = chain()
    for node in made.nodes:
        for slot, tensor in enumerate(node.inputs):
            if tensor.name == part:
                values = np.array(tensor.values)
                values[[1, 4]] *= 50
                node.inputs[slot] = gs.Constant(tensor.name, values)
    return made
