"""Everything that a search needs, checked before anything is trained: data, head, space, costs, budgets."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from fnatool import terminal
from fnatool.data import checking
from fnatool.data.split import Split, said, spread
from fnatool.data.unlabelled import Unlabelled
from fnatool.files import model as files
from fnatool.latency import table as latencies
from fnatool.latency.table import about
from fnatool.model import spaces
from fnatool.model.analysed import metadata
from fnatool.model.pixels import PixelOptions
from fnatool.model.unlabelled import folder_options
from fnatool.search.config import UNLABELLED, SearchConfig
from fnatool.search.emitting import Ground, ground, ground_alike, with_head
from fnatool.search.folder import LATENCY, SEED, SPACE, RunFacts, require_same, shown
from fnatool.search.purposes import AlikePurpose, LabelledPurpose, Purpose
from fnatool.search.sampling import uniform
from fnatool.search.solver import Budget, likeliest
from fnatool.search.trunks import KNOBS, Trunk, trunks_of
from fnatool.supernet.mixing import without
from fnatool.supernet.network import SuperNetwork, build
from fnatool.tasks import reading
from fnatool.tasks.table import description_of
from fnatool.training.processes import World
from fnatool.training.unlabelled import samples_of
from passes.errors import UserError
from passes.network.analysis import Analysis
from passes.space.budgets import AskedBudget, parse_budget
from passes.space.costs import BY_NAME, Table
from passes.space.space import Choices, Space, choices, held_to, overlaid, own_choices, own_member, without_growth
from passes.target.spec import Spec

END = 0.01
"""The weight of the last stage's exit: among members that are as near before it, the one that is nearest there.

What a network knows that serves another task too is told better before its end, which holds what it knows of its own
classes: over 22 members of mixed kind the rank correlation of -d with the figures after fine-tuning is 0.70 at the last
map, 0.80 at the exits of all stages alike, 0.85 without the last one (benchmarks/results/search_members.json); and a
search with a weight of 0.2 comes to 0.444, without it to 0.494.
"""


@dataclass(frozen=True)
class PreparedSearch:
    """A search before its first step: the seed with its head, what it is for with the data, the space, and what every
    choice costs.

    `whole` are the choices with all trunks, `trunks` those that can be, each with its costs; `compared` are the tensors
    of the seed that distances compare, with their weights; `fixed` are knobs of the space that this method cannot
    choose, with the reason.
    """

    config: SearchConfig
    ground: Ground
    model: files.Model
    purpose: Purpose
    analysis: Analysis
    space: Space
    whole: Choices
    trunks: tuple[Trunk, ...]
    compared: Mapping[str, float]
    fixed: Mapping[str, str] = field(default_factory=dict)

    @property
    def choices(self) -> Choices:
        """Those of the first trunk, which is the seed's where the space has it."""
        return self.trunks[0].choices

    @property
    def tables(self) -> Mapping[str, Table]:
        """What its members cost."""
        return self.trunks[0].tables

    def leaving(self, found: Choices, tables: Mapping[str, Table]) -> PreparedSearch:
        """The same where these choices of the first trunk are left."""
        return replace(self, whole=found, trunks=(Trunk(0, found, tables),))

    @property
    def labelled(self) -> LabelledPurpose:
        """The task and its data. Raises TypeError where there is none."""
        if not isinstance(self.purpose, LabelledPurpose):
            raise TypeError("this search has no labels")
        return self.purpose

    @property
    def kind(self) -> str:
        """The cost that the search pays for: that of the first budget, or as the config says."""
        budgets = self.config.cost.budget
        return parse_budget(budgets[0]).kind if budgets else self.config.cost.kind

    def budgets(self, texts: Sequence[str]) -> list[Budget]:
        """The budgets in the user's words. Raises UserError for one that is none or whose costs are not known."""
        return [self._budget(parse_budget(text)) for text in texts]

    def _budget(self, asked: AskedBudget) -> Budget:
        if asked.kind not in self.tables:
            raise UserError(
                f"'{asked.text}': what members cost in {asked.kind} is not known here; give {' or '.join(self.tables)}"
            )
        return Budget(
            asked.kind, asked.limit(self.own_cost(asked.kind) if asked.relative else None), self.tables[asked.kind]
        )

    def own_cost(self, kind: str) -> int | None:
        """What the seed costs, with its head; None where that has not been measured, and is not a member's."""
        whole = BY_NAME[kind].whole
        if whole is not None:
            return whole(self.analysis)
        member = own_member(self.analysis, self.choices)
        return None if member is None or kind not in self.tables else self.tables[kind].of(member)


