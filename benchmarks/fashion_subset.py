"""Make fnatool/data/fashion/garments.npy.xz from the Fashion-MNIST of Debian's package `dataset-fashion-mnist`.

    apt-get download dataset-fashion-mnist && dpkg -x dataset-fashion-mnist_*.deb unpacked
    python -m benchmarks.fashion_subset unpacked/usr/share/datasets/fashion-mnist

The first 1000 training images and the first 200 test images of every class, in the order of the classes: one array
uint8 [12000, 28, 28].
"""

from __future__ import annotations

import gzip
import io
import lzma
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fnatool.data.fashion import CLASSES, FILE, PER_CLASS


def idx(path: Path) -> npt.NDArray[np.uint8]:
    """The array in a file of the IDX format: two zero bytes, 8 for uint8, the number of axes, their extents as
    big-endian uint32.
    """
    content = gzip.decompress(path.read_bytes())
    axes = content[3]
    extents = np.frombuffer(content, ">u4", axes, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(extents)


def subset(folder: Path) -> npt.NDArray[np.uint8]:
    """Balanced over the classes, training images before test images."""
    parts = []
    for name, count in (("train", PER_CLASS["train"]), ("t10k", PER_CLASS["val"])):
        images, labels = idx(folder / f"{name}-images-idx3-ubyte.gz"), idx(folder / f"{name}-labels-idx1-ubyte.gz")
        parts += [images[labels == label][:count] for label in range(len(CLASSES))]
    return np.concatenate(parts)


def main() -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, subset(Path(sys.argv[1])), allow_pickle=False)
    FILE.write_bytes(lzma.compress(buffer.getvalue(), preset=9))
    print(f"{FILE}: {FILE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
