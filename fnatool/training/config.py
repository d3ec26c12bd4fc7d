"""The config of a fine-tuning run: one TOML file, checked before anything starts. Nothing here needs torch.

Every field has a default that suits a small data set; `template` writes them all with what they mean.
"""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from fnatool.atomic import write_text
from passes.errors import UserError
from passes.spec import closest

TaskName = Literal["classification", "segmentation", "detection", "pose"]
TASKS: tuple[str, ...] = get_args(TaskName)

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(ge=0, le=100)]


class Section(BaseModel):
    """A table of the file: no unknown keys, no guessing of types, no change afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Data(Section):
    path: str = Field(default="scenes", description="the folder of the data set; its layout is recognised")
    size: tuple[Positive, Positive] | None = Field(default=None, description="height and width of training samples; default: the model's")
    skip_bad: bool = Field(default=False, description="leave out samples that cannot be used, and say how many, instead of stopping")
    workers: Count = Field(default=2, description="processes that load samples; the result does not depend on it")
    augment: bool = Field(default=True, description="random crops, flips, scales and colours, as the task's module says")


class Optimiser(Section):
    name: Literal["sgd", "adamw"] = Field(default="sgd", description="sgd (momentum) or adamw")
    lr: Rate = Field(default=0.01, description="the highest learning rate, for the whole batch (all processes)")
    fresh: tuple[str, ...] = Field(default=("head.*",), description="parameters (patterns on their names) that learn at another rate …")
    fresh_lr: Rate = Field(default=1.0, description="… which is so many times lr; those of a new head are called head.*")
    momentum: Fraction = Field(default=0.9, description="of sgd; adamw's betas are 0.9 and 0.999")
    weight_decay: Rate = Field(default=5e-4, description="on weights; biases and normalisation have none")
    schedule: Literal["cosine", "poly", "constant"] = Field(default="cosine", description="from lr down to final_lr after the warm-up")
    power: Rate = Field(default=0.9, description="of the poly schedule: (1 - t) ** power")
    warmup: Count = Field(default=20, description="steps from 0 to lr")
    final_lr: Fraction = Field(default=0.0, description="times lr at the end")
    clip: Rate = Field(default=10.0, description="the largest norm of all gradients together; 0 leaves them")


class Run(Section):
    seed: Count = Field(default=0, description="of every random draw: the same seed, the same result")
    epochs: Positive = Field(default=10, description="passes over the training data")
    steps: Positive | None = Field(default=None, description="optimiser steps, instead of epochs")
    batch: Positive = Field(default=32, description="samples a step, over all processes together")
    evaluate: Positive = Field(default=1, description="epochs between evaluations on the validation data")
    checkpoint: Positive = Field(default=50, description="steps between checkpoints")
    keep: Literal["last", "best"] = Field(
        default="last", description="which weights are written: of the last step, or of the best evaluation"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: cuda where there is one")
    amp: bool = Field(default=True, description="mixed precision (bfloat16 or float16); on cuda only")
    channels_last: bool = Field(default=True, description="the memory order that is fastest on cuda; on cuda only")
    threads: Positive | None = Field(default=None, description="of the CPU, per process; default: torch's choice")


class Averages(Section):
    ema: Fraction = Field(default=0.0, description="decay of the averaged weights that are evaluated and written, 0.999 say; 0: none")
    refresh_before: Count = Field(default=0, description="steps that only refresh BatchNorm's statistics before training (the paper: 2000)")
    refresh_after: Count = Field(default=0, description="the same after training, before the last evaluation")
    freeze_batchnorm: Literal["auto", "yes", "no"] = Field(
        default="auto", description="keep BatchNorm's statistics; auto: for detection with fewer than 8 samples a process"
    )


class Distil(Section):
    weight: Rate = Field(default=0.0, description="of the distance between the model's outputs and the teacher's; 0: no teacher")
    teacher: str | None = Field(default=None, description="an ONNX file with the same inputs and outputs")
    temperature: Annotated[float, Field(gt=0, le=100)] = Field(default=2.0, description="of the softmax of class outputs")


class Config(Section):
    task: TaskName = Field(default="classification", description=" | ".join(TASKS))
    data: Data = Data()
    optimiser: Optimiser = Optimiser()
    run: Run = Run()
    averages: Averages = Averages()
    distil: Distil = Distil()


ADAMW = {"name": "adamw", "lr": 1e-3, "weight_decay": 1e-2}
"""On small data sets a fresh head learns far sooner by it (fashion-scenes segmentation, 300 steps: mIoU 0.16, by SGD 0.09 at most)."""

OF_TASK: dict[str, dict[str, dict[str, Any]]] = {
    "classification": {},
    "segmentation": {"optimiser": ADAMW, "run": {"batch": 16}},
    "detection": {"optimiser": ADAMW, "run": {"batch": 16}},
    "pose": {"optimiser": ADAMW},
}
"""Where a task's defaults are not the general ones."""


