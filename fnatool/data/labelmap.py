"""The colours of masks by name: labelmap.txt as CVAT writes it, a line `name:red,green,blue:parts:actions` for each
label.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from fnatool.data.folders import special
from fnatool.data.sources import lines_of
from passes.errors import UserError

LABELMAP = "labelmap.txt"
LINE = re.compile(r"(?P<name>[^:]+):\s*(?P<red>\d{1,3})\s*,\s*(?P<green>\d{1,3})\s*,\s*(?P<blue>\d{1,3})\s*(:.*)?")
MOST = 254  # labels


@dataclass(frozen=True)
class NamedColour:
    """A label and its red, green and blue."""

    name: str
    colour: tuple[int, int, int]


def labelmap(root: Path) -> tuple[NamedColour, ...] | None:
    """The labels that labelmap.txt of root names, in the order of its lines; None where there is no such file.

    Raises UserError where a line is not of that form, or two labels have one name or colour.
    """
    file = root / LABELMAP
    if not file.is_file() or special(file) is not None:
        return None
    found: list[NamedColour] = []
    for number, line in enumerate(lines_of(file), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        read = LINE.fullmatch(line.strip())
        colour = (int(read["red"]), int(read["green"]), int(read["blue"])) if read is not None else (256, 0, 0)
        if read is None or max(colour) > 255:
            raise UserError(f"'{file}', line {number}: '{line.strip()[:60]}' is not name:red,green,blue:parts:actions")
        label = NamedColour(read["name"].strip(), colour)
        for other in found:
            if other.name == label.name or other.colour == label.colour:
                raise UserError(
                    f"'{file}', line {number}: '{label.name}' has the name or the colour of another label, "
                    f"'{other.name}'"
                )
        found.append(label)
    if not found or len(found) > MOST:
        raise UserError(f"'{file}' names {len(found)} labels; masks have 1 … {MOST}")
    return tuple(found)
