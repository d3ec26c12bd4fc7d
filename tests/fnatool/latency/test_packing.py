"""A table of another machine: its pieces in a folder, a script that needs nothing of ours, and the table of what that
timed.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import onnx
import onnx_graphsurgeon as gs
import pytest
from refusals import refused
from spaces import net

import fnatool
from fnatool.cli.main import run
from fnatool.latency import time_pieces
from fnatool.latency.table import LatencyTable
from fnatool.latency.timing import TimingDevice
from passes.errors import UserError

Capture = pytest.CaptureFixture[str]
CPU = TimingDevice("cpu", 1)
LINE = ["latency-table", "seed.onnx", "--space", "space.json"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a seed of four blocks and a space of two kernels."""
    monkeypatch.chdir(tmp_path)
    Path("seed.onnx").write_bytes(gs.export_onnx(net()).SerializeToString())
    Path("space.json").write_text(json.dumps({"version": 1, "knobs": {"stage0.*.kernel": [3, 5]}}))
    return tmp_path


def pack(**changes: object) -> int:
    return fnatool.pack_latency(
        "seed.onnx", "space.json", "pieces", options=fnatool.LatencyOptions(place=CPU, **changes)
    )  # type: ignore[arg-type]


def timed(rounds: int = 2, *, leave: int = 0) -> None:
    """As if the script had run: a piece takes a nanosecond for every byte it has."""
    pieces = json.loads(Path("pieces/pieces.json").read_text())["pieces"]
    rows = {piece: [1000 + 10 * Path(f"pieces/{piece}.onnx").stat().st_size] * rounds for piece in pieces[leave:]}
    about = {"provider": "cpu", "threads": 2, "clock": "wall", "load": [0.5, 1.5]}
    Path("pieces/timings.json").write_text(
        json.dumps({"version": 1, "timings": {"there": rows}, "places": {"there": about}})
    )


def unpack() -> LatencyTable:
    return fnatool.unpack_latency(
        "seed.onnx", "space.json", "pieces", "out.json", options=fnatool.LatencyOptions(place=CPU)
    )[0]


