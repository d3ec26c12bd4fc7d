"""The config of a search: one TOML file, checked before anything starts. Nothing here needs torch.

What is charged, and when α begins, are the published defaults of the task where there are any (FNA++, arXiv 2006.12986,
and the released code); steps, rates and optimisers suit a small data set, since at the published ones (SGD 0.02, α by
3e-4 or 1e-3) it takes a large one to learn at all. `paths`, the reference, has those (AS_PUBLISHED). QUICK is what runs
where no config is given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from fnatool import seeds
from fnatool.files.atomic import write_text
from fnatool.tasks.table import TASKS, require_task
from fnatool.tasks.task import Defaults, Task
from fnatool.training.config import (
    NOTHING,
    Averages,
    Compile,
    Config,
    DataSection,
    Deterministic,
    Fraction,
    Imitate,
    LikeConfig,
    LikeData,
    Optimiser,
    Positive,
    Rate,
    Samples,
    Seed,
    SyncBatchNorm,
    Threads,
    Words,
    data_beside,
    defaults_of,
    imitate_beside,
    seen_from,
    small_batches,
)
from fnatool.training.config import RunSection as Training
from fnatool.training.sections import MOST_WORDS, Section, lines, merged, one_of, parsed, read_file
from fnatool.training.settings import Settings, settings_of
from passes.errors import UserError
from passes.space.costs import KINDS
from passes.space.space import MOST_CANDIDATES
from passes.target.assigned import listed

NAME = "search.toml"  # read from the working folder, where there is one and no other is named


Colours = Annotated[tuple[Annotated[float, Field(ge=-1e12, le=1e12)], ...], Field(min_length=1, max_length=3)]


class HeadSection(Section):
    style: str | None = Field(default=None, description="the kind of head, as in 'fnatool head'; default: the task's")
    classes: str | None = Field(
        default=None, description="how many, or a file with a name a line; default: those of the data"
    )
    joints: str | None = Field(
        default=None, description="of a pose: how many, coco, or a JSON file; default: those of the data"
    )
    taps: Words = Field(default=(), description="what the head reads, from fine to coarse; default: by the style")
    width: Samples | None = Field(default=None, description="channels inside the head; default: the style's")
    levels: Annotated[int, Field(ge=1, le=32)] | None = Field(
        default=None, description="maps a detector looks at; default: the style's"
    )
    mean: Colours | None = Field(
        default=None,
        description="of the pixels 0 … 255, one number or one a channel; default: as the seed is known to want them",
    )
    scale: Colours | None = Field(
        default=None, description="what they are divided by: an input is (pixel - mean) / scale"
    )
    channels: Literal["RGB", "BGR"] | None = Field(
        default=None, description="the order of the colours, and of mean and scale"
    )


Values = Annotated[tuple[int | str, ...], Field(min_length=1, max_length=MOST_CANDIDATES)]


class SpaceSection(Section):
    choices: str = Field(
        default="auto",
        description="auto: hidden widths in eighths | coarse: whole or half, the default by gradient | "
        "fna-detection | fna-segmentation | "
        "a JSON file: knob → list of values",
    )
    knobs: Annotated[dict[str, Values], Field(max_length=MOST_WORDS)] = Field(
        default={}, description="on top of that: knob or pattern → list of values, as in a file of choices"
    )
    output_stride: Positive | None = Field(
        default=None, description="of the seed, before anything is searched: 16 or 8 instead of 32"
    )


class Search(Section):
    method: Literal["distance", "gradient"] = Field(
        default="distance",
        description="distance: what keeps the seed's features, without training or labels; gradient: a super "
        "network learns, as in FNA++",
    )
    select: Literal["first", "bn", "l1", "std"] | None = Field(
        default=None,
        description="which channels narrowing keeps, as in 'fnatool remap'; default: first where labels follow, l1 "
        "without a task",
    )
    multiple: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=1, description="what every width that is chosen is a multiple of"
    )
    relaxation: Literal["entangled", "paths"] = Field(
        default="entangled",
        description="candidates share weights and are mixed before the operator; paths: as published, in all defaults",
    )
    strategy: Literal["fna", "preserve"] = Field(
        default="fna", description="of the remap, for super network and result alike"
    )
    epochs: Positive = Field(default=30, description="passes over the weights' part of the training data")
    steps: Positive | None = Field(default=None, description="weight steps, instead of epochs")
    alpha_from: Fraction = Field(default=0.5, description="share of the steps that warm up: weights only")
    alpha_every: Positive = Field(default=1, description="weight steps per step on α")
    alpha_data: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.5, description="share of the training data that α learns from"
    )
    floor: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.5,
        description="against collapse to skip: a block stays with this probability at least, falling to 0 …",
    )
    annealed: Annotated[float, Field(gt=0, le=1)] = Field(default=0.75, description="… at this share of the steps on α")
    finalists: Annotated[int, Field(ge=1, le=256)] = Field(
        default=8,
        description="architectures within the budget, drawn by α, of which the one of the least loss is found; 1: "
        "the likeliest",
    )
    freeze_batchnorm: Literal["auto", "yes", "no"] = Field(
        default="auto", description=f"the seed's statistics instead of the batch's; auto: for {small_batches()}"
    )


class Distance(Section):
    images: Annotated[int, Field(ge=2, le=1 << 20)] = Field(
        default=64, description="unlabelled training images to compare features on; more than there are: all of them"
    )
    batch: Annotated[int, Field(ge=1, le=1 << 16)] = Field(
        default=64, description="images of which BatchNorm takes its statistics at once"
    )
    places: Literal["auto", "stages", "features"] = Field(
        default="auto",
        description="where members are compared with the seed. stages: at the exits of stages that change, the "
        "last hardly; features: at "
        "what the head reads, without a task at the outputs and the last map; auto: stages for a task, "
        "features without one",
    )
    select: Literal["first", "bn", "l1", "std"] = Field(
        default="l1",
        description="which channels a narrower member keeps while it is compared; what is found keeps 'search.select'",
    )
    members: Annotated[int, Field(ge=1, le=4096)] = Field(
        default=48,
        description="architectures that are measured whole: the one of the least sum of single changes, and swaps "
        "from the best",
    )


class RefitSection(Section):
    enabled: Literal["auto", "yes", "no"] = Field(
        default="auto",
        description="the layers of what is found are solved anew against the seed's, without labels; auto: after a "
        "search by distance",
    )
    samples: Annotated[int, Field(ge=2, le=1 << 20)] = Field(
        default=512, description="training samples to solve and to judge by; more than there are: all of them"
    )


class Alpha(Section):
    own: Annotated[float, Field(ge=0, le=20)] = Field(
        default=3.0,
        description="the lead of what the seed has: at first it is exp(own) times as likely as any other choice; "
        "0: as published",
    )
    lr: Rate | None = Field(
        default=None,
        description="of Adam; default: 5 / steps on α, so that it can move by 5 (published: 0.001 for some 5,000 "
        "steps)",
    )
    beta1: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.9, description="of Adam; the other one is 0.999")
    weight_decay: Rate = Field(default=4e-5, description="of Adam")
    clip: Rate = Field(default=0.0, description="the largest norm of α's gradient; 0 leaves it")


class CostSection(Section):
    kind: Annotated[str, one_of([kind.name for kind in KINDS])] = Field(
        default=KINDS[0].name, description="what the search pays for, unless a budget says it"
    )
    weight: Rate = Field(default=0.02, description="λ of λ · log_τ(γ · expected cost)")
    base: Annotated[float, Field(gt=1, le=1e9)] = Field(default=10.0, description="τ")
    scale: Annotated[float, Field(ge=1e-12, le=1e12)] = Field(
        default=1.0, description="γ, for costs in millions (latencies in milliseconds)"
    )
    budget: Words = Field(
        default=(),
        description="such as madds=200M, params=1.5M; the result keeps all of them, and what is below the first "
        "one costs nothing",
    )
    latency: str | None = Field(
        default=None, description="a table of RUN/seed.onnx and RUN/space.json by 'fnatool latency-table'"
    )


class SearchRunSection(Section):
    later = frozenset({"channels_last", "deterministic", "sync_batchnorm", "compile"})

    seed: Seed = Field(default=0, description="of every random draw: the same seed, the same architecture")
    batch: Samples = Field(default=16, description="samples a step, over all processes together")
    checkpoint: Positive | None = Field(
        default=None, description="weight steps between checkpoints; default: one a minute"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: cuda where there is one")
    amp: bool = Field(default=True, description="mixed precision (bfloat16 or float16); on cuda only")
    channels_last: bool = Field(default=True, description="the memory order that is fastest on cuda; on cuda only")
    threads: Threads | None = Field(default=None, description="of the CPU, per process; default: torch's choice")
    deterministic: Deterministic = False
    sync_batchnorm: SyncBatchNorm = False
    compile: Compile = False


OF_THE_MACHINE = ("device", "amp", "threads", "deterministic", "sync_batchnorm", "compile")
"""What the last phase has from the search."""


class Score(Section):
    images: Positive = Field(
        default=256,
        description="of the validation data, for the super network's score of a member; more than there are: all "
        "of them",
    )
    calibration: Samples = Field(
        default=256, description="training images that a member's BatchNorm statistics are taken of"
    )


class Finetune(Section):
    enabled: bool = Field(
        default=True, description="train what was found; otherwise it has the seed's weights and a fresh head"
    )
    baseline: Literal["none", "seed", "uniform", "both"] = Field(
        default="none",
        description="tuned alike, beside what was found: the seed's own shape, all widths narrowed alike to the "
        "budget, or both",
    )
    run: Training = Field(
        default=Training(), description="see 'fnatool config' without --search, for these four tables"
    )
    optimiser: Optimiser = Optimiser()
    averages: Averages = Averages()
    imitate: Imitate = Field(default=Imitate(), description="the seed is the teacher, unless another one is named")


UNLABELLED = "none"  # in the place of a task: to compute what the seed computes


class SearchConfig(Section):
    task: Annotated[str, one_of([*TASKS, UNLABELLED])] = Field(
        default="classification",
        description=f"{' | '.join(TASKS)}; {UNLABELLED}: what the seed computes, learnt without labels",
    )
    model: str = Field(default=seeds.NAMES[0], description="the seed: an ONNX file, or the bundled one's name")
    data: DataSection = DataSection()
    head: HeadSection = Field(default=HeadSection(), description="put on the seed for the search, and on the result")
    space: SpaceSection = SpaceSection()
    search: Search = Search()
    distance: Distance = Field(default=Distance(), description="what the method of this name measures")
    refit: RefitSection = Field(default=RefitSection(), description="as 'fnatool remap --refit' does")
    weights: Optimiser = Field(default=Optimiser(), description="how the super network's weights learn")
    alpha: Alpha = Field(default=Alpha(), description="how the preferences for candidates learn")
    cost: CostSection = CostSection()
    run: SearchRunSection = SearchRunSection()
    score: Score = Score()
    finetune: Finetune = Field(default=Finetune(), description="the last phase")

    @property
    def select(self) -> str:
        """Which channels narrowing keeps in what is found, and in a super network."""
        return self.search.select or ("l1" if self.task == UNLABELLED else "first")

    @property
    def refits(self) -> bool:
        """Whether the layers of what is found are solved anew."""
        return self.refit.enabled == "yes" or (self.refit.enabled == "auto" and self.search.method == "distance")

    @property
    def by_stages(self) -> bool:
        """Whether members are compared at the exits of stages."""
        places = self.distance.places
        return places == "stages" or (places == "auto" and self.task != UNLABELLED)

    def tuning(self) -> Config:
        """The config of the last phase, on the device of the search."""
        how, own = self.finetune, self.run
        run = how.run.model_copy(update={key: getattr(own, key) for key in OF_THE_MACHINE})
        imitate = how.imitate.model_copy(update={"teacher": how.imitate.teacher or self.model})
        return Config(
            task=self.task, data=self.data, optimiser=how.optimiser, run=run, averages=how.averages, imitate=imitate
        )

    def tuning_alike(self) -> LikeConfig:
        """The config of the last phase without a task: to be like the seed."""
        how, own, data = self.finetune, self.run, self.data
        run = how.run.model_copy(update={key: getattr(own, key) for key in OF_THE_MACHINE})
        given = LikeData(skip_bad=data.skip_bad, workers=data.workers)
        return LikeConfig(data=given, optimiser=how.optimiser, run=run, averages=how.averages, imitate=how.imitate)


def _usual(task: Task) -> Defaults:
    """Where a task's defaults are not the general ones."""
    return {**task.searching, "weights": task.tuning.get("optimiser", {}), "finetune": task.tuning}


