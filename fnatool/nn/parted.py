"""A network run part by part over the same batches, in the order of its nodes: nothing that is behind is computed
twice.

Between parts the tensors that the rest needs lie in files, so that memory stays flat in the number of samples.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx_graphsurgeon as gs
import torch
from torch import Tensor

from fnatool.nn.batch import require_batch
from fnatool.nn.part import FLOATING, NetworkPart, needed
from fnatool.nn.program import to_array, to_tensor
from fnatool.nn.reading import Reading
from fnatool.nn.storing import stored
from passes.errors import RefusedModel
from passes.graph.tensors import Shape

LARGEST = 2 << 30  # bytes that may lie in files for one network: beyond that parts begin further back
BYTES = 4  # of a number


def device() -> torch.device:
    """The accelerator, where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class PartedNetwork:
    """A graph with its weights, and where its batches have got to: a file per batch and tensor in `folder`."""

    def __init__(self, graph: gs.Graph, sizes: Mapping[str, Shape] | None, folder: Path, device: torch.device) -> None:
        """Raises RefusedModel where torch cannot compute the graph."""
        self.reading = Reading(graph, sizes)
        self.folder, self.device = folder, device
        self.weights = {weight.name: self.reading.initial(weight).to(device) for weight in self.reading.weights}
        self.index = {node.name: k for k, node in enumerate(self.reading.view.nodes)}
        self.state: tuple[str, ...] = self.reading.inputs
        self.samples: list[int] = []
        self.round = 0
        self.free = self._is_free()
        folder.mkdir(parents=True, exist_ok=True)

    def _is_free(self) -> bool:
        """Whether samples may run together."""
        try:
            require_batch(self.reading, self.weights, static=self.reading.static_batch)
        except RefusedModel:
            return False
        return bool(self.reading.facts.batched)

    @property
    def largest(self) -> int:
        """The bytes of its largest tensor for one sample."""
        shapes = self.reading.shapes.shapes
        sizes = [math.prod(shapes[name]) for name in self.reading.view.producer if name in shapes]
        return max(sizes, default=1) * BYTES // max(self.reading.facts.batch, 1)

    def add(self, batch: Mapping[str, np.ndarray], samples: int) -> None:
        """Another batch, at the beginning of the network."""
        for k, name in enumerate(self.reading.inputs):
            np.save(self._file(len(self.samples), k), batch[name])
        self.samples.append(samples)

    def weight(self, name: str) -> np.ndarray:
        """The values of a weight now."""
        return to_array(self.weights[name])

    def set(self, name: str, values: np.ndarray) -> None:
        """The weight has these values from now on, in the type it had."""
        old = self.weights[name]
        self.weights[name] = to_tensor(np.ascontiguousarray(values)).to(old.dtype).reshape(old.shape).to(self.device)

    def run(self, wanted: Collection[str], before: str, later: Collection[str]) -> Iterator[dict[str, Tensor]]:
        """The wanted tensors batch by batch; afterwards the batches stand before the node of that name, with what
        `later` tensors need.
        """
        kept = self._kept(before, later)
        part = NetworkPart(self.reading, tuple(dict.fromkeys([*wanted, *kept])), self.state)
        for k in range(len(self.samples)):
            given = {
                name: self._load(k, j)
                for j, name in enumerate(self.state)
                if name in part.inputs or name in part.wanted
            }
            found = part(self.weights, given)
            if kept != self.state:
                for j, name in enumerate(kept):
                    np.save(self._file(k, j, 1), to_array(found[name]))
            yield {name: found[name] for name in wanted}
        if kept != self.state:
            self._clear()
            self.state, self.round = kept, self.round + 1

    def whole(self, wanted: Collection[str]) -> NetworkPart:
        """What makes the wanted tensors of the network's inputs."""
        return NetworkPart(self.reading, tuple(wanted), self.reading.inputs)

    def given(self, batch: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
        """The network's inputs as tensors."""
        return {name: to_tensor(batch[name]).to(self.device) for name in self.reading.inputs}

    def changed(self, graph: gs.Graph) -> gs.Graph:
        """The graph that the network was read from with the weights as they are now; what did not change is shared with
        it.
        """
        return stored(graph, self.reading.sources, self.weights)

    def _kept(self, before: str, later: Collection[str]) -> tuple[str, ...]:
        """What of the tensors made before a node the later ones need; what is kept now, where that would be too
        much.
        """
        types, numbers, nodes = self.reading.facts.types, self.reading.facts.numbers, self.reading.view.nodes
        outputs = [name for node in nodes[: self.index[before]] for name in node.outputs]
        made = {name for name in outputs if types.get(name) in FLOATING and name not in numbers}
        _, kept = needed(self.reading.view, later, made | {*self.state})
        sizes = [math.prod(self.reading.shapes.shapes[name]) for name in kept]
        total = sum(sizes) * BYTES * sum(self.samples) // max(self.reading.facts.batch, 1)
        return kept if total <= LARGEST else self.state

    def _file(self, batch: int, place: int, ahead: int = 0) -> Path:
        return self.folder / f"{self.round + ahead}_{batch}_{place}.npy"

    def _load(self, batch: int, place: int) -> Tensor:
        return to_tensor(np.load(self._file(batch, place), allow_pickle=False)).to(self.device)

    def _clear(self) -> None:
        for batch in range(len(self.samples)):
            for place in range(len(self.state)):
                self._file(batch, place).unlink()
