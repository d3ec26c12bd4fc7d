"""A Spec against a network: every knob's value, or what is wrong with the key."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import NoReturn

from passes.errors import UserError
from passes.nearest import closest
from passes.network.analysis import Analysis
from passes.network.images import Image
from passes.network.knobs import (
    BATCH,
    CHANNELS,
    FREE,
    FROM_WHY,
    IMAGE,
    STRIDE,
    Batch,
    Knob,
    Size,
    batch_text,
    block_knob,
    block_of,
    kind_of,
    knob_order,
    size_text,
    stage_knob,
)
from passes.network.samples import Batching
from passes.target.resolved import Resolved
from passes.target.skeleton import skeleton
from passes.target.spec import (
    MAX_BATCH,
    MAX_CHANNELS,
    MAX_SIDE,
    RELATIVE,
    Spec,
    Value,
    pattern_of,
    relative_value,
    some_of,
)


def own_spec(analysis: Analysis, seed: str | None = None) -> Spec:
    """The network's own Spec: every knob at its value."""
    return resolve(analysis, Spec({})).spec(seed)


def resolve(analysis: Analysis, spec: Spec, *, multiple: int = 1) -> Resolved:
    """One value for every knob of the target network; multiple: of what a factor makes of a width.

    Raises UserError naming key, reason and the nearest valid keys.
    """
    return _Resolver(analysis, spec, multiple).run()


