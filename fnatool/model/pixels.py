"""How pixels become what a network is given: one answer for all commands, and the values themselves.

An input is (pixel − mean) / scale per channel, pixels from 0 to 255. What the user says comes first; then what the
model's record of its task says; what its export recorded; what its graph tells (an input of whole numbers, or a network
that scales by itself); what is known of a bundled seed. Where nothing is known, colours are taken to be ImageNet's: a
guess, of which every command warns.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx

from fnatool import seeds, terminal
from fnatool.data.pixels import COLOURS, SAY, Pixels
from fnatool.files import model as files
from fnatool.files.interface import SOURCE_KEY, TASK_KEY
from fnatool.model.analysed import SPEC_KEY, metadata
from passes.errors import UserError
from passes.graph.view import View
from passes.heads.scaling import SHARES, own_scaling

if TYPE_CHECKING:
    from fnatool.tasks.description import Input

GUESS_KEY = "fnatool.pixels"  # in the metadata of a model whose task has a mean and a scale that nobody said
GUESS, KNOWN = "guess", "known"
IMAGENET_MEAN = (123.675, 116.28, 103.53)  # of pixels 0…255, red, green, blue
IMAGENET_SCALE = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class Seen:
    """The network's one input as an image: its name, how many channels it has, and its element type."""

    name: str
    channels: int
    dtype: np.dtype[np.generic]


@dataclass(frozen=True)
class PixelOptions:
    """What the user says: per channel, or one number for all; `channels` is the order of the colours. None: as the
    model is known to be.
    """

    mean: tuple[float, ...] | None = None
    scale: tuple[float, ...] | None = None
    channels: str | None = None


WARNING = f"nothing says how pixels become inputs of this network: ImageNet's mean and scale are a guess; {SAY}"


def seen_as(seen: View, name: str, channels: int) -> Seen:
    """The input of that name."""
    return Seen(name, channels, np.dtype(onnx.helper.tensor_dtype_to_np_dtype(seen.inputs[name][1])))


def pixels_of(model: files.Model, graph: View, image: Seen, asked: PixelOptions) -> Pixels:
    """The answer for a model, whose graph in normal form is also given. Raises UserError where nothing is known of grey
    pixels, and for

    what is asked that does not fit the image: another number of values, a scale of 0, values that whole numbers cannot
    carry.
    """
    if image.channels not in (1, 3):
        raise UserError(
            f"the input '{image.name}' has {image.channels} channels; a task needs images of three colours, or "
            "grey ones"
        )
    known = next((found for answer in ANSWERS if (found := answer(model, graph, image)) is not None), None)
    if known is None and (asked.mean is None or asked.scale is None):
        raise UserError(
            f"nothing is known of pixels of {image.channels} channel(s): say how they are scaled with --mean "
            "and --scale "
            "(in the config of a search 'head.mean' and 'head.scale')"
        )
    order = _order(image, asked, known)
    known = known if known is None or known.channels == order else _turned(known)
    mean = asked.mean or (known.mean if known is not None else ())
    scale = asked.scale or (known.scale if known is not None else ())
    if known is None or asked.mean or asked.scale:
        guessed = known is not None and known.guessed and not (asked.mean and asked.scale)
        found = Pixels(_per_channel(mean, image), _per_channel(scale, image), order, "as asked", guessed)
    else:
        found = replace(known, mean=_per_channel(mean, image), scale=_per_channel(scale, image))
    _require_values(found, image)
    require_carried(image, found.mean, found.scale)
    return found


def _order(image: Seen, asked: PixelOptions, known: Pixels | None) -> str:
    if image.channels == 1:
        if asked.channels not in (None, "GREY"):
            raise UserError(f"the input '{image.name}' has one channel: its pixels are grey, not {asked.channels}")
        return "GREY"
    if asked.channels is not None and asked.channels not in COLOURS:
        raise UserError(f"'{asked.channels}' is no order of colours; there are {' and '.join(COLOURS)}")
    return asked.channels or (known.channels if known is not None else COLOURS[0])


def _turned(known: Pixels) -> Pixels:
    """The same with its colours in the other order."""
    return replace(
        known, mean=known.mean[::-1], scale=known.scale[::-1], channels="RGB" if known.channels == "BGR" else "BGR"
    )


def _per_channel(values: tuple[float, ...], image: Seen) -> tuple[float, ...]:
    return values * image.channels if len(values) == 1 else values


def _require_values(found: Pixels, image: Seen) -> None:
    for word, values in (("mean", found.mean), ("scale", found.scale)):
        if len(values) != image.channels:
            raise UserError(
                f"the input '{image.name}' has {image.channels} channels, the {word} {len(values)} values; give "
                "one for each"
            )
    if 0 in found.scale:
        raise UserError("a scale of 0 would divide by zero; give what the pixels are divided by, such as 255")


