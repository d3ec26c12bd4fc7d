"""The tutorial: its files written and its commands run as the page says them, in its order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from sources import ROOT

PAGE = ROOT / "docs" / "tutorial.md"
PART = re.compile(r'^``` ?(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def test_every_command_of_the_tutorial_runs(tmp_path: Path) -> None:
    commands = 0
    bin_first = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    surroundings = {
        **os.environ,
        "PATH": bin_first,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)]),
        "OMP_NUM_THREADS": "1",
    }
    for language, title, body in PART.findall(PAGE.read_text()):
        if title:
            (tmp_path / title).write_text(body)
        elif language == "sh" and "pip install" not in body:
            ran = subprocess.run(
                ["bash", "-ec", body], cwd=tmp_path, env=surroundings, capture_output=True, text=True, check=False
            )
            assert ran.returncode == 0, f"{body}\n{ran.stdout[-2000:]}\n{ran.stderr[-2000:]}"
            commands += len(body.splitlines())
    assert commands >= 15
    assert {path.name for path in (tmp_path / "deployed8").iterdir()} == {"model.onnx", "deploy.json"}
    assert (tmp_path / "answers" / "contact-sheet-1.png").exists()
