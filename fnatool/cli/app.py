"""The command group, and how a command ends where something is wrong."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from contextlib import nullcontext
from typing import IO

import click

import fnatool
from fnatool.escaping import shown

EXTRA = {"torch", "torchvision", "pycocotools", "PIL", "yaml"}  # what `pip install fnatool` leaves out
SUCCESS, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130


class Mistake(click.ClickException):
    """The user asked for something that cannot be: one message, of one line or a list of them, exit code 2."""

    exit_code = MISUSED

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines

    def show(self, file: IO[str] | None = None) -> None:
        click.echo("\n".join(map(shown, (f"fnatool: {self.lines[0]}", *self.lines[1:]))), file=file, err=True)


class Refusal(Mistake):
    """The model is not one to work on: one message, exit code 1."""

    exit_code = FAILED


class Command(click.Command):
    """A command that is heard on the terminal, and whose UserError and RefusedModel become messages and exit codes."""

    def invoke(self, ctx: click.Context) -> object:
        from fnatool.terminal import aside, heard
        from passes.errors import Listed, RefusedModel, UserError  # not above: --help would wait for all the passes

        try:
            with heard(), aside() if _is_document(ctx.params) else nullcontext():
                return super().invoke(ctx)
        except UserError as error:
            raise Mistake(*(error.lines if isinstance(error, Listed) else (str(error),))) from error
        except RefusedModel as error:
            raise Refusal(str(error)) from error
        except ModuleNotFoundError as error:
            if error.name not in EXTRA:
                raise
            raise Mistake(
                f"this needs {error.name}, which is not installed; pip install 'fnatool[search]' brings it"
            ) from error
        except BrokenPipeError as error:  # before click makes exit code 1 of it
            raise ReaderLeft from error


def _is_document(asked: Mapping[str, object]) -> bool:
    """Whether standard output is for a program: nothing but the document may come there."""
    return bool(asked.get("as_json")) or asked.get("form") not in (None, "text")


class ReaderLeft(Exception):
    """The reader of our output has gone, as in `fnatool inspect … | head`."""


class Commands(click.Group):
    """Subcommands are of the class above, in groups of groups too."""

    command_class = Command
    group_class = type


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(fnatool.__version__, prog_name="fnatool")
def cli() -> None:
    """Give it any pretrained CNN as ONNX and the shape you need; get back that network, in that shape, with what the
    seed knows.

    MODEL is the path of an ONNX file or the name of the bundled seed, mobilenetv2_bn.
    """


def require_search(command: str) -> None:
    """What the command needs beyond the least installation is there. Raises Mistake with what brings it."""
    needed = ("torch", "torchvision", "PIL", "pycocotools", "tensorboard", "yaml")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise Mistake(f"{command} needs what is not installed: {', '.join(missing)}; pip install 'fnatool[search]'")
