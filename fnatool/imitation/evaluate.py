"""How like one model file is to another on samples without labels: what `fnatool evaluate --like` says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fnatool import seeds, terminal
from fnatool.data.unlabelled import drawn
from fnatool.files import model as files
from fnatool.files.atomic import write_text
from fnatool.imitation.in_runtime import compare
from fnatool.imitation.likeness import Likeness
from fnatool.model.analysed import analyse_model
from fnatool.model.unlabelled import UnlabelledOptions, find_unlabelled
from passes.errors import UserError


@dataclass(frozen=True, kw_only=True)
class LikenessOptions:
    """The samples, how many of them (None: all; drawn with the seed), how many at a time, on which provider of ONNX
    Runtime.

    `skip_bad` leaves out samples that cannot be used.
    """

    data: UnlabelledOptions
    count: int | None = None
    seed: int = 0
    batch: int = 32
    provider: str = "cpu"
    skip_bad: bool = False


@dataclass(frozen=True)
class LikenessReport:
    """How like a model is to another one: over all samples and per output, which sample differs most, and outputs left
    out, with why.

    notes: what is to be said of the data.
    """

    model: Path
    like: Path
    likeness: Likeness
    samples: int
    worst: str
    left_out: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @property
    def figures(self) -> dict[str, float]:
        """distance (0: the same; 1: as far as samples are from each other), agreement of the largest,
        distance/OUTPUT.
        """
        return self.likeness.figures()

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        rows = {
            name: {"distance": one.distance, "agreement": one.agreement} for name, one in self.likeness.outputs.items()
        }
        return {
            **{name: value for name, value in self.figures.items() if "/" not in name},
            "outputs": rows,
            "samples": self.samples,
            "worst": {"sample": self.worst, "distance": self.likeness.samples[self.likeness.worst]},
            "left_out": dict(self.left_out),
        }

    def write(self, path: Path | str, *, force: bool = False) -> None:
        """The same as a JSON file."""
        write_text(Path(path), json.dumps(self.to_json(), indent=1) + "\n", force=force)


def evaluate_like(model: Path | str, like: Path | str, options: LikenessOptions) -> LikenessReport:
    """How like the outputs of the model in a file are to those of another one, on samples without labels; each at its
    own sizes.

    Raises UserError for data that does not fit and for models with other inputs, RefusedModel where one does not run,
    or nothing can be compared.
    """
    read = [files.read(seeds.find(source)) for source in (model, like)]
    analyses = [analyse_model(one) for one in read]
    names = [sorted(name for name in found.view.inputs if name not in found.view.constants) for found in analyses]
    if names[0] != names[1]:
        said = [", ".join(f"'{name}'" for name in found) or "none" for found in names]
        raise UserError(
            f"'{read[0].path}' has the inputs {said[0]}, '{read[1].path}' has {said[1]}: they are not for the same data"
        )
    found = [find_unlabelled(one, analysis, options.data) for one, analysis in zip(read, analyses, strict=True)]
    with terminal.progress(
        "looking at the data", len(found[1]) if options.count is None else min(options.count, len(found[1]))
    ) as advance:
        used = drawn(found[1], options.count, seed=options.seed, skip_bad=options.skip_bad, done=advance)
    own = replace(used, form=found[0].form)
    with terminal.progress("comparing", len(used)) as advance:
        likeness, left_out = compare(
            (read[0].path, read[1].path), (own, used), batch=options.batch, provider=options.provider, done=advance
        )
    return LikenessReport(
        read[0].path,
        read[1].path,
        likeness,
        len(used),
        used.places[likeness.worst].name,
        left_out,
        (*used.notes, used.summary()),
    )
