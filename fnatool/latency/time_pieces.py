"""Time the pieces of a network that lie beside this file, in ONNX Runtime: a script that needs Python, numpy and
onnxruntime alone.

    python time_pieces.py [--provider cpu|cuda|tensorrt|NameOfExecutionProvider] [--threads N] [--rounds N] [--seconds
    S]

`fnatool latency-table SEED --space SPACE --pack DIR` wrote the folder; run this on the device, take the folder back,
and `fnatool latency-table SEED --space SPACE --unpack DIR -o latency.json` makes the table. Every timing is kept in
timings.json at once: what was interrupted, or ran out of its --seconds, goes on by the same command line. One session
lives at a time, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

WARM_RUNS, WARM_SECONDS = 3, 0.02
BURSTS, BURST_RUNS, BURST_SECONDS = 3, 5, 0.02
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
PIECES, TIMINGS, VERSION = "pieces.json", "timings.json", 1
SECONDS = 6000  # that one piece may take to load and to be timed: an engine may have to be built first
SEED = 0

Clock = Callable[[], int]


def clock_name(provider: str, threads: int) -> str:
    """What one run is timed by. A single thread on the processor is charged for its own work, not for others' turns on
    its core.
    """
    return "processor" if provider == "cpu" and threads == 1 else "wall"


def clock_of(name: str) -> Clock:
    """Nanoseconds of that clock."""
    return time.thread_time_ns if name == "processor" else time.perf_counter_ns


def place_key(provider: str, threads: int) -> str:
    """The same where two timings may be compared: provider, threads, version of ONNX Runtime, machine."""
    told = "1 thread" if threads == 1 else f"{threads} threads"
    return f"{provider}, {told}, onnxruntime {ort.__version__}, {machine(provider)}"


def machine(provider: str) -> str:
    """The name of the processor, and of the graphics card where that is what runs the network."""
    names = _values(Path("/proc/cpuinfo"), "model name")
    if provider != "cpu":
        for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
            names += _values(path, "Model")
    return ", ".join(dict.fromkeys(names)) or "unknown machine"


def _values(path: Path, key: str) -> list[str]:
    if not path.is_file():
        return []
    pairs = (line.partition(":") for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    return list(dict.fromkeys(value.strip() for name, _, value in pairs if name.strip() == key))


def session_options(threads: int) -> ort.SessionOptions:
    """So many threads, none of which spins: what waits leaves the processor to others."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def bursts(run: Callable[[], None], clock: Clock) -> int:
    """The time of one run: the median of bursts, of each the fastest run."""
    _burst(run, clock, WARM_RUNS, WARM_SECONDS)
    return int(np.median([_burst(run, clock, BURST_RUNS, BURST_SECONDS) for _ in range(BURSTS)]))


def _burst(run: Callable[[], None], clock: Clock, runs: int, seconds: float) -> int:
    """The fastest of at least so many runs that take at least so long."""
    end = time.perf_counter() + seconds
    best, count = 1 << 62, 0
    while count < runs or time.perf_counter() < end:
        start = clock()
        run()
        best = min(best, clock() - start)
        count += 1
    return best


# --- as a script --------------------------------------------------------------------------------


def main() -> int:
    """Time what is missing; 0 where nothing is any more, 3 where the budget of seconds was over before."""
    parser = argparse.ArgumentParser(
        description="Time the pieces of a network that lie beside this file, in ONNX Runtime."
    )
    parser.add_argument("--provider", default="cpu", help="cpu, cuda, tensorrt, or the name of an execution provider")
    parser.add_argument("--threads", type=int, default=1, help="of ONNX Runtime (1)")
    parser.add_argument("--rounds", type=int, default=8, help="how often everything is timed (8)")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="stop after so many; the same command goes on"
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.threads < 1 or asked.rounds < 1:
        parser.error("--threads and --rounds are 1 or more")
    folder = Path(__file__).resolve().parent
    if asked.one is not None:
        sys.stdout.write(f"{_one(folder / asked.one, asked.provider, asked.threads)}\n")
        return 0
    return _all(folder, asked)


def _one(path: Path, provider: str, threads: int) -> int:
    """Nanoseconds of a piece."""
    name = PROVIDERS.get(provider, provider)
    options = session_options(threads)
    options.log_severity_level = 4
    session = ort.InferenceSession(str(path), options, providers=[name])
    if session.get_providers()[0] != name:
        raise SystemExit(f"ONNX Runtime has no {name} here, it fell back to {session.get_providers()[0]}")
    binding, rng = session.io_binding(), np.random.default_rng(SEED)
    device = "cuda" if provider in ("cuda", "tensorrt") else "cpu"
    kinds = {"float": "float32", "double": "float64"}
    for value in session.get_inputs():
        kind = np.dtype(kinds.get(value.type[7:-1], value.type[7:-1]))
        shape = [extent if isinstance(extent, int) else 1 for extent in value.shape]
        noise = (
            rng.standard_normal(shape) if kind.kind == "f" else rng.integers(0, 256 if kind == np.uint8 else 2, shape)
        )
        binding.bind_ortvalue_input(value.name, ort.OrtValue.ortvalue_from_numpy(noise.astype(kind), device, 0))
    for value in session.get_outputs():
        binding.bind_output(value.name, device)
    return bursts(lambda: session.run_with_iobinding(binding), clock_of(clock_name(provider, threads)))


def _all(folder: Path, asked: argparse.Namespace) -> int:
    pieces: list[str] = json.loads((folder / PIECES).read_text())["pieces"]
    place = place_key(asked.provider, asked.threads)
    kept = _kept(folder)
    rows: dict[str, list[int]] = kept["timings"].setdefault(place, {})
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    about = {
        "provider": asked.provider,
        "threads": asked.threads,
        "clock": clock_name(asked.provider, asked.threads),
        "load": [load, load],
    }
    kept["places"][place] = about
    end = time.monotonic() + asked.seconds
    for number in range(asked.rounds):
        for k in np.random.default_rng([SEED, number]).permutation(len(pieces)).tolist():
            if len(rows.get(pieces[k], ())) > number:
                continue
            if time.monotonic() >= end:
                sys.stdout.write("the seconds are over; the same command goes on\n")
                return 3
            rows.setdefault(pieces[k], []).append(_in_child(pieces[k], asked))
            _keep(folder, kept)
        sys.stdout.write(f"round {number + 1} of {asked.rounds}: {len(pieces)} pieces on {place}\n")
        sys.stdout.flush()
    about["load"] = [load, os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0]
    _keep(folder, kept)
    return 0


def _in_child(piece: str, asked: argparse.Namespace) -> int:
    line = [
        sys.executable,
        __file__,
        "--one",
        f"{piece}.onnx",
        "--provider",
        asked.provider,
        "--threads",
        str(asked.threads),
    ]
    done = subprocess.run(line, capture_output=True, text=True, timeout=SECONDS)
    if done.returncode:
        raise SystemExit(f"{piece}.onnx: {(done.stderr.strip().splitlines() or ['it died'])[-1]}")
    return int(done.stdout.split()[-1])


def _kept(folder: Path) -> dict[str, Any]:
    """What is timed already."""
    path = folder / TIMINGS
    found: dict[str, Any] = (
        json.loads(path.read_text()) if path.exists() else {"version": VERSION, "timings": {}, "places": {}}
    )
    return found


def _keep(folder: Path, kept: dict[str, Any]) -> None:
    """On disk, whole or not at all."""
    draft = folder / f"{TIMINGS}.tmp"
    draft.write_text(json.dumps(kept) + "\n")
    draft.replace(folder / TIMINGS)


if __name__ == "__main__":
    sys.exit(main())
