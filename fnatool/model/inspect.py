"""What a network is made of and what can change: stages, blocks, knobs, as data, as JSON, or as the network's own
Spec.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from fnatool.files import model as files
from fnatool.files.atomic import write_text
from fnatool.files.interface import Inputs
from fnatool.model.analysed import analyse_model
from fnatool.model.places import place_rows
from fnatool.model.rows import Json, batch_row, block_rows, channels_row, group_rows, image_row, stage_rows
from fnatool.model.source import Source, open_model
from passes.network.analysis import Analysis
from passes.network.knobs import BATCH, CHANNELS, IMAGE
from passes.target.resolve import own_spec
from passes.target.spec import Spec


@dataclass(frozen=True, kw_only=True)
class InspectOptions:
    """`inputs` gives shapes for free dimensions: by name, or one alone where the model has one input."""

    inputs: Inputs = None


@dataclass(frozen=True)
class Inspection:
    """A model and its analysis."""

    model: files.Model
    analysis: Analysis

    def spec(self) -> Spec:
        """The network's own Spec, which names it by its SHA-256."""
        return own_spec(self.analysis, f"sha256:{self.model.sha256}")

    def spec_text(self) -> str:
        """The network's own Spec as a JSON file."""
        text = json.dumps(self.spec().to_json(), indent=2)
        return re.sub(r"\[\s+(\d+),\s+(\d+)\s+\]", r"[\1, \2]", text)  # a size on one line

    def group(self, knob: str) -> list[Json]:
        """Every (initializer, axis, indices, role) that moves with a width or kernel knob. Raises UserError for other
        knobs.
        """
        return group_rows(self.analysis, knob)

    def places(self) -> list[Json]:
        """The places that a head can tap and that the model can be cut at, by stage, in the order of the graph."""
        return place_rows(self.analysis)

    def to_json(self) -> Json:
        """Everything, for programs."""
        return analysis_json(self.analysis)

    def write(self, path: Path | str, *, force: bool = False) -> None:
        """The network's own Spec as a file, to edit and give to remap."""
        write_text(Path(path), self.spec_text() + "\n", force=force)


def inspect(model: Source, *, options: InspectOptions | None = None) -> Inspection:
    """The stages, blocks and knobs of a model (a path, the bundled seed's name, or a model in memory), with what each
    knob can be.

    Raises UserError for a wrong path or shape, RefusedModel for a model that cannot be read or that nothing can be
    changed in.
    """
    options = options or InspectOptions()
    read, sizes = open_model(model, options.inputs)
    return Inspection(read, analyse_model(read, sizes))


def analysis_json(analysis: Analysis) -> Json:
    """params, macs (None where a free image size leaves them open), stages, blocks, knobs, atoms, frozen, and notes on
    the reading.
    """
    return {
        "params": analysis.cost.params,
        "macs": analysis.cost.macs,
        "stages": stage_rows(analysis),
        "blocks": block_rows(analysis),
        "knobs": [
            image_row(analysis.image),
            channels_row(analysis.colours),
            batch_row(analysis.batching),
            *(asdict(knob) for knob in analysis.knobs.values()),
        ],
        "atoms": [
            {
                "name": name,
                "channels": atom.value,
                "identities": int(atom.classes.size),
                "first": atom.first.node,
                "weights": len(atom.sites),
            }
            for name, atom in analysis.atoms.items()
        ],
        "frozen": [
            *({"name": IMAGE, "why": analysis.image.why} for _ in range(analysis.image.why is not None)),
            *({"name": CHANNELS, "why": analysis.colours.why} for _ in range(analysis.colours.why is not None)),
            *({"name": BATCH, "why": analysis.batching.why} for _ in range(analysis.batching.why is not None)),
            *({"name": knob.name, "why": knob.why} for knob in analysis.knobs.values() if knob.growth == "frozen"),
        ],
        "notes": list(analysis.notes),
    }
