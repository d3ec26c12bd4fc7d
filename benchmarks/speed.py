"""`python -m benchmarks.speed`: the processor time and peak memory of whole commands beside those of `onnx.load` +
`onnx.save`.

Narrowing and widening ResNet-50 (102 MB) beside load and save of the same file, `inspect` of the bundled seed, and
remaps of networks of 10,000 and 50,000 nodes. Every run is a process of its own, interpreter and imports included, the
kinds taking turns; verification is not part of it. Processor time, since other work on the machine does not count in
it; figures are medians.
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
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks import zoo
from fnatool.files.atomic import write_text

RESULTS = Path(__file__).parent / "results"
BARS = {"narrow": (1.2, 1.5), "widen": (1.6, 3.0)}  # processor time and peak memory, as multiples of load + save
NEAR_LINEAR = 1.25  # of the time for each node of the shorter network, what one of the longer may take
LOAD_AND_SAVE = "import sys, onnx; onnx.save(onnx.load(sys.argv[1]), sys.argv[2])"
START = """
import json, os, subprocess, sys
_, status, used = os.wait4(subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL).pid, 0)
print(json.dumps({"seconds": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss * 1024}))
sys.exit(status != 0)
"""  # from a small process: the peak of a child begins with the memory of its parent
LONG = (10_000, 50_000)  # nodes
LONG_RUNS = 1  # of each of these, which take long


def commands(model: Path, folder: Path) -> Mapping[str, Sequence[str]]:
    """What is measured, by name: the arguments of Python."""
    half, quarter_more = folder / "half.json", folder / "quarter_more.json"
    for spec, factor in ((half, "x0.5"), (quarter_more, "x1.25")):
        spec.write_text(json.dumps({"version": 1, "knobs": {"**.width*": factor, "**.hidden*": factor}}))
    width = folder / "width.json"
    width.write_text(json.dumps({"version": 1, "knobs": {"**.width*": "x0.5"}}))

    def remap(seed: Path, spec: Path) -> Sequence[str]:
        return [
            "-m",
            "fnatool",
            "remap",
            str(seed),
            "--spec",
            str(spec),
            "-o",
            str(folder / "out.onnx"),
            "--force",
            "--no-verify",
        ]

    found: dict[str, Sequence[str]] = {
        "load and save": ["-c", LOAD_AND_SAVE, str(model), str(folder / "same.onnx")],
        "narrow": remap(model, half),
        "widen": remap(model, quarter_more),
        "inspect": ["-m", "fnatool", "inspect", "mobilenetv2_bn"],
    }
    for nodes in LONG:
        seed = folder / f"{nodes}.onnx"
        onnx.save(residual(nodes), seed)
        found[f"{nodes} nodes"] = remap(seed, width)
    return found


def residual(size: int, channels: int = 8) -> onnx.ModelProto:
    """A network of about so many nodes: a stem, blocks of two convolutions around which the data goes too, and a
    classifier.
    """
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def made(op: str, name: str, *inputs: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op, list(inputs), [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    def weight(name: str, *shape: int) -> str:
        weights.append(numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name))
        return name

    def convolution(name: str, data: str, inputs: int, kernel: int) -> str:
        read = weight(f"{name}.weight", channels, inputs, kernel, kernel), weight(f"{name}.bias", channels)
        return made("Conv", name, data, *read, kernel_shape=[kernel] * 2, pads=[kernel // 2] * 4)

    trunk = convolution("stem", "x", 3, 3)
    for k in range(size // 5):
        inner = made("Relu", f"{k}.act", convolution(f"{k}.one", trunk, channels, 3))
        trunk = made("Relu", f"{k}.exit", made("Add", f"{k}.add", trunk, convolution(f"{k}.two", inner, channels, 1)))
    features = made("Flatten", "flat", made("GlobalAveragePool", "pool", trunk))
    made("MatMul", "head", features, weight("head.weight", channels, 10))
    ends = [
        helper.make_tensor_value_info(*end)
        for end in (("x", TensorProto.FLOAT, [1, 3, 16, 16]), ("head_out", TensorProto.FLOAT, [1, 10]))
    ]
    graph = helper.make_graph(nodes, "residual", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def measure(arguments: Sequence[str]) -> dict[str, float]:
    """Seconds of processor time and peak bytes of Python with these arguments."""
    started = subprocess.run(
        [sys.executable, "-c", START, sys.executable, *arguments], check=True, capture_output=True, text=True
    )
    return dict(json.loads(started.stdout))


def main() -> None:
    """Measure all kinds and print their ratios; exit 1 where one is over its bar."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--runs", type=int, default=7, help="of each kind")
    options = parser.parse_args()
    model = zoo.cached(zoo.Export("timm:resnet50"))
    with tempfile.TemporaryDirectory() as folder:
        kinds = commands(model, Path(folder))
        found: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
        for done in range(options.runs):
            for kind, arguments in kinds.items():
                if done < LONG_RUNS or not kind.endswith("nodes"):
                    found[kind].append(measure(arguments))
    medians = {
        kind: {key: statistics.median(run[key] for run in runs) for key in ("seconds", "peak")}
        for kind, runs in found.items()
    }
    base = medians["load and save"]
    over = False
    for kind, row in medians.items():
        row["time_ratio"], row["peak_ratio"] = (row[key] / base[key] for key in ("seconds", "peak"))
        bars = BARS.get(kind)
        over |= bars is not None and (row["time_ratio"] > bars[0] or row["peak_ratio"] > bars[1])
        limits = f" (bars {bars[0]}, {bars[1]})" if bars is not None else ""
        ratios = f"{row['time_ratio']:.2f}× time, {row['peak_ratio']:.2f}× peak{limits}"
        print(f"{kind:14} {row['seconds']:6.2f} s {row['peak'] / 1e6:5.0f} MB   {ratios}")
    short, long = (medians[f"{nodes} nodes"]["seconds"] / nodes for nodes in LONG)
    over |= long > NEAR_LINEAR * short
    print(
        f"a node of the longer network takes {long / short:.2f} times what one of the shorter does (bar {NEAR_LINEAR})"
    )
    document = {
        "model": model.stem,
        "bytes": model.stat().st_size,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **medians,
    }
    write_text(RESULTS / "speed.json", json.dumps(document, indent=1) + "\n", force=True)
    raise SystemExit(1 if over else 0)


if __name__ == "__main__":
    main()
