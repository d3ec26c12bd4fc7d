"""What a Spec comes to: a value for every knob of the target, and the skeleton that they speak of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from passes.channels.groups import Regroup
from passes.network.analysis import Analysis
from passes.network.knobs import BATCH, CHANNELS, IMAGE, Batch, Knob, Size, batch_text, block_of
from passes.target.depth import NodeLayout
from passes.target.spec import Spec, Value


@dataclass(frozen=True)
class Skeleton:
    """Its analysis; the seed's layout it was made from; its weights whose groups change, and the seed's tensor behind
    each of its own.
    """

    analysis: Analysis
    layout: NodeLayout
    regroups: Mapping[str, Regroup]
    sources: Mapping[str, str]


@dataclass(frozen=True)
class Resolved:
    """Every knob of the target with its value; which seed block each target block comes from; what patterns had to
    skip.

    `image` is the size of the image, None where it stays free or where there is no image; `channels` how many that has;
    `batch` how many samples there are, None for any number, and `batched` whether the Spec says so; `counts` whether
    there are samples at all. `skeleton` is there where groups change: widths and kernels are then its knobs.
    """

    values: Mapping[str, int]
    knobs: Mapping[str, Knob]
    sources: Mapping[int, tuple[int, ...]]
    notes: tuple[str, ...] = ()
    image: Size | None = None
    skeleton: Skeleton | None = None
    batch: Batch = None
    batched: bool = False
    counts: bool = True
    channels: int | None = None

    def spec(self, seed: str | None = None) -> Spec:
        """The resolved Spec; `from` is written only where it is not the default min(J, last)."""
        size: dict[str, Value] = {} if self.image is None else {IMAGE: self.image}
        size |= {} if self.channels is None else {CHANNELS: self.channels}
        size |= {BATCH: batch_text(self.batch)} if self.counts else {}
        return Spec(
            size | {name: value for name, value in self.values.items() if not self._default_from(name, value)}, seed
        )

    def _default_from(self, name: str, value: int) -> bool:
        found = block_of(name)
        return found is not None and found[2] == "from" and value == min(found[1], self.knobs[name].max)
