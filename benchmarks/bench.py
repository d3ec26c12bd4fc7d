"""`python -m benchmarks.bench`: our commands beside onnxsim, onnxslim and Torch-Pruning on the same networks, as a user
would call them.

Every command is a process of its own and the tools take turns; a figure is the median of its runs, and a ratio is to
`onnx.load` + `onnx.save` of the same file in the same round. What is comparable, and what is not:

* onnxsim and onnxslim simplify, the network stays as wide as it is. Their output must compute what the input does, in
  ONNX Runtime.
* Torch-Pruning prunes torch modules. It halves the same network of timm or torchvision; what it makes must run. Its
  time includes building the network, but no export.
* `remap x0.5` compares the result on its inner values by itself; here it must run and have the input's outputs, type
  and shape.
* `remap x1.25` is `--strategy preserve --allow-drift`: it must compute what the input does, unless it says that it
  cannot.

The figures go to benchmarks/results/bench.json after every round; the exit code is 1 if a command of ours failed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from benchmarks import zoo
from benchmarks.attempt import ended
from fnatool.files.atomic import write_text

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("onnx", "onnxruntime-gpu", "onnxsim", "onnxslim", "torch-pruning", "torch", "torchvision", "timm", "numpy")
SECONDS = 120.0  # a command
SEED = Path(__file__).parent.parent / "fnatool" / "seeds" / "mobilenetv2_bn.onnx"

MODELS: Mapping[str, zoo.Export | Path] = {
    "mobilenetv2 (seed)": SEED,
    "resnet18": zoo.Export("timm:resnet18"),
    "resnet50": zoo.Export("timm:resnet50", exporter="legacy", variant="bn"),
    "mobilenetv2, float16": zoo.Export("timm:mobilenetv2_100", variant="half"),
    "mobilenetv3_large": zoo.Export("timm:mobilenetv3_large_100", exporter="legacy", variant="bn"),
    "efficientnet_b0": zoo.Export("timm:efficientnet_b0"),
    "densenet121": zoo.Export("timm:densenet121", exporter="legacy", opset=14, variant="bn"),
    "convnext_atto": zoo.Export("timm:convnext_atto"),
    "shufflenet_v2_x1_0": zoo.Export("torchvision:shufflenet_v2_x1_0"),
    "res2net50_26w_4s": zoo.Export("timm:res2net50_26w_4s"),
    "googlenet": zoo.Export("torchvision:googlenet", exporter="legacy", variant="bn"),
    "shufflenet (onnx light)": zoo.Export("light:shufflenet", exporter="wheel", opset=9),
}

LOAD_SAVE = "import sys, onnx; onnx.save(onnx.load(sys.argv[1]), sys.argv[2])"
BASE = "load + save"
OURS = "fnatool"
# MODEL, NETWORK (of torch), OUT and the specs are filled in; `diff` compares with what the remap before it made
COMMANDS: Mapping[str, Sequence[str]] = {
    BASE: ("-c", LOAD_SAVE, "MODEL", "OUT"),
    "fnatool inspect": ("-m", "fnatool", "inspect", "MODEL"),
    "fnatool check": ("-m", "fnatool", "check", "MODEL"),
    "fnatool profile": ("-m", "fnatool", "profile", "MODEL"),
    "fnatool remap x1.25": (
        "-m",
        "fnatool",
        "remap",
        "MODEL",
        "--spec",
        "x1.25",
        "-o",
        "OUT",
        "--strategy",
        "preserve",
        "--allow-drift",
    ),
    "fnatool remap x0.5": ("-m", "fnatool", "remap", "MODEL", "--spec", "x0.5", "-o", "OUT"),
    "fnatool diff": ("-m", "fnatool", "diff", "MODEL", "LAST"),
    "onnxsim": ("-m", "onnxsim", "MODEL", "OUT"),
    "onnxslim": ("-m", "onnxslim", "MODEL", "OUT"),
    "torch-pruning 0.5": ("-m", "benchmarks.torch_pruning_baseline", "--one", "NETWORK"),
}
ACCEPTED: Mapping[str, tuple[int, ...]] = {"fnatool diff": (1,)}  # as diff says that two files differ
SAME = ("fnatool remap x1.25", "onnxsim", "onnxslim", BASE)  # compute what the input does


@dataclass(frozen=True)
class Run:
    """One run of a command. `problem`: why it counts as failed; `note`: what it said of its result."""

    seconds: float
    peak_mb: float
    left: float | None = None  # parameters of the output / of the input
    moved: float | None = None  # the outputs' largest move, relative to their spread
    problem: str = ""
    note: str = ""


# --- one run ------------------------------------------------------------------------------------


def run(name: str, words: Mapping[str, str], folder: Path) -> Run:
    """A command in a process of its own, with one OpenMP thread, and what its output is worth."""
    command = [sys.executable, *(words.get(part, part) for part in COMMANDS[name])]
    out, err = folder / "stdout", folder / "stderr"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        start = time.monotonic()
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=_environment(), start_new_session=True
        )
        code, death, peak = ended(child.pid, SECONDS)
        seconds = time.monotonic() - start
    child.returncode = code if code is not None else -1  # it has been waited for
    said = (out.read_text(errors="replace"), err.read_text(errors="replace"))
    figures = (round(seconds, 3), round(peak / 1e6, 1))
    if code not in ACCEPTED.get(name, (0,)):
        return Run(*figures, problem=death or _reason(said))
    if name.startswith("torch-pruning"):
        row = json.loads(said[0].splitlines()[-1])
        return Run(*figures, left=row["left"], problem=row["error"] or "")
    if "OUT" not in COMMANDS[name]:
        return Run(*figures)
    note = (
        next((line for line in "".join(said).splitlines() if "the function changes" in line), "")
        if name in SAME
        else ""
    )
    return _judged(name, words, figures, note)


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def _reason(said: tuple[str, str]) -> str:
    """The last line of an error, or of what was printed."""
    lines = "\n".join(said).strip().splitlines()
    return " ".join(lines[-1].split())[:200] if lines else "no message"


def _judged(name: str, words: Mapping[str, str], figures: tuple[float, float], note: str) -> Run:
    """The run with what another process finds in its output."""
    command = [sys.executable, "-m", "benchmarks.bench", "--judge", words["MODEL"], words["OUT"]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
    if done.returncode:
        return Run(*figures, problem=f"its output does not run: {_reason((done.stdout, done.stderr))}", note=note)
    found = json.loads(done.stdout.splitlines()[-1])
    moved = found["moved"] if name in SAME else None
    problem = found["problem"]
    if moved is not None and moved > found["tolerance"] and not note:
        problem = problem or f"its output computes something else: values move by {moved:.1e} of their spread"
    return Run(*figures, left=found["left"], moved=moved, problem=problem, note=note[:200])


def judge(model: Path, output: Path) -> dict[str, object]:
    """Both files on the same noise in ONNX Runtime: parameters left, how far outputs moved, what is wrong with their
    types and shapes.
    """
    import numpy as np
    import onnxruntime as ort

    from fnatool.runtime.distance import HALF_TOLERANCE, TOLERANCE, distance

    kinds = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
    sessions = [ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]) for path in (model, output)]
    rng = np.random.default_rng(0)
    inputs = sessions[0].get_inputs()
    feeds = {
        i.name: rng.standard_normal([n if isinstance(n, int) else 1 for n in i.shape]).astype(kinds[i.type])
        for i in inputs
    }
    names = [value.name for value in sessions[0].get_outputs()]
    if names != [value.name for value in sessions[1].get_outputs()]:
        return {"left": None, "moved": None, "tolerance": TOLERANCE, "problem": "its outputs have other names"}
    before, after = (session.run(names, feeds) for session in sessions)
    problem = ""
    for name, a, b in zip(names, before, after, strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            problem = f"output '{name}' is {b.dtype}{list(b.shape)}, was {a.dtype}{list(a.shape)}"
        elif np.isfinite(a).all() and not np.isfinite(b).all():
            problem = f"output '{name}' is not finite"
    half = any(i.type == "tensor(float16)" for i in inputs)
    return {
        "left": round(_parameters(output) / _parameters(model), 4),
        "moved": max(distance(a, b) for a, b in zip(before, after, strict=True)),
        "tolerance": HALF_TOLERANCE if half else TOLERANCE,
        "problem": problem,
    }


def _parameters(path: Path) -> int:
    """Numbers in all tensors of floating point that a file stores."""
    import math

    import onnx

    proto = onnx.load(path)
    stored = [
        *proto.graph.initializer,
        *(attribute.t for node in proto.graph.node for attribute in node.attribute if attribute.HasField("t")),
    ]
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    return sum(math.prod(tensor.dims) for tensor in stored if tensor.data_type in floats)


# --- all ----------------------------------------------------------------------------------------


def measure(name: str, source: zoo.Export | Path, folder: Path) -> dict[str, Run]:
    """Every command once on a model; Torch-Pruning only where the model comes from a torch network."""
    network = source.name if isinstance(source, zoo.Export) and not source.name.startswith("light:") else ""
    words = {"MODEL": str(source if isinstance(source, Path) else zoo.cached(source)), "NETWORK": network}
    patterns = _patterns(words["MODEL"])
    for factor in ("x0.5", "x1.25"):
        words[factor] = str(folder / factor)
        (folder / factor).write_text(json.dumps({"version": 1, "knobs": dict.fromkeys(patterns, factor)}))
    found: dict[str, Run] = {}
    for command, parts in COMMANDS.items():
        if "NETWORK" in parts and not network:
            continue
        if "OUT" in parts:
            words["LAST"] = words["OUT"] = str(folder / f"{len(found)}.onnx")
        found[command] = run(command, words, folder)
        print(f"{name}: {command}: {found[command].problem or f'{found[command].seconds} s'}", flush=True)
    return found


def _patterns(model: str) -> list[str]:
    """Those that stand for all channels of a model; one that matches nothing is a mistake in a Spec."""
    command = [sys.executable, "-m", "fnatool", "inspect", model, "--json"]
    names = [
        knob["name"] for knob in json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["knobs"]
    ]
    return [f"**.{kind}*" for kind in ("width", "hidden", "se") if any(f".{kind}" in name for name in names)]


def summary(runs: Mapping[str, Mapping[str, Sequence[Run]]]) -> dict[str, dict[str, dict[str, object]]]:
    """Of every model and command the medians of its runs, and the first problem."""
    rows: dict[str, dict[str, dict[str, object]]] = {}
    for name, commands in runs.items():
        rows[name] = {}
        for command, ones in commands.items():
            ratios = [one.seconds / base.seconds for one, base in zip(ones, commands[BASE], strict=True)]
            rows[name][command] = {
                "seconds": statistics.median(one.seconds for one in ones),
                "ratio": round(statistics.median(ratios), 2),
                "peak_mb": statistics.median(one.peak_mb for one in ones),
                "left": ones[0].left,
                "moved": ones[0].moved,
                "problem": next((one.problem for one in ones if one.problem), ""),
                "note": ones[0].note,
                "all_seconds": [one.seconds for one in ones],
            }
    return rows


def show(rows: Mapping[str, Mapping[str, Mapping[str, object]]]) -> None:
    """A table of all commands on every model, and one of the commands."""
    for name, commands in rows.items():
        print(f"\n{name}")
        for command, row in commands.items():
            print(f"  {command:20} {_figures(row)}  {row['problem'] or row['note']}"[:220])
    print(f"\n{'over all models, medians':22} {'done':>7} {'seconds':>8} {'× base':>7} {'peak MB':>8} {'left':>6}")
    for command in COMMANDS:
        of = [commands[command] for commands in rows.values() if command in commands]
        done = [row for row in of if not row["problem"]]
        print(
            f"{command:24} {f'{len(done)}/{len(of)}':>7} {_median(done, 'seconds'):8.2f} "
            f"{_median(done, 'ratio'):7.2f} ",
            end="",
        )
        print(f"{_median(done, 'peak_mb'):8.0f} {_median(done, 'left'):6.3f}")


def _figures(row: Mapping[str, object]) -> str:
    left, moved = row["left"], row["moved"]
    texts = (
        f"{row['seconds']:7.2f} s",
        f"{row['ratio']:6.2f}×",
        f"{row['peak_mb']:7.0f} MB",
        "" if left is None else f"{left:.3f}",
    )
    return " ".join((*texts[:3], f"{texts[3]:>6}", "" if moved is None else f"{moved:.0e}"))


def _median(rows: Sequence[Mapping[str, object]], key: str) -> float:
    values = [float(str(row[key])) for row in rows if row[key] is not None]
    return statistics.median(values) if values else float("nan")


def _machine() -> dict[str, object]:
    """Versions, and what it ran on."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
    versions = {package: metadata.version(package) for package in PACKAGES}
    return {
        "python": platform.python_version(),
        "versions": versions,
        "cpu": model,
        "cores": os.cpu_count(),
        "threads": 1,
    }


