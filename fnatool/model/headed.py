"""A model with a head for a task: convert, attach, verify, check; and how the result is written."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from fnatool.data.options import USUAL, DataOptions
from fnatool.data.pixels import Pixels
from fnatool.files import model as files
from fnatool.files.interface import TASK_KEY, Inputs, named_shapes, shape_json
from fnatool.model import pixels, upgrading
from fnatool.model.analysed import STAGES_KEY, analyse_model, metadata
from fnatool.model.names import class_names, joints_of
from fnatool.model.pixels import PixelOptions
from fnatool.model.sound import require_sound
from fnatool.model.verified import in_child
from fnatool.tasks import description, joints, reading
from fnatool.tasks.description import Description
from fnatool.tasks.joints import Joints
from fnatool.tasks.table import TASKS, require_task
from passes.batch.freeing import freed
from passes.errors import RefusedModel, UserError
from passes.graph.shapes import guessing
from passes.heads import STYLES, Attached, HeadImage, HeadSpec, attach, default_taps, image_of
from passes.heads.inheriting import Keep, OwnHead
from passes.heads.writer import OLDEST_OPSET
from passes.network.analyse import analyse
from passes.network.analysis import Analysis


@dataclass(frozen=True, kw_only=True)
class HeadOptions:
    """The head asked for, in the user's words: `classes` a number or a file of names, `joints` a number, 'coco' or a
    JSON file; or names.

    data: a folder of data, whose classes or joints they are instead; reading: how its labels are read. keep_rows: rows
    of the seed's own head that become the first classes, or 'all'.

    mean and scale: per colour, or one for all; an input value is (pixel − mean) / scale. channels: RGB or BGR, the
    order of the colours. None: as the seed is known to be. `seed` is for the weights of the head. `verify` compares the
    taps with the seed's and checks the result; `force` lets it replace another file (never the model).
    """

    task: str
    style: str | None = None
    classes: str | int | tuple[str, ...] | None = None
    joints: str | int | tuple[str, ...] | None = None
    data: Path | None = None
    reading: DataOptions = USUAL
    taps: tuple[str, ...] = ()
    width: int | None = None
    levels: int | None = None
    keep_rows: Keep = ()
    mean: tuple[float, ...] | None = None
    scale: tuple[float, ...] | None = None
    seed: int = 0
    inputs: Inputs = None
    verify: bool = True
    channels: str | None = None
    force: bool = False


@dataclass(frozen=True)
class Headed:
    """A model with its head: what was attached, what it is for, the seed, both analyses, and how its pixels are
    scaled.
    """

    model: files.Model
    made: Attached
    description: Description
    seed: files.Model
    before: Analysis
    after: Analysis
    pixels: Pixels
    verified: bool

    def to_json(self) -> dict[str, object]:
        """What was attached and what it costs, for programs."""
        before, after = self.before.cost, self.after.cost
        kept, whole = self.made.kept
        return {
            "seed": f"sha256:{self.seed.sha256}",
            "taps": [{"name": tap.name, "tensor": tap.tensor, "channels": tap.channels} for tap in self.made.taps],
            "kept": {"parameters": kept, "of": whole},
            "inherits": self.made.inherits,
            "outputs": [{"name": tensor.name, "shape": shape_json(tensor.shape)} for tensor in self.made.graph.outputs],
            "description": json.loads(description.to_json(self.description)),
            "pixels": self.pixels.to_json(),
            "parameters": {"before": before.params, "after": after.params},
            "macs": {"before": before.macs, "after": after.macs},
            "notes": list(self.seed.notes),
            "verified": self.verified,
        }

    def write(self, path: Path | str, *, force: bool = False) -> None:
        """The result as a file, atomically."""
        files.write(self.model, path, force=force)

    def described(self, about: Description) -> Headed:
        """The same with another description: other names, say."""
        model = files.with_metadata(self.model, {TASK_KEY: description.to_json(about)})
        return replace(self, model=model, description=about)


def attach_to_model(model: files.Model, options: HeadOptions, *, analysis: Analysis | None = None) -> Headed:
    """The model with the head; sizes that its free batch is written into follow the batch (see `passes.batch.freeing`).

    analysis: of the model at these inputs, if there is one. Unless told otherwise, what is returned has been compared
    with the seed and checked. Raises UserError for a head that cannot be, RefusedModel for a model that cannot take one
    or a result that is not sound.
    """
    classes, named, head = wanted(options)
    head = replace(head, own=own_head(model))
    sizes = named_shapes(options.inputs, [tensor.name for tensor in model.graph.inputs]) or None
    given, model = model, upgrading.at_least(model, OLDEST_OPSET, "a head")
    model = replace(model, graph=freed(model.graph))
    before = analysis if analysis is not None and model.graph is given.graph else analyse_model(model, sizes)
    image = image_of(before)
    asked = PixelOptions(options.mean, options.scale, options.channels)
    how = pixels.pixels_of(model, before.view, pixels.seen_as(before.view, image.name, image.channels), asked)
    seen = input_of(image, how)
    made = attach(model.graph, before, head, rng=np.random.default_rng(options.seed))
    model = model if made.base is model.graph else replace(model, graph=made.base)
    about = TASKS[options.task].describe(seen, classes=classes, joints=named, boxes=made.detection)
    notes = {
        STAGES_KEY: json.dumps(made.table),
        TASK_KEY: description.to_json(about),
        HEAD_KEY: json.dumps(asdict(made.own)),
    }
    if how.guessed or pixels.GUESS_KEY in metadata(model.envelope):
        notes[pixels.GUESS_KEY] = pixels.GUESS if how.guessed else pixels.KNOWN
    target = files.with_metadata(replace(model, graph=made.graph, notes=()), notes)
    after = analyse(made.normal, sizes=sizes, table=made.table)
    headed = Headed(
        model=target,
        made=made,
        description=about,
        seed=model,
        before=before,
        after=after,
        pixels=how,
        verified=options.verify,
    )
    if options.verify:
        upgrading.require_same(given, model, before)
        require_same(headed)
        require_sound(target, model, sizes)
    return headed


def wanted(options: HeadOptions) -> tuple[tuple[str, ...], Joints | None, HeadSpec]:
    """Class names, joints, and the head that they ask for. Raises UserError where the options contradict each other or
    the task.
    """
    require_task(options.task)
    task = TASKS[options.task]
    style = options.style or task.head
    fitting = [name for name, known in STYLES.items() if known.outputs.keys() == task.outputs.keys()]
    if style not in fitting:
        raise UserError(f"'{style}' is no style of {options.task}; there is {' and '.join(map(repr, fitting))}")
    build = partial(
        HeadSpec, style, taps=options.taps, width=options.width, levels=options.levels, keep=options.keep_rows
    )
    if task.labels == "joints":
        if options.joints is None:
            raise UserError("say which joints a pose has with --joints: a number, 'coco', or a JSON file")
        own = _joints(options.joints)
        return _classes(options.classes) if options.classes else ("object",), own, build(len(own.names))
    if options.joints is not None:
        raise UserError(f"--joints is for poses, not for {options.task}")
    if options.classes is None:
        raise UserError(
            f"say how many classes {options.task} has with --classes: a number, or a file with a name on every line"
        )
    classes = _classes(options.classes)
    return classes, None, build(len(classes))


def _classes(said: str | int | tuple[str, ...]) -> tuple[str, ...]:
    return said if isinstance(said, tuple) else class_names(str(said))


def _joints(said: str | int | tuple[str, ...]) -> Joints:
    if not isinstance(said, tuple):
        return joints_of(str(said))
    return Joints(said, joints.sigmas(said), joints.pairs(said))


def named_by_data(options: HeadOptions) -> HeadOptions:
    """The options with the classes or joints of the data, where it is to name them. Raises UserError where it is
    none.
    """
    if options.data is None:
        return options
    require_task(options.task)
    task = TASKS[options.task]
    if options.classes is not None or options.joints is not None:
        raise UserError(f"--data names the {task.labels} of the head, so leave --classes and --joints out")
    found = reading.read(options.data, task=options.task, options=options.reading)
    labels = task.labels_of(found)
    return replace(options, joints=labels) if task.labels == "joints" else replace(options, classes=labels)


HEAD_KEY = "fnatool.head"  # in the metadata of a model: the head that it was given


def own_head(model: files.Model) -> OwnHead | None:
    """The head that the model was given, as its metadata say; None where they say nothing that makes sense."""
    try:
        found = json.loads(metadata(model.envelope).get(HEAD_KEY, "null"))
        return _OWN_HEAD.validate_python({**found, "taps": tuple(found["taps"])})
    except (ValueError, RecursionError, TypeError, KeyError):
        return None


_OWN_HEAD: TypeAdapter[OwnHead] = TypeAdapter(OwnHead)


def own_taps(analysis: Analysis, options: HeadOptions) -> tuple[str, ...]:
    """The names of what the head asked for taps when nobody says; none for what the seed's own classifier reads. Raises
    UserError.
    """
    return default_taps(analysis, wanted(options)[2])


# --- what the model is for ----------------------------------------------------------------------


def input_of(image: HeadImage, how: Pixels) -> description.Input:
    """The image as a description says it. Raises UserError for one larger than a task's can be."""
    if max(image.size) > description.LARGEST:
        height, width = image.size
        raise UserError(
            f"the input '{image.name}' takes images of {height:,}×{width:,}; a task has images of at most "
            f"{description.LARGEST:,} a side"
        )
    return description.Input.model_validate(
        {"layout": image.layout, "channels": how.channels, "mean": how.mean, "scale": how.scale, "size": image.size}
    )


# --- verification -------------------------------------------------------------------------------


def require_same(headed: Headed) -> None:
    """What the head taps has the seed's bits in ONNX Runtime, and the head runs. Raises RefusedModel otherwise."""
    found = in_child(_moved, headed)
    if found:
        raise RefusedModel(
            f"'{found[0]}', which the head taps, is not what it is in the seed; nothing was written. Please report it"
        )


def _moved(headed: Headed) -> list[str]:
    from fnatool.runtime.verify import moved, noise

    with guessing(headed.before.shapes):
        return moved(
            headed.seed.graph, headed.model.graph, noise(headed.before, 0), [tap.tensor for tap in headed.made.taps]
        )
