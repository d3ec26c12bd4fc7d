"""What a graph in normal form is handed on as."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from passes.graph.view import View


@dataclass(frozen=True)
class Normalised:
    """The graph in normal form, its View, a sentence for each kind of change, whether one of them made numbers of static
    sizes, and the graph given.

    What takes a graph and brings it into normal form takes this too, and need not do it again.
    """

    graph: gs.Graph
    seen: View
    notes: tuple[str, ...]
    sized: bool
    given: gs.Graph
