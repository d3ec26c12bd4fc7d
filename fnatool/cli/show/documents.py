"""What --json prints: one JSON document on standard output, and nothing else there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from fnatool import terminal
from fnatool.files.runfolder import REPORT
from fnatool.search.folder import COSTS, DERIVED, LIST, SPACE

MODEL = {"seed": "SHA-256 of the model that was given"}
NOTES = {"notes": "what else is to be said, as on the terminal"}
COMPARED = "what was compared in ONNX Runtime (`worst`, `compared`, `tolerance`), null with --no-verify"
PIXELS = {
    "pixels": "how a pixel becomes an input value: `mean`, `scale`, `channels`, where that is known from, whether "
    "it is a guess"
}

DOCUMENTS: Mapping[str, Mapping[str, str]] = {
    "remap": {
        **MODEL,
        "strategy": "`fna` or `preserve`",
        "spec": "every knob with its value",
        "changes": "the knobs that changed: `knob`, `from`, `to`",
        "drifts": "why the function changes, if it does",
        **NOTES,
        "verified": COMPARED,
        "refit": "where layers were solved anew: which, and how far they are from the seed's",
        "tensors": "a row for every tensor: `target`, `source`, `from`, `to`, `indices` (−1 is fresh), `what` "
        "became of it",
    },
    "head": {
        **MODEL,
        "taps": "what the head reads",
        "kept": "how many `parameters` of the seed's stay, `of` how many",
        "inherits": "whether it goes on from the model's own head",
        "outputs": "`name` and `shape` of each",
        "description": "the record of the task, as in the metadata",
        **PIXELS,
        "parameters": "`before` and `after`",
        "macs": "likewise, null where they are unknown",
        **NOTES,
        "verified": "whether the taps were compared with the seed's",
    },
    "task": {
        **MODEL,
        "description": "the record of the task, as in the metadata",
        "outputs": "`name` in the task, `tensor` and `shape` of each",
        **PIXELS,
    },
    "export": {
        "source": "where the model comes from",
        "exporter": "which of torch's",
        "parameters": "how many",
        "norms": "how many BatchNorms are kept",
        "drifts": "how far outputs are from torch's, for each `batch`",
        "inner": "the `worst` of what so many parts inside make",
        **NOTES,
    },
    "fold": {
        **MODEL,
        "changed": "which `norm` went into which `convolution`",
        "left": "each `node` that stays, and `why`",
        **NOTES,
        "verified": COMPARED,
    },
    "unfold": {
        **MODEL,
        "changed": "which `norm` came behind which `convolution`",
        "left": "each `node` without one, and `why`",
        **NOTES,
        "verified": COMPARED,
    },
    "cut": {
        **MODEL,
        "inputs": "`name` and `shape` of each",
        "outputs": "`name` and `shape` of each",
        "brought_to_inference": "the nodes that computed as in training",
        "nodes": "how many `before` and `after`",
        **NOTES,
        "verified": "whether the outputs were compared with the whole's",
    },
    "finetune": {
        "step": "the step whose weights were kept",
        "figures": "those of the network in training",
        "in_runtime": "those of the written file in ONNX Runtime",
        "model": "the file",
        "sha256": "its SHA-256",
        "of": "the same for runs that were asked for the same",
    },
}
"""command → the keys of its document, for commands whose document is described nowhere else; 'where …': a key that may
be absent.
"""

FILES: Mapping[str, str] = {
    "finetune": "`report.json` in the run's folder",
    "search": "`report.json` in RUN; with --dry-run the `space` and what its members `costs`, as in space.json and "
    "costs.json there",
    "derive": "`derived.json` in DIR",
    "latency-table": "OUT; with --pack the number of `pieces`, and the `folder`",
    "deploy": "`deploy.json` in DIR",
    "remap": "what --report FILE writes",
}
"""command → the file that holds the same document."""

WITHOUT: Mapping[str, str] = {
    "config": "what it writes is a text for people to edit",
    "data fashion-scenes": "what it writes is a data set, whose annotations say it all",
    "report": "what it writes is a page for people; the runs have report.json",
}
"""command → why it has no --json."""


def show_json(document: Mapping[str, object]) -> None:
    """The document."""
    terminal.document(json.dumps(document, indent=1))


def show_report(run: Path) -> None:
    """The report in the folder of a run."""
    show_file(run / REPORT)


def show_space(run: Path) -> None:
    """What a search would choose from, and what its members cost."""
    show_json(
        {
            name: json.loads((run / file).read_text(encoding="utf-8"))
            for name, file in (("space", SPACE), ("costs", COSTS))
        }
    )


def show_derived_list(run: Path, out: Path | None) -> None:
    """The architectures that were derived."""
    show_file((out or run / DERIVED) / LIST)


def show_file(path: Path) -> None:
    """The document that is in a file that was just written."""
    terminal.document(path.read_text(encoding="utf-8").rstrip("\n"))
