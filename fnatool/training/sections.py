"""Tables of a TOML file as frozen pydantic models: read, checked all at once, and written with what every key means.

Nothing here needs torch.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from fnatool.files.documents import text
from fnatool.tasks.task import Defaults
from passes.errors import UserError
from passes.nearest import closest

MOST_WORDS = 1000  # of a list
SHOWN = 8  # faults that a message names
LENGTH = 80  # characters of a value that a message quotes
DIGITS = "a number of this config has thousands of digits"


class Section(BaseModel):
    """A table of the file: no unknown keys, no guessing of types, no number that is none, no change afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    later: ClassVar[frozenset[str]] = frozenset()
    """Keys that earlier versions had not: at their defaults they are not written down, so that a run of then is the
    same run now.
    """

    @model_serializer(mode="wrap")
    def _written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        return {
            key: value
            for key, value in handler(self).items()
            if key not in self.later or getattr(self, key) != fields[key].default
        }


def one_of(words: Sequence[str]) -> AfterValidator:
    """One of these words may stand there, and no other: said as pydantic says it of a Literal."""
    *first, last = map(repr, words)
    allowed = f"{', '.join(first)} or {last}" if first else last

    def known(word: str) -> str:
        if word not in words:
            raise PydanticCustomError("literal_error", "Input should be {allowed}", {"allowed": allowed})
        return word

    return AfterValidator(known)


S = TypeVar("S", bound=Section)


def document_of(path: Path, missing: str) -> dict[str, Any]:
    """What the TOML file at path says. Raises UserError for a file that is not there (saying how to make one) or is not
    TOML.
    """
    try:
        return tomllib.loads(text(path, "a TOML file"))
    except FileNotFoundError:
        raise UserError(f"there is no config '{path}'; {missing}") from None
    except OSError as error:
        raise UserError(f"'{path}' cannot be read as a config: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UserError(f"'{path}' is not TOML: {clipped(str(error))}") from error
    except ValueError as error:
        raise UserError(f"'{path}': {DIGITS}") from error


def clipped(words: str) -> str:
    """No more of the words than a message has room for."""
    return words if len(words) <= LENGTH else f"{words[:LENGTH]}…"


def read_file(
    path: Path,
    missing: str,
    parse: Callable[[dict[str, Any]], S],
    beside: Callable[[S, Path], S],
    *,
    settings: Mapping[str, Any],
) -> S:
    """What a TOML file says, its relative paths seen from its folder, and what is set on top of it.

    Raises UserError, with the name of the file, as parse does.
    """
    document = merged(document_of(path, missing), settings)
    try:
        return beside(parse(document), path.parent)
    except UserError as error:
        raise UserError(f"'{path}': {error}") from error


def parsed(kind: type[S], document: Mapping[str, Any], defaults: Defaults) -> S:
    """The sections of a document; what it leaves unsaid is in defaults. Raises UserError with the unknown keys and
    impossible values.
    """
    try:
        written = json.dumps(merged(defaults, document))
        if re.search(r"(?<!\\)(\\\\)*\\u0000", written):
            raise UserError("a word of this config holds a character that ends it, \\u0000")
        return kind.model_validate_json(written)  # strict, but for lists: JSON has no tuples
    except RecursionError as error:
        raise UserError("tables lie within each other too deeply; a config has two or three levels") from error
    except TypeError as error:
        raise UserError(f"a config holds tables, numbers, words and lists, no dates: {error}") from error
    except ValueError as error:
        if not isinstance(error, ValidationError):
            raise UserError(DIGITS) from error
        found = error.errors()
        more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise UserError("; ".join(_sentence(problem, kind) for problem in found[:SHOWN]) + more) from error


def merged(defaults: Defaults, document: Mapping[str, Any]) -> dict[str, Any]:
    """The document, with the defaults where it says nothing."""
    found = {**defaults, **document}
    for key, given in document.items():
        own = defaults.get(key)
        if isinstance(own, Mapping) and isinstance(given, Mapping):
            found[key] = merged(own, given)
    return found


def _sentence(problem: Any, kind: type[Section]) -> str:
    key = clipped(".".join(str(part) for part in problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"'{key}' is no key of a config{closest(key, list(keys_of(kind)))}".replace(
            "'fnatool inspect'", "'fnatool config'"
        )
    if not problem["loc"]:  # JSON that is none, of numbers without end or tables without an end
        return f"this cannot be a config: {clipped(problem['msg'])}"
    return f"'{key}' is {clipped(repr(problem['input']))}: {problem['msg'][0].lower()}{problem['msg'][1:]}"


def keys_of(kind: type[Section], prefix: str = "") -> Iterator[str]:
    """All keys, 'section.key'."""
    for name, field in kind.model_fields.items():
        inner = section_of(field)
        if inner is None:
            yield prefix + name
        else:
            yield from keys_of(inner, f"{prefix}{name}.")


def section_of(field: FieldInfo) -> type[Section] | None:
    """The section that a field is, if it is one."""
    found = field.annotation
    return found if isinstance(found, type) and issubclass(found, Section) else None


def lines(section: Section, prefix: str = "") -> Iterator[str]:
    """Every key at its value with what it means; sections behind the keys of their own level."""
    fields = type(section).model_fields
    for key, info in fields.items():
        if section_of(info) is None:
            yield _line(key, getattr(section, key), info)
    for key, info in fields.items():
        if section_of(info) is not None:
            inner = list(lines(getattr(section, key), f"{prefix}{key}."))
            about = f"  # {info.description}" if info.description else ""
            yield from ("", f"[{prefix}{key}]{about}", *inner)


def _line(key: str, value: object, info: FieldInfo) -> str:
    if value is None:
        return f"# {key} =  # {info.description}"
    # what JSON writes for these, TOML reads
    return f"{key} = {json.dumps(value, ensure_ascii=False)}  # {info.description}"
