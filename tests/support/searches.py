"""Searches as their user begins them: a config of few steps in the working folder, the command, and what the run's
folder says.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from seeds_of_heads import mobile
from tiny import save

import fnatool
from fnatool.cli.main import run
from fnatool.files import runfolder
from fnatool.files.metrics import metric_rows
from fnatool.tasks import scenes as writing

Sections = Mapping[str, Mapping[str, object]]
SIZE = 64
KNOBS: Mapping[str, object] = {"stage0.depth": [1, 2, 3], "stage2.depth": [1, 2], "stage*.*.kernel": [3, 5]}
SPACES: Mapping[str, Mapping[str, object]] = {
    "space": {**KNOBS, "stage1.*.hidden": ["x0.5", "x1"]},
    "widths": {**KNOBS, "stage*.*.hidden": ["x0.5", "x0.75", "x1"]},
    "trunks": {"stage*.*.hidden": ["x0.75", "x1"], "**.width": ["x1", "x0.75", "x0.5"]},
}
MODULE = [sys.executable, "-m", "fnatool"]
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "fnatool"]


def make_scenes(root: Path) -> Path:
    """The folder has a seed, scenes for three tasks, and three spaces."""
    save(mobile(SIZE).model(batch="N"), root / "seed.onnx")
    for name, knobs in SPACES.items():
        (root / f"{name}.json").write_text(json.dumps({"version": 1, "knobs": knobs}))
    for task in ("segmentation", "classification", "detection"):
        writing.write_scenes(root / task, writing.SceneOptions(task, SIZE, 24, 8, 0))
    return root


def gradient(scenes: Path, task: str = "segmentation", **sections: Mapping[str, object]) -> None:
    """A search by gradient of few steps as search.toml in the working directory."""
    usual: Sections = {
        "data": {"path": str(scenes / task), "workers": 0},
        "head": {"width": 8, **({"levels": 3} if task == "detection" else {})},
        "space": {"choices": str(scenes / "space.json")},
        "search": {"method": "gradient", "steps": 6, "alpha_from": 0.34, "finalists": 3},
        "alpha": {"lr": 0.1},
        "run": {"batch": 4, "checkpoint": 2, "threads": 1},
        "score": {"images": 8, "calibration": 8},
        "finetune.run": {"batch": 4, "steps": 2},
    }
    _write(scenes, task, usual, sections)


def distance(scenes: Path, task: str = "classification", **sections: Mapping[str, object]) -> None:
    """A search by distance on few images as search.toml in the working directory, without refit and its last phase."""
    usual: Sections = {
        "data": {"path": str(scenes / task), "workers": 0},
        "head": {"levels": 3} if task == "detection" else {},
        "space": {"choices": str(scenes / "widths.json")},
        "search": {"method": "distance"},
        "distance": {"images": 12, "batch": 6, "members": 6},
        "refit": {"enabled": "no"},
        "run": {"threads": 1},
        "finetune": {"enabled": False},
        "finetune.run": {"batch": 4, "steps": 2},
    }
    _write(scenes, task, usual, sections)


def _write(scenes: Path, task: str, usual: Sections, sections: Sections) -> None:
    lines = [f'task = "{task}"', f'model = "{scenes / "seed.onnx"}"']
    for name in {**usual, **sections}:
        rows = {**usual.get(name, {}), **sections.get(name, {})}
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in rows.items())]
    Path("search.toml").write_text("\n".join(lines), encoding="utf-8")


def search(*more: str, folder: str = "run") -> int:
    """The command's exit code."""
    return run(["search", "-o", folder, *more])


def derived(folder: Path, *more: str) -> list[dict[str, object]]:
    """What is derived from that run, into the folder out."""
    assert run(["derive", str(folder), "-o", "out", "--force", *more]) == 0
    found: list[dict[str, object]] = json.loads(Path("out/derived.json").read_text())["architectures"]
    return found


def report(folder: str | Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((Path(folder) / "report.json").read_text())
    return found


def rows(kind: str, folder: str | Path = "run") -> list[dict[str, float]]:
    """The journal's lines of that kind."""
    return [row for row in metric_rows(Path(folder) / "metrics.jsonl") if row["kind"] == kind]


def everything(folder: Path) -> dict[Path, bytes]:
    """All files in a folder, but for the mark, which says who opened it last."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != runfolder.MARK}


def madds(path: Path) -> int:
    return fnatool.profile(path).profile.whole.macs


def environment() -> dict[str, str]:
    """That of processes which work together on this machine."""
    return {**os.environ, "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}


def refused(capsys: pytest.CaptureFixture[str], *parts: str) -> None:
    """What was said last is one message with these parts, and looks like no accident."""
    captured = capsys.readouterr()
    assert captured.err.startswith("fnatool: ")
    assert "Traceback" not in captured.err
    for part in parts:
        assert part in captured.err, captured.err
