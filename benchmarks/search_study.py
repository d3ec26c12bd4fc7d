"""`python -m benchmarks.search_study`: does a search beat chance? Its architecture beside random ones of the same cost, all fine-tuned.

The embedded search with its budget, without its last phase; then members drawn at random within the budget and close to it; and members
within it that change as few of the seed's blocks as they can, which ones by chance. Each one is remapped from the seed, gets a fresh
head, and is fine-tuned alike, with several seeds, and measured on all validation scenes. Beside the figure stands what the search knew of
the member without training it: the log-probability by α, and the figures in the super network; of a search by distance the sum over its
single changes, and its distance as a whole. A run that is finished is never run again,
so the study can be stopped and goes on. `--plan` prints the runs and their estimated minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from fnatool.files import model as files
from fnatool.files.atomic import write_text
from fnatool.files.runfolder import REPORT
from fnatool.search.config import QUICK, parse_search
from fnatool.search.derive import DeriveOptions, DeriveSource, read_run, read_source
from fnatool.search.emitting import member_with_head
from fnatool.search.run import SCENES, search
from fnatool.search.sampling import Member
from fnatool.search.scoring import loss, score, scoring_of
from fnatool.search.solver import likeliest, score_of
from fnatool.tasks import scenes as writing
from fnatool.training.finetune import RunPlaces, tune
from fnatool.training.processes import World
from fnatool.training.sections import merged
from passes.space.space import SKIP, own_choices

RESULTS = Path(__file__).parent / "results"
(BUDGET,) = QUICK["cost"]["budget"]
CHANCE = 0.01  # of what a block that stays as it is counts
NEAR = 0.9  # a random member costs at least so much of the budget
METRIC = "top1"
MINUTES = {"search": 4.0, "run": 1.3}  # on one CPU core


@dataclass(frozen=True)
class Row:
    """An architecture: where it comes from, its cost, what the search knew of it, and the figure after fine-tuning with each seed."""

    name: str
    member: Member
    madds: int
    preference: float
    score: Mapping[str, float]
    figures: tuple[float, ...]


def searched(folder: Path, seed: int, more: Mapping[str, object]) -> Path:
    """The folder of a finished search with this seed."""
    run = folder / f"search{seed}"
    if not (run / REPORT).exists():
        scenes = folder / "scenes"
        if not scenes.exists():
            writing.write_scenes(scenes, replace(SCENES, val=400))
        own = {"data": {"path": str(scenes)}, "run": {"seed": seed, "threads": torch.get_num_threads()}, "finetune": {"enabled": False}}
        config = parse_search(merged(merged(QUICK, own), more))
        search(None, config, run)
    return run


def random_members(learnt: DeriveSource, count: int, seed: int) -> list[Member]:
    """Distinct members within the budget that cost nearly as much: the best by scores that are chance alone."""
    (budget,) = learnt.made.budgets([BUDGET])
    budget = replace(budget, table=learnt.tables[budget.kind])
    rng = np.random.default_rng(seed)
    found: dict[Member, None] = {}
    while len(found) < count:
        noise = [rng.gumbel(size=len(row)).tolist() for row in learnt.scores]
        member = likeliest(learnt.choices, noise, [budget])
        if budget.table.of(member) >= NEAR * budget.limit:
            found[member] = None
    return list(found)


def near_members(learnt: DeriveSource, count: int, seed: int) -> list[Member]:
    """Distinct members within the budget that change as few of the seed's blocks as they can: which ones, says chance."""
    (budget,) = learnt.made.budgets([BUDGET])
    budget = replace(budget, table=learnt.tables[budget.kind])
    choices = learnt.choices
    rng = np.random.default_rng(seed)
    found: dict[Member, None] = {}
    while len(found) < count:
        scores = [(CHANCE * rng.gumbel(size=len(row))) for row in learnt.scores]
        for row, own, block in zip(scores, own_choices(learnt.made.analysis, choices), choices.blocks, strict=True):
            if own is not None:
                row[len(block.candidates) if own == SKIP else own] += 1
        found[likeliest(choices, [row.tolist() for row in scores], [budget])] = None
    return list(found)


def measured(learnt: DeriveSource, name: str, member: Member, folder: Path, seeds: Sequence[int]) -> Row:
    """A member after its fine-tuning, performed unless it has been before."""
    home = folder / name
    home.mkdir(parents=True, exist_ok=True)
    made = learnt.made
    emitted = member_with_head(made.ground, learnt.choices, member).write(home / "start.onnx", force=True)
    figures = []
    for seed in seeds:
        done = home / f"seed{seed}.json"
        if not done.exists():
            how = made.config.tuning()
            config = how.model_copy(update={"run": how.run.model_copy(update={"seed": seed})})
            target = home / f"seed{seed}.onnx"
            own = home / f"seed{seed}"
            own.mkdir(exist_ok=True)
            places = RunPlaces(target, own, force=True)
            tuned = tune(files.read(emitted.path), config, places, World(0, 1, torch.device("cpu")))
            assert tuned is not None
            write_text(done, json.dumps(dict(tuned.in_runtime)), force=True)
        figures.append(json.loads(done.read_text())[METRIC])
    return Row(name, member, emitted.costs["madds"], score_of(learnt.scores, member), learnt.figures(member), tuple(figures))


