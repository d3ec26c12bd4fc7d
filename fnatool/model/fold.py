"""BatchNorm out of a model and back into it: read, fold or unfold, verify, write."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_graphsurgeon as gs

from fnatool.data.pictures import Preparation
from fnatool.data.pixels import Values
from fnatool.files import model as files
from fnatool.files.atomic import require_writable
from fnatool.files.copying import copy
from fnatool.files.interface import Inputs
from fnatool.model import calibration, pixels
from fnatool.model.analysed import STAGES_KEY, analyse_model
from fnatool.model.calibration import NetworkInput
from fnatool.model.pixels import PixelOptions
from fnatool.model.source import Source, open_model
from fnatool.model.unlabelled import channels_last
from fnatool.model.verified import Verified, verify_same
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

RANDOM = "random"
MEASURE_SECONDS = 3600
NOISE_NOTE = (
    "the statistics are those of noise: the function is unchanged, but training will not start from your "
    "data's; --data FOLDER does"
)


@dataclass(frozen=True)
class BatchNormResult:
    """A model whose BatchNorms were folded or put back: (BatchNorm, convolution) for each, what is left and why, and
    what was verified.

    `verified` is None where it was not asked for or nothing changed.
    """

    model: files.Model
    seed: files.Model
    changed: tuple[tuple[str, str], ...]
    left: tuple[Left, ...]
    notes: tuple[str, ...]
    table: list[list[dict[str, str]]]
    verified: Verified | None

    def to_json(self) -> dict[str, object]:
        """The same, for programs."""
        return {
            "seed": f"sha256:{self.seed.sha256}",
            "changed": [{"norm": norm, "convolution": convolution} for norm, convolution in self.changed],
            "left": [{"node": left.node, "why": left.why} for left in self.left],
            "notes": list(self.notes),
            "verified": None if self.verified is None else self.verified.to_json(),
        }

    def write(self, path: Path | str, *, force: bool = False) -> None:
        """The result as a file, atomically; the model itself, byte for byte, where nothing changes."""
        if not self.changed:
            copy(self.seed, Path(path), force=force)
            return
        files.write(self.model, path, force=force)


@dataclass(frozen=True, kw_only=True)
class FoldOptions:
    """`inputs` gives shapes for free dimensions, `verify` runs the check of inner values, `force` lets the result
    replace another file.
    """

    verify: bool = True
    inputs: Inputs = None
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class UnfoldOptions:
    """What statistics are collected on, how a pixel becomes an input value, and behind which convolutions a BatchNorm
    is put.

    data is a folder of images, or the word random: noise. `images` of them are looked at, drawn with `seed`. mean and
    scale are per channel, (pixel − mean) / scale with pixels from 0 to 255, channels RGB or BGR; None: as the model is
    known to want them (see `fnatool.model.pixels`). `only` are patterns of names of convolutions; none: all where it
    makes sense. The others as in FoldOptions.
    """

    data: Path | str
    images: int = 256
    seed: int = 0
    mean: Sequence[float] | None = None
    scale: Sequence[float] | None = None
    channels: str | None = None
    only: Sequence[str] = ()
    verify: bool = True
    inputs: Inputs = None
    force: bool = False


def fold(model: Source, out: Path | str | None = None, *, options: FoldOptions | None = None) -> BatchNormResult:
    """The model (a path, the bundled seed's name, or a model in memory) with every BatchNorm that can be in the
    convolution beside it.

    Written to `out` if given. Raises UserError for a wrong path, RefusedModel for a model that cannot be read or a
    result that fails verification.
    """
    options = options or FoldOptions()
    read, sizes = _open(model, out, options)
    analysis = analyse_model(read, sizes)
    found = batchnorm.fold(analysis.normal or read.graph, sizes=sizes)
    made = _finished(read, analysis, found.graph, found.folded, left=found.left, verify=options.verify)
    if out is not None:
        made.write(out, force=options.force)
    return made


def unfold(model: Source, out: Path | str | None = None, *, options: UnfoldOptions) -> BatchNormResult:
    """The model (a path, the bundled seed's name, or a model in memory) with a BatchNorm behind its convolutions, with
    statistics of data.

    Written to `out` if given. Raises UserError for a wrong path or data that does not fit, RefusedModel as fold does.
    """
    if options.data != RANDOM:
        calibration.require_folder(Path(options.data))
    read, sizes = _open(model, out, options)
    made = _unfolded(read, options, sizes)
    if out is not None:
        made.write(out, force=options.force)
    return made


def _open(
    model: Source, out: Path | str | None, options: FoldOptions | UnfoldOptions
) -> tuple[files.Model, Mapping[str, Shape] | None]:
    read, sizes = open_model(model, options.inputs)
    if out is not None:
        require_writable(Path(out), force=options.force, forbid=(read.path, *read.data))
    return read, sizes


def _unfolded(model: files.Model, options: UnfoldOptions, sizes: Mapping[str, Shape] | None) -> BatchNormResult:
    analysis = analyse_model(model, sizes)
    sites = places(analysis.normal or model.graph, only=options.only, sizes=sizes)
    if not sites.tensors:
        return _finished(model, analysis, model.graph, (), left=sites.left, verify=options.verify)
    how = None if options.data == RANDOM else _preparation(model, analysis, options)
    statistics = _statistics(model, analysis, sites.tensors, _rows(calibration.input_of(analysis), options, how))
    found = put_in(analysis.normal or model.graph, statistics, sizes=sizes)
    still = [name for name, moments in statistics.items() if not moments.variance.all()]
    notes: tuple[str, ...] = (
        (NOISE_NOTE,) if how is None else (how.pixels.sentence(), *([pixels.WARNING] if how.pixels.guessed else []))
    )
    notes += (
        (f"{len(still)} convolutions have channels that never vary on this data, as '{still[0]}'",) if still else ()
    )
    return _finished(model, analysis, found.graph, found.added, left=sites.left, verify=options.verify, notes=notes)


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
        return BatchNormResult(
            model=model,
            seed=model,
            changed=(),
            left=left,
            notes=notes,
            table=stage_table(analysis.stages),
            verified=None,
        )
    target = replace(model, graph=graph, notes=())
    sizes = {name: analysis.shapes.shapes[name] for name in analysis.view.inputs if name in analysis.shapes.shapes}
    after = analyse(graph, sizes=sizes, table=stage_table(analysis.stages))
    notes += _moved_knobs(analysis, after)
    verified = verify_same(model, target, analysis) if verify else None
    target = files.with_metadata(target, {STAGES_KEY: json.dumps(stage_table(after.stages))})
    return BatchNormResult(
        model=target,
        seed=model,
        changed=changed,
        left=left,
        notes=notes,
        table=stage_table(after.stages),
        verified=verified,
    )


def _moved_knobs(before: Analysis, after: Analysis) -> tuple[str, ...]:
    old, new = own_spec(before).knobs, own_spec(after).knobs
    moved = [name for name in (*old, *new) if old.get(name) != new.get(name)]
    return (f"{len(moved)} knobs are other ones now, as '{moved[0]}'; 'fnatool inspect' lists them",) if moved else ()


# --- statistics ---------------------------------------------------------------------------------


def _statistics(
    model: files.Model, analysis: Analysis, tensors: Mapping[str, str], rows: Iterator[Values]
) -> dict[str, Moments]:
    """Mean and variance of each tensor on the inputs, measured in a child process."""
    input_ = calibration.input_of(analysis)
    sizes = {tensor: int(np.prod(analysis.shapes.shapes[tensor][1:])) * BYTES for tensor in tensors.values()}
    try:
        with guessing(analysis.shapes):
            return isolate.run(
                calibration.measure,
                model.graph,
                tensors,
                input_,
                rows,
                sizes,
                seconds=MEASURE_SECONDS,
                memory=16 * isolate.GIB,
            )
    except isolate.Died as error:
        raise RefusedModel(f"ONNX Runtime died while it collected statistics: {error}; try fewer --images") from error


BYTES = 4  # of a value in float32


def _rows(input_: NetworkInput, options: UnfoldOptions, how: Preparation | None) -> Iterator[Values]:
    """The inputs to collect statistics on, one at a time: noise where nothing says how images become inputs. Raises
    UserError.
    """
    if options.images < 1:
        raise UserError(f"{options.images} images are none to take statistics of; ask for at least 1")
    if how is None:
        return calibration.noise_rows(input_, options.images, options.seed)
    return calibration.image_rows(
        input_, calibration.image_files(Path(options.data), options.images, options.seed), how
    )


def _preparation(model: files.Model, analysis: Analysis, options: UnfoldOptions) -> Preparation:
    """How the network wants its images. Raises UserError where it takes none, or what is asked does not fit."""
    input_ = calibration.input_of(analysis)
    shape = input_.shape
    last = channels_last(analysis, shape)
    channels = shape[-1 if last else 0] if len(shape) == 3 else 0
    if channels not in (1, 3):
        what = printed(shape)
        raise UserError(
            f"the input '{input_.name}' of {what} is no grey or RGB image; --data random takes noise instead"
        )
    mean, scale = (
        None if given is None else tuple(float(value) for value in given) for given in (options.mean, options.scale)
    )
    image = pixels.Seen(input_.name, channels, input_.dtype)
    return Preparation(pixels.pixels_of(model, analysis.view, image, PixelOptions(mean, scale, options.channels)), last)
