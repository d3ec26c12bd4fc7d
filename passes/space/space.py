"""Space: which networks a search may choose from. The same flat map as a Spec, knobs to lists of values; and what it
means, block by block.

What is local to a block is chosen block by block (kernels, hidden and squeeze widths, groups, and whether the block is
there at all), so that the cost of a member is the sum of its blocks' costs. Widths outside blocks, the trunk, are
chosen all at once: several values of theirs are columns, the first of every key, then the second. All else has one
value.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from passes.channels.groups import keeps_function
from passes.errors import UserError
from passes.network.analysis import Analysis
from passes.network.knobs import Knob, block_knob, block_name, block_of, kind_of, stage_knob
from passes.target.resolve import resolve
from passes.target.spec import VERSION, Spec, Value, pattern_of, require_readable

CHOSEN = ("kernel", "hidden", "se", "groups")
TRUNK = "width"  # the kind of what is chosen for the whole network at once
SKIP = -1
MOST_CANDIDATES = 256  # of one block


@dataclass(frozen=True)
class Space:
    """What the user writes: knob or pattern → the values to choose from."""

    knobs: Mapping[str, tuple[Value, ...]]

    def to_json(self) -> dict[str, object]:
        """The Space as it is written in a file."""
        return {"version": VERSION, "knobs": {key: list(values) for key, values in self.knobs.items()}}


@dataclass(frozen=True)
class SpaceBlock:
    """One block of the largest member: the seed's block behind it, its candidates, and whether it may be skipped.

    A candidate maps the block's knobs, without the block's name, to values.
    """

    stage: int
    block: int
    source: int
    candidates: tuple[Mapping[str, int], ...]
    skippable: bool

    @property
    def name(self) -> str:
        """stageI.blockJ"""
        return block_name(self.stage, self.block)


@dataclass(frozen=True)
class Choices:
    """A Space on one network: all blocks of the largest member in order, the fewest blocks a stage keeps, and every
    other knob's value.

    `trunks` are the ways the widths outside blocks may be: for each those that are not what they would be without it,
    the nearest to the seed's first. Members speak of the first one; `at` has those of another.
    """

    blocks: tuple[SpaceBlock, ...]
    least: Mapping[int, int]
    fixed: Mapping[str, Value]
    trunks: tuple[Mapping[str, int], ...] = ({},)

    def at(self, trunk: int) -> Choices:
        """The choices of that trunk alone."""
        return replace(self, trunks=(self.trunks[trunk],))

    @property
    def size(self) -> int:
        """How many members there are, counting which blocks a stage keeps, over all trunks."""
        total = len(self.trunks)
        for i, blocks in itertools.groupby(self.blocks, key=lambda block: block.stage):
            by_kept = {0: 1}  # blocks kept so far → ways
            for block in blocks:
                ways: dict[int, int] = {}
                for kept, count in by_kept.items():
                    ways[kept + 1] = ways.get(kept + 1, 0) + count * len(block.candidates)
                    if block.skippable:
                        ways[kept] = ways.get(kept, 0) + count
                by_kept = ways
            total *= sum(count for kept, count in by_kept.items() if kept >= self.least[i])
        return total

    def with_originals(self) -> Choices:
        """The same, but a block of which the largest member has copies is always there.

        By `preserve` a copy is silent beside its original, and would have to speak where that is skipped: no slice of
        one weight is both.
        """
        count = Counter((block.stage, block.source) for block in self.blocks)
        copied = [count[block.stage, block.source] > 1 and block.block == block.source for block in self.blocks]
        return replace(
            self,
            blocks=tuple(
                replace(block, skippable=block.skippable and not kept)
                for block, kept in zip(self.blocks, copied, strict=True)
            ),
        )

    def largest(self) -> tuple[int, ...]:
        """The member with every block, each at its largest candidate."""
        return tuple(max(range(len(b.candidates)), key=lambda k: _rank(b.candidates[k])) for b in self.blocks)

    def spec(self, member: Sequence[int]) -> Spec:
        """The Spec of a member: per block the number of its candidate, or SKIP. Raises UserError where it is no
        member.
        """
        self.require_member(member)
        knobs: dict[str, Value] = {**self.fixed, **self.trunks[0]}
        for i, group in itertools.groupby(zip(self.blocks, member, strict=True), key=lambda pair: pair[0].stage):
            kept = [(block, k) for block, k in group if k != SKIP]
            knobs[stage_knob(i, "depth")] = len(kept)
            for j, (block, k) in enumerate(kept):
                if j and block.source != min(j, self._last(i)):
                    knobs[block_knob(i, j, "from")] = block.source
                for tail, value in block.candidates[k].items():
                    knobs[block_knob(i, j, tail)] = value
        return Spec(knobs)

    def _last(self, stage: int) -> int:
        return max(block.source for block in self.blocks if block.stage == stage)

    def require_member(self, member: Sequence[int]) -> None:
        """Raises UserError where the numbers do not choose one of each block's candidates, or too few blocks."""
        if len(member) != len(self.blocks):
            raise UserError(f"a member chooses for each of the {len(self.blocks)} blocks, not {len(member)}")
        kept = dict.fromkeys(self.least, 0)
        for block, k in zip(self.blocks, member, strict=True):
            if not (0 <= k < len(block.candidates) or (k == SKIP and block.skippable)):
                raise UserError(f"{block.name} has no candidate {k}")
            kept[block.stage] += k != SKIP
        for i, count in kept.items():
            if count < self.least[i]:
                raise UserError(f"stage{i} keeps at least {self.least[i]} blocks, not {count}")


