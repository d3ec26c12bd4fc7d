"""The network that another one is to be like, read from a file, at the sizes of the other one's inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fnatool import seeds
from fnatool.files import model as files
from fnatool.imitation.places import PlacePair, places
from fnatool.model.analysed import analyse_model
from fnatool.model.remapped import RemapOptions, remap_model
from fnatool.nn.batch import require_batch
from fnatool.nn.layers import Norms
from fnatool.nn.reading import Reading
from passes.errors import UserError
from passes.graph.tensors import Shape
from passes.graph.view import view
from passes.network.analysis import Analysis
from passes.network.knobs import IMAGE
from passes.target.spec import Spec


@dataclass(frozen=True)
class Pair:
    """A network and its teacher, both read and analysed at the same sizes of inputs."""

    student: Analysis
    model: files.Model  # of the teacher
    teacher: Analysis

    def places(self, asked: Sequence[str] = ()) -> tuple[PlacePair, ...]:
        """Where they are compared."""
        return places(self.student, self.teacher, asked)


def paired(
    student: files.Model, teacher: str | files.Model, sizes: Mapping[str, Shape] | None = None, *, resize: bool = True
) -> Pair:
    """The teacher (a model, a path, or the bundled seed's name) beside a network.

    resize: it is remapped to the network's image size where its own is fixed; sizes: of inputs that the network leaves
    open. Raises UserError where their inputs are not the same.
    """
    read = teacher if isinstance(teacher, files.Model) else files.read(seeds.find(teacher))
    own = analyse_model(student, sizes)
    wanted = input_shapes(own)
    stated = {
        name: shape for name, (shape, _) in view(read.graph).inputs.items() if name not in view(read.graph).constants
    }
    if stated.keys() != wanted.keys():
        said = [", ".join(f"'{name}'" for name in found) or "none" for found in (stated, wanted)]
        raise UserError(
            f"'{read.path}' has the inputs {said[0]}, '{student.path}' has {said[1]}: they are not for the same data"
        )
    found = analyse_model(read, {name: shape for name, shape in wanted.items() if _is_open(stated[name])})
    if resize and input_shapes(found) != wanted and own.image.axes is not None and found.image.axes == own.image.axes:
        (shape, *_) = wanted.values()
        height, width = (shape[axis] for axis in own.image.axes)
        read = remap_model(read, Spec({IMAGE: (height, width)}), RemapOptions(verify=False), analysis=found).model
        found = analyse_model(read)
    for name, shape in input_shapes(found).items():
        if shape != wanted[name]:
            said = ["×".join(map(str, one[1:])) for one in (shape, wanted[name])]
            raise UserError(
                f"'{read.path}' takes {said[0]} as '{name}', '{student.path}' takes {said[1]}: make their sizes "
                "the same"
            )
    return Pair(own, read, found)


def input_shapes(analysis: Analysis) -> dict[str, Shape]:
    """The shapes of the inputs, the batch of one that is free taken for 1."""
    seen = analysis.view
    return {name: (1, *analysis.shapes.shapes[name][1:]) for name in seen.inputs if name not in seen.constants}


def _is_open(shape: Sequence[object] | None) -> bool:
    """The file leaves a size beside the batch open."""
    return shape is None or any(not isinstance(size, int) for size in shape[1:])


class Teacher:
    """A network that does not learn, on a device: what it makes of inputs, at its outputs and inside."""

    def __init__(self, pair: Pair, taps: Sequence[str], device: torch.device, norms: Norms) -> None:
        """norms: whose statistics BatchNormalization normalises by. Raises RefusedModel where torch cannot compute
        it.
        """
        reading = Reading(pair.model.graph, input_shapes(pair.teacher))
        values = {weight.name: reading.initial(weight) for weight in reading.weights}
        require_batch(reading, values, static=reading.static_batch)
        self.reading, self.taps, self.norms = reading, tuple(taps), norms
        self.values = {name: value.to(device) for name, value in {**values, **reading.constants}.items()}

    @torch.no_grad()
    def __call__(self, inputs: Mapping[str, Tensor], *, with_taps: bool) -> tuple[dict[str, Tensor], list[Tensor]]:
        """The outputs by name, and the inner tensors where they are asked for."""
        given = [inputs[name] for name in self.reading.inputs]
        found = self.reading(self.values, given, norms=self.norms, taps=self.taps if with_taps else ())
        count = len(self.reading.outputs)
        return dict(zip(self.reading.outputs, found[:count], strict=True)), list(found[count:])
