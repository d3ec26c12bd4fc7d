"""`python -m benchmarks.latency_model`: how well a latency table predicts members that were not used to make it.

50 random members of the MobileNetV2 detection space are timed whole, in the same rounds as the parts and the members
that the table is fitted on. Beside it, how well multiply-adds would predict them, by the same fit. Exit code 1 where a
bar is missed. With --store FILE an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
from scipy.stats import spearmanr

from fnatool import seeds
from fnatool.files import model as files
from fnatool.files.atomic import write_text
from fnatool.latency import measure as making
from fnatool.latency.fitting import fit, random_member
from fnatool.latency.pieces import cut_up, whole
from fnatool.latency.store import Store
from fnatool.latency.timing import TimingDevice, nanoseconds
from passes.graph.cutting import Bare
from passes.space.costs import cost_tables

RESULTS = Path(__file__).parent / "results"
ERROR_BAR, RANK_BAR = 0.10, 0.95
SEED = 2026  # of the members; those of the fit have another

Member = tuple[int, ...]


def random_members(of: making.Subject, count: int, without: set[Member]) -> list[Member]:
    """Different members, every choice equally likely, none of those in `without`."""
    rng = np.random.default_rng(SEED)
    found: dict[Member, None] = {}
    while len(found) < count:
        member = random_member(of.found, rng)
        if member not in without:
            found[member] = None
    return list(found)


def judged(predicted: np.ndarray, measured: np.ndarray) -> dict[str, float]:
    """Mean and largest relative error, and Spearman's rank correlation."""
    errors = abs(predicted / measured - 1)
    return {
        "mean_error": float(errors.mean()),
        "largest_error": float(errors.max()),
        "spearman": float(spearmanr(predicted, measured).statistic),
    }


def main() -> None:
    """Measure, print, write the results; exit 1 where a bar is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.latency_model", description=__doc__.partition("\n\n")[0]
    )
    parser.add_argument("--model", default="mobilenetv2_bn", help="a path, or the bundled seed")
    parser.add_argument("--space", default="fna-detection")
    parser.add_argument("--provider", default="cpu", choices=("cpu", "cuda", "tensorrt"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--members", type=int, default=50)
    parser.add_argument("--store", type=Path, metavar="FILE", help="where timings are kept")
    parser.add_argument("--output", type=Path, default=RESULTS / "latency_model.json", metavar="FILE")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        document = measured(asked, asked.store or Path(folder) / "timings.json")
    for kind in ("latency table", "multiply-adds"):
        row = document[kind]
        print(
            f"{kind:14} mean error {row['mean_error']:.1%}, largest {row['largest_error']:.1%}, Spearman "
            f"{row['spearman']:.3f}"
        )
    write_text(asked.output, json.dumps(document, indent=1) + "\n", force=True)
    row = document["latency table"]
    raise SystemExit(1 if row["mean_error"] > ERROR_BAR or row["spearman"] < RANK_BAR else 0)


def measured(asked: argparse.Namespace, store_path: Path) -> dict[str, dict[str, float]]:
    """The document of results."""
    loads: list[float] = []

    def timed(network: Bare, place: TimingDevice) -> int:
        loads.append(os.getloadavg()[0])
        return nanoseconds(network, place)

    options = making.LatencyOptions(place=TimingDevice(asked.provider, asked.threads), rounds=asked.rounds, timed=timed)
    of = making.subject(files.read(seeds.bundled(asked.model) or asked.model), asked.space)
    madds = cost_tables(of.analysis, of.found)["madds"]
    fitted_on = making.members_of_fit(of, options)
    members = random_members(of, asked.members, set(fitted_on))
    networks = {member: whole(of.graph, of.analysis, of.found, member) for member in (*fitted_on, *members)}
    everything = {
        **cut_up(of.graph, of.analysis, of.found).networks,
        **{one.signature: one for one in networks.values()},
    }
    store = Store(store_path, options.place.key)
    times = making.time_all(everything, store, options)
    table = making.measure_table(of, store, options)
    real = np.array([times[networks[member].signature] for member in members])
    by_madds = fit([madds.of(one.member) for one in table.members], [one.measured for one in table.members])
    return {
        "latency table": judged(np.array([table.table.of(member) for member in members]), real),
        "multiply-adds": judged(np.array([by_madds.of(madds.of(member)) for member in members]), real),
        "bars": {"mean_error": ERROR_BAR, "spearman": RANK_BAR},
        "fit": {
            "a_ms": table.fit.a / 1e6,
            "b": table.fit.b,
            "error": table.fit.error,
            "error_left_out": table.fit.error_left_out,
        },
        "how": {
            "model": asked.model,
            "space": asked.space,
            "inputs": {name: list(shape) for name, shape in of.about.inputs.items()},
            "members": len(members),
            "members_of_fit": len(fitted_on),
            "networks": len(times),
            "rounds": asked.rounds,
            "place": options.place.key,
            "clock": options.place.clock,
            "onnxruntime": onnxruntime.__version__,
            "cores": os.cpu_count(),
            "load": {"least": min(loads), "median": statistics.median(loads), "most": max(loads)} if loads else None,
        },
        "members": [
            {"measured_ms": time / 1e6, "predicted_ms": table.table.of(member) / 1e6, "madds": madds.of(member)}
            for member, time in zip(members, real.tolist(), strict=True)
        ],
    }


if __name__ == "__main__":
    main()
