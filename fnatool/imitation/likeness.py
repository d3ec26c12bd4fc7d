"""How like one network's outputs are to another's, over samples: sums that grow with every batch, and the figures they
come to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from passes.errors import RefusedModel

Array = npt.NDArray[Any]
CONSTANT = 1e-12  # of the square: outputs whose samples differ by less are the same for all samples
METRIC = "distance"  # less is better


@dataclass
class OutputSums:
    """What has been seen of one output: d = Σ ‖own − other‖² / Σ ‖other − mean other‖², and how often the largest of
    axis 1 is the same.
    """

    count: int = 0
    # sums are of what differs from it, which is smaller
    first: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    total: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    square: float = 0.0
    around: float = 0.0
    moved: list[float] = field(default_factory=list)  # per sample
    agreed: float = 0.0
    asked: int = 0

    def add(self, own: Array, other: Array) -> None:
        """A batch of both, [N, …]."""
        own, other = own.astype(np.float64), other.astype(np.float64)
        if not self.count:
            self.first, self.total = other[0], np.zeros(other.shape[1:])
        self.count += len(other)
        self.moved += np.square(own - other).reshape(len(other), -1).sum(1).tolist()
        shifted = other - self.first
        self.total += shifted.sum(0)
        self.around += float(np.square(shifted).sum())
        self.square += float(np.square(other).sum())
        if other.ndim in (2, 4) and other.shape[1] > 1:
            self.agreed += float((own.argmax(1) == other.argmax(1)).mean() * len(other))
            self.asked += len(other)

    @property
    def spread(self) -> float:
        """Σ ‖other − mean other‖²; where all samples have the same, Σ ‖other‖²."""
        found = self.around - float(np.square(self.total).sum()) / self.count
        return found if found > CONSTANT * self.square else self.square or 1.0

    @property
    def distances(self) -> list[float]:
        """Per sample, so that their mean is d."""
        return [value * self.count / self.spread for value in self.moved]


@dataclass(frozen=True)
class OutputLikeness:
    """distance: 0 the same, 1 as far as the samples are from each other; agreement: the share of samples (pixels) with
    the same largest.
    """

    distance: float
    agreement: float | None


@dataclass(frozen=True)
class Likeness:
    """Over all samples: per output, the mean of their distances, and per sample the same."""

    outputs: Mapping[str, OutputLikeness]
    distance: float
    samples: tuple[float, ...]

    @property
    def worst(self) -> int:
        """The sample that differs most."""
        return int(np.argmax(self.samples))

    def figures(self) -> dict[str, float]:
        """The mean distance, the mean agreement of outputs that have one, and the distances of single outputs with a /
        in their names.
        """
        agreements = [one.agreement for one in self.outputs.values() if one.agreement is not None]
        found = {METRIC: self.distance} | ({"agreement": sum(agreements) / len(agreements)} if agreements else {})
        return found | (
            {f"{METRIC}/{name}": one.distance for name, one in self.outputs.items()} if len(self.outputs) > 1 else {}
        )


@dataclass
class LikenessSums:
    """Sums over batches; `left_out`: outputs that cannot be compared, each with the reason."""

    sums: dict[str, OutputSums] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def add(self, own: Mapping[str, Array], other: Mapping[str, Array]) -> None:
        """The outputs of both for the same samples, by name. Raises RefusedModel where a value is not finite."""
        for name, wanted in other.items():
            if name in self.left_out:
                continue
            reason = _reason(name, own, wanted)
            if reason is not None:
                self.left_out[name] = reason
                self.sums.pop(name, None)
                continue
            for whose, value in (("the network's", own[name]), ("the other one's", wanted)):
                if not np.isfinite(value.astype(np.float64)).all():
                    raise RefusedModel(
                        f"{whose} output '{name}' holds values that are not finite, so nothing can be said of it"
                    )
            self.sums.setdefault(name, OutputSums()).add(own[name], wanted)

    def result(self) -> Likeness:
        """Raises RefusedModel where no output could be compared."""
        if not self.sums:
            raise RefusedModel(
                "; ".join(f"output '{name}' cannot be compared: {why}" for name, why in self.left_out.items())
            )
        rows = {
            name: OutputLikeness(sum(one.moved) / one.spread, one.agreed / one.asked if one.asked else None)
            for name, one in self.sums.items()
        }
        samples = np.mean([one.distances for one in self.sums.values()], axis=0)
        return Likeness(rows, sum(row.distance for row in rows.values()) / len(rows), tuple(samples.tolist()))


def _reason(name: str, own: Mapping[str, Array], wanted: Array) -> str | None:
    """Why this output cannot be compared."""
    if name not in own:
        return "the network has none of that name"
    if own[name].shape != wanted.shape:
        said = ["×".join(map(str, value.shape)) or "one number" for value in (own[name], wanted)]
        return f"it is {said[0]} and not {said[1]}"
    if not wanted.ndim:
        return "it is one number for all samples"
    if wanted.dtype.kind not in "fiub":
        return f"its values are of the type {wanted.dtype}"
    return None
