"""`python -m benchmarks.speed`: the time and peak memory of a remap beside those of `onnx.load` + `onnx.save` on the same file.

ResNet-50 (102 MB), each run in a process of its own, the kinds taking turns; verification is not part of it. Ratios are of medians.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks import zoo
from fnatool.files.atomic import write_text

RESULTS = Path(__file__).parent / "results"
BARS = {"narrow": (2.0, 1.5), "widen": (3.0, 3.0)}  # time and peak memory, as multiples of load + save


def load_and_save(model: Path, output: Path) -> None:
    """What any tool on ONNX files has to do."""
    import onnx

    onnx.save(onnx.load(model), output)


def remap(model: Path, output: Path, factor: str) -> None:
    """Every width by a factor."""
    from fnatool.model.remap import remap as run
    from fnatool.model.remapped import RemapOptions

    run(model, {"version": 1, "knobs": {"**.width*": factor, "**.hidden*": factor}}, output, options=RemapOptions(verify=False))


KINDS: Mapping[str, Callable[[Path, Path], None]] = {
    "load and save": load_and_save,
    "narrow": lambda model, output: remap(model, output, "x0.5"),
    "widen": lambda model, output: remap(model, output, "x1.25"),
}


def measure(kind: str, model: Path, output: Path) -> None:
    """One run, in this process: seconds and peak bytes as JSON."""
    import onnx  # noqa: F401  what is imported is not what is measured

    start = time.perf_counter()
    KINDS[kind](model, output)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


def main() -> None:
    """Measure all kinds and print their ratios; exit 1 where one is over its bar."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5, help="of each kind")
    parser.add_argument("--one", nargs=2, metavar=("KIND", "MODEL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.one is not None:
            measure(options.one[0], Path(options.one[1]), Path(folder) / "out.onnx")
            return
    model = zoo.cached(zoo.Export("timm:resnet50"))
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for _ in range(options.runs):
        for kind in KINDS:
            command = [sys.executable, "-m", "benchmarks.speed", "--one", kind, str(model)]
            found[kind].append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    medians = {kind: {key: statistics.median(run[key] for run in runs) for key in ("seconds", "peak")} for kind, runs in found.items()}
    base = medians["load and save"]
    over = False
    for kind, row in medians.items():
        row["time_ratio"], row["peak_ratio"] = row["seconds"] / base["seconds"], row["peak"] / base["peak"]
        bars = BARS.get(kind, (1.0, 1.0))
        over |= row["time_ratio"] > bars[0] or row["peak_ratio"] > bars[1]
        print(
            f"{kind:14} {row['seconds']:5.2f} s {row['peak'] / 1e6:6.0f} MB   {row['time_ratio']:.2f}× time (bar {bars[0]}), "
            f"{row['peak_ratio']:.2f}× peak (bar {bars[1]})"
        )
    document = {"model": model.stem, "bytes": model.stat().st_size, "cores": os.cpu_count(), "python": platform.python_version(), **medians}
    write_text(RESULTS / "speed.json", json.dumps(document, indent=1) + "\n", force=True)
    raise SystemExit(1 if over else 0)


if __name__ == "__main__":
    main()
