"""Fine-tuning and evaluation as their user meets them: four tasks, one command, the file that comes out, and what goes
wrong.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from seeds_of_heads import mobile
from tiny import save
from working import inside

import fnatool
from fnatool.cli.main import run
from fnatool.files import model as files
from fnatool.files import runfolder
from fnatool.files.metrics import metric_rows
from fnatool.model.analysed import metadata
from fnatool.model.headed import HeadOptions
from fnatool.tasks import scenes as writing
from fnatool.tasks import table
from fnatool.tasks.table import TASKS, description_of
from fnatool.training import objective, room

Capture = pytest.CaptureFixture[str]
SIZE = 64
HEADS = {
    "classification": HeadOptions(task="classification", classes="10"),
    "segmentation": HeadOptions(task="segmentation", classes="11", width=8),
    "detection": HeadOptions(task="detection", classes="10", width=8, levels=3),
    "pose": HeadOptions(task="pose", joints="5", width=8),
}
METRIC = {"classification": "top1", "segmentation": "mIoU", "detection": "mAP", "pose": "OKS_AP"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with scenes and a model for each task."""
    root = tmp_path_factory.mktemp("world")
    seed = save(mobile(SIZE).model(batch="N"), root / "seed.onnx")
    for task, head in HEADS.items():
        writing.write_scenes(root / task, writing.SceneOptions(task, SIZE, 24, 8, 0))
        fnatool.head(seed, root / f"{task}.onnx", options=head)
    return root


@pytest.fixture(autouse=True)
def _quiet(tmp_path: Path) -> Iterator[None]:
    with inside(tmp_path):
        yield


def config(world: Path, task: str, **sections: Mapping[str, object]) -> Path:
    """A config of few steps in the working directory."""
    usual: dict[str, dict[str, object]] = {
        "data": {"path": str(world / task), "workers": 0},
        "run": {"batch": 8, "steps": 4, "checkpoint": 2, "threads": 1},
        "optimiser": {"warmup": 2},
    }
    lines = [f'task = "{task}"']
    for name in {**usual, **sections}:
        lines += [
            f"[{name}]",
            *(
                f"{key} = {json.dumps(value)}"
                for key, value in {**usual.get(name, {}), **sections.get(name, {})}.items()
            ),
        ]
    path = Path("task.toml")
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def finetune(world: Path, task: str, *more: str, model: str | None = None) -> int:
    return run(["finetune", model or str(world / f"{task}.onnx"), "--config", "task.toml", "-o", "out.onnx", *more])


def weights(path: str | Path) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def rows(kind: str, folder: str = "out.run") -> list[dict[str, float]]:
    return [row for row in metric_rows(Path(folder) / "metrics.jsonl") if row["kind"] == kind]


# --- four tasks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("task", HEADS)
def test_a_task_is_learnt_written_and_evaluated(task: str, world: Path, capsys: Capture) -> None:
    config(world, task, run={"steps": 12, "checkpoint": 5}, optimiser={"lr": 0.02})
    assert finetune(world, task) == 0
    said = capsys.readouterr().out
    report = json.loads(Path("out.run/report.json").read_text())
    metric = METRIC[task]
    assert f"{metric} {report['figures'][metric]:.4f}" in said
    assert report["figures"] == pytest.approx(report["in_runtime"], abs=5e-3)
    losses = [row["loss"] for row in rows("train")]
    assert len(losses) == 12
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    onnx.checker.check_model("out.onnx", full_check=True)
    before, after = onnx.load(world / f"{task}.onnx"), onnx.load("out.onnx")
    assert [node.SerializeToString() for node in before.graph.node] == [
        node.SerializeToString() for node in after.graph.node
    ]
    assert run(["check", "out.onnx"]) == 0
    capsys.readouterr()
    assert run(["evaluate", "out.onnx", "--data", str(world / task), "--json", "--workers", "0"]) == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert {name: value for name, value in found.items() if value is not None} == pytest.approx(report["in_runtime"])
    described = description_of(metadata(files.read("out.onnx").envelope))
    each = TASKS[task].of_labels({}, described.labels)
    assert each.keys() <= found.keys()
    assert "val:" in told.err


