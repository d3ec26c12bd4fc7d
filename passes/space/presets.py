"""Spaces to begin with: the paper's two for the MobileNetV2 seed, and one made from any network's analysis."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from fractions import Fraction

from passes.errors import UserError
from passes.network.analysis import Analysis
from passes.network.knobs import Knob, block_knob, block_of, kind_of, stage_knob
from passes.space.space import Space, choices
from passes.target.spec import Value

MOST_BLOCKS: Mapping[str, tuple[int, ...]] = {
    "fna-detection": (4, 4, 4, 4, 4, 1),
    "fna-segmentation": (4, 4, 6, 6, 4, 1),
}
"""Preset → the most blocks of the stages of width 24, 32, 64, 96, 160 and 320 (FNA++, search space)."""

PRESETS = (*MOST_BLOCKS, "auto", "coarse")
PUBLISHED_STAGES = (16, 24, 32, 64, 96, 160, 320)  # widths of the seed's stages
KERNELS = (3, 5, 7)
GROUPS = (1, 2)
SHARES: Mapping[str, tuple[Fraction, ...]] = {
    "auto": (Fraction(1, 2), Fraction(5, 8), Fraction(3, 4), Fraction(7, 8)),
    "coarse": (Fraction(1, 2),),
}
"""Preset → the shares of a hidden width that it offers, below the whole."""

TRUNK = (Fraction(7, 8), Fraction(3, 4), Fraction(5, 8), Fraction(1, 2))  # of all widths outside blocks, together
# channels: a width below stays, since it costs next to nothing and may be colours, or what an attention says of a map
FEWEST = 8

MOST = 128  # candidates of a block in the automatic space
ALIGNED = 8  # channels: what devices like, where the seed's own width has it


def preset(name: str, analysis: Analysis, multiple: int = 1) -> Space:
    """The Space of that name on a network; widths of `auto` and `coarse` are multiples.

    Raises UserError for an unknown name, and where the network does not fit it.
    """
    if name in SHARES:
        return auto(analysis, multiple, shares=SHARES[name])
    if name not in MOST_BLOCKS:
        raise UserError(f"there is no space '{name}'; there are {', '.join(PRESETS)}, or give a JSON file")
    widths = tuple(
        analysis.knobs[key].value
        for i in range(len(analysis.stages))
        if (key := stage_knob(i, "width")) in analysis.knobs
    )
    if widths != PUBLISHED_STAGES:
        found = ", ".join(map(str, widths)) or "none"
        raise UserError(
            f"space '{name}' is for stages of width {', '.join(map(str, PUBLISHED_STAGES))}; this seed has "
            f"{found}; use 'auto'"
        )
    knobs: dict[str, tuple[Value, ...]] = {}
    for i, most in enumerate(MOST_BLOCKS[name], 1):
        knobs[stage_knob(i, "depth")] = tuple(range(1, most + 1))
        knobs[stage_knob(i, "*.kernel")] = KERNELS
        knobs[stage_knob(i, "*.hidden")] = ("x0.5", "x1")  # expansion 3 and 6
        knobs |= {block_knob(i, j, "hidden"): ("x1",) for j in _read_inside(i, analysis)}
    return Space(knobs)


def _read_inside(stage: int, analysis: Analysis) -> list[int]:
    """The blocks of a stage that feed a head from within: they keep their width (FNA: the layer before an SSDLite head
    keeps e6).
    """
    return [j for j, block in enumerate(analysis.stages[stage].blocks) if block.tapped]


@dataclass(frozen=True)
class Offer:
    """What the automatic space offers: kinds of knobs, the shares of a hidden width below the whole, and what widths
    are multiples of.
    """

    kinds: Set[str]
    shares: tuple[Fraction, ...]
    multiple: int


def auto(analysis: Analysis, multiple: int = 1, *, shares: Sequence[Fraction] = SHARES["auto"]) -> Space:
    """Kernels, expansion and depth of every block, and groups where its spatial convolution is a plain one.

    Depthwise kernels of 3, 5 and 7, plain ones of the seed's size and one larger; the whole of each hidden width and
    shares of it, in multiples of 8 where the seed's is one; plain convolutions in 1 and 2 groups; one block fewer to
    one more a stage; no other width where a head reads inside. What the seed has is always among them, but for widths
    that are no multiple. Where a block would have too many candidates, or groups do not go with the widths, there are
    no other groups, then groups but no other kernels, then neither; then of the widths half alone, in each block of its
    largest ones. And all widths outside blocks together, at the shares of `TRUNK`. Raises UserError where there is none
    of this.
    """
    kinds = frozenset({"kernel", "groups", "width", "depth"})
    for gone in ((), ("groups",), ("kernel",), ("groups", "kernel")):
        space = _automatic(analysis, Offer(kinds.difference(gone), tuple(shares), multiple))
        try:
            found = choices(analysis, space)
        except UserError:
            continue
        if max((len(block.candidates) for block in found.blocks), default=0) <= MOST:
            return space
    return _fewer(analysis, _automatic(analysis, Offer(kinds - {"groups", "kernel"}, SHARES["coarse"], multiple)))


def _fewer(analysis: Analysis, space: Space) -> Space:
    """The same without a choice of the smaller widths of a block, where it would have more than `MOST` candidates."""
    gone: set[str] = set()
    for i, stage in enumerate(analysis.stages):
        for j, _ in enumerate(stage.blocks):
            own = [key for key in space.knobs if (found := block_of(key)) is not None and found[:2] == (i, j)]
            own.sort(key=lambda key: analysis.knobs[key].value)
            while math.prod(len(space.knobs[key]) for key in own) > MOST:
                gone.update(_with_copy(analysis.knobs[own.pop(0)], analysis))
    return Space({key: values for key, values in space.knobs.items() if key not in gone})


def _automatic(analysis: Analysis, offer: Offer) -> Space:
    """Every knob of these kinds with its values."""
    knobs: dict[str, tuple[Value, ...]] = {}
    for knob in analysis.knobs.values():
        values = _values(knob, analysis, offer) if knob.kind in offer.kinds else (knob.value,)
        if values != (knob.value,):
            knobs |= dict.fromkeys(_with_copy(knob, analysis), values)
    knobs |= trunk(analysis, offer.multiple)
    if not knobs:
        raise UserError(
            f"there is nothing to search: this network has no blocks with anything to choose, and {_held(analysis)}"
        )
    return Space(knobs)


def trunk(analysis: Analysis, multiple: int = 1) -> dict[str, tuple[int, ...]]:
    """The widths outside blocks that may shrink, each whole and at the shares of `TRUNK`, in multiples."""
    found = {}
    for name, knob in analysis.knobs.items():
        if knob.kind == "width" and block_of(name) is None and knob.growth != "frozen" and knob.value >= FEWEST:
            shrunk = tuple(_share(knob, share, multiple) for share in TRUNK)
            if set(shrunk) != {knob.value}:
                found[name] = (knob.value, *shrunk)
    return found


def _share(knob: Knob, share: Fraction, multiple: int) -> int:
    """A share of a width, aligned as the seed's is where that moves it by 10 % at most; in multiples, even where the
    seed's is.
    """
    own, least = knob.value, math.lcm(knob.multiple, multiple)
    # so that convolutions in 2 groups can read it
    least = math.lcm(least, 2) if own % math.lcm(least, 2) == 0 else least
    units = [unit for align in (ALIGNED, 4, 2, 1) if own % (unit := math.lcm(least, align)) == 0] or [least]
    rows = [(round(own * share / unit) * unit, unit) for unit in units]
    width = next(row for row, unit in rows if abs(row - own * share) <= own * share / 10 or unit == units[-1])
    return width if max(knob.min, 1) <= width <= own else own


def _held(analysis: Analysis) -> str:
    """Why no width outside blocks shrinks."""
    whys = Counter(
        knob.why or "" for knob in analysis.knobs.values() if knob.kind == "width" and knob.growth == "frozen"
    )
    if not whys:
        return "no widths outside them that may shrink"
    (why, count), *others = whys.most_common()
    more = (
        f" (and {sum(number for _, number in others)} for other reasons, which 'fnatool inspect' lists)"
        if others
        else ""
    )
    return f"its widths are frozen, {count} of them since {why}{more}"


def _with_copy(knob: Knob, analysis: Analysis) -> tuple[str, ...]:
    """The knob's name, and where its block is the last of a stage that may get one more, that of the copy."""
    found = block_of(knob.name)
    if found is None:
        return (knob.name,)
    stage, block, tail = found
    last = len(analysis.stages[stage].blocks) - 1
    grows = analysis.knobs[stage_knob(stage, "depth")].growth != "frozen"
    return (knob.name, block_knob(stage, last + 1, tail)) if block == last and grows else (knob.name,)


