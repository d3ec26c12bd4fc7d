"""The pages of the reference, made from the code each time the documentation is built, so that none of them can be
stale.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from importlib import import_module
from types import ModuleType

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import fnatool
import fnatool.nn
import passes
from fnatool.cli.main import cli
from fnatool.cli.show.documents import DOCUMENTS, FILES, WITHOUT
from fnatool.data.formats import FORMATS, layouts_of
from fnatool.model.check import CODES
from fnatool.nn import TORCH
from fnatool.search.config import template as search_template
from fnatool.tasks.table import TASKS
from fnatool.training.config import template
from passes.channels.rules.table import RULES
from passes.graph.macs import MACS, UNCOUNTED
from passes.heads import STYLES
from passes.maps.table import SPACE
from passes.network.knobs import KINDS
from passes.space.costs import KINDS as COSTS


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """A Markdown table."""
    heads = list(heads)
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |"


def commands() -> Iterator[str]:
    """Every command as its --help says it."""
    yield (
        "# Commands\n\nWhat `fnatool COMMAND --help` prints. Exit codes: 0 done; 1 a failed check, or a model "
        "that is refused;"
    )
    yield "2 a mistake in what was asked; 130 interrupted.\n"
    for name, command in sorted(cli.commands.items()):
        yield from _command(command, f"fnatool {name}", "##")


def _command(command: click.Command, path: str, level: str) -> Iterator[str]:
    context = click.Context(command, info_name=path, terminal_width=100, max_content_width=100)
    yield f"{level} {path}\n\n``` text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for name, inner in sorted(command.commands.items()):
            yield from _command(inner, f"{path} {name}", level + "#")


def documents() -> Iterator[str]:
    """What --json prints."""
    yield (
        "# JSON\n\nWith `--json` a command prints one JSON document on standard output and nothing else there: "
        "progress and notes go to"
    )
    yield (
        "standard error. Exit codes and messages are the same; after a mistake standard output is empty. "
        "`inspect`, `profile`, `check`,"
    )
    yield (
        "`diff`, `bench`, `evaluate` and `predict` print what they found; the figure of a class without ground "
        "truth is null."
    )
    yield "A key whose text begins with *where* may be absent.\n"
    yield from table(("command", "the same document is in"), ((f"`{name}`", text) for name, text in FILES.items()))
    yield ""
    for name, keys in DOCUMENTS.items():
        yield f"## fnatool {name}\n"
        yield from table(("key", "what it is"), ((f"`{key}`", text) for key, text in keys.items()))
        yield ""
    yield "## Without it\n"
    yield from table(("command", "why"), ((f"`{name}`", text) for name, text in WITHOUT.items()))


def configs() -> Iterator[str]:
    """Every key of the two configs, as the commands write them."""
    yield (
        "# Config files\n\n`fnatool config FILE --task TASK` writes every key at the task's default with what it "
        "means; unknown keys and"
    )
    yield "impossible values are reported all at once, before anything starts. Relative paths are seen from the file.\n"
    first, *others = TASKS
    yield f"## Fine-tuning\n\n``` toml\n{template(first)}```\n"
    yield "Where a task's defaults are others:\n"
    for task in others:
        general = template(first).splitlines()
        own = [
            line for line in template(task).splitlines() if line not in general and not line.startswith(("#", "task"))
        ]
        yield f"### {task}\n\n" + ("\n".join(["``` toml", *own, "```"]) if own else "The same.") + "\n"
    yield f"## Search\n\n``` toml\n{search_template(first)}```\n"


def tasks() -> Iterator[str]:
    """The tasks with their data, heads and figures, and the kinds of cost."""
    yield "# Tasks and costs\n\nThe first figure of a task is the one that tells the best model.\n"
    for task in TASKS.values():
        heads = [name for name, style in STYLES.items() if style.outputs.keys() == task.outputs.keys()]
        yield f"## {task.name}\n"
        yield f"Heads: {', '.join(f'`{name}`' for name in heads)} (`{task.head}` unless another one is asked for);"
        yield f"outputs: {', '.join(f'`{name}`' for name in task.outputs)}.\n"
        yield from table(
            ("format of the data", "its name", "what is looked for"),
            ((FORMATS[name].said, f"`{name}`", f"`{how.looked_for}`") for name, how in layouts_of(task.name).items()),
        )
        yield ""
        one = {"classes": "class", "joints": "joint"}[task.labels]
        each = (f"{task.each}/{one.upper()}", f"the same of each {one} that the data have truth of")
        yield from table(
            ("figure", "what it is"), ((f"`{name}`", text) for name, text in (*task.metrics.items(), each))
        )
        yield ""
    yield (
        "## Costs\n\nWhat a budget can be of; instead of a number it may be a share of what the seed costs with "
        "its head: `madds=60%`.\n"
    )
    yield from table(
        ("kind", "what it is", "as a budget"), ((f"`{k.name}`", k.text, f"`{k.name}={k.example}`") for k in COSTS)
    )


def checks() -> Iterator[str]:
    """What `check` can find."""
    yield "# Check codes\n\nWhat `fnatool check` can find, by the code in its JSON, SARIF and annotations.\n"
    yield from table(("code", "what is wrong"), ((f"`{code}`", text) for code, text in sorted(CODES.items())))


def operators() -> Iterator[str]:
    """Which readings know an operator."""
    yield (
        "# Operators\n\nWhich reading of a graph knows an operator. An operator without *channels* freezes the "
        "widths that it touches,"
    )
    yield (
        "without *maps* the image size; without *torch* the graph is not loaded for training. Each is refused by "
        "name, never guessed.\n"
    )
    readings: tuple[Mapping[str, object] | frozenset[str], ...] = (RULES, SPACE, TORCH)
    names = sorted({name for reading in readings for name in reading})
    rows = (
        [f"`{name}`", *("yes" if name in reading else "" for reading in readings), _counted(name)] for name in names
    )
    yield from table(("operator", "channels", "maps", "torch", "multiply-adds"), rows)


def _counted(name: str) -> str:
    return "counted" if name in MACS else "unknown" if name in UNCOUNTED else ""


def knobs() -> Iterator[str]:
    """Every kind of knob."""
    rows = ([", ".join(f"`{name}`" for name in kind.names).replace(" …`", "` …"), kind.sets] for kind in KINDS.values())
    yield from table(("knob", "what it sets"), rows)


def api() -> Iterator[str]:
    """The public functions and classes with their docstrings."""
    yield (
        "# Python API\n\nThe commands' work, from Python, with the same words. Errors: `passes.UserError` for a "
        "mistake in what was"
    )
    yield "asked, `passes.RefusedModel` for a model that cannot be handled without the risk of breaking it.\n"
    for module in (fnatool, fnatool.nn, passes):
        yield f"## {module.__name__}\n\n{inspect.getdoc(module)}\n"
        for name in module.__all__:
            yield from _object(f"{module.__name__}.{name}", _public(module, name))


def _public(module: ModuleType, name: str) -> object:
    """What the module gives of that name; of `fnatool` from where it lies, since a folder may have the name of a
    function.
    """
    return getattr(import_module(f"fnatool.{fnatool.HOMES[name]}") if module is fnatool else module, name)


def _object(name: str, found: object) -> Iterator[str]:
    yield f"### {name}\n"
    if callable(found) and not (isinstance(found, type) and issubclass(found, Exception)):
        with suppress(ValueError):  # some have no signature
            yield f"``` python\n{name.rpartition('.')[2]}{_signature(found)}\n```\n"
    yield (
        f"{inspect.getdoc(found) or ''}\n"
        if not isinstance(found, Mapping)
        else "A table; see [Operators](operators.md).\n"
    )
    if isinstance(found, type) and is_dataclass(found):
        yield "Fields: " + ", ".join(f"`{field.name}`" for field in fields(found)) + ".\n"


def _signature(found: Callable[..., object]) -> str:
    """How it is called, with the types as they are written."""
    signature = inspect.signature(found)
    parameters = [one.replace(annotation=_written(one.annotation)) for one in signature.parameters.values()]
    return str(signature.replace(parameters=parameters, return_annotation=_written(signature.return_annotation)))


def _written(annotation: object) -> object:
    """The annotation, so that it is printed without quotes where it was postponed."""
    return _Plain(annotation) if isinstance(annotation, str) else annotation


class _Plain(str):
    """A text that is printed as it is."""

    def __repr__(self) -> str:
        return str(self)


TABLES = {"<!-- the table of knobs -->": knobs}
PAGES = {
    "commands": commands,
    "configs": configs,
    "tasks": tasks,
    "checks": checks,
    "operators": operators,
    "json": documents,
    "api": api,
}


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """The hook of mkdocs: the generated pages beside the written ones."""
    for name, page in PAGES.items():
        files.append(File.generated(config, f"reference/{name}.md", content="\n".join(page()) + "\n"))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The hook of mkdocs: in written pages, tables made from the code where they are asked for."""
    for mark, made in TABLES.items():
        markdown = markdown.replace(mark, "\n".join(made()))
    return markdown
