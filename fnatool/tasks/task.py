"""What a task is made of. Nothing here loads torch or Pillow: what needs them does so when it is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from fnatool.data.placement import Size
from fnatool.data.split import Split
from fnatool.tasks.description import Description

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from fnatool.data.fashion.writing import SceneKind
    from fnatool.data.placement import Placement
    from fnatool.tasks.parts import Parts
    from passes.deploy.postprocessing import End
    from passes.deploy.preprocessing import Framing

Defaults = Mapping[str, Any]  # key or section of a config → value, or Defaults
Sample = dict[str, "torch.Tensor"]


@dataclass(frozen=True)
class Output:
    """An output of a model for one image: its extents (None: any), and the axis behind the batch over which a softmax
    makes it shares.

    Axes count from the batch, which is 0. logits: shares are made of it, so it may hold none yet.
    """

    shape: tuple[int | None, ...]
    softmax: int | None = None
    logits: bool = False


@dataclass(frozen=True)
class Augment:
    """How much training images are changed.

    scale: for classification the share of the area that is cut out (its aspect changes too); else a factor on the size
    that the image has in evaluation. flip: the chance of a mirrored image. colour: by how much brightness, contrast and
    saturation change, as a share. rotate: degrees to either side; pose only.
    """

    scale: tuple[float, float] = (1.0, 1.0)
    flip: float = 0.5
    colour: float = 0.2
    rotate: float = 0.0


PLAIN = Augment(flip=0, colour=0)

ADAMW: Defaults = {"name": "adamw", "lr": 1e-3, "weight_decay": 1e-2}
"""On small data sets a fresh head learns far sooner by it (fashion-scenes segmentation, 300 steps: mIoU 0.16, by SGD
0.09 at most).
"""


@dataclass(frozen=True)
class SampleOptions:
    """How training samples are made: their size, the size that evaluation fits an image into, and how much they are
    changed.
    """

    size: Size
    full: Size
    augment: Augment


@dataclass(frozen=True)
class Task:
    """A task, as everything that works on any task reads it.

    The functions take the task's own kinds of item, prediction, truth and description, which nobody else looks into:

    * describe(input, classes=, joints=, boxes=): the description of a model whose head was made for these
    * outputs: name of a graph's output → (description → its Output); a head suits the task if it has outputs of these
      names
    * sample(split, item, description, sampling): a training sample, by torch's global generator; batch(samples):
      several, as tensors
    * show(image, description, size, item): what a model is shown of an image uint8 [3, h, w], and where the image lies
      in it; without an item it is the whole image. truth(split, item): what `compare` gets
    * loss(outputs, batch, description): what training lowers
    * decode(placement, outputs, description, size): the answer for one image, whose outputs are a tuple in the order of
      `outputs`
    * compare(prediction, truth, description): what an image says about the model, small enough to be sent around;
      score(all of that, description): the figures. The first of `metrics` tells the best model (more is better);
      figures of single classes have a / in their names
    * right(truth, description): the prediction that an image's truth would be
    * frame(description): what `show` shows, in words; finish(steps, outputs, description, shapes, ending): what
      `decode` does, as the end of a graph whose outputs have these names and shapes; answered(outputs, description,
      image): the answer for the one image, of that size, from the outputs of such a graph
    * apart(prediction, other): the share of an answer that another one does not give, from 0 to 1
    * draw(image, prediction, description): the PIL image with the answer on it, a new one, enlarged where it is too
      small for words
    * mark(image, truth, description): the same with what is labelled
    * say(prediction, description): the answer for programs, as JSON has it
    """

    name: str
    describe: Callable[..., Description]
    description: type[Description]
    outputs: Mapping[str, Callable[[Any], Output]]
    head: str  # the style of head, unless another one is asked for

    sample: Callable[[Split, Any, Any, SampleOptions], Sample]
    batch: Callable[..., dict[str, torch.Tensor]]
    show: Callable[..., tuple[torch.Tensor, Placement]]
    truth: Callable[[Split, Any], Any]

    loss: Callable[..., Parts]
    decode: Callable[..., Any]
    compare: Callable[..., Any]
    score: Callable[..., dict[str, float]]
    metrics: Mapping[str, str]  # name → what it is
    each: str  # the figure that every class, or joint, has too, as NAME/CLASS
    right: Callable[[Any, Any], Any]
    frame: Callable[[Any], Framing]
    finish: Callable[..., list[End]]
    answered: Callable[..., Any]
    apart: Callable[[Any, Any], float]
    draw: Callable[[Image.Image, Any, Any], Image.Image]
    mark: Callable[[Image.Image, Any, Any], Image.Image]
    say: Callable[[Any, Any], dict[str, object]]

    augment: Augment
    scenes: Callable[[], SceneKind]  # how the embedded data is labelled for it
    labels: Literal["classes", "joints"] = "classes"  # what its head has an answer for
    small_batch: int = 0  # samples a process: with fewer BatchNorm keeps its statistics, unless a config says otherwise
    # where the config of `finetune` has other defaults than the general ones
    tuning: Defaults = field(default_factory=dict)
    searching: Defaults = field(default_factory=dict)  # the same of `search`
    thresholds: Mapping[str, float] = field(default_factory=dict)  # by which answers are chosen in a deployed graph
    published: Defaults = field(default_factory=dict)  # and of `search` with the relaxation `paths`: as FNA++ did it

    @property
    def metric(self) -> str:
        """The figure that tells the best model."""
        return next(iter(self.metrics))

    def of_labels(self, figures: Mapping[str, float], labels: Sequence[str]) -> dict[str, float | None]:
        """The figure of each class, or joint, by NAME/CLASS; None: the data have no truth of it, so that it counts for
        nothing.
        """
        return {name: figures.get(name) for name in (f"{self.each}/{label}" for label in labels)}

    def labels_of(self, split: Split) -> tuple[str, ...]:
        """The names of what a head for this data has an answer for."""
        return split.joints if self.labels == "joints" else split.classes
