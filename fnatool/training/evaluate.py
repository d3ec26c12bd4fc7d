"""How good a model file is on a data set, as it runs in ONNX Runtime."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fnatool import seeds, terminal
from fnatool.data import checking
from fnatool.data.options import USUAL, DataOptions
from fnatool.data.split import said
from fnatool.files import model as files
from fnatool.files.atomic import write_text
from fnatool.model import pixels
from fnatool.model.analysed import metadata
from fnatool.tasks import reading
from fnatool.tasks.description import is_placeholder
from fnatool.tasks.table import TASKS, description_of
from fnatool.training.in_runtime import evaluate_file
from fnatool.training.model_and_data import sizes
from fnatool.training.samples import Evaluation, require_fit


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Of which split, how many images at a time, how many processes load them, on which provider of ONNX Runtime (cpu,
    cuda, tensorrt).

    `skip_bad` leaves out samples that cannot be used. `reading`: how labels are read.
    """

    split: str = "val"
    batch: int = 32
    workers: int = 2
    provider: str = "cpu"
    skip_bad: bool = False
    reading: DataOptions = USUAL


@dataclass(frozen=True)
class Evaluated:
    """The figures of a model: top-1, mIoU, mAP, or OKS AP and PCK, all from 0 to 1.

    `each`: those of single classes (or joints), by names with a /; None where the data have no truth of it, which then
    counts for nothing.
    """

    model: Path
    figures: Mapping[str, float]
    each: Mapping[str, float | None]

    def to_json(self) -> dict[str, float | None]:
        """The figures, for programs."""
        return {**self.figures, **self.each}

    def write(self, path: Path | str, *, force: bool = False) -> None:
        """The same as a JSON file."""
        write_text(Path(path), json.dumps(self.to_json(), indent=1) + "\n", force=force)


def evaluate(model: Path | str, data: Path | str, *, options: EvaluateOptions | None = None) -> Evaluated:
    """How good the model in a file, which has a head, is on the data set in a folder.

    Raises UserError for a model without a task, for data that does not fit it and for a provider that is not there,
    RefusedModel where the model does not run.
    """
    options = options or EvaluateOptions()
    read = files.read(seeds.find(model))
    described = description_of(metadata(read.envelope))
    size = sizes(read, described, None)[1]
    classes = None if is_placeholder(described.classes) else described.classes
    found = reading.read(Path(data), task=described.task, split=options.split, classes=classes, options=options.reading)
    with terminal.progress("looking at the data", len(found.items)) as advance:
        (found,) = checking.checked([found], skip_bad=options.skip_bad, progress=lambda done, total: advance(1))
    described = described.adopting(found.classes, found.joints)
    require_fit(found, described)
    for line in said([found]):
        terminal.console().print(line, markup=False)
    if (how := pixels.recorded(read, described.input)).guessed:
        pixels.say(how)
    samples = Evaluation(found, described, size)
    with terminal.progress("evaluating", len(samples)) as advance:
        figures = evaluate_file(
            read.path, samples, batch=options.batch, workers=options.workers, provider=options.provider, done=advance
        )
    task = TASKS[described.task]
    return Evaluated(read.path, figures, task.of_labels(figures, described.labels))