def _learnt(task: Task) -> Defaults:
    """The same by gradient."""
    return merged(_usual(task), {"search": {"method": "gradient"}, "space": {"choices": "coarse"}})


def _as_published(task: Task) -> Defaults:
    """The same with the relaxation `paths`: as FNA++ did it."""
    return merged(_learnt(task), merged(PUBLISHED, task.published))


PUBLISHED: Defaults = {"search": {"finalists": 1}, "alpha": {"own": 0.0, "lr": 1e-3}}
"""Where the defaults of `paths` are those of no task."""

QUICK: Mapping[str, Any] = {
    "task": "classification",
    "data": {"path": "scenes", "size": [96, 96], "workers": 0},
    "search": {"steps": 120, "alpha_from": 0.3},
    "cost": {"budget": ("madds=45M",)},
    "weights": {"lr": 0.003},
    "run": {"batch": 16, "checkpoint": 20},
    "score": {"images": 128, "calibration": 128},
    "finetune": {"run": {"steps": 200, "batch": 16, "evaluate": 3}, "optimiser": {"lr": 0.003}},
}
"""The embedded default: minutes on two CPU cores."""


def read_search(path: Path, settings: Settings = NOTHING) -> SearchConfig:
    """The config in a TOML file, with these settings on top; what both leave unsaid is its task's default.

    Relative paths in the file are seen from its folder.

    Raises UserError for a file that is not there, is not TOML, or has an unknown key or an impossible value: all of
    them at once.
    """
    missing = f"'fnatool config {path.name} --task segmentation --search' writes one to edit"
    return read_file(path, missing, parse_search, beside, settings=settings)


