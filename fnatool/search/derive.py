"""Architectures from a search that has learnt, for any budget, without training again: the work of `fnatool derive`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from fnatool import terminal
from fnatool.data.arrays import Arrays
from fnatool.data.split import Split
from fnatool.data.unlabelled import Unlabelled
from fnatool.files import model as files
from fnatool.files.atomic import require_writable, write_text
from fnatool.files.runfolder import CHECKPOINT, require_regular
from fnatool.model.analysed import analyse_model, metadata
from fnatool.model.unlabelled import inputs_of
from fnatool.search import by_distance
from fnatool.search import distance as distances
from fnatool.search import folder as folders
from fnatool.search.config import UNLABELLED, SearchConfig, parse_search
from fnatool.search.emitting import Ground, HeadedMember, best_within, ground, ground_alike, member_with_head
from fnatool.search.finalists import choosing
from fnatool.search.nearest import Predicted
from fnatool.search.preparing import Known, PreparedSearch, data, network_of, on_ground, unlabelled
from fnatool.search.purposes import AlikePurpose
from fnatool.search.results import DerivedModel, DeriveWords
from fnatool.search.sampling import Member
from fnatool.search.scoring import score, scoring_of
from fnatool.search.solver import Budget, Scores, argmax, likeliest, pareto, score_of
from fnatool.search.trunks import Pick, Trunk
from fnatool.search.words import cost_text
from fnatool.supernet.network import SuperNetwork
from fnatool.tasks.description import Description
from fnatool.tasks.table import TASKS, description_of
from fnatool.training import checkpoint
from fnatool.training.processes import World
from passes.errors import RefusedModel, UserError
from passes.space.budgets import parse_budget
from passes.space.costs import Table, extremes
from passes.space.space import Choices, Space, parse_space

HERE = World(0, 1, torch.device("cpu"))
MOST_STEPS = 10**18  # no search has as many


@dataclass(frozen=True, kw_only=True)
class DeriveOptions:
    """Which architectures: the best one within budgets, `pareto` of them up to a budget, or every block's best; and
    where they go.

    images: of the validation data for the super network's score; 0: no score, and no data is needed.
    """

    budgets: tuple[str, ...] = ()
    pareto: int | None = None
    argmax: bool = False
    images: int | None = None
    out: Path | None = None
    force: bool = False


LEARNT = DeriveWords("log_probability", "supernet_score", "log p")
MEASURED = DeriveWords("predicted_distance", "distances", "Σ Δ", -1.0)


@dataclass(frozen=True)
class DeriveSource:
    """What architectures are derived from: scores of the choices, what finds the best within budgets, and the figures
    of a member.

    `predicted`: what distances say of members with any trunk, whose figures `figures_of` has.
    """

    made: PreparedSearch
    choices: Choices
    scores: Scores
    tables: Mapping[str, Table]
    best: Callable[[Sequence[Budget]], Pick]
    figures: Callable[[Member], Mapping[str, float]]
    words: DeriveWords
    note: str = ""
    about: Mapping[str, int] = field(default_factory=dict)
    predicted: Predicted | None = None
    figures_of: Callable[[Pick], Mapping[str, float]] | None = None

    @property
    def trunks(self) -> tuple[Trunk, ...]:
        """All trunks, the first of which `choices`, `tables` and `figures` are of."""
        return self.made.trunks if self.predicted is not None else (Trunk(0, self.choices, self.tables),)

    def preference(self, pick: Pick) -> float:
        """What its choices say of a member."""
        return (
            score_of(self.scores, pick.member) * self.words.sign
            if self.predicted is None
            else self.predicted.distance(pick)
        )

    def look(self, pick: Pick) -> Mapping[str, float]:
        """The figures of a member as a whole."""
        return self.figures(pick.member) if self.figures_of is None else self.figures_of(pick)


@dataclass(frozen=True)
class SearchState:
    """A run as it stands: its search before the first step, its super network with what it has learnt, and its
    tables.
    """

    made: PreparedSearch
    network: SuperNetwork
    tables: Mapping[str, Table]
    facts: folders.RunFacts
    step: int
    finished: bool


def derive(run: Path | str, *, options: DeriveOptions) -> list[DerivedModel]:
    """The architectures wanted, each as NAME.onnx and NAME.json in a folder (RUN/derived unless said), in order of
    cost.

    run: the folder of a search. Raises UserError for budgets that no member keeps, for a folder that holds no run or
    one of another version, where the seed has changed, and where nothing has been learnt yet.
    """
    wanted, folder = options, Path(run)
    _require_one_question(wanted)
    source = read_source(folder, wanted)
    if source.note:
        terminal.console().print(source.note)
    out = wanted.out or folder / folders.DERIVED
    out.mkdir(parents=True, exist_ok=True)
    require_writable(out / folders.LIST, force=wanted.force)
    members = _members(source, wanted)
    found: list[DerivedModel] = []
    with terminal.progress("architectures", len(members)) as advance:
        for member in members:
            found.append(
                _write_architecture(source, member, wanted, out=out, taken=[row.emitted.path for row in found])
            )
            advance(1)
    rows = [{"model": row.emitted.path.name, **as_json(row)} for row in found]
    write_text(
        out / folders.LIST,
        json.dumps({"run": str(folder), **source.about, "architectures": rows}, indent=1) + "\n",
        force=True,
    )
    return found


def _require_one_question(wanted: DeriveOptions) -> None:
    if wanted.argmax and (wanted.budgets or wanted.pareto):
        raise UserError(
            "--argmax knows no budget: every block's best choice by itself; leave out --budget and --pareto"
        )
    if wanted.pareto and len(wanted.budgets) > 1:
        raise UserError("--pareto goes along one kind of cost: give one --budget, its largest, or none")
    if not (wanted.argmax or wanted.budgets or wanted.pareto):
        raise UserError("say which architectures: --budget madds=200M, --pareto 8, or --argmax")


def read_source(folder: Path, wanted: DeriveOptions) -> DeriveSource:
    """What the run in the folder knows. Raises UserError where that is nothing yet."""
    config, _ = _asked(_facts(folder), folder / folders.RUN)
    if config.search.method == "distance":
        return _measured(folder, wanted)
    return _learnt(read_run(folder, with_data=wanted.images != 0), wanted)


def _learnt(learnt: SearchState, wanted: DeriveOptions) -> DeriveSource:
    """The preferences of a super network; members are chosen and scored in it."""
    choices, scores = learnt.network.choices, learnt.network.architecture.log_probabilities()
    trunk = Trunk(0, choices, learnt.tables)
    note = "" if learnt.finished else f"the search is not finished: this is what it prefers after step {learnt.step:,}"
    about = {"step": learnt.step}
    if wanted.images == 0:

        def preferred(budgets: Sequence[Budget]) -> Pick:
            return Pick(trunk, likeliest(choices, scores, budgets))

        return DeriveSource(
            made=learnt.made,
            choices=choices,
            scores=scores,
            tables=learnt.tables,
            best=preferred,
            figures=_no_figures,
            words=LEARNT,
            note=note,
            about=about,
        )
    finalist = choosing(learnt.network, learnt.made.config, scoring_of(learnt.made, learnt.facts.processes))
    return DeriveSource(
        made=learnt.made,
        choices=choices,
        scores=scores,
        tables=learnt.tables,
        best=lambda budgets: Pick(trunk, finalist(budgets)),
        figures=partial(_score, learnt, wanted),
        words=LEARNT,
        note=note,
        about=about,
    )


def _no_figures(member: Member) -> Mapping[str, float]:
    return {}


def _measured(folder: Path, wanted: DeriveOptions) -> DeriveSource:
    """The distances of single changes; with images members are measured whole. Raises UserError where they are not all
    known.
    """
    if wanted.argmax:
        raise UserError(
            "every block's best choice by itself is the seed's own, as distances go; give --budget or --pareto"
        )
    made, facts = _prepared(folder, with_data=wanted.images != 0)
    known = distances.known(folder / folders.DISTANCES, facts.key, made.whole)
    said = by_distance.predicted_of(made, known)
    if said is None:
        raise UserError(
            f"the search in '{folder}' has not measured all single changes yet; 'fnatool search' goes on with it"
        )
    scores = said.scores[0]
    if wanted.images == 0:
        return DeriveSource(
            made=made,
            choices=made.choices,
            scores=scores,
            tables=made.tables,
            best=partial(said.nearest, made.trunks),
            figures=_no_figures,
            words=MEASURED,
            predicted=said,
        )
    meters = by_distance.meters_of(made, (folder, facts.key), HERE)

    def figures(member: Member) -> Mapping[str, float]:
        return figures_of(Pick(made.trunks[0], member))

    def figures_of(pick: Pick) -> Mapping[str, float]:
        return {"distance": meters.at(pick.trunk.number).of([pick.member])[0]}

    return DeriveSource(
        made=made,
        choices=made.choices,
        scores=scores,
        tables=made.tables,
        best=by_distance.choosing(made, meters),
        figures=figures,
        words=MEASURED,
        predicted=said,
        figures_of=figures_of,
    )


def _facts(folder: Path) -> folders.RunFacts:
    """What the run in the folder is of, whose files are files. Raises UserError."""
    if folder.is_dir():
        require_regular(folder, folders.SEARCH)
    return folders.read(folder)


def read_run(folder: Path, *, with_data: bool) -> SearchState:
    """What a search has learnt so far. Without data its members cannot be scored. Raises UserError."""
    facts = _facts(folder)
    path = folder / CHECKPOINT
    if not path.exists():
        raise UserError(f"the search in '{folder}' has not written a checkpoint yet; 'fnatool search' goes on with it")
    state = checkpoint.read(path, key=facts.key, processes=facts.processes)
    made, _ = _prepared(folder, with_data=with_data)
    network, tables = network_of(made)
    held = checkpoint.Held(path, MOST_STEPS)
    network.load_state_dict(held.tensors(held.part(state, "network"), network.state_dict()))
    return SearchState(
        made=made,
        network=network,
        tables=tables,
        facts=facts,
        step=held.step(state),
        finished=(folder / folders.REMAPPED).exists(),
    )


def _prepared(folder: Path, *, with_data: bool) -> tuple[PreparedSearch, folders.RunFacts]:
    """The search of the run as it was before its first step. Raises UserError."""
    facts = _facts(folder)
    config, space = _asked(facts, folder / folders.RUN)
    start, seed = files.read(folder / folders.SEED), _seed(facts)
    if config.task == UNLABELLED:
        of = ground_alike(seed, config)
        known: Known = AlikePurpose(*unlabelled(of, config, HERE)) if with_data else _nothing(of, config)
    else:
        about = description_of(metadata(start.envelope))
        config = _within(config, folder, about)
        known = data(config, HERE) if with_data else _named(about, config)
        of = ground(seed, config, about)
    made = on_ground(of, config, known, folder=folder, start=(start, analyse_model(start, of.inputs)), knobs=space)
    if with_data and facts.data != made.purpose.digests:
        raise UserError(
            f"the data in '{config.data.path}' is not what it was when this search began: other names, sizes or "
            "labels; put it back"
        )
    return made, facts


def _asked(facts: folders.RunFacts, path: Path) -> tuple[SearchConfig, Space]:
    """The config and the space of the run. Raises UserError where its file says none."""
    try:
        return parse_search(facts.config), parse_space({"version": 1, "knobs": facts.knobs or {}})
    except UserError as error:
        raise UserError(f"'{path}' is damaged: {error}; --restart begins anew") from error


def _within(config: SearchConfig, folder: Path, about: Description) -> SearchConfig:
    """The config with what the folder itself holds in the place of other files that it names: names of classes and
    joints, latencies.

    A run may come from elsewhere.
    """
    if about.task != config.task:
        raise UserError(
            f"'{folder / folders.SEED}' is for {about.task}, the search for {config.task}; --restart begins anew"
        )
    count: dict[str, str | None] = {"classes": None, "joints": None, TASKS[about.task].labels: str(len(about.labels))}
    head = config.head.model_copy(update=count)
    latency = folder / folders.LATENCY
    cost = config.cost.model_copy(update={"latency": str(latency) if latency.exists() else None})
    return config.model_copy(update={"head": head, "cost": cost})


def _seed(facts: folders.RunFacts) -> files.Model:
    path = Path(facts.model)
    if not path.is_file():
        raise UserError(f"the seed of this run, '{path}', is no longer there; put it back")
    seed = files.load(path)
    if seed.sha256 != facts.sha256:
        raise UserError(
            f"'{path}' is not what it was when this run began (sha256:{facts.sha256[:12]}…); put the seed back"
        )
    return files.of_raw(seed)


def _named(about: Description, config: SearchConfig) -> tuple[Split, Split]:
    """No data, but its names, from the seed with its head."""
    joints = about.labels if TASKS[about.task].labels == "joints" else ()
    split = Split(
        task=config.task,
        name="train",
        root=Path(config.data.path),
        layout="",
        classes=about.classes,
        items=(),
        joints=joints,
    )
    return split, split


def _nothing(of: Ground, config: SearchConfig) -> AlikePurpose:
    """No samples."""
    assert of.analysis is not None
    none = Unlabelled(Path(config.data.path), Arrays(inputs_of(of.analysis, of.analysis.shapes.shapes)), (), 0)
    return AlikePurpose(none, none)


def _members(source: DeriveSource, wanted: DeriveOptions) -> list[Pick | list[Budget]]:
    """The members in order of cost; or for budgets of one architecture these, since a file has to keep them."""
    scores, choices = source.scores, source.choices
    (first, *_) = source.trunks
    if wanted.argmax:
        return [Pick(first, argmax(choices, scores))]
    budgets = [replace(budget, table=source.tables[budget.kind]) for budget in source.made.budgets(wanted.budgets)]
    if wanted.pareto is None:
        return [budgets]
    kind = source.made.kind
    if source.predicted is not None:
        limit = budgets[0].limit if budgets else None
        return [
            pick
            for pick, _ in source.predicted.front(
                source.trunks, budgets[0].kind if budgets else kind, limit, wanted.pareto
            )
        ]
    axis = budgets[0] if budgets else Budget(kind, extremes(source.tables[kind], choices)[1], source.tables[kind])
    return [Pick(first, row.member) for row in pareto(choices, scores, axis, wanted.pareto)]


def _write_architecture(
    source: DeriveSource, what: Pick | list[Budget], wanted: DeriveOptions, *, out: Path, taken: Sequence[Path]
) -> DerivedModel:
    """One architecture: its files, and its score. out: the folder; taken: the files that others have."""
    made = source.made
    if isinstance(what, list):
        pick, found = best_within(made.ground, source.best, budgets=what)
    else:
        pick, found = what, member_with_head(made.ground, what.trunk.choices, what.member).costed(what.trunk.tables)
        _require_kept(made, found, wanted)
    kind = made.kind if not wanted.budgets else parse_budget(wanted.budgets[0]).kind
    path = _free(out / f"{kind}-{cost_text(kind, found.costs[kind]).replace(' ', '')}.onnx", taken)
    spec = json.dumps(found.spec.to_json(), indent=1) + "\n"
    emitted = found.write(path, force=wanted.force, beside={path.with_suffix(".json"): spec})
    return DerivedModel(emitted, source.preference(pick), source.look(pick), source.words)


def _free(path: Path, taken: Sequence[Path]) -> Path:
    """The path, with a number where another architecture has it: costs in words are rounded."""
    paths = (path.with_stem(f"{path.stem}-{k}") if k > 1 else path for k in itertools.count(1))
    return next(one for one in paths if one not in taken)


def _require_kept(made: PreparedSearch, found: HeadedMember, wanted: DeriveOptions) -> None:
    for budget in made.budgets(wanted.budgets):
        if found.costs.get(budget.kind, 0) > budget.limit:
            raise RefusedModel(
                f"a network has {found.costs[budget.kind]:,} {budget.kind} and should have {budget.limit:,}; "
                "please report it"
            )


def _score(learnt: SearchState, wanted: DeriveOptions, member: Member) -> Mapping[str, float]:
    """The figures of a member in the super network, on as many images as are asked for."""
    made = learnt.made
    if wanted.images is not None:
        few = made.config.score.model_copy(update={"images": wanted.images})
        made = replace(made, config=made.config.model_copy(update={"score": few}))
    return score(learnt.network, member, scoring_of(made, learnt.facts.processes))


def as_json(row: DerivedModel) -> dict[str, object]:
    """Costs, preference and figures of an architecture."""
    return {"costs": dict(row.emitted.costs), row.words.preference: row.preference, row.words.score: dict(row.score)}
