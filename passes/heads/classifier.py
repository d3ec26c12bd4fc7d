"""A classifier: global pooling where the tap is a map, then one matrix product; rows of the seed's own may be kept.

The seed's classifier is the matrix product (or convolution) with constant weights that its first output comes from,
through operators that act on each class alone or on all of them alike (softmax).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from passes.errors import UserError
from passes.graph.operators import having, of
from passes.graph.view import Node
from passes.heads.inheriting import Keep, keep_rows
from passes.heads.style import HeadStyle, HeadWork
from passes.heads.taps import last_map
from passes.heads.writer import Writer
from passes.network.analysis import Analysis

PREDICTOR_STD = 0.01
BEHIND = having(lambda row: row.form == "unary" and row.keeps_values) | {
    *("AveragePool", "GlobalAveragePool", "ReduceMean", "Resize", "Upsample"),  # pooling commutes with the product
    *("LogSoftmax", "Relu", "Sigmoid", "Softmax"),
    *("Flatten", "Reshape", "Squeeze"),
}
"""What may stand between a classifier and the output; pooling commutes with it."""


@dataclass(frozen=True)
class Rows:
    """The seed's classifier: what it reads, and weight [classes, channels] and bias [classes] of its classes.

    `bent` names a rectifier that its scores pass before they are pooled, if any: the product alone is not what the seed
    computes.
    """

    features: str
    weight: npt.NDArray[np.generic]
    bias: npt.NDArray[np.generic]
    bent: str = ""


def classifier(features: str, channels: int, writer: Writer, *, classes: int, rows: Rows | None, keep: Keep) -> None:
    """`logits` [N, classes] of features [N, channels, …], pooled over space. The first classes are the rows kept, as
    the seed has them.

    Fresh rows are N(0, 0.01²), fresh biases 0. Raises UserError where there are no such rows.
    """
    weight = (PREDICTOR_STD * writer.rng.standard_normal((classes, channels))).astype(writer.dtype)
    bias = np.zeros(classes, writer.dtype)
    if keep:
        known = _known(rows, channels)
        kept = list(keep_rows(keep, len(known.weight), classes))
        weight[: len(kept)] = known.weight[kept]
        bias[: len(kept)] = known.bias[kept]
    inputs = [features, writer.constant("classifier.weight", weight), writer.constant("classifier.bias", bias)]
    writer.node("Gemm", "classifier", inputs, output="logits", transB=1)


def _known(rows: Rows | None, channels: int) -> Rows:
    """The seed's classifier, which reads what the new one does. Raises UserError where there is no such."""
    if rows is None:
        raise UserError(
            "this seed has no classifier whose rows could be kept: its output does not come from a matrix "
            "product with weights"
        )
    if rows.weight.shape[1] != channels:
        raise UserError(
            f"rows can be kept where the seed's classifier reads '{rows.features}'; leave the choice of taps to fnatool"
        )
    if rows.bent:
        raise UserError(
            f"the scores of this seed pass '{rows.bent}' (Relu) before they are pooled, so its rows would not "
            "mean the same here"
        )
    return rows


def own_classifier(analysis: Analysis) -> Rows | None:
    """The seed's classifier; None where its first output does not come from one."""
    seen = analysis.view
    bias: npt.NDArray[np.generic] | None = None
    bent = ""
    node = seen.by_name.get(seen.producer.get(seen.outputs[0], ""))
    while node is not None:
        if of(node.op).form in ("product", "convolution") and node.input(1) in seen.constants:
            found = _rows(node, analysis, bias)
            return None if found is None else replace(found, bent=bent)
        bent = node.name if node.op == "Relu" else bent
        constant = [name for name in node.inputs if name in seen.constants]
        data = [name for name in node.inputs if name and name not in seen.constants]
        if node.op == "Add" and len(constant) == len(data) == 1 and bias is None:
            bias = seen.values(constant[0]).ravel()
        elif node.op not in BEHIND:
            return None
        node = seen.by_name.get(seen.producer.get(data[0], "")) if data else None
    return None


def _rows(node: Node, analysis: Analysis, added: npt.NDArray[np.generic] | None) -> Rows | None:
    """As y = W·x + b, W [classes, channels]."""
    seen = analysis.view
    weight = seen.values(node.inputs[1])
    if node.op == "Conv":
        if node.int("group", 1) != 1 or weight[0, 0].size != 1:
            return None
        weight = weight.reshape(weight.shape[:2])
    elif weight.ndim != 2 or node.int("transA", 0):
        return None
    elif not node.int("transB", 0):
        weight = weight.T
    bias = np.zeros(weight.shape[0], weight.dtype)
    if node.input(2):
        if node.input(2) not in seen.constants:
            return None
        bias = bias + float(node.attrs.get("beta", 1.0)) * seen.values(node.input(2)).ravel()
    if added is not None:
        bias = bias + added
    return Rows(node.inputs[0], float(node.attrs.get("alpha", 1.0)) * weight, bias)


def build(work: HeadWork) -> None:
    """The classifier on its tap; rows are kept where that is what the seed's classifier reads."""
    (tap,) = work.taps
    features = tap.tensor
    if work.chart.is_map(features):
        (x,) = work.maps()
        features = work.writer.node("GlobalAveragePool", "pool", [x.tensor])
    if len(work.chart.analysis.shapes.shapes[tap.tensor]) != 2:
        features = work.writer.node("Flatten", "flatten", [features], axis=1)
    rows = own_classifier(work.chart.analysis)
    if rows is not None and rows.features != tap.tensor and work.head.keep:
        raise UserError(
            "rows can be kept where the head taps what the seed's classifier reads: "
            f"'{work.chart.name_of(rows.features)}'"
        )
    classifier(features, tap.channels, work.writer, classes=work.head.count, rows=rows, keep=work.head.keep)


STYLE = HeadStyle("linear", {"logits": ()}, last_map, build, taps_features=True)