def quick(folder: Path, settings: Settings = NOTHING) -> SearchConfig:
    """The embedded default with these settings on top, its data in the folder."""
    found = parse_search(merged(QUICK, settings))
    return found.model_copy(update={"data": data_beside(found.data, folder)})


def parse_search(document: Mapping[str, Any]) -> SearchConfig:
    """A config from its document. Raises UserError with every unknown key and impossible value."""
    if document.get("task") == UNLABELLED:
        found = parsed(SearchConfig, document, ALIKE)
        _require_unlabelled(found)
        return found
    return parsed(SearchConfig, document, defaults_of(document, _way(document.get("search"))))


def _way(search: object) -> Callable[[Task], Defaults]:
    """The defaults of the method that is asked for; who asks for a relaxation asks for the gradient."""
    asked = search if isinstance(search, Mapping) else {}
    if asked.get("relaxation") == "paths":
        return _as_published
    return _learnt if asked.get("method", "gradient" if "relaxation" in asked else "distance") == "gradient" else _usual


ALIKE: Defaults = {
    "search": {"method": "distance"},
    "finetune": {name: value for name, value in LikeConfig().model_dump(mode="json").items() if name != "data"},
}
"""Where the defaults of a search without a task are not the general ones."""


def _require_unlabelled(config: SearchConfig) -> None:
    """Nothing is asked that needs labels or a head. Raises UserError."""
    if config.search.method != "distance":
        raise UserError(
            f"'search.method' is '{config.search.method}', which learns by labels: without a task it is distance"
        )
    if config.finetune.imitate.teacher is not None:
        raise UserError("'finetune.imitate.teacher': without a task the teacher is the seed")
    if config.finetune.enabled and not config.finetune.imitate.is_on:
        raise UserError(
            "'finetune.imitate.features' and 'finetune.imitate.outputs' are both 0: nothing is left to learn"
        )
    own, usual = config.head, HeadSection()
    asked = [
        key
        for key in HeadSection.model_fields
        if key not in ("mean", "scale", "channels") and getattr(own, key) != getattr(usual, key)
    ]
    if asked:
        raise UserError(f"'head.{next(iter(asked))}': without a task there is no head")


