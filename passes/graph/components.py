"""What is connected, by numbers: a union-find done on whole arrays."""

from __future__ import annotations

import numpy as np


def connected(a: np.ndarray, b: np.ndarray, count: int) -> np.ndarray:
    """Of each of `count` things the number of its component, where a[i] and b[i] are in one; counted in the order of
    their first things.
    """
    root = np.arange(count)  # of each thing one of its component that is not after it; roots are their own
    a, b = np.asarray(a, np.int64), np.asarray(b, np.int64)
    while a.size:
        # each root has the lowest of those that it meets before it
        np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
        root = _followed(root)
        a, b = root[a], root[b]
        apart = a != b
        a, b = a[apart], b[apart]
    return np.unique(root, return_inverse=True)[1].reshape(-1)


def _followed(root: np.ndarray) -> np.ndarray:
    """The same with every thing's root where it had one on the way there; paths halve with each round."""
    while True:
        further = root[root]
        if np.array_equal(further, root):
            return root
        root = further