def test_a_batch_beyond_the_memory_that_is_free_is_refused_before_it_is_taken(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    config(world, "classification", run={"steps": 1})
    monkeypatch.setattr(room, "free_memory", lambda: 1 << 20)
    assert finetune(world, "classification") == 2
    said = capsys.readouterr().err
    assert re.search(r"learning from 8 images at a time takes 0.0 GiB .* 0.0 GiB are free; lower 'run.batch'", said)
    assert not Path("out.run/checkpoint.pt").exists()
    monkeypatch.setattr(room, "free_memory", lambda: 0)  # a system that does not say
    assert finetune(world, "classification") == 0


def test_the_names_of_the_data_become_the_models(world: Path) -> None:
    config(world, "classification", run={"steps": 1})
    assert finetune(world, "classification") == 0
    described = table.description_of(metadata(files.read("out.onnx").envelope))
    assert described.classes[:3] == ("ankle-boot", "bag", "coat")


def test_a_model_of_one_image_at_a_time_is_trained_and_evaluated_all_the_same(world: Path) -> None:
    seed = save(mobile(SIZE).model(batch=1), Path("seed.onnx"))
    fnatool.head(seed, Path("one.onnx"), options=HEADS["segmentation"])
    config(world, "segmentation", run={"steps": 2})
    assert finetune(world, "segmentation", model="one.onnx") == 0
    assert json.loads(Path("out.run/report.json").read_text())["in_runtime"]["mIoU"] > 0


def test_everything_that_can_be_asked_for_works_together(world: Path) -> None:
    teacher = {"outputs": 0.5, "features": 1.0, "until": 0.5, "teacher": str(world / "segmentation.onnx")}
    averages = {"ema": 0.9, "refresh_before": 2, "refresh_after": 2}
    config(
        world,
        "segmentation",
        imitate=teacher,
        averages=averages,
        run={"steps": 6, "keep": "best"},
        optimiser={"name": "adamw", "lr": 1e-3},
    )
    assert finetune(world, "segmentation") == 0
    assert all("outputs" in row for row in rows("train"))
    assert ["features" in row for row in rows("train")] == [True] * 3 + [False] * 3
    best = max(rows("val"), key=lambda row: row["mIoU"])
    assert rows("result")[0]["step"] == best["step"]


def test_a_network_learns_the_features_of_a_seed_whose_head_is_another(world: Path) -> None:
    config(
        world,
        "classification",
        imitate={"features": 1.0, "until": 1.0, "teacher": str(world / "seed.onnx")},
        run={"steps": 8},
    )
    assert finetune(world, "classification") == 0
    features = [row["features"] for row in rows("train")]
    assert features[0] == pytest.approx(0, abs=1e-6)  # as far as the head, it is the seed
    assert 0 < features[-1] < 1


def test_frozen_statistics_stay_and_others_move(world: Path) -> None:
    moved = {}
    for frozen in ("yes", "no"):
        config(world, "classification", averages={"freeze_batchnorm": frozen}, run={"steps": 1})
        assert finetune(world, "classification", "--force", "--restart") == 0
        before, after = weights(world / "classification.onnx"), weights("out.onnx")
        moved[frozen] = {
            name for name in before if name.endswith((".mean", ".var")) and (before[name] != after[name]).any()
        }
    assert not moved["yes"]
    assert len(moved["no"]) > 20


# --- interrupted, and on several processes ------------------------------------------------------


def test_a_run_that_is_killed_goes_on_to_the_same_bits(world: Path) -> None:
    averages = {"ema": 0.99, "refresh_before": 1}
    config(
        world, "detection", run={"steps": 9, "checkpoint": 2, "evaluate": 2}, averages=averages, optimiser={"lr": 0.01}
    )
    assert finetune(world, "detection", "--work-dir", "whole") == 0
    Path("out.onnx").rename("whole.onnx")
    command = [
        sys.executable,
        "-m",
        "fnatool",
        "finetune",
        str(world / "detection.onnx"),
        "--config",
        "task.toml",
        "-o",
        "out.onnx",
    ]
    for step in (3, 6):  # killed twice, between checkpoints
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 120
        while len(rows("train")) < step and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    assert not Path("out.onnx").exists()
    assert finetune(world, "detection") == 0
    assert Path("out.onnx").read_bytes() == Path("whole.onnx").read_bytes()
    assert rows("train") == rows("train", "whole")
    assert rows("val") == rows("val", "whole")


def test_two_processes_learn_what_one_does(world: Path) -> None:
    frozen = {"freeze_batchnorm": "yes"}
    config(world, "segmentation", averages=frozen, run={"steps": 3, "batch": 8})
    assert finetune(world, "segmentation", "--work-dir", "one") == 0
    command = [
        "-m",
        "fnatool",
        "finetune",
        str(world / "segmentation.onnx"),
        "--config",
        "task.toml",
        "-o",
        "two.onnx",
        "--work-dir",
        "two",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, *command, "--work-dir", "two"], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = (rows("val", name)[0] for name in ("one", "two"))
    assert two["mIoU"] == pytest.approx(one["mIoU"], abs=1e-3)
    first, second = weights("out.onnx"), weights("two.onnx")
    for name, value in first.items():
        if value.dtype == np.float32:
            assert np.abs(value - second[name]).max() <= 1e-4 * max(float(np.ptp(value)), 1e-3), name


# --- what goes wrong ----------------------------------------------------------------------------


def refused(capsys: Capture, *parts: str) -> None:
    captured = capsys.readouterr()
    assert captured.err.startswith("fnatool: ")
    assert "Traceback" not in captured.err
    for part in parts:
        assert part in captured.err
    assert not Path("out.onnx").exists()


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(world: Path, capsys: Capture) -> None:
    config(
        world,
        "classification",
        run={"steps": 40, "checkpoint": 1},
        optimiser={"lr": 100.0, "clip": 0.0, "warmup": 0, "momentum": 0.99},
    )
    assert finetune(world, "classification") == 2
    refused(capsys, "step ", "went wrong", "is not finite", "lower 'optimiser.lr'", "still holds the last good step")
    state = torch.load("out.run/checkpoint.pt", weights_only=True)["state"]
    assert state["step"] in (len(rows("train")) - 1, len(rows("train")))
    assert all(bool(torch.isfinite(value).all()) for value in state["network"].values())


def test_a_run_goes_on_only_as_what_it_was(world: Path, capsys: Capture) -> None:
    config(world, "classification")
    assert finetune(world, "classification") == 0
    config(world, "classification", optimiser={"lr": 0.5})
    Path("out.onnx").unlink()
    assert finetune(world, "classification") == 2
    refused(capsys, "out.run/checkpoint.pt", "another model, config or data", "--restart")
    assert finetune(world, "classification", "--restart") == 0


def test_a_run_does_not_go_on_with_other_data(world: Path, capsys: Capture) -> None:
    writing.write_scenes(Path("scenes"), writing.SceneOptions("classification", SIZE, 24, 8, 0))
    config(world, "classification", data={"path": "scenes"}, run={"steps": 2})
    assert finetune(world, "classification") == 0
    first, second, *_ = sorted(Path("scenes/train").iterdir())
    first.rename("scenes/aside")
    second.rename(first)
    Path("scenes/aside").rename(second)
    Path("out.onnx").unlink()
    assert finetune(world, "classification") == 2
    refused(capsys, "out.run/checkpoint.pt", "another model, config or data", "--restart")
    assert not Path("out.onnx").exists()


def test_no_figure_is_made_of_a_network_with_broken_weights(world: Path, capsys: Capture) -> None:
    model = onnx.load(world / "classification.onnx")
    for tensor in model.graph.initializer:
        if tensor.name.startswith("head.") and tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(np.full_like(numpy_helper.to_array(tensor), np.nan), tensor.name))
    onnx.save(model, "broken.onnx")
    assert (
        run(["evaluate", "broken.onnx", "--data", str(world / "classification"), "--split", "train", "--workers", "0"])
        == 1
    )
    told = capsys.readouterr()
    assert "output 'logits' is not finite" in told.err
    assert "top1" not in told.out + told.err


