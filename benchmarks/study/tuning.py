"""The last phase, the same for all rows: what has been shaped learns its task, or to be like the seed, and is
measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import fnatool
from benchmarks.study.tasks import StudyTask
from fnatool.model.unlabelled import folder_options
from fnatool.search.config import SearchConfig


def tune(task: StudyTask, config: SearchConfig, start: Path, out: Path) -> Mapping[str, float]:
    """The network in a file, tuned as the config's last phase says, at `out`; its figures in ONNX Runtime on what is
    kept back.

    A run that was interrupted goes on.
    """
    folder = out.with_suffix(".run")
    if not task.has_labels:
        options = fnatool.LikeOptions(data=folder_options(task.photos), config=config.tuning_alike(), folder=folder)
        tuned = fnatool.finetune_like(start, task.seed, out, options)
    else:
        how = config.tuning()
        how = how.model_copy(update={"data": how.data.model_copy(update={"size": None})})  # the network's own
        tuned = fnatool.finetune(start, how, out, options=fnatool.FinetuneOptions(folder=folder))
    assert tuned is not None
    return dict(tuned.in_runtime) if task.kept is None else like(task, out)


def like(task: StudyTask, model: Path) -> Mapping[str, float]:
    """How like a network without a task is to the seed, on the photographs for figures."""
    assert task.kept is not None
    return fnatool.evaluate_like(model, task.seed, fnatool.LikenessOptions(data=folder_options(task.kept))).figures
