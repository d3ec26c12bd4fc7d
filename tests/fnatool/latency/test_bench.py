"""Models side by side: the turns they get, how they compare, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from nets import Net
from refusals import refused
from tiny import save

import fnatool
from fnatool.cli.main import run
from fnatool.latency import bench as benching
from fnatool.latency.timing import TimingDevice
from fnatool.runtime import session
from passes.errors import RefusedModel, UserError

Capture = pytest.CaptureFixture[str]
MEGA = 1e6


def network(width: int = 8, batch: int | str = "N", size: int = 16) -> onnx.ModelProto:
    net = Net(size=size)
    net.classifier(net.conv_bn_relu(net.conv_bn_relu("x", "a", width, 3), "b", width, 3))
    return net.model(batch=batch)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a small network and a larger one."""
    monkeypatch.chdir(tmp_path)
    save(network(), tmp_path / "small.onnx")
    save(network(64), tmp_path / "large.onnx")
    return tmp_path


@pytest.fixture
def two_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benching, "ROUNDS", 2)


def turns(*times: float, memory: int | None = None) -> list[benching._Round]:
    """Rounds of three runs each, one of them slow."""
    return [benching._Round((int(t * MEGA), int(t * MEGA), int(9 * t * MEGA)), memory) for t in times]


def entry(batch: int = 1) -> benching._Entry:
    return benching._Entry(Path("m.onnx"), {"x": (batch, 3, 8, 8)}, batch)


def test_a_model_against_itself_is_one_however_slow_the_machine_becomes() -> None:
    first, again = benching._timings([entry(), entry()], [turns(1, 2, 3, 8), turns(1, 3, 2, 9)])
    assert (first.ratio, first.ratio_spread, again.ratio) == (1.0, 0.0, 1.0)
    assert 0 < again.ratio_spread < 1


def test_latency_is_the_median_of_the_rounds_and_throughput_counts_samples() -> None:
    (one,) = benching._timings([entry(4)], [turns(1, 2, 3, memory=7) + turns(2, memory=9)])
    assert (one.median, one.runs, one.memory) == (2 * MEGA, 12, 9)
    assert one.throughput == pytest.approx(4 / 2e-3)
    assert one.spread == pytest.approx(np.subtract(*np.percentile([1, 2, 3, 2], [75, 25])) / 2 / 2)


def test_models_are_compared_with_the_first(folder: Path, two_rounds: None) -> None:
    made = fnatool.bench("small.onnx", "large.onnx", options=fnatool.BenchOptions(seconds=0.2, batch=2))
    small, large = made.timings
    assert (small.ratio, small.batch, small.model) == (1.0, 2, "small.onnx")
    assert large.ratio > 2  # sixty times the multiply-adds
    assert large.median > small.median
    assert large.throughput < small.throughput
    assert all(row.runs >= 2 and (row.memory is None or row.memory > 0) for row in made.timings)


def test_every_model_has_a_turn_in_every_round_in_another_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def turn(found: benching._Entry, place: TimingDevice, seconds: float) -> benching._Round:
        seen.append(found.path.name)
        return turns(1)[0]

    monkeypatch.setattr(benching.isolate, "run", lambda function, *arguments, **limits: function(*arguments))
    monkeypatch.setattr(benching, "_turn", turn)
    fnatool.bench("small.onnx", "large.onnx", "small.onnx")
    rounds = [tuple(seen[k : k + 3]) for k in range(0, len(seen), 3)]
    assert len(rounds) == benching.ROUNDS
    assert {tuple(sorted(one)) for one in rounds} == {("large.onnx", "small.onnx", "small.onnx")}
    assert len(set(rounds)) > 1


def test_the_command_says_what_the_function_does(folder: Path, two_rounds: None, capsys: Capture) -> None:
    assert run(["bench", "small.onnx", "large.onnx", "--seconds", "0.1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["model"] for row in found["models"]] == ["small.onnx", "large.onnx"]
    assert (found["rounds"], found["clock"]) == (2, "processor")
    assert set(found["models"][0]) >= {"latency", "spread", "throughput", "memory", "ratio", "ratio_spread"}
    assert run(["bench", "small.onnx", "--seconds", "0.1", "--threads", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["model", "latency", "spread", "samples/s", "memory", "ratio"]
    assert lines[1].endswith("1.00 ± 0.00")
    assert "by the wall clock" in lines[3]


def test_a_model_in_memory_is_timed_too(two_rounds: None) -> None:
    model = fnatool.read("mobilenetv2_bn")
    assert fnatool.bench(model, options=fnatool.BenchOptions(seconds=0.02)).timings[0].runs >= 2


def test_a_provider_that_is_not_there_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    real = session.ort.InferenceSession

    def fallen_back(model: object, options: object, providers: object) -> object:
        return real(model, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(session.ort, "InferenceSession", fallen_back)
    assert run(["bench", "small.onnx", "--provider", "cuda"]) == 2
    assert "ONNX Runtime has no cuda here, it fell back to CPUExecutionProvider" in refused(capsys)


def free_sizes(path: Path) -> Path:
    made = network()
    for axis in (2, 3):
        made.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"s{axis}"
    return save(made, path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.onnx"], "'missing.onnx' does not exist"),
        (["fixed.onnx", "--batch", "2"], "'fixed.onnx': 'x' has a fixed size of 1 on axis 0, so it cannot be 2"),
        (["free.onnx"], "'free.onnx': 'x' is Nx3xs2xs3; say its free sizes with --input x=…"),
        (["free.onnx", "--input", "x=1x3x16x16", "--batch", "2"], "say different numbers of samples for 'x', 1 and 2"),
        (["free.onnx", "--input", "x=1x3x16"], "--input gives 'x' 3 sizes, it has 4"),
        (["small.onnx", "--input", "z=1x3x16x16"], "--input names 'z', but the inputs are: x"),
        (["small.onnx", "--input", "x=1x3x8x8"], "has a fixed size of 16 on axis 2, so it cannot be 8"),
    ],
)
def test_bad_input_is_one_message(arguments: list[str], said: str, folder: Path, capsys: Capture) -> None:
    save(network(batch=1), folder / "fixed.onnx")
    free_sizes(folder / "free.onnx")
    assert run(["bench", *arguments]) == 2
    assert said in refused(capsys)


def test_a_free_size_that_is_said_is_timed(folder: Path, two_rounds: None) -> None:
    free_sizes(folder / "free.onnx")
    made = fnatool.bench("free.onnx", options=fnatool.BenchOptions(seconds=0.02, inputs=(3, 3, 16, 16)))
    assert made.timings[0].batch == 3


def test_what_does_not_run_is_refused(folder: Path) -> None:
    made = network()
    made.graph.node[0].attribute.append(onnx.helper.make_attribute("auto_pad", "SOMEHOW"))
    save(made, folder / "bad.onnx")
    with pytest.raises(RefusedModel, match=r"'bad\.onnx'"):
        fnatool.bench("bad.onnx")
    with pytest.raises(UserError, match="at least one model"):
        fnatool.bench()
    with pytest.raises(UserError, match="is no provider"):
        fnatool.bench("small.onnx", options=fnatool.BenchOptions(provider="npu"))
