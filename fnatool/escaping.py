"""Text of others, as names in a model file are, on its way out: shown so that nothing that reads along takes it for an
order.

A terminal obeys control characters, and its reader is misled by invisible and turning ones; services for continuous
integration obey lines of a log (`::error …::` of GitHub, `##vso[…]` of Azure, `##teamcity[…]`); Markdown obeys its
marks. Programs get JSON, exact.
"""

from __future__ import annotations

import re

ORDERS = re.compile(
    r"(?:^|(?<=\s)):(?=:)"  # a workflow command begins a line, and what wraps a line does so at a space
    r"|:(?=:[\w-]+(?:\s.*?)?::)"  # or within a word that is too long for one
    r"|(?<=#)#",
    re.DOTALL,
)
MARKS = re.compile(r"([\\`*_{}\[\]<>|~$&#!])")


def shown(text: str) -> str:
    """The text in one line of printable characters: others as in Python's own strings, `\\n` or `\\x1b`, a byte that is
    none as `\\xff`.

    What begins a command to a service that reads logs is broken by an escape. Showing what is shown changes nothing.
    """
    text = printable(text)
    return ORDERS.sub(lambda found: f"\\x{ord(found[0]):02x}", text) if "::" in text or "##" in text else text


def printable(text: str) -> str:
    """The same, but for commands in it."""
    return text if text.isprintable() else "".join(map(_escape, text))


def _escape(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python carries a byte of a file name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode()


def document(text: str) -> str:
    """A JSON document, which escapes control characters itself, in which commands in strings are broken by an escape:
    it says the same.
    """
    return text.replace("##", "#\\u0023")


def markdown(text: str) -> str:
    """The same as text in a Markdown page, in a cell of a table too: no mark in it means anything."""
    return MARKS.sub(r"\\\1", shown(text))


def code(text: str) -> str:
    """The same as a code span in a Markdown page: longer fences than any in it."""
    text = shown(text)
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") or not text else ""
    return f"{fence}{pad}{text}{pad}{fence}"
