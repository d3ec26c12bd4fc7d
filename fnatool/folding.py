"""BatchNorm out of a file and back into it: read, fold or unfold, verify, write. The order of `fnatool fold` and `fnatool unfold`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from fnatool import calibration, files, isolate, seeds
from fnatool.calibration import Input, Pixels, Preparation
from fnatool.remapping import STAGES_KEY, VERIFY_SECONDS, Verified, analyse_model, copy, metadata
from fnatool.tasks import description
from passes import batchnorm
from passes.analysis import Analysis, analyse
from passes.batchnorm import Left, Moments
from passes.blocks import stage_table
from passes.errors import RefusedModel, UserError
from passes.shapes import Shape
from passes.spec import own_spec

SOURCE_KEY = "fnatool.source"
RANDOM = "random"
MEASURE_SECONDS = 3600
NOISE_NOTE = (
    "the statistics are those of noise: the function is unchanged, but training will not start from your data's; --data FOLDER does"
)


@dataclass(frozen=True)
class Normalised:
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
class Data:
    """What statistics are collected on: a folder of images or the word random, how many, and how a pixel becomes an input value.

    mean and scale are per channel, (pixel − mean) / scale with pixels from 0 to 255; None: as the model's metadata says.
    """

    source: Path | str
    images: int = 256
    seed: int = 0
    mean: Sequence[float] | None = None
    scale: Sequence[float] | None = None


def fold(model: Path | str, out: Path | str | None = None, *, verify: bool = True, inputs: Mapping[str, Shape] | None = None) -> Normalised:
    """The model with every BatchNorm that can be in the convolution beside it; written to `out` if given (never over an existing file).

    Raises UserError for a wrong path, RefusedModel for a model that cannot be read or a result that fails verification.
    """
    read = _read(model, out)
    made = fold_model(read, verify=verify, inputs=inputs)
    if out is not None:
        made.write(out)
    return made


def unfold(
    model: Path | str,
    out: Path | str | None = None,
    *,
    data: Data,
    only: Sequence[str] = (),
    verify: bool = True,
    inputs: Mapping[str, Shape] | None = None,
) -> Normalised:
    """The model with a BatchNorm behind its convolutions, with statistics of data; written to `out` if given (never over an existing file).

    Raises UserError for a wrong path or data that does not fit, RefusedModel as fold does.
    """
    read = _read(model, out)
    made = unfold_model(read, data, only=only, verify=verify, inputs=inputs)
    if out is not None:
        made.write(out)
    return made


def _read(model: Path | str, out: Path | str | None) -> files.Model:
    read = files.read(seeds.bundled(str(model)) or model if not Path(model).exists() else model)
    if out is not None:
        files.require_writable(Path(out), forbid=(read.path, *read.data))
    return read


def fold_model(model: files.Model, *, verify: bool = True, inputs: Mapping[str, Shape] | None = None) -> Normalised:
    """The same on a model already read."""
    analysis = analyse_model(model, inputs)
    found = batchnorm.fold(model.graph)
    return _finished(model, analysis, found.graph, found.folded, found.left, verify=verify)


def unfold_model(
    model: files.Model,
    data: Data,
    *,
    only: Sequence[str] = (),
    verify: bool = True,
    inputs: Mapping[str, Shape] | None = None,
) -> Normalised:
    """The same on a model already read."""
    analysis = analyse_model(model, inputs)
    places = batchnorm.places(model.graph, only=only, sizes=inputs)
    if not places.tensors:
        return _finished(model, analysis, model.graph, (), places.left, verify=verify)
    statistics = _statistics(model, analysis, places.tensors, data)
    found = batchnorm.unfold(model.graph, statistics)
    still = [name for name, moments in statistics.items() if not moments.variance.all()]
    notes: tuple[str, ...] = (NOISE_NOTE,) if data.source == RANDOM else ()
    notes += (f"{len(still)} convolutions have channels that never vary on this data, as '{still[0]}'",) if still else ()
    return _finished(model, analysis, found.graph, found.added, places.left, verify=verify, notes=notes)


def _finished(
    model: files.Model,
    analysis: Analysis,
    graph: gs.Graph,
    changed: tuple[tuple[str, str], ...],
    left: tuple[Left, ...],
    *,
    verify: bool,
    notes: tuple[str, ...] = (),
) -> Normalised:
    """The result with its stages, verified if asked for."""
    if not changed:
        return Normalised(model, model, (), left, notes, stage_table(analysis.stages), None)
    target = replace(model, graph=graph, notes=())
    sizes = {name: analysis.shapes.shapes[name] for name in analysis.view.inputs if name in analysis.shapes.shapes}
    after = analyse(graph, sizes=sizes, table=stage_table(analysis.stages))
    notes += _moved_knobs(analysis, after)
    verified = _verified(model, target, analysis) if verify else None
    return Normalised(target, model, changed, left, notes, stage_table(after.stages), verified)


def _moved_knobs(before: Analysis, after: Analysis) -> tuple[str, ...]:
    old, new = own_spec(before).knobs, own_spec(after).knobs
    moved = [name for name in (*old, *new) if old.get(name) != new.get(name)]
    return (f"{len(moved)} knobs are other ones now, as '{moved[0]}'; 'fnatool inspect' lists them",) if moved else ()


# --- verified ---------------------------------------------------------------------------------------------------------------------------


def _verified(model: files.Model, target: files.Model, analysis: Analysis) -> Verified:
    """Inner values compared in a child process. Raises RefusedModel where one moved by more than rounding, naming the first."""
    try:
        verified = isolate.run(_compare, model.graph, target.graph, analysis, seconds=VERIFY_SECONDS, memory=16 * isolate.GIB)
    except isolate.Died as error:
        raise RefusedModel(f"verification in ONNX Runtime died: {error}; --no-verify writes the result without it") from error
    if verified.first is not None:
        tensor, node, drift = verified.first
        raise RefusedModel(
            f"the result must compute what the model does, but '{tensor}' of node '{node}' is the first to drift, by {drift:.1e} of its "
            f"spread ({verified.judged}); nothing was written. Please report it with the model"
        )
    return verified


def _compare(before: gs.Graph, after: gs.Graph, analysis: Analysis) -> Verified:
    """In the child."""
    from fnatool.verify import compare, noise

    result = compare(before, after, noise(analysis, 0))
    first = result.first
    row = None if first is None else (first.tensor, first.node, first.relative)
    return Verified(result.worst, row, len(result.drifts), result.tolerance, exact=True, doubt=result.doubt)


# --- statistics -------------------------------------------------------------------------------------------------------------------------


def _statistics(model: files.Model, analysis: Analysis, tensors: Mapping[str, str], data: Data) -> dict[str, Moments]:
    """Mean and variance of each tensor on the data, measured in a child process. Raises UserError where the data does not fit."""
    if data.images < 1:
        raise UserError(f"{data.images} images are none to take statistics of; ask for at least 1")
    input_ = calibration.input_of(analysis)
    rows = _rows(model, input_, data)
    sizes = {tensor: int(np.prod(analysis.shapes.shapes[tensor][1:])) * BYTES for tensor in tensors.values()}
    try:
        return isolate.run(calibration.measure, model.graph, tensors, input_, rows, sizes, seconds=MEASURE_SECONDS, memory=16 * isolate.GIB)
    except isolate.Died as error:
        raise RefusedModel(f"ONNX Runtime died while it collected statistics: {error}; try fewer --images") from error


BYTES = 4  # of a value in float32


def _rows(model: files.Model, input_: Input, data: Data) -> Iterator[Pixels]:
    """The inputs to collect statistics on, one at a time."""
    if data.source == RANDOM:
        return calibration.noise_rows(input_, data.images, data.seed)
    paths = calibration.image_files(Path(data.source), data.images, data.seed)
    return calibration.image_rows(input_, paths, _preparation(model, input_, data))


def _preparation(model: files.Model, input_: Input, data: Data) -> Preparation:
    """How the network wants its images: as said, else as its metadata says. Raises UserError where neither does, or it takes no images."""
    channels_last = len(input_.shape) == 3 and input_.shape[0] > 4 >= input_.shape[2]  # no image has more than four colours
    channels = input_.shape[-1 if channels_last else 0]
    if len(input_.shape) != 3 or channels not in (1, 3):
        shape = "×".join(map(str, input_.shape))
        raise UserError(f"the input '{input_.name}' of {shape} is no grey or RGB image; --data random takes noise instead")
    if input_.dtype == np.uint8 and data.mean is None and data.scale is None:
        return Preparation((0.0,) * channels, (1.0,) * channels, channels_last)
    stored = _stored_preparation(model.envelope)
    values = []
    for word, given in (("mean", data.mean), ("scale", data.scale)):
        found = given if given is not None else stored.get(word)
        if found is None:
            raise UserError(
                "the model does not say how pixels become inputs; give --mean and --scale: an input is (pixel − mean) / scale with pixels "
                "from 0 to 255, for most ImageNet networks --mean 123.675,116.28,103.53 --scale 58.395,57.12,57.375"
            )
        values.append(_per_channel(word, found, channels))
    if 0 in values[1]:
        raise UserError("a scale of 0 would divide by zero; give what the pixels are divided by, such as 255")
    return Preparation(values[0], values[1], channels_last)


def _per_channel(word: str, values: Sequence[float], channels: int) -> tuple[float, ...]:
    if len(values) not in (1, channels):
        raise UserError(f"{word} has {len(values)} values, the image {channels} channels; give one, or one for each")
    return tuple(float(value) for value in values) * (channels // len(values))


def _stored_preparation(envelope: onnx.ModelProto) -> dict[str, list[float]]:
    """mean and scale from the metadata that a head or an export wrote, where they are lists of numbers."""
    for key, place in ((description.KEY, ("input",)), (SOURCE_KEY, ())):
        try:
            found = json.loads(metadata(envelope).get(key, "{}"))
        except (ValueError, RecursionError):
            continue
        for step in place:
            found = found.get(step) if isinstance(found, dict) else None
        if isinstance(found, dict) and all(_is_numbers(found.get(word)) for word in ("mean", "scale")):
            return {word: found[word] for word in ("mean", "scale")}
    return {}


def _is_numbers(found: object) -> bool:
    return isinstance(found, list) and bool(found) and all(type(value) in (int, float) for value in found)
