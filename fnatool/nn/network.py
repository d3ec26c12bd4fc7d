"""An ONNX graph as a torch module, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from fnatool import seeds
from fnatool.files import model as files
from fnatool.files.calling import called
from fnatool.files.model import Model
from fnatool.nn.batch import require_batch
from fnatool.nn.keys import Key, keys
from fnatool.nn.layers import Norms
from fnatool.nn.program import run
from fnatool.nn.reading import Reading
from fnatool.nn.storing import stored
from passes.errors import UserError
from passes.graph.tensors import Shape


@dataclass(frozen=True)
class Origin:
    """The file that a network was read from. Copies of the network share it."""

    reading: Reading
    model: Model

    def __deepcopy__(self, memo: object) -> Origin:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a network is not pickled whole; pickle its state_dict(), or write the graph with fnatool.nn.save"
        )


class Network(torch.nn.Module):
    """The graph of an ONNX file. Its parameters and buffers are the file's initializers, under their names (see
    `keys`).

    `norms_in_training` says what BatchNormalization does in train mode: "update" its running statistics, normalise by
    those of the "batch" and leave the running ones alone, or stay with the "running" ones (frozen). `initializers` maps
    keys to names in the file.
    """

    def __init__(self, origin: Origin) -> None:
        super().__init__()
        self.origin = origin
        self.norms_in_training: Norms = "update"
        reading = origin.reading
        placed = keys(reading.names, {*dir(type(self)), *vars(self), "initializers", "places"})
        self.initializers: Mapping[str, str] = {".".join(key): name for name, key in placed.items()}
        self.places = tuple((key[:-1], key[-1]) for key in placed.values())
        for weight in reading.weights:
            folder, last = self._folder(placed[weight.name]), placed[weight.name][-1]
            if weight.role == "trained":
                folder.register_parameter(last, torch.nn.Parameter(reading.initial(weight)))
            else:
                folder.register_buffer(last, reading.initial(weight))
        for name, value in reading.constants.items():
            self._folder(placed[name]).register_buffer(placed[name][-1], value.clone(), persistent=False)

    def _folder(self, key: Key) -> torch.nn.Module:
        """The submodule that holds the last part of the key."""
        folder: torch.nn.Module = self
        for part in key[:-1]:
            if part not in folder._modules:
                folder.add_module(part, torch.nn.Module())
            folder = folder.get_submodule(part)
        return folder

    def values(self) -> list[Tensor]:
        """The tensors of the graph, in the order of `Reading.names`."""
        found = []
        for path, last in self.places:
            folder: torch.nn.Module = self
            for part in path:
                folder = folder._modules[part]  # type: ignore[assignment]
            found.append(getattr(folder, last))
        return found

    def named_values(self) -> dict[str, Tensor]:
        """The tensors of the graph by their names in it."""
        return dict(zip(self.origin.reading.names, self.values(), strict=True))

    def forward(
        self, *inputs: Tensor, taps: Sequence[str] = ()
    ) -> Tensor | tuple[Tensor, ...] | tuple[object, dict[str, Tensor]]:
        """The output, or a tuple of all outputs in the order of the graph; with taps, that and the inner tensors asked
        for, by name.

        Raises UserError for a tap that is no tensor of the graph.
        """
        reading = self.origin.reading
        if len(inputs) != len(reading.inputs):
            raise TypeError(
                f"the graph has {len(reading.inputs)} inputs ({', '.join(reading.inputs)}), {len(inputs)} are given"
            )
        program = reading.program(tuple(taps))
        norms: Norms = self.norms_in_training if self.training else "running"
        results = run(program, self.values(), inputs, norms=norms, training=self.training)
        count = len(reading.outputs)
        outputs = results[0] if count == 1 else results[:count]
        return (outputs, dict(zip(taps, results[count:], strict=True))) if taps else outputs


def load(source: str | Path | Model, *, sizes: Mapping[str, Shape] | None = None) -> Network:
    """The network of an ONNX file (a path, the name of a bundled seed, or a model read) as a torch module in evaluation
    mode.

    Its batch is free, whatever the file says. `sizes` gives shapes for inputs that the file leaves open, where the
    graph needs them. Raises UserError where there is no such file, RefusedModel where torch cannot compute or batch it,
    naming the node.
    """
    model = source if isinstance(source, Model) else files.read(seeds.find(source), sizes)
    reading = Reading(model.graph, sizes)
    network = Network(Origin(reading, model)).eval()
    require_batch(reading, network.named_values(), static=reading.static_batch)
    return network


def save(
    module: torch.nn.Module, path: str | Path, *, force: bool = False, metadata: Mapping[str, str] | None = None
) -> None:
    """The file at path holds the graph that was loaded, with the values that the module has now.

    `module` is what `load` returned, or a wrapper around it (DistributedDataParallel, an average, a compiled module).
    Nodes, names and metadata are the file's; of an initializer nothing changes but its values, and none whose values
    are the same. Where training made an initializer differ that several nodes read, its readers get their own. Raises
    UserError and OSError as `files.write` does.
    """
    networks = [part for part in module.modules() if isinstance(part, Network)]
    if len(networks) != 1:
        raise UserError(
            f"a module with {len(networks)} networks made by fnatool.nn.load in it cannot be saved; give it one"
        )
    network = networks[0]
    model, sources = network.origin.model, network.origin.reading.sources
    graph = stored(model.graph, sources, network.named_values())
    with called():
        files.write(dataclasses.replace(model, graph=graph), path, force=force, metadata=metadata)
