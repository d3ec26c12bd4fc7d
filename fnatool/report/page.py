"""The page: a document, written as HTML that needs nothing else. Every number on it is looked up in the document, and
says where.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files as resources
from typing import Any

import jinja2
from markupsafe import Markup

from fnatool.escaping import shown
from fnatool.report import sections as sections_of
from fnatool.report.headline import lead, tiles, title
from fnatool.report.networks import NetworkPair
from fnatool.report.runs import as_toml
from fnatool.search.words import cost_text

Json = Mapping[str, Any]


def html(document: Json, networks: NetworkPair | None, pictures: object = None, no_pictures: str = "") -> str:
    """The page. pictures: a Gallery, or no_pictures says why there is none."""
    told = {
        "doc": document,
        "n": functools.partial(number, document),
        "title": title(document),
        "lead": list(lead(document)),
        "tiles": [asdict(tile) for tile in tiles(document)],
        **sections_of.architecture(document, networks),
        **sections_of.choice(document),
        **sections_of.training(document),
        "pictures": pictures,
        "no_pictures": no_pictures,
        "toml": "\n".join(as_toml(document["config"])),
        "made": sections_of.made(document["made"]),
        "css": Markup(_resource("page.css")),
        "script": Markup(_resource("page.js")),
    }
    sections = {
        "architecture": ("Architecture", told["panels"]),
        "cost": ("Cost", told["panels"]),
        "choice": ("The choice", told["heat"]),
        "training": ("Training", document["tuning"]),
        "pictures": ("Answers", pictures or no_pictures),
        "again": ("How to do it again", True),
    }
    drawn = told["front"] or told["learning"] or told["curves"]
    plotly = Markup(_resource("plotly-basic.min.js")) if drawn else ""
    return _template().render(
        **told, sections=[(place, name) for place, (name, there) in sections.items() if there], plotly=plotly
    )


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_plain,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=None,
    )
    environment.filters["lines"] = _lines
    return environment.from_string(_resource("page.html"))


def _resource(name: str) -> str:
    return (resources("fnatool.report") / name).read_text(encoding="utf-8")


def _plain(value: object) -> object:
    """Text from a model or a file shows what it is made of, and ends no line."""
    return shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _lines(value: str) -> Markup:
    """Text of several lines."""
    return Markup("\n").join(shown(line) for line in value.split("\n"))


# --- numbers ---


def number(document: Json, path: Sequence[str | int], how: str) -> Markup:
    """The number at a path in the document as people read it; its element has the number itself, and a JSON pointer
    (RFC 6901) to it.
    """
    value: Any = document
    for step in path:
        value = value[step]
    if value is None:
        return Markup("–")
    pointer = "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)
    return Markup('<data value="{}" data-at="{}">{}</data>').format(repr(value), pointer, text(value, how))


def text(value: float, how: str) -> str:
    """A number in a way to write it; cost:KIND is the way of a kind of cost."""
    return cost_text(how.removeprefix("cost:"), value) if how.startswith("cost:") else FORMATS[how](value)


FORMATS: Mapping[str, Callable[[float], str]] = {
    "count": lambda value: f"{value:,}",
    "bytes": lambda value: f"{value / 1e6:,.2f} MB",
    "distance": lambda value: f"{value:.3f}",
    "probability": lambda value: f"{value:.0%}",
    "figure": lambda value: f"{value:.4f}",
    "percent": lambda value: f"{value:.1%}",
    "short": lambda value: f"{value:.3g}",
}
