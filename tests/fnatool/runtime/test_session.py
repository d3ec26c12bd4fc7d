"""A model file in ONNX Runtime: samples in steps of its batch, and outputs that are of no sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny import model, save

from fnatool.runtime.session import Runner
from passes.errors import RefusedModel

SAMPLES = np.arange(15, dtype=np.float32).reshape(5, 3)


def runner(text: str, folder: Path) -> Runner:
    return Runner(save(model(text), folder / "m.onnx"))


def test_samples_go_through_so_many_at_once_as_the_file_takes(tmp_path: Path) -> None:
    for batch in (1, 2, 4, "N"):
        found = runner(f"g (float[{batch},3] x) => (float[{batch},3] y) {{ y = Neg (x) }}", tmp_path)
        assert found.batch == (None if batch == "N" else batch)
        np.testing.assert_array_equal(found.over({"x": SAMPLES})["y"], -SAMPLES)


def test_an_output_of_no_sample_comes_whole_from_one_run(tmp_path: Path) -> None:
    found = runner("g (float[1,3] x) => (float[3] y) { y = Squeeze (x) }", tmp_path)
    np.testing.assert_array_equal(found.over({"x": SAMPLES[:1]})["y"], SAMPLES[0])


def test_outputs_of_no_sample_are_not_put_together(tmp_path: Path) -> None:
    found = runner("g (float[1,3] x) => (float[3] y) { y = Squeeze (x) }", tmp_path)
    with pytest.raises(
        RefusedModel, match=r"output 'y' of '.*' is \[3\] for 1 sample\(s\): it does not have them in front"
    ):
        found.over({"x": SAMPLES})


def test_an_input_that_holds_no_numbers_is_refused(tmp_path: Path) -> None:
    found = runner("g (bool[1,3] x) => (bool[1,3] y) { y = Not (x) }", tmp_path)
    with pytest.raises(
        RefusedModel, match=r"the input 'x' of '.*' is a tensor\(bool\), not one of whole numbers or floats"
    ):
        found.dtype("x")
