"""What a search comes to: members as files, the one that was chosen, and those derived for other budgets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fnatool.model.refit_result import Refit
from fnatool.search.sampling import Member
from fnatool.training.said import Tuned
from passes.target.spec import Spec


@dataclass(frozen=True)
class Emitted:
    """A member as a file: its Spec from the seed, what it costs, and what came of solving its layers anew (None: they
    are the seed's).
    """

    member: Member
    spec: Spec
    path: Path
    costs: Mapping[str, int]
    refit: Refit | None = None


@dataclass(frozen=True)
class Found:
    """What came of it: the network as a file, what the search says of it, and what fine-tuning came to (None: not
    done).
    """

    emitted: Emitted
    score: Mapping[str, float]
    tuned: Tuned | None
    folder: Path


@dataclass(frozen=True)
class Baseline:
    """A shape that was not searched: its Spec from the seed, what it costs, and what tuning came to."""

    name: str
    spec: Spec
    costs: Mapping[str, int]
    tuned: Tuned


@dataclass(frozen=True)
class DeriveWords:
    """What a method calls the preference and the figures: keys in the JSON, and the head of a column. sign: of the
    preference in scores.
    """

    preference: str
    score: str
    column: str
    sign: float = 1.0


@dataclass(frozen=True)
class DerivedModel:
    """An architecture as a file, what the search says of it by its choices alone, and its figures as a whole (none: not
    asked for).
    """

    emitted: Emitted
    preference: float
    score: Mapping[str, float]
    words: DeriveWords