def main() -> None:
    """Measure everything and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--runs", type=int, default=3, help="of each command on each model")
    parser.add_argument("--model", choices=list(MODELS), help="only this one")
    parser.add_argument(
        "--output", type=Path, default=RESULTS / "bench.json", metavar="FILE", help="where the figures go"
    )
    parser.add_argument("--judge", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.judge is not None:
        print(json.dumps(judge(*options.judge)))
        return
    machine = _machine()
    print(*(f"{package} {version}" for package, version in machine["versions"].items()), sep=", ")  # type: ignore[attr-defined]
    print(f"Python {machine['python']}, {machine['cpu']}, {machine['cores']} cores")
    models = {options.model: MODELS[options.model]} if options.model else MODELS
    found: dict[str, dict[str, list[Run]]] = {name: {} for name in models}
    for k in range(options.runs):
        for name, source in models.items():
            with tempfile.TemporaryDirectory() as folder:
                for command, one in measure(name, source, Path(folder)).items():
                    found[name].setdefault(command, []).append(one)
        rows = summary(found)
        write_text(options.output, json.dumps({**machine, "runs": k + 1, "models": rows}, indent=1) + "\n", force=True)
    show(rows)
    raise SystemExit(
        any(row["problem"] for commands in rows.values() for name, row in commands.items() if name.startswith(OURS))
    )


if __name__ == "__main__":
    main()
