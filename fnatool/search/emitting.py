"""From a seed and a Spec to a network with a head: what the super network is made of, and what comes out in the end, by
the same path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from fnatool.data.pixels import Pixels
from fnatool.data.split import Split
from fnatool.data.unlabelled import Unlabelled
from fnatool.files import model as files
from fnatool.imitation.places import last_map
from fnatool.model.analysed import analyse_model
from fnatool.model.headed import HeadOptions, attach_to_model, own_taps, wanted
from fnatool.model.pixels import PixelOptions, pixels_of, seen_as
from fnatool.model.refit import refit
from fnatool.model.refit_result import Refit
from fnatool.model.remapped import RemapOptions, Remapped, remap_model
from fnatool.search.config import SearchConfig
from fnatool.search.results import Emitted
from fnatool.search.sampling import Member
from fnatool.search.solver import Budget
from fnatool.search.trunks import Pick
from fnatool.tasks.description import Description
from fnatool.tasks.table import TASKS
from passes.errors import RefusedModel, UserError
from passes.graph.tensors import Shape
from passes.heads import image_of, seen_by
from passes.heads.taps import FLOATS
from passes.network.analyse import analyse
from passes.network.analysis import Analysis
from passes.network.knobs import IMAGE, STRIDE
from passes.space.costs import Table, whole_costs
from passes.space.space import Choices
from passes.target.spec import Spec, Value

TIMES = 8
Samples = tuple[Unlabelled, Unlabelled]  # to use, and to keep back


@dataclass(frozen=True)
class HeadedMember:
    """A member with a fresh head, in memory: its Spec from the seed, and what it costs as `fnatool profile` counts.

    `refit`: what came of solving its layers anew (None: they are the seed's).
    """

    member: Member
    spec: Spec
    model: files.Model
    costs: Mapping[str, int]
    refit: Refit | None = None

    def costed(self, tables: Mapping[str, Table]) -> HeadedMember:
        """The same with what it costs by the tables of kinds that no file tells."""
        measured = {kind: table.of(self.member) for kind, table in tables.items() if kind not in self.costs}
        return replace(self, costs={**self.costs, **measured})

    def write(self, path: Path, *, force: bool = False, beside: Mapping[Path, str] | None = None) -> Emitted:
        """The member as a file, and texts beside it, atomically."""
        files.write(self.model, path, force=force, beside=beside)
        return Emitted(self.member, self.spec, path, self.costs, self.refit)


@dataclass(frozen=True)
class Ground:
    """A seed and its analysis, the knobs set before anything is searched, how it is remapped, and what finishes a
    remapped one.

    `finish` puts the head on, verified or not, and analyses the result; it may be given the analysis of what it gets.
    `select` says which channels narrowing keeps; `inputs` is the shape of an input that the file leaves open, `pixels`
    what an image becomes (None: as the samples say); `features` are the tensors that the head sees the seed by; `knobs`
    are the seed's own that may change, None where no head is put on.
    """

    seed: files.Model
    analysis: Analysis | None
    before: Mapping[str, Value]
    finish: Callable[[files.Model, bool, Analysis | None], tuple[files.Model, Analysis]]
    strategy: str
    select: str
    rng_seed: int
    inputs: Mapping[str, Shape] | None
    pixels: Pixels | None
    features: tuple[str, ...]
    knobs: Set[str] | None = None


def ground(seed: files.Model, config: SearchConfig, names: Split | Description) -> Ground:
    """The seed with the config's size, output stride and head; names: of classes and joints. Raises UserError where no
    size is known.
    """
    before: dict[str, Value] = {}
    asked = config.data.size
    assumed = _assumed(seed, asked)
    analysis = analyse_model(seed, assumed)
    found = image_of(analysis)
    inputs = None
    if found.free:
        if asked is None:
            raise UserError(f"'{seed.path.name}' takes images of any size; say which one with 'data.size'")
        inputs = {found.name: _shape(found.layout, found.channels, asked)}
    elif asked is not None and asked != found.size:
        before[IMAGE] = asked
    if config.space.output_stride is not None:
        before[STRIDE] = config.space.output_stride
    head, joints = config.head, TASKS[config.task].labels == "joints"
    options = HeadOptions(
        task=config.task,
        style=head.style,
        classes=head.classes or (None if joints else str(len(names.classes))),
        joints=head.joints
        or (str(len(names.joints if isinstance(names, Split) else names.labels)) if joints else None),
        taps=head.taps,
        width=head.width,
        levels=head.levels,
        mean=head.mean,
        scale=head.scale,
        channels=head.channels,
        seed=config.run.seed,
        inputs=inputs,
    )
    bare = _before(seed, analysis, before, inputs)
    features = seen_by(bare, wanted(options)[2])
    if not head.taps:  # members tap what the seed taps, whatever share of them that is
        options = replace(options, taps=own_taps(bare, options))
    image = seen_as(analysis.view, found.name, found.channels)
    how = pixels_of(seed, analysis.view, image, PixelOptions(head.mean, head.scale, head.channels))
    return Ground(
        seed,
        analysis if inputs == assumed else None,
        before,
        partial(_headed, options, names),
        strategy=config.search.strategy,
        select=config.select,
        rng_seed=config.run.seed,
        inputs=inputs,
        pixels=how,
        features=features,
        knobs=frozenset(name for name, knob in bare.knobs.items() if knob.growth != "frozen"),
    )


def ground_alike(seed: files.Model, config: SearchConfig) -> Ground:
    """The same of a seed that stays what it is: no head, and its features are its outputs and its last map. Raises
    UserError.
    """
    if config.data.size is not None or config.space.output_stride is not None:
        raise UserError("without a task the seed keeps its size and stride; change them with 'fnatool remap' first")
    analysis = analyse_model(seed)
    if analysis.cost.macs is None:
        raise UserError(
            f"'{seed.path.name}' leaves a size of its input open, on which its multiply-adds depend; set it "
            "first, for an image with "
            "'fnatool remap' and a spec that says \"input.size\": [320, 320]"
        )
    return Ground(
        seed,
        analysis,
        {},
        lambda model, verify, known: (model, known or analyse_model(model)),
        strategy=config.search.strategy,
        select=config.select,
        rng_seed=config.run.seed,
        inputs=None,
        pixels=None,
        features=features_of(analysis),
    )


def features_of(analysis: Analysis) -> tuple[str, ...]:
    """The outputs that are floats with an axis of samples, and the last map on the way. Raises UserError where there is
    none.
    """
    end = last_map(analysis)
    shapes, types = analysis.shapes.shapes, analysis.shapes.types
    outputs = [name for name in analysis.view.outputs if types.get(name) in FLOATS and len(shapes.get(name, ())) > 1]
    features = tuple(dict.fromkeys([*outputs, *([] if end is None else [end])]))
    if not features:
        raise UserError(
            "this network has no output of floats and no map, so that nothing tells how like it another one is"
        )
    return features


def _headed(
    options: HeadOptions, names: Split | Description, bare: files.Model, verify: bool, known: Analysis | None
) -> tuple[files.Model, Analysis]:
    """The model with the head, which has these names."""
    made = attach_to_model(bare, replace(options, verify=verify), analysis=known)
    own = made.description
    made = made.described(
        own.adopting(names.classes, names.joints) if isinstance(names, Split) else own.named_like(names)
    )
    return made.model, made.after


def _before(
    seed: files.Model, analysis: Analysis, before: Mapping[str, Value], inputs: Mapping[str, Shape] | None
) -> Analysis:
    """The analysis of the seed with these knobs set."""
    if not before:
        return analysis
    made = remap_model(seed, Spec(before), RemapOptions(verify=False, inputs=inputs), analysis=analysis)
    return analyse(made.model.graph, sizes=inputs, table=made.plan.table)


def _assumed(seed: files.Model, asked: tuple[int, int] | None) -> Mapping[str, Shape] | None:
    """A shape for an input that leaves it open."""
    if asked is None:
        return None
    (tensor, *_) = seed.graph.inputs
    shape = list(tensor.shape or ())
    if len(shape) != 4 or all(isinstance(extent, int) for extent in shape[1:]):
        return None
    layout, channels = ("NCHW", shape[1]) if isinstance(shape[1], int) else ("NHWC", shape[3])
    return {tensor.name: _shape(layout, channels, asked)}


def _shape(layout: str, channels: int, size: tuple[int, int]) -> Shape:
    return (1, channels, *size) if layout == "NCHW" else (1, *size, channels)


def with_head(of: Ground, spec: Spec, *, verify: bool = True) -> tuple[files.Model, Analysis]:
    """The seed in the shape of the spec, finished, and its analysis. Raises UserError and RefusedModel as remap and
    head do.
    """
    bare = _bare(of, spec, verify=verify)
    return of.finish(bare.model, verify, of.analysis if bare.plan.identity else None)


def _bare(of: Ground, spec: Spec, *, verify: bool) -> Remapped:
    """The seed in the shape of the spec, and in that of what is set before."""
    options = RemapOptions(strategy=of.strategy, select=of.select, seed=of.rng_seed, verify=verify, inputs=of.inputs)
    return remap_model(of.seed, Spec({**of.before, **spec.knobs}), options, analysis=of.analysis)


def member_with_head(of: Ground, choices: Choices, member: Member) -> HeadedMember:
    """That member, remapped from the seed, with a fresh head."""
    spec = choices.spec(member)
    model, after = with_head(of, spec)
    return HeadedMember(member, _from_seed(of, spec), model, whole_costs(after))


def member_refitted(of: Ground, choices: Choices, member: Member, data: Callable[[Remapped], Samples]) -> HeadedMember:
    """The same with its layers solved anew against the seed; the member as it is where it is the seed. data: the
    samples for it.

    Raises RefusedModel where torch cannot compute it.
    """
    spec = choices.spec(member)
    bare = _bare(of, spec, verify=True)
    if bare.plan.identity:
        return member_with_head(of, choices, member)
    solved = refit(bare, data(bare))
    model, after = of.finish(solved.model, True, None)
    return HeadedMember(member, _from_seed(of, spec), model, whole_costs(after), solved.refit)


def _from_seed(of: Ground, spec: Spec) -> Spec:
    return Spec({**of.before, **spec.knobs}, f"sha256:{of.seed.sha256}")


def best_within(
    of: Ground, best: Callable[[Sequence[Budget]], Pick], *, budgets: Sequence[Budget]
) -> tuple[Pick, HeadedMember]:
    """The best member within the budgets, which keeps every one of them as `fnatool profile` counts; with the costs of
    its tables.

    The table is what derivation trusts; where a network costs more than its table says, less is asked for. Raises
    UserError where no member keeps them, RefusedModel where asking for less does not help.
    """
    asked = list(budgets)
    for _ in range(TIMES):
        pick = best(asked)
        made = member_with_head(of, pick.trunk.choices, pick.member)
        over = [max(made.costs.get(budget.kind, 0) - budget.limit, 0) for budget in budgets]
        if not any(over):
            return pick, made.costed(pick.trunk.tables)
        asked = [replace(budget, limit=budget.limit - more) for budget, more in zip(asked, over, strict=True)]
    raise RefusedModel(
        f"the networks cost more than their table says, by {max(over):,}; please report it with the seed and the space"
    )