def prepare_search(seed: files.Model, config: SearchConfig, folder: Path, world: World) -> PreparedSearch:
    """The search with all of its parts checked; the first process writes the seed with its head. Raises UserError and
    RefusedModel.
    """
    spaces.require_readable(config.space.choices)  # before the data, which takes longer
    if config.task == UNLABELLED:
        of = ground_alike(seed, config)
        known: Known = AlikePurpose(*unlabelled(of, config, world))
    else:
        known = data(config, world)
        of = ground(seed, config, known[0])
    if world.first:
        require_same(folder, facts(of, config, known, world.size))
    start = with_head(of, Spec({}), verify=False)  # what comes out in the end is verified
    if world.first:
        files.write(start[0], folder / SEED, force=True)
    world.wait()
    return on_ground(of, config, known, folder=folder, start=start)


Known = tuple[Split, Split] | AlikePurpose  # the data; a task is told by the seed with its head


def on_ground(
    of: Ground,
    config: SearchConfig,
    known: Known,
    *,
    folder: Path,
    start: tuple[files.Model, Analysis],
    knobs: Space | None = None,
) -> PreparedSearch:
    """The same from the seed with its head, which is in the folder too, and its analysis. knobs: the space, where it
    need not be read.
    """
    model, analysis = start
    space = knobs or overlaid(
        spaces.read_space(config.space.choices, analysis, config.search.multiple), config.space.knobs
    )
    whole = choices(analysis, space)
    found, compared, fixed = _left(_trunks_of_seed(whole, of.knobs), analysis, config, of.features)
    trunks, refused = trunks_of(analysis, found)
    if config.cost.latency is not None:
        own = folder / LATENCY  # that of a run that has begun
        subject = about(files.load(folder / SEED).sha256, analysis, whole)
        timed = latencies.read(own if own.exists() else Path(config.cost.latency), subject, whole).table
        trunks = (replace(trunks[0], tables={**trunks[0].tables, "latency": restricted(timed, whole, found)}),)
    purpose = (
        known if isinstance(known, AlikePurpose) else LabelledPurpose(description_of(metadata(model.envelope)), *known)
    )
    made = PreparedSearch(
        config=config,
        ground=of,
        model=model,
        purpose=purpose,
        analysis=analysis,
        space=space,
        whole=found,
        trunks=trunks,
        compared=compared,
        fixed={**fixed, **refused},
    )
    if made.kind not in made.tables:
        raise UserError(
            "the cost is to be latency, but there is no 'cost.latency': measure one with 'fnatool "
            f"latency-table {shown(folder) / SEED} "
            f"--space {shown(folder) / SPACE} -o latency.json'; 'fnatool search --dry-run' writes these two"
        )
    return made


def _left(
    whole: Choices, analysis: Analysis, config: SearchConfig, features: Sequence[str]
) -> tuple[Choices, Mapping[str, float], Mapping[str, str]]:
    """The choices that the config leaves to the search, what distances compare, and the knobs that its method cannot
    choose.
    """
    how = config.search
    found = held_to(how.multiple, analysis, whole) if how.multiple > 1 else whole
    compared: Mapping[str, float] = dict.fromkeys(features, 1.0)
    one = _why_one_trunk(config)
    trunks = {} if one is None or len(found.trunks) < 2 else {KNOBS: one}
    found = found if one is None else found.at(0)
    if how.method == "gradient":
        return found, compared, trunks
    found = without_growth(analysis, found)
    if config.by_stages:
        compared = exits(analysis, found) or compared
    fixed = unlike(analysis, found, compared)
    found = without(found, fixed)
    fixed |= trunks
    return found.with_originals() if how.strategy == "preserve" else found, compared, fixed


def _why_one_trunk(config: SearchConfig) -> str | None:
    """Why the widths outside blocks are not searched, None where they are."""
    if config.search.method == "gradient":
        return (
            "a super network chooses what is local to a block; 'search.method' distance narrows widths outside "
            "blocks too"
        )
    if config.cost.latency is not None:
        return "a table of latencies is of one choice of the widths outside blocks"
    return None


def _trunks_of_seed(found: Choices, knobs: Set[str] | None) -> Choices:
    """The choices without widths of a new head, which is put on in the end, and those that the seed without it cannot
    change.
    """
    if knobs is None:
        return found
    own = [{name: value for name, value in trunk.items() if name in knobs} for trunk in found.trunks]
    return replace(found, trunks=tuple(trunk for k, trunk in enumerate(own) if trunk not in own[:k]))


def exits(analysis: Analysis, found: Choices) -> Mapping[str, float]:
    """The exits of the stages in which something can be chosen, each with its weight: 1, the last one's `END`."""
    changing = dict.fromkeys(block.stage for block in found.blocks if len(block.candidates) + block.skippable > 1)
    names = [analysis.stages[stage].blocks[-1].exit for stage in changing]
    return {name: END if len(names) > 1 and name == names[-1] else 1.0 for name in names}


