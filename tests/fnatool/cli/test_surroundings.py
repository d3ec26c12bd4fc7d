"""What surrounds a command is not always as usual: streams that are closed, file names that are no text or as long as
they may be.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from tiny import net, save

from fnatool.cli.main import run

Capture = pytest.CaptureFixture[str]
NAME = os.fsdecode(b"caf\xe9.onnx")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&- 2>&-"])
def test_the_verdict_is_the_same_with_streams_closed(closed: str, tmp_path: Path) -> None:
    good = save(net(), tmp_path / "good.onnx")
    bad = save(net(b=(7,)), tmp_path / "bad.onnx")
    command = f"{sys.executable} -m fnatool check"
    codes = [
        subprocess.run(f"{command} {path} {closed}", shell=True, capture_output=True).returncode for path in (good, bad)
    ]
    assert codes == [0, 1]


def test_a_file_name_that_is_no_text_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    save(net(), Path(NAME))
    assert run(["check", NAME]) == 0
    out = capsys.readouterr().out
    assert out.startswith(r"caf\xe9.onnx: passed")
    assert "/dev/fd" not in out


def test_a_folder_whose_name_is_no_text_keeps_what_lies_beside_a_model(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"\xff")
    folder.mkdir()
    onnx.save(net(), tmp_path / "in.onnx", save_as_external_data=True, location="in.data", size_threshold=0)
    for name in ("in.onnx", "in.data"):
        (tmp_path / name).rename(folder / name)
    assert run(["check", str(folder / "in.onnx")]) == 0


def test_a_broken_file_whose_name_is_no_text_is_called_by_that_name(tmp_path: Path, capsys: Capture) -> None:
    broken = net()
    broken.graph.node[0].op_type = "Convolution"
    save(broken, tmp_path / NAME)
    assert run(["check", str(tmp_path / NAME)]) == 1
    assert "/dev/fd" not in capsys.readouterr().out