def require_carried(image: Seen, mean: Sequence[float], scale: Sequence[float]) -> None:
    """An input of whole numbers gets whole numbers in its range. Raises UserError where (pixel − mean) / scale is
    something else.
    """
    if image.dtype.kind not in "iub":
        return
    values = [(np.arange(256.0) - centre) / width for centre, width in zip(mean, scale, strict=True)]
    limits = np.iinfo(image.dtype.str) if image.dtype.kind in "iu" else np.iinfo(np.uint8)
    low, high = (0, 1) if image.dtype.kind == "b" else (limits.min, limits.max)
    if not all(bool((row == np.rint(row)).all()) and row.min() >= low and row.max() <= high for row in values):
        told = ", ".join(
            f"(pixel − {centre:g}) / {width:g}" for centre, width in dict.fromkeys(zip(mean, scale, strict=True))
        )
        raise UserError(
            f"the input '{image.name}' is of {image.dtype}, which cannot carry {told}: the network scales its "
            "pixels itself; "
            "--mean 0 --scale 1 gives them as they are"
        )


def recorded(model: files.Model, like: Input) -> Pixels:
    """What the model's record of its task says."""
    guessed = is_guess(model)
    return Pixels(
        like.mean, like.scale, like.channels, "as an earlier head guessed" if guessed else "as the model says", guessed
    )


def say(how: Pixels) -> None:
    """A line on what the network reads, and the warning where that is a guess."""
    console = terminal.console()
    console.print(how.sentence(), markup=False)
    if how.guessed:
        console.print(f"warning: {WARNING}", markup=False)


# --- where it is known from ---------------------------------------------------------------------


def _document(model: files.Model, key: str) -> object:
    """What the metadata hold at a key, None where that is no JSON."""
    try:
        return json.loads(metadata(model.envelope).get(key, "null"))
    except (ValueError, RecursionError):
        return None


def _stated(found: object, image: Seen) -> Pixels | None:
    """The mean and the scale in a record, where they are about such an image."""
    if not isinstance(found, Mapping) or not all(_is_numbers(found.get(word)) for word in ("mean", "scale")):
        return None
    mean, scale = (_per_channel(tuple(float(value) for value in found[word]), image) for word in ("mean", "scale"))
    fits = len(mean) == len(scale) == image.channels and bool(np.isfinite((*mean, *scale)).all()) and 0 not in scale
    stated = found.get("channels")
    order = "GREY" if image.channels == 1 else stated if stated in COLOURS else COLOURS[0]
    return Pixels(mean, scale, str(order), "") if fits else None


def _is_numbers(found: object) -> bool:
    return (
        isinstance(found, list)
        and bool(found)
        and all(type(value) in (int, float) and abs(value) < 1e12 for value in found)
    )


def _of_task(model: files.Model, graph: View, image: Seen) -> Pixels | None:
    document = _document(model, TASK_KEY)
    found = _stated(document.get("input"), image) if isinstance(document, Mapping) else None
    if found is None:
        return None
    guessed = is_guess(model)
    return replace(found, source="as an earlier head guessed" if guessed else "as the model says", guessed=guessed)


def is_guess(model: files.Model) -> bool:
    """Whether the mean and the scale in the model's record are what a head guessed."""
    return metadata(model.envelope).get(GUESS_KEY) == GUESS


def _of_export(model: files.Model, graph: View, image: Seen) -> Pixels | None:
    found = _stated(_document(model, SOURCE_KEY), image)
    return None if found is None else replace(found, source="as its export recorded")


def _of_type(model: files.Model, graph: View, image: Seen) -> Pixels | None:
    if image.dtype.kind not in "iu":
        return None
    return _same(image, 1.0, f"as its input takes whole numbers ({image.dtype})")


def _of_graph(model: files.Model, graph: View, image: Seen) -> Pixels | None:
    found = own_scaling(graph, image.name)
    if found is None:
        return None
    shares = ", from 0 … 1" if found.brightest == SHARES else ""
    return _same(image, 255.0 / found.brightest, f"as the network scales them itself{shares} ('{found.node}')")


def _same(image: Seen, scale: float, source: str) -> Pixels:
    order = "GREY" if image.channels == 1 else COLOURS[0]
    return Pixels((0.0,) * image.channels, (scale,) * image.channels, order, source)


def _of_bundled(model: files.Model, graph: View, image: Seen) -> Pixels | None:
    """What is known of a bundled seed, of which the model may be a remap."""
    spec = _document(model, SPEC_KEY)
    origin = spec.get("seed") if isinstance(spec, Mapping) else None
    for name, (mean, scale) in seeds.PIXELS.items():
        digest = hashlib.sha256((seeds.FOLDER / f"{name}.onnx").read_bytes()).hexdigest()
        if model.sha256 != digest and origin != f"sha256:{digest}":
            continue
        if len(mean) == image.channels:
            return Pixels(mean, scale, COLOURS[0], f"as '{name}' wants them")
        if image.channels == 1:
            grey, width = (sum(values) / len(values) for values in (mean, scale))
            return Pixels((grey,), (width,), "GREY", f"as '{name}' wants its colours, in the mean")
    return None


def _of_imagenet(model: files.Model, graph: View, image: Seen) -> Pixels | None:
    if image.channels != len(IMAGENET_MEAN):
        return None
    return Pixels(IMAGENET_MEAN, IMAGENET_SCALE, COLOURS[0], "ImageNet's, as nothing else is known", guessed=True)


ANSWERS: Sequence[Callable[[files.Model, View, Seen], Pixels | None]] = (
    _of_task,
    _of_export,
    _of_type,
    _of_graph,
    _of_bundled,
    _of_imagenet,
)
"""Who is asked, in this order."""