def test_a_damaged_checkpoint_is_said_so(world: Path, capsys: Capture) -> None:
    config(world, "classification", run={"steps": 2})
    assert finetune(world, "classification") == 0
    Path("out.onnx").unlink()
    path = Path("out.run/checkpoint.pt")
    document = torch.load(path, weights_only=True)
    name = next(iter(document["state"]["network"]))
    document["state"]["network"][name].view(-1)[0] = math.nan
    torch.save(document, path)
    before = {path: path.read_bytes() for path in Path("out.run").rglob("*") if path.is_file()}
    assert finetune(world, "classification") == 2
    refused(capsys, f"'out.run/checkpoint.pt' is damaged; --restart begins anew ('{name}' is not finite)")
    path.write_bytes(b"broken")
    assert finetune(world, "classification") == 2
    refused(capsys, "is not a checkpoint of fnatool, or is damaged")
    assert all(
        path.read_bytes() == data
        for path, data in before.items()
        if path.suffix != ".pt" and path.name != runfolder.MARK
    )


def test_the_end_of_a_run_is_made_up_for_and_said_once(world: Path, capsys: Capture) -> None:
    config(world, "classification", run={"steps": 2})
    assert finetune(world, "classification") == 0
    whole = {name: Path(name).read_bytes() for name in ("out.onnx", "out.run/report.json", "out.run/metrics.jsonl")}
    capsys.readouterr()
    assert finetune(world, "classification") == 0  # it is what the run came to
    assert "nothing is left to do" in capsys.readouterr().out
    Path("out.onnx").unlink()
    Path("out.run/report.json").unlink()
    assert finetune(world, "classification") == 0
    assert {name: Path(name).read_bytes() for name in whole} == whole
    Path("out.onnx").write_bytes(b"mine")
    assert finetune(world, "classification") == 2
    assert "'out.onnx' exists" in capsys.readouterr().err
    assert Path("out.onnx").read_bytes() == b"mine"


