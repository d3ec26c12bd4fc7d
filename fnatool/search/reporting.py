"""What a search found, as JSON for programs and as a page for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fnatool.escaping import code, markdown
from fnatool.files.atomic import write_text
from fnatool.files.runfolder import REPORT
from fnatool.search.emitting import Emitted
from fnatool.search.folder import PAGE, TARGET
from fnatool.search.preparing import PreparedSearch, restricted
from fnatool.search.showing import cost_text, rows
from fnatool.search.solver import score_of
from fnatool.supernet.network import SuperNetwork
from fnatool.training.said import Tuned
from fnatool.training.watching import sentence
from passes.space.costs import extremes
from passes.space.space import log10_size, own_choices

VERSION = 1


def write(
    made: PreparedSearch, network: SuperNetwork, found: Emitted, *, score: Mapping[str, float], tuned: Tuned | None, folder: Path
) -> None:
    """report.json and report.md are in the folder."""
    document = as_json(made, network, found, score=score, tuned=tuned)
    write_text(folder / REPORT, json.dumps(document, indent=1) + "\n", force=True)
    write_text(folder / PAGE, page(document), force=True)


def as_json(
    made: PreparedSearch, network: SuperNetwork, found: Emitted, *, score: Mapping[str, float], tuned: Tuned | None
) -> dict[str, Any]:
    """Seed, space, the architecture with its costs and its score, what the search preferred, and what fine-tuning came to."""
    scores = network.architecture.log_probabilities()
    own = own_choices(made.analysis, network.choices)
    table = restricted(made.tables[made.kind], made.choices, network.choices)
    spaces = {kind: dict(zip(("smallest", "largest"), extremes(costs, made.choices), strict=True)) for kind, costs in made.tables.items()}
    figures = None if tuned is None else {"step": tuned.step, "figures": dict(tuned.figures), "in_runtime": dict(tuned.in_runtime)}
    return {
        "version": VERSION,
        "task": made.config.task,
        "seed": {
            "model": made.ground.seed.path.name,
            "sha256": made.ground.seed.sha256,
            "costs": {k: made.own_cost(k) for k in found.costs},
            "blocks": {name: "–" if row == "skipped" else row for name, row in rows(network.choices, own).items()},
        },
        "space": {"log10_members": round(log10_size(network.choices), 2), "costs": spaces},
        "not_searched": dict(network.fixed),
        "budgets": list(made.config.cost.budget),
        "architecture": {
            "spec": found.spec.to_json(),
            "member": list(found.member),
            "blocks": rows(network.choices, found.member),
            "costs": dict(found.costs),
            "log_probability": score_of(scores, found.member),
            "supernet_score": dict(score),
        },
        "preferences": {
            block.name: {"candidates": [dict(row) for row in block.candidates], "skippable": block.skippable, "log_probabilities": row}
            for block, row in zip(network.choices.blocks, scores, strict=True)
        },
        "expected_cost": {"kind": made.kind, "value": network.architecture.expected_cost(table).item()},
        "entropy": network.architecture.entropy().item(),
        "finetuned": figures,
        "target": TARGET,
    }


def page(report: Mapping[str, Any]) -> str:
    """The same for people, in Markdown."""
    found, seed = report["architecture"], report["seed"]
    kinds, space = list(found["costs"]), report["space"]
    costs = {"seed": seed["costs"], "found": found["costs"]}
    costs |= {f"{name} member": {kind: space["costs"][kind][name] for kind in kinds} for name in ("smallest", "largest")}
    lines = [
        f"# {report['task']}: searched from {markdown(seed['model'])}",
        "",
        f"| | {' | '.join(kinds)} |",
        "|---" * (len(kinds) + 1) + "|",
    ]
    for name, row in costs.items():
        lines.append(f"| {name} | " + " | ".join("–" if row.get(kind) is None else cost_text(kind, row[kind]) for kind in kinds) + " |")
    lines += [
        "",
        f"Budget: {markdown(', '.join(report['budgets'])) or 'none'}. Costs are those of the whole network with its head, batch 1.",
    ]
    lines += [
        f"Space: 10^{space['log10_members']} architectures; entropy of the choices in the end {report['entropy']:.2f} (1 is undecided)."
    ]
    lines += [f"In the super network, with inherited weights: {sentence(found['supernet_score'])}."]
    if report["finetuned"] is not None:
        lines += [f"Fine-tuned for {report['finetuned']['step']:,} steps, in ONNX Runtime: {sentence(report['finetuned']['in_runtime'])}."]
    lines += ["", "| block | seed | found |", "|---|---|---|"]
    lines += [f"| {block} | {markdown(seed['blocks'][block])} | {markdown(chosen)} |" for block, chosen in found["blocks"].items()]
    lines += ["", *(f"* {code(knob)} was not searched: {markdown(why)}" for knob, why in report["not_searched"].items())]
    return "\n".join(lines).rstrip() + "\n"
