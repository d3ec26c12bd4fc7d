"""Statistics of inner tensors on data: what `unfold` gives a BatchNormalization to know."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from fnatool.data import folders
from fnatool.data.inputs import Unreadable
from fnatool.data.pictures import Preparation, prepared
from fnatool.data.pixels import Values
from passes.batchnorm.unfold import Moments
from passes.errors import UserError
from passes.graph.tensors import Shape
from passes.network.analysis import Analysis

BUDGET = 1 << 28  # bytes of inner values that are fetched at a time
LARGEST_BATCH = 32


@dataclass(frozen=True)
class NetworkInput:
    """The input of a network: its name, type and shape for one image; `batch` where that is fixed, else None."""

    name: str
    dtype: np.dtype[np.generic]
    shape: Shape  # without the batch
    batch: int | None


def input_of(analysis: Analysis) -> NetworkInput:
    """The network's one input. Raises UserError where there are several."""
    seen = analysis.view
    names = [name for name in seen.inputs if name not in seen.constants]
    if len(names) != 1:
        raise UserError(
            f"statistics are collected on networks with one input; this one has {', '.join(names) or 'none'}"
        )
    (name,) = names
    stated, dtype = seen.inputs[name]
    batch = stated[0] if stated else None
    shape = analysis.shapes.shapes[name]
    return NetworkInput(
        name,
        np.dtype(onnx.helper.tensor_dtype_to_np_dtype(dtype)),
        shape[1:],
        batch if isinstance(batch, int) else None,
    )


# --- inputs -------------------------------------------------------------------------------------


def noise_rows(input_: NetworkInput, count: int, seed: int) -> Iterator[Values]:
    """Standard normal inputs, one at a time; of integer types 0 to 255."""
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        values = rng.standard_normal(input_.shape) if input_.dtype.kind == "f" else rng.integers(0, 256, input_.shape)
        yield values.astype(input_.dtype)


def image_files(folder: Path, count: int, seed: int) -> list[Path]:
    """`count` of the images in a folder and the folders in it, drawn with the seed; all where there are no more. Raises
    UserError.
    """
    if importlib.util.find_spec("PIL") is None:
        raise UserError("reading images needs pillow, which is not installed; pip install pillow")
    require_folder(folder)
    found = [path for path in folders.below([folder])[0] if folders.is_image(path.name) and path.is_file()]
    if not found:
        raise UserError(f"there is no image in '{folder}' (looked for {folders.kinds()}, also in the folders in it)")
    drawn = np.random.default_rng(seed).permutation(len(found))[:count]
    return [found[index] for index in sorted(drawn)]


def require_folder(folder: Path) -> None:
    """It is one. Raises UserError."""
    if not folder.is_dir():
        raise UserError(f"'{folder}' is not a folder; --data takes a folder of images, or the word random")


def image_rows(input_: NetworkInput, paths: Sequence[Path], how: Preparation) -> Iterator[Values]:
    """The images as the network takes them. Raises UserError naming one that cannot be read."""
    for path in paths:
        try:
            yield prepared(path, input_.shape, input_.dtype, how)
        except Unreadable as error:
            raise UserError(f"'{path}' cannot be read as an image: {error}; remove or mend it") from error


# --- statistics ---------------------------------------------------------------------------------


def measure(
    graph: gs.Graph, tensors: Mapping[str, str], input_: NetworkInput, rows: Iterator[Values], sizes: Mapping[str, int]
) -> dict[str, Moments]:
    """Mean and variance per channel of each tensor (name → tensor; `sizes` its bytes for one image) over all rows, in
    one pass.

    Memory: the inner values of one batch, at most BUDGET bytes where a single image needs no more. Raises RefusedModel
    where ONNX Runtime cannot run the graph.
    """
    from fnatool.runtime.verify import Inner  # not above: who only prepares images needs no ONNX Runtime

    groups = _groups(tensors, sizes)
    most = max(sum(sizes[tensors[name]] for name in group) for group in groups)
    batch = input_.batch or max(1, min(LARGEST_BATCH, BUDGET // max(most, 1)))
    running = {name: _Running() for name in tensors}
    inner = Inner(graph, list(tensors.values()), "the model on this data")
    for feed, count in _batches(rows, batch):
        for group in groups:
            values = inner.run({input_.name: feed}, [tensors[name] for name in group])
            for name in group:
                running[name].add(values[tensors[name]][:count])
    return {name: found.moments() for name, found in running.items()}


def _groups(tensors: Mapping[str, str], sizes: Mapping[str, int]) -> list[list[str]]:
    """The names in parts whose values for one image fit into the budget, as far as one tensor does."""
    groups: list[list[str]] = [[]]
    filled = 0
    for name, tensor in tensors.items():
        if groups[-1] and filled + sizes[tensor] > BUDGET:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += sizes[tensor]
    return groups


def _batches(rows: Iterator[Values], size: int) -> Iterator[tuple[Values, int]]:
    """The rows in batches of exactly this size, each with how many of it count: the last is filled up with its first
    row.
    """
    held: list[Values] = []
    for row in rows:
        held.append(row)
        if len(held) == size:
            yield np.stack(held), size
            held = []
    if held:
        yield np.stack([*held, *held[:1] * (size - len(held))]), len(held)


class _Running:
    """Mean and sum of squared differences [C] of all values so far, in float64 (Chan, Golub, LeVeque 1983)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = np.zeros(0)
        self.squares = np.zeros(0)

    def add(self, values: Values) -> None:
        """values [N, C, …] join."""
        rows = np.moveaxis(values, 1, 0).reshape(values.shape[1], -1)
        count = rows.shape[1]
        mean = rows.mean(axis=1, dtype=np.float64)
        squares = np.array(
            [float(np.square(row.astype(np.float64) - middle).sum()) for row, middle in zip(rows, mean, strict=True)]
        )
        if self.count:
            total = self.count + count
            step = mean - self.mean
            squares = self.squares + squares + step**2 * (self.count * count / total)
            mean = self.mean + step * (count / total)
        self.count, self.mean, self.squares = self.count + count, mean, squares

    def moments(self) -> Moments:
        """Of everything that joined."""
        return Moments(self.mean, self.squares / self.count)
