"""Multiply-adds, parameters and activation memory of a network, by part and by node."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from fnatool.files import model as files
from fnatool.files.atomic import write_text
from fnatool.files.interface import Inputs
from fnatool.model.analysed import profile_model
from fnatool.model.rows import numbers_of
from fnatool.model.source import Source, open_model
from passes.network.profile import CONVENTIONS, Profile

Json = dict[str, object]

MEANING = {
    "params": "weights, biases and scales, a shared one once; running statistics are none",
    "activations": "bytes of all tensors that the nodes compute, each once, in their own memory",
    "peak_activations": "bytes of the inputs and computed tensors that exist at once while the nodes run one by "
    "one, at the most",
}


@dataclass(frozen=True, kw_only=True)
class ProfileOptions:
    """`inputs` gives shapes for free dimensions; `convention` says what multiply-adds are: see
    `passes.network.profile.CONVENTIONS`.
    """

    inputs: Inputs = None
    convention: str = "conv"


@dataclass(frozen=True)
class ModelProfile:
    """A model and its profile: parameters, multiply-adds, and bytes of activations, in all, by part and by node."""

    model: files.Model
    profile: Profile
    convention: str

    def to_json(self) -> Json:
        """The whole, its parts and its nodes; macs and activations are None where a free image size leaves them
        open.
        """
        return profile_json(self.profile, str(self.model.path), self.convention)

    def write(self, path: Path | str, *, force: bool = False) -> None:
        """The same as a JSON file."""
        write_text(Path(path), json.dumps(self.to_json(), indent=2) + "\n", force=force)


def profile(model: Source, *, options: ProfileOptions | None = None) -> ModelProfile:
    """What a model (a path, the bundled seed's name, or a model in memory) costs, with the stages its metadata stores.

    Raises UserError for a wrong path or shape, RefusedModel for a model that cannot be read.
    """
    options = options or ProfileOptions()
    read, sizes = open_model(model, options.inputs)
    return ModelProfile(read, profile_model(read, sizes, convention=options.convention), options.convention)


def profile_json(found: Profile, model: str, convention: str) -> Json:
    """The whole, its parts and its nodes; macs and activations are None where a free image size leaves them open."""
    return {
        "model": model,
        "convention": convention,
        "inputs": {name: list(shape) for name, shape in found.inputs.items()},
        **numbers_of(found.whole, found),
        "meaning": {"macs": CONVENTIONS[convention], **MEANING},
        "stem": numbers_of(found.stem, found),
        "stages": [{"name": part.name, **numbers_of(part, found)} for part in found.stages],
        "head": numbers_of(found.head, found),
        "nodes": [
            {
                "name": row.name,
                "op": row.op,
                "stage": row.part,
                "shape": None if row.shape is None or not found.sized else list(row.shape),
                "params": row.params,
                "macs": row.macs if found.sized else None,
                "activations": row.activations if found.sized else None,
            }
            for row in found.rows
        ],
        "notes": list(found.notes),
    }
