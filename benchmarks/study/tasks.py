"""What the rows are compared on: the tasks with labels on fashion-scenes, and any network to be like itself on
photographs.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from fnatool import seeds
from fnatool.files import model as files
from fnatool.files.atomic import replacing_folder, temporary
from fnatool.search.config import QUICK, UNLABELLED, SearchConfig, parse_search
from fnatool.search.preparing import PreparedSearch, prepare_search
from fnatool.search.run import SCENES
from fnatool.tasks import reading
from fnatool.tasks import scenes as writing
from fnatool.tasks.table import TASKS
from fnatool.training.processes import World
from fnatool.training.sections import merged

HERE = World(0, 1, torch.device("cpu"))
BATCH = 16
LAST = 10**6  # epochs between evaluations: none before the last step
DISTANCE = {"search": {"method": "distance"}, "space": {"choices": "auto"}}


@dataclass(frozen=True)
class StudyTask:
    """A seed and its data. `photos` are pictures without labels, of those to learn from alone where there are labels.

    `own` is what its config says beside the embedded default's; `kept` are photographs for figures alone (None: a part
    of `photos`); `better` is 1 where a larger figure is the better one, else −1.
    """

    name: str
    metric: str
    better: int
    own: Mapping[str, Any]
    photos: Path
    kept: Path | None = None

    @property
    def has_labels(self) -> bool:
        """Whether there is a task to learn, or the seed to be like."""
        return self.own["task"] != UNLABELLED

    @property
    def seed(self) -> str:
        """The seed's name or path."""
        return str(self.own.get("model", seeds.NAMES[0]))

    def config(self, seed: int, steps: int, *more: Mapping[str, Any]) -> SearchConfig:
        """Of a search, with all that the last phase needs, on one thread."""
        run = {"run": {"seed": seed, "threads": 1}, "finetune": {"run": {"seed": seed, "steps": steps}}}
        document = merged(self.own, run)
        for part in more:
            document = merged(document, part)
        return parse_search(document)

    @cached_property
    def madds(self) -> int:
        """What the seed costs: at the size, with the head."""
        found = prepared(self, 0).own_cost("madds")
        assert found is not None
        return found


def labelled(
    task: str, folder: Path, *, quick: Mapping[str, Any] = QUICK, scenes: writing.SceneOptions | None = None
) -> StudyTask:
    """A task of fashion-scenes, its data in the folder, written if it is not there: the embedded default's, to be told
    from 400 others.
    """
    data = folder / f"scenes-{task}"
    if not data.exists():
        folder.mkdir(parents=True, exist_ok=True)
        writing.write_scenes(data, scenes or replace(SCENES, task=task, val=400, size=SIZES.get(task, SCENES.size)))
    own = merged(quick, {"task": task, "data": {"path": str(data)}, **OWN.get(task, {})})
    metric = TASKS[task].metric
    return StudyTask(task, metric, 1, own, _photos(task, data, folder / f"photos-{task}"))


SIZES = {"segmentation": 96}  # of scenes, where small ones blown up would blur what is asked for
OWN: Mapping[str, Mapping[str, Any]] = {
    "segmentation": {
        "space": {"output_stride": 16},
        "weights": {"lr": 0.001},
        "finetune": {"optimiser": {"lr": 0.001}},
    }
}
"""Where a task's config is not the embedded default's: what its own head needs at 96×96, and the rate of its own
optimiser.
"""


def _photos(task: str, data: Path, folder: Path) -> Path:
    """The training images of a data set by themselves."""
    if not folder.exists():
        split = reading.read(data, task=task)
        with replacing_folder(folder) as made:
            for k, path in enumerate(sorted({split.path(item.image) for item in split.items})):
                shutil.copy(path, made / f"{k:05}{path.suffix}")
    return folder


def alike(model: str, photos: Path, kept: Path | None = None) -> StudyTask:
    """To bring a network to a budget that computes what it does now."""
    own = merged(
        DISTANCE,
        {
            "task": UNLABELLED,
            "model": model,
            "data": {"path": str(photos), "workers": 0},
            "finetune": {"run": {"batch": BATCH, "evaluate": LAST}},
        },
    )
    return StudyTask(f"like-{Path(model).stem}", "distance", -1, own, photos, kept)


def prepared(task: StudyTask, seed: int, steps: int = 1) -> PreparedSearch:
    """The seed with its head, the data, the space and its costs, as the search by distance has them."""
    key = (task.name, task.own["data"]["path"], seed, steps)
    if key not in READY:
        READY.clear()
        config = task.config(seed, steps, DISTANCE)
        with temporary() as folder:
            READY[key] = prepare_search(files.read(seeds.find(config.model)), config, folder, HERE)
    return READY[key]


READY: dict[tuple[object, ...], PreparedSearch] = {}  # the last one
