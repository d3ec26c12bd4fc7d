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
from fnatool.deploy.sensitivity import hurt
from fnatool.files import model as files
from fnatool.model.targets import ONNXRUNTIME
from fnatool.runtime import half, quantising
from fnatool.runtime.quantising import Scheme
from passes.errors import RefusedModel, UserError
from passes.graph.operators import of
from passes.graph.view import view

if TYPE_CHECKING:
    from fnatool.deploy.calibrating import Samples

MOST_KEPT = 0.5  # the share of the nodes that may stay


@dataclass(frozen=True)
class Narrowed:
    """How a network's numbers get narrower. make: the network in which the nodes of these names stay as they are; order: all nodes, those

    that are hurt most first. samples: what int8 is made of; said: how, for the document.
    """

    make: Callable[[tuple[str, ...]], files.Model]
    order: Callable[[], list[str]]
    samples: Samples | None = None
    said: dict[str, object] = field(default_factory=dict)

    def choices(self) -> Iterator[tuple[str, ...]]:
        """Nodes to keep, one choice after the other: none, then those that are hurt most, more and more."""
        yield ()
        order = self.order()
        for power in range(len(order).bit_length()):
            if 2**power <= len(order) * MOST_KEPT:
                yield tuple(order[: 2**power])


def narrowed(place: Path, made: Core, options: DeployOptions) -> Narrowed:
    """How that of the options is made; place: a folder for files in between."""
    if options.precision == FP32:
        return Narrowed(lambda kept: made.model, list)
    return _halving(place, made) if options.precision == FP16 else _quantising(place, made, options)


def _halving(place: Path, made: Core) -> Narrowed:
    def make(kept: tuple[str, ...]) -> files.Model:
        return _through_files(place, made, half.write_half, kept, "converter to float16")

    def order() -> list[str]:
        return hurt(made.model.graph, make(()).graph, lambda: iter([noise(made)]))

    return Narrowed(make, order)


def _quantising(place: Path, made: Core, options: DeployOptions) -> Narrowed:
    """Raises UserError for samples that are none or too few, and for a model that is in 8 bits or float16 already."""
    from fnatool.deploy.calibrating import samples_for

    _require_single(made)
    samples = samples_for(made, options)
    engines = options.target != ONNXRUNTIME
    scheme = Scheme(signed=engines, paired=engines, reduced=options.reduce_range)
    source = place / "whole.onnx"
    files.write(replace(made.model, path=place / "none", data=()), source)
    try:
        ranges = quantising.value_ranges(source, samples.used)
    finally:
        source.unlink()

    def make(kept: tuple[str, ...]) -> files.Model:
        return _through_files(
            place, made, lambda one, other, names: quantising.write_quantised(one, other, ranges, scheme, names), kept, "quantiser"
        )

    def order() -> list[str]:
        return hurt(made.model.graph, make(()).graph, samples.back)

    said: dict[str, object] = {"scheme": scheme.said, "samples": samples.count, "of": samples.said, "seed": options.seed}
    said["instructions"] = quantising.has_int8_instructions()
    return Narrowed(make, order, samples, said)


def _require_single(made: Core) -> None:
    seen = view(made.model.graph)
    node = next((node for node in seen.nodes if of(node.op).form == "quantisation" or "Integer" in node.op or "QLinear" in node.op), None)
    if node is not None:
        raise UserError(f"this model is quantised already ('{node.name}' is {node.op}); --precision fp32 deploys it as it is")
    wide = {np.dtype(constant.dtype) for constant in seen.constants.values()}
    if np.dtype(np.float16) in wide and np.dtype(np.float32) not in wide:
        raise UserError("the weights of this model are float16, and int8 is made of float32; deploy the model that it was made of")


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
