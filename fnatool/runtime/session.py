"""ONNX Runtime: a session on the provider asked for and no other, and what it raises (a class of its own per kind of
failure).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as states

from fnatool.runtime import libraries, native
from passes.errors import RefusedModel, UserError

FAILURES: tuple[type[Exception], ...] = (
    *(kind for kind in vars(states).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    *(RuntimeError, ValueError, TypeError),  # from its Python side
)
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
InferenceSession = ort.InferenceSession
QUIET = 4
ASSIGNMENT = "session.record_ep_graph_assignment_info"
SHOWN = 8  # nodes
LEVELS = {
    "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
"""How much of a graph ONNX Runtime rewrites: nothing, what no kernel of its own needs, everything."""


def make_session(
    model: str | bytes, provider: str = "cpu", options: ort.SessionOptions | None = None, *, optimised: str = "all"
) -> ort.InferenceSession:
    """The one maker of sessions, of a model (a path or bytes) on this provider and no other; `optimised` is one of
    LEVELS.

    Raises one of FAILURES where ONNX Runtime cannot load it, UserError where the provider is not there: nothing falls
    back to another.
    """
    options = ort.SessionOptions() if options is None else options
    if provider != "cpu":
        libraries.preload()
        options.add_session_config_entry(ASSIGNMENT, "1")
    options.log_severity_level = QUIET
    options.graph_optimization_level = LEVELS[optimised]
    session = ort.InferenceSession(model, options, providers=[PROVIDERS[provider]])
    got = session.get_providers()[0]
    if got != PROVIDERS[provider]:
        raise UserError(f"ONNX Runtime has no {provider} here, it fell back to {got}: {libraries.why_absent(provider)}")
    return session


def left_to_cpu(session: ort.InferenceSession) -> str | None:
    """Which nodes of a session on another provider run on the CPU, in words; None where none does, or this version does
    not say.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):  # before 1.24
        return None
    parts = [
        (part.ep_name, f"{node.name or '?'} ({node.op_type})")
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
    ]
    left = [node for provider, node in parts if provider == PROVIDERS["cpu"]]
    if not left:
        return None
    more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
    return (
        f"{len(left)} of {len(parts)} nodes run on the CPU, where the provider has nothing for them: "
        f"{', '.join(left[:SHOWN])}{more}"
    )


def open_session(
    model: str | bytes, provider: str, options: ort.SessionOptions, what: str, *, optimised: str = "all"
) -> ort.InferenceSession:
    """The same, calling the model `what`. Raises RefusedModel where ONNX Runtime cannot load it, UserError without the
    provider.
    """
    try:
        return make_session(model, provider, options, optimised=optimised)
    except FAILURES as error:
        raise RefusedModel(f"ONNX Runtime cannot load {what}: {native.first_line(error)}") from error


class Runner:
    """A model file in ONNX Runtime; `batch`: how many samples it takes at once, None for any number; `types`: its
    inputs, by name.

    `left`: the nodes that another provider than cpu leaves to the CPU, in words, if there are any.
    """

    def __init__(self, path: Path, provider: str = "cpu", *, threads: int = 0, optimised: str = "all") -> None:
        """threads: that one run takes (0: all cores).

        Raises RefusedModel where it cannot be loaded, UserError where the provider is not there: nothing falls back to
        another.
        """
        self.path = path
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        with native.openable(path) as text:
            self.session = open_session(text, provider, options, f"'{path}'", optimised=optimised)
        self.left = None if provider == "cpu" else left_to_cpu(self.session)
        inputs = self.session.get_inputs()
        self.types: Mapping[str, str] = {value.name: value.type for value in inputs}
        self.outputs = [value.name for value in self.session.get_outputs()]
        extents = [value.shape[0] for value in inputs if len(value.shape) > 1]
        fixed = [extent for extent in extents if isinstance(extent, int) and extent > 0]
        self.batch: int | None = fixed[0] if fixed else None

    def dtype(self, name: str) -> np.dtype[Any]:
        """The numbers that an input takes. Raises RefusedModel for one of others, or of no numbers."""
        if self.types[name] not in TYPES:
            raise RefusedModel(
                f"the input '{name}' of '{self.path}' is a {self.types[name]}, not one of whole numbers or floats"
            )
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(TYPES[self.types[name]]))

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs by name. Raises RefusedModel where the model does not run."""
        try:
            return dict(zip(self.outputs, self.session.run(self.outputs, dict(feeds)), strict=True))
        except FAILURES as error:
            raise RefusedModel(f"ONNX Runtime cannot run '{self.path}': {native.first_line(error)}") from error

    def over(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs for all samples, so many at once as it takes, the last ones filled with copies of the last
        sample.

        An output that does not have its samples in front comes whole, and one run must do. Raises RefusedModel
        otherwise.
        """
        count = len(next(iter(feeds.values())))
        step = self.batch or count
        parts = [
            self(self.filled({name: value[k : k + step] for name, value in feeds.items()}))
            for k in range(0, count, step)
        ]
        return {name: self._joined(name, [part[name] for part in parts], step, count) for name in self.outputs}

    def filled(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """As many samples as it takes at once, the last one repeated."""
        return {name: _filled(value, self.batch or len(value)) for name, value in feeds.items()}

    def _joined(self, name: str, parts: Sequence[np.ndarray], step: int, count: int) -> np.ndarray:
        if parts[0].ndim and len(parts[0]) == step:
            return np.concatenate(parts)[:count] if len(parts) > 1 or step > count else parts[0]
        if len(parts) > 1:
            raise RefusedModel(
                f"output '{name}' of '{self.path}' is {list(parts[0].shape)} for {step} sample(s): it does not "
                "have them in front, so "
                "those of several cannot be put together"
            )
        return parts[0]


def _filled(values: np.ndarray, count: int) -> np.ndarray:
    """So many samples, the last one repeated."""
    return (
        values
        if len(values) == count
        else np.concatenate([values, np.repeat(values[-1:], count - len(values), axis=0)])
    )


TYPES = {
    "tensor(float)": onnx.TensorProto.FLOAT,
    "tensor(float16)": onnx.TensorProto.FLOAT16,
    "tensor(double)": onnx.TensorProto.DOUBLE,
    "tensor(uint8)": onnx.TensorProto.UINT8,
    "tensor(uint16)": onnx.TensorProto.UINT16,
    "tensor(uint32)": onnx.TensorProto.UINT32,
    "tensor(uint64)": onnx.TensorProto.UINT64,
    "tensor(int8)": onnx.TensorProto.INT8,
    "tensor(int16)": onnx.TensorProto.INT16,
    "tensor(int32)": onnx.TensorProto.INT32,
    "tensor(int64)": onnx.TensorProto.INT64,
}
