"""A network with narrower numbers: in float16, or in 8 bits, with nodes that stay in single precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fnatool.deploy.network import Core
from fnatool.deploy.options import FP16, FP32, DeployOptions
from fnatool.deploy.outputs import noise
from fnatool.deploy.sensitivity import hurt, with_makers
from fnatool.files import model as files
from fnatool.model.targets import ONNXRUNTIME
from fnatool.runtime import half, quantising
from fnatool.runtime.quantising import Scheme
from passes.errors import RefusedModel, UserError
from passes.graph.operators import of
from passes.graph.view import view

if TYPE_CHECKING:
    from fnatool.deploy.calibrating import CalibrationSamples

MOST_KEPT = 0.5  # the share of the nodes that may stay


@dataclass(frozen=True)
class Narrowed:
    """How a network's numbers get narrower. make: the network in which the nodes of these names stay as they are;
    order: all nodes, those

    that are hurt most first. samples: what int8 is made of; said: how, for the document.
    """

    make: Callable[[tuple[str, ...]], files.Model]
    order: Callable[[], list[str]]
    samples: CalibrationSamples | None = None
    said: dict[str, object] = field(default_factory=dict)

    def choices(self) -> Iterator[tuple[str, ...]]:
        """Nodes to keep, one choice after the other: those that are hurt most, more and more."""
        order = self.order()
        for power in range(len(order).bit_length()):
            if 2**power <= len(order) * MOST_KEPT:
                yield tuple(order[: 2**power])


def narrowed(place: Path, made: Core, options: DeployOptions) -> list[Narrowed]:
    """The ways to make that of the options, of which the first that will do is taken; place: a folder for files in
    between.
    """
    if options.precision == FP32:
        return [Narrowed(lambda kept: made.model, list)]
    return [_halving(place, made)] if options.precision == FP16 else _quantising(place, made, options)


def _halving(place: Path, made: Core) -> Narrowed:
    def make(kept: tuple[str, ...]) -> files.Model:
        return _through_files(place, made, half.write_half, kept, "converter to float16")

    def order() -> list[str]:
        return hurt(made.model.graph, make(()).graph, lambda: iter([noise(made)]))

    return Narrowed(make, order)


def _quantising(place: Path, made: Core, options: DeployOptions) -> list[Narrowed]:
    """Raises UserError for samples that are none or too few."""
    from fnatool.deploy.calibrating import samples_for

    samples = samples_for(made, options)
    source = place / "whole.onnx"
    files.write(replace(made.model, path=place / "none", data=()), source)
    try:
        ranges = quantising.value_ranges(source, samples.used)
    finally:
        source.unlink()
    return [_in_8_bits(place, made, samples, ranges, scheme) for scheme in _schemes(options)]


def _schemes(options: DeployOptions) -> list[Scheme]:
    """Those to try."""
    if options.target != ONNXRUNTIME:
        return [Scheme(signed=True, paired=True, reduced=False)]
    widths = (
        [options.reduce_range]
        if options.reduce_range is not None
        else [False, True][: 1 + (not quantising.has_int8_instructions())]
    )
    return [Scheme(signed=False, paired=False, reduced=reduced) for reduced in widths]


def _in_8_bits(
    place: Path, made: Core, samples: CalibrationSamples, ranges: quantising.Ranges, scheme: Scheme
) -> Narrowed:
    def make(kept: tuple[str, ...]) -> files.Model:
        return _through_files(
            place,
            made,
            lambda one, other, names: quantising.write_quantised(one, other, ranges, scheme, names),
            kept,
            "quantiser",
        )

    def order() -> list[str]:
        return with_makers(view(made.model.graph), hurt(made.model.graph, make(()).graph, samples.back))

    said: dict[str, object] = {"scheme": scheme.said, "samples": samples.count, "of": samples.said}
    said["instructions"] = quantising.has_int8_instructions()
    return Narrowed(make, order, samples, said)


def require_single(model: files.Model) -> None:
    """The numbers of the model are float32, so that they can get narrower. Raises UserError."""
    seen = view(model.graph)
    node = next(
        (
            node
            for node in seen.nodes
            if of(node.op).form == "quantisation" or "Integer" in node.op or "QLinear" in node.op
        ),
        None,
    )
    if node is not None:
        raise UserError(
            f"this model is quantised already ('{node.name}' is {node.op}); deploy the model that it was made of"
        )
    wide = {np.dtype(constant.dtype) for constant in seen.constants.values()}
    if np.dtype(np.float16) in wide and np.dtype(np.float32) not in wide:
        raise UserError(
            "the weights of this model are float16, and int8 is made of float32; deploy the model that it was made of"
        )


def _through_files(
    place: Path, made: Core, write: Callable[[Path, Path, tuple[str, ...]], None], kept: tuple[str, ...], what: str
) -> files.Model:
    """The network as another file, its inputs and outputs as they were."""
    whole, narrow = place / "whole.onnx", place / "narrow.onnx"
    files.write(replace(made.model, path=place / "none", data=()), whole)
    try:
        write(whole, narrow, kept)
        found = files.read(narrow)
    except RefusedModel as error:
        if not str(error).startswith(f"'{narrow}'"):
            raise
        why = str(error).removeprefix(f"'{narrow}': ")
        raise RefusedModel(f"ONNX Runtime's {what} breaks this model ({why}); deploy it in {FP32}") from error
    finally:
        for path in (whole, narrow):
            path.unlink(missing_ok=True)
    return replace(made.model, graph=found.graph, data=())