def _rank(candidate: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(-value if tail.startswith("groups") else value for tail, value in candidate.items())


def parse_space(document: object) -> Space:
    """A Space from its JSON document; raises UserError for anything that is not one."""
    if not isinstance(document, Mapping) or not isinstance(document.get("knobs"), Mapping):
        raise UserError("a space is a JSON object with 'version' and 'knobs': knob → list of values")
    if document.get("version") != VERSION or isinstance(document.get("version"), bool):
        raise UserError(f"this space has version {document.get('version')!r}; this fnatool reads version {VERSION}")
    unknown = sorted(set(map(str, document)) - {"version", "knobs"})
    if unknown:
        raise UserError(f"a space has the keys 'version' and 'knobs', not {', '.join(map(repr, unknown))}")
    knobs: dict[str, tuple[Value, ...]] = {}
    require_readable({str(key): values for key, values in document["knobs"].items()})
    for key, values in document["knobs"].items():
        row = tuple(values) if isinstance(values, list) else (values,)
        if len(row) > MOST_CANDIDATES:
            raise UserError(f"'{str(key)[:80]}' has {len(row)} values, the most is {MOST_CANDIDATES}; give it fewer")
        if not row or any(isinstance(value, bool) or not isinstance(value, (int, str)) for value in row):
            raise UserError(f'\'{key}\' must be a list of integers or strings such as "x1.25", "+1", "-2"')
        require_readable({str(key): value for value in row if isinstance(value, str)})
        knobs[str(key)] = row
    return Space(knobs)


def overlaid(space: Space, knobs: Mapping[str, tuple[Value, ...]]) -> Space:
    """The Space in which these knobs have these values, whatever it said of what they match."""
    patterns = [pattern_of(key) for key in knobs]
    kept = {
        key: values for key, values in space.knobs.items() if not any(pattern.fullmatch(key) for pattern in patterns)
    }
    return Space({**kept, **knobs})


def choices(analysis: Analysis, space: Space) -> Choices:
    """What a Space means on a network.

    Raises UserError for unknown knobs and impossible values, for several values of a knob that is neither a block's own
    nor a width, and where there is nothing to choose.
    """
    _require_local(analysis, space)
    columns = {key: len(values) for key, values in space.knobs.items()}
    if not any(count > 1 for count in columns.values()):
        raise UserError("every knob of this space has one value: there is nothing to search; give some of them several")
    depths = _depths(analysis, space)
    deepest: dict[str, Value] = {stage_knob(i, "depth"): depth for i, (_, depth) in depths.items()}
    values = _values(analysis, space, deepest)
    own = resolve(analysis, Spec(deepest))
    last_read = _last_read(analysis)
    blocks = []
    for i, sources in own.sources.items():
        repeatable = analysis.stages[i].repeatable
        for j, source in enumerate(sources):
            rows = {
                block_tail: found for knob, found in values.items() if (block_tail := _tail(knob, i, j)) is not None
            }
            count = math.prod(map(len, rows.values()))
            if count > MOST_CANDIDATES:
                raise UserError(
                    f"stage{i}.block{j} has {count:,} candidates, the most is {MOST_CANDIDATES}; give it fewer values"
                )
            candidates = tuple(dict(zip(rows, row, strict=True)) for row in itertools.product(*rows.values()))
            skippable = depths[i][0] < depths[i][1] and j > last_read[i] and source in repeatable
            blocks.append(SpaceBlock(i, j, source, candidates, skippable))
    alone = {key: row[0] for key, row in space.knobs.items() if len(row) == 1 and not _is_depth(key)}
    trunks = _trunks(analysis, space, {**deepest, **alone})
    if len(trunks) < 2 and not any(len(block.candidates) > 1 or block.skippable for block in blocks):
        raise UserError(
            "this space leaves the network's blocks, if it has any, without a choice: there is nothing to search"
        )
    fixed = {key: value for key, value in alone.items() if not _chosen(key)}
    outside = resolve(analysis, Spec({**deepest, **alone})).values
    fixed |= {
        name: outside[name]
        for name, knob in analysis.knobs.items()
        if name.startswith("node:") and outside[name] != knob.value
    }
    return Choices(tuple(blocks), {i: least for i, (least, _) in depths.items()}, fixed, trunks)


def _trunks(analysis: Analysis, space: Space, alone: Mapping[str, Value]) -> tuple[Mapping[str, int], ...]:
    """The widths outside blocks column by column, as far as they are not those of `alone`; the nearest to the seed's
    first, then the wider.

    Raises UserError where keys have not equally many values.
    """
    rows = {key: row for key, row in space.knobs.items() if len(row) > 1 and _is_trunk(key)}
    if not rows:
        return ({},)
    first, *others = rows
    for key in others:
        if len(rows[key]) != len(rows[first]):
            raise UserError(
                f"'{first}' has {len(rows[first])} values and '{key}' {len(rows[key])}, but widths outside "
                "blocks are chosen together, the "
                "first of every key, then the second; give them equally many"
            )
    names = [name for name, knob in analysis.knobs.items() if knob.kind == TRUNK and block_of(name) is None]
    usual = resolve(analysis, Spec(alone)).values
    found: list[dict[str, int]] = []
    for column in range(len(rows[first])):
        values = resolve(analysis, Spec({**alone, **{key: row[column] for key, row in rows.items()}})).values
        trunk = {name: values[name] for name in names if values[name] != usual[name]}
        if trunk not in found:
            found.append(trunk)

    def apart(trunk: Mapping[str, int]) -> tuple[float, int]:
        widths = {name: trunk.get(name, usual[name]) for name in names}
        return sum(abs(math.log(value / analysis.knobs[name].value)) for name, value in widths.items()), -sum(
            widths.values()
        )

    return tuple(sorted(found, key=apart))


def trunk_share(analysis: Analysis, found: Choices, trunk: int) -> float:
    """How wide a trunk is beside the seed's: the sum of the widths that are not alike in all trunks, of that of the
    seed's.
    """
    names = dict.fromkeys(name for one in found.trunks for name in one)
    own = {name: analysis.knobs[name].value for name in names}
    fixed = {name: value for name, value in found.fixed.items() if isinstance(value, int)}
    return sum({**own, **fixed, **found.trunks[trunk]}[name] for name in names) / sum(own.values()) if names else 1.0


def _last_read(analysis: Analysis) -> list[int]:
    """Per stage the last block that has to be where it is: the first one, or one that a head reads inside, or at its
    exit.
    """
    seen = analysis.view
    inside = {name for stage in analysis.stages for block in stage.blocks for name in block.nodes}
    found = []
    for stage in analysis.stages:
        read = [
            bool(block.tapped) or any(name not in inside for name, _ in seen.readers.get(block.exit, ()))
            for block in stage.blocks
        ]
        read[-1] = bool(stage.blocks[-1].tapped)  # whose exit is the stage's, wherever that is
        found.append(max((j for j, is_read in enumerate(read) if is_read), default=0))
    return found


def _tail(knob: str, stage: int, block: int) -> str | None:
    found = block_of(knob)
    return found[2] if found is not None and found[:2] == (stage, block) else None


def _is_depth(key: str) -> bool:
    return key.rpartition(".")[2] == "depth"


def _chosen(key: str) -> bool:
    """Whether a key speaks of knobs that a block may choose."""
    return "." in key and kind_of(key) in CHOSEN


def _is_trunk(key: str) -> bool:
    """Whether a key speaks of widths outside blocks: those inside have other names."""
    return "." in key and kind_of(key) == TRUNK


def _require_local(analysis: Analysis, space: Space) -> None:
    for key, row in space.knobs.items():
        if key.endswith(".from"):
            raise UserError(
                f"'{key}': which blocks of a stage stay is for the search to say; give the stage several depths instead"
            )
        if len(row) > 1 and not _is_depth(key) and not _chosen(key) and not _is_trunk(key):
            raise UserError(
                f"'{key}' has {len(row)} values, but a search chooses only depth, the blocks' own "
                f"{', '.join(CHOSEN)} and widths outside "
                "blocks; give it one"
            )
        if (
            len(row) > 1
            and key in analysis.knobs
            and block_of(key) is None
            and not _is_depth(key)
            and not _is_trunk(key)
        ):
            raise UserError(f"'{key}' is not a block's own; give it one value")


def _depths(analysis: Analysis, space: Space) -> dict[int, tuple[int, int]]:
    """Stage → the fewest and the most blocks it may have."""
    rows = {key: row for key, row in space.knobs.items() if _is_depth(key)}
    longest = max((len(row) for row in rows.values()), default=1)
    found: dict[int, list[int]] = {i: [] for i in range(len(analysis.stages))}
    for column in range(longest):
        resolved = resolve(analysis, Spec({key: row[min(column, len(row) - 1)] for key, row in rows.items()}))
        for i in found:
            found[i].append(resolved.values[stage_knob(i, "depth")])
    for i, depths in found.items():
        if set(range(min(depths), max(depths) + 1)) != set(depths):
            raise UserError(f"the depths of stage{i} are {sorted(set(depths))}; list all from the least to the most")
    return {i: (min(depths), max(depths)) for i, depths in found.items()}


def _values(analysis: Analysis, space: Space, deepest: Mapping[str, Value]) -> dict[str, tuple[int, ...]]:
    """Knob of a block of the deepest member → its values, in the order given."""
    keys = {key: row for key, row in space.knobs.items() if not _is_depth(key)}
    longest = max((len(row) for row in keys.values()), default=1)
    found: dict[str, list[int]] = {}
    chosen: dict[str, Knob] = {}
    for column in range(longest):
        spec = Spec({**deepest, **{key: row[min(column, len(row) - 1)] for key, row in keys.items()}})
        resolved = resolve(analysis, spec)
        for name, value in resolved.values.items():
            if block_of(name) is not None and resolved.knobs[name].kind != "from":
                found.setdefault(name, []).append(value)
                chosen[name] = resolved.knobs[name]
    return {
        name: tuple(dict.fromkeys(row))
        for name, row in found.items()
        if len(set(row)) > 1 or row[0] != chosen[name].value
    }


def own_choices(analysis: Analysis, found: Choices) -> tuple[int | None, ...]:
    """Per block what the seed has there: the number of its candidate, SKIP for a block it has not; None where that is
    not to be chosen.
    """
    return tuple(_own(analysis, block) for block in found.blocks)


def _own(analysis: Analysis, block: SpaceBlock) -> int | None:
    if block.skippable and block.block >= len(analysis.stages[block.stage].blocks):
        return SKIP
    # others cannot be told apart
    tails = [tail for tail in block.candidates[0] if len({row[tail] for row in block.candidates}) > 1]
    seeds = {tail: analysis.knobs[block_knob(block.stage, block.source, tail)].value for tail in tails}
    return next((k for k, row in enumerate(block.candidates) if all(row[tail] == seeds[tail] for tail in tails)), None)


def own_member(analysis: Analysis, found: Choices) -> tuple[int, ...] | None:
    """The member that is the seed; None where the space does not hold it."""
    own = resolve(analysis, Spec({}))
    member = []
    for block in found.blocks:
        if block.block >= len(own.sources[block.stage]):
            member.append(SKIP)
            continue
        values = {tail: own.values.get(f"{block.name}.{tail}") for tail in block.candidates[0]}
        if values not in block.candidates:
            return None
        member.append(block.candidates.index(values))
    if any(k == SKIP and not block.skippable for block, k in zip(found.blocks, member, strict=True)):
        return None
    spec = resolve(analysis, found.spec(member))
    return tuple(member) if (spec.values, spec.sources) == (own.values, own.sources) else None


def without_growth(analysis: Analysis, found: Choices) -> Choices:
    """The choices without what only grows: such a candidate computes what a cheaper one does, as long as nothing is
    trained.

    Left out are larger kernels and widths than the seed's, fewer groups that keep its function, blocks that it has not,
    and trunks that are wider somewhere; except where a space leaves nothing else, and then the smallest of them stays,
    of trunks the nearest.
    """
    blocks = []
    for block in found.blocks:
        most = max(len(analysis.stages[block.stage].blocks), found.least[block.stage])
        if block.skippable and block.block >= most:
            continue
        own = {tail: analysis.knobs[block_knob(block.stage, block.source, tail)] for tail in block.candidates[0]}
        smallest: dict[tuple[int, ...], Mapping[str, int]] = {}
        for row in sorted(block.candidates, key=_rank):
            smallest.setdefault(tuple(_function(own[tail], value) for tail, value in row.items()), row)
        kept = tuple(row for row in block.candidates if row in smallest.values())
        blocks.append(replace(block, candidates=kept))
    narrow = tuple(
        trunk for trunk in found.trunks if all(value <= analysis.knobs[name].value for name, value in trunk.items())
    )
    return replace(found, blocks=tuple(blocks), trunks=narrow or found.trunks[:1])


def _function(own: Knob, value: int) -> int:
    """The same for values of a knob with which a block computes the same."""
    if own.kind == "groups":
        return own.value if keeps_function(own.value, value) else value
    return min(value, own.value)


def held_to(multiple: int, analysis: Analysis, found: Choices) -> Choices:
    """The choices whose widths are multiples, outside blocks those that change.

    Raises UserError where a block that may choose its width, or the trunk, is left with none.
    """
    blocks = []
    for block in found.blocks:
        widths = [tail for tail in block.candidates[0] if _is_width(analysis, block, tail)]
        kept = tuple(row for row in block.candidates if not any(row[tail] % multiple for tail in widths))
        if not kept:
            values = {tail: sorted({row[tail] for row in block.candidates}) for tail in widths}
            listed = "; ".join(f"{tail} {', '.join(map(str, row))}" for tail, row in values.items())
            raise UserError(
                f"{block.name} has no widths that are multiples of {multiple} to choose from ({listed}); give it some"
            )
        blocks.append(replace(block, candidates=kept))
    even = tuple(trunk for trunk in found.trunks if not any(value % multiple for value in trunk.values()))
    if not even:
        raise UserError(f"of the widths outside blocks no column consists of multiples of {multiple}; give one")
    return replace(found, blocks=tuple(blocks), trunks=even)


def _is_width(analysis: Analysis, block: SpaceBlock, tail: str) -> bool:
    return analysis.knobs[block_knob(block.stage, block.source, tail)].kind == "width"


def members(found: Choices) -> Iterable[tuple[int, ...]]:
    """All members of the first trunk, for spaces small enough to look at each."""
    rows = [[*range(len(block.candidates)), *([SKIP] if block.skippable else [])] for block in found.blocks]
    for member in itertools.product(*rows):
        kept = dict.fromkeys(found.least, 0)
        for block, k in zip(found.blocks, member, strict=True):
            kept[block.stage] += k != SKIP
        if all(kept[i] >= least for i, least in found.least.items()):
            yield member


def log10_size(found: Choices) -> float:
    """The number of members as a power of ten."""
    return math.log10(found.size)
