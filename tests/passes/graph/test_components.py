"""Components of what is connected, against scipy's."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from passes.graph.components import connected


@pytest.mark.parametrize("pairs", [0, 1, 30, 100, 300])
@pytest.mark.parametrize("seed", range(10))
def test_components_are_numbered_in_the_order_of_their_first_things(pairs: int, seed: int) -> None:
    a, b = np.random.default_rng(seed).integers(0, 100, (2, pairs))
    _, labels = connected_components(coo_array((np.ones(pairs), (a, b)), shape=(100, 100)), directed=False)
    assert connected(a, b, 100).tolist() == labels.tolist()


def test_a_long_path_in_any_order_is_one_component() -> None:
    path = np.random.default_rng(0).permutation(20_000)
    assert not connected(path[1:], path[:-1], path.size).any()


def test_of_nothing_there_are_no_components() -> None:
    assert connected(np.zeros(0, np.int64), np.zeros(0, np.int64), 0).size == 0


def test_no_pass_waits_for_scipy_which_takes_as_long_to_import_as_all_else() -> None:
    subprocess.run([sys.executable, "-c", "import sys, passes; assert 'scipy' not in sys.modules"], check=True)
