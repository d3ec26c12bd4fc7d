"""What a search is measured against, if that is asked for: the seed's own shape, and every width narrowed alike, tuned
as what was found.

seed      at its own cost
uniform   all hidden widths times one factor, the largest one within the budgets;
          where there are none, all that may change
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fnatool import terminal
from fnatool.files import model as files
from fnatool.search import folder as folders
from fnatool.search.config import UNLABELLED
from fnatool.search.emitting import with_head
from fnatool.search.preparing import PreparedSearch
from fnatool.search.results import Baseline
from fnatool.search.solver import Budget
from fnatool.search.tuning import tune_found
from fnatool.search.words import BASELINES
from fnatool.training.finetune import RunPlaces
from fnatool.training.processes import World
from passes.errors import UserError
from passes.network.knobs import Knob, kind_of
from passes.space.costs import whole_costs
from passes.target.spec import Spec

STEPS = 64  # factors are so many parts of the whole


def baseline_specs(made: PreparedSearch) -> dict[str, Spec]:
    """Those asked for, by name. Raises UserError where one cannot be made."""
    asked = made.config.finetune.baseline
    if asked == "none":
        return {}
    if not made.config.finetune.enabled:
        raise UserError(
            "'finetune.baseline' tunes what was not searched beside what was, but 'finetune.enabled' is false"
        )
    budgets = made.budgets(made.config.cost.budget)
    if asked != "seed" and not budgets:
        raise UserError(
            "without a budget nothing says how narrow all widths alike are to be: 'finetune.baseline' is seed "
            "or none then"
        )
    specs = {} if asked == "uniform" else {"seed": Spec({})}
    return specs if asked == "seed" else {**specs, "uniform": uniform(made, budgets)}


def baselines(made: PreparedSearch, specs: Mapping[str, Spec], folder: Path, world: World) -> list[Baseline]:
    """These shapes tuned like what was found, in folders of their own; the first process alone has them."""
    return [row for asked in specs.items() if (row := _tuned(made, asked, folder, world)) is not None]


def uniform(made: PreparedSearch, budgets: list[Budget]) -> Spec:
    """All widths times the largest factor that keeps the budgets. Raises UserError where none does, or the cost is no
    file's.
    """
    strange = [budget.kind for budget in budgets if budget.kind not in whole_costs(made.analysis)]
    if strange:
        raise UserError(
            f"what a uniformly narrower network has in {strange[0]} is not known: 'finetune.baseline' is seed "
            "or none with it"
        )
    knobs = _widths(made)
    if not knobs:
        raise UserError("nothing can be narrowed uniformly here: 'finetune.baseline' is seed or none")
    low, high = 0, STEPS  # of which low/STEPS keeps the budgets, high/STEPS does not
    if _keeps(made, _narrowed(knobs, STEPS), budgets):
        return _narrowed(knobs, STEPS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _keeps(made, _narrowed(knobs, middle), budgets) else (low, middle)
    if low == 0:
        raise UserError("no uniformly narrower network keeps the budget: 'finetune.baseline' is seed or none")
    return _narrowed(knobs, low)


def _widths(made: PreparedSearch) -> list[Knob]:
    """The hidden widths that can shrink; where there are none, all widths but those of a head that was put on."""
    found = [
        knob
        for knob in made.analysis.knobs.values()
        if knob.kind == "width" and knob.growth != "frozen" and knob.min < knob.value
    ]
    if made.config.task != UNLABELLED:
        found = [knob for knob in found if knob.name.startswith("stage")]
    return [knob for knob in found if kind_of(knob.name) == "hidden"] or found


def _narrowed(knobs: list[Knob], share: int) -> Spec:
    """Each width times share/STEPS, rounded to its multiple."""

    def width(knob: Knob) -> int:
        return max(round(knob.value * share / STEPS / knob.multiple) * knob.multiple, knob.min, knob.multiple)

    return Spec({knob.name: width(knob) for knob in knobs})


def _keeps(made: PreparedSearch, spec: Spec, budgets: list[Budget]) -> bool:
    costs = whole_costs(with_head(made.ground, spec, verify=False)[1])
    return all(costs[budget.kind] <= budget.limit for budget in budgets)


def _tuned(made: PreparedSearch, asked: tuple[str, Spec], folder: Path, world: World) -> Baseline | None:
    """Remapped like what was found, with the same head, and tuned alike."""
    name, spec = asked
    own = folder / f"{folders.BASELINE}{name}"
    if world.first:
        terminal.console().print(f"tuning beside it: {BASELINES[name]}")
        own.mkdir(exist_ok=True)
        model, after = with_head(made.ground, spec)
        files.write(model, own / folders.REMAPPED, force=True)
    world.wait()
    places = RunPlaces(own / folders.TARGET, own / folders.TUNING, force=True)
    if world.first:
        places.folder.mkdir(exist_ok=True)
    world.wait()
    tuned = tune_found(made, files.read(own / folders.REMAPPED), places, world)
    if tuned is None:
        return None
    return Baseline(name, spec, whole_costs(after), tuned)