def beside(config: SearchConfig, folder: Path) -> SearchConfig:
    """The config with the paths in it seen from a folder: those of data and teacher, and of the files that are
    there.
    """

    def there(name: str | None) -> str | None:
        return str(folder / name) if name is not None and (folder / name).is_file() else name

    head, cost = config.head, config.cost
    return config.model_copy(
        update={
            "model": there(config.model),
            "data": data_beside(config.data, folder),
            "head": head.model_copy(update={"classes": there(head.classes), "joints": there(head.joints)}),
            "space": config.space.model_copy(update={"choices": there(config.space.choices)}),
            "cost": cost.model_copy(update={"latency": None if cost.latency is None else str(folder / cost.latency)}),
            "finetune": config.finetune.model_copy(update={"imitate": imitate_beside(config.finetune.imitate, folder)}),
        }
    )


def template(task: str, data: str | None = None) -> str:
    """A config for the task with every key at its default and what it means. Raises UserError for an unknown task."""
    if task != UNLABELLED:
        require_task(task)
    config = parse_search(merged({"task": task}, {} if data is None else {"data": {"path": data}}))
    return "\n".join([f"# fnatool search --config THIS: {task}", "", *lines(config)]) + "\n"


def write_template(path: Path, task: str, *, data: Path | None = None, force: bool = False) -> None:
    """The template as a file; `data` is seen from here, in the file from its folder. Raises UserError where it exists,
    unless forced.
    """
    write_text(path, template(task, seen_from(path.parent, data)), force=force)


def settings_of_search(given: Iterable[str]) -> Settings:
    """The document that says each section.key=value, and each KNOB=VALUE,VALUE of the space. Raises UserError for what
    is neither.
    """
    said = list(given)
    words = [text.partition("=")[0].strip() for text in said]
    own = [word.partition(".")[0] in SearchConfig.model_fields or KNOB.match(word) is None for word in words]
    settings = settings_of(text for text, is_own in zip(said, own, strict=True) if is_own)
    knobs = listed(text for text, is_own in zip(said, own, strict=True) if not is_own)
    return merged(settings, {"space": {"knobs": knobs}}) if knobs else settings


KNOB = re.compile(r"stage|node:|\*|output_stride|input\.size|batch")
