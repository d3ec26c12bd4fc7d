"""Branches of a model that static sizes decide, put where their If stands."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from fnatool import isolate
from fnatool.tensors import Array
from passes.branches import Constants, decide, has_branches
from passes.check import check_proto, errors
from passes.errors import RefusedModel, UserError
from passes.shapes import SMALL


def without_decided_branches(proto: onnx.ModelProto, arrays: Mapping[str, Array]) -> tuple[onnx.ModelProto, list[str]]:
    """The model without the Ifs that are decided before it runs, and what was done, in words.

    What decides them runs native shape inference on the untrusted file: in a child process only. A model whose names do not fit together
    is left as it is, for the check that follows to say so.
    """
    if not has_branches(proto.graph) or [found for found in errors(check_proto(proto)) if found.code != "unsorted"]:
        return proto, []
    constants: Constants = {
        name: (tuple(map(int, array.shape)), np.dtype(array.dtype), np.asarray(array) if array.size <= SMALL else None)
        for name, array in arrays.items()
        if isinstance(array, np.ndarray)
    }
    try:
        message, branches, sequences = isolate.run(_decided, proto, constants, seconds=60)
    except UserError:
        return proto, []  # an input without a shape: nothing is decided
    except isolate.Died as error:
        raise RefusedModel(f"shape inference died on this model: {error}; export it without If") from error
    if not branches and not sequences:
        return proto, []
    found = onnx.ModelProto()
    found.CopyFrom(proto)
    found.graph.ParseFromString(message)
    notes = [f"took {branches} branches that sizes or constants decide"] if branches else []
    return found, notes + ([f"made {sequences} joined sequences a Concat"] if sequences else [])


def _decided(proto: onnx.ModelProto, constants: Constants) -> tuple[bytes, int, int]:
    found = decide(proto, constants)
    return found.graph.SerializeToString(), found.branches, found.sequences