class _Resolver:
    """The state of one resolution: which keys have matched, and what was noted."""

    def __init__(self, analysis: Analysis, spec: Spec, multiple: int) -> None:
        self.analysis = analysis
        self.spec = spec
        self.multiple = multiple
        self.matched: set[str] = set()
        self.skipped: dict[str, list[str]] = {}
        self.sources: dict[int, tuple[int, ...]] = {}
        self.patterns = {key: pattern_of(key) for key in spec.knobs if "*" in key}

    def run(self) -> Resolved:
        seed_knobs = self.analysis.knobs
        values: dict[str, int] = {}
        knobs: dict[str, Knob] = {}
        for name, knob in seed_knobs.items():
            if knob.kind == "depth":
                knobs[name], values[name] = knob, self.value(knob)
        sources = self.sources
        for i in range(len(self.analysis.stages)):
            sources[i] = self._sources(i, values[stage_knob(i, "depth")], knobs, values)
        shaped = self._target_knobs(sources)
        groups = {knob.name: self.value(knob) for knob in shaped if knob.kind == "groups"}
        changed = any(knob.kind == "groups" and groups[knob.name] != knob.value for knob in shaped)
        bones = skeleton(self.analysis, sources, groups) if changed else None
        if bones is not None:
            own = [knob for knob in shaped if knob.kind == "groups"]
            shaped = [
                *own,
                *(knob for knob in bones.analysis.knobs.values() if knob.kind not in ("depth", "from", "groups")),
            ]
        for knob in shaped:
            knobs[knob.name], values[knob.name] = knob, groups[knob.name] if knob.name in groups else self.value(knob)
        image, channels, batch = self._image(), self._channels(), self._batch()
        for key in self.spec.knobs:
            if key not in self.matched:
                self._unknown(key, knobs)
        notes = [
            f"pattern '{key}' skipped {len(names)} frozen knob(s): {some_of(names)}"
            for key, names in self.skipped.items()
        ]
        order = [name for name in seed_knobs if name in values] + [name for name in values if name not in seed_knobs]
        ordered = sorted(order, key=_stage_order)
        return Resolved(
            values={name: values[name] for name in ordered},
            knobs=knobs,
            sources=sources,
            notes=tuple(notes),
            image=image,
            skeleton=bones,
            batch=batch,
            batched=BATCH in self.spec.knobs,
            counts=bool(self.analysis.batching.inputs),
            channels=channels,
        )

    def _image(self) -> Size | None:
        """The image's size: what is asked for, else its own unless that is free."""
        image, wanted = self.analysis.image, self.spec.knobs.get(IMAGE)
        if wanted is None:
            return None if image.free else image.size
        self.matched.add(IMAGE)
        if image.size is None:
            raise UserError(f"'{IMAGE}' is frozen: {image.why}")
        size = _sized(wanted, image.size)
        if image.why is not None and size != image.size:
            raise UserError(f"'{IMAGE}' is frozen at {size_text(image.size)}: {image.why}")
        return size

    def _channels(self) -> int | None:
        """How many channels the image has: as many as are asked for, else its own."""
        colours, wanted = self.analysis.colours, self.spec.knobs.get(CHANNELS)
        if wanted is None:
            return colours.value
        self.matched.add(CHANNELS)
        if colours.value is None:
            raise UserError(f"'{CHANNELS}' is frozen: {colours.why}")
        return _coloured(wanted, colours.value)

    def _batch(self) -> Batch:
        """How many samples there are: as many as are asked for, else as many as there were."""
        batching, wanted = self.analysis.batching, self.spec.knobs.get(BATCH)
        if wanted is None:
            return batching.value
        self.matched.add(BATCH)
        if not batching.inputs:
            raise UserError(f"'{BATCH}' is frozen: no input has an axis of samples")
        return _batched(wanted, batching)

    def _sources(self, i: int, depth: int, knobs: dict[str, Knob], values: dict[str, int]) -> tuple[int, ...]:
        """The seed block of each block of the stage; their knobs and values are added."""
        last = len(self.analysis.stages[i].blocks) - 1
        lowest = 0 if 0 in self.analysis.stages[i].repeatable else 1
        sources = [0]
        for j in range(1, depth):
            name = block_knob(i, j, "from")
            depth_knob = knobs[stage_knob(i, "depth")]
            if depth_knob.growth == "frozen":
                knobs[name] = Knob.frozen(name, "from", j, depth_knob.why)
            else:
                knobs[name] = Knob(name, "from", min(j, last), min=lowest, max=last, growth="approximate", why=FROM_WHY)
            values[name] = self.value(knobs[name])
            sources.append(values[name])
        return tuple(sources)

    def _target_knobs(self, sources: Mapping[int, tuple[int, ...]]) -> list[Knob]:
        """The knobs of the target's blocks, each with the value of the block it comes from, then those outside
        blocks.
        """
        of_block: dict[tuple[int, int], list[tuple[str, Knob]]] = {}
        rest = []
        for name, knob in self.analysis.knobs.items():
            found = block_of(name)
            if knob.kind in ("depth", "from"):
                continue
            if found is None:
                rest.append(knob)
            else:
                of_block.setdefault(found[:2], []).append((found[2], knob))
        target = []
        for i, blocks in sources.items():
            for j, source in enumerate(blocks):
                found_here = of_block.get((i, source), [])
                target += [
                    knob if j == source else replace(knob, name=block_knob(i, j, tail)) for tail, knob in found_here
                ]
        return target + rest

    def value(self, knob: Knob) -> int:
        """The value asked for a knob, else its own."""
        exact = knob.name in self.spec.knobs
        patterns = {} if knob.kind == "stride" else self.patterns
        keys = [knob.name] if exact else [key for key, regex in patterns.items() if regex.fullmatch(knob.name)]
        self.matched.update(keys)
        if not keys:
            return knob.value
        if knob.growth == "frozen":
            wanted = {key: self.spec.knobs[key] for key in keys}
            if exact and _absolute(wanted[knob.name], knob) != knob.value:
                raise UserError(f"'{knob.name}' is frozen at {knob.value}: {knob.why}")
            for key in [] if exact else keys:
                self.skipped.setdefault(key, []).append(knob.name)
            return knob.value
        asked = {key: _evaluate(knob, self.spec.knobs[key], key, self.multiple) for key in keys}
        if len(set(asked.values())) > 1:
            first, second = list(asked)[:2]
            raise UserError(
                f"'{first}' and '{second}' disagree on '{knob.name}': {asked[first]} and {asked[second]}; name "
                "the knob itself"
            )
        return asked[keys[0]]

    def _unknown(self, key: str, target: Mapping[str, Knob]) -> NoReturn:
        names = [IMAGE, CHANNELS, BATCH, *target]
        if key in self.patterns:
            raise UserError(f"pattern '{key}' matches no knob of this model; 'fnatool inspect' lists all {len(names)}")
        place = block_of(key)
        if place is not None and (depth := target.get(stage_knob(place[0], "depth"))) is not None:
            i, j, _ = place
            blocks = (
                sum(found is not None and found[0] == i and found[2] == "from" for found in map(block_of, names)) + 1
            )
            if depth.kind == "depth" and j >= blocks:
                frozen = (
                    f"its depth is frozen: {depth.why}"
                    if depth.growth == "frozen"
                    else f"set 'stage{i}.depth' to {j + 1} or more"
                )
                raise UserError(f"'{key}': stage{i} has {blocks} block(s) in the target, counted from 0; {frozen}")
            if depth.kind == "depth" and (source := self.sources[i][j]) != j and key in self.analysis.knobs:
                raise UserError(
                    f"'{key}' is no knob of the target, whose block comes from the seed's block {source}, which "
                    "has no such knob; "
                    f"'stage{i}.block{j}.from' says which it comes from"
                )
        if key in self.analysis.knobs:
            raise UserError(
                f"'{key}' is no knob any more with these groups: they tie its channels to others{closest(key, names)}"
            )
        raise UserError(f"'{key}' is not a knob of this model{closest(key, names)}")


