"""The bundled garments: 12,000 images of Fashion-MNIST, ten classes; README.md beside this file states where they come
from.
"""

from __future__ import annotations

import lzma
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

FILE = Path(__file__).parent / "garments.npy.xz"
CLASSES = ("t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot")
PER_CLASS = {"train": 1000, "val": 200}  # from the data set's training images and from its test images
SIDE = 28  # pixels

BACKGROUND = 10  # grey values up to here are no garment: the originals have a halo of small values
SMALLEST_HOLE, SMALLEST_PART = 5, 0.15  # pixels; share of the largest part
CROSS = ndimage.generate_binary_structure(2, 1)  # pixels touch by their sides


@cache
def _pixels() -> Bytes:
    with lzma.open(FILE) as file:
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False), np.uint8)


def garments(split: str) -> Bytes:
    """The garments of a split, "train" or "val": grey values, uint8 [10 classes, 1000 or 200, 28, 28]; no garment is in
    both.
    """
    count, first = PER_CLASS[split], 0 if split == "train" else len(CLASSES) * PER_CLASS["train"]
    return _pixels()[first : first + len(CLASSES) * count].reshape(len(CLASSES), count, SIDE, SIDE)


def silhouette(garment: Bytes) -> Mask:
    """Where the garment is in its image, [28, 28]: dark prints belong to it, the gap in a handle and lost specks do
    not.
    """
    padded = np.zeros((SIDE + 2, SIDE + 2), np.uint8)  # so that what lies around it is one part
    padded[1:-1, 1:-1] = garment
    bright = padded > BACKGROUND
    lakes, count = ndimage.label(~bright, CROSS)
    if count > 1:
        depth = np.bincount(lakes.ravel(), padded.ravel())  # sums of grey values
        area = np.bincount(lakes.ravel())
        print_of = (depth > area) | (area < SMALLEST_HOLE)
        print_of[[0, lakes[0, 0]]] = False
        bright |= print_of[lakes]
    parts, count = ndimage.label(bright, CROSS)
    if count > 1:
        areas = np.bincount(parts.ravel())
        areas[0] = 0
        bright = (areas >= SMALLEST_PART * areas.max())[parts]
    return np.asarray(bright[1:-1, 1:-1], bool)
