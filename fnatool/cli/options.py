"""Options that several commands take, each declared once and meaning the same everywhere."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import click

from fnatool.cli.app import Mistake
from fnatool.cli.types import FILE, INPUT_SHAPE, MODEL, NUMBERS

if TYPE_CHECKING:
    from fnatool.model.unlabelled import UnlabelledOptions

Knobs = Mapping[str, int | str | tuple[int, int]]
KnobValues = Mapping[str, Sequence[int | str]]
F = TypeVar("F", bound=Callable[..., Any])


class Decorator(Protocol):
    """What declares an option of a command, which stays what it is."""

    def __call__(self, command: F, /) -> F: ...


Shape = tuple[int, ...]
Inputs = Mapping[str, Shape] | Shape | None

SEEDS = click.IntRange(0, 2**32 - 1)


def output(help_: str = "The ONNX file to write.", *, required: bool = True) -> Decorator:
    """-o, --output OUT."""
    return click.option("-o", "--output", type=FILE, required=required, metavar="OUT", help=help_)


def force(help_: str = "Overwrite an existing file.") -> Decorator:
    """--force."""
    return click.option("--force", is_flag=True, help=help_)


def seed(help_: str) -> Decorator:
    """--seed N: the same number gives the same bytes."""
    return click.option("--seed", type=SEEDS, default=0, show_default=True, help=help_)


def no_verify(help_: str = "Skip the comparison of inner values in ONNX Runtime.") -> Decorator:
    """--no-verify."""
    return click.option("--no-verify", is_flag=True, help=help_)


def as_json(help_: str = "Everything as JSON.") -> Decorator:
    """--json."""
    return click.option("--json", "as_json", is_flag=True, help=help_)


def provider() -> Decorator:
    """--provider."""
    kinds = click.Choice(["cpu", "cuda", "tensorrt"])
    return click.option("--provider", type=kinds, default="cpu", show_default=True, help="Of ONNX Runtime.")


def restart() -> Decorator:
    """--restart."""
    return click.option("--restart", is_flag=True, help="Begin anew, where the folder holds an earlier run.")


def threads() -> Decorator:
    """--threads N, of ONNX Runtime."""
    return click.option(
        "--threads", type=click.IntRange(1, 1024), default=1, show_default=True, metavar="N", help="Of ONNX Runtime."
    )


def skip_bad(help_: str) -> Decorator:
    """--skip-bad."""
    return click.option("--skip-bad", is_flag=True, help=help_)


def reading() -> Decorator:
    """--data-format, --background and --ignore: how labels are read, as one argument `reading`."""

    def declared(command: F) -> F:
        @functools.wraps(command)
        def call(
            *given: Any, data_format: str | None, background: int | None, ignore: tuple[int, ...], **named: Any
        ) -> object:
            from fnatool.data.options import IGNORED, DataOptions

            found = DataOptions(format=data_format, background=background, ignore=ignore or IGNORED)
            return command(*given, reading=found, **named)

        for option in reversed(_READING):
            call = option(call)
        return cast(F, call)

    return declared


_VALUE = click.IntRange(0, 255)
_READING: tuple[Decorator, ...] = (
    click.option(
        "--data-format", metavar="NAME", help="folders, coco, voc, yolo, masks or cityscapes [default: recognised]."
    ),
    click.option(
        "--background",
        type=_VALUE,
        metavar="N",
        help="The value of the background in masks: the first class [default: in order].",
    ),
    click.option(
        "--ignore",
        type=_VALUE,
        multiple=True,
        metavar="N",
        help="A value of masks that counts for nothing [default: 255]. Repeatable.",
    ),
)


def inputs(help_: str = "The shape of a dynamic input; its name where the model has several. Repeatable.") -> Decorator:
    """--input [NAME=]1x3x224x224."""
    metavar = "[NAME=]1x3x224x224"
    return click.option(
        "--input", "inputs", type=INPUT_SHAPE, multiple=True, metavar=metavar, help=help_, callback=_shapes
    )


def _shapes(ctx: click.Context, param: click.Parameter, given: tuple[tuple[str, Shape], ...]) -> Inputs:
    """The shapes by name, or the one that has none."""
    if any(not name for name, _ in given) and len(given) > 1:
        raise click.BadParameter(
            "a shape without a name stands alone; say which input each is for, as in NAME=1x3x224x224", ctx, param
        )
    return given[0][1] if given and not given[0][0] else dict(given) or None


def pixels(mean: str, scale: str, channels: str) -> Decorator:
    """--mean, --scale and --channels, with their helps."""

    def declared(command: F) -> F:
        order = click.Choice(["RGB", "BGR"])
        command = click.option("--channels", type=order, help=channels)(command)
        command = click.option("--scale", type=NUMBERS, metavar="R,G,B", help=scale)(command)
        return click.option("--mean", type=NUMBERS, metavar="R,G,B", help=mean)(command)

    return declared


def knobs(help_: str) -> Decorator:
    """--set KNOB=VALUE, repeatable."""
    return click.option("--set", "knobs", multiple=True, metavar="KNOB=VALUE", help=help_, callback=_assigned)


def _assigned(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> Knobs:
    """knob → value."""
    if not given:
        return {}
    from passes.errors import UserError
    from passes.target.assigned import assigned

    try:
        return assigned(given)
    except UserError as error:
        raise Mistake(str(error)) from error


def knob_values(help_: str) -> Decorator:
    """--set KNOB=VALUE,VALUE, repeatable."""
    return click.option("--set", "knobs", multiple=True, metavar="KNOB=VALUE,...", help=help_, callback=_listed)


def _listed(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> KnobValues:
    """knob → values."""
    if not given:
        return {}
    from passes.errors import UserError
    from passes.target.assigned import listed

    try:
        return listed(given)
    except UserError as error:
        raise Mistake(str(error)) from error


def settings(help_: str) -> Decorator:
    """--set section.key=value, repeatable."""
    return click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help=help_)


def budgets(help_: str) -> Decorator:
    """--budget KIND=LIMIT, repeatable."""
    return click.option("--budget", "budgets", multiple=True, metavar="madds=200M", help=help_)


def file(name: str, *, metavar: str, help_: str, dest: str | None = None, required: bool = False) -> Decorator:
    """An option that is a path."""
    names = (name,) if dest is None else (name, dest)
    return click.option(*names, type=FILE, metavar=metavar, help=help_, required=required)


def like(help_: str) -> Decorator:
    """--like SEED, with --images DIR or --inputs DIR."""

    def declared(command: F) -> F:
        command = file(
            "--inputs", dest="arrays", metavar="DIR", help_="With --like: .npy or .npz files, an array for each input."
        )(command)
        command = file("--images", metavar="DIR", help_="With --like: pictures, in folders of any depth.")(command)
        return click.option("--like", type=MODEL, metavar="SEED", help=help_)(command)

    return declared


def samples(images: Path | None, arrays: Path | None) -> UnlabelledOptions:
    """Where samples without labels are."""
    from fnatool.model.unlabelled import UnlabelledOptions

    if (images is None) == (arrays is None):
        raise click.UsageError(
            "with --like give either --images DIR, a folder of pictures, or --inputs DIR, one of .npy or .npz files"
        )
    return UnlabelledOptions(images=images, arrays=arrays)


def refuse_samples(images: Path | None, arrays: Path | None) -> None:
    """They are for --like alone."""
    if images is not None or arrays is not None:
        raise click.UsageError("--images and --inputs are for --like SEED, where nothing has labels")