def test_the_script_needs_nothing_of_ours() -> None:
    tree = ast.parse(Path(time_pieces.__file__).read_text())
    names = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    names |= {str(node.module).split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names - set(sys.stdlib_module_names) == {"numpy", "onnxruntime"}


def test_the_folder_holds_all_pieces_with_weights(folder: Path) -> None:
    count = pack()
    pieces = json.loads(Path("pieces/pieces.json").read_text())["pieces"]
    assert len(pieces) == count
    assert {path.name for path in Path("pieces").iterdir()} == {
        *(f"{piece}.onnx" for piece in pieces),
        "pieces.json",
        "time_pieces.py",
    }
    for piece in pieces:
        onnx.checker.check_model(onnx.load(f"pieces/{piece}.onnx"), full_check=True)


def test_the_script_times_what_is_missing_and_keeps_it(folder: Path) -> None:
    pack()
    pieces = json.loads(Path("pieces/pieces.json").read_text())["pieces"]
    Path("pieces/pieces.json").write_text(json.dumps({"version": 1, "pieces": pieces[:2]}))
    script = [sys.executable, "pieces/time_pieces.py"]
    assert subprocess.run([*script, "--rounds", "1", "--seconds", "0"], capture_output=True).returncode == 3
    done = subprocess.run([*script, "--rounds", "1"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    first = json.loads(Path("pieces/timings.json").read_text())["timings"][CPU.key]
    assert {piece: len(row) for piece, row in first.items()} == dict.fromkeys(pieces[:2], 1)
    subprocess.run([*script, "--rounds", "2"], check=True, capture_output=True)
    again = json.loads(Path("pieces/timings.json").read_text())
    assert {piece: row[:1] for piece, row in again["timings"][CPU.key].items()} == first
    assert again["places"][CPU.key]["clock"] == "processor"
    done = subprocess.run(
        [*script, "--provider", "NoneExecutionProvider", "--rounds", "9"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "NoneExecutionProvider" in done.stderr


def test_the_table_is_of_the_other_machine(folder: Path, capsys: Capture) -> None:
    assert run([*LINE, "--pack", "pieces"]) == 0
    assert "pieces in pieces: take it to the device and run there" in capsys.readouterr().out
    timed()
    assert run([*LINE, "--unpack", "pieces", "-o", "out.json"]) == 0
    assert "→ out.json, every timing in pieces" in capsys.readouterr().out
    found = json.loads(Path("out.json").read_text())
    assert (found["place"], found["clock"], found["rounds"], found["load"]) == ("there", "wall", 2, [0.5, 1.5])
    direct = fnatool.latency_table(
        "seed.onnx",
        "space.json",
        "direct.json",
        options=fnatool.LatencyOptions(
            place=CPU, rounds=1, timed=lambda network, place: 1000 + 10 * size_of(network.signature)
        ),
    )[0]
    assert found["table"] == json.loads(Path("direct.json").read_text())["table"]
    assert direct.place == CPU.key


def test_values_of_a_knob_are_set_on_top_of_the_space(folder: Path, capsys: Capture) -> None:
    Path("both.json").write_text(json.dumps({"version": 1, "knobs": {"stage0.*.kernel": [3, 7]}}))
    assert run([*LINE, "--set", "stage0.*.kernel=3,7", "--pack", "pieces"]) == 0
    assert run(["latency-table", "seed.onnx", "--space", "both.json", "--pack", "other"]) == 0
    assert Path("pieces/pieces.json").read_bytes() == Path("other/pieces.json").read_bytes()
    timed()
    assert run([*LINE, "--set", "stage0.*.kernel=3,7", "--unpack", "pieces", "-o", "out.json"]) == 0
    capsys.readouterr()
    for wrong, part in (
        ("stage0.*.kernel", "say KNOB=VALUE,VALUE"),
        ("stage0.*.kernal=3,5", "kernel"),
        ("stage0.*.kernel=3,4", "4"),
    ):
        assert run([*LINE, "--set", wrong, "--pack", "third"]) == 2
        assert part in capsys.readouterr().err
        assert not Path("third").exists()


def size_of(signature: str) -> int:
    return Path(f"pieces/{signature}.onnx").stat().st_size


def test_a_piece_that_is_not_timed_is_a_message_and_no_table(folder: Path) -> None:
    count = pack()
    with pytest.raises(UserError, match="run the script in that folder first"):
        unpack()
    timed(leave=2)
    with pytest.raises(
        UserError, match=f"2 of {count} pieces are not timed in 'pieces' on there; run 'time_pieces.py' there again"
    ):
        unpack()
    assert not Path("out.json").exists()


def test_what_another_program_wrote_is_refused(folder: Path) -> None:
    pack()
    Path("pieces/timings.json").write_text(
        json.dumps({"version": 1, "timings": {}, "places": {"there": {"provider": "cpu"}}})
    )
    with pytest.raises(UserError, match="does not hold what the script in that folder writes"):
        unpack()


def test_which_of_two_machines_is_not_guessed(folder: Path) -> None:
    pack()
    timed()
    document = json.loads(Path("pieces/timings.json").read_text())
    document["places"]["elsewhere"] = {**document["places"]["there"]}
    Path("pieces/timings.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match="holds the timings of there; elsewhere: say which with --provider"):
        unpack()
    document["places"]["elsewhere"]["provider"] = "cuda"
    Path("pieces/timings.json").write_text(json.dumps(document))
    assert unpack().place == "there"


def test_a_folder_is_not_overwritten_unless_it_was_packed(folder: Path, capsys: Capture) -> None:
    Path("pieces").mkdir()
    Path("pieces/mine.txt").write_text("dear")
    for more in ([], ["--force"]):
        assert run([*LINE, "--pack", "pieces", *more]) == 2
        assert "'pieces' exists" in refused(capsys)
    assert Path("pieces/mine.txt").read_text() == "dear"
    assert run([*LINE, "--pack", "nowhere/pieces"]) == 2
    assert "'nowhere', the folder for 'pieces', does not exist" in refused(capsys)
    assert run(LINE) == 2
    assert "-o OUT" in capsys.readouterr().err
