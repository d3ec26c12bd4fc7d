"""The config of a fine-tuning run: one TOML file, checked before anything starts. Nothing here needs torch.

Every field has a default that suits a small data set; `template` writes them all with what they mean.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field, PlainValidator
from pydantic_core import PydanticCustomError

from fnatool.data.options import FORMAT_NAMES, IGNORED, DataOptions
from fnatool.files.atomic import write_text
from fnatool.tasks.table import TASKS, require_task
from fnatool.tasks.task import Defaults, Task
from fnatool.training.sections import MOST_WORDS, Section, lines, one_of, parsed, read_file
from fnatool.training.settings import Settings
from passes.errors import UserError

NOTHING: Settings = {}
ALIKE: Mapping[str, Any] = {"name": "adamw", "lr": 1e-3, "weight_decay": 1e-2}
"""What learns to be like another network begins with most of what it needs: steps of a size of their own, none for a
fresh head.
"""


def small_batches() -> str:
    """'detection with fewer than 8 samples a process', of all tasks that have such a bound."""
    bounds = {task.name: task.small_batch for task in TASKS.values() if task.small_batch}
    return ", ".join(f"{name} with fewer than {least} samples a process" for name, least in bounds.items())


FormatName = Annotated[str, one_of(list(FORMAT_NAMES))]
MaskValue = Annotated[int, Field(ge=0, le=255)]
TaskName = Annotated[str, one_of(list(TASKS))]
Positive = Annotated[int, Field(ge=1, le=10**9)]
Count = Annotated[int, Field(ge=0, le=10**9)]
Side = Annotated[int, Field(ge=1, le=1 << 14)]  # of an image, in pixels
Samples = Annotated[int, Field(ge=1, le=1 << 16)]  # at once


def _workers(given: object) -> object:
    if given != "auto" and not (isinstance(given, int) and not isinstance(given, bool) and 0 <= given <= 256):
        raise PydanticCustomError("workers", "input should be a whole number from 0 to 256, or 'auto'")
    return given


Workers = Annotated[int | Literal["auto"], PlainValidator(_workers)]
WORKERS = 'processes that load samples, or "auto", by cores, device and batch; the result does not depend on it'
Threads = Annotated[int, Field(ge=1, le=1024)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Words = Annotated[tuple[str, ...], Field(max_length=MOST_WORDS)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(ge=0, le=100)]


class DataSection(Section):
    later = frozenset({"format", "background", "ignore"})

    path: str = Field(default="scenes", description="the folder of the data set; its layout is recognised")
    size: tuple[Side, Side] | None = Field(
        default=None, description="height and width of training samples; default: the model's"
    )
    skip_bad: bool = Field(
        default=False, description="leave out samples that cannot be used, and say how many, instead of stopping"
    )
    workers: Workers = Field(default=2, description=WORKERS)
    augment: bool = Field(
        default=True, description="random crops, flips, scales and colours, as the task's module says"
    )
    format: FormatName | None = Field(
        default=None, description=f"{' | '.join(FORMAT_NAMES)}, where the data could be several; default: recognised"
    )
    background: MaskValue | None = Field(
        default=None,
        description="the value of the background in masks, which becomes the first class; default: values in their "
        "order",
    )
    ignore: Annotated[tuple[MaskValue, ...], Field(max_length=256)] = Field(
        default=IGNORED, description="values of masks that are of no class and count for nothing"
    )

    @property
    def reading(self) -> DataOptions:
        """How labels are read."""
        return DataOptions(format=self.format, background=self.background, ignore=self.ignore)


class Optimiser(Section):
    name: Literal["sgd", "adamw"] = Field(default="sgd", description="sgd (momentum) or adamw")
    lr: Rate = Field(default=0.01, description="the highest learning rate, for the whole batch (all processes)")
    fresh: Words = Field(
        default=("head.*",), description="parameters (patterns on their names) that learn at another rate …"
    )
    fresh_lr: Rate = Field(
        default=1.0, description="… which is so many times lr; those of a new head are called head.*"
    )
    momentum: Fraction = Field(default=0.9, description="of sgd; adamw's betas are 0.9 and 0.999")
    weight_decay: Rate = Field(default=5e-4, description="on weights; biases and normalisation have none")
    schedule: Literal["cosine", "poly", "constant"] = Field(
        default="cosine", description="from lr down to final_lr after the warm-up"
    )
    power: Rate = Field(default=0.9, description="of the poly schedule: (1 - t) ** power")
    warmup: Count = Field(default=20, description="steps from 0 to lr")
    final_lr: Fraction = Field(default=0.0, description="times lr at the end")
    clip: Rate = Field(default=10.0, description="the largest norm of all gradients together; 0 leaves them")


Deterministic = Annotated[
    bool,
    Field(description="on cuda too the same seed comes to the same bits, by slower kernels; on the CPU it does anyway"),
]
SyncBatchNorm = Annotated[
    bool,
    Field(
        description="BatchNorm takes its statistics over all processes, as the paper did; otherwise each process "
        "has its own"
    ),
]


Compile = Annotated[
    bool,
    Field(
        description="torch compiles the network at its first step: minutes, then quicker steps on cuda; needs a "
        "compiler"
    ),
]


class RunSection(Section):
    later = frozenset({"deterministic", "sync_batchnorm", "compile"})

    seed: Seed = Field(
        default=0, description="of every random draw: the same seed, the same result (on cuda, see deterministic)"
    )
    epochs: Positive = Field(default=10, description="passes over the training data")
    steps: Positive | None = Field(default=None, description="optimiser steps, instead of epochs")
    batch: Samples = Field(default=32, description="samples a step, over all processes together")
    evaluate: Positive = Field(default=1, description="epochs between evaluations on the validation data")
    checkpoint: Positive | None = Field(default=None, description="steps between checkpoints; default: one a minute")
    keep: Literal["last", "best"] = Field(
        default="last", description="which weights are written: of the last step, or of the best evaluation"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: cuda where there is one")
    amp: bool = Field(default=True, description="mixed precision (bfloat16 or float16); on cuda only")
    channels_last: bool = Field(default=True, description="the memory order that is fastest on cuda; on cuda only")
    threads: Threads | None = Field(default=None, description="of the CPU, per process; default: torch's choice")
    deterministic: Deterministic = False
    sync_batchnorm: SyncBatchNorm = False
    compile: Compile = False


class Averages(Section):
    ema: Fraction = Field(
        default=0.0, description="decay of the averaged weights that are evaluated and written, 0.999 say; 0: none"
    )
    refresh_before: Count = Field(
        default=0, description="steps that only refresh BatchNorm's statistics before training (the paper: 2000)"
    )
    refresh_after: Count = Field(default=0, description="the same after training, before the last evaluation")
    freeze_batchnorm: Literal["auto", "yes", "no"] = Field(
        default="auto", description=f"keep BatchNorm's statistics; auto: for {small_batches()}"
    )


class Imitate(Section):
    teacher: str | None = Field(
        default=None, description="an ONNX file, or the bundled seed's name, that the network is to be like"
    )
    features: Rate = Field(
        default=0.0,
        description="weight of the distance between features, at first; their heads may be others; 0: not compared",
    )
    until: Fraction = Field(default=0.5, description="… the share of the steps at which that weight has fallen to 0")
    places: Words = Field(
        default=(),
        description="taps where features are compared, such as stage3.exit; default: exits of stages and the last map",
    )
    outputs: Rate = Field(
        default=0.0, description="weight of the distance between outputs, which then must be the same ones"
    )
    temperature: Annotated[float, Field(gt=0, le=100)] = Field(
        default=2.0, description="of the softmax of class outputs"
    )

    @property
    def is_on(self) -> bool:
        """A teacher is asked for."""
        return bool(self.features or self.outputs)


class Learning(Protocol):
    """What the configs of everything that learns have in common."""

    @property
    def optimiser(self) -> Optimiser: ...
    @property
    def run(self) -> RunSection: ...
    @property
    def averages(self) -> Averages: ...
    @property
    def imitate(self) -> Imitate: ...
    def model_dump(self, *, mode: str) -> dict[str, Any]: ...
    def model_dump_json(self, *, indent: int) -> str: ...


class Config(Section):
    task: TaskName = Field(default="classification", description=" | ".join(TASKS))
    data: DataSection = DataSection()
    optimiser: Optimiser = Optimiser()
    run: RunSection = RunSection()
    averages: Averages = Averages()
    imitate: Imitate = Imitate()


class LikeData(Section):
    images: Annotated[int, Field(ge=2, le=1 << 30)] | None = Field(
        default=None, description="samples that are used, drawn with the seed; default: all there are"
    )
    kept: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.2, description="share of them that figures are of, and nothing learns from"
    )
    skip_bad: bool = Field(
        default=False, description="leave out samples that cannot be used, and say how many, instead of stopping"
    )
    workers: Workers = Field(default=2, description=WORKERS)


class LikeConfig(Section):
    """How a network learns to be like another one, on samples without labels."""

    data: LikeData = LikeData()
    optimiser: Optimiser = Optimiser(**ALIKE)
    run: RunSection = RunSection(epochs=30, batch=16, keep="best")
    averages: Averages = Averages(refresh_before=20)
    imitate: Imitate = Field(
        default=Imitate(features=1.0, outputs=1.0), description="the teacher is the one named by --like"
    )


def telling(config: Learning) -> dict[str, Any]:
    """All of a config that says what a run is: when checkpoints are written does not."""
    found = config.model_dump(mode="json")
    return {**found, "run": {**found["run"], "checkpoint": ONCE}}


ONCE = 50  # steps between checkpoints when that was the default: so a run of then is the same run now


def read_like_config(path: Path, settings: Settings = NOTHING) -> LikeConfig:
    """The config in a TOML file, as `read_config` reads one."""
    missing = f"'fnatool config {path.name} --like' writes one to edit"
    return read_file(path, missing, parse_like_config, lambda config, folder: config, settings=settings)


def parse_like_config(document: Mapping[str, Any]) -> LikeConfig:
    """A config from its document. Raises UserError with every unknown key and impossible value, and for a teacher in
    it.
    """
    found = parsed(LikeConfig, document, LikeConfig().model_dump(mode="json"))
    if found.imitate.teacher is not None:
        raise UserError("'imitate.teacher': the teacher is the network named by --like")
    if not found.imitate.is_on:
        raise UserError("'imitate.features' and 'imitate.outputs' are both 0: nothing is left to learn")
    return found


def read_config(path: Path, settings: Settings = NOTHING) -> Config:
    """The config in a TOML file, with these settings on top; what both leave unsaid is its task's default.

    Relative paths in the file are seen from its folder.

    Raises UserError for a file that is not there, is not TOML, or has an unknown key or an impossible value: all of
    them at once.
    """
    return read_file(
        path,
        f"'fnatool config {path.name} --task classification' writes one to edit",
        parse_config,
        beside,
        settings=settings,
    )


def beside(config: Config, folder: Path) -> Config:
    """The config with the paths in it seen from a folder."""
    return config.model_copy(
        update={"data": data_beside(config.data, folder), "imitate": imitate_beside(config.imitate, folder)}
    )


def data_beside(data: DataSection, folder: Path) -> DataSection:
    """The same data, seen from a folder."""
    return data.model_copy(update={"path": str(folder / data.path)})


def imitate_beside(imitate: Imitate, folder: Path) -> Imitate:
    """The same teacher, seen from a folder; a name that is no file there may be the bundled seed's."""
    found = None if imitate.teacher is None else folder / imitate.teacher
    return imitate if found is None or not found.is_file() else imitate.model_copy(update={"teacher": str(found)})


