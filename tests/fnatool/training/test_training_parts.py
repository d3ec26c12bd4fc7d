"""The parts of training by themselves: config, schedule, optimiser, checkpoints, journal, diagnosis."""

from __future__ import annotations

import json
import math
import pickle
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from objectives import job
from seeds_of_heads import mobile
from tiny import save
from torch import nn

import fnatool.nn
from fnatool.cli.main import run
from fnatool.data.split import Labelled, Split
from fnatool.files.metrics import metric_rows
from fnatool.tasks import NAMES
from fnatool.tasks.classification import Classification
from fnatool.tasks.description import is_placeholder
from fnatool.tasks.pose import Pose
from fnatool.training import checkpoint, diagnosis, journal
from fnatool.training.config import Optimiser, parse_config, read_config, template
from fnatool.training.learner import Average
from fnatool.training.loop import finetune
from fnatool.training.optimising import optimiser_for, set_rate
from fnatool.training.processes import World
from fnatool.training.schedule import factor
from fnatool.training.watching import silent
from passes.errors import UserError

# --- config ---


@pytest.mark.parametrize("task", NAMES)
def test_the_template_is_the_config_of_all_defaults(task: str, tmp_path: Path) -> None:
    path = tmp_path / "task.toml"
    path.write_text(template(task, "scenes"), encoding="utf-8")
    read = read_config(path)
    assert read.task == task
    assert read.data.path == str(tmp_path / "scenes")
    assert read.model_copy(update={"data": parse_config({"task": task}).data}) == parse_config({"task": task})


