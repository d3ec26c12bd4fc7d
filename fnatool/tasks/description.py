"""What a model is for, as its metadata `fnatool.task` says it: enough to prepare an image for it and to read its outputs.

Without torch, so that whatever writes or reads an ONNX file can use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StringConstraints, TypeAdapter, ValidationError, model_validator

from passes.errors import UserError

KEY = "fnatool.task"  # in the metadata of a model
LONGEST = 4_000_000  # characters of a description that is read: a model file is untrusted

# The graph outputs of each task: logits [N, K]; mask_logits [N, K, h, w]; cls_logits [N, A, K] and boxes [N, A, 4] over A anchors;
# heatmaps [N, J, h, w].
OUTPUTS: Mapping[str, tuple[str, ...]] = {
    "classification": ("logits",),
    "segmentation": ("mask_logits",),
    "detection": ("cls_logits", "boxes"),
    "pose": ("heatmaps",),
}

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Names = Annotated[tuple[Name, ...], Field(min_length=1, max_length=100_000)]
Positive = Annotated[FiniteFloat, Field(gt=0)]
LARGEST = 65_536  # pixels of a side of an image
Extent = Annotated[int, Field(gt=0, le=LARGEST)]
PerChannel = tuple[FiniteFloat, FiniteFloat, FiniteFloat] | tuple[FiniteFloat]


class _Facts(BaseModel):
    """Facts do not change, and are exactly those that are known."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Input(_Facts):
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
            raise ValueError(f"{self.channels} has {channels} channel(s), mean {len(self.mean)} values, scale {len(self.scale)}")
        if 0 in self.scale:
            raise ValueError("a scale of 0 would divide by zero")
        return self


class Level(_Facts):
    """The anchors of one feature map: at every position one for each (size, ratio), in that order.

    `stride` is (down, across), in pixels. The position in row y and column x has its centre at ((x + ½) · across, (y + ½) · down) of the
    input; an anchor there is size / √ratio wide and size · √ratio high. The map of an input of H rows has ⌈H / down⌉ rows.
    """

    stride: tuple[Extent, Extent]
    sizes: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=64)]
    ratios: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=64)]

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if len(self.sizes) != len(self.ratios):
            raise ValueError(f"every anchor has a size and a ratio, but there are {len(self.sizes)} sizes and {len(self.ratios)} ratios")
        return self


class _Described(_Facts):
    version: Literal[1] = 1
    input: Input = Input()
    classes: Names

    @model_validator(mode="after")
    def _different(self) -> Self:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("two classes have the same name")
        return self


class Classification(_Described):
    """logits [N, K]; `crop`: the share of the resized image's sides that the model is shown, cut from the middle."""

    task: Literal["classification"] = "classification"
    crop: Annotated[FiniteFloat, Field(gt=0, le=1)] = 0.875


class Segmentation(_Described):
    """mask_logits [N, K, h, w], to be resized to the input, bilinearly, with pixels as squares (align_corners false)."""

    task: Literal["segmentation"] = "segmentation"


class Detection(_Described):
    """cls_logits [N, A, K] and boxes [N, A, 4] over the anchors of all levels: level by level, row by row, anchors last.

    scores: "sigmoid" with a column for each class, or "softmax" with one for the background before them.
    boxes: (wx·Δx/w, wy·Δy/h, ww·ln(w′/w), wh·ln(h′/h)) from an anchor (centre, w, h) to a box (centre + Δ, w′, h′), box_weights being
    (wx, wy, ww, wh).
    """

    task: Literal["detection"] = "detection"
    levels: Annotated[tuple[Level, ...], Field(min_length=1, max_length=32)]
    box_weights: tuple[Positive, Positive, Positive, Positive] = (1.0, 1.0, 1.0, 1.0)
    scores: Literal["sigmoid", "softmax"] = "sigmoid"

    @property
    def columns(self) -> int:
        """The last extent of cls_logits."""
        return len(self.classes) + (self.scores == "softmax")


class Pose(_Described):
    """heatmaps [N, J, h, w], a peak of 1 at each joint of the object in the middle of the image.

    sigmas: COCO's tolerances, in shares of the object's extent. flip_pairs: joints that change places in a mirror.
    padding: how much larger than the object's box the part of the image is that the model is shown.
    """

    task: Literal["pose"] = "pose"
    joints: Annotated[tuple[Name, ...], Field(min_length=1, max_length=1000)]
    sigmas: tuple[Positive, ...]
    flip_pairs: tuple[tuple[int, int], ...] = ()
    padding: Annotated[FiniteFloat, Field(ge=1, le=10)] = 1.25

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.sigmas) != len(self.joints) or len(set(self.joints)) < len(self.joints):
            raise ValueError(f"{len(self.joints)} joints need as many different names and sigmas ({len(self.sigmas)})")
        paired = [joint for pair in self.flip_pairs for joint in pair]
        if len(set(paired)) < len(paired) or not all(0 <= joint < len(self.joints) for joint in paired):
            raise ValueError(f"flip_pairs are numbers of different joints, 0 … {len(self.joints) - 1}")
        return self


Description = Annotated[Classification | Segmentation | Detection | Pose, Field(discriminator="task")]
_ADAPTER: TypeAdapter[Classification | Segmentation | Detection | Pose] = TypeAdapter(Description)


def to_json(description: Description) -> str:
    """The text for the metadata."""
    return _ADAPTER.dump_json(description).decode()


def parse(text: str) -> Description:
    """The description in the metadata's text. Raises UserError for anything that is not one."""
    if len(text) > LONGEST:
        raise UserError(f"'{KEY}' of this model has {len(text):,} characters; a description has at most {LONGEST:,}")
    try:
        return _ADAPTER.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
        said = first["msg"].removeprefix("Value error, ")
        raise UserError(f"'{KEY}' of this model does not describe a task: {f'{place}: ' if place else ''}{said}{more}") from error


def of(metadata: Mapping[str, str]) -> Description:
    """The description of a model with this metadata. Raises UserError where it has none."""
    if KEY not in metadata:
        raise UserError(f"this model does not say what it is for (no '{KEY}' in its metadata); give it a head with 'fnatool head'")
    return parse(metadata[KEY])
