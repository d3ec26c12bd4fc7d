"""`deploy.json`: what a deployed folder holds, for whoever runs it, and for `predict`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fnatool.tasks.table import TASKS
from passes.errors import UserError

MARK, MODEL, ENGINE = "deploy.json", "model.onnx", "engine.plan"
LARGEST = 64_000_000  # bytes of a document that is read: a folder is untrusted


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GraphValue(_Part):
    """An input or output: its type, its axes (a number, or the name of what is free), and what it is."""

    name: str
    type: str
    shape: tuple[int | str, ...]


class Batch(_Part):
    """How many images at a time; all the same where it is fixed."""

    least: Annotated[int, Field(ge=1)] = 1
    usual: Annotated[int, Field(ge=1)] = 1
    most: Annotated[int, Field(ge=1)] = 1

    @property
    def fixed(self) -> bool:
        """One number alone."""
        return self.least == self.most


class Document(_Part):
    """All that is said of a deployed folder."""

    version: Literal[1] = 1
    files: tuple[str, ...]
    target: str
    precision: str
    # file and sha256 of the model that was deployed, and of the seed that it comes from where it says so
    model: dict[str, str]
    sha256: str  # of model.onnx
    task: str | None = None
    description: dict[str, Any] | None = None
    classes: tuple[str, ...] = ()
    pixels: dict[str, Any] | None = None
    inputs: tuple[GraphValue, ...]
    outputs: tuple[GraphValue, ...]
    size: tuple[int, int] | None = None  # height and width of the network's input
    image_size: tuple[int, int] | None = None  # of the images that the graph takes; None: any
    layout: Literal["NHWC", "NCHW"] = "NHWC"
    batch: Batch = Batch()
    preprocessing: bool
    postprocessing: Literal["none", "whole", "candidates"]
    thresholds: dict[str, float] = {}
    costs: dict[str, dict[str, int]]
    figures: dict[str, dict[str, float]] | None = None
    verified: dict[str, Any] | None = None
    kept_in_fp32: tuple[str, ...] = ()
    quantised: dict[str, Any] | None = None  # of int8: how, and what it is made of
    trtexec: str | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The text of the file."""
        return json.dumps(self.model_dump(mode="json"), indent=1) + "\n"


def read_document(folder: Path) -> Document:
    """What a deployed folder says of itself. Raises UserError where it is none."""
    path = folder / MARK
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"'{path}' is far larger than any document of 'fnatool deploy'")
        found = Document.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"'{folder}' is no deployed folder: '{MARK}' cannot be read ({error.strerror})") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"'{path}' is not what 'fnatool deploy' writes: {place}: {first['msg']}") from error
    if found.task is not None and found.task not in TASKS:
        raise UserError(f"'{path}' is of a task that is not known: '{found.task}'")
    return found


def parsed_batch(text: str) -> Batch:
    """8, or 1:8:32 for any number from 1 to 32 that is mostly 8. Raises UserError."""
    parts = text.split(":")
    numbers = [int(part) for part in parts if part.isascii() and part.isdigit() and 0 < len(part) < 7]
    if len(numbers) != len(parts) or len(parts) not in (1, 3):
        raise UserError(
            f"'{text}' is no batch; give a number as 8, or the least, the usual and the largest one as 1:8:32"
        )
    least, usual, most = numbers if len(numbers) == 3 else numbers * 3
    if not 1 <= least <= usual <= most:
        raise UserError(f"a batch of '{text}' goes from the least over the usual to the largest one, each at least 1")
    return Batch(least=least, usual=usual, most=most)


def trtexec_line(
    inputs: Mapping[str, tuple[int | str, ...]], batch: Batch, sides: Mapping[str, tuple[int, int, int]]
) -> str:
    """The command that builds an engine of model.onnx; precision is in the file, so that no flag says it. sides: of
    images of any size.
    """
    words = ["trtexec", f"--onnx={MODEL}"]
    if any(not all(isinstance(axis, int) for axis in shape) for shape in inputs.values()):
        for option, place in (("minShapes", 0), ("optShapes", 1), ("maxShapes", 2)):
            shapes = [f"{name}:{'x'.join(map(str, at(shape, batch, sides, place)))}" for name, shape in inputs.items()]
            words.append(f"--{option}={','.join(shapes)}")
    return " ".join([*words, f"--saveEngine={ENGINE}", "--timingCacheFile=timing.cache"])


def at(
    shape: tuple[int | str, ...], batch: Batch, sides: Mapping[str, tuple[int, int, int]], place: int
) -> tuple[int, ...]:
    """The axes of an input with their free ones at the least, the usual or the largest size (place 0, 1, 2)."""
    numbers = (batch.least, batch.usual, batch.most)
    return tuple(axis if isinstance(axis, int) else sides.get(axis, numbers)[place] for axis in shape)


@dataclass(frozen=True)
class Deployed:
    """A folder that holds a deployed model, and its document."""

    folder: Path
    document: Document
