"""A head on a model file: read, convert, attach, verify, check, write. The order of `fnatool head`, and the Python API of these words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from fnatool import seeds
from fnatool.data.pixels import Pixels
from fnatool.files import model as files
from fnatool.files.atomic import require_writable, temporary
from fnatool.model import check as checking
from fnatool.model import pixels, upgrading
from fnatool.model.analysed import STAGES_KEY, analyse_model, metadata
from fnatool.model.names import class_names, joints_of
from fnatool.model.pixels import PixelOptions
from fnatool.model.verified import VERIFY_SECONDS
from fnatool.runtime import isolate
from fnatool.tasks import description
from fnatool.tasks.description import Description
from fnatool.tasks.joints import Joints
from fnatool.tasks.table import TASKS, require_task
from passes.check.finding import errors
from passes.errors import RefusedModel, UserError
from passes.graph.freeing import freed
from passes.graph.shapes import guessing
from passes.graph.tensors import Shape
from passes.heads import STYLES, Attached, HeadImage, HeadSpec, attach, default_taps, image_of
from passes.heads.writer import OLDEST_OPSET
from passes.network.analyse import analyse
from passes.network.analysis import Analysis


@dataclass(frozen=True)
class HeadOptions:
    """The head asked for, in the user's words: `classes` is a number or a file of names, `joints` a number, 'coco' or a JSON file.

    mean and scale: per colour, or one for all; an input value is (pixel − mean) / scale. channels: RGB or BGR, the order of the colours.
    None: as the seed is known to be. `verify` compares the taps with the seed's and checks the result.
    """

    task: str
    style: str | None = None
    classes: str | None = None
    joints: str | None = None
    taps: tuple[str, ...] = ()
    width: int | None = None
    levels: int | None = None
    keep_rows: tuple[int, ...] = ()
    mean: tuple[float, ...] | None = None
    scale: tuple[float, ...] | None = None
    seed: int = 0
    inputs: Mapping[str, Shape] | None = None
    verify: bool = True
    channels: str | None = None


@dataclass(frozen=True)
class Headed:
    """A model with its head: what was attached, what it is for, the seed, both analyses, and how its pixels are scaled."""

    model: files.Model
    made: Attached
    description: Description
    seed: files.Model
    before: Analysis
    after: Analysis
    pixels: Pixels
    verified: bool

    def write(self, path: Path | str, *, force: bool = False) -> None:
        """The result as a file, atomically."""
        notes = {STAGES_KEY: json.dumps(self.made.table), description.KEY: description.to_json(self.description)}
        if self.pixels.guessed or pixels.GUESS_KEY in metadata(self.seed.envelope):
            notes[pixels.GUESS_KEY] = pixels.GUESS if self.pixels.guessed else pixels.KNOWN
        files.write(self.model, path, force=force, metadata=notes)


def attach_head(seed: Path | str, options: HeadOptions, out: Path | str | None = None) -> Headed:
    """The seed with the head, its weights fresh; written to `out` if given (never over an existing file).

    Raises UserError for a head that cannot be, RefusedModel for a model that cannot take one or a result that is not sound.
    """
    model = files.read(seeds.bundled(str(seed)) or seed if not Path(seed).exists() else seed, options.inputs)
    if out is not None:
        require_writable(Path(out), force=False, forbid=(model.path, *model.data))
    made = attach_to_model(model, options)
    if out is not None:
        made.write(out)
    return made


def attach_to_model(model: files.Model, options: HeadOptions) -> Headed:
    """The same on a model already read; sizes that its free batch is written into follow the batch (see `passes.freeing`).

    Unless told otherwise, what is returned has been compared with the seed and checked.
    """
    classes, joints, head = wanted(options)
    given, model = model, upgrading.at_least(model, OLDEST_OPSET, "a head")
    model = replace(model, graph=freed(model.graph))
    before = analyse_model(model, options.inputs)
    image = image_of(before)
    asked = PixelOptions(options.mean, options.scale, options.channels)
    how = pixels.pixels_of(model, before.view, pixels.seen_as(before.view, image.name, image.channels), asked)
    seen = _input(image, how)
    made = attach(model.graph, before, head, rng=np.random.default_rng(options.seed))
    about = TASKS[options.task].describe(seen, classes=classes, joints=joints, boxes=made.detection)
    target = replace(model, graph=made.graph, notes=())
    after = analyse(made.graph, sizes=options.inputs, table=made.table)
    headed = Headed(target, made, about, model, before, after, how, options.verify)
    if options.verify:
        upgrading.require_same(given, model, before)
        require_same(headed)
        require_sound(headed, options.inputs)
    return headed


def wanted(options: HeadOptions) -> tuple[tuple[str, ...], Joints | None, HeadSpec]:
    """Class names, joints, and the head that they ask for. Raises UserError where the options contradict each other or the task."""
    require_task(options.task)
    task = TASKS[options.task]
    style = options.style or task.head
    fitting = [name for name, known in STYLES.items() if known.outputs.keys() == task.outputs.keys()]
    if style not in fitting:
        raise UserError(f"'{style}' is no style of {options.task}; there is {' and '.join(map(repr, fitting))}")
    build = partial(HeadSpec, style, taps=options.taps, width=options.width, levels=options.levels, keep=options.keep_rows)
    if task.labels == "joints":
        if options.joints is None:
            raise UserError("say which joints a pose has with --joints: a number, 'coco', or a JSON file")
        joints = joints_of(options.joints)
        return class_names(options.classes) if options.classes else ("object",), joints, build(len(joints.names))
    if options.joints is not None:
        raise UserError(f"--joints is for poses, not for {options.task}")
    if options.classes is None:
        raise UserError(f"say how many classes {options.task} has with --classes: a number, or a file with a name on every line")
    classes = class_names(options.classes)
    return classes, None, build(len(classes))


def own_taps(analysis: Analysis, options: HeadOptions) -> tuple[str, ...]:
    """The names of what the head asked for taps when nobody says; none for what the seed's own classifier reads. Raises UserError."""
    return default_taps(analysis, wanted(options)[2])