def _values(knob: Knob, analysis: Analysis, offer: Offer) -> tuple[Value, ...]:
    """What a knob may be in the automatic space; its own value alone where it has no part in it."""
    own, found = knob.value, block_of(knob.name)
    if knob.growth == "frozen" or (found is None and knob.kind != "depth"):
        return (own,)
    if knob.kind == "depth":
        return tuple(range(max(own - 1, 1), own + 2))
    if knob.kind == "kernel":
        wanted = (own, own + 2) if _plain(analysis.kernels[knob.name].weight, analysis) else KERNELS
        return tuple(sorted({k for k in wanted if knob.min <= k <= knob.max and (k - own) % 2 == 0} | {own}))
    if (
        knob.kind == "width"
        and kind_of(knob.name) == "hidden"
        and found is not None
        and found[1] not in _read_inside(found[0], analysis)
    ):
        return _widths(knob, offer)
    if knob.kind == "groups" and _plain(analysis.groups[knob.name].weight, analysis):
        return tuple(sorted({g for g in GROUPS if g <= knob.max} | {own}))
    return (own,)


def _widths(knob: Knob, offer: Offer) -> tuple[int, ...]:
    """Shares of a hidden width and the whole, each in multiples, aligned as the seed's is where that moves it by 10 %
    at most.
    """
    own, least = knob.value, math.lcm(knob.multiple, offer.multiple, *(GROUPS if "groups" in offer.kinds else ()))
    if own % least and own % math.lcm(knob.multiple, offer.multiple) == 0:
        least = math.lcm(knob.multiple, offer.multiple)  # it has no other groups
    units = [unit for align in (ALIGNED, 4, 2, 1) if own % (unit := math.lcm(least, align)) == 0] or [least]
    found = {own // least * least}
    for share in offer.shares:
        exact = own * share
        rows = [(round(exact / unit) * unit, unit) for unit in units]
        found.add(next((row for row, unit in rows if abs(row - exact) <= exact / 10 or unit == units[-1]), own))
    return tuple(sorted(width for width in found if max(knob.min, 1) <= width <= own)) or (own,)


def _plain(weight: str, analysis: Analysis) -> bool:
    """Whether it is the weight of a convolution with a window of several positions over several channels."""
    shape = analysis.shapes.shapes[weight]
    return shape[1] > 1 and max(shape[2:], default=1) > 1
