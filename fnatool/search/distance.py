"""How far a member's features are from the seed's, without training and without labels.

    d(m) = Σ_s w_s d_s / Σ_s w_s        d_s = Σ_x ‖φ_s^m(x) − φ_s(x)‖² / Σ_x ‖φ_s(x) − mean φ_s‖²

φ_s are the tensors compared, of the seed and of the member, over the same images; the mean is over the images. Channels
that a narrower trunk has not are as far as they are from their mean: ‖φ_s^m(x) − φ_s(x)‖² is taken over those kept, and
Σ_x ‖φ_s(x) − mean φ_s‖² over the others is added. BatchNormalization has the statistics of the images, batch by batch,
in both. What is known is kept in the run's folder as it grows: a distance is a function of the member and the images,
so that a run that was killed goes on to the same bits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor

from fnatool.files.atomic import write_text
from fnatool.files.documents import read_json
from fnatool.nn.reading import Reading
from fnatool.search.purposes import Batches
from fnatool.search.sampling import Member
from fnatool.supernet.members import Members, State
from fnatool.training.checkpoint import damaged
from fnatool.training.processes import World
from passes.errors import UserError
from passes.space.space import SKIP, Choices
from passes.target.kept import KeptChannels

Whole = tuple[int, ...]  # the number of a trunk, and a member
VERSION = 2  # 1 knew one trunk

Kept = Sequence[KeptChannels | None]


@dataclass(frozen=True)
class Reference:
    """The seed's features: per batch of images one tensor per place, and per place how far they are from their mean,
    and its weight.

    `kept` are the channels that the compared network has, the only ones in the features; `lost` is how far the others
    are from their mean.
    """

    features: tuple[tuple[Tensor, ...], ...]
    spread: tuple[float, ...]
    weights: tuple[float, ...]
    kept: tuple[KeptChannels | None, ...]
    lost: tuple[float, ...]

    def distance(self, features: Sequence[Sequence[Tensor]]) -> float:
        """d of a network with these features, batch by batch."""
        parts = []
        for place, (spread, weight, kept, lost) in enumerate(
            zip(self.spread, self.weights, self.kept, self.lost, strict=True)
        ):
            pairs = zip(features, self.features, strict=True)
            moved = sum(_square(_picked(own[place], kept, of_seed=False) - other[place]) for own, other in pairs)
            parts.append(weight * (moved + lost) / spread)
        return sum(parts) / sum(self.weights)

    def narrowed(self, kept: Kept) -> Reference:
        """The same for networks that have only these of the channels, by place (None: all)."""
        features = tuple(
            tuple(_picked(x, one, of_seed=True) for x, one in zip(row, kept, strict=True)) for row in self.features
        )
        lost = tuple(
            0.0 if one is None else whole - _spread([row[place] for row in features])
            for place, (whole, one) in enumerate(zip(self.spread, kept, strict=True))
        )
        return Reference(features, self.spread, self.weights, tuple(kept), lost)


def _picked(x: Tensor, kept: KeptChannels | None, *, of_seed: bool) -> Tensor:
    """The channels that network and seed share."""
    if kept is None:
        return x
    return x.index_select(kept.axis, torch.from_numpy(kept.seed if of_seed else kept.own).to(x.device))


@torch.no_grad()
def reference(reading: Reading, batches: Batches, device: torch.device, weights: Sequence[float] = ()) -> Reference:
    """The features that a network has as its outputs; weights: one for each of them, 1 unless said.

    Raises UserError where they are not finite, or where all images have the same ones.
    """
    values = {weight.name: reading.initial(weight).to(device) for weight in reading.weights}
    values |= {name: value.to(device) for name, value in reading.constants.items()}
    features = tuple(tuple(reading(values, x, norms="batch")) for x in batches())
    spread = tuple(_spread([row[place] for row in features]) for place in range(len(reading.outputs)))
    for name, value in zip(reading.outputs, spread, strict=True):
        if not math.isfinite(value):
            raise UserError(
                f"the seed's features '{name}' are not finite on these images, so nothing can be compared with them"
            )
        if value <= 0:
            raise UserError(
                f"the seed's features '{name}' are the same for all of these images; give other images, or more "
                "than one"
            )
    return Reference(
        features, spread, tuple(weights) or (1.0,) * len(spread), (None,) * len(spread), (0.0,) * len(spread)
    )


def _spread(parts: Sequence[Tensor]) -> float:
    """Σ_x ‖φ(x) − mean φ‖²"""
    mean = torch.stack([part.double().sum(0) for part in parts]).sum(0) / sum(len(part) for part in parts)
    return sum(float((part.double() - mean).square().sum()) for part in parts)


def _square(x: Tensor) -> float:
    return float(x.double().square().sum())


# --- what is known ------------------------------------------------------------------------------


@dataclass
class Known:
    """The distances that have been measured, by the number of the trunk and then the member; kept at `path`, under the
    key of its run.
    """

    path: Path
    key: str
    distances: dict[Whole, float] = field(default_factory=dict)

    def add(self, found: Mapping[Whole, float]) -> None:
        """They are known from now on, and in the file."""
        self.distances.update(found)
        rows = [[list(member), value if math.isfinite(value) else None] for member, value in self.distances.items()]
        write_text(self.path, json.dumps({"version": VERSION, "key": self.key, "distances": rows}) + "\n", force=True)


def known(path: Path, key: str, choices: Choices) -> Known:
    """What a run has measured so far; nothing where there is no file. Raises UserError where it is of another run, or
    damaged.
    """
    found = Known(path, key)
    if not path.exists():
        return found
    document = read_json(path, "distances", pipes=False)
    if (
        not isinstance(document, dict)
        or document.get("version") != VERSION
        or not isinstance(document.get("distances"), list)
    ):
        raise damaged(path, "it says no distances")
    if document.get("key") != key:
        raise UserError(
            f"'{path}' is of a run with another model, config or data; --restart begins anew, or name another folder"
        )
    for row in document["distances"]:
        member, value = row if isinstance(row, list) and len(row) == 2 else (None, -1)
        if not isinstance(member, list) or not _is_trunk(member[:1], choices) or not _is_complete(member[1:], choices):
            raise damaged(path, "it says no member of this space")
        if value is not None and not (
            isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
        ):
            raise damaged(path, "a distance is none")
        found.distances[tuple(member)] = math.inf if value is None else float(value)
    return found


def _is_trunk(found: list[Any], choices: Choices) -> bool:
    """It is the number of one."""
    (number,) = found or (None,)
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number < len(choices.trunks)


def _is_complete(member: list[Any], choices: Choices) -> TypeGuard[list[int]]:
    """It says for every block a candidate or, where that is possible, that it is skipped; a stage may have fewer blocks
    than it keeps.
    """
    if len(member) != len(choices.blocks):
        return False
    whole = all(isinstance(k, int) and not isinstance(k, bool) for k in member)
    return whole and all(
        0 <= k < len(block.candidates) or (k == SKIP and block.skippable)
        for k, block in zip(member, choices.blocks, strict=True)
    )


# --- measuring ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Meter:
    """What measures distances: members with one trunk, the images, the seed's features, what is known, and who shares
    the work.
    """

    members: Members
    batches: Batches
    reference: Reference
    known: Known
    world: World
    trunk: int = 0

    def of(self, members: Sequence[Member], done: Callable[[int], None] = lambda count: None) -> list[float]:
        """The distances of whole members, those not known measured, dealt out over the processes."""
        missing = [member for member in dict.fromkeys(members) if (self.trunk, *member) not in self.known.distances]
        done(len(members) - len(missing))
        for turn in _turns(missing, self.world):
            self._learn({member: self._whole(member) for member in turn})
            done(min(self.world.size, len(missing)))
        return [self.known.distances[self.trunk, *member] for member in members]

    def around(
        self, base: Member, members: Sequence[Member], done: Callable[[int], None] = lambda count: None
    ) -> list[float]:
        """The same for members that differ from the base in one block at most: only what is behind that block is
        run.
        """
        found = self.members
        missing: dict[int, list[Member]] = {}
        for member in dict.fromkeys(members):
            if (self.trunk, *member) not in self.known.distances:
                missing.setdefault(_changed(base, member), []).append(member)
        done(len(members) - sum(map(len, missing.values())))
        if not missing:
            return [self.known.distances[self.trunk, *member] for member in members]
        states = [found.start(x) for x in self.batches()]
        for segment in found.segments:
            asked = missing.pop(-1 if segment.block is None else segment.block, [])
            for turn in _turns(asked, self.world):
                self._learn({member: self._behind(segment.number, member, states) for member in turn})
                done(min(self.world.size, len(asked)))
            if not missing:
                break
            for state in states:
                found.step(segment, base, state)
        # of blocks that nothing compared comes from
        self.of([member for rows in missing.values() for member in rows], done)
        return [self.known.distances[self.trunk, *member] for member in members]

    def _whole(self, member: Member) -> float:
        return self.reference.distance([self.members.after(0, member, self.members.start(x)) for x in self.batches()])

    def _behind(self, number: int, member: Member, states: Sequence[State]) -> float:
        return self.reference.distance([self.members.after(number, member, state) for state in states])

    def _learn(self, own: Mapping[Member, float]) -> None:
        """What all processes have measured is known to each, and written by the first; one that is no number is
        infinite.
        """
        found: dict[Whole, float] = {}
        for part in self.world.gather({(self.trunk, *member): value for member, value in own.items()}):
            assert isinstance(part, dict)
            found |= {member: value if math.isfinite(value) else math.inf for member, value in part.items()}
        if self.world.first:
            self.known.add(found)
        else:
            self.known.distances.update(found)


def _turns(members: Sequence[Member], world: World) -> Iterator[Sequence[Member]]:
    """The members dealt out: per turn what this process measures, one of them or none."""
    for first in range(0, len(members), world.size):
        yield members[first + world.rank : first + world.rank + 1]


def _changed(base: Member, member: Member) -> int:
    """The one block in which they differ; the first for equal ones."""
    blocks = [k for k, (a, b) in enumerate(zip(base, member, strict=True)) if a != b]
    if len(blocks) > 1:
        raise ValueError("more than one block is another")
    return blocks[0] if blocks else 0


def changes(choices: Choices, base: Member) -> list[list[Member]]:
    """Per block the members that differ from the base there alone: one per candidate, and one more for skipping where
    that is possible.
    """
    rows = []
    for k, block in enumerate(choices.blocks):
        ways = [*range(len(block.candidates)), *([SKIP] if block.skippable else [])]
        rows.append([(*base[:k], way, *base[k + 1 :]) for way in ways])
    return rows
