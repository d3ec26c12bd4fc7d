"""What a search found, as JSON for programs and as a page for people."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fnatool.escaping import code, markdown
from fnatool.files.atomic import write_text
from fnatool.files.runfolder import REPORT
from fnatool.model.remap_report import refit_rows
from fnatool.search.config import UNLABELLED
from fnatool.search.folder import PAGE, TARGET
from fnatool.search.preparing import PreparedSearch, restricted
from fnatool.search.results import Baseline, Emitted
from fnatool.search.showing import rows
from fnatool.search.solver import score_of
from fnatool.search.trunks import extremes_of
from fnatool.search.words import BASELINES, cost_text
from fnatool.supernet.network import SuperNetwork
from fnatool.training.said import Tuned
from fnatool.training.watching import sentence
from passes.space.space import Choices, log10_size, own_choices

VERSION = 1


@dataclass(frozen=True)
class MethodResult:
    """What a method found: the network as a file, its figures, and what the report says of the architecture and beside
    it.

    choices: what the blocks could be; fixed: knobs that were not searched, with the reason.
    """

    emitted: Emitted
    figures: Mapping[str, float]
    choices: Choices
    fixed: Mapping[str, str]
    architecture: Mapping[str, Any]
    beside: Mapping[str, Any]


def write(
    made: PreparedSearch, found: MethodResult, *, tuned: Tuned | None, beside: Sequence[Baseline], folder: Path
) -> None:
    """report.json and report.md are in the folder."""
    document = as_json(made, found, tuned=tuned, beside=beside)
    write_text(folder / REPORT, json.dumps(document, indent=1) + "\n", force=True)
    write_text(folder / PAGE, page(document), force=True)


def as_json(
    made: PreparedSearch, found: MethodResult, *, tuned: Tuned | None, beside: Sequence[Baseline]
) -> dict[str, Any]:
    """Seed, space, the architecture with its costs and its figures, what the method knows of others, and what
    fine-tuning came to.

    beside: shapes that were not searched and were tuned alike.
    """
    choices, emitted = found.choices, found.emitted
    own = own_choices(made.analysis, choices)
    spaces = {
        kind: dict(zip(("smallest", "largest"), extremes_of(made.trunks, kind), strict=True)) for kind in made.tables
    }
    return {
        "version": VERSION,
        "task": made.config.task,
        "method": made.config.search.method,
        "seed": {
            "model": made.ground.seed.path.name,
            "sha256": made.ground.seed.sha256,
            "costs": {k: made.own_cost(k) for k in emitted.costs},
            "blocks": {name: "–" if row == "skipped" else row for name, row in rows(choices, own).items()},
        },
        "space": {"log10_members": round(log10_size(made.whole), 2), "costs": spaces},
        "not_searched": dict(found.fixed),
        "budgets": list(made.config.cost.budget),
        "architecture": {
            "spec": emitted.spec.to_json(),
            "member": list(emitted.member),
            "blocks": rows(choices, emitted.member),
            "costs": dict(emitted.costs),
            **found.architecture,
            **({} if emitted.refit is None else {"refit": refit_rows(emitted.refit)}),
        },
        **found.beside,
        "finetuned": None if tuned is None else _figures(tuned),
        "baselines": {
            row.name: {"spec": row.spec.to_json(), "costs": dict(row.costs), **_figures(row.tuned)} for row in beside
        },
        "target": TARGET,
    }


def _figures(tuned: Tuned) -> dict[str, Any]:
    return {
        "step": tuned.step,
        "metric": tuned.metric,
        "figures": dict(tuned.figures),
        "in_runtime": dict(tuned.in_runtime),
    }


def learnt(made: PreparedSearch, network: SuperNetwork, found: Emitted, score: Mapping[str, float]) -> MethodResult:
    """What a super network that has learnt says."""
    scores = network.architecture.log_probabilities()
    table = restricted(made.tables[made.kind], made.choices, network.choices)
    return MethodResult(
        found,
        score,
        network.choices,
        {**made.fixed, **network.fixed},
        architecture={"log_probability": score_of(scores, found.member), "supernet_score": dict(score)},
        beside={
            "preferences": {
                block.name: {
                    "candidates": [dict(row) for row in block.candidates],
                    "skippable": block.skippable,
                    "log_probabilities": row,
                }
                for block, row in zip(network.choices.blocks, scores, strict=True)
            },
            "expected_cost": {"kind": made.kind, "value": network.architecture.expected_cost(table).item()},
            "entropy": network.architecture.entropy().item(),
        },
    )


TITLES = {UNLABELLED: "like what the seed computes"}


def page(report: Mapping[str, Any]) -> str:
    """The same for people, in Markdown."""
    found, seed = report["architecture"], report["seed"]
    kinds, space = list(found["costs"]), report["space"]
    costs = {"seed": seed["costs"], "found": found["costs"]}
    costs |= {
        f"{name} member": {kind: space["costs"][kind][name] for kind in kinds} for name in ("smallest", "largest")
    }
    lines = [
        f"# {TITLES.get(report['task'], report['task'])}: searched from {markdown(seed['model'])}",
        "",
        f"| | {' | '.join(kinds)} |",
        "|---" * (len(kinds) + 1) + "|",
    ]
    for name, row in costs.items():
        lines.append(
            f"| {name} | "
            + " | ".join("–" if row.get(kind) is None else cost_text(kind, row[kind]) for kind in kinds)
            + " |"
        )
    lines += [
        "",
        f"Budget: {markdown(', '.join(report['budgets'])) or 'none'}. Costs are those of the whole network, batch 1.",
    ]
    lines += list(SAID[report["method"]](report))
    if "refit" in found:
        lines += list(_said_of_refit(found["refit"]))
    if report["finetuned"] is not None:
        lines += [
            (
                f"Fine-tuned for {report['finetuned']['step']:,} steps, in ONNX Runtime: "
                f"{sentence(report['finetuned']['in_runtime'])}."
            )
        ]
    lines += list(_said_of_baselines(report))
    lines += ["", "| block | seed | found |", "|---|---|---|"]
    lines += [
        f"| {block} | {markdown(seed['blocks'][block])} | {markdown(chosen)} |"
        for block, chosen in found["blocks"].items()
    ]
    lines += [
        "",
        *(f"* {code(knob)} was not searched: {markdown(why)}" for knob, why in report["not_searched"].items()),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _said_of_baselines(report: Mapping[str, Any]) -> Iterator[str]:
    """What was tuned alike, each with its figure and its costs."""
    if not report["baselines"]:
        return
    found, metric = report["architecture"], report["finetuned"]["metric"]
    kinds = list(found["costs"])
    yield f"\nTuned alike:\n\n| | {metric} | {' | '.join(kinds)} |\n|---" + "|---" * (len(kinds) + 1) + "|"
    rows = {"found": {**report["finetuned"], "costs": found["costs"]}}
    rows |= {BASELINES[name]: row for name, row in report["baselines"].items()}
    for name, row in rows.items():
        costs = " | ".join(
            "–" if row["costs"].get(kind) is None else cost_text(kind, row["costs"][kind]) for kind in kinds
        )
        yield f"| {name} | {row['in_runtime'][metric]:.4f} | {costs} |"


def _said_of_learning(report: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"Space: 10^{report['space']['log10_members']} architectures; entropy of the choices in the end "
        f"{report['entropy']:.2f} "
        "(1 is undecided)."
    )
    yield f"In the super network, with inherited weights: {sentence(report['architecture']['supernet_score'])}."


def _said_of_distances(report: Mapping[str, Any]) -> Iterator[str]:
    found = report["architecture"]
    space = f"Space: 10^{report['space']['log10_members']} architectures"
    yield f"{space}, of which {report['measured']} were measured on {report['images']} images."
    yield (
        f"Before any training its features are {found['distance']:.3f} from the seed's "
        "(0: the same; 1: as far as the seed's are from their mean)."
    )
    yield from _said_of_trunks(report)
    rows = report["predicted"]
    yield "\nPredicted by its single changes, which others cost less or more:\n"
    yield f"| {report['kind']} | of the seed | widths outside blocks | distance |\n|---|---|---|---|"
    for row in rows:
        yield (
            f"| {cost_text(report['kind'], row['cost'])} | {_share(row)} | ×{row['trunk']:.3g} | "
            f"{row['distance']:.3f} |"
        )
    if report["knee"] is not None:
        bend = report["knee"]
        yield (
            f"\nThe knee is at {cost_text(report['kind'], bend['cost'])} ({_share(bend)} of the seed): what is "
            "saved above it costs "
            "little, below it the distance grows faster.\n"
        )


def _share(row: Mapping[str, Any]) -> str:
    return "–" if row["share"] is None else f"{row['share']:.0%}"


def _said_of_refit(refit: Mapping[str, Any]) -> Iterator[str]:
    solved = sum(row["strength"] is not None for row in refit["layers"])
    yield (
        f"Then {solved} of {len(refit['layers'])} layers were solved anew with {refit['used']:,} samples. "
        "Distance from the seed before "
        f"and after, on {refit['kept_back']:,} samples kept back:\n"
    )
    yield "| tensor | of | before | after |\n|---|---|---|---|"
    for row in refit["layers"]:
        yield (
            f"| {markdown(row['tensor'])} | {row['block'] or '–'} | {_distance(row['before'])} | "
            f"{_distance(row['after'])} |"
        )
    for row in refit["outputs"]:
        yield f"| {markdown(row['tensor'])} | output | {_distance(row['before'])} | {_distance(row['after'])} |"
    yield ""


def _distance(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _said_of_trunks(report: Mapping[str, Any]) -> Iterator[str]:
    """Each choice of the widths outside blocks, where there are several."""
    kind, chosen = report["kind"], report["architecture"]["trunk"]
    if len(report["trunks"]) < 2:
        return
    yield f"\nWidths outside blocks are ×{chosen['share']:.3g} of the seed's. Each choice of them:\n"
    yield (
        f"| widths outside blocks | {kind} | distance, nothing else changed | distance within the budget "
        "|\n|---|---|---|---|"
    )
    for row in report["trunks"]:
        within = "–" if row["within"] is None else f"{row['within']:.3f}"
        costs = f"{cost_text(kind, row['smallest'])} … {cost_text(kind, row['largest'])}"
        yield f"| ×{row['share']:.3g} | {costs} | {row['distance']:.3f} | {within} |"


SAID: Mapping[str, Callable[[Mapping[str, Any]], Iterator[str]]] = {
    "gradient": _said_of_learning,
    "distance": _said_of_distances,
}
"""What the page says of how it was found, by the method."""