def test_a_task_has_defaults_of_its_own_and_the_user_has_the_last_word() -> None:
    assert parse_config({"task": "pose"}).optimiser.name == "adamw"
    assert parse_config({"task": "pose", "optimiser": {"name": "sgd"}}).optimiser.name == "sgd"
    assert parse_config({"task": "segmentation"}).run.batch == 16


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[optimiser]\nlearning_rate = 1", "'optimiser.learning_rate' is no key of a config"),
        ("[optimizer]\nlr = 1", "'optimizer' is no key of a config"),
        ("[optimiser]\nwarm_up = 1", "did you mean 'optimiser.warmup'?"),
        ("task = 'dance'", "'task' is 'dance'"),
        ("[run]\nepochs = 0", "'run.epochs' is 0"),
        ("[run]\nepochs = '3'", "'run.epochs' is '3'"),
        ("[optimiser]\nlr = -1.0\nclip = nan", "'optimiser.clip'"),
        ("[data]\nsize = [96]", "'data.size"),
        ("[data]\npath = 1979-05-27", "no dates"),
        ("[run", "is not TOML"),
    ],
)
def test_a_wrong_config_says_which_key_and_why(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "task.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"task\.toml") as raised:
        read_config(path)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(UserError, match=r"run\.epochs.*run\.lr|run\.lr.*run\.epochs"):
        parse_config({"run": {"epochs": -1, "lr": 3}})


def test_a_config_that_is_not_there_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'fnatool config none\.toml --task classification' writes one"):
        read_config(tmp_path / "none.toml")


def test_the_command_writes_a_config_and_never_over_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    command = ["config", "configs/a.toml", "--task", "detection", "--data", "data/mine"]
    assert run(command) == 0
    assert Path(read_config(Path("configs/a.toml")).data.path).resolve() == (tmp_path / "data/mine").resolve()
    assert run(command) == 2
    assert run([*command, "--force"]) == 0


# --- schedule and optimiser ---


def test_the_rate_warms_up_and_goes_down() -> None:
    how = Optimiser(schedule="cosine", warmup=4, final_lr=0.1)
    rates = [factor(step, 24, how) for step in range(24)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[14] == pytest.approx(0.1 + 0.9 * 0.5)
    assert rates[3:] == sorted(rates[3:], reverse=True)
    poly = Optimiser(schedule="poly", warmup=0, power=0.9)
    assert factor(50, 100, poly) == pytest.approx(0.5**0.9)
    constant = Optimiser(schedule="constant", warmup=0)
    assert {factor(step, 10, constant) for step in range(10)} == {1.0}


def test_fresh_parameters_have_their_own_rate_and_biases_do_not_decay() -> None:
    parameters = [
        ("head.w", nn.Parameter(torch.ones(2, 2))),
        ("stem.w", nn.Parameter(torch.ones(2, 2))),
        ("stem.b", nn.Parameter(torch.ones(2))),
    ]
    optimiser = optimiser_for(parameters, Optimiser(lr=0.1, fresh_lr=10.0, weight_decay=0.5, momentum=0.0))
    set_rate(optimiser, 0.01)
    for _, parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    moved = [float((1 - parameter).detach().mean()) for _, parameter in parameters]
    assert moved == pytest.approx([0.1 * 1.5, 0.01 * 1.5, 0.01])


def test_an_average_follows_and_forgets(tmp_path: Path) -> None:
    network = fnatool.nn.load(save(mobile().model(batch="N"), tmp_path / "m.onnx"))
    average = Average(network, 0.5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    before = {name: value.clone() for name, value in average.network.state_dict().items()}
    average.update(network, 1000)
    for name, value in average.network.named_parameters():
        assert torch.allclose(value, before[name] + 0.5, atol=1e-5)


# --- checkpoints ---


class Opener:
    def __reduce__(self) -> object:
        return (Path.touch, (Path("owned"),))


def test_a_checkpoint_comes_back_and_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "c.pt"
    checkpoint.write({"weights": {"w": torch.arange(3.0)}, "step": 7}, path, key="k")
    state = checkpoint.read(path, key="k")
    assert state["step"] == 7
    assert state["weights"]["w"].tolist() == [0, 1, 2]
    with pytest.raises(UserError, match="another model, config or data"):
        checkpoint.read(path, key="other")
    for content in (b"", b"nonsense", path.read_bytes()[:200], pickle.dumps(Opener())):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"is not a checkpoint|version"):
            checkpoint.read(path, key="k")
    assert not Path("owned").exists()


def test_a_checkpoint_of_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.pt"
    monkeypatch.setattr(checkpoint, "VERSION", 2)
    checkpoint.write({}, path, key="k")
    monkeypatch.undo()
    with pytest.raises(UserError, match="version 2, this fnatool reads version 1"):
        checkpoint.read(path, key="k")


def test_a_checkpoint_is_due_after_so_many_steps_or_after_a_minute() -> None:
    now = time.monotonic()
    assert [checkpoint.is_due(3, step, now) for step in (2, 3, 4, 6)] == [False, True, False, True]
    assert not checkpoint.is_due(None, 50, now)
    assert checkpoint.is_due(None, 1, now - checkpoint.SECONDS)


def test_the_clock_says_when_a_run_writes_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    plain = checkpoint.write

    def written(state: dict[str, Any], path: Path, **how: Any) -> None:
        plain(state, path, **how)
        steps.append(state["step"])
        shutil.copy(path, tmp_path / f"{state['step']}.pt")

    monkeypatch.setattr(checkpoint, "write", written)
    here = World(0, 1, torch.device("cpu"))
    whole = finetune(job(tmp_path / "whole", run={"steps": 3}), here, silent()).network.state_dict()
    assert steps == [3]
    steps.clear()
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    finetune(job(tmp_path / "often", run={"steps": 3}), here, silent())
    assert steps == [1, 2, 3]
    for step in (1, 2):  # from wherever a run goes on, it comes to the same bits
        todo = job(tmp_path / f"from{step}", run={"steps": 3})
        (tmp_path / f"{step}.pt").rename(todo.folder / "checkpoint.pt")
        again = finetune(todo, here, silent()).network.state_dict()
        assert all(torch.equal(value, whole[name]) for name, value in again.items())


def test_a_journal_goes_on_where_the_checkpoint_is(tmp_path: Path) -> None:
    first = journal.Journal(tmp_path, 0)
    for step in range(1, 6):
        first.write(step, "train", {"loss": float(step)})
    first.close()
    with first.path.open("a") as file:
        file.write('{"step": 6, "ki')  # as a kill leaves it
    second = journal.Journal(tmp_path, 3)
    second.write(4, "train", {"loss": 40.0})
    second.close()
    assert [(row["step"], row["loss"]) for row in metric_rows(first.path)] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]
    assert list((tmp_path / "events").iterdir())


# --- diagnosis ---


def test_what_is_not_finite_is_named(tmp_path: Path) -> None:
    network = fnatool.nn.load(save(mobile().model(batch="N"), tmp_path / "m.onnx"))
    x = torch.rand(1, 3, 64, 64)
    assert "the loss is not finite, all values are" in diagnosis.not_finite(network, [x])
    infinite = x.clone()
    infinite[0, 0, 0, 0] = math.inf
    first = network.origin.reading.view.nodes[0]
    assert (
        diagnosis.not_finite(network, [infinite])
        == f"the value '{first.outputs[0]}' of node '{first.name}' is not finite"
    )
    name, parameter = next(iter(network.named_parameters()))
    parameter.grad = torch.full_like(parameter, math.nan)
    assert diagnosis.not_finite(network, [x]) == f"the gradient of '{name}' is not finite, all values are"
    parameter.data.view(-1)[0] = math.nan
    assert diagnosis.not_finite(network, [x]) == f"the parameter '{name}' is not finite"


def test_running_out_of_memory_is_told_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**58)
    assert diagnosis.is_out_of_memory(raised.value)
    with pytest.raises(RuntimeError) as raised:
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert not diagnosis.is_out_of_memory(raised.value)


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        (
            "NCCL error in: ProcessGroupNCCL.cpp:77, unhandled cuda error\nLast error:\nFailed to CUDA calloc "
            "async 608 bytes"
        ),
        "Cuda failure 2 'out of memory'",
    ],
)
def test_memory_that_is_out_on_a_device_is_known_by_its_words(words: str) -> None:
    assert diagnosis.is_out_of_memory(RuntimeError(words))
    assert not diagnosis.is_out_of_memory(ValueError(words))


