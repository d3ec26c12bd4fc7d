"""The network itself as it is deployed: BatchNorm folded, dead nodes gone, for a batch and a size; and the proof that
it is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_graphsurgeon as gs

from fnatool.data.placement import Size
from fnatool.deploy.document import Batch
from fnatool.files import model as files
from fnatool.files.interface import TASK_KEY
from fnatool.model.analysed import analyse_model, metadata
from fnatool.model.upgrading import at_least
from fnatool.model.verified import in_child, require_finite, verify_same
from fnatool.tasks.description import Description
from fnatool.tasks.table import parse_description
from passes.batchnorm.fold import fold
from passes.deploy.postprocessing import Axis
from passes.deploy.sizes import BATCH, sized, without_dead
from passes.deploy.steps import OLDEST_OPSET
from passes.errors import RefusedModel, UserError
from passes.graph.shapes import infer
from passes.graph.tensors import Shape
from passes.graph.view import view
from passes.network.profile import profile

SAME = 1e-4  # of the spread of an output: what rounding may move where samples are computed together


@dataclass(frozen=True)
class Core:
    """A network as it is deployed, with what it is for; `shapes` of its inputs and outputs for the usual batch; what it
    costs, before and

    after; the worst drift of an inner tensor (None: not compared)."""

    model: files.Model
    described: Description | None
    size: Size | None
    batch: Batch
    axis: Axis
    shapes: Mapping[str, Shape]
    costs: Mapping[str, Mapping[str, int]]
    drift: float | None
    notes: tuple[str, ...]


def network(
    model: files.Model, given: Mapping[str, Shape] | None, *, size: Size | None, batch: Batch | None, newer: bool
) -> Core:
    """The network of a model. given: shapes for its free sizes; newer: whether it is to have an opset that pre- and
    post-processing and scales per channel can be written in.

    Raises UserError for sizes that it cannot have, RefusedModel where it cannot be made, or does not compute the same.
    """
    described = _described(model)
    size, shapes = _sizes(model, described, size, given)
    if newer:
        model = at_least(model, OLDEST_OPSET, "what is added to it")
    analysis = analyse_model(model, shapes)
    found = fold(analysis.normal or model.graph, sizes=shapes)
    made = replace(model, graph=without_dead(found.graph), notes=())
    require_finite(model)
    drift = verify_same(model, made, analysis).worst
    seen = view(made.graph)
    own = {name: analysis.shapes.shapes[name] for name in seen.inputs if name not in seen.constants}
    wanted = batch or _own_batch(seen.inputs, own)
    axis: Axis = wanted.usual if wanted.fixed else BATCH
    graph = sized(made.graph, axis, own)
    if any(shape[:1] != (wanted.most,) for shape in own.values()):
        in_child(_require_separate, made.graph, graph, own, wanted.most)
    usual = {name: (wanted.usual, *shape[1:]) if len(shape) > 1 else shape for name, shape in own.items()}
    whole = infer(view(graph), usual).shapes
    costs = {"before": _costs(model.graph, shapes), "after": _costs(graph, own if axis == BATCH else None)}
    notes = [*model.notes, f"{len(found.folded)} BatchNorms are folded"] if found.folded else [*model.notes]
    notes += [f"BatchNorm '{left.node}' stays: {left.why}" for left in found.left]
    ends = {name: whole[name] for name in (*own, *seen.outputs) if name in whole}
    return Core(replace(made, graph=graph), described, size, wanted, axis, ends, costs, drift, tuple(notes))


def _described(model: files.Model) -> Description | None:
    text = metadata(model.envelope).get(TASK_KEY)
    return None if text is None else parse_description(text)


def _sizes(
    model: files.Model, described: Description | None, size: Size | None, given: Mapping[str, Shape] | None
) -> tuple[Size | None, dict[str, Shape] | None]:
    """Height and width of the input of a model with a task, and shapes for all that the file leaves open."""
    # it loads torch, which a model without a task does not need
    from fnatool.training.model_and_data import open_sizes, sizes

    if described is None:
        if size is not None:
            raise UserError(
                "--size is for models with a task, whose input is known to be an image; say the sizes of this "
                "one with --input"
            )
        return None, dict(given) if given else None
    full = sizes(model, described, size)[1]
    return full, {**open_sizes(model, described, full), **(given or {})} or None


def _own_batch(
    inputs: Mapping[str, tuple[tuple[int | str | None, ...] | None, int]], shapes: Mapping[str, Shape]
) -> Batch:
    """What the file says, and one where it leaves that open."""
    counts = {shape[0] for name, shape in shapes.items() if len(shape) > 1 and inputs[name][0] is not None}
    count = counts.pop() if len(counts) == 1 else 1
    return Batch(least=count, usual=count, most=count)


def _costs(graph: gs.Graph, sizes: Mapping[str, Shape] | None) -> dict[str, int]:
    whole = profile(graph, sizes=sizes).whole
    return {"macs": whole.macs, "params": whole.params}


def _require_separate(before: gs.Graph, after: gs.Graph, shapes: Mapping[str, Shape], count: int) -> None:
    """Several samples together come to what each comes to by itself. Raises RefusedModel, naming the output that does
    not.
    """
    from fnatool.runtime.verify import run_inner

    seen, rng = view(before), np.random.default_rng(0)
    types = {name: np.dtype(tensor.dtype) for tensor in before.inputs for name in [tensor.name] if name in shapes}
    feeds = {
        name: (
            rng.standard_normal((count, *shape[1:]))
            if types[name].kind == "f"
            else rng.integers(0, 256, (count, *shape[1:]))
        ).astype(types[name])
        for name, shape in shapes.items()
    }
    names = list(seen.outputs)
    together = run_inner(after, feeds, names, "the network with that batch")
    for place in range(min(count, 2)):
        alone = run_inner(
            before, {name: values[place : place + 1] for name, values in feeds.items()}, names, "the model"
        )
        for name in names:
            one, other = alone[name], together[name][place : place + 1]
            spread = float(np.ptp(one.astype(np.float64))) or 1.0
            if one.shape != other.shape or float(np.abs(one.astype(np.float64) - other).max(initial=0)) > SAME * spread:
                raise RefusedModel(
                    f"several samples together change what the output '{name}' says of each, so the network has "
                    "no other batch; "
                    "deploy it with the batch of the file"
                )
