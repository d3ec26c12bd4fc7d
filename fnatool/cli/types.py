"""Types of options and arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from fnatool.tasks import NAMES


class ModelPath(click.ParamType[Path]):
    """The path of an ONNX file, or the name of a bundled seed where no file has that name."""

    name = "model"

    def convert(self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        from fnatool import seeds

        return seeds.find(value)


class SpecPath(click.ParamType[Path]):
    """The path of a spec's JSON file, or the name of a bundled spec where no file has that name; - is standard
    input.
    """

    name = "spec"

    def convert(self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        from fnatool import specs

        return Path("/dev/stdin") if value == "-" else specs.find(value)


class InputShape(click.ParamType[tuple[str, tuple[int, ...]]]):
    """NAME=1x3x224x224, or 1x3x224x224 alone, whose name is empty."""

    name = "shape"

    def convert(
        self, value: str | tuple[str, tuple[int, ...]], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[int, ...]]:
        if isinstance(value, tuple):
            return value
        name, named, text = value.rpartition("=")
        sizes = _sizes(text)
        if (named and not name) or sizes is None:
            form = "NAME=1x3x224x224" if named else "1x3x224x224"
            self.fail(f"'{value}' is not of the form {form} (all sizes positive)", param, ctx)
        return name, sizes


def _sizes(text: str) -> tuple[int, ...] | None:
    """The sizes in 1x3x224x224; None where it is not of that form."""
    sizes = text.split("x")
    good = all(size.isascii() and size.isdigit() and 0 < int(size) < 2**31 for size in sizes)
    return tuple(int(size) for size in sizes) if good else None


class NumbersType(click.ParamType[tuple[float, ...]]):
    """Numbers with commas between them, as in 123.7,116.3,103.5."""

    name = "numbers"

    def __init__(self, kind: type[int] | type[float]) -> None:
        self.kind = kind

    def convert(
        self, value: str | tuple[float, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(self.kind(part) for part in value.split(","))
        except ValueError:
            self.fail(
                f"'{value}' is not a list of {'whole ' if self.kind is int else ''}numbers with commas between them",
                param,
                ctx,
            )
        if not all(abs(number) < 1e12 for number in numbers):
            self.fail(f"'{value}' holds a number that is not finite or far too large", param, ctx)
        return numbers


class RowsType(click.ParamType[tuple[int, ...] | Literal["all"]]):
    """Whole numbers and ranges of them, as in 0-9,12; or all."""

    name = "rows"

    def convert(
        self, value: str | tuple[int, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...] | Literal["all"]:
        if isinstance(value, tuple):
            return value
        if value == "all":
            return "all"
        rows: list[int] = []
        for part in value.split(","):
            first, _, last = part.strip().partition("-")
            ends = (first, last or first)
            if not all(end.isascii() and end.isdigit() and len(end) <= 6 for end in ends) or int(ends[0]) > int(
                ends[1]
            ):
                self.fail(
                    f"'{value}' is neither 'all' nor numbers and ranges of them with commas between, as in 0-9,12",
                    param,
                    ctx,
                )
            rows += range(int(ends[0]), int(ends[1]) + 1)
        if len(set(rows)) < len(rows):
            self.fail(f"'{value}' names a row twice", param, ctx)
        return tuple(rows)


class Names(click.ParamType[tuple[str, ...]]):
    """Names with commas between them."""

    name = "names"

    def convert(
        self, value: str | tuple[str, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        return tuple(part.strip() for part in value.split(","))


class Extents(click.ParamType[tuple[int, int]]):
    """Height and width, as in 480,640 or 480x640."""

    name = "extents"

    def convert(
        self, value: str | tuple[int, int], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:  # fmt: skip
        if isinstance(value, tuple):
            return value
        sizes = _sizes(value.replace(",", "x"))
        if sizes is None or len(sizes) != 2 or max(sizes) > MOST_PIXELS:
            self.fail(f"'{value}' is no height and width, as in 480,640 (each from 1 to {MOST_PIXELS:,})", param, ctx)
        return sizes[0], sizes[1]


MOST_PIXELS = 65_536  # of a side
MODEL = ModelPath()
PAIR = Extents()
SPEC = SpecPath()
INPUT_SHAPE = InputShape()
NUMBERS = NumbersType(float)
ROWS = RowsType()
LIST = Names()
FILE = click.Path(path_type=Path)
TASK = click.Choice(NAMES)
