"""The outputs of a model as a task reads them: which is which, and whether their shapes are those of the task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fnatool.files import model as files
from fnatool.files.interface import shape_text
from fnatool.tasks.description import Description
from fnatool.tasks.table import TASKS
from passes.errors import UserError
from passes.graph.section import Declared, declared
from passes.graph.shapes import infer
from passes.graph.tensors import Shape
from passes.graph.view import Node, View, view
from passes.heads.tap import Grid
from passes.heads.taps import FLOATS

SHARES = {"HardSigmoid", "Sigmoid", "Softmax"}
MOVING = {"Cast", "Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
"""What moves numbers and leaves them as they are."""
CUT = "'fnatool cut MODEL --outputs NAME' makes a model of the one that is meant"

Describe = Callable[[tuple[str, ...]], Description]  # of labels of these names


@dataclass(frozen=True)
class TaskOutput:
    """An output of a task: its name there, the tensor that the model has for it, and that one's sizes."""

    name: str
    tensor: str
    shape: Declared


def answers_of(model: files.Model, describe: Describe, sizes: Mapping[str, Shape] | None) -> tuple[TaskOutput, ...]:
    """The outputs of the task: those of its names, else, of a task with one output, the model's only one that has as
    many axes.

    Raises UserError where the model has none, or several.
    """
    about = describe(("class0",))
    seen = view(model.graph)
    shapes = infer(seen, sizes)
    found = declared(seen, shapes, seen.outputs)
    outputs = {
        name: shape for name in seen.outputs if (shape := found[name]) is not None and shapes.types.get(name) in FLOATS
    }
    wanted = TASKS[about.task].outputs
    if wanted.keys() <= outputs.keys():
        return tuple(TaskOutput(name, name, outputs[name]) for name in wanted)
    said = ", ".join(f"'{name}' {shape_text(found[name])}" for name in seen.outputs)
    if len(wanted) > 1:
        raise UserError(
            f"{about.task} has the outputs {' and '.join(wanted)}, this model gives {said}: no other form of it "
            "is known"
        )
    ((name, make),) = wanted.items()
    rank = 1 + len(make(about).shape)
    fitting = [tensor for tensor, shape in outputs.items() if len(shape) == rank]
    if len(fitting) != 1:
        raise UserError(f"{about.task} has one output of {rank} axes that holds floats, this model gives {said}; {CUT}")
    return (TaskOutput(name, fitting[0], outputs[fitting[0]]),)


def labels_in(answers: Sequence[TaskOutput], describe: Describe) -> int:
    """How many labels the outputs have answers for. Raises UserError where their sizes do not tell."""
    one, two = describe(("class0",)), describe(("class0", "class1"))
    for answer in answers:
        make = TASKS[one.task].outputs[answer.name]
        sizes = zip(answer.shape[1:], make(one).shape, make(two).shape, strict=False)
        for extent, first, second in sizes:
            if first is not None and first != second and isinstance(extent, int) and extent >= first:
                return extent - first + 1
    raise UserError(
        f"the size of output '{answers[0].tensor}' ({shape_text(answers[0].shape)}) does not tell how many "
        "labels there are"
    )


def require_scores(answers: Sequence[TaskOutput], about: Description, model: files.Model) -> None:
    """Every output has the shape that the task gives it for these labels, and logits are such. Raises UserError."""
    seen = view(model.graph)
    for answer in answers:
        output = TASKS[about.task].outputs[answer.name](about)
        wanted = (None, *output.shape)
        fits = len(wanted) == len(answer.shape)
        fits &= all(
            None in (size, own) or isinstance(own, str) or size == own
            for size, own in zip(wanted, answer.shape, strict=False)
        )
        if not fits:
            count = f"{len(about.labels)} {'name' if len(about.labels) == 1 else 'names'}"
            raise UserError(
                f"output '{answer.tensor}' is {shape_text(answer.shape)}; {about.task} with {count} has "
                f"{shape_text(wanted)} there"
            )
        made_by = _maker(answer.tensor, seen)
        if output.logits and made_by is not None and made_by.op in SHARES:
            raise UserError(
                f"output '{answer.tensor}' holds shares, which '{made_by.name}' ({made_by.op}) makes; "
                f"{about.task} reads the numbers "
                f"before it: 'fnatool cut MODEL --outputs {made_by.inputs[0]}' makes a model that ends there"
            )


def require_channels_first(answers: Sequence[TaskOutput], grids: Mapping[str, Grid]) -> None:
    """No map among the outputs has its labels on the last axis. Raises UserError."""
    for answer in answers:
        if answer.tensor in grids and grids[answer.tensor].axis != 1:
            raise UserError(
                f"output '{answer.tensor}' is {shape_text(answer.shape)} with its labels last; a task reads [N, "
                "labels, h, w]: export it so"
            )


def _maker(tensor: str, seen: View) -> Node | None:
    """The node that computes what a tensor holds, before it was moved."""
    node = seen.by_name.get(seen.producer.get(tensor, ""))
    return node if node is None or node.op not in MOVING else _maker(node.inputs[0], seen)