def unlike(analysis: Analysis, found: Choices, compared: Container[str]) -> dict[str, str]:
    """Knobs of widths that compared tensors have from inside a block, so that a narrower member has others, each with
    the reason.
    """
    knobs: dict[str, str] = {}
    for block in found.blocks:
        inside = [name for name in analysis.stages[block.stage].blocks[block.source].tapped if name in compared]
        for tail in block.candidates[0] if inside else ():
            if not tail.startswith("kernel") and len({row[tail] for row in block.candidates}) > 1:
                knobs[f"{block.name}.{tail}"] = (
                    f"the head reads '{inside[0]}', whose channels could not be compared with the seed's"
                )
    return knobs


def network_of(made: PreparedSearch) -> tuple[SuperNetwork, dict[str, Table]]:
    """The super network, and the tables with the rows that its relaxation leaves.

    Raises UserError where nothing is left to choose, or where no member keeps the budgets.
    """
    how = made.config
    if made.choices.size < 2:
        reasons = "; ".join(f"{knob}: {why}" for knob, why in made.fixed.items())
        raise UserError(f"this space leaves nothing to search by gradient ({reasons or 'one member'})")
    network = build(
        made.model.graph,
        made.analysis,
        made.choices,
        strategy=how.search.strategy,
        relaxation=how.search.relaxation,
        select=how.select,
        rng_seed=how.run.seed,
    )
    network.architecture.lean(own_choices(made.analysis, network.choices), how.alpha.own)
    if network.choices.size < 2:
        reasons = "; ".join(f"{knob}: {why}" for knob, why in network.fixed.items())
        raise UserError(f"this space leaves nothing to search ({reasons or 'one member'})")
    tables = {kind: restricted(table, made.choices, network.choices) for kind, table in made.tables.items()}
    budgets = [replace(budget, table=tables[budget.kind]) for budget in made.budgets(how.cost.budget)]
    likeliest(network.choices, uniform(network.choices), budgets)  # raises where no member keeps them
    return network, tables


def restricted(table: Table, whole: Choices, left: Choices) -> Table:
    """The rows of the blocks and candidates that are left."""
    known = {(block.stage, block.block): (block, row) for block, row in zip(whole.blocks, table.blocks, strict=True)}
    rows = []
    for after in left.blocks:
        before, row = known[after.stage, after.block]
        rows.append(tuple(row[before.candidates.index(candidate)] for candidate in after.candidates))
    return Table(table.base, tuple(rows))


def data(config: SearchConfig, world: World) -> tuple[Split, Split]:
    """Both splits, checked; the first process looks at every file, the others at what it remembered."""
    if not world.first:
        world.wait()
    splits = reading.read_both(
        config.data.path,
        task=config.task,
        classes=None,
        holdout=reading.Holdout(seed=config.run.seed),
        options=config.data.reading,
    )
    with terminal.progress("looking at the data", sum(len(split.items) for split in splits)) as advance:
        train, val = checking.checked(splits, skip_bad=config.data.skip_bad, progress=lambda done, total: advance(1))
    scored = spread(val, config.score.images)
    type(scored.items[0]).require_use(scored)
    if world.first:
        world.wait()
        for line in said((train, val)):
            terminal.console().print(line, markup=False)
    return train, val


def unlabelled(of: Ground, config: SearchConfig, world: World) -> tuple[Unlabelled, Unlabelled]:
    """Samples without labels, to use and kept back."""
    asked = config.head
    where = folder_options(config.data.path, PixelOptions(asked.mean, asked.scale, asked.channels))
    assert of.analysis is not None
    return samples_of((of.seed, of.analysis), where, config.tuning_alike().data, seed=config.run.seed, world=world)


def facts(
    of: Ground, config: SearchConfig, known: Known | Purpose, processes: int, *, space: Space | None = None
) -> RunFacts:
    """What tells this run from others; without a space, of which nothing is said then."""
    if isinstance(known, tuple):
        samples, digests = (len(known[0].items), len(known[1].items)), (known[0].digest, known[1].digest)
    else:
        samples, digests = known.counts, known.digests
    knobs = None if space is None else {key: list(values) for key, values in space.knobs.items()}
    return RunFacts(
        model=str(of.seed.path.resolve()),
        sha256=of.seed.sha256,
        processes=processes,
        samples=samples,
        config=config.model_dump(mode="json"),
        knobs=knobs,
        data=digests,
    )


def halves(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """The split dealt in two, the second with this share of the items: what weights learn from, and what α does."""
    order = np.random.default_rng([seed, len(split.items)]).permutation(len(split.items))
    count = round(share * len(split.items))
    parts = (sorted(order[count:].tolist()), sorted(order[:count].tolist()))
    first, second = (replace(split, items=tuple(split.items[k] for k in part)) for part in parts)
    return first, second
