"""Arrays of numbers: which there are, and numbers for things."""

from __future__ import annotations

import numpy as np


def distinct(array: np.ndarray) -> np.ndarray:
    """The different values, sorted: np.unique, which without a count would import numpy's masked arrays, as long as
    onnx takes to read.
    """
    return np.unique(array, return_counts=True)[0]


def marks(count: int) -> np.ndarray:
    """So many numbers of 64 bits, always the same, whose sums tell which of them were added (splitmix64 of 1, 2, 3
    …).
    """
    mixed = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # modulo 2^64, as all of it
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))
