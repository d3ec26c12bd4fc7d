"""What is known of how many samples a network takes at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from passes.graph.tensors import Shapes
from passes.graph.view import View
from passes.network.knobs import Batch


@dataclass(frozen=True)
class Batching:
    """The inputs whose first axis counts samples, and how many it says, None where that is free."""

    inputs: tuple[str, ...]
    value: Batch
    view: View = field(repr=False, compare=False)
    shapes: Shapes = field(repr=False, compare=False)

    @cached_property
    def why(self) -> str | None:
        """Why there cannot be another number of samples, which is found out when it is first asked for; None: there
        can.
        """
        from passes.batch.contents import Mixed  # not above: most who analyse a network never ask
        from passes.batch.rebatched import rebatched

        try:
            rebatched(self.view, self.shapes, None if self.value is not None else 2)
        except Mixed as why:
            return str(why)
        return None


def read_batching(seen: View, shapes: Shapes) -> Batching:
    """How many samples the network takes at once."""
    from passes.batch.rebatched import batched_inputs, own_batch

    inputs = batched_inputs(seen)
    return Batching(inputs, own_batch(seen), seen, shapes)
