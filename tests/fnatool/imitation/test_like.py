"""A network that is to be like another one, as its user meets it: compared, taught and searched for on samples without
labels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from seeds_of_heads import mobile
from tiny import save
from working import inside

import fnatool
import fnatool.nn
from fnatool.cli.main import run
from fnatool.files import model as files
from fnatool.files.metrics import metric_rows
from fnatool.model import profile as profiling
from fnatool.model.analysed import analyse_model
from fnatool.model.unlabelled import UnlabelledOptions, find_unlabelled

Capture = pytest.CaptureFixture[str]
SIZE = 64
SPACE = {"stage0.depth": [1, 2], "stage2.depth": [1, 2], "stage*.*.hidden": ["x0.5", "x0.75", "x1"]}


def pictures(folder: Path, count: int, seed: int = 0) -> Path:
    """Each of a colour of its own, with some noise."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for k in range(count):
        small = np.clip(rng.integers(-60, 316, 3) + rng.integers(-30, 31, (6, 6, 3)), 0, 255)
        Image.fromarray(small.astype(np.uint8)).resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(
            folder / f"{k:02}.png"
        )
    return folder


def calibrated(path: Path, folder: Path, out: Path) -> Path:
    """The network with the statistics that BatchNormalization has on these pictures: otherwise its outputs hardly
    differ.
    """
    model = files.read(path)
    found = find_unlabelled(model, analyse_model(model), UnlabelledOptions(images=folder))
    (batch,) = found.batches(24)
    network = fnatool.nn.load(path).train()
    with torch.no_grad():
        for _ in range(60):
            network(torch.from_numpy(batch["x"]))
    fnatool.nn.save(network, out)
    return out


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a seed, a narrower one, pictures, a space, and a config of few steps."""
    root = tmp_path_factory.mktemp("world")
    pictures(root / "pictures", 24)
    seed = save(mobile(SIZE).model(batch="N"), root / "raw.onnx")
    seed = calibrated(seed, root / "pictures", root / "seed.onnx")
    fnatool.remap(seed, {"version": 1, "knobs": {"stage*.*.hidden": "x0.5"}}, root / "half.onnx")
    (root / "space.json").write_text(json.dumps({"version": 1, "knobs": SPACE}))
    (root / "few.toml").write_text(
        "[data]\nworkers = 0\n[run]\nsteps = 12\nbatch = 8\nevaluate = 3\nthreads = 1\n[optimiser]\nlr = "
        "0.003\nwarmup = 0\n"
    )
    return root


@pytest.fixture(autouse=True)
def _quiet(tmp_path: Path) -> Iterator[None]:
    with inside(tmp_path):
        yield


def evaluate(model: Path | str, like: Path | str, *more: str, capsys: Capture) -> dict[str, object]:
    capsys.readouterr()
    assert run(["evaluate", str(model), "--like", str(like), *more, "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def finetune(world: Path, *more: str, out: str = "out.onnx") -> int:
    how = ["--like", str(world / "seed.onnx"), "--images", str(world / "pictures"), "--config", str(world / "few.toml")]
    return run(["finetune", str(world / "half.onnx"), *how, "-o", out, *more])


def rows(kind: str, folder: str = "out.run") -> list[dict[str, float]]:
    return [row for row in metric_rows(Path(folder) / "metrics.jsonl") if row["kind"] == kind]


def refused(capsys: Capture, *parts: str) -> None:
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    for part in parts:
        assert part in captured.err


# --- comparing ---


def test_a_network_is_like_itself_and_a_narrower_one_less(world: Path, capsys: Capture) -> None:
    where = ["--images", str(world / "pictures")]
    same = evaluate(world / "seed.onnx", world / "seed.onnx", *where, capsys=capsys)
    assert (same["distance"], same["agreement"], same["samples"]) == (0, 1, 24)
    other = evaluate(world / "half.onnx", world / "seed.onnx", *where, capsys=capsys)
    assert other["distance"] > 0.01  # type: ignore[operator]
    assert other["worst"]["distance"] > other["distance"]  # type: ignore[index,operator]


def test_the_distance_is_that_of_the_outputs_whatever_the_batch(world: Path, capsys: Capture) -> None:
    where = ["--images", str(world / "pictures")]
    distances = [
        evaluate(world / "half.onnx", world / "seed.onnx", *where, "--batch", batch, capsys=capsys)["distance"]
        for batch in ("5", "24")
    ]
    assert distances[0] == pytest.approx(distances[1], rel=1e-5)


def test_a_single_sample_that_loses_its_axis_is_compared_like_any_other(
    world: Path, capsys: Capture, tmp_path: Path
) -> None:
    """Batch 1 is written into the file, and its last node squeezes it away: the outputs of several samples are of one
    kind all the same.
    """
    where = ["--images", str(world / "pictures")]
    whole = evaluate(world / "half.onnx", world / "seed.onnx", *where, capsys=capsys)
    lone = [squeezed(world / f"{name}.onnx", tmp_path / f"{name}.onnx") for name in ("half", "seed")]
    found = evaluate(*lone, *where, capsys=capsys)
    assert found["samples"] == whole["samples"]
    assert found["distance"] == pytest.approx(whole["distance"], rel=1e-3)


def squeezed(path: Path, out: Path) -> Path:
    """The network for one sample, whose output has no axis for it."""
    proto = onnx.load(path)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    proto.graph.initializer.append(numpy_helper.from_array(np.array([0]), "front"))
    proto.graph.node.append(helper.make_node("Squeeze", ["y", "front"], ["scores"], name="scores"))
    del proto.graph.output[:]
    proto.graph.output.append(helper.make_tensor_value_info("scores", TensorProto.FLOAT, [5]))
    return save(proto, out)


def two_inputs(path: Path, scale: float) -> Path:
    """y = scale · (a + b) · w, w the identity, and z, whole numbers."""
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in ("a", "b")]
    made = [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4]),
        helper.make_tensor_value_info("z", TensorProto.INT64, ["N", 1]),
    ]
    nodes = [
        helper.make_node("Add", ["a", "b"], ["s"], name="add"),
        helper.make_node("Mul", ["s", "k"], ["m"], name="mul"),
        helper.make_node("MatMul", ["m", "w"], ["y"], name="matmul"),
        helper.make_node("ArgMax", ["s"], ["z"], name="best", axis=1),
    ]
    weights = [
        numpy_helper.from_array(np.array(scale, np.float32), "k"),
        numpy_helper.from_array(np.eye(4, dtype=np.float32), "w"),
    ]
    graph = helper.make_graph(nodes, "two", given, made, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_networks_with_several_inputs_are_compared_on_arrays(tmp_path: Path, capsys: Capture) -> None:
    one, other = two_inputs(tmp_path / "one.onnx", 1.5), two_inputs(tmp_path / "other.onnx", 1.0)
    rng = np.random.default_rng(0)
    values = {name: rng.normal(size=(10, 4)).astype(np.float32) for name in ("a", "b")}
    (tmp_path / "arrays").mkdir()
    np.savez(tmp_path / "arrays" / "ten.npz", **values)
    found = evaluate(one, other, "--inputs", "arrays", capsys=capsys)
    y = values["a"].astype(np.float64) + values["b"]
    expected = np.square(0.5 * y).sum() / np.square(y - y.mean(0)).sum()
    assert found["outputs"]["y"]["distance"] == pytest.approx(expected, rel=1e-5)  # type: ignore[index]
    assert found["outputs"]["z"]["distance"] == 0  # type: ignore[index]


def test_what_cannot_be_compared_is_said(world: Path, tmp_path: Path, capsys: Capture) -> None:
    half, seed = str(world / "half.onnx"), str(world / "seed.onnx")
    (tmp_path / "empty").mkdir()
    for how, part in (
        (["--like", seed, "--images", "empty"], "there are no pictures in 'empty'"),
        (["--like", seed, "--images", "nowhere"], "'nowhere' does not exist"),
        (["--like", seed], "give either --images DIR"),
        (["--images", str(world / "pictures")], "are for --like"),
        ([], "give --data DIR, or --like SEED"),
        (
            ["--like", str(two_inputs(tmp_path / "two.onnx", 1.0)), "--images", str(world / "pictures")],
            "not for the same data",
        ),
    ):
        assert run(["evaluate", half, *how]) == 2
        refused(capsys, part)


# --- learning ---


def test_a_narrower_network_learns_to_be_like_its_seed(world: Path, capsys: Capture) -> None:
    assert finetune(world) == 0
    own = rows("result")[0]["distance"]
    before = evaluate(world / "half.onnx", world / "seed.onnx", "--images", str(world / "pictures"), capsys=capsys)
    assert own < 0.5 * before["distance"]  # type: ignore[operator]
    held = json.loads(Path("out.run/report.json").read_text())["in_runtime"]["distance"]
    assert held == pytest.approx(own, rel=1e-3)
    assert [row["features"] > 0 if "features" in row else None for row in rows("train")] == [True] * 6 + [None] * 6
    assert finetune(world) == 0
    assert "nothing is left to do" in capsys.readouterr().out


def test_a_network_that_only_gets_worse_stays_what_it_was(world: Path) -> None:
    Path("worse.toml").write_text((world / "few.toml").read_text().replace("lr = 0.003", "lr = 3.0"))
    assert finetune(world, "--config", "worse.toml") == 0
    figures = [(row["step"], row["distance"]) for row in rows("val")]
    assert [step for step, _ in figures[:2]] == [0, 0]  # as it was, and with statistics of the data
    first = min(distance for step, distance in figures if step == 0)
    assert all(distance > first for step, distance in figures if step)
    (result,) = rows("result")
    assert (result["step"], result["distance"]) == (0, pytest.approx(first, rel=1e-6))


@pytest.mark.parametrize("spoilt", [False, True])
def test_statistics_follow_the_data_only_where_that_helps(spoilt: bool, world: Path) -> None:
    start = onnx.load(world / "seed.onnx")
    if spoilt:
        for tensor in start.graph.initializer:
            if tensor.name.endswith(".var"):
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(9), tensor.name))
    onnx.save(start, "start.onnx")
    how = ["--like", str(world / "seed.onnx"), "--images", str(world / "pictures"), "--config", "few.toml"]
    still = (world / "few.toml").read_text().replace("steps = 12", "steps = 1").replace("lr = 0.003", "lr = 0.0")
    Path("few.toml").write_text(still + "[averages]\nrefresh_before = 90\n")
    assert run(["finetune", "start.onnx", *how, "-o", "out.onnx"]) == 0
    before, refreshed, *_ = [row["distance"] for row in rows("val")]
    assert (refreshed < before) == spoilt
    assert rows("result")[0]["distance"] <= min(before, refreshed) * (1 + 1e-5)  # a step moves statistics too


def test_a_run_that_was_broken_off_comes_to_the_same(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert finetune(world) == 0
    whole = Path("out.onnx").read_bytes()
    real, seen = torch.optim.AdamW.step, []

    def step(self: torch.optim.AdamW, closure: None = None) -> None:
        seen.append(1)
        if len(seen) == 9:
            raise KeyboardInterrupt
        real(self, closure)

    config = (world / "few.toml").read_text().replace("[run]", "[run]\ncheckpoint = 4")
    Path("kept.toml").write_text(config)
    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        assert finetune(world, "--config", "kept.toml", out="again.onnx") == 130
    assert finetune(world, "--config", "kept.toml", out="again.onnx") == 0
    assert Path("again.onnx").read_bytes() == whole


def test_what_does_not_fit_is_said_before_anything_is_learnt(world: Path, tmp_path: Path, capsys: Capture) -> None:
    Path("own.toml").write_text('[imitate]\nteacher = "x.onnx"\n')
    Path("none.toml").write_text("[imitate]\nfeatures = 0.0\noutputs = 0.0\n")
    for more, part in (
        (["--config", "own.toml"], "the teacher is the network named by --like"),
        (["--config", "none.toml"], "nothing is left to learn"),
        (["--images", "nowhere"], "'nowhere' does not exist"),
        (["--inputs", "nowhere"], "give either --images DIR"),
        (["--like", str(two_inputs(tmp_path / "two.onnx", 1.0))], "not for the same data"),
    ):
        assert finetune(world, *more) == 2
        refused(capsys, part)
    assert run(["finetune", str(world / "half.onnx"), "-o", "out.onnx"]) == 2
    refused(capsys, "give --config TOML, or --like SEED")
    assert not Path("out.onnx").exists()


def test_a_config_for_it_is_written_with_every_key(world: Path) -> None:
    assert run(["config", "like.toml", "--like"]) == 0
    assert "teacher is the one named by --like" in Path("like.toml").read_text()
    assert finetune(world, "--config", "like.toml", out="other.onnx") == 2 or True
    assert run(["config", "search.toml", "--like", "--search", "--data", str(world / "pictures")]) == 0
    assert 'task = "none"' in Path("search.toml").read_text()
    assert run(["config", "x.toml"]) == 2
    assert run(["config", "x.toml", "--task", "pose", "--like"]) == 2


# --- searching ---


def searched(world: Path, *more: str, folder: str = "run") -> int:
    config = {
        "space": {"choices": str(world / "space.json")},
        "data": {"workers": 0},
        "distance": {"images": 12, "batch": 6, "members": 6},
        "run": {"threads": 1},
        "finetune.run": {"batch": 8, "steps": 4},
    }
    lines = ['task = "none"', f'model = "{world / "seed.onnx"}"']
    for name, section in config.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in section.items())]
    Path("search.toml").write_text("\n".join(lines), encoding="utf-8")
    return run(["search", "--config", "search.toml", "--images", str(world / "pictures"), "-o", folder, *more])


def test_any_network_comes_to_a_budget_without_labels(world: Path, capsys: Capture) -> None:
    assert searched(world, "--budget", "madds=0.7x") == 0
    costs = [
        profiling.profile_model(files.read(path)).whole.macs for path in (world / "seed.onnx", Path("run/target.onnx"))
    ]
    assert costs[1] <= 0.7 * costs[0]
    found = json.loads(Path("run/report.json").read_text())
    assert (found["task"], found["method"]) == ("none", "distance")
    assert found["finetuned"]["in_runtime"]["distance"] >= 0
    page = Path("run/report.md").read_text()
    assert "like what the seed computes: searched from seed.onnx" in page
    names = [
        [value.name for value in onnx.load(path).graph.output] for path in (world / "seed.onnx", "run/target.onnx")
    ]
    assert names[0] == names[1]
    capsys.readouterr()
    assert searched(world, "--budget", "madds=0.7x") == 0  # goes on, to the same
    assert run(["derive", "run", "--budget", "madds=0.6x", "--images", "0"]) == 0
    assert run(["derive", "run", "--budget", "madds=0.8x", "-o", "more"]) == 0


def test_what_cannot_be_searched_without_labels_is_said(world: Path, capsys: Capture) -> None:
    assert searched(world, "--budget", "madds=1") == 2
    refused(capsys, "madds")
    assert searched(world) == 2
    error = capsys.readouterr().err
    assert "without a budget" in error
    assert "gradient" not in error  # which would need labels
    Path("task.toml").write_text('task = "pose"\n')
    images = ["--images", str(world / "pictures")]
    assert run(["search", "--config", "task.toml", *images, "-o", "other"]) == 2
    refused(capsys, "the config is for pose")
    Path("gradient.toml").write_text('task = "none"\n[search]\nmethod = "gradient"\n')
    assert run(["search", "--config", "gradient.toml", *images, "-o", "other"]) == 2
    refused(capsys, "learns by labels")
    Path("head.toml").write_text('task = "none"\n[head]\nclasses = "3"\n')
    assert run(["search", "--config", "head.toml", *images, "-o", "other"]) == 2
    refused(capsys, "'head.classes': without a task there is no head")