def parse_config(document: dict[str, Any]) -> Config:
    """A config from its document. Raises UserError with every unknown key and impossible value."""
    return parsed(Config, document, defaults_of(document, lambda task: task.tuning))


def defaults_of(document: Mapping[str, Any], own: Callable[[Task], Defaults]) -> Defaults:
    """Those of the document's task; own: which of the task's."""
    name = document.get("task", "classification")
    task = TASKS.get(name) if isinstance(name, str) else None
    return {} if task is None else own(task)


def template(task: str, data: str | None = None) -> str:
    """A config for the task with every key at its default and what it means. Raises UserError for an unknown task."""
    require_task(task)
    config = parse_config({"task": task, "data": {} if data is None else {"path": data}})
    return "\n".join([f"# fnatool finetune MODEL --config THIS -o OUT.onnx: {task}", "", *lines(config)]) + "\n"


def write_template(path: Path, task: str, *, data: Path | None = None, force: bool = False) -> None:
    """The template as a file; `data` is seen from here, in the file from its folder. Raises UserError where it exists,
    unless forced.
    """
    write_text(path, template(task, seen_from(path.parent, data)), force=force)


def seen_from(folder: Path, data: Path | None) -> str | None:
    """A path as a file in the folder says it."""
    return None if data is None else Path(os.path.relpath(data, folder)).as_posix()


def write_like_template(path: Path, *, force: bool = False) -> None:
    """A config for learning to be like another network, with every key at its default. Raises UserError where it
    exists, unless forced.
    """
    first = "# fnatool finetune MODEL --like SEED --images DIR --config THIS -o OUT.onnx"
    write_text(path, "\n".join([first, *lines(LikeConfig())]) + "\n", force=force)
