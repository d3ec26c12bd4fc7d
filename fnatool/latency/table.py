"""The file of a latency table: what it is of, where it was measured, and what every choice costs, in nanoseconds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fnatool.files.atomic import write_text
from fnatool.files.documents import read_json
from fnatool.latency.fitting import Fit
from passes.errors import UserError
from passes.graph.tensors import Shape
from passes.network.analysis import Analysis
from passes.space.costs import Table
from passes.space.space import Choices


def about(sha256: str, analysis: Analysis, found: Choices) -> About:
    """What a table of these Choices on the seed with this hash says it is of."""
    inputs = {
        name: analysis.shapes.shapes[name] for name in analysis.view.inputs if name not in analysis.view.constants
    }
    return About(sha256, space_signature(found), inputs)


VERSION, KIND = 1, "latency"
MOST = 1 << 53  # nanoseconds, a hundred days; sums of them stay exact in the solver's floating point


@dataclass(frozen=True)
class About:
    """What a table is of: the seed's SHA-256, the Choices by their signature, and the sizes of the inputs."""

    seed: str
    space: str
    inputs: Mapping[str, Shape]


@dataclass(frozen=True)
class Timed:
    """A member that was timed whole: the sum of its parts, and its own time, in nanoseconds."""

    member: tuple[int, ...]
    parts: float
    measured: float


@dataclass(frozen=True)
class LatencyTable:
    """The Table that a search reads (a and b are in it), the sums of parts it was made of, and how that was done.

    load: the load of the machine in the last minute, before and after measuring.
    """

    about: About
    provider: str
    place: str
    clock: str
    rounds: int
    table: Table
    parts: Table
    fit: Fit
    members: tuple[Timed, ...]
    load: tuple[float, float]


def space_signature(found: Choices) -> str:
    """The same for Choices with the same members, in the same order."""
    blocks = [[b.name, b.source, [sorted(c.items()) for c in b.candidates], b.skippable] for b in found.blocks]
    document = [blocks, sorted(found.least.items()), sorted((key, value) for key, value in found.fixed.items())]
    return hashlib.sha256(json.dumps(document).encode()).hexdigest()


def write(made: LatencyTable, path: Path, *, force: bool = False) -> None:
    """The table as a file. Raises UserError where there is one and not force, and OSError."""
    document = {
        "version": VERSION,
        "kind": KIND,
        "unit": "ns",
        "seed": f"sha256:{made.about.seed}",
        "space": f"sha256:{made.about.space}",
        "inputs": {name: list(shape) for name, shape in made.about.inputs.items()},
        "provider": made.provider,
        "place": made.place,
        "clock": made.clock,
        "rounds": made.rounds,
        "load": list(made.load),
        "fit": {"a": made.fit.a, "b": made.fit.b, "error": made.fit.error, "error_left_out": made.fit.error_left_out},
        "members": [{"member": list(one.member), "parts": one.parts, "measured": one.measured} for one in made.members],
        "parts": _columns(made.parts),
        "table": _columns(made.table),
    }
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in document.items())
    write_text(path, f"{{\n{lines}\n}}\n", force=force)


def _columns(table: Table) -> dict[str, object]:
    return {"base": table.base, "blocks": [list(row) for row in table.blocks]}


# --- reading ------------------------------------------------------------------------------------


