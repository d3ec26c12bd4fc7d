"""Latency tables: they add up, resume, refuse what they are not of, and are costs as multiply-adds are."""

from __future__ import annotations

import functools
import json
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime
import pytest
from cuts import space_net
from spaces import net

from fnatool.cli.app import MISUSED
from fnatool.cli.main import run
from fnatool.cli.show.latency import show_latencies
from fnatool.files import model as files
from fnatool.latency import measure as making
from fnatool.latency import table
from fnatool.latency.fitting import Fit, applied, fit, random_member, spread
from fnatool.latency.pieces import cut_up, whole
from fnatool.latency.rounds import estimate
from fnatool.latency.store import Store
from fnatool.latency.timing import TimingDevice, call, filled, nanoseconds
from fnatool.search.solver import Budget, likeliest
from fnatool.terminal import heard
from passes import UserError, analyse
from passes.graph.cutting import Bare
from passes.network.profile import profile
from passes.space.costs import Table, cost_tables, extremes
from passes.space.space import Space, choices, members, own_member

CPU = TimingDevice("cpu", 1)
CALL = 1000
KNOBS = {"stage0.depth": (1, 2, 3, 4), "stage0.*.kernel": (3, 5), "stage0.*.hidden": (4, "x1")}


def multiply_adds(network: Bare, place: TimingDevice) -> int:
    """A machine without noise: so many nanoseconds for a call, and one for each multiply-add."""
    return _multiply_adds(network)


@functools.cache
def _multiply_adds(network: Bare) -> int:
    return CALL + profile(gs.import_onnx(onnx.load_from_string(filled(network)))).whole.macs


def counted(calls: list[str], until: int = 1 << 30) -> Callable[[Bare, TimingDevice], int]:
    """The same machine, which writes down what it times, and on which Ctrl-C is pressed after so many timings."""

    def timed(network: Bare, place: TimingDevice) -> int:
        if len(calls) == until:
            raise KeyboardInterrupt
        calls.append(network.signature)
        return multiply_adds(network, place)

    return timed


def options(**changes: object) -> making.LatencyOptions:
    return replace(making.LatencyOptions(place=CPU, rounds=2, timed=multiply_adds), **changes)  # type: ignore[arg-type]


@functools.cache
def small() -> making.Subject:
    """Four blocks of four candidates."""
    made = net()
    analysis = analyse(made)
    found = choices(analysis, Space(KNOBS))
    return making.Subject(
        made, analysis, found, table.About("e" * 64, table.space_signature(found), {"x": (1, 3, 8, 8)})
    )


def made_in(folder: Path, **changes: object) -> table.LatencyTable:
    """The table of `small`, with timings kept in the folder."""
    return making.measure_table(small(), Store(folder / "t.timings.json", CPU.key), options(**changes))


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    path = tmp_path / "seed.onnx"
    path.write_bytes(gs.export_onnx(net()).SerializeToString())
    return path


@pytest.fixture
def space(tmp_path: Path) -> str:
    path = tmp_path / "space.json"
    path.write_text(json.dumps({"version": 1, "knobs": {key: list(row) for key, row in KNOBS.items()}}))
    return str(path)


# --- the table ----------------------------------------------------------------------------------


def test_on_a_machine_without_noise_the_table_is_that_of_multiply_adds(tmp_path: Path) -> None:
    made = made_in(tmp_path)
    expected = cost_tables(small().analysis, small().found)["madds"]
    assert made.parts == Table(expected.base + CALL, expected.blocks)
    assert (made.fit.a, made.fit.b, made.fit.error) == pytest.approx((0.0, 1.0, 0.0), abs=1e-6)
    assert made.table == made.parts
    assert len({one.member for one in made.members}) == making.MEMBERS


def test_a_derived_member_keeps_a_latency_budget(tmp_path: Path) -> None:
    costs, found = made_in(tmp_path).table, small().found
    rng = np.random.default_rng(0)
    scores = [
        np.log(rng.dirichlet(np.ones(len(block.candidates) + block.skippable))).tolist() for block in found.blocks
    ]
    limit = int(np.mean(extremes(costs, found)))
    assert costs.of(likeliest(found, scores, [Budget("latency", limit, costs)])) <= limit


