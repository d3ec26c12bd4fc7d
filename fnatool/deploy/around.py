"""What goes around a network that is deployed, and the whole as a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from fnatool.deploy.document import MODEL
from fnatool.deploy.network import Core
from fnatool.deploy.options import DeployOptions
from fnatool.files import model as files
from fnatool.files.interface import TASK_KEY
from fnatool.model.analysed import STAGES_KEY
from fnatool.model.targets import ONNXRUNTIME
from fnatool.tasks.description import Description
from fnatool.tasks.table import TASKS
from passes.deploy.assemble import Finish, Front, assembled
from passes.deploy.postprocessing import End, Ending
from passes.deploy.preprocessing import Taking
from passes.deploy.steps import Steps
from passes.errors import RefusedModel, UserError
from passes.graph.normalise import normalise

MOST_REDUCTION = 32  # of the part around a box, for engines


@dataclass(frozen=True)
class Around:
    """What goes before a network and behind it; None: nothing."""

    front: Front | None
    finish: Finish | None


def around(made: Core, options: DeployOptions) -> Around:
    """What is asked to go around a network. Raises UserError for what there is nothing of."""
    front = _front(made, made.described, options)
    if front is not None and front.framing.kind == "around" and made.axis != 1:
        raise UserError(
            f"{made.described.task if made.described else ''} is answered for a box of an image, so its "
            "pre-processing takes one image at "
            "a time; leave out --batch, or add --no-preprocessing"
        )
    return Around(front, _finish(made, made.described, options))


def _front(made: Core, described: Description | None, options: DeployOptions) -> Front | None:
    if described is None or not options.preprocessing:
        if options.image_size is not None or options.layout != "NHWC":
            raise UserError("--image-size and --layout are of the images that pre-processing takes, and there is none")
        return None
    like = described.input
    (tensor,) = (tensor for tensor in made.model.graph.inputs if tensor.name in made.shapes)
    taking = Taking(made.size or (0, 0), like.layout, like.channels, like.mean, like.scale, np.dtype(tensor.dtype))
    framing = TASKS[described.task].frame(described)
    if options.target != ONNXRUNTIME:
        framing = replace(framing, most=MOST_REDUCTION if framing.kind == "around" else None, cut=False)
    return Front(framing, taking, options.layout, options.image_size)


def is_exact(options: DeployOptions, front: Front | None) -> bool:
    """Whether places are computed as evaluation does: engines have no float64, but of images of one size all is known
    beforehand.
    """
    known = options.image_size is not None and front is not None and front.framing.kind != "around"
    return options.target == ONNXRUNTIME or known


def _finish(made: Core, described: Description | None, options: DeployOptions) -> Finish | None:
    if described is None or not options.postprocessing:
        return None
    return partial(_written, made, described)


def _written(made: Core, described: Description, steps: Steps, outputs: Mapping[str, str], ending: Ending) -> list[End]:
    task = TASKS[described.task]
    missing = [name for name in task.outputs if name not in outputs]
    if missing:
        raise RefusedModel(
            f"the model has no output '{missing[0]}', which {described.task} needs; it has {', '.join(outputs)}"
        )
    return task.finish(steps, outputs, described, made.shapes, ending)


def write_whole(place: Path, made: Core, core: files.Model, parts: Around, *, options: DeployOptions) -> None:
    """The model in the folder: the network `core`, which is that of `made` or one with narrower numbers, with its parts
    around it.
    """
    graph, (front, finish) = core.graph, (parts.front, parts.finish)
    if front is not None or finish is not None:
        real = np.float64 if is_exact(options, front) else np.float32
        size, engines = made.size or (0, 0), options.target != ONNXRUNTIME
        graph = assembled(graph, batch=made.axis, size=size, front=front, finish=finish, engine=engines, real=real)
        if options.image_size is not None and isinstance(made.axis, int):
            graph = normalise(graph).graph  # what follows from the size of the image is a number
    without = made.described is not None and (front is not None or finish is not None)
    files.write(
        replace(_enveloped(replace(core, graph=graph), without=without), path=place / "none"), place / MODEL, force=True
    )


def _enveloped(model: files.Model, *, without: bool) -> files.Model:
    """The model without what its metadata say no more of: stages, and where the graph does it itself, how outputs are
    read.
    """
    envelope = onnx.ModelProto()
    envelope.CopyFrom(model.envelope)
    gone = {STAGES_KEY, *((TASK_KEY,) if without else ())}
    kept = [entry for entry in model.envelope.metadata_props if entry.key not in gone]
    del envelope.metadata_props[:]
    envelope.metadata_props.extend(kept)
    return replace(model, envelope=envelope)