def test_other_failures_of_a_device_are_no_want_of_memory() -> None:
    for words in (
        "CUDA error: device-side assert triggered",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        "NCCL error: invalid usage",
    ):
        assert not diagnosis.is_out_of_memory(RuntimeError(words))


# --- names ---


def test_placeholders_give_way_to_the_names_of_the_data(tmp_path: Path) -> None:
    split = Split(
        task="classification",
        name="train",
        root=tmp_path,
        layout="ImageFolder",
        classes=("cat", "dog"),
        items=(Labelled("a", 0),),
    )
    assert Classification(classes=("class0", "class1")).adopting(split.classes, split.joints).classes == ("cat", "dog")
    assert Classification(classes=("owl", "dog")).adopting(split.classes, split.joints).classes == ("owl", "dog")
    assert Classification(classes=("class0",)).adopting(split.classes, split.joints).classes == ("class0",)
    assert is_placeholder(("object",))
    posed = Split(
        task="pose",
        name="train",
        root=tmp_path,
        layout="COCO",
        classes=("bird",),
        items=(),
        joints=("left_wing", "right_wing"),
    )
    found = Pose(classes=("object",), joints=("joint0", "joint1"), sigmas=(0.05, 0.05)).adopting(
        posed.classes, posed.joints
    )
    assert isinstance(found, Pose)
    assert (found.classes, found.joints, found.flip_pairs) == (("bird",), ("left_wing", "right_wing"), ((0, 1),))


def test_a_config_is_json_of_itself() -> None:
    config = parse_config({"task": "pose"})
    assert parse_config(json.loads(config.model_dump_json())) == config