def read(path: Path, about: About, found: Choices, *, provider: str | None = None) -> LatencyTable:
    """The table in a file, which is of this seed, these Choices and sizes, and of the provider where one is given.

    Raises UserError where it is not, saying what to do.
    """
    document = read_json(path, "latency table")
    if not isinstance(document, Mapping) or document.get("kind") != KIND:
        raise UserError(
            f"'{path}' is no latency table; 'fnatool latency-table SEED --space SPACE -o {path.name}' writes one"
        )
    if document.get("version") != VERSION or isinstance(document.get("version"), bool):
        raise UserError(
            f"'{path}' has version {document.get('version')!r}; this fnatool reads version {VERSION}; measure it anew"
        )
    try:
        made = _parsed(document)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        reason = f"'{error.args[0]}' is missing" if isinstance(error, KeyError) else str(error)
        raise UserError(f"'{path}' is damaged: {reason}; measure it anew with 'fnatool latency-table'") from error
    _require_about(path, made.about, about)
    if provider is not None and made.provider != provider:
        raise UserError(
            f"'{path}' was measured on {made.provider}, not on {provider}; measure one with --provider {provider}"
        )
    rows = [len(block.candidates) for block in found.blocks]
    if any([len(row) for row in table.blocks] != rows for table in (made.table, made.parts)):
        raise UserError(
            f"'{path}' is damaged: its rows are not those of the space; measure it anew with 'fnatool latency-table'"
        )
    return made


def _require_about(path: Path, found: About, wanted: About) -> None:
    again = "measure one for it with 'fnatool latency-table'"
    if found.seed != wanted.seed:
        raise UserError(
            f"'{path}' is of another seed (sha256:{found.seed[:12]}…, not sha256:{wanted.seed[:12]}…); {again}"
        )
    if found.inputs != wanted.inputs:
        raise UserError(f"'{path}' is for inputs {_sizes(found.inputs)}, not {_sizes(wanted.inputs)}; {again}")
    if found.space != wanted.space:
        raise UserError(f"'{path}' is of another space; {again}")


def _sizes(inputs: Mapping[str, Shape]) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in inputs.items()) or "none"


def _parsed(document: Mapping[str, object]) -> LatencyTable:
    """Raises KeyError, TypeError, ValueError or OverflowError where something is missing or is not what it must be."""
    numbers = _mapping(document["fit"], "fit")
    load = [_real(value, "load") for value in _list(document["load"], "load")]
    if len(load) != 2:
        raise ValueError("'load' is not two numbers")
    return LatencyTable(
        about=About(
            _text(document["seed"], "seed").removeprefix("sha256:"),
            _text(document["space"], "space").removeprefix("sha256:"),
            {name: _whole_numbers(shape, "inputs") for name, shape in _mapping(document["inputs"], "inputs").items()},
        ),
        provider=_text(document["provider"], "provider"),
        place=_text(document["place"], "place"),
        clock=_text(document["clock"], "clock"),
        rounds=_whole(document["rounds"], "rounds"),
        table=_table(document["table"], "table"),
        parts=_table(document["parts"], "parts"),
        fit=Fit(*(_real(numbers[key], "fit") for key in ("a", "b", "error", "error_left_out"))),
        members=tuple(_timed(_mapping(row, "members")) for row in _list(document["members"], "members")),
        load=(load[0], load[1]),
    )


def _timed(row: Mapping[str, object]) -> Timed:
    return Timed(
        _whole_numbers(row["member"], "members"), _real(row["parts"], "members"), _real(row["measured"], "members")
    )


def _table(value: object, key: str) -> Table:
    rows = _mapping(value, key)
    blocks = tuple(_whole_numbers(row, key) for row in _list(rows["blocks"], key))
    if any(cost < 0 for row in blocks for cost in row):
        raise ValueError(f"'{key}' holds a negative time")
    return Table(_whole(rows["base"], key), blocks)


def _whole_numbers(value: object, key: str) -> tuple[int, ...]:
    return tuple(_whole(one, key) for one in _list(value, key))


def _whole(value: object, key: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= MOST:
        raise TypeError(f"'{key}' holds {str(value)[:40]!r}, which is no whole number below {MOST}")
    return value


def _real(value: object, key: str) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) < MOST:
        raise TypeError(f"'{key}' holds {str(value)[:40]!r}, which is no number below {MOST}")
    return float(value)


def _text(value: object, key: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"'{key}' is no text")
    return value


def _list(value: object, key: str) -> Sequence[object]:
    if not isinstance(value, list):
        raise TypeError(f"'{key}' is no list")
    return value


def _mapping(value: object, key: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise TypeError(f"'{key}' is no object")
    return value
