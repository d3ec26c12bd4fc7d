"""The commands that the documentation shows are commands that there are: their options, their choices, how many files
they take.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from fnatool.cli import main  # noqa: F401 it declares the commands
from fnatool.cli.app import cli

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
BLOCK = re.compile(r"^```(?:sh|console|bash)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
ENDS = {"|", "||", "&&", ";", ">", ">>", "2>"}  # what a shell takes for itself


def shown(page: Path) -> Iterator[list[str]]:
    """The words of each command that a page shows in a block."""
    for block in BLOCK.findall(page.read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["fnatool"]:
                end = next((k for k, word in enumerate(words) if word in ENDS), len(words))
                yield words[1:end]


def commands() -> list[tuple[str, list[str]]]:
    return [(page.relative_to(ROOT).as_posix(), words) for page in PAGES for words in shown(page)]


def understood(words: list[str]) -> None:
    """The options are there, choices are among them, and no argument is missing or too many. Raises
    click.UsageError.
    """
    group: click.Command = cli
    context = click.Context(group, info_name="fnatool")
    while isinstance(group, click.Group):
        name, found, words = group.resolve_command(context, list(words))
        assert found is not None
        group, context = found, click.Context(found, parent=context, info_name=name)
    values, rest, _ = group.make_parser(context).parse_args(list(words))
    if rest:
        raise click.UsageError(f"{rest} are too many")
    for parameter in group.params:
        value = values.get(parameter.name)
        if parameter.required and not (isinstance(value, str) or (isinstance(value, tuple) and value)):
            raise click.UsageError(f"{parameter.name} is missing")
        if isinstance(parameter.type, click.Choice) and isinstance(value, str):
            parameter.type.convert(value, parameter, context)


@pytest.mark.parametrize(
    ("page", "words"), commands(), ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_a_command_on_a_page_is_understood(page: str, words: list[str]) -> None:
    understood(words)


@pytest.mark.parametrize(
    "line",
    [
        "rmap a.onnx",
        "remap a.onnx --specc b.json",
        "remap",
        "inspect a.onnx b.onnx",
        "deploy a.onnx --precision int7 --target tensorrt -o x",
    ],
)
def test_one_that_is_not_there_is_found_out(line: str) -> None:
    with pytest.raises(click.UsageError):
        understood(line.split())


def test_every_command_is_shown_on_some_page() -> None:
    first = {words[0] for _, words in commands()}
    assert set(cli.commands) <= first
