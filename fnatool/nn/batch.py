"""Whether a network computes any number of samples, each by itself.

Sizes in a file may hold for the batch it was exported with only. Reading lets them follow the batch; here is the proof
that this is right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from fnatool.nn.program import FAILURES, compiled, run
from fnatool.nn.reading import Reading
from fnatool.nn.site import torch_type
from fnatool.nn.table import TORCH
from fnatool.runtime.native import first_line
from passes.errors import RefusedModel
from passes.graph.tensors import printed
from passes.graph.view import live

DOUBTFUL = 1e-4  # of the spread: what is moved by more in single precision is computed again in double
TOLERANCE = 1e-2  # where that cannot be: far beyond rounding
DOUBLE_TOLERANCE = 1e-7  # there: far beyond rounding, far below what means over other samples would do
OTHER = 3.0  # how many times as far from 0 the second sample is, so that no mean over both is that of one


def require_batch(reading: Reading, values: Mapping[str, Tensor], *, static: bool) -> None:
    """Two and three samples go through; where the file says a static batch, two samples give what each gives alone.

    The first is tried without computing. Raises RefusedModel, naming the node that stands in the way.
    """
    empty = {name: torch.empty_like(value, device="meta") for name, value in {**reading.constants, **values}.items()}
    for times in (1, 2, 3):
        shapes = _shapes(reading, empty, times)
        if times == 1:
            _require_inferred(reading, shapes)
        elif static:
            for name, shape in shapes.items():
                _require_scaled(reading, empty, name, shape, times=times)
    if static:
        _require_separate(reading, values)


FIX = "export the model with a free batch axis"

Empty = Mapping[str, Tensor]


def _shapes(reading: Reading, empty: Empty, times: int, taps: tuple[str, ...] = ()) -> dict[str, tuple[int, ...]]:
    """The shapes of the outputs and taps for a multiple of the probe's batch, without computing. Raises
    RefusedModel.
    """
    inputs = [
        torch.empty(_shape(reading, name, times), dtype=_type(reading, name), device="meta") for name in reading.inputs
    ]
    try:
        with ShapesAlone():
            results = reading(empty, inputs, taps=taps)
    except FAILURES as error:
        where = " ".join(getattr(error, "__notes__", ()))
        if times == 1:
            raise RefusedModel(f"torch cannot compute it for its own sizes: {first_line(error)}, {where}") from error
        samples = times * reading.facts.batch
        why = _stopped(reading, empty, where, times) or f"{first_line(error)}, {where}"
        raise RefusedModel(f"{samples} samples do not go through: {why}; {FIX}") from error
    return {name: tuple(result.shape) for name, result in zip((*reading.outputs, *taps), results, strict=True)}


class ShapesAlone(TorchFunctionMode):
    """Within it a normalization by running statistics takes no time: torch's own rule for meta tensors takes
    milliseconds.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if func is F.batch_norm and not given["training"] and _fits(*args, given["weight"], given["bias"]):
            return torch.empty_like(args[0])
        return func(*args, **given)


def _fits(x: Tensor, *channels: Tensor | None) -> bool:
    """Whether each of the vectors has a number for each channel."""
    return (
        x.is_meta and x.dim() > 1 and all(vector is not None and vector.shape == (x.shape[1],) for vector in channels)
    )


def _stopped(reading: Reading, empty: Empty, where: str, times: int) -> str:
    """What the node that does not take so many samples reads: what grows with the batch, and what does not. '' where
    that is unknown.
    """
    node = next((node for node in reading.view.nodes if f"'{node.name}'" in where), None)
    read = (
        []
        if node is None
        else [name for name in node.inputs if name in reading.facts.data or name in reading.shapes.shapes]
    )
    if node is None or not read:
        return ""
    more = {name: reading.shapes.shapes[name] for name in read if name in reading.shapes.shapes}
    more |= _before(reading, empty, [name for name in read if _is_made(reading, name)], times)
    more |= {name: _shape(reading, name, times) for name in read if name in reading.inputs}
    grown = [f"'{name}' ({printed(shape)})" for name, shape in more.items() if shape != reading.shapes.shapes.get(name)]
    fixed = [f"'{name}' ({printed(shape)})" for name, shape in more.items() if shape == reading.shapes.shapes.get(name)]
    if not grown:
        return ""
    beside = f" beside {' and '.join(fixed)}, which no batch makes larger" if fixed else ""
    return f"node '{node.name}' ({node.op}) does not take {' and '.join(grown)}{beside}"