def known(run: Path) -> DeriveSource:
    """What a finished search knows; of members in a super network their loss too."""
    found = read_source(run, DeriveOptions())
    if found.made.config.search.method == "distance":
        return found
    state = read_run(run, with_data=True)
    how = scoring_of(state.made, 1)
    return replace(
        found,
        figures=lambda member: {**score(state.network, member, how), "loss": loss(state.network, member, how)},
    )


def study(folder: Path, count: int, seeds: Sequence[int], more: Mapping[str, object]) -> list[Row]:
    """The searched architecture of each seed, and as many random ones in the first search's super network."""
    rows = []
    for number in seeds:
        run = searched(folder, number, more)
        learnt = known(run)
        found = tuple(json.loads((run / REPORT).read_text())["architecture"]["member"])
        rows.append(measured(learnt, f"search{number}-found", found, folder, seeds))
    first = known(folder / f"search{seeds[0]}")
    for k, member in enumerate(random_members(first, count, seed=0)):
        rows.append(measured(first, f"random{k}", member, folder, seeds))
    for k, member in enumerate(near_members(first, count // 2, seed=0)):
        rows.append(measured(first, f"near{k}", member, folder, seeds))
    return rows


def table(rows: Sequence[Row]) -> str:
    """As Markdown."""
    names = [name for name in rows[0].score if "/" not in name]
    lines = [
        f"| architecture | multiply-adds | Σ score | {' | '.join(names)} | {METRIC} fine-tuned |",
        "|---" * (len(names) + 4) + "|",
    ]
    for row in rows:
        spread = f" ± {statistics.stdev(row.figures):.3f}" if len(row.figures) > 1 else ""
        lines.append(
            f"| {row.name} | {row.madds / 1e6:.1f}M | {row.preference:.2f} | {' | '.join(f'{row.score[name]:.3f}' for name in names)} "
            f"| {statistics.mean(row.figures):.3f}{spread} |"
        )
    return "\n".join(lines)


def ranks(rows: Sequence[Row]) -> dict[str, float]:
    """Spearman's rank correlation, over all that were drawn by chance, of what the search knew with the figure."""
    chance = [row for row in rows if not row.name.startswith("search")]
    figures = [statistics.mean(row.figures) for row in chance]
    known = {"sum of scores": [row.preference for row in chance]}
    for name in chance[0].score if chance else ():
        if "/" not in name:
            sign = -1 if name in ("loss", "distance") else 1
            known[name] = [sign * row.score[name] for row in chance]
    if len(chance) < 2:
        return {}
    return {name: float(spearmanr(values, figures).statistic) for name, values in known.items()}


def main() -> None:
    """Perform the study and print its table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search_study", description=__doc__.splitlines()[0])
    parser.add_argument("--plan", action="store_true", help="print how many runs there are and how long they may take, and do nothing")
    parser.add_argument("--random", type=int, default=6, metavar="N", help="random ones to compare with, and half as many near ones")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="searches, and fine-tunings of each architecture")
    parser.add_argument("--search", type=json.loads, default={}, metavar="JSON", help="what else the config of the search says")
    parser.add_argument("--folder", type=Path, default=Path("build/search_study"), metavar="DIR", help="where runs are kept")
    parser.add_argument("--output", type=Path, default=RESULTS / "search_study.json", metavar="FILE", help="where the figures go")
    options = parser.parse_args()
    seeds = range(options.seeds)
    if options.plan:
        runs = (options.seeds + options.random + options.random // 2) * options.seeds
        minutes = options.seeds * MINUTES["search"] + runs * MINUTES["run"]
        print(f"{options.seeds} searches, {runs} fine-tunings: {minutes:.0f} minutes, estimated for one CPU core")
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    rows = study(options.folder, options.random, seeds, options.search)
    versions = {name: metadata.version(name) for name in ("torch", "onnxruntime-gpu", "numpy")}
    machine = {"machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version(), "versions": versions}
    found = {"budget": BUDGET, "metric": METRIC, "spearman": ranks(rows), "rows": [vars(row) for row in rows]}
    write_text(options.output, json.dumps({**machine, **found}, indent=1) + "\n", force=True)
    print(table(rows))
    known = ", ".join(f"{name} {value:.2f}" for name, value in ranks(rows).items())
    print(f"rank correlation with the figure, of those drawn by chance: {known}")


if __name__ == "__main__":
    main()
