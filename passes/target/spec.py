"""Spec: a flat map from knobs to values; what the user writes, resolved against an analysis into one value per knob of
the target.

Order of resolution: depth, then `from`, then everything else on the blocks the target will have. An exact key beats a
pattern.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from passes.errors import UserError
from passes.network.knobs import BATCH, FREE, IMAGE, Size

VERSION = 1
MAX_KEY, MAX_VALUE = 4200, 100  # characters
MAX_KNOBS, MAX_PATTERNS = 100_000, 1000
MAX_SIDE = 32768  # pixels
MAX_BATCH = 1 << 16
MAX_CHANNELS = 4096  # of an image
Value = int | str | Size


@dataclass(frozen=True)
class Spec:
    """What the user wants: knob or pattern → integer, or a string relative to the seed's value ("x1.25", "+1", "-2").

    The image's size, and nothing else, may be a pair of integers, its height and its width; the batch, and nothing
    else, may be "free". No pattern speaks of them or of the stride.
    """

    knobs: Mapping[str, Value]
    seed: str | None = None

    def to_json(self) -> dict[str, object]:
        """The Spec as it is written in a file."""
        head: dict[str, object] = {"version": VERSION}
        if self.seed is not None:
            head["seed"] = self.seed
        return {**head, "knobs": dict(self.knobs)}


def parse(document: object) -> Spec:
    """A Spec from its JSON document; raises UserError for anything that is not one."""
    if not isinstance(document, Mapping):
        raise UserError(f"a spec is a JSON object with 'version' and 'knobs', not {_kind(document)}")
    unknown = sorted(set(map(str, document)) - {"version", "seed", "knobs"})
    if unknown:
        hint = "; knobs go inside 'knobs'" if any("." in key for key in unknown) else ""
        named = some_of([repr(_short(key)) for key in unknown])
        raise UserError(f"a spec has the keys 'version', 'seed' and 'knobs', not {named}{hint}")
    if document.get("version") != VERSION or isinstance(document.get("version"), bool):
        raise UserError(
            f"this spec has version {_short(repr(document.get('version')))}; this fnatool reads version {VERSION}"
        )
    seed, knobs = document.get("seed"), document.get("knobs", {})
    if seed is not None and not isinstance(seed, str):
        raise UserError(f"'seed' is the string 'sha256:…' that 'fnatool inspect --spec' prints, not {_kind(seed)}")
    if not isinstance(knobs, Mapping):
        raise UserError(f"'knobs' is an object of knob: value, not {_kind(knobs)}")
    require_readable(knobs)
    pair = {key: _pair(value) for key, value in knobs.items() if key == IMAGE and isinstance(value, (list, tuple))}
    for key, value in knobs.items():
        if key in pair:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise UserError(f'\'{key}\' must be an integer or a string such as "x1.25", "+1", "-2", not {_kind(value)}')
    return Spec({**knobs, **pair}, seed)


def require_readable(knobs: Mapping[str, object]) -> None:
    """Keys and values are as many and as long as people and tools write them. Raises UserError."""
    if len(knobs) > MAX_KNOBS:
        raise UserError(f"the spec has {len(knobs)} knobs, at most {MAX_KNOBS} are supported; no network has as many")
    for key, value in knobs.items():
        if len(key) > MAX_KEY:
            raise UserError(f"'{_short(key)}' is a key of {len(key)} characters; no knob has a name that long")
        if isinstance(value, str) and len(value) > MAX_VALUE:
            raise UserError(f"'{key}': '{_short(value)}' is a value of {len(value)} characters; write it shorter")
    if (patterns := sum("*" in key for key in knobs)) > MAX_PATTERNS:
        raise UserError(f"the spec has {patterns} patterns, at most {MAX_PATTERNS} are supported; name the knobs")


def _short(text: str) -> str:
    """The text, cut where it would fill the screen."""
    return text if len(text) <= MAX_VALUE else f"{text[:MAX_VALUE]}…"


def _pair(value: Sequence[object]) -> Size:
    if len(value) != 2 or any(isinstance(side, bool) or not isinstance(side, int) for side in value):
        raise UserError(
            f"'{IMAGE}' must be a list of two integers, height and width, an integer for both, or a string such "
            'as "x2"'
        )
    height, width = value
    return int(height), int(width)  # type: ignore[call-overload]


def _kind(value: object) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "a string",
        bool: "true/false",
        float: "a fraction",
        type(None): "null",
        int: "a number",
    }
    return names.get(type(value), type(value).__name__)


def some_of(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def pattern_of(key: str) -> re.Pattern[str]:
    """`*` stands for any text within a segment between dots, `**` for any text at all.

    What a star matches first is kept (atomic groups): a later place would leave no more to the rest, so no match takes
    exponential time.
    """
    *parts, last = (part.split("*") for part in re.split(r"\*{2,}", key))
    found = "".join(f"(?>.*?{_segment(part)})" if k else f"(?>{_segment(part)})" for k, part in enumerate(parts))
    *others, end = last
    rest = _segment(others) + (f"[^.]*{re.escape(end)}" if others else re.escape(end))
    return re.compile(f"{found}.*{rest}" if parts else rest, re.DOTALL)


def _segment(literals: Sequence[str]) -> str:
    """Literals with `*` between them."""
    return "".join(f"(?>[^.]*?{re.escape(text)})" if k else re.escape(text) for k, text in enumerate(literals))


RELATIVE: Mapping[str, Callable[[int, float], float]] = {
    "x": lambda seed, by: seed * by,
    "+": lambda seed, by: seed + by,
    "-": lambda seed, by: seed - by,
}


def relative_value(value: str, key: str) -> tuple[str, float]:
    """What a string says of the seed's value: x, + or -, and the number. Raises UserError for anything else."""
    found = re.fullmatch(r"([x+-])(\d+(?:\.\d+)?)", value.strip(), re.ASCII)
    if found is None or (found[1] != "x" and "." in found[2]) or float(found[2]) > 1e6:
        free = f", nor '{FREE}'" if key == BATCH else ""
        relative = 'relative to the seed\'s value, as "x1.25", "+1" or "-2" are'
        raise UserError(f"'{key}': {value!r} is neither an integer nor {relative}{free}{_plainer(value, key)}")
    return found[1], float(found[2])


def _plainer(value: str, key: str) -> str:
    """How a number in a string, or a size such as "224x224", is written."""
    number = re.fullmatch(r"\s*(\d{1,9})\s*", value, re.ASCII)
    size = re.fullmatch(r"[\s[(]*(\d{1,9})\s*[x×X*,; ]\s*(\d{1,9})[\s\])]*", value, re.ASCII)
    if number is not None:
        return f"; write {int(number[1])}, without quotation marks"
    return (
        f"; a size is written [{int(size[1])}, {int(size[2])}], height and width"
        if size is not None and key == IMAGE
        else ""
    )
