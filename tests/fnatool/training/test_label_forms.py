"""A detector learns the same, to the bit, from the same boxes in COCO's json, Pascal VOC's XML and YOLO's text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import label_forms
import pytest
import torch
from seeds_of_heads import mobile
from tiny import save

import fnatool
from fnatool.files.metrics import metric_rows


@pytest.fixture(autouse=True)
def _quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def learnt(model: Path, data: Path) -> tuple[object, bytes]:
    """What a few steps come to: every loss and figure, and the network."""
    Path("task.toml").write_text(
        f'task = "detection"\n[data]\npath = "{data}"\nworkers = 0\n[optimiser]\nwarmup = 1\n'
        "[run]\nbatch = 4\nsteps = 3\nthreads = 1\nevaluate = 1\n"
    )
    out = data.with_suffix(".onnx")
    tuned = fnatool.finetune(model, "task.toml", out)
    assert tuned is not None
    evaluated = fnatool.evaluate(out, data, options=fnatool.EvaluateOptions(workers=0)).figures
    rows = [
        {key: value for key, value in row.items() if "second" not in key}
        for row in metric_rows(out.with_suffix(".run") / "metrics.jsonl")
    ]
    return [json.dumps(rows), dict(tuned.figures), dict(evaluated)], out.read_bytes()


def test_a_few_steps_and_an_evaluation_are_the_same_to_the_bit(tmp_path: Path) -> None:
    seed = save(mobile(64).model(batch="N"), tmp_path / "seed.onnx")
    options = fnatool.HeadOptions(task="detection", classes="3", width=8, levels=3)
    fnatool.head(seed, tmp_path / "start.onnx", options=options)
    results = [learnt(tmp_path / "start.onnx", write(tmp_path / name)) for name, write in label_forms.FORMS.items()]
    assert "loss" in str(results[0][0])
    assert results[0] == results[1] == results[2]
    other = label_forms.yolo(tmp_path / "other")
    for path in (other / "labels/train").iterdir():
        path.write_text(label_forms.rows([(0, 0, 0, 32, 32)]))  # what must not be the same
    assert learnt(tmp_path / "start.onnx", other)[0] != results[0][0]