def test_a_table_is_of_the_seed_and_the_space_in_their_files(
    seed: Path, space: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, of = making.latency_table(seed, space, tmp_path / "t.json", options=options())
    assert table.read(tmp_path / "t.json", of.about, of.found, provider="cpu") == made
    assert of.about.seed == files.read(seed).sha256
    assert of.about.inputs == {"x": (1, 3, 8, 8)}
    with heard():
        show_latencies(made, of, tmp_path / "t.json")
    assert "Σ of the parts, fitted on" in capsys.readouterr().out


@pytest.mark.parametrize("threads", [1, 2])
def test_members_and_their_parts_run_and_take_some_time(threads: int) -> None:
    made, analysis, found = space_net()
    pieces = cut_up(made, analysis, found)
    for network in (whole(made, analysis, found, found.largest()), pieces.networks[pieces.blocks[0][0]], call()):
        assert 0 < nanoseconds(network, TimingDevice("cpu", threads)) < 10**10


def test_the_seed_is_found_among_the_members() -> None:
    of = small()
    own = own_member(of.analysis, of.found)
    assert own is not None
    assert cost_tables(of.analysis, of.found)["madds"].of(own) == of.analysis.cost.macs


# --- resuming -----------------------------------------------------------------------------------


@pytest.mark.parametrize("until", [0, 1, 30])
def test_what_was_interrupted_goes_on_to_the_same_table(tmp_path: Path, until: int) -> None:
    calls: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        made_in(tmp_path, timed=counted(calls, until))
    again: list[str] = []
    made = made_in(tmp_path, timed=counted(again))
    assert len(calls) == until
    assert {signature: [*calls, *again].count(signature) for signature in [*calls, *again]} == dict.fromkeys(
        {*calls, *again}, 2
    )
    (tmp_path / "t.timings.json").unlink()
    assert replace(made, load=(0, 0)) == replace(made_in(tmp_path), load=(0, 0))


def test_a_second_run_times_nothing_and_more_rounds_add_to_it(tmp_path: Path) -> None:
    made_in(tmp_path)
    calls: list[str] = []
    made_in(tmp_path, timed=counted(calls))
    assert calls == []
    made_in(tmp_path, timed=counted(calls), rounds=3)
    assert len(calls) == len(set(calls)) > 15


def test_timings_of_another_machine_are_kept_and_not_used(tmp_path: Path) -> None:
    path, other = tmp_path / "t.timings.json", "cpu, 1 thread, onnxruntime 0.1, abacus"
    Store(path, other).add("a" * 64, 5)
    assert Store(path, CPU.key).rounds("a" * 64) == ()
    Store(path, CPU.key).add("a" * 64, 7)
    assert (Store(path, CPU.key).rounds("a" * 64), Store(path, other).rounds("a" * 64)) == ((7,), (5,))


DAMAGED = [
    "",
    "{",
    "[]",
    '{"version": 1}',
    '{"version": 1, "timings": {"cpu": {"a": [1.5]}}}',
    '{"version": 2, "timings": {}}',
]


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_store_says_what_to_do(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.timings.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"t\.timings\.json.*; delete it, and all is measured anew"):
        Store(path, "cpu")
    assert path.read_text() == text


def test_a_full_disk_leaves_the_timings_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "t.timings.json"
    store = Store(path, "cpu")
    store.add("a", 1)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            store.add("b", 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers() and Path("/dev/nvidia0").exists(),
    reason="has a GPU",
)
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_is_not_there_is_refused(
    seed: Path, tmp_path: Path, provider: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["latency-table", str(seed), "--space", "auto", "--provider", provider, "-o", str(tmp_path / "t.json")]
    assert run(arguments) == MISUSED
    error = capsys.readouterr().err
    assert f"ONNX Runtime has no {provider} here, it fell back to CPUExecutionProvider: it does not find " in error
    assert {"cuda": "libcuda.so.1", "tensorrt": "libnvinfer.so.10"}[provider] in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["seed.onnx"]


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"stage0.*.kernel7": [3, 5]}, "matches no knob"),
        ({"stage0.depth": [3]}, "there is nothing to search"),
        ({"stage0.*.kernel": [3, 4]}, "4 is not possible"),
    ],
)
def test_a_space_that_does_not_fit_is_refused(
    seed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], knobs: dict[str, list[int]], message: str
) -> None:
    path = tmp_path / "space.json"
    path.write_text(json.dumps({"version": 1, "knobs": knobs}))
    assert run(["latency-table", str(seed), "--space", str(path), "-o", str(tmp_path / "t.json")]) == MISUSED
    assert message in capsys.readouterr().err


def test_a_space_that_is_nowhere_names_the_presets(
    seed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["latency-table", str(seed), "--space", "nowhere", "-o", str(tmp_path / "t.json")]) == MISUSED
    assert (
        "there is no space 'nowhere'; give fna-detection, fna-segmentation, auto, coarse or the path"
        in capsys.readouterr().err
    )