def _stage_order(name: str) -> tuple[int, ...]:
    """The stride; stages, in them depth and width before blocks, blocks by number; nodes; otherwise as given (sorting
    is stable).
    """
    return knob_order(name)[:3]


def _absolute(value: Value, knob: Knob) -> int | None:
    """The value as a number, None where it is relative and changes something."""
    if isinstance(value, int):
        return value
    return knob.value if value in ("x1", "x1.0", "+0", "-0") else None


def _sized(value: Value, seed: Size) -> Size:
    """The size of an image, from a pair, an integer for both sides, or relative to the seed's. Raises UserError beyond
    1 … MAX_SIDE.
    """
    if isinstance(value, str):
        by, number = relative_value(value, IMAGE)
        height, width = (round(RELATIVE[by](side, number)) for side in seed)
    else:
        height, width = (value, value) if isinstance(value, int) else value
    if not all(1 <= side <= MAX_SIDE for side in (height, width)):
        raise UserError(
            f"'{IMAGE}': {size_text((height, width))} is out of range; a side has from 1 to {MAX_SIDE} pixels"
        )
    return height, width


def _coloured(value: Value, own: int) -> int:
    """How many channels, from a number, or relative to the seed's. Raises UserError beyond 1 … MAX_CHANNELS."""
    if isinstance(value, str):
        by, number = relative_value(value, CHANNELS)
        value = round(RELATIVE[by](own, number))
    if not isinstance(value, int) or not 1 <= value <= MAX_CHANNELS:
        raise UserError(f"'{CHANNELS}': {value} is out of range; it goes from 1 to {MAX_CHANNELS}")
    return value


def _batched(value: Value, own: Batching) -> Batch:
    """How many samples, from a number, "free", or relative to the seed's. Raises UserError beyond 1 … MAX_BATCH."""
    if value == FREE:
        return None
    if isinstance(value, str):
        by, number = relative_value(value, BATCH)
        if own.value is None:
            raise UserError(f"'{BATCH}': {value!r} is relative to the seed's batch, which is free; name a number")
        value = round(RELATIVE[by](own.value, number))
    if not isinstance(value, int) or not 1 <= value <= MAX_BATCH:
        raise UserError(f"'{BATCH}': {value} is out of range; it goes from 1 to {MAX_BATCH}, or is '{FREE}'")
    return value


def _evaluate(knob: Knob, value: Value, key: str, multiple: int) -> int:
    """The value a knob takes, in range and a multiple of what the graph demands."""
    if isinstance(value, int):
        _admit(knob, value, key)
        return value
    if not isinstance(value, str):
        raise UserError(f"'{key}' must be an integer, not a list")
    by, number = relative_value(value, key)
    exact = RELATIVE[by](knob.value, number)
    rounded = _rounded(knob, exact, multiple) if by == "x" else round(exact)
    if knob.kind != "width" or by != "x":
        _admit(knob, rounded, key)
    elif rounded > knob.max:
        raise UserError(f"'{key}': {value!r} asks '{knob.name}' for {rounded}, but the most is {knob.max}")
    return min(max(rounded, knob.min), knob.max)


def _rounded(knob: Knob, exact: float, multiple: int) -> int:
    """A factor as an integer: widths to the multiple that is asked for, else to the alignment the seed has (up to 8)
    where that moves it by 10 % at most; never across the seed's.

    (The 10 % are the field's rule for rounding channels, as in torchvision's `_make_divisible`.)
    """
    if knob.kind == "kernel":
        steps = (exact - knob.value) / 2
        return knob.value + 2 * (math.ceil(steps - 0.5) if steps > 0 else math.floor(steps + 0.5))
    if knob.kind != "width":
        return round(exact)
    if multiple > 1 and exact != knob.value:
        return _to_multiple(knob, exact, math.lcm(knob.multiple, multiple))
    units = [math.lcm(knob.multiple, unit) for unit in (8, 4, 2, 1) if knob.value % math.lcm(knob.multiple, unit) == 0]
    for unit in units:
        rounded = round(exact / unit) * unit
        if abs(rounded - exact) <= 0.1 * exact or unit == units[-1]:
            break
    return max(rounded, knob.value) if exact >= knob.value else min(rounded, knob.value)


