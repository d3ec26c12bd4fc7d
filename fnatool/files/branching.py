"""Branches of a model that static sizes decide, put where their If stands."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from fnatool.files.tensors import Array
from fnatool.runtime import isolate
from passes.check.finding import errors
from passes.check.message import check_proto
from passes.errors import RefusedModel, UserError
from passes.graph.branches import Constants, decide, has_branches
from passes.graph.shapes import SMALL
from passes.graph.tensors import Shape

Sizes = Mapping[tuple[str, int], int]  # (input, axis) → size


def without_decided_branches(
    proto: onnx.ModelProto, arrays: Mapping[str, Array], sizes: Mapping[str, Shape] | None = None
) -> tuple[onnx.ModelProto, list[str]]:
    """The model without the Ifs that are decided before it runs, and what was done, in words.

    sizes: of free inputs. Those that decide an If are the model's own in what is returned: at others it would take the
    other branch. A free batch stays free. What decides runs native shape inference on the untrusted file: in a child
    process only. A model whose names do not fit together is left as it is, for the check that follows to say so.
    """
    if not has_branches(proto.graph) or [found for found in errors(check_proto(proto)) if found.code != "unsorted"]:
        return proto, []
    constants: Constants = {
        name: (tuple(map(int, array.shape)), np.dtype(array.dtype), np.asarray(array) if array.size <= SMALL else None)
        for name, array in arrays.items()
        if isinstance(array, np.ndarray)
    }
    found, branches, sequences = _without(proto, constants)
    notes = [f"took {branches} branches that sizes or constants decide"] if branches else []
    free = _free(found, sizes or {})
    if free and has_branches(found.graph):
        _, more, joined = _without(_sized(found, free), constants)
        if more:
            needed = _needed(found, free, constants, more)
            found, sequences = _without(_sized(found, needed), constants)[0], sequences + joined
            given = ", ".join(f"{size} on axis {axis} of '{name}'" for (name, axis), size in needed.items())
            notes.append(f"took {more} branches that the sizes given decide; they are the model's own now: {given}")
    return found, notes + ([f"made {sequences} joined sequences a Concat"] if sequences else [])


def _without(proto: onnx.ModelProto, constants: Constants) -> tuple[onnx.ModelProto, int, int]:
    """The model without what is decided; how many branches, and how many sequences that are joined."""
    try:
        message, branches, sequences = isolate.run(_decided, proto, constants, seconds=60)
    except UserError:
        return proto, 0, 0  # an input without a shape: nothing is decided
    except isolate.Died as error:
        raise RefusedModel(f"shape inference died on this model: {error}; export it without If") from error
    if not branches and not sequences:
        return proto, 0, 0
    found = onnx.ModelProto()
    found.CopyFrom(proto)
    found.graph.ParseFromString(message)
    return found, branches, sequences


def _free(proto: onnx.ModelProto, sizes: Mapping[str, Shape]) -> Sizes:
    """The sizes that are given for free axes, but for batches."""
    found = {}
    for value in proto.graph.input:
        dimensions, shape = value.type.tensor_type.shape.dim, sizes.get(value.name, ())
        if len(shape) == len(dimensions):
            axes = [axis for axis, dimension in enumerate(dimensions) if axis and not dimension.HasField("dim_value")]
            found.update({(value.name, axis): shape[axis] for axis in axes})
    return found


def _needed(proto: onnx.ModelProto, free: Sizes, constants: Constants, branches: int) -> Sizes:
    """Of these sizes those without which fewer branches are decided."""
    needed = dict(free)
    for place in free:
        fewer = {other: size for other, size in needed.items() if other != place}
        if fewer and _without(_sized(proto, fewer), constants)[1] == branches:
            needed = fewer
    return needed


def _sized(proto: onnx.ModelProto, sizes: Sizes) -> onnx.ModelProto:
    """A copy whose inputs have these sizes."""
    found = onnx.ModelProto()
    found.CopyFrom(proto)
    for value in found.graph.input:
        for axis, dimension in enumerate(value.type.tensor_type.shape.dim):
            if (value.name, axis) in sizes:
                dimension.dim_value = sizes[value.name, axis]
    return found


def _decided(proto: onnx.ModelProto, constants: Constants) -> tuple[bytes, int, int]:
    found = decide(proto, constants)
    return found.graph.SerializeToString(), found.branches, found.sequences
