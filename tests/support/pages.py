"""Pages of HTML, read back: the numbers they show and where those come from, what they would load, and their text."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any


@dataclass
class Page(HTMLParser):
    """What a reader of a page meets."""

    numbers: list[tuple[str, str, str]] = field(default_factory=list)  # (value, JSON pointer, what is written)
    links: list[str] = field(default_factory=list)  # of everything that a browser would load
    classes: list[str] = field(default_factory=list)
    document: Any = None
    text: str = ""
    _data: tuple[str, str] | None = None
    _script: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "data":
            self._data = str(found["value"]), str(found["data-at"])
        if tag == "script":
            self._script = f"{found.get('type')} {found.get('id')}"
        self.classes.extend((found.get("class") or "").split())
        self.links.extend(value for name in ("src", "href", "srcset", "data") if (value := found.get(name)) is not None)

    def handle_endtag(self, tag: str) -> None:
        self._script = "" if tag == "script" else self._script

    def handle_data(self, data: str) -> None:
        if self._data is not None:
            self.numbers.append((*self._data, data))
            self._data = None
        if self._script == "application/json document":
            self.document = json.loads(data)
        elif not self._script:
            self.text += data


def read_page(path: Path | str) -> Page:
    page = Page()
    page.feed(Path(path).read_text(encoding="utf-8"))
    return page


def look_up(document: Any, pointer: str) -> Any:
    """What a JSON pointer (RFC 6901) leads to."""
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        document = document[int(name)] if isinstance(document, list) else document[name]
    return document
