"""--json: one document on standard output and nothing else there, of the same content as the file where one is
written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest
from searches import distance, make_scenes
from working import inside

import fnatool
from fnatool.cli.main import cli, run
from fnatool.cli.show.documents import DOCUMENTS, FILES, WITHOUT
from fnatool.model.head import HeadOptions

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working folder: a seed, a classifier, scenes, spaces and configs of few steps."""
    root = make_scenes(tmp_path_factory.mktemp("json"))
    fnatool.head(root / "seed.onnx", root / "start.onnx", options=HeadOptions(task="classification", classes="10"))
    data = ["[data]", 'path = "classification"', "workers = 0"]
    lines = ['task = "classification"', *data, "[run]", "batch = 8", "steps = 9", "threads = 1"]
    (root / "tune.toml").write_text("\n".join(lines))
    (root / "module.py").write_text(
        "import torch\ndef net():\n    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3))\n"
    )
    with inside(root):
        distance(root, finetune={"enabled": False})
        yield root


def leaves(command: click.Command, *words: str) -> Iterator[tuple[str, click.Command]]:
    """Every command by its words."""
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from leaves(inner, *words, name)
    else:
        yield " ".join(words), command


def test_every_command_has_it_or_says_why_not() -> None:
    lacking = {name for name, command in leaves(cli) if not any("--json" in option.opts for option in command.params)}
    assert lacking == set(WITHOUT)
    assert set(DOCUMENTS) | set(FILES) <= {name for name, _ in leaves(cli)} - lacking


LINES = {
    "remap": "remap seed.onnx --set stage0.depth=1 --report made.json -o remap.onnx",
    "head": "head seed.onnx --task segmentation --classes 3 --width 8 -o head.onnx",
    "task": "task start.onnx --task classification -o task.onnx",
    "export": "export module.py:net --input 1x3x8x8 -o export.onnx",
    "fold": "fold seed.onnx -o fold.onnx",
    "unfold": "unfold fold.onnx --data random --images 2 -o unfold.onnx",
    "cut": "cut seed.onnx --outputs stage0.exit -o cut.onnx",
    "finetune": "finetune start.onnx --config tune.toml -o tuned.onnx",
    "search": "search --config search.toml --budget madds=500k -o run",
    "derive": "derive run --budget madds=400k --images 0",
    "latency-table": "latency-table seed.onnx --space space.json --rounds 1 -o latency.json",
    "deploy": "deploy start.onnx --target onnxruntime -o deployed",
}
WRITTEN = {
    "remap": "made.json", "finetune": "tuned.run/report.json", "search": "run/report.json",
    "derive": "run/derived/derived.json", "latency-table": "latency.json", "deploy": "deployed/deploy.json",
}  # fmt: skip


def printed(line: str, capsys: Capture) -> Any:
    capsys.readouterr()
    assert run([*line.split(), "--json"]) == 0
    out = capsys.readouterr().out
    assert "Infinity" not in out
    return json.loads(out)


@pytest.mark.parametrize("name", LINES)  # in order: some read what others wrote
def test_standard_output_is_the_document_that_the_reference_describes(name: str, folder: Path, capsys: Capture) -> None:
    found = printed(LINES[name], capsys)
    if name in DOCUMENTS:
        known: Mapping[str, str] = DOCUMENTS[name]
        assert found.keys() <= known.keys()
        assert all(text.startswith("where ") for key, text in known.items() if key not in found)
    if name in WRITTEN:
        assert found == json.loads(Path(WRITTEN[name]).read_text())
    assert (name in WRITTEN) == (name in FILES)


def test_what_writes_no_report_yet_says_the_same(folder: Path, capsys: Capture) -> None:
    tried = printed("remap seed.onnx --set stage0.depth=1 --dry-run", capsys)
    assert tried["verified"] is None
    assert tried["changes"] == [{"knob": "stage0.depth", "from": 2, "to": 1}]
    assert printed("latency-table seed.onnx --space space.json --pack pieces", capsys)["folder"] == "pieces"
    would = printed("search --config search.toml --budget madds=500k -o dry --dry-run", capsys)
    assert would == {name: json.loads(Path(f"dry/{name}.json").read_text()) for name in ("space", "costs")}


def test_without_it_there_is_a_curve(folder: Path, capsys: Capture) -> None:
    assert run(["finetune", "start.onnx", "--config", "tune.toml", "-o", "curved.onnx"]) == 0
    assert "the best evaluation: top1 " in capsys.readouterr().out


@pytest.mark.parametrize(
    "line",
    [
        "remap seed.onnx --set stage9.depth=1 -o wrong.onnx",
        "head seed.onnx --task segmentation -o wrong.onnx",
        "task start.onnx --task pose -o wrong.onnx",
        "export module.py:none --input 1x3x8x8 -o wrong.onnx",
        "fold none.onnx -o wrong.onnx",
        "unfold seed.onnx --data none -o wrong.onnx",
        "cut seed.onnx --outputs nowhere -o wrong.onnx",
        "finetune seed.onnx --config tune.toml -o wrong.onnx",
        "search --config none.toml -o wrong.onnx",
        "derive none --argmax",
        "latency-table seed.onnx --space none -o wrong.onnx",
        "deploy none.onnx --target onnxruntime -o wrong.onnx",
    ],
)
def test_a_mistake_is_a_message_and_no_document(line: str, folder: Path, capsys: Capture) -> None:
    assert run([*line.split(), "--json"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert sum(line.startswith("fnatool: ") for line in told.err.splitlines()) == 1
    assert not Path("wrong.onnx").exists()