def written(path: Path) -> table.LatencyTable:
    """A table of `small`, in a file."""
    rows = tuple(tuple(range(len(block.candidates))) for block in small().found.blocks)
    made = table.LatencyTable(
        about=small().about,
        provider="cpu",
        place=CPU.key,
        clock="processor",
        rounds=2,
        table=Table(1, rows),
        parts=Table(1, rows),
        fit=Fit(0.0, 1.0, 0.0, 0.0),
        members=(),
        load=(0.0, 0.0),
    )
    table.write(made, path)
    return made


def test_a_table_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    about, found = written(path).about, small().found
    for other, message in (
        (replace(about, seed="f" * 64), "is of another seed"),
        (replace(about, space="f" * 64), "is of another space"),
        (replace(about, inputs={"x": (1, 3, 16, 16)}), "is for inputs x 1x3x8x8, not x 1x3x16x16"),
    ):
        with pytest.raises(UserError, match=message):
            table.read(path, other, found)
    with pytest.raises(UserError, match="was measured on cpu, not on cuda; measure one with --provider cuda"):
        table.read(path, about, found, provider="cuda")


def damages() -> list[tuple[str, object]]:
    """Keys of a table's document, and what they must not be."""
    return [
        ("version", 2), ("version", True), ("kind", "madds"), ("seed", 1), ("space", None), ("inputs", []),
        ("inputs", {"x": [1.5]}), ("table", {"base": 1}), ("table", {"base": 1, "blocks": [[1], [2]]}),
        ("table", {"base": 1, "blocks": [[-1]]}), ("parts", 3), ("table", {"base": 1 << 60, "blocks": []}),
        ("fit", {"a": 1}), ("load", [1]), ("load", ["a", "b"]), ("members", [3]),
        ("members", [{"member": [True], "parts": 1, "measured": 1}]), ("rounds", "8"),
    ]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), damages())
def test_a_damaged_table_says_so(tmp_path: Path, key: str, value: object) -> None:
    path = tmp_path / "t.json"
    good = written(path)
    assert table.read(path, good.about, small().found) == good
    document = json.loads(path.read_text())
    for changed in ({**document, key: value}, {name: row for name, row in document.items() if name != key}):
        path.write_text(json.dumps(changed))
        with pytest.raises(UserError, match=r"t\.json"):
            table.read(path, good.about, small().found)


def test_an_existing_table_is_not_overwritten(seed: Path, space: str, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text("mine")
    with pytest.raises(UserError, match="exists"):
        making.latency_table(seed, space, tmp_path / "t.json", options=options())
    assert (tmp_path / "t.json").read_text() == "mine"


# --- the fit ------------------------------------------------------------------------------------


def test_a_fit_finds_a_and_b() -> None:
    sums = np.linspace(1e6, 5e6, 12)
    found = fit(sums, 2e5 + 1.25 * sums)
    assert (found.a, found.b) == pytest.approx((2e5, 1.25))
    assert (found.error, found.error_left_out) == pytest.approx((0, 0), abs=1e-9)
    assert applied(found, Table(1_000_000, ((100, 200), (60,)))) == Table(1_450_000, ((125, 250), (75,)))


def test_members_of_one_sum_have_no_intercept() -> None:
    found = fit([10.0, 10.0], [12.0, 12.0])
    assert (found.a, found.b) == pytest.approx((0, 1.2))


def test_noise_is_no_fit() -> None:
    with pytest.raises(UserError, match="do not get slower with their parts"):
        fit([1.0, 2.0, 3.0], [3.0, 2.0, 1.0])


def test_one_disturbed_round_of_four_does_not_matter() -> None:
    assert estimate([100, 100, 100, 900]) == estimate([100, 100, 100, 100]) == 100


def test_members_for_the_fit_lie_evenly_from_cheap_to_dear() -> None:
    _, analysis, found = space_net()
    costs = cost_tables(analysis, found)["madds"]
    chosen = spread(found, costs, 12, 0)
    assert chosen == spread(found, costs, 12, 0) != spread(found, costs, 12, 1)
    assert len(set(chosen)) == 12
    for member in chosen:
        found.require_member(member)
    low, high = extremes(costs, found)
    drawn = [costs.of(member) for member in chosen]
    assert (max(drawn) - min(drawn)) > 0.8 * (high - low)
    assert max(np.diff(drawn)) < (high - low) / 4


def test_a_random_member_is_any_of_them() -> None:
    _, _, found = space_net()
    rng = np.random.default_rng(0)
    drawn = {random_member(found, rng) for _ in range(3000)}
    assert drawn <= set(members(found))
    assert len(drawn) > 1000
