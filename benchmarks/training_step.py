"""`python -m benchmarks.training_step`: a training step of the loaded module beside that of the torch network it was
exported from.

Same weights, same images, the two taking turns in one process. Time is the median of the steps, the ratio the median of
those of neighbours; the seconds of the processor say the same where others use the machine. Memory is the peak of a
process of its own above what it held before its first step (on CUDA: what torch allocated at most). Exit code 1 where a
ratio is over its bar.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
import torch.nn.functional as F

import fnatool.nn
from benchmarks import zoo
from fnatool.files.atomic import write_text

RESULTS = Path(__file__).parent / "results"
BAR = 1.05
MODELS = ("timm:resnet50", "timm:mobilenetv2_100")
KINDS = ("native", "loaded")
# what is freed leaves the process, so a peak is a peak
TRIM = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def build(kind: str, export: zoo.Export) -> torch.nn.Module:
    """The network in train mode: timm's own, or the file read by fnatool.nn."""
    return (zoo.network(export.name) if kind == "native" else fnatool.nn.load(zoo.cached(export))).train()


def step(
    module: torch.nn.Module, optimiser: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor
) -> tuple[float, float]:
    """Seconds of one step of SGD: on the clock, and of the processor."""
    start = time.perf_counter(), time.process_time()
    optimiser.zero_grad(set_to_none=True)
    F.cross_entropy(module(images), labels).backward()
    optimiser.step()
    if images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def batch(options: argparse.Namespace) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise and labels."""
    images = torch.randn(options.batch, 3, options.size, options.size, generator=torch.Generator().manual_seed(0))
    return images.to(options.device), (torch.arange(options.batch) % 1000).to(options.device)


@dataclass(frozen=True)
class Way:
    """How both are run: the order of their memory, and whether torch compiles them."""

    order: str = "NCHW"
    mode: str = "eager"

    def placed(self, module: torch.nn.Module, device: str) -> torch.nn.Module:
        """The module on the device."""
        kind = torch.channels_last if self.order == "NHWC" else torch.contiguous_format
        placed: torch.nn.Module = module.to(device, memory_format=kind)  # type: ignore[call-overload]
        if self.mode == "compiled":
            placed.compile(dynamic=False)
        return placed

    def __str__(self) -> str:
        return "" if self == Way() else f", {self.order}, {self.mode}"


def times(export: zoo.Export, options: argparse.Namespace, way: Way) -> dict[str, float]:
    """Median seconds a step by kind, and the median ratios of neighbours."""
    if way.mode == "compiled":
        torch.compiler.reset()
    modules = {kind: way.placed(build(kind, export), options.device) for kind in KINDS}
    optimisers = {kind: torch.optim.SGD(module.parameters(), 0.01, momentum=0.9) for kind, module in modules.items()}
    images, labels = batch(options)
    images = images.to(memory_format=torch.channels_last) if way.order == "NHWC" else images
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    for run in range(options.runs + options.warm):
        for kind in KINDS if run % 2 else KINDS[::-1]:
            seconds = step(modules[kind], optimisers[kind], images, labels)
            if run >= options.warm:
                found[kind].append(seconds)
    row = {f"{kind}_s": statistics.median(clock for clock, _ in values) for kind, values in found.items()}
    pairs = list(zip(found["loaded"], found["native"], strict=True))
    row["time_ratio"] = statistics.median(mine[0] / theirs[0] for mine, theirs in pairs)
    row["processor_ratio"] = statistics.median(mine[1] / theirs[1] for mine, theirs in pairs)
    return row


def peak(kind: str, export: zoo.Export, options: argparse.Namespace) -> float:
    """Bytes that two steps need at most above the network itself."""
    module = build(kind, export).to(options.device)
    optimiser = torch.optim.SGD(module.parameters(), 0.01)
    images, labels = batch(options)
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        before = _resident("VmRSS")
    for _ in range(2):
        step(module, optimiser, images, labels)
    return float(
        torch.cuda.max_memory_allocated() - before if options.device == "cuda" else _resident("VmHWM") - before
    )


def _resident(key: str) -> int:
    """A line of /proc/self/status in bytes; asking for VmRSS resets the high-water mark."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    if key == "VmRSS":
        Path("/proc/self/clear_refs").write_text("5")
    return int(lines[key].split()[0]) * 1024


def main() -> None:
    """Measure and print the ratios."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training_step", description=__doc__.partition("\n\n")[0]
    )
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="NAME", help="of the zoo")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--runs", type=int, default=7, help="timed steps of each kind")
    parser.add_argument("--warm", type=int, default=2, help="steps before them")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--orders", nargs="+", default=["NCHW"], choices=("NCHW", "NHWC"))
    parser.add_argument("--modes", nargs="+", default=["eager"], choices=("eager", "compiled"))
    parser.add_argument("--no-memory", action="store_true", help="time alone, which needs no processes of their own")
    parser.add_argument("--output", type=Path, default=RESULTS / "training_step.json", metavar="FILE")
    parser.add_argument("--one", nargs=2, metavar=("KIND", "NAME"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.one is not None:
        print(peak(options.one[0], _export(options.one[1]), options))
        return
    ways = [Way(order, mode) for mode in options.modes for order in options.orders]
    rows = {f"{name}{way}": _row(name, options, way) for name in options.models for way in ways}
    over = False
    for name, row in rows.items():
        over |= max(row["time_ratio"], row.get("peak_ratio", 0.0)) > BAR
        told = (
            f"{name:24} native {row['native_s']:7.3f} s, loaded {row['loaded_s']:7.3f} s: {row['time_ratio']:.3f}× "
            f"(processor {row['processor_ratio']:.3f}×)"
        )
        if "peak_ratio" in row:
            told += (
                f";  {row['native_peak'] / 1e6:6.0f} MB, {row['loaded_peak'] / 1e6:6.0f} MB: {row['peak_ratio']:.3f}×"
            )
        print(f"{told} (bar {BAR})")
    _write(options, rows)
    raise SystemExit(1 if over else 0)


def _export(name: str) -> zoo.Export:
    return zoo.Export(name, "legacy", 20, "static", zoo.NETWORKS[name], variant="bn")


def _row(name: str, options: argparse.Namespace, way: Way) -> dict[str, float]:
    row = times(_export(name), options, way)
    if options.no_memory or way != Way():
        return row
    for kind in KINDS:
        same = (
            "--device",
            options.device,
            "--batch",
            str(options.batch),
            "--size",
            str(options.size),
            "--threads",
            str(options.threads),
        )
        command = [sys.executable, "-m", "benchmarks.training_step", "--one", kind, name, *same]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | TRIM)
        row[f"{kind}_peak"] = float(done.stdout)
    return row | {"peak_ratio": row["loaded_peak"] / row["native_peak"]}


def _write(options: argparse.Namespace, rows: dict[str, dict[str, float]]) -> None:
    """The figures of this device in the file, those of another kept."""
    device = torch.cuda.get_device_name() if options.device == "cuda" else platform.machine()
    settings = {
        "device": device,
        "batch": options.batch,
        "size": options.size,
        "runs": options.runs,
        "threads": options.threads,
    }
    versions = {name: metadata.version(name) for name in ("torch", "timm")}
    document = json.loads(options.output.read_text()) if options.output.exists() else {}
    document[options.device] = {**settings, **versions, "models": rows}
    write_text(options.output, json.dumps(document, indent=1) + "\n", force=True)


if __name__ == "__main__":
    main()
