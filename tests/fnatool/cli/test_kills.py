"""A few of the kills of `python -m benchmarks.kills`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent.parent


def test_after_a_kill_the_same_command_comes_to_the_same_bits_and_nothing_is_left(tmp_path: Path) -> None:
    line = [
        sys.executable,
        "-m",
        "benchmarks.kills",
        "--count",
        "3",
        "--only",
        "remap,finetune",
        "-o",
        str(tmp_path / "kills.json"),
    ]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "kills.json").read_text())
    assert sum(found["kills"].values()) >= 3
