"""What a model is for, as its metadata `fnatool.task` says it: enough to prepare an image for it and to read its
outputs.

Without torch, so that whatever writes or reads an ONNX file can use it. What only one task says is in that task's
module; `table` parses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StringConstraints, model_validator

LONGEST = 4_000_000  # characters of a description that is read: a model file is untrusted
PLACEHOLDERS = ("class", "joint")  # names like class0, class1 … are those of nobody

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Names = Annotated[tuple[Name, ...], Field(min_length=1, max_length=100_000)]
Positive = Annotated[FiniteFloat, Field(gt=0)]
LARGEST = 65_536  # pixels of a side of an image
Extent = Annotated[int, Field(gt=0, le=LARGEST)]
PerChannel = tuple[FiniteFloat, FiniteFloat, FiniteFloat] | tuple[FiniteFloat]


class Strict(BaseModel):
    """What is said does not change, has no unknown keys, and no type is guessed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Input(Strict):
    """How an image becomes the model's input: (pixel − mean) / scale per channel, pixels being 0 … 255."""

    layout: Literal["NCHW", "NHWC"] = "NCHW"
    channels: Literal["RGB", "BGR", "GREY"] = "RGB"  # mean and scale are in this order too
    mean: PerChannel = (127.5, 127.5, 127.5)
    scale: PerChannel = (127.5, 127.5, 127.5)
    size: tuple[Extent, Extent] | None = None  # height and width it was trained at; None: as the graph says

    @model_validator(mode="after")
    def _scales(self) -> Self:
        channels = 1 if self.channels == "GREY" else 3
        if not len(self.mean) == len(self.scale) == channels:
            raise ValueError(
                f"{self.channels} has {channels} channel(s), mean {len(self.mean)} values, scale {len(self.scale)}"
            )
        if 0 in self.scale:
            raise ValueError("a scale of 0 would divide by zero")
        return self


class Description(Strict):
    """What every task says of a model; each task's own class adds to it, and says by `task` which it is.

    outputs: where the model calls an output otherwise than the task: the task's name and the model's.
    """

    named_by: ClassVar[tuple[str, ...]] = ("classes",)  # the fields that are names, or follow from them

    version: Literal[1] = 1
    input: Input = Input()
    classes: Names
    task: str
    outputs: Annotated[tuple[tuple[str, str], ...], Field(max_length=16)] = ()

    @model_validator(mode="after")
    def _different(self) -> Self:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("two classes have the same name")
        return self

    def output(self, name: str) -> str:
        """How the model calls what the task calls by that name."""
        return dict(self.outputs).get(name, name)

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of what the head has an answer for: classes, unless the task says otherwise."""
        return self.classes

    def counted(self) -> str:
        """'10 classes'"""
        return f"{len(self.classes)} class{'es' if len(self.classes) > 1 else ''}"

    def adopting(self, classes: Sequence[str], joints: Sequence[str]) -> Self:
        """The same with these names, where it has only placeholders for as many."""
        if is_placeholder(self.classes) and len(self.classes) == len(classes):
            return self.model_copy(update={"classes": tuple(classes)})
        return self

    def named_like(self, other: Description) -> Self:
        """The same with the names of another description of this task, which has as many."""
        return self.model_copy(update={name: getattr(other, name) for name in self.named_by})


def is_placeholder(names: Sequence[str]) -> bool:
    """Nobody named them: class0, class1 …, or the one 'object' of a pose."""
    return any(tuple(names) == tuple(f"{word}{k}" for k in range(len(names))) for word in PLACEHOLDERS) or tuple(
        names
    ) == ("object",)


def to_json(description: Description) -> str:
    """The text for the metadata."""
    return description.model_dump_json(exclude=None if description.outputs else {"outputs"})