def _to_multiple(knob: Knob, exact: float, unit: int) -> int:
    """The nearest multiple on this side of the seed's value; that value itself where there is none that is possible."""
    nearest = round(exact / unit) * unit
    if exact > knob.value:
        return nearest if nearest >= knob.value else math.ceil(exact / unit) * unit
    lower = nearest if nearest <= knob.value else math.floor(exact / unit) * unit
    return lower if lower >= knob.min else min(-(-knob.min // unit) * unit, knob.value)


def _admit(knob: Knob, value: int, key: str) -> None:
    if knob.kind == "groups" and value >= 1:
        return  # what is possible depends on the target's channels: plan.py looks at them
    if knob.kind == "stride" and value > knob.value:
        raise UserError(
            f"'{key}': {value} is more than the {knob.value} of this network; dilations are not turned back "
            "into strides"
        )
    if knob.values and value not in knob.values:
        why = f" ({knob.why})" if knob.why else ""
        raise UserError(
            f"'{key}': {value} is not possible for '{knob.name}', which can be {', '.join(map(str, knob.values))}{why}"
        )
    if not knob.min <= value <= knob.max:
        raise UserError(f"'{key}': {value} is out of range for '{knob.name}', which goes from {knob.min} to {knob.max}")
    if knob.kind == "kernel" and (value - knob.value) % 2:
        raise UserError(
            f"'{key}': {value} is not possible for '{knob.name}': a kernel of {knob.value} stays "
            f"{'odd' if knob.value % 2 else 'even'}"
        )
    if knob.kind == "width" and value % knob.multiple:
        below = value // knob.multiple * knob.multiple
        near = f"{max(below, knob.min)} and {below + knob.multiple}"
        raise UserError(f"'{key}': '{knob.name}' must be a multiple of {knob.multiple}; the nearest are {near}")


def differences(analysis: Analysis, spec: Spec) -> list[str]:
    """Where the network is not what the Spec says, one sentence each. `from` speaks of the seed and is not looked
    at.
    """
    found = []
    regrouped = any(kind_of(key) == "groups" for key in spec.knobs)
    hint = "; groups may have split it or tied it to others, which --against SEED looks at" if regrouped else ""
    for key, value in spec.knobs.items():
        if key == IMAGE:
            found += _other_size(value, analysis.image)
            continue
        if key == CHANNELS:
            found += _other_channels(value, analysis.colours.value)
            continue
        if key == BATCH:
            found += _other_batch(value, analysis.batching)
            continue
        matching = pattern_of(key) if "*" in key else None
        others = (
            ()
            if matching is None
            else (n for n in analysis.knobs if n != STRIDE and n not in spec.knobs and matching.fullmatch(n))
        )
        names = [*(n for n in (key,) if n in analysis.knobs), *others]
        if key.endswith(".from"):
            continue
        if not names and matching is None:
            found.append(f"'{key}' should be {value}, but the model has no such knob{hint}")
        elif not isinstance(value, int):
            found.append(
                f"'{key}' is relative to the seed's value ({value}), which the model does not tell; name the "
                "seed with --against"
            )
        else:
            for name in names:
                knob = analysis.knobs[name]
                if knob.value != value and not ("*" in key and knob.growth == "frozen"):
                    found.append(f"'{name}' should be {value}, the model has {knob.value}")
    return found


def _other_size(value: Value, image: Image) -> list[str]:
    """What is wrong with the image's size, if it should be the value."""
    if isinstance(value, str):
        return [
            (
                f"'{IMAGE}' is relative to the seed's value ({value}), which the model does not tell; name the seed "
                "with --against"
            )
        ]
    wanted = (value, value) if isinstance(value, int) else value
    if image.size == wanted and not image.free:
        return []
    has = "leaves it free" if image.free else "has none" if image.size is None else f"has {size_text(image.size)}"
    return [f"'{IMAGE}' should be {size_text(wanted)}, the model {has}"]


def _other_batch(value: Value, own: Batching) -> list[str]:
    """What is wrong with the number of samples, if it should be the value."""
    if isinstance(value, str) and value != FREE:
        return [
            (
                f"'{BATCH}' is relative to the seed's value ({value}), which the model does not tell; name the seed "
                "with --against"
            )
        ]
    if own.inputs and batch_text(own.value) == value:
        return []
    has = batch_text(own.value) if own.inputs else "no axis of samples"
    return [f"'{BATCH}' should be {value}, the model has {has}"]


def _other_channels(value: Value, own: int | None) -> list[str]:
    """What is wrong with the number of channels, if it should be the value."""
    if isinstance(value, str):
        return [
            (
                f"'{CHANNELS}' is relative to the seed's value ({value}), which the model does not tell; name the "
                "seed with --against"
            )
        ]
    return [] if own == value else [f"'{CHANNELS}' should be {value}, the model has {'none' if own is None else own}"]
