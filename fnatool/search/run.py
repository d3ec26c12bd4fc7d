"""Searching an architecture for a task, from a seed file to a network that has learnt: the phases of `fnatool search`,
in order.

Methods differ in what they do between preparation and the last phase: `gradient` lets a super network learn, `distance`
measures.
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from fnatool import seeds, terminal
from fnatool.files import model as files
from fnatool.files.atomic import write_text
from fnatool.files.documents import read_json
from fnatool.files.runfolder import NEW, empty_folder, hold_folder
from fnatool.model.pixels import say
from fnatool.search import by_distance as measuring
from fnatool.search import folder as folders
from fnatool.search import reporting, watching
from fnatool.search.baselines import baseline_specs, baselines
from fnatool.search.config import NAME, QUICK, UNLABELLED, SearchConfig, parse_search, quick, read_search
from fnatool.search.emitting import HeadedMember, best_within, member_refitted
from fnatool.search.finalists import choosing
from fnatool.search.loop import SearchJob, learn
from fnatool.search.nearest import SAME
from fnatool.search.preparing import PreparedSearch, facts, network_of, prepare_search
from fnatool.search.purposes import images_of
from fnatool.search.reporting import MethodResult
from fnatool.search.results import Emitted, Found
from fnatool.search.sampling import Member
from fnatool.search.scoring import parts_of, score, scoring_of
from fnatool.search.showing import show_space
from fnatool.search.solver import Budget
from fnatool.search.trunks import Pick
from fnatool.search.tuning import require_tuning, tune_found
from fnatool.search.words import cost_text
from fnatool.supernet.network import SuperNetwork
from fnatool.tasks.scenes import SceneOptions, write_scenes
from fnatool.training import diagnosis
from fnatool.training.checkpoint import damaged
from fnatool.training.finetune import RunPlaces
from fnatool.training.machine import arranged, require_compiler
from fnatool.training.machine import say as say_machine
from fnatool.training.order import TrainOrder
from fnatool.training.processes import World, joined
from fnatool.training.room import require_room
from fnatool.training.said import Tuned
from fnatool.training.sections import merged
from fnatool.training.settings import Settings
from fnatool.training.stepping import share
from fnatool.training.watching import sentence
from passes.errors import UserError
from passes.space.budgets import parse_budget
from passes.space.costs import Table
from passes.space.space import Choices

SCENES = SceneOptions(QUICK["task"], 64, 960, 128, 0)  # the data of the embedded default
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """`settings` (keys by sections) on top of the config, other budgets, to begin anew, to stop before anything is
    trained.

    With `restart` an earlier run in the folder goes. `images` is a folder of pictures (or of .npy, .npz files, for any
    inputs) to search without a task by: what the seed computes is wanted.
    """

    settings: Settings = field(default_factory=dict)
    images: Path | str | None = None
    budgets: tuple[str, ...] = ()
    restart: bool = False
    dry_run: bool = False


def search(
    seed: Path | str | None = None,
    config: Path | str | SearchConfig | None = None,
    out: Path | str = "search.run",
    *,
    options: SearchOptions | None = None,
) -> Found | None:
    """The folder `out` holds the architecture found for the config's task: its Spec, the network, and a report; a run
    there goes on.

    seed: another than the config's: a path, or the bundled seed's name. config: a file, or one in memory; without one
    it is the one in the working folder, or else the embedded default. Under torchrun all processes work together; the
    first one writes, and the others get None; so does a dry run. Raises UserError and RefusedModel, before anything is
    trained, for what does not fit; later where a loss is not finite, or where memory or disk is full. The last
    checkpoint is never lost.
    """
    asked, folder = options or SearchOptions(), Path(out)
    how, embedded = _config(config, folder, asked)
    if asked.restart and asked.dry_run:
        raise UserError(
            "--dry-run trains nothing and --restart removes an earlier run; give one of them, or another folder with -o"
        )
    how = _as_asked(how, seed, asked)
    read = files.read(seeds.find(how.model))
    latency = how.cost.latency
    folders.require_outside(folder, [read.path, *read.data, *([] if latency is None else [Path(latency)])])
    with (
        arranged(how.run),
        joined(how.run.device) as world,
        _guarded(folder, how),
        hold_folder(folder, folders.SEARCH) if world.first else nullcontext(),
    ):
        say_machine(world, how.run)
        require_compiler(world, how.run)
        if world.first and embedded:
            _say_embedded(how, folder)
        world.wait()
        made = _prepare_anew(read, how, folder, world) if asked.restart else prepare_search(read, how, folder, world)
        return _phases(made, folder, world, dry_run=asked.dry_run)


def _prepare_anew(seed: files.Model, how: SearchConfig, folder: Path, world: World) -> PreparedSearch:
    """The search prepared anew in the place of an earlier one, which is lost no sooner than all has been checked."""
    place = folder / NEW
    if world.first:
        place.mkdir()
    world.wait()
    try:
        made = prepare_search(seed, how, place, world)
        METHODS[how.search.method](made, world)  # raises
        baseline_specs(made)  # raises
        if world.first:
            empty_folder(folder, folders.SEARCH, lambda: folders.arrange(folder))
        world.wait()
        return made
    finally:
        if world.first:
            shutil.rmtree(place, ignore_errors=True)


def require_enough(made: PreparedSearch, world: World) -> None:
    """There are samples enough for a step of every phase, and a teacher where one is asked for. Raises UserError."""
    weights, alphas = parts_of(made)
    for samples in (weights, alphas):
        TrainOrder(
            samples=len(samples),
            batch=share(made.config.run.batch, world),
            steps=1,
            seed=0,
            start=0,
            rank=world.rank,
            world=world.size,
        )
    require_tuning(made.config, made.purpose, world)


@dataclass(frozen=True)
class Way:
    """A search that can begin: what is left to it, and what finds an architecture, given the run's folder and its key.

    All processes call it together; the first one alone has what was found.
    """

    made: PreparedSearch
    find: Callable[[tuple[Path, str]], MethodResult | None]


def _phases(made: PreparedSearch, folder: Path, world: World, *, dry_run: bool) -> Found | None:
    """Find by the method, remap, fine-tune, report; or none of them."""
    own = facts(made.ground, made.config, made.purpose, world.size, space=made.space)
    way = METHODS[made.config.search.method](made, world)
    made, beside = way.made, baseline_specs(way.made)
    if world.first:
        if made.ground.pixels is not None:
            say(made.ground.pixels)
        show_space(made)
        if not dry_run:
            folders.claim(folder, own, made.config.cost.latency)
        write_text(folder / folders.SPACE, json.dumps(made.space.to_json(), indent=1) + "\n", force=True)
        write_text(folder / folders.COSTS, json.dumps(_costs(made), indent=1) + "\n", force=True)
    world.wait()
    if dry_run:
        return None
    found = way.find((folder, own.key))
    tuned = _fine_tune(made, folder, world)
    others = baselines(made, beside, folder, world)
    if found is None:
        return None
    reporting.write(made, found, tuned=tuned, beside=others, folder=folder)
    return Found(found.emitted, found.figures, tuned, folder)


# --- by gradient --------------------------------------------------------------------------------


def by_gradient(made: PreparedSearch, world: World) -> Way:
    """The super network warms up and learns; of the members that it prefers the best is found. Raises UserError for
    what does not fit.
    """
    if made.config.task == UNLABELLED:
        raise UserError('a super network learns by labels: without them search.method is "distance"')
    network, tables = network_of(made)
    made = made.leaving(network.choices, tables)
    require_enough(made, world)
    halved = world.device.type == "cuda" and made.config.run.amp
    require_room(network.reading, share(made.config.run.batch, world), world.device, key="run.batch", halved=halved)

    def find(run: tuple[Path, str]) -> MethodResult | None:
        job = job_of(made, network, tables, run)
        if world.first:
            terminal.console().print(f"the {made.config.search.relaxation} super network learns, in {run[0]}")
        with watching.shown(made.kind, job.budget) if world.first else nullcontext(watching.silent()) as watch:
            learn(job, world, watch)
        found, figures = _find_best(made, network, world, job=job, tables=tables)
        network.to("cpu")
        return None if found is None else reporting.learnt(made, network, found, figures)

    return Way(made, find)


def _find_best(
    made: PreparedSearch, network: SuperNetwork, world: World, *, job: SearchJob, tables: Mapping[str, Table]
) -> tuple[Emitted | None, Mapping[str, float]]:
    """The best member within the budgets as a file, remapped from the seed, and its score; the first process alone does
    it.
    """
    found, figures = None, {}
    if world.first:
        budgets = [replace(budget, table=tables[budget.kind]) for budget in made.budgets(made.config.cost.budget)]
        scoring = scoring_of(made, world.size)
        best = _remembered(job, choosing(network, made.config, scoring))
        (trunk,) = made.trunks
        picked = best_within(made.ground, lambda asked: Pick(trunk, best(asked)), budgets=budgets)
        found = _write_found(_refitted(made, *picked), job.folder)
        figures = score(network, found.member, scoring)
        terminal.console().print(f"found: {_in_words(found)}; in the super network {sentence(figures)}")
    world.wait()
    return found, figures


def _remembered(job: SearchJob, best: Callable[[Sequence[Budget]], Member]) -> Callable[[Sequence[Budget]], Member]:
    """The same choice again where it has been made: losses that are nearly the same may be ordered otherwise on another
    machine.
    """
    path = job.folder / folders.CHOSEN

    def remembered(budgets: Sequence[Budget]) -> Member:
        asked = [job.key, *(budget.limit for budget in budgets)]
        if path.exists():
            known = read_json(path, "choice", pipes=False)
            if not isinstance(known, dict) or not isinstance(known.get("of"), list):
                raise damaged(path, "it says no choice")
            if known["of"] == asked:
                return _member(known.get("member"), job.network.choices, path)
        found = best(budgets)
        write_text(path, json.dumps({"of": asked, "member": found}) + "\n", force=True)
        return found

    return remembered


def _member(found: object, choices: Choices, path: Path) -> Member:
    """The member that was chosen. Raises UserError where the file says none of the space."""
    if not isinstance(found, list) or not all(isinstance(k, int) and not isinstance(k, bool) for k in found):
        raise damaged(path, "it says no member")
    try:
        choices.require_member(found)
    except UserError as error:
        raise damaged(path, str(error)) from error
    return tuple(found)


# --- by distance --------------------------------------------------------------------------------


def by_distance(made: PreparedSearch, world: World) -> Way:
    """Single changes of the seed are measured, then whole members; the nearest is found. Raises UserError for what does
    not fit.
    """
    budgets = measuring.require_choices(made)
    images_of(made.purpose, made.config)  # raises
    require_tuning(made.config, made.purpose, world)

    def find(run: tuple[Path, str]) -> MethodResult | None:
        if world.first:
            terminal.console().print(
                f"distances to the seed on {images_of(made.purpose, made.config)} images, in {run[0]}"
            )
        meters = measuring.meters_of(made, run, world)
        measuring.measure_all(made, meters)
        nearest = measuring.choosing(made, meters)(budgets)
        if not world.first:
            world.wait()
            return None
        again = measuring.choosing(made, measuring.alone(meters))

        def best(asked: Sequence[Budget]) -> Pick:
            return nearest if list(asked) == budgets else again(asked)

        pick, member = best_within(made.ground, best, budgets=budgets)
        found = _write_found(_refitted(made, pick, member), run[0])
        report = measuring.finding(made, meters, (pick, found))
        if report.figures["distance"] <= SAME:
            terminal.console().print(
                "the budget allows the seed's own architecture, and nothing is nearer to it; ask for less"
            )
        terminal.console().print(
            f"found: {_in_words(found)}; its features are {report.figures['distance']:.3f} from the seed's"
        )
        world.wait()
        return report

    return Way(made, find)


METHODS: Mapping[str, Callable[[PreparedSearch, World], Way]] = {"distance": by_distance, "gradient": by_gradient}


# --- in all -------------------------------------------------------------------------------------


def _refitted(made: PreparedSearch, pick: Pick, found: HeadedMember) -> HeadedMember:
    """What was found with its layers solved anew, where that is asked for."""
    if not made.config.refits:
        return found
    terminal.console().print("the layers of what was found are solved anew against the seed's")
    solved = member_refitted(
        made.ground, pick.trunk.choices, pick.member, lambda bare: made.purpose.samples(bare, made.config)
    )
    return solved.costed(pick.trunk.tables)


def _write_found(found: HeadedMember, folder: Path) -> Emitted:
    """What was found, with all that it costs, and its Spec, as files in the folder."""
    emitted = found.write(folder / folders.REMAPPED, force=True)
    write_text(folder / folders.SPEC, json.dumps(found.spec.to_json(), indent=1) + "\n", force=True)
    return emitted


def _in_words(found: Emitted) -> str:
    return ", ".join(f"{kind} {cost_text(kind, value)}" for kind, value in found.costs.items())


def _fine_tune(made: PreparedSearch, folder: Path, world: World) -> Tuned | None:
    """The target: what was found after the last phase, or without one as it is."""
    remapped, target = folder / folders.REMAPPED, folder / folders.TARGET
    if not made.config.finetune.enabled:
        if world.first:
            model = files.read(remapped)
            files.write(model, target, force=True)
        return None
    own = folder / folders.TUNING
    if world.first:
        terminal.console().print("fine-tuning what was found, from the seed's weights")
        own.mkdir(exist_ok=True)
    world.wait()
    return tune_found(made, files.read(remapped), RunPlaces(target, own, force=True), world)


# --- parts --------------------------------------------------------------------------------------


def job_of(
    made: PreparedSearch, network: SuperNetwork, tables: Mapping[str, Table], run: tuple[Path, str]
) -> SearchJob:
    """The run's training, its data dealt to weights and α. run: the folder and the key."""
    config = made.config
    weights, alphas = parts_of(made)
    budgets = [replace(budget, table=tables[budget.kind]) for budget in made.budgets(config.cost.budget[:1])]
    folder, key = run
    return SearchJob(
        config=config,
        network=network,
        description=made.labelled.description,
        weights=weights,
        alphas=alphas,
        table=tables[made.kind],
        budget=budgets[0] if budgets else None,
        folder=folder,
        key=key,
    )


