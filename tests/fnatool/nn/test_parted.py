"""A network run part by part is the whole network, and a weight that changes changes what is behind it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from nets import Net

from fnatool.nn import parted as walking
from fnatool.nn.parted import PartedNetwork

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)
BATCHES = [{"x": RNG.standard_normal((size, 3, 8, 8)).astype(np.float32)} for size in (3, 3, 2)]


def blocks() -> Net:
    """A stem and two residual blocks with sizes read from tensors between them."""
    net = Net()
    y = net.conv_bn_relu("x", "stem", 6, 3)
    for k in range(2):
        y = net.op("Add", f"s{k}", y, net.conv_bn(net.conv_bn_relu(y, f"e{k}", 10, 3), f"l{k}", 6))
        y = net.op("Reshape", f"r{k}", y, net.op("Shape", f"z{k}", "stem"))
    net.classifier(y)
    return net


def started(folder: Path) -> PartedNetwork:
    found = PartedNetwork(blocks().graph(batch="N"), None, folder, CPU)
    for batch in BATCHES:
        found.add(batch, len(batch["x"]))
    return found


def whole(walk: PartedNetwork, name: str) -> list[torch.Tensor]:
    part = walk.whole([name])
    return [part(walk.weights, walk.given(batch))[name] for batch in BATCHES]


def assert_same(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_parts_make_what_the_whole_does(tmp_path: Path) -> None:
    walk = started(tmp_path)
    for name, before, later in (
        ("e0", "e0", ["l0.n", "s1", "y"]),
        ("l0.n", "l0", ["s1", "y"]),
        ("s1", "e1", ["y"]),
        ("y", "pool", []),
    ):
        assert_same([found[name] for found in walk.run([name], before, later)], whole(walk, name))


def test_only_what_the_rest_needs_lies_in_files(tmp_path: Path) -> None:
    walk = started(tmp_path)
    list(walk.run(["e0"], "e0", ["y"]))
    assert set(walk.state) == {"stem", "stem.n.r"}  # of stem the size is read
    assert len(list(tmp_path.iterdir())) == 2 * len(BATCHES)


def test_a_changed_weight_changes_what_is_behind_it(tmp_path: Path) -> None:
    walk = started(tmp_path)
    before = whole(walk, "y")
    list(walk.run(["e1"], "e1", ["y"]))
    walk.set("e1.w", 2 * walk.weight("e1.w"))
    after = [found["y"] for found in walk.run(["y"], "pool", [])]
    assert_same(after, whole(walk, "y"))
    assert not any(torch.allclose(a, b) for a, b in zip(before, after, strict=True))


def test_where_files_would_be_too_large_parts_begin_further_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walking, "LARGEST", 1)
    walk = started(tmp_path)
    assert_same([found["e1"] for found in walk.run(["e1"], "e1", ["y"])], whole(walk, "e1"))
    assert walk.state == ("x",)
    assert_same([found["y"] for found in walk.run(["y"], "pool", [])], whole(walk, "y"))


def test_the_graph_has_the_weights_as_they_are_now(tmp_path: Path) -> None:
    graph = blocks().graph(batch="N")
    walk = PartedNetwork(graph, None, tmp_path, CPU)
    walk.set("e1.w", 2 * walk.weight("e1.w"))
    again = PartedNetwork(walk.changed(graph), None, tmp_path / "again", CPU)
    np.testing.assert_array_equal(again.weight("e1.w"), walk.weight("e1.w"))
    np.testing.assert_array_equal(again.weight("e0.w"), walk.weight("e0.w"))


def test_a_network_that_mixes_its_samples_runs_them_one_by_one(tmp_path: Path) -> None:
    assert started(tmp_path).free
    net = Net()
    net.op("Reshape", "y", net.conv("x", "c", 4), net.constant("shape", [-1, 2, 8, 8], np.int64))
    mixed = net.op("ReduceMean", "m", "y", axes=[0])
    assert not PartedNetwork(net.graph(mixed, batch=1), None, tmp_path / "mixed", CPU).free
