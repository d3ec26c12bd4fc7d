"""The gate: a deployed graph answers as the model does, or it is told how far from it."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fnatool.deploy.around import Around, is_exact, write_whole
from fnatool.deploy.document import MARK, MODEL, Document
from fnatool.deploy.documenting import document_of
from fnatool.deploy.network import Core
from fnatool.deploy.options import EXACT, FP32, INT8, DeployOptions
from fnatool.deploy.outputs import farthest
from fnatool.files import model as files
from fnatool.tasks.table import TASKS
from passes.errors import RefusedModel

if TYPE_CHECKING:
    from PIL import Image

    from fnatool.data.split import Split
    from fnatool.deploy.answering import Answering
    from fnatool.deploy.calibrating import CalibrationSamples

ROUNDING = 1e-9  # of figures: one of 100 pictures less is a point, not a little more
# what figures are called, and how much of the graph is rewritten then
LEVELS = {"after": "all", "after, as written": "none"}
Figures = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Apart:
    """A deployed graph that does not answer as the model does: by what share of what, and how much may be."""

    share: float
    most: float
    what: str

    def sentence(self, first: str) -> str:
        """In words. first: the node that is hurt most, if that is known."""
        start = f"; what is hurt most is '{first}'" if first else ""
        far = (
            f"{self.share:.1%} is another" if math.isfinite(self.share) else "it overflows to what is no finite number"
        )
        said = f"{self.what}: {far} (at most {self.most:.1%} may be another){start}"
        return f"the deployed graph does not answer as the model does: {said}"


Judge = Callable[[Path, Document], Document | Apart]
"""The document of the graph in a folder with how far answers are from those of the model, or that they are too far."""


def judge_of(read: files.Model, made: Core, options: DeployOptions, samples: CalibrationSamples | None) -> Judge:
    """How graphs made of this model are judged."""
    if made.described is None:
        return partial(_judged_outputs, made=made, options=options, samples=samples)
    data = partial(_checked_split, made, options) if options.data is not None else None
    return _Judging(read, options, samples, data)


class _Judging:
    """The same for a model with a task. What the model itself comes to is measured once."""

    def __init__(
        self,
        read: files.Model,
        options: DeployOptions,
        samples: CalibrationSamples | None,
        data: Callable[[], Split] | None,
    ) -> None:
        self.read, self.options, self.samples, self.data = read, options, samples, data
        self.split: Split | None = None
        self.before: dict[str, float] | None = None

    def __call__(self, place: Path, document: Document) -> Document | Apart:
        """See Judge."""
        options = self.options
        if not options.preprocessing and options.postprocessing:
            return document.model_copy(
                update={"notes": (*document.notes, "answers are in pixels of the input and were not compared")}
            )
        if not options.verify and options.data is None:
            return document
        (place / MARK).write_text(document.to_json())  # for who reads a folder
        source = place / "source.onnx"
        files.write(replace(self.read, path=place / "none", data=()), source)
        try:
            return self._compared(place, document, source)
        finally:
            for path in (source, source.with_name(f"{source.name}.data")):
                path.unlink(missing_ok=True)

    def _compared(self, place: Path, document: Document, source: Path) -> Document | Apart:
        from fnatool.deploy.answering import of_folder, of_model

        options = self.options
        one = of_model(source, "cpu", document.size)
        levels = LEVELS if options.precision != FP32 else {"after": "all"}
        others = {name: of_folder(place, "cpu", optimised=level) for name, level in levels.items()}
        update: dict[str, object] = {}
        if options.verify:
            found = self._answers(one, others, document)
            if isinstance(found, Apart):
                return found
            update["verified"] = found
        if self.data is not None:
            figures = self._figures(one, others, self.data)
            if isinstance(figures, Apart):
                return figures
            update["figures"] = figures
            update["notes"] = (*document.notes, *self._few())
        return document.model_copy(update=update)

    def _few(self) -> list[str]:
        """That the data can hardly tell what may be lost, where one picture alone weighs more."""
        most, count = self.options.most_lost, len(self.split.items) if self.split is not None else 0
        if most is None or not count or count * most > 1 - ROUNDING:
            return []
        weight = f"one may weigh {100 / count:.1f} points, and {100 * most:.1f} may be lost"
        return [
            (
                f"the figures are of {count} picture(s), of which {weight}: that none is lost says little, and that "
                "one is need not mean much"
            )
        ]

    def _answers(
        self, one: Answering, others: Mapping[str, Answering], document: Document
    ) -> dict[str, object] | Apart:
        """How far answers are apart, on patterns of many sizes; of int8 the mean over the user's pictures that were
        kept back, if any.
        """
        from fnatool.deploy import judging

        options, mean = self.options, False
        shown: Callable[[], Iterator[tuple[str, Image.Image]]] = partial(
            judging.pictures, document.size or (0, 0), document.image_size
        )
        if (
            options.precision == INT8
            and self.samples is not None
            and options.images is not None
            and document.image_size is None
        ):
            shown, mean = self.samples.pictures, True
        found = [judging.judged(one, other, shown()) for other in others.values()]
        far = max(found, key=lambda row: row.mean if mean else row.worst)
        share = far.mean if mean else far.worst
        if not share <= options.answers_apart and options.most_lost is None:
            where = f"the answer on {far.count} pictures that were kept back" if mean else f"the answer on {far.where}"
            return Apart(share, options.answers_apart, f"of {where}")
        return {"apart": share, "pictures": far.count, "tolerance": options.answers_apart}

    def _figures(self, one: Answering, others: Mapping[str, Answering], data: Callable[[], Split]) -> Figures | Apart:
        from fnatool.deploy import judging

        self.split = self.split or data()
        described = one.description.adopting(self.split.classes, self.split.joints)
        metric = TASKS[described.task].metric
        self.before = self.before or judging.figures(replace(one, description=described), self.split, "figures before")
        found = {"before": self.before}
        for name, other in others.items():
            found[name] = judging.figures(replace(other, description=described), self.split, f"figures {name}")
            lost = self.before[metric] - found[name][metric]
            most = self.options.most_lost
            if self.options.verify and most is not None and lost > most + ROUNDING:
                return Apart(lost, most, f"of {metric} on '{self.options.data}'")
        return found


def _checked_split(made: Core, options: DeployOptions) -> Split:
    from fnatool.data import checking
    from fnatool.tasks import reading
    from fnatool.tasks.description import is_placeholder
    from fnatool.training.samples import require_fit

    described = made.described
    assert described is not None
    assert options.data is not None
    classes = None if is_placeholder(described.classes) else described.classes
    split = reading.read(options.data, task=described.task, split="val", classes=classes, options=options.reading)
    (split,) = checking.checked([split], skip_bad=False, progress=lambda done, total: None)
    require_fit(split, described.adopting(split.classes, split.joints))
    return split


def _judged_outputs(
    place: Path, document: Document, *, made: Core, options: DeployOptions, samples: CalibrationSamples | None
) -> Document | Apart:
    """Of a model without a task: how far its outputs are from those of the network in single precision, on noise or
    samples kept back.
    """
    if not options.verify:
        return document
    share, name = farthest(made, place / MODEL, None if samples is None else samples.back)
    if not share <= options.outputs_apart:
        return Apart(share, options.outputs_apart, f"of the spread of the output '{name}'")
    return document.model_copy(
        update={"verified": {"output": name, "apart": share, "tolerance": options.outputs_apart}}
    )


def require_same_front(place: Path, read: files.Model, made: Core, options: DeployOptions, *, parts: Around) -> None:
    """With pre-processing alone the outputs are those of the model. Raises RefusedModel where they are not.

    Where places are rounded, or there are no answers to compare, that says nothing, and it is not looked at.
    """
    from fnatool.deploy import judging
    from fnatool.deploy.answering import of_folder, of_model

    if parts.front is None or parts.finish is None or not options.verify or not is_exact(options, parts.front):
        return
    plain = replace(options, precision=FP32)
    with tempfile.TemporaryDirectory(dir=place, prefix="front") as name:
        inner = Path(name)
        write_whole(inner, made, made.model, Around(parts.front, None), options=plain)
        document = document_of(inner, read, made, plain, has=(True, False))
        (inner / MARK).write_text(document.to_json())
        files.write(replace(read, path=place / "none", data=()), inner / "source.onnx")
        one, other = of_model(inner / "source.onnx", "cpu", made.size), of_folder(inner, "cpu")
        found = judging.outputs_apart(one, other, judging.pictures(made.size or (0, 0), options.image_size))
    if found.worst > EXACT:
        where = f"{found.where} is off by {found.worst:.1%}"
        raise RefusedModel(f"the deployed graph does not show the network what the model is shown: {where}")
