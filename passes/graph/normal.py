"""What a graph in normal form is handed on as."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import onnx_graphsurgeon as gs

from passes.graph.view import View, build


@dataclass(frozen=True)
class Normalised:
    """The View of a graph in normal form, a sentence for each kind of change, whether one of them made numbers of
    static sizes, and the graph given.

    What takes a graph and brings it into normal form takes this too, and need not do it again.
    """

    seen: View
    notes: tuple[str, ...]
    sized: bool
    given: gs.Graph

    @cached_property
    def graph(self) -> gs.Graph:
        """The graph in normal form, with objects of its own, made when it is first asked for."""
        return build(self.seen.nodes, self.seen.constants, self.given)
