"""The benchmark of any ONNX files, on small ones of our own: every step does something, and what is planted is
noticed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from benchmarks import real_networks
from benchmarks.real_networks import KILLED, NOTHING, OK, REFUSED, TRACEBACK, WRONG, Case, Outcome
from fnatool.model.remapped import Remapped
from fnatool.nn.site import on
from fnatool.nn.table import TORCH

# a stem, a bottleneck with a shortcut, and a classifier
RESIDUAL = """
net (float[1,3,32,32] x) => (float[1,4] y) {
    s = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]> (x, stem)
    r = Relu (s)
    h = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (r, first)
    a = Relu (h)
    b = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (a, second)
    m = Add (b, r)
    e = Relu (m)
    d = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]> (e, down)
    p = GlobalAveragePool (d)
    f = Flatten (p)
    y = Gemm <transB = 1> (f, last, bias)
}
"""
SHAPES = {
    "stem": (8, 3, 3, 3),
    "first": (12, 8, 3, 3),
    "second": (8, 12, 3, 3),
    "down": (16, 8, 3, 3),
    "last": (4, 16),
    "bias": (4,),
}


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    real_networks.warm_up()


@pytest.fixture
def network(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal(shape).astype(np.float32) / 8 for name, shape in SHAPES.items()}
    return tiny.save(tiny.model(RESIDUAL, weights), tmp_path / "net.onnx")


def test_every_step_of_a_small_network_is_ok(network: Path) -> None:
    row = real_networks.measure(network)
    assert {step: outcome.reason for step, outcome in row.items() if outcome.end != OK} == {}
    assert float(str(row["halved"].figures["left"])) < 0.35
    assert float(str(row["segmentation"].figures["kept"])) > 0.9
    found = real_networks.bars({"net": row})
    assert found["exact growth"] == "1 of 1"
    assert found["read right"] == "1 of 1"
    assert found["over half left when halved"] == {}


def test_what_cannot_be_looked_at_is_refused_with_its_reason(tmp_path: Path) -> None:
    relu = tiny.model("net (float[1,3,8,8] x) => (float[1,3,8,8] y) { y = Relu (x) }")
    row = real_networks.measure(tiny.save(relu, tmp_path / "relu.onnx"))
    assert row["look"].end == REFUSED
    assert set(row) == {"check", "inspect", "look"}
    assert any("no convolution" in reason for reason in real_networks.reasons({"relu": row})[REFUSED])


@pytest.mark.parametrize(
    ("planted", "end"), [(ZeroDivisionError("planted"), TRACEBACK), (real_networks.Wrong("planted"), WRONG)]
)
def test_what_a_step_raises_is_noticed(network: Path, tmp_path: Path, planted: Exception, end: str) -> None:
    def step(case: Case) -> dict[str, object]:
        raise planted

    outcome = real_networks.isolated(step, Case(network, tmp_path), 60)
    assert outcome.end == end
    assert "planted" in outcome.reason


def test_a_step_that_takes_too_long_is_killed(network: Path, tmp_path: Path) -> None:
    def step(case: Case) -> dict[str, object]:
        while True:
            pass

    assert real_networks.isolated(step, Case(network, tmp_path), 0.2).end == KILLED


def test_a_cost_that_is_not_that_of_the_file_is_noticed(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Remapped.cost
    monkeypatch.setattr(Remapped, "cost", lambda made: type(honest(made))(**{**vars(honest(made)), "params": 1}))
    outcome = real_networks.isolated(real_networks.halved, Case(network, tmp_path), 60)
    assert outcome.end == WRONG
    assert outcome.reason.startswith("the remap says 1 parameters")


def test_another_value_than_the_runtimes_is_noticed(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TORCH, "Relu", lambda site: on(site, lambda x: torch.relu(x) * 1.01, 0))
    outcome = real_networks.isolated(real_networks.read, Case(network, tmp_path), 60)
    assert outcome.end == WRONG
    assert "first in doubt 'r'" in outcome.reason


def test_equal_reasons_of_different_networks_meet() -> None:
    one, other = (
        {"halved": Outcome(REFUSED, f"node '{name}' has {size} channels")} for name, size in (("a", 3), ("b", 16))
    )
    assert real_networks.reasons({"x": one, "y": other}) == {
        REFUSED: {"halved: node '…' has N channels": ["x: node 'a' has 3 channels", "y"]}
    }


def test_a_network_without_a_stage_has_nothing_to_deepen(tmp_path: Path) -> None:
    outcome = real_networks.isolated(
        real_networks.deepened, Case(tiny.save(tiny.net(), tmp_path / "net.onnx"), tmp_path), 60
    )
    assert (outcome.end, outcome.reason) == (NOTHING, "no stage")