def _is_made(reading: Reading, name: str) -> bool:
    facts = reading.facts
    return name in facts.data and name not in facts.known and name not in facts.numbers and name not in facts.inputs


def _before(reading: Reading, empty: Empty, names: Sequence[str], times: int) -> dict[str, tuple[int, ...]]:
    """The shapes of tensors that are made before a run fails."""
    constants = dict(reading.constants)
    program = compiled(reading.view, reading.facts, names, constants, rows=TORCH)
    values = [
        empty[name] if name in empty else torch.empty_like(constants[name], device="meta")
        for name in _all(reading, constants)
    ]
    inputs = [
        torch.empty(_shape(reading, name, times), dtype=_type(reading, name), device="meta") for name in reading.inputs
    ]
    made = run(program, values, inputs, norms="running", training=False)
    return {name: tuple(value.shape) for name, value in zip(names, made, strict=True)}


def _all(reading: Reading, constants: Mapping[str, Tensor]) -> list[str]:
    return [*(weight.name for weight in reading.weights), *constants]


def _require_inferred(reading: Reading, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """The outputs have the shapes that ONNX's rules give them."""
    for name, shape in shapes.items():
        stated = reading.shapes.shapes.get(name, shape)
        if shape != stated:
            raise RefusedModel(
                f"output '{name}' has shape {shape} in torch, but {stated} by ONNX's rules; please report it"
            )


def _shape(reading: Reading, name: str, times: int) -> tuple[int, ...]:
    shape = reading.shapes.shapes[name]
    return (shape[0] * times, *shape[1:]) if name in reading.facts.batched else shape


def _type(reading: Reading, name: str) -> torch.dtype:
    return torch_type(reading.facts.types[name]) or torch.float32


def _require_scaled(reading: Reading, empty: Empty, name: str, shape: tuple[int, ...], *, times: int) -> None:
    """An output with the batch in front has all samples there; what has no batch stays as it is."""
    probed = reading.shapes.shapes.get(name)
    if probed is None or name not in reading.facts.samples:  # sizes have no batch, though there may be as many of them
        return
    expected = (probed[0] * times, *probed[1:]) if probed and probed[0] == reading.facts.batch else probed
    if shape != expected:
        samples = times * reading.facts.batch
        why = _lost(reading, empty, name, times)
        raise RefusedModel(f"output '{name}' has shape {shape} for {samples} samples, not {expected}: {why}")


def _lost(reading: Reading, empty: Empty, name: str, times: int) -> str:
    """Which node ends the batch on the way to an output: the first that reads a tensor with all samples in front and
    makes none such.
    """
    seen, data = reading.shapes, reading.facts.data
    inner = [
        made for node in reading.view.nodes for made in node.outputs
        if made in data and made in seen.types and made not in reading.facts.known and made not in reading.facts.numbers
    ]  # fmt: skip
    taps = tuple(made for made in inner if made not in reading.outputs)
    once, more = _shapes(reading, empty, 1, taps), _shapes(reading, empty, times, taps)
    for given in reading.inputs:
        once[given], more[given] = _shape(reading, given, 1), _shape(reading, given, times)
    for node in live(reading.view.nodes, [name]):
        read = [name for name in node.inputs if name in once and _front(once[name], more[name], times)]
        made = [name for name in node.outputs if name in once]
        if not read or not made or any(_front(once[name], more[name], times) for name in made):
            continue
        where = [k for k, (a, b) in enumerate(zip(once[made[0]], more[made[0]], strict=False)) if a != b]
        if where:
            return f"node '{node.name}' ({node.op}) moves the batch to axis {where[0]}; {FIX}, in front of every output"
        if node.op.startswith(("Reduce", "Arg")):
            return f"node '{node.name}' ({node.op}) reduces over the samples, so none can be computed by itself"
        if node.op in SIZED:
            return f"node '{node.name}' ({node.op}) holds sizes for a batch of {reading.facts.batch}; {FIX}"
        return f"node '{node.name}' ({node.op}) takes {reading.facts.batch} of the samples, whatever the batch; {FIX}"
    if len(reading.facts.batched) > 1:
        return (
            f"the inputs {', '.join(map(repr, reading.facts.batched))} are taken to have the samples in front, "
            f"and it has not; {FIX}"
        )
    return f"its first axis is not the batch; {FIX}"


SIZED = ("Reshape", "Expand", "Resize", "ConstantOfShape", "Tile")


def _front(once: tuple[int, ...], more: tuple[int, ...], times: int) -> bool:
    """Whether the first axis grows with the batch."""
    return bool(once and more) and more[0] == once[0] * times


def _require_separate(reading: Reading, values: Mapping[str, Tensor]) -> None:
    """Each of two samples (of the batch of the file) gives what it gives alone; where rounding may be the cause, in
    double precision.
    """
    single = [name for name in reading.inputs if name not in reading.facts.batched]
    if any(not _type(reading, name).is_floating_point for name in single):
        return  # an input that holds sizes or positions, say: no value is known to fit it
    for low in (0, 1):
        rng = np.random.default_rng(0)
        inputs = [
            _unlike(_noise(rng, _shape(reading, name, 2), _type(reading, name), low), name, reading)
            for name in reading.inputs
        ]
        try:
            name, moved = _furthest(reading, values, inputs)
        except FAILURES:
            continue  # of numbers that do not fit: a division by zero, say
        limit = TOLERANCE
        if moved > DOUBTFUL:
            with suppress(*FAILURES):  # it computes in single precision only, and stays in doubt
                name, moved = _furthest(
                    reading,
                    {k: _double(v) for k, v in {**reading.constants, **values}.items()},
                    [_double(value) for value in inputs],
                )
                limit = DOUBLE_TOLERANCE
        if moved > limit:
            raise RefusedModel(
                f"output '{name}' of a sample depends on the others in its batch (by {moved:.1e} of its spread); {FIX}"
            )
        return


def _furthest(reading: Reading, values: Mapping[str, Tensor], inputs: Sequence[Tensor]) -> tuple[str, float]:
    """The output whose first samples differ most from what they are alone, and by how much."""
    probe, batched = reading.facts.batch, reading.facts.batched
    with torch.no_grad():
        together = reading(values, inputs)
        alone = reading(
            values, [x[:probe] if name in batched else x for name, x in zip(reading.inputs, inputs, strict=True)]
        )
    found = [
        (name, _apart(both, one))
        for name, both, one in zip(reading.outputs, together, alone, strict=True)
        if both.shape != one.shape and one.is_floating_point()
    ]
    return max(found, key=lambda item: item[1], default=("", 0.0))


def _apart(both: Tensor, one: Tensor) -> float:
    """max |difference| of one from the beginning of both, of the spread of both; infinite where only one is finite."""
    start, finite = both[: one.shape[0]], one.isfinite()
    if not torch.equal(finite, start.isfinite()):
        return float("inf")
    moved = (start[finite] - one[finite]).abs()
    if not moved.numel() or not moved.any():
        return 0.0
    known = both[both.isfinite()]
    return float(moved.max() / torch.maximum(known.max() - known.min(), SMALLEST * known.abs().max()))


SMALLEST = 1e-6  # spread of values, relative to themselves: what is alike to that is one value


def _double(value: Tensor) -> Tensor:
    return value.double() if value.is_floating_point() else value


def _unlike(values: Tensor, name: str, reading: Reading) -> Tensor:
    """The samples that come second are of another size, where they are floats."""
    if name in reading.facts.batched and values.is_floating_point():
        values[reading.facts.batch :] *= OTHER
    return values


def _noise(rng: np.random.Generator, shape: Sequence[int], dtype: torch.dtype, low: int) -> Tensor:
    if dtype.is_floating_point:
        return torch.from_numpy(rng.standard_normal(shape)).to(dtype)
    return torch.from_numpy(rng.integers(low, 2, shape)).to(dtype)
