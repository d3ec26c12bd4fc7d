"""The direction of the layers: passes know nothing of the shell, and heavy libraries stay where they belong."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys

import pytest
from sources import ROOT, SOURCES, imported

PASSES = [name for name in SOURCES if name.startswith("passes/")]

TORCH = (
    "fnatool/nn/",
    "fnatool/imitation/",
    "fnatool/supernet/",
    "fnatool/search/",
    "fnatool/tasks/",
    "fnatool/training/",
    "fnatool/export/",
    "fnatool/deploy/",
)
WITHOUT_TORCH = (
    "fnatool.data.checking",
    "fnatool.data.fashion.writing",
    "fnatool.tasks.scenes",
    "fnatool.tasks.reading",
    "fnatool.tasks.table",
    "fnatool.training.order",
    "fnatool.tasks.anchors",
    "fnatool.tasks.joints",
    "fnatool.search.config",
    "fnatool.training.config",
)
SCRIPT = "fnatool/latency/time_pieces.py"  # it runs alone on other machines too
RUNTIME = (
    "fnatool/runtime/session.py",
    "fnatool/runtime/libraries.py",
    "fnatool/runtime/half.py",
    "fnatool/runtime/quantising.py",
    "fnatool/latency/timing.py",
    SCRIPT,
)


@functools.cache
def tree(name: str) -> ast.Module:
    return ast.parse(SOURCES[name].read_text())


@functools.cache
def names_imported(name: str) -> set[str]:
    return imported(tree(name))


def roots(name: str) -> set[str]:
    return {full.split(".")[0] for full in names_imported(name)}


def called(name: str) -> set[str]:
    return {
        node.func.id for node in ast.walk(tree(name)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }


def test_there_are_modules_to_look_at() -> None:
    assert "passes/check/graph.py" in SOURCES
    assert "fnatool/cli/networks.py" in SOURCES


@pytest.mark.parametrize("name", PASSES)
def test_passes_are_pure(name: str) -> None:
    assert not roots(name) & {"fnatool", "torch", "torchvision", "onnxruntime", "click", "rich", "logging", "random"}
    assert not called(name) & {"print", "open", "input", "exec", "eval"}


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_layers_are_kept(name: str) -> None:
    full = names_imported(name)
    if not name.startswith("fnatool/cli/") and name != "fnatool/__main__.py":
        assert not any(other.startswith("fnatool.cli") for other in full)
    if not name.startswith(TORCH):
        assert not roots(name) & {"torch", "torchvision"}
    if not name.startswith(RUNTIME):
        assert "onnxruntime" not in roots(name)


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_reading_data_and_describing_a_task_do_not_load_torch(name: str) -> None:
    line = f"import sys, {name}; assert 'torch' not in sys.modules and 'torchvision' not in sys.modules"
    subprocess.run([sys.executable, "-c", line], check=True, cwd=ROOT)


def test_a_command_line_without_torch_starts() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; import fnatool.cli.main, fnatool.model.remap, "
        "fnatool.model.check, passes"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_no_exception_is_swallowed_wholesale(name: str) -> None:
    handlers = [node for node in ast.walk(tree(name)) if isinstance(node, ast.ExceptHandler)]
    broad = [h for h in handlers if h.type is None or (isinstance(h.type, ast.Name) and h.type.id == "Exception")]
    assert not broad


def test_one_place_makes_sessions_of_onnx_runtime() -> None:
    makers = [name for name, path in SOURCES.items() if "InferenceSession(" in path.read_text()]
    assert makers == [SCRIPT, "fnatool/runtime/session.py"]
