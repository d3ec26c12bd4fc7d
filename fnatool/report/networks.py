"""What the page says of two networks: what both cost, part by part, and their pieces side by side."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fnatool.files import model as files
from fnatool.model.analysed import SPEC_KEY, analyse_model, metadata, profile_model
from fnatool.model.rows import numbers_of
from fnatool.report.architecture import (
    DROPPED,
    FATES,
    PartPair,
    Piece,
    Sources,
    in_order,
    map_name,
    pieces_of,
    related,
    side_by_side,
    sources_of,
)
from passes.errors import RefusedModel, UserError
from passes.graph.tensors import Shape
from passes.network.analysis import Analysis
from passes.network.profile import Profile, ProfilePart, Row
from passes.target.resolve import resolve
from passes.target.spec import Spec, parse

Json = dict[str, object]


@dataclass(frozen=True)
class ReportedNetwork:
    """A model, analysed: its pieces and what it costs."""

    model: files.Model
    analysis: Analysis
    profile: Profile
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class NetworkPair:
    """The seed (None: not known) and what was made of it, part by part."""

    before: ReportedNetwork | None
    after: ReportedNetwork
    parts: tuple[PartPair, ...]

    def to_json(self) -> Json:
        """Both networks for the page: files, costs in all and by part, pieces."""
        sides = {"before": self.before, "after": self.after}
        costs = {name: _parts(side) for name, side in sides.items()}
        names = [name for parts in costs.values() for name in parts]
        return {
            **{name: None if side is None else _side(side) for name, side in sides.items()},
            "parts": [
                {"name": name, **{side: parts.get(name) for side, parts in costs.items()}} for name in in_order(names)
            ],
            "pieces": {
                name: None if side is None else [piece.to_json() for piece in side.pieces]
                for name, side in sides.items()
            },
            "fates": {} if self.before is None else self._fates(self.before),
        }

    def _fates(self, before: ReportedNetwork) -> dict[str, int]:
        """How many pieces had each fate."""
        used = {piece.source for piece in self.after.pieces}
        counts = Counter(
            [piece.fate for piece in self.after.pieces] + [DROPPED for piece in before.pieces if piece.name not in used]
        )
        return {fate: counts[fate] for fate in FATES}


def _side(side: ReportedNetwork) -> Json:
    profile = side.profile
    return {
        "file": side.model.path.name,
        "sha256": side.model.sha256,
        "bytes": sum(path.stat().st_size for path in (side.model.path, *side.model.data) if path.is_file()),
        "inputs": {name: list(shape) for name, shape in profile.inputs.items()},
        "depths": [len(stage.blocks) for stage in side.analysis.stages],
        **numbers_of(profile.whole, profile),
    }


def _parts(side: ReportedNetwork | None) -> dict[str, Json]:
    """What its parts cost: stem, stages and head; without stages the layers of each size of map."""
    if side is None:
        return {}
    if side.analysis.stages:
        return {part.name: numbers_of(part, side.profile) for part in side.profile.parts}
    found: dict[str, list[Row]] = {}
    for row in side.profile.rows:
        found.setdefault(map_name(row.shape), []).append(row)
    return {name: numbers_of(_summed(name, rows), side.profile) for name, rows in found.items()}


def _summed(name: str, rows: Sequence[Row]) -> ProfilePart:
    sums = (sum(row.params for row in rows), sum(row.macs for row in rows), sum(row.activations for row in rows))
    return ProfilePart(name, *sums, max(row.alive for row in rows))


def reported(model: files.Model, sizes: Mapping[str, Shape] | None = None) -> ReportedNetwork:
    """Raises RefusedModel where a model cannot be analysed."""
    analysis, profile = analyse_model(model, sizes), profile_model(model, sizes)
    return ReportedNetwork(model, analysis, profile, tuple(pieces_of(analysis, profile)))


def network_pair(before: ReportedNetwork | None, after: ReportedNetwork, spec: Spec | None = None) -> NetworkPair:
    """Both side by side. spec: what took the first one to the second; else what the second one says, if it says that of
    the first one.
    """
    spaces = _spaces(after) if before is None else {**_spaces(before), **_spaces(after)}
    if before is None:
        return NetworkPair(None, after, tuple(side_by_side((), after.pieces, spaces)))
    made = related(before.pieces, after.pieces, _sources(before, after, spec))
    whole = ReportedNetwork(after.model, after.analysis, after.profile, tuple(made))
    return NetworkPair(before, whole, tuple(side_by_side(before.pieces, made, spaces)))


def _sources(before: ReportedNetwork, after: ReportedNetwork, spec: Spec | None) -> Sources:
    """Which block of the first network is behind each block of the second: by the Spec, else by the blocks' numbers."""
    for asked in (spec, _stored(before.model, after.model)):
        if asked is None:
            continue
        try:
            return sources_of(resolve(before.analysis, Spec(asked.knobs)).sources)
        except (UserError, RefusedModel):  # it was for another network
            continue
    depths = [len(stage.blocks) for stage in before.analysis.stages]
    own = [len(stage.blocks) for stage in after.analysis.stages]
    return sources_of(
        {i: [min(j, depth - 1) for j in range(made)] for i, (depth, made) in enumerate(zip(depths, own, strict=False))}
    )


def _stored(before: files.Model, after: files.Model) -> Spec | None:
    text = metadata(after.envelope).get(SPEC_KEY)
    if text is None:
        return None
    try:
        spec = parse(json.loads(text))
    except (ValueError, RecursionError, UserError):
        return None
    return spec if spec.seed == f"sha256:{before.sha256}" else None


def _spaces(side: ReportedNetwork) -> dict[str, tuple[int, ...] | None]:
    """The size of the maps that a stage ends in, or that a part is named after."""
    if not side.analysis.stages:
        return {map_name(row.shape): None for row in side.profile.rows}
    shapes = side.analysis.shapes.shapes
    ends: Sequence[str] = [stage.blocks[-1].exit for stage in side.analysis.stages]
    return {f"stage{i}": tuple(shapes[end][2:]) for i, end in enumerate(ends) if end in shapes}


def model_at(path: Path) -> ReportedNetwork | None:
    """The network in a file, None where there is no such file."""
    return reported(files.read(path)) if path.is_file() else None