def test_a_run_that_ends_while_its_result_is_evaluated_has_the_result_and_goes_on_to_its_figures(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config(world, "classification", run={"steps": 2})

    def killed(*given: object, **more: object) -> dict[str, float]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(objective, "evaluate_together", killed)
        assert finetune(world, "classification") == 130
    written = Path("out.onnx").read_bytes()
    assert json.loads(Path("out.run/report.json").read_text())["in_runtime"] is None
    assert finetune(world, "classification") == 0  # without --force: the file is its own
    assert Path("out.onnx").read_bytes() == written
    assert "top1" in json.loads(Path("out.run/report.json").read_text())["in_runtime"]


def test_an_earlier_run_is_lost_no_sooner_than_all_has_been_checked(world: Path, capsys: Capture) -> None:
    config(world, "classification", run={"steps": 2})
    assert finetune(world, "classification") == 0
    Path("out.run/notes.txt").write_text("mine")
    Path("out.run/.hidden").write_text("mine")
    before = {
        path: path.read_bytes() for path in Path("out.run").rglob("*") if path.is_file() and path.name != runfolder.MARK
    }
    for sections in ({"run": {"batch": 500}}, {"imitate": {"outputs": 1.0}}, {"data": {"path": "nowhere"}}):
        config(world, "classification", **sections)
        assert finetune(world, "classification", "--restart", "--force") == 2
        assert "Traceback" not in capsys.readouterr().err
        assert {path: path.read_bytes() for path in before} == before
    config(world, "classification", run={"steps": 1})
    assert finetune(world, "classification", "--restart", "--force") == 0
    assert [row["step"] for row in rows("train")] == [1]
    assert Path("out.run/notes.txt").read_text() == Path("out.run/.hidden").read_text() == "mine"
    assert len(list(Path("out.run/events").iterdir())) == 1


def test_a_folder_of_something_else_is_left_alone(world: Path, capsys: Capture) -> None:
    config(world, "classification")
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("years of work")
    assert finetune(world, "classification", "--work-dir", "mine", "--restart") == 2
    refused(capsys, "'mine' holds 'thesis.tex'")
    assert Path("mine/thesis.tex").exists()


@pytest.mark.parametrize(
    ("task", "model", "sections", "parts"),
    [
        ("pose", "classification", {}, ["the config is for pose, the model for classification"]),
        ("segmentation", "segmentation", {"data": {"path": "nowhere"}}, ["nowhere", "does not exist"]),
        ("segmentation", "segmentation", {"data": {"path": "."}}, ["is in no layout of segmentation data"]),
        (
            "classification",
            "classification",
            {"data": {"size": [96, 96]}},
            ["96×96", "fixed at [64, 64]", "input.size"],
        ),
        ("classification", "classification", {"run": {"batch": 500}}, ["24 samples do not fill a batch of 500"]),
        ("classification", "classification", {"run": {"batch": 8, "stepps": 3}}, ["'run.stepps' is no key"]),
        ("classification", "classification", {"imitate": {"outputs": 1.0}}, ["there is no 'imitate.teacher'"]),
        ("classification", "classification", {"imitate": {"features": 1.0, "teacher": "none.onnx"}}, ["none.onnx"]),
        ("classification", "seed", {}, ["does not say what it is for", "fnatool head"]),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_trained(
    task: str, model: str, sections: dict[str, dict[str, object]], parts: list[str], world: Path, capsys: Capture
) -> None:
    config(world, task, **sections)
    assert finetune(world, task, model=str(world / f"{model}.onnx")) == 2
    refused(capsys, *parts)
    assert not Path("out.run/metrics.jsonl").exists()


def test_data_of_other_classes_is_refused(world: Path, capsys: Capture) -> None:
    seed = world / "seed.onnx"
    fnatool.head(seed, Path("seven.onnx"), options=HeadOptions(task="classification", classes="7"))
    config(world, "classification")
    assert finetune(world, "classification", model="seven.onnx") == 2
    refused(capsys, "has 10 classes, the model 7")


def test_broken_data_is_listed_and_may_be_skipped(world: Path, capsys: Capture) -> None:
    writing.write_scenes(Path("scenes"), writing.SceneOptions("classification", SIZE, 24, 8, 0))
    broken = sorted(Path("scenes/train").rglob("*.jpg"))[0]
    broken.write_bytes(broken.read_bytes()[:100])
    config(world, "classification", data={"path": "scenes"})
    ordered = broken.with_name("0\n::error::now.jpg")
    broken.rename(ordered)
    assert finetune(world, "classification") == 2
    lines = capsys.readouterr().err.splitlines()
    # a list of one
    assert [line[:40] for line in lines[::2]] == [lines[0][:40], "mend the data, or go on without what is "]
    assert "0\\n\\x3a:error::now.jpg: it cannot be decoded" in lines[1]
    assert finetune(world, "classification", "--skip-bad") == 0
    assert "23 of 24 samples (1 left out)" in capsys.readouterr().out


def test_evaluate_refuses_what_it_cannot_measure(world: Path, capsys: Capture) -> None:
    data = str(world / "classification")
    for arguments, part in (
        ([str(world / "pose.onnx"), "--data", data], "is in no layout of pose data"),
        ([str(world / "seed.onnx"), "--data", data], "does not say what it is for"),
        ([str(world / "classification.onnx"), "--data", "nowhere"], "does not exist"),
        ([str(world / "classification.onnx"), "--data", data, "--split", "test"], "has no test data"),
    ):
        assert run(["evaluate", *arguments]) == 2
        refused(capsys, part)
