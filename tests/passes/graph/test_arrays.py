"""Which numbers there are, and numbers for things."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np

from passes.graph.arrays import distinct, marks


def test_the_different_values_come_sorted() -> None:
    assert distinct(np.array([[3, 1], [1, 2]])).tolist() == [1, 2, 3]
    assert distinct(np.zeros(0, np.int64)).tolist() == []
    assert distinct(np.float32([np.nan, 1, np.nan])).size == 2


def test_finding_them_does_not_import_masked_arrays() -> None:
    code = (
        "import sys, numpy; from passes.graph.arrays import distinct; distinct(numpy.arange(3)); "
        "sys.exit('numpy.ma' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_two_sets_of_a_few_marks_have_the_same_sum() -> None:
    few = marks(12)
    sums = {
        int(few[list(which)].sum(dtype=np.uint64)) for k in range(4) for which in itertools.combinations(range(12), k)
    }
    assert len(sums) == 1 + 12 + 66 + 220


def test_marks_are_the_same_however_many_are_made() -> None:
    assert marks(3).tolist() == marks(9)[:3].tolist()
    assert len(set(marks(1000).tolist())) == 1000
