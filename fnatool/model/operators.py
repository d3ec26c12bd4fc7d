"""How often each operator stands in a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from fnatool.model.source import Source, open_model


@dataclass(frozen=True)
class OperatorCounts:
    """The operators of a model, the most frequent first."""

    counts: Mapping[str, int]


def operators(model: Source) -> OperatorCounts:
    """How often each operator stands in a model. Raises UserError for a wrong path, RefusedModel for a model that cannot be read."""
    read, _ = open_model(model)
    return OperatorCounts(dict(Counter(node.op for node in read.graph.nodes).most_common()))