def _costs(made: PreparedSearch) -> dict[str, object]:
    """The tables as they are written down: what is shared, and what every candidate of every block costs."""
    names = [block.name for block in made.choices.blocks]
    rows = {
        kind: {"base": table.base, "blocks": dict(zip(names, table.blocks, strict=True))}
        for kind, table in made.tables.items()
    }
    candidates = {block.name: [dict(row) for row in block.candidates] for block in made.choices.blocks}
    trunks = [{"share": round(trunk.share, 3), "widths": dict(trunk.choices.trunks[0])} for trunk in made.trunks]
    return {"candidates": candidates, "trunks": trunks, **rows}


# --- before and after ---------------------------------------------------------------------------


def _config(given: Path | str | SearchConfig | None, folder: Path, asked: SearchOptions) -> tuple[SearchConfig, bool]:
    """The config with the settings on top, and whether it is the embedded one. Raises UserError."""
    settings = asked.settings
    if asked.images is not None:
        return _unlabelled(given, asked.images, settings), False
    if isinstance(given, SearchConfig):
        return _set(given, settings), False
    if given is None and not Path(NAME).exists():
        return quick(folder.absolute(), settings), True
    return read_search(Path(given or NAME).absolute(), settings), False


def _set(config: SearchConfig, settings: Settings) -> SearchConfig:
    return parse_search(merged(config.model_dump(mode="json"), settings)) if settings else config


