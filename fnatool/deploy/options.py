"""What is asked of a deployment, and the names of what there is to ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fnatool.data.options import USUAL, DataOptions
from fnatool.data.placement import Size
from fnatool.deploy.document import Batch, parsed_batch
from fnatool.files.interface import Inputs
from fnatool.model.targets import ONNXRUNTIME, TARGETS
from fnatool.runtime import engine
from passes.check.engine import RTX
from passes.errors import UserError

FP32, FP16, INT8 = "fp32", "fp16", "int8"
PRECISIONS = (FP32, FP16, INT8)
LAYOUTS = ("NHWC", "NCHW")
EXACT = 0.002  # which share of an answer (see `Task.apart`) may be another
ROUNDED: Mapping[str, float] = {FP32: 0.02, FP16: 0.02, INT8: 0.05}
"""The same by precision, where pixels or values are rounded; of outputs without a task which share of their spread."""
MOST_LOST: Mapping[str, float] = {FP16: 0.005, INT8: 0.01}
"""Of the task's first figure, by rounding."""
FEWEST_SAMPLES = 8  # that int8 is made of


@dataclass(frozen=True, kw_only=True)
class DeployOptions:
    """What it is to run on (see TARGETS), its precision, and for what.

    batch: a number, or 1:8:32; None: as the file says, one where it leaves that open. size: of the network's input,
    where the file leaves it open. image_size: of the images, where they all have one; layout: of the images.
    preprocessing and postprocessing: whether they go into the graph of a model with a task. data: a data set of the
    task, whose figures before and after are told; reading: how its labels are read. tolerance: how much of an answer
    may be another, or with data, in fp16 and int8, how much of the first figure may be lost; None: by the precision.
    inputs: shapes for free sizes of a model without a task. verify: whether the answers are compared.

    For int8, images: a folder of pictures (or, without a task, of arrays) that values are looked at on, None: those of
    the training data; samples: how many of them, drawn by seed; reduce_range: whether weights take 7 bits, so that sums
    of processors without instructions for int8 cannot overflow; None: on such a processor where the answers are too far
    apart otherwise.
    """

    target: str = ONNXRUNTIME
    precision: str = FP32
    batch: str | None = None
    size: Size | None = None
    image_size: Size | None = None
    layout: str = "NHWC"
    preprocessing: bool = True
    postprocessing: bool = True
    data: Path | None = None
    reading: DataOptions = USUAL
    images: Path | None = None
    samples: int = 128
    seed: int = 0
    reduce_range: bool | None = None
    tolerance: float | None = None
    inputs: Inputs = None
    verify: bool = True
    force: bool = False

    @property
    def answers_apart(self) -> float:
        """How much of an answer may be another."""
        exact = self.precision == FP32 and self.target == ONNXRUNTIME
        return self.tolerance if self.tolerance is not None else EXACT if exact else ROUNDED[self.precision]

    @property
    def outputs_apart(self) -> float:
        """How much of the spread of an output: inner values are the strict proof, and outputs may be unsteady."""
        return self.tolerance if self.tolerance is not None else ROUNDED[self.precision]

    @property
    def most_lost(self) -> float | None:
        """How much of the task's first figure may be lost; None: answers are compared, not figures."""
        if self.data is None or self.precision == FP32:
            return None
        return self.tolerance if self.tolerance is not None else MOST_LOST[self.precision]


def checked(options: DeployOptions) -> Batch | None:
    """The batch asked for. Raises UserError for an option that cannot be."""
    for word, value, known in (
        ("target", options.target, TARGETS),
        ("precision", options.precision, PRECISIONS),
        ("layout", options.layout, LAYOUTS),
    ):
        if value not in known:
            raise UserError(f"'{value}' is no {word}; there are {', '.join(known)}")
    if options.target == RTX:
        engine.require_installed()
    if options.precision != INT8 and (options.images is not None or options.reduce_range is not None):
        raise UserError("--images and --reduce-range are for --precision int8, which is made by looking at values")
    if options.precision == INT8:
        _require_samples(options)
    return None if options.batch is None else parsed_batch(options.batch)


def _require_samples(options: DeployOptions) -> None:
    if options.images is None and options.data is None:
        raise UserError(
            "int8 is made by looking at values: give pictures with --images DIR, or labelled ones with --data DIR"
        )
    if options.samples < FEWEST_SAMPLES:
        raise UserError(f"int8 is made of at least {FEWEST_SAMPLES} samples, and not of {options.samples}")
    if options.reduce_range and options.target != ONNXRUNTIME:
        raise UserError("--reduce-range is for processors without instructions for int8, and not for engines")
