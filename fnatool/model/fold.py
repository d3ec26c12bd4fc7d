"""BatchNorm out of a file and back into it: read, fold or unfold, verify, write. The order of `fnatool fold` and `fnatool unfold`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_graphsurgeon as gs

from fnatool import seeds, terminal
from fnatool.data.pixels import Values
from fnatool.files import model as files
from fnatool.files.atomic import require_writable
from fnatool.model import calibration, pixels
from fnatool.model.analysed import STAGES_KEY, analyse_model
from fnatool.model.calibration import NetworkInput, Preparation
from fnatool.model.pixels import PixelOptions
from fnatool.model.remap import copy
from fnatool.model.verified import Verified, _verified
from fnatool.runtime import isolate
from passes.batchnorm import fold as batchnorm
from passes.batchnorm.fold import Left
from passes.batchnorm.unfold import Moments, places
from passes.batchnorm.unfold import unfold as put_in
from passes.errors import RefusedModel, UserError
from passes.graph.shapes import guessing
from passes.graph.tensors import Shape, printed
from passes.network.analyse import analyse
from passes.network.analysis import Analysis
from passes.network.stages import stage_table
from passes.target.resolve import own_spec


def show_folding(made: BatchNormResult, words: tuple[str, str], where: str) -> None:
    """How many BatchNorms went or came (words: folded into, or put behind), what is left and why, and what verification found."""
    console = terminal.console()
    for note in made.notes:
        console.print(f"note: {note}")
    reasons: dict[str, list[str]] = {}
    for left in made.left:
        reasons.setdefault(left.why, []).append(left.node)
    for why, nodes in reasons.items():
        more = f", {nodes[1]} and {len(nodes) - 2} more" if len(nodes) > 2 else f" and {nodes[1]}" if len(nodes) > 1 else ""
        console.print(f"  left: {nodes[0] + more}: {why}")
    if not made.changed:
        console.print(f"nothing changes: the result is the model, byte for byte ({where})")
        return
    norm, conv = made.changed[0]
    console.print(f"{len(made.changed)} BatchNorms {words[0]}: {norm} {words[1]} {conv}" + (" …" if len(made.changed) > 1 else ""))
    verified = made.verified
    if verified is None:
        console.print("not verified")
    else:
        console.print(f"exact: {verified.compared} inner tensors compared in ONNX Runtime, worst drift {verified.worst:.1e} of the spread")
    console.print(f"→ {where}")


RANDOM = "random"
MEASURE_SECONDS = 3600
NOISE_NOTE = (
    "the statistics are those of noise: the function is unchanged, but training will not start from your data's; --data FOLDER does"
)


@dataclass(frozen=True)
class BatchNormResult:
    """A model whose BatchNorms were folded or put back: (BatchNorm, convolution) for each, what is left and why, and what was verified.

    `verified` is None where it was not asked for or nothing changed.
    """

    model: files.Model
    seed: files.Model
    changed: tuple[tuple[str, str], ...]
    left: tuple[Left, ...]
    notes: tuple[str, ...]
    table: list[list[dict[str, str]]]
    verified: Verified | None

    def write(self, path: Path | str, *, force: bool = False) -> None:
        """The result as a file, atomically; the model itself, byte for byte, where nothing changes."""
        if not self.changed:
            copy(self.seed, Path(path), force=force)
            return
        files.write(self.model, path, force=force, metadata={STAGES_KEY: json.dumps(self.table)})


@dataclass(frozen=True)
class StatisticsOptions:
    """What statistics are collected on: a folder of images or the word random, how many, and how a pixel becomes an input value.

    mean and scale are per channel, (pixel − mean) / scale with pixels from 0 to 255, channels RGB or BGR; None: as the model is known to
    want them (see `fnatool.pixels`).
    """

    source: Path | str
    images: int = 256
    seed: int = 0
    mean: Sequence[float] | None = None
    scale: Sequence[float] | None = None
    channels: str | None = None


def fold(
    model: Path | str, out: Path | str | None = None, *, verify: bool = True, inputs: Mapping[str, Shape] | None = None
) -> BatchNormResult:
    """The model with every BatchNorm that can be in the convolution beside it; written to `out` if given (never over an existing file).

    Raises UserError for a wrong path, RefusedModel for a model that cannot be read or a result that fails verification.
    """
    read = _read(model, out, inputs)
    made = fold_model(read, verify=verify, inputs=inputs)
    if out is not None:
        made.write(out)
    return made


def unfold(
    model: Path | str,
    out: Path | str | None = None,
    *,
    data: StatisticsOptions,
    only: Sequence[str] = (),
    verify: bool = True,
    inputs: Mapping[str, Shape] | None = None,
) -> BatchNormResult:
    """The model with a BatchNorm behind its convolutions, with statistics of data; written to `out` if given (never over an existing file).

    Raises UserError for a wrong path or data that does not fit, RefusedModel as fold does.
    """
    read = _read(model, out, inputs)
    made = unfold_model(read, data, only=only, verify=verify, inputs=inputs)
    if out is not None:
        made.write(out)
    return made


def _read(model: Path | str, out: Path | str | None, inputs: Mapping[str, Shape] | None) -> files.Model:
    read = files.read(seeds.bundled(str(model)) or model if not Path(model).exists() else model, inputs)
    if out is not None:
        require_writable(Path(out), forbid=(read.path, *read.data))
    return read


def fold_model(model: files.Model, *, verify: bool = True, inputs: Mapping[str, Shape] | None = None) -> BatchNormResult:
    """The same on a model already read."""
    analysis = analyse_model(model, inputs)
    found = batchnorm.fold(model.graph, sizes=inputs)
    return _finished(model, analysis, found.graph, found.folded, found.left, verify=verify)


def unfold_model(
    model: files.Model,
    data: StatisticsOptions,
    *,
    only: Sequence[str] = (),
    verify: bool = True,
    inputs: Mapping[str, Shape] | None = None,
) -> BatchNormResult:
    """The same on a model already read."""
    analysis = analyse_model(model, inputs)
    sites = places(model.graph, only=only, sizes=inputs)
    if not sites.tensors:
        return _finished(model, analysis, model.graph, (), sites.left, verify=verify)
    how = None if data.source == RANDOM else _preparation(model, analysis, data)
    statistics = _statistics(model, analysis, sites.tensors, _rows(calibration.input_of(analysis), data, how))
    found = put_in(model.graph, statistics, sizes=inputs)
    still = [name for name, moments in statistics.items() if not moments.variance.all()]
    notes: tuple[str, ...] = (NOISE_NOTE,) if how is None else (how.pixels.sentence(), *([pixels.WARNING] if how.pixels.guessed else []))
    notes += (f"{len(still)} convolutions have channels that never vary on this data, as '{still[0]}'",) if still else ()
    return _finished(model, analysis, found.graph, found.added, sites.left, verify=verify, notes=notes)


def _finished(
    model: files.Model,
    analysis: Analysis,
    graph: gs.Graph,
    changed: tuple[tuple[str, str], ...],
    left: tuple[Left, ...],
    *,
    verify: bool,
    notes: tuple[str, ...] = (),
) -> BatchNormResult:
    """The result with its stages, verified if asked for."""
    if not changed:
        return BatchNormResult(model, model, (), left, notes, stage_table(analysis.stages), None)
    target = replace(model, graph=graph, notes=())
    sizes = {name: analysis.shapes.shapes[name] for name in analysis.view.inputs if name in analysis.shapes.shapes}
    after = analyse(graph, sizes=sizes, table=stage_table(analysis.stages))
    notes += _moved_knobs(analysis, after)
    verified = _verified(model, target, analysis) if verify else None
    return BatchNormResult(target, model, changed, left, notes, stage_table(after.stages), verified)


def _moved_knobs(before: Analysis, after: Analysis) -> tuple[str, ...]:
    old, new = own_spec(before).knobs, own_spec(after).knobs
    moved = [name for name in (*old, *new) if old.get(name) != new.get(name)]
    return (f"{len(moved)} knobs are other ones now, as '{moved[0]}'; 'fnatool inspect' lists them",) if moved else ()


# --- statistics -------------------------------------------------------------------------------------------------------------------------


def _statistics(model: files.Model, analysis: Analysis, tensors: Mapping[str, str], rows: Iterator[Values]) -> dict[str, Moments]:
    """Mean and variance of each tensor on the inputs, measured in a child process."""
    input_ = calibration.input_of(analysis)
    sizes = {tensor: int(np.prod(analysis.shapes.shapes[tensor][1:])) * BYTES for tensor in tensors.values()}
    try:
        with guessing(analysis.shapes):
            return isolate.run(
                calibration.measure, model.graph, tensors, input_, rows, sizes, seconds=MEASURE_SECONDS, memory=16 * isolate.GIB
            )
    except isolate.Died as error:
        raise RefusedModel(f"ONNX Runtime died while it collected statistics: {error}; try fewer --images") from error


BYTES = 4  # of a value in float32


def _rows(input_: NetworkInput, data: StatisticsOptions, how: Preparation | None) -> Iterator[Values]:
    """The inputs to collect statistics on, one at a time: noise where nothing says how images become inputs. Raises UserError."""
    if data.images < 1:
        raise UserError(f"{data.images} images are none to take statistics of; ask for at least 1")
    if how is None:
        return calibration.noise_rows(input_, data.images, data.seed)
    return calibration.image_rows(input_, calibration.image_files(Path(data.source), data.images, data.seed), how)


def _preparation(model: files.Model, analysis: Analysis, data: StatisticsOptions) -> Preparation:
    """How the network wants its images. Raises UserError where it takes none, or what is asked does not fit."""
    input_ = calibration.input_of(analysis)
    shape = input_.shape
    if analysis.image.axes in ((2, 3), (1, 2)):
        channels_last = analysis.image.axes == (1, 2)
    else:
        channels_last = len(shape) == 3 and shape[0] > 4 >= shape[2]  # no image has more than four colours
    channels = shape[-1 if channels_last else 0] if len(shape) == 3 else 0
    if channels not in (1, 3):
        what = printed(shape)
        raise UserError(f"the input '{input_.name}' of {what} is no grey or RGB image; --data random takes noise instead")
    mean, scale = (None if given is None else tuple(float(value) for value in given) for given in (data.mean, data.scale))
    image = pixels.Seen(input_.name, channels, input_.dtype)
    return Preparation(pixels.pixels_of(model, analysis.view, image, PixelOptions(mean, scale, data.channels)), channels_last)
