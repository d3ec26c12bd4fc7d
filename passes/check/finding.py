"""A finding: one thing that a reader of a report should know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing a reader of the report should know; an error fails the check."""

    severity: Severity
    code: str  # what kind of finding, for programs: "bias-length"
    where: str  # "Conv 'features.0'", "initializer 'w'"
    message: str
    fix: str = ""


def errors(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Those that fail the check."""
    return tuple(finding for finding in findings if finding.severity == "error")


def cycle(stuck: Sequence[str]) -> Finding:
    """That these nodes can come in no order."""
    message = f"{len(stuck)} nodes wait for each other or for such a cycle"
    return Finding("error", "cycle", ", ".join(stuck[:5]), message, "break the cycle; an ONNX graph has none")


def dangling(where: str, tensor: str) -> Finding:
    """That something reads a tensor that is nowhere made."""
    return Finding(
        "error", "dangling", where, f"it reads '{tensor}', which nothing defines", "add the tensor or remove the use"
    )


def dangling_output(tensor: str) -> Finding:
    """That an output of the graph is nowhere made."""
    return Finding(
        "error", "dangling", f"output '{tensor}'", "nothing computes it", "remove it or name an existing tensor"
    )


def duplicate_node(name: str, count: int) -> Finding:
    """That several nodes have one name."""
    message = f"{count} nodes have this name, so reports cannot tell them apart"
    return Finding("warning", "duplicate-node", f"node '{name}'", message, "give each its own name")


CODES: Mapping[str, str] = {
    "attribute-length": "strides, dilations or pads have the wrong number of entries",
    "bias-length": "a bias does not have one value per channel",
    "control-flow": "a node has a body that the static rules do not look into",
    "cycle": "nodes wait for each other",
    "dangling": "a tensor is used that nothing defines",
    "duplicate-initializer": "an initializer is listed twice",
    "duplicate-input": "an input is listed twice",
    "duplicate-node": "two nodes have the same name",
    "duplicate-output": "an output is listed twice",
    "duplicate-tensor": "a tensor comes from several places",
    "element-type": "an input or output has no element type, or an unknown one",
    "empty": "the graph has no nodes",
    "engine-operator": "an operator does not come to an engine of the target",
    "engine-opset": "the operator set is newer than those that the target knows",
    "engine-profile": "an input is free, so that an engine needs shapes to be built for",
    "engine-quantised": "values are quantised in another way than engines read",
    "engine-type": "an element type is none that engines have",
    "group": "the groups of a convolution or normalisation do not divide its channels",
    "input-channels": "a layer's weight is for another number of channels than it gets",
    "kernel-shape": "kernel_shape disagrees with the weight",
    "no-output": "the graph has no output",
    "no-opset": "the standard operator set is not imported",
    "not-finite": "a weight holds NaN or infinity",
    "opset": "a version of an operator set is none, or none that there is",
    "shape": "the shapes of operands do not fit together",
    "slope": "the slope of a PRelu does not fit its input",
    "training-mode": "a node on the data computes as in training",
    "unsorted": "nodes are not in topological order",
    "unused-initializer": "nothing reads an initializer",
    "unused-input": "nothing reads an input",
    "unused-node": "nothing a node computes reaches an output",
    "variance": "a variance is negative",
    "vector-length": "a normalisation's parameter does not have one value per channel",
    "weight-rank": "a weight has the wrong number of axes",
    "zero-sized": "a tensor has an axis of length 0",
}
"""code → what kind of finding it is, in a line; those of these rules."""