def _unlabelled(given: Path | str | SearchConfig | None, images: Path | str, settings: Settings) -> SearchConfig:
    """A config without a task, its samples in a folder. Raises UserError for one with a task."""
    if isinstance(given, SearchConfig):
        how = _set(given, settings)
    else:
        how = (
            parse_search(merged({"task": UNLABELLED}, settings))
            if given is None
            else read_search(Path(given), settings)
        )
    if how.task != UNLABELLED:
        raise UserError(
            f'the config is for {how.task}, and --images is for a search without labels: task = "{UNLABELLED}"'
        )
    return how.model_copy(update={"data": how.data.model_copy(update={"path": str(images)})})


def _as_asked(how: SearchConfig, seed: Path | str | None, asked: SearchOptions) -> SearchConfig:
    model = how.model if seed is None else str(seed)
    budget = asked.budgets or how.cost.budget
    for text in budget:
        parse_budget(text)  # raises before a folder is made
    return how.model_copy(update={"model": model, "cost": how.cost.model_copy(update={"budget": budget})})


def _say_embedded(how: SearchConfig, folder: Path) -> None:
    """The user knows what runs; the scenes it learns from are in the folder."""
    console = terminal.console()
    console.print(
        f"no config is given and there is no {NAME} here: the embedded default runs, a small {how.task} of "
        "fashion-scenes"
    )
    scenes = folder / folders.SCENES
    if not scenes.exists():
        with terminal.progress("scenes", SCENES.train + SCENES.val) as advance:
            write_scenes(scenes, SCENES, done=lambda: advance(1))


@contextmanager
def _guarded(folder: Path, how: SearchConfig) -> Iterator[None]:
    """Within it, a full disk or memory is a message with what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise UserError(
            f"there is no room left for '{error.filename or folder}' ({error.strerror}); nothing that was "
            "written before is lost: "
            "make room, and the same command goes on from the last checkpoint"
        ) from error
    except (RuntimeError, MemoryError) as error:
        if not diagnosis.is_out_of_memory(error):
            raise
        raise UserError(
            f"there is not enough memory for {how.run.batch} images a step; lower 'run.batch' or 'data.size', "
            "or search fewer choices, "
            f"and begin anew with --restart ('{folder}' keeps the last checkpoint)"
        ) from error
