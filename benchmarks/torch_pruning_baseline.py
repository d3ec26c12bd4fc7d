"""What Torch-Pruning leaves of the zoo's torch networks when it halves every width.

As its README does it: BasePruner, magnitude importance, pruning_ratio 0.5 in every layer (not global), no rounding of
channels, only the layers that give the outputs (classes) ignored. Each network is pruned in a process of its own with a
limit of time and memory. The answer counts only if the pruned network still runs and gives outputs of the same shape.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import platform
import resource
import subprocess
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from benchmarks.zoo import NETWORKS, network

if TYPE_CHECKING:
    import torch

RESULTS = Path(__file__).parent / "results" / "torch_pruning.json"
LIMIT = 600  # seconds for one network
MEMORY = 6 << 30  # bytes of data for one network; on some the importance grows without end


class Row(TypedDict):
    """Parameters of one network before and after, the fraction left; or why there is no after."""

    params_before: int | None
    params_after: int | None
    left: float | None
    error: str | None


def measure(name: str) -> Row:
    """Halves the network in this process."""
    import torch
    import torch_pruning  # type: ignore[import-untyped]

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    model = network(name)
    x = torch.randn(1, 3, NETWORKS[name], NETWORKS[name])
    with torch.no_grad():
        shape = model(x).shape
    before = _params(model)
    row = Row(params_before=before, params_after=None, left=None, error=None)
    step = "pruning"
    try:
        pruner = torch_pruning.pruner.BasePruner(
            model,
            x,
            importance=torch_pruning.importance.MagnitudeImportance(p=2),
            global_pruning=False,
            pruning_ratio=0.5,
            round_to=None,
            ignored_layers=_classifiers(model, shape[1]),
        )
        pruner.step()
        step = "running what is left"
        with torch.no_grad():
            after = model(x).shape
    except Exception as error:  # noqa: BLE001 — whatever it raises is the finding
        row["error"] = f"{step}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return row
    if after != shape:
        row["error"] = f"the output's shape is {tuple(after)}, was {tuple(shape)}"
        return row
    row["params_after"] = _params(model)
    row["left"] = round(_params(model) / before, 4)
    return row


def _classifiers(model: torch.nn.Module, classes: int) -> list[torch.nn.Module]:
    """The layers with one output channel per class."""
    import torch

    layers: list[torch.nn.Module] = []
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module.out_features == classes:
            layers.append(module)
        if isinstance(module, torch.nn.Conv2d) and module.out_channels == classes:
            layers.append(module)
    return layers


def _params(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def measure_apart(name: str, limit: int = LIMIT) -> Row:
    """measure() in a process of its own; past the limit, or where it dies, the row says so."""
    failed = Row(params_before=None, params_after=None, left=None, error=None)
    command = [sys.executable, "-m", "benchmarks.torch_pruning_baseline", "--one", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        failed["error"] = f"no result after {limit} s"
        return failed
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        failed["error"] = f"exit code {done.returncode}: {' '.join(done.stderr.split())[-300:]}"
        return failed
    row: Row = json.loads(lines[-1])
    return row


def main() -> None:
    """Measures the networks, one after another, and writes the table after each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.torch_pruning_baseline", description=measure.__doc__)
    parser.add_argument("--name", default="*", metavar="PATTERN", help="only networks like this, as timm:res*")
    parser.add_argument("--one", metavar="NAME", help="this network, in this process, printed and not written")
    options = parser.parse_args()
    if options.one:
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        print(json.dumps(measure(options.one)))
        return
    rows: dict[str, Row] = json.loads(RESULTS.read_text())["models"] if RESULTS.exists() else {}
    for name in NETWORKS:
        if name.startswith("light:") or not fnmatch.fnmatch(name, options.name):
            continue
        rows[name] = measure_apart(name)
        print(f"{name:50} {_shown(rows[name])}", flush=True)
        _write({known: rows[known] for known in NETWORKS if known in rows})


def _shown(row: Row) -> str:
    return row["error"] or f"{row['left']:6.1%} of {row['params_before']}"


def _write(rows: dict[str, Row]) -> None:
    """The whole table in one step."""
    packages = ("torch-pruning", "torch", "torchvision", "timm")
    versions = {"python": platform.python_version()} | {package: version(package) for package in packages}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    temporary = RESULTS.with_suffix(".part")
    temporary.write_text(json.dumps({"versions": versions, "models": rows}, indent=1) + "\n")
    temporary.replace(RESULTS)


if __name__ == "__main__":
    main()
