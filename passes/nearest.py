"""What may have been meant by a name that is none of those there are."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence

MOST_CHARACTERS = 200  # of a name that somebody mistyped
MOST_NAMES = 5000


def nearest(wanted: str, names: Sequence[str]) -> str | None:
    """The likeliest of the names, if any is: written alike but for case and signs; of the same last part (`lr`,
    `optimiser.lr`), or an abbreviation of it (`learning_rate`); going on where what is wanted ends (`mobilenetv2`,
    `mobilenetv2_bn`); else of like letters.
    """
    if not wanted or len(wanted) > MOST_CHARACTERS:
        return None
    for alike in ALIKE:
        found = [name for name in names if alike(wanted.casefold(), name.casefold())]
        if found:
            return max(found, key=lambda name: (_shared(wanted, name), -len(name)))
    few = names[:MOST_NAMES]
    family = [name for name in few if name.partition(".")[0] == wanted.partition(".")[0]]
    close = difflib.get_close_matches(wanted, family, 9, 0.5) or difflib.get_close_matches(wanted, few, 9, 0.6)
    alike_most = {name for name in close if _ratio(name, wanted) == _ratio(close[0], wanted)}
    return min((name for name in few if name in alike_most), key=lambda name: _apart(name, wanted), default=None)


def _apart(name: str, wanted: str) -> int:
    """How far the numbers in both are apart: for a stage that there is not, the last is meant rather than the first."""
    pairs = zip(re.findall(r"\d{1,9}", name), re.findall(r"\d{1,9}", wanted), strict=False)
    return sum(abs(int(one) - int(other)) for one, other in pairs)


def _ratio(name: str, wanted: str) -> float:
    return difflib.SequenceMatcher(None, name, wanted).ratio()


def _shared(one: str, other: str) -> int:
    """How many parts between dots both begin with."""
    pairs = zip(one.split("."), other.split("."), strict=False)
    return next((k for k, (a, b) in enumerate(pairs) if a != b), min(one.count("."), other.count(".")))


def _same(wanted: str, name: str) -> bool:
    return _plain(wanted) == _plain(name)


def _same_end(wanted: str, name: str) -> bool:
    """The last parts are the same where one of them is all there is: else another block's knob would be meant."""
    return wanted.rpartition(".")[2] == name.rpartition(".")[2] and "." not in (wanted if "." in name else name)


def _initials(wanted: str, name: str) -> bool:
    one, other = wanted.rpartition(".")[2], name.rpartition(".")[2]
    sections = wanted.rpartition(".")[0], name.rpartition(".")[0]
    return (not sections[0] or sections[0] == sections[1]) and (_short(one) == other or _short(other) == one)


def _short(part: str) -> str:
    """The first letters of a part's words, of which there are two or more: `learning_rate` → `lr`."""
    words = [word for word in re.split(r"[_\W]+", part) if word]
    return "".join(word[0] for word in words) if len(words) > 1 else ""


def _beginning(wanted: str, name: str) -> bool:
    return len(wanted) > 2 and len(name) <= 2 * len(wanted) and name.startswith(wanted)


def _plain(name: str) -> str:
    return re.sub(r"[_\W]+", "", name) or name


ALIKE: Sequence[Callable[[str, str], bool]] = (_same, _same_end, _initials, _beginning)


def closest(key: str, names: Sequence[str]) -> str:
    """The end of a message about an unknown knob: what may have been meant, and where all are listed."""
    close = nearest(key, names)
    hint = f"; did you mean '{close}'?" if close else ";"
    return f"{hint} 'fnatool inspect' lists all {len(names)}"