# --- what the model is for ---------------------------------------------------------------------------------------------------------------


def _input(image: HeadImage, how: Pixels) -> description.Input:
    """Raises UserError for an image larger than a task's can be."""
    if max(image.size) > description.LARGEST:
        height, width = image.size
        raise UserError(
            f"the input '{image.name}' takes images of {height:,}×{width:,}; a task has images of at most {description.LARGEST:,} a side"
        )
    return description.Input.model_validate(
        {"layout": image.layout, "channels": how.channels, "mean": how.mean, "scale": how.scale, "size": image.size}
    )


# --- verification -----------------------------------------------------------------------------------------------------------------------


def require_same(headed: Headed) -> None:
    """What the head taps has the seed's bits in ONNX Runtime, and the head runs. Raises RefusedModel otherwise."""
    try:
        found = isolate.run(_moved, headed, seconds=VERIFY_SECONDS, memory=16 * isolate.GIB)
    except isolate.Died as error:
        raise RefusedModel(f"verification in ONNX Runtime died: {error}; --no-verify writes the result without it") from error
    if found:
        raise RefusedModel(f"'{found[0]}', which the head taps, is not what it is in the seed; nothing was written. Please report it")


def _moved(headed: Headed) -> list[str]:
    from fnatool.runtime.verify import moved, noise

    with guessing(headed.before.shapes):
        return moved(headed.seed.graph, headed.model.graph, noise(headed.before, 0), [tap.tensor for tap in headed.made.taps])


def require_sound(headed: Headed, inputs: Mapping[str, Shape] | None) -> None:
    """The file that will be written passes `fnatool check`. Raises RefusedModel with the first finding otherwise."""
    with temporary() as folder:
        path = folder / "model.onnx"
        headed.write(path)
        report = checking.check_file(path, checking.Demands(inputs=dict(inputs or {})))
    found = errors(report.findings)
    if found:
        message = found[0].message.replace(str(path), "the result")
        raise RefusedModel(f"the result would be broken: {found[0].where}: {message}; nothing was written. Please report it")


# --- words ------------------------------------------------------------------------------------------------------------------------------


def show(headed: Headed, where: str) -> None:
    """What was attached where, what it costs, and what was verified."""
    from fnatool import terminal

    console = terminal.console()
    made, before, after = headed.made, headed.before.cost, headed.after.cost
    for note in headed.seed.notes:
        if note.startswith(upgrading.CONVERTED):
            console.print(f"note: {note}", markup=False)
    for tap in made.taps:
        stride = f", stride {'×'.join(dict.fromkeys(f'{float(step):g}' for step in tap.stride))}" if tap.space != (1, 1) else ""
        console.print(f"  taps {tap.name}: {tap.channels} channels{stride}")
    left, whole = made.kept
    console.print(f"  keeps {left:,} of the seed's {whole:,} parameters ({left / max(whole, 1):.1%})")
    for tensor in made.graph.outputs:
        console.print(f"  gives {tensor.name} [{', '.join(str(extent) for extent in tensor.shape)}]", markup=False)
    if made.detection is not None:
        levels = [f"{'×'.join(dict.fromkeys(map(str, level.stride)))} ({len(level.anchors)})" for level in made.detection.levels]
        console.print(f"  levels at stride (anchors): {', '.join(levels)}")
    console.print(f"  {headed.pixels.sentence()}", markup=False)
    if headed.pixels.guessed:
        console.print(f"warning: {pixels.WARNING}")
    console.print(f"parameters {before.params:,} → {after.params:,}")
    if before.macs is not None and after.macs is not None:
        console.print(f"MAdds {before.macs:,} → {after.macs:,}")
    verdict = "what it taps is the seed's, bit for bit, in ONNX Runtime; the result runs and passes 'fnatool check'"
    console.print(verdict if headed.verified else "not verified")
    console.print(f"→ {where}")
