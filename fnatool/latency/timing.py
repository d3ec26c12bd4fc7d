"""How long a network takes in ONNX Runtime on one provider: one session alive at a time, each in a process of its
own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from fnatool.latency.time_pieces import bursts, clock_name, clock_of, place_key, session_options
from fnatool.runtime import isolate
from fnatool.runtime.native import first_line
from fnatool.runtime.session import FAILURES, PROVIDERS, left_to_cpu, open_session
from passes.errors import RefusedModel
from passes.graph.cutting import Bare

SECONDS = 600  # that one network may take to load and to be timed: an engine of TensorRT is built first
ADDRESSES = {"cpu": 8 * isolate.GIB}  # a GPU's driver reserves far more addresses than it has memory
SEED = 0


@dataclass(frozen=True)
class TimingDevice:
    """Where a network is timed: the provider, and the threads of ONNX Runtime on the processor."""

    provider: str
    threads: int

    @property
    def clock(self) -> str:
        """What one run is timed by."""
        return clock_name(self.provider, self.threads)

    @property
    def now(self) -> Callable[[], int]:
        """Nanoseconds of that clock."""
        return clock_of(self.clock)

    @property
    def memory(self) -> str:
        """Where inputs and outputs lie, as ONNX Runtime calls it."""
        return "cpu" if self.provider == "cpu" else "cuda"

    @property
    def key(self) -> str:
        """The same where two timings may be compared: provider, threads, version of ONNX Runtime, machine."""
        return place_key(self.provider, self.threads)


@dataclass(frozen=True)
class RecordedDevice:
    """Where networks were timed, by another program: as that says it."""

    provider: str
    clock: str
    key: str


def nanoseconds(network: Bare, place: TimingDevice) -> int:
    """The time of one run, as the median of bursts, of each the fastest run, in a process of its own.

    Raises UserError where the provider is not there, RefusedModel where the network does not run or its process dies.
    """
    memory = ADDRESSES.get(place.provider, 1 << 46)
    try:
        return isolate.run(_bursts, network, place, seconds=SECONDS, memory=memory)
    except isolate.Died as error:
        raise RefusedModel(f"ONNX Runtime died on a part of the network: {error}; try another --provider") from error


def left_out(network: Bare, place: TimingDevice) -> str | None:
    """Which nodes the provider leaves to the CPU, in words. Raises as `nanoseconds` does."""
    if place.provider == "cpu":
        return None
    try:
        return isolate.run(_left, network, place, seconds=SECONDS, memory=ADDRESSES.get(place.provider, 1 << 46))
    except isolate.Died as error:
        raise RefusedModel(f"ONNX Runtime died on the network: {error}; try another --provider") from error


def _left(network: Bare, place: TimingDevice) -> str | None:
    return left_to_cpu(open_session(filled(network), place.provider, session_options(place.threads), "the network"))


def _bursts(network: Bare, place: TimingDevice) -> int:
    session = open_session(filled(network), place.provider, session_options(place.threads), "a part of the network")
    run = bound(session, place.memory)
    try:
        return bursts(run, place.now)
    except FAILURES as error:
        raise RefusedModel(f"ONNX Runtime cannot run a part of the network: {first_line(error)}") from error


def bound(
    session: ort.InferenceSession,
    device: str,
    sizes: Mapping[str, Sequence[int]] | None = None,
    what: str = "a part of the network",
) -> Callable[[], None]:
    """Runs the session on noise that lies on the device, where its outputs stay too; sizes: of inputs, by name, where
    they are not 1.

    Raises RefusedModel for inputs that there is no noise for.
    """
    binding = session.io_binding()
    rng = np.random.default_rng(SEED)
    for value in session.get_inputs():
        if value.type not in KINDS:
            raise RefusedModel(f"an input of {what} is a {value.type}, for which there is no noise to time it with")
        kind = np.dtype(KINDS[value.type])
        shape = (sizes or {}).get(value.name, [extent if isinstance(extent, int) else 1 for extent in value.shape])
        noise = (
            rng.standard_normal(shape) if kind.kind == "f" else rng.integers(0, 256 if kind == np.uint8 else 2, shape)
        )
        binding.bind_ortvalue_input(value.name, ort.OrtValue.ortvalue_from_numpy(noise.astype(kind), device, 0))
    for value in session.get_outputs():
        binding.bind_output(value.name, device)
    return lambda: session.run_with_iobinding(binding)


NUMBERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "bool")
KINDS = {f"tensor({name})": name for name in NUMBERS} | {"tensor(float)": "float32", "tensor(double)": "float64"}


def filled(network: Bare) -> bytes:
    """The model with random weights, He-scaled, that no run can overflow on; vectors lie between 0.5 and 1.5."""
    model = onnx.load_from_string(network.model)
    rng = np.random.default_rng(SEED)
    for weight in network.weights:
        if len(weight.shape) < 2:
            values = rng.uniform(0.5, 1.5, weight.shape)
        else:
            values = rng.standard_normal(weight.shape) * np.sqrt(2 / max(math.prod(weight.shape[1:]), 1))
        model.graph.initializer.append(numpy_helper.from_array(values.astype(weight.dtype), weight.name))
    return bytes(model.SerializeToString())


def call() -> Bare:
    """A network that does next to nothing: its time is that of the call."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "call", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return Bare(model.SerializeToString(deterministic=True), ())


def require_provider(place: TimingDevice) -> None:
    """Raises UserError where ONNX Runtime does not have the provider or falls back to another."""
    assert place.provider in PROVIDERS
    nanoseconds(call(), place)