def read_config(path: Path) -> Config:
    """The config in a TOML file; what it leaves unsaid is its task's default. Relative paths are the file's folder's.

    Raises UserError for a file that is not there, is not TOML, or has an unknown key or an impossible value: all of them at once.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"there is no config '{path}'; 'fnatool config {path.name} --task classification' writes one to edit") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"'{path}' cannot be read as a config: {error}") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UserError(f"'{path}' is not TOML: {error}") from error
    try:
        return beside(parse_config(document), path.parent)
    except UserError as error:
        raise UserError(f"'{path}': {error}") from error


def beside(config: Config, folder: Path) -> Config:
    """The config with the paths in it seen from a folder."""
    teacher = config.distil.teacher
    return config.model_copy(
        update={
            "data": config.data.model_copy(update={"path": str(folder / config.data.path)}),
            "distil": config.distil.model_copy(update={"teacher": None if teacher is None else str(folder / teacher)}),
        }
    )


def parse_config(document: dict[str, Any]) -> Config:
    """A config from its document. Raises UserError with every unknown key and impossible value."""
    task = document.get("task", "classification")
    merged = dict(document)
    for section, values in OF_TASK.get(task if isinstance(task, str) else "", {}).items():
        given = document.get(section, {})
        if isinstance(given, dict):
            merged[section] = {**values, **given}
    try:
        return Config.model_validate_json(json.dumps(merged))  # strict, but for lists: JSON has no tuples
    except (TypeError, ValueError) as error:
        if not isinstance(error, ValidationError):
            raise UserError(f"a config holds tables, numbers, words and lists, no dates: {error}") from error
        raise UserError("; ".join(_sentence(problem) for problem in error.errors())) from error


def _sentence(problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"'{key}' is no key of a config{closest(key, keys())}".replace("'fnatool inspect'", "'fnatool config'")
    return f"'{key}' is {problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}"


def keys() -> list[str]:
    """All keys, 'section.key'."""
    found = ["task"]
    for name, field in Config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            found += [f"{name}.{key}" for key in field.annotation.model_fields]
    return found


def template(task: str, data: str | None = None) -> str:
    """A config for the task with every key at its default and what it means. Raises UserError for an unknown task."""
    if task not in TASKS:
        raise UserError(f"'{task}' is no task; there are {', '.join(TASKS)}")
    config = parse_config({"task": task, "data": {} if data is None else {"path": data}})
    lines = [f"# fnatool finetune MODEL --config THIS -o OUT.onnx: {task}", "", f'task = "{task}"']
    for name, field in Config.model_fields.items():
        if not (isinstance(field.annotation, type) and issubclass(field.annotation, Section)):
            continue
        section = getattr(config, name)
        lines += ["", f"[{name}]"]
        lines += [_line(key, getattr(section, key), info) for key, info in field.annotation.model_fields.items()]
    return "\n".join(lines) + "\n"


def _line(key: str, value: object, info: FieldInfo) -> str:
    if value is None:
        return f"# {key} =  # {info.description}"
    return f"{key} = {json.dumps(value, ensure_ascii=False)}  # {info.description}"  # what JSON writes for these, TOML reads


def write_template(path: Path, task: str, *, data: Path | None = None, force: bool = False) -> None:
    """The template as a file; `data` is seen from here, in the file from its folder. Raises UserError where it exists, unless forced."""
    seen = None if data is None else Path(os.path.relpath(data, path.parent)).as_posix()
    write_text(path, template(task, seen), force=force)
