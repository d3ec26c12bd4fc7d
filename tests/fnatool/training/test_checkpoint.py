"""What a checkpoint holds is looked at before it is used: names, shapes, types, and that numbers are finite."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import supers
import torch
from tiny import net, save

from fnatool.files import model as files
from fnatool.search.config import parse_search
from fnatool.search.searcher import Searcher
from fnatool.training import checkpoint, diagnosis
from fnatool.training.config import parse_config
from fnatool.training.learner import Learner
from fnatool.training.processes import World
from passes.errors import UserError

HERE = World(0, 1, torch.device("cpu"))
State = dict[str, Any]


@pytest.fixture
def learner(tmp_path: Path) -> Learner:
    """One that has learnt a little, with every kind of memory."""
    made = new(tmp_path)
    for parameter in made.network.parameters():
        parameter.grad = torch.ones_like(parameter)
    made.optimiser.step()
    made.step = 3
    return made


def new(folder: Path, name: str = "adamw") -> Learner:
    config = parse_config({"task": "classification", "optimiser": {"name": name}, "averages": {"ema": 0.9}})
    return Learner(files.read(save(net(), folder / "net.onnx")), config, HERE)


def refused(path: Path, other: Learner, *parts: str) -> None:
    before = {name: value.clone() for name, value in other.network.state_dict().items()}
    with pytest.raises(UserError) as caught:
        other.restore(checkpoint.read(path, key="key"), checkpoint.Held(path, 10))
    for part in (str(path), "--restart begins anew", *parts):
        assert part in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in other.network.state_dict().items())


def test_what_was_written_is_what_is_read(learner: Learner, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint.write(learner.state(), path, key="key")
    other = new(tmp_path)
    other.restore(checkpoint.read(path, key="key"), checkpoint.Held(path, 10))
    assert other.step == 3
    one, two = learner.state(), other.state()
    for name in ("network", "average"):
        assert all(torch.equal(value, two[name][key]) for key, value in one[name].items())
    for index, row in one["optimiser"]["state"].items():
        assert all(torch.equal(value, two["optimiser"]["state"][index][key]) for key, value in row.items())


def test_a_count_of_steps_stays_on_the_processor_whatever_the_device(learner: Learner, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint.write(learner.state(), path, key="key")
    elsewhere = torch.device("meta")  # any device but the CPU
    parameters = [torch.nn.Parameter(value.to(elsewhere)) for value in learner.network.parameters()]
    optimiser = torch.optim.AdamW([{"params": parameters}])
    state = checkpoint.read(path, key="key")
    groups = [{**group, "params": list(range(len(parameters)))} for group in optimiser.state_dict()["param_groups"]]
    optimiser.load_state_dict({"state": state["optimiser"]["state"], "param_groups": groups})
    rows = [optimiser.state[parameter] for parameter in parameters]
    assert {row["exp_avg"].device for row in rows} == {elsewhere}
    # on a device each one would be waited for in every step
    assert {row["step"].device.type for row in rows} == {"cpu"}


def put(*where: object, value: object) -> Callable[[State], None]:
    """What stands there becomes value; where that is a function, what it makes of it."""

    def change(state: State) -> None:
        inner: Any = state
        for key in where[:-1]:
            inner = inner[key]
        inner[where[-1]] = value(inner[where[-1]]) if callable(value) else value

    return change


def without(*where: object) -> Callable[[State], None]:
    def change(state: State) -> None:
        inner: Any = state
        for key in where[:-1]:
            inner = inner[key]
        del inner[where[-1]]

    return change


NAN = float("nan")
WEIGHT = "w"
FORGED = {
    "no step": without("step"),
    "a step of words": put("step", value="3"),
    "a step that is true": put("step", value=True),
    "a step before the first": put("step", value=-1),
    "a step after the last": put("step", value=11),
    "no best": without("best"),
    "a best that is no number": put("best", value=NAN),
    "a best of words": put("best", value="good"),
    "no network": without("network"),
    "a network that is a list": put("network", value=[]),
    "a tensor too few": without("network", WEIGHT),
    "a tensor too many": put("network", "more", value=torch.zeros(1)),
    "another shape": put("network", WEIGHT, value=lambda x: x[:1]),
    "another type": put("network", WEIGHT, value=lambda x: x.double()),
    "no tensor": put("network", WEIGHT, value=1.0),
    "a sparse tensor": put("network", WEIGHT, value=lambda x: x.to_sparse()),
    "a tensor without values": put("network", WEIGHT, value=lambda x: x.to("meta")),
    "a weight that is no number": put("network", WEIGHT, value=lambda x: x * NAN),
    "an average that is infinite": put("average", WEIGHT, value=lambda x: x / 0),
    "no average": put("average", value=None),
    "no optimiser": without("optimiser"),
    "an optimiser of words": put("optimiser", value="adam"),
    "an optimiser without a state": without("optimiser", "state"),
    "a memory of no parameter": put("optimiser", "state", 99, value={}),
    "a memory of words": put("optimiser", "state", "first", value={}),
    "a memory that is not whole": without("optimiser", "state", 0, "exp_avg"),
    "a memory of another optimiser": put("optimiser", "state", 0, "momentum_buffer", value=torch.zeros(1)),
    "a memory of another shape": put("optimiser", "state", 0, "exp_avg", value=lambda x: x.flatten()[:1]),
    "a memory that is no number": put("optimiser", "state", 0, "exp_avg", value=lambda x: x * NAN),
    "a square that is negative": put("optimiser", "state", 0, "exp_avg_sq", value=lambda x: x - 1),
    "a count of steps that is no number": put("optimiser", "state", 0, "step", value=lambda x: x * NAN),
    "no scaler": without("scaler"),
    "a scaler of another kind": put("scaler", value={"scale": 1.0}),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_one_is_refused_and_nothing_of_it_is_used(name: str, learner: Learner, tmp_path: Path) -> None:
    state = pickle.loads(pickle.dumps(learner.state()))  # a copy, which shares nothing
    FORGED[name](state)
    path = tmp_path / "checkpoint.pt"
    checkpoint.write(state, path, key="key")
    refused(path, new(tmp_path), "is damaged; --restart begins anew (")


@pytest.mark.parametrize(
    ("document", "part"),
    [
        ([], "it holds no state"),
        ({}, "without a version"),
        ({"version": "1" * 1000}, "without a version"),
        ({"version": 2}, "of version 2"),
        ({"version": 1}, "another model, config or data"),
        ({"version": 1, "key": torch.zeros(2)}, "another model, config or data"),
        ({"version": 1, "key": "key"}, "it holds no state"),
        ({"version": 1, "key": "key", "state": torch.zeros(1)}, "it holds no state"),
        ({"version": 1, "key": "key", "state": {1: 2}}, "'step' is missing"),
    ],
)
def test_a_document_that_is_none_is_refused(document: object, part: str, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save(document, path)
    refused(path, new(tmp_path), part)


class Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("ran"),))


@pytest.mark.parametrize(
    "kind", ["cut short", "a bit turned", "pickled", "empty", "a zip of nothing", "compressed", "with code"]
)
def test_a_file_that_is_none_is_refused(
    kind: str, learner: Learner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "checkpoint.pt"
    checkpoint.write(learner.state(), path, key="key")
    data = path.read_bytes()
    if kind == "cut short":
        path.write_bytes(data[: len(data) // 2])
    elif kind == "a bit turned":
        place = data.index(b"exp_avg")
        path.write_bytes(data[:place] + b"\xff" + data[place + 1 :])
    elif kind == "pickled":
        path.write_bytes(pickle.dumps({"version": 1}))
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "with code":
        torch.save({"version": 1, "key": "key", "state": Payload()}, path)
    else:
        with zipfile.ZipFile(
            path, "w", zipfile.ZIP_DEFLATED if kind == "compressed" else zipfile.ZIP_STORED
        ) as archive:
            if kind == "compressed":
                archive.writestr("archive/data.pkl", bytes(10**6))
    refused(path, new(tmp_path), "is not a checkpoint of fnatool, or is damaged")
    assert not Path("ran").exists()


def test_momentum_of_one_optimiser_is_none_of_another(learner: Learner, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint.write(learner.state(), path, key="key")
    refused(path, new(tmp_path, "sgd"), "of another one")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (
            put("network", "architecture.alphas.stage0_block0", value=lambda x: x * NAN),
            "'architecture.alphas.stage0_block0' is not finite",
        ),
        (put("scalers", value=[]), "its scales of gradients are not two"),
        (put("alphas", "state", value=None), "it has no memory of an optimiser"),
        (without("weights"), "'weights' is missing"),
    ],
)
def test_of_a_search_too(change: Callable[[State], None], part: str, tmp_path: Path) -> None:
    def searcher() -> Searcher:
        return Searcher(supers.network("residual"), parse_search({"task": "classification"}), HERE, alpha_steps=3)

    made, other, path = searcher(), searcher(), tmp_path / "checkpoint.pt"
    other.restore(made.state(), checkpoint.Held(path, 10))
    state = pickle.loads(pickle.dumps(made.state()))
    change(state)
    with pytest.raises(UserError, match="is damaged; --restart begins anew") as caught:
        other.restore(state, checkpoint.Held(path, 10))
    assert part in str(caught.value)


def test_what_would_not_be_read_is_not_written(learner: Learner) -> None:
    assert diagnosis.broken_state(learner.state()) is None
    learner.optimiser.state[next(iter(learner.network.parameters()))]["exp_avg_sq"] /= 0
    assert (
        diagnosis.broken_state(learner.state())
        == "the memory of the optimiser is not finite (optimiser.state.0.exp_avg_sq)"
    )
