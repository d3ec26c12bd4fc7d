"""Keys of a config set one by one, section.key=value, as people type them on a command line."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from passes.errors import UserError

Settings = Mapping[str, Any]
"""A part of a config's document: sections of keys, or keys."""

KEY = re.compile(r"\w+(\.\w+)*", re.ASCII)
PATHS = ("data.path", "cost.latency")
# or names
FILES = ("model", "imitate.teacher", "finetune.imitate.teacher", "head.classes", "head.joints", "space.choices")


def settings_of(given: Iterable[str]) -> Settings:
    """The document that says each section.key=value, values as in TOML, words without quotation marks too; paths are
    seen from here.

    Raises UserError for what is not of that form, and for a key that is set twice.
    """
    found: dict[str, Any] = {}
    for text in given:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or KEY.fullmatch(key) is None:
            raise UserError(f"--set {text}: say section.key=value, as in --set run.epochs=3 or --set data.size=[96,96]")
        _put(found, key, _from_here(key, _value(value)))
    return found


def _value(text: str) -> object:
    """What TOML reads there; a word where it reads nothing."""
    try:
        document = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, ValueError, RecursionError):
        return text
    return document["value"] if document.keys() == {"value"} else text


def _from_here(key: str, value: object) -> object:
    """A path that does not depend on where the config lies; a name that is no file stays."""
    if isinstance(value, str) and (key in PATHS or (key in FILES and Path(value).is_file())):
        return str(Path(value).absolute())
    return value


def _put(document: dict[str, Any], key: str, value: object) -> None:
    """The key has the value in the document."""
    *sections, last = key.split(".")
    place = document
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise UserError(f"--set sets '{section}' and '{key}', which is in it")
    if last in place:
        raise UserError(f"--set sets '{key}' twice")
    place[last] = value
