"""A small XML file as a tree, read without trust: no entities, no document type from elsewhere, bounded in size and
depth.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from fnatool.data import folders
from fnatool.data.inputs import Unreadable

LARGEST = 16 << 20  # bytes of a file
DEEPEST = 32  # elements within each other


@dataclass(frozen=True)
class Element:
    """An element: its tag, the text in it that is in no element of its own, and the elements in it."""

    tag: str
    text: str = ""
    inner: tuple[Element, ...] = ()

    def all(self, tag: str) -> list[Element]:
        """The elements in it of that tag."""
        return [element for element in self.inner if element.tag == tag]

    def words(self, tag: str) -> str | None:
        """The text of the first element of that tag in it, without the spaces around; None where there is none."""
        return next((element.text.strip() for element in self.inner if element.tag == tag), None)


@dataclass
class _Open:
    """An element whose end has not been read."""

    tag: str
    text: list[str] = field(default_factory=list)
    inner: list[Element] = field(default_factory=list)

    def closed(self) -> Element:
        return Element(self.tag, "".join(self.text), tuple(self.inner))


def parsed(path: Path) -> Element:
    """The element that is the file. Raises Unreadable."""
    kind = folders.special(path)
    if kind is not None:
        raise Unreadable(f"it is {kind}, not a file")
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise Unreadable("there is no such file") from None
    except OSError as error:
        raise Unreadable(f"it cannot be read ({error.strerror})") from error
    if len(content) > LARGEST:
        raise Unreadable(f"it is larger than {LARGEST >> 20} MiB; labels of one picture are not")
    return _tree(content)


def _tree(content: bytes) -> Element:
    top = _Open("")
    stack = [top]

    def start(tag: str, attributes: dict[str, str]) -> None:
        if len(stack) > DEEPEST:
            raise Unreadable(f"its elements lie more than {DEEPEST} deep in each other")
        stack.append(_Open(tag))

    def end(tag: str) -> None:
        done = stack.pop()
        stack[-1].inner.append(done.closed())

    def declared(*about: object) -> None:
        raise Unreadable("it declares entities, or has a document type from elsewhere; neither belongs into labels")

    def typed(name: str, system: str | None, public: str | None, inner: bool) -> None:
        if system is not None or public is not None:
            declared()

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = lambda text: stack[-1].text.append(text)
    parser.EntityDeclHandler, parser.StartDoctypeDeclHandler = declared, typed
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        why = expat.errors.messages.get(error.code, "")
        raise Unreadable(f"it is not XML, or not all of it (line {error.lineno}: {why})") from error
    except (ValueError, LookupError) as error:  # an encoding that Python does not know, or of several bytes
        raise Unreadable(f"its encoding cannot be read ({error})") from error
    return top.inner[0]
