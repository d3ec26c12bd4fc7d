"""`python -m benchmarks.remap_study`: does remapping pay? One target network, started from remapped, copied and random
weights.

fashion-scenes segmentation, the published FNA target (fna-seg) with its DeepLabv3 head at a small image size, and the
seed's own architecture beside it; with the optimiser that `fnatool finetune` takes for the task. `--rows` makes other
tables: other tasks, numbers of scenes, steps, a larger scale for a GPU. `--rows unfold` asks whether a seed whose
BatchNorm the exporter folded away learns better with one put in again (classification). Every arm chooses its learning
rate on seed 0, by a part of the training scenes that is kept back; then it is trained on all of them, with three seeds,
and measured on scenes of other garments. A run that is finished is never run again, so the study can be stopped and
goes on. `--plan` prints the runs and the minutes they are estimated to take.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx_graphsurgeon as gs

import fnatool
from fnatool import seeds, specs
from fnatool.files import model as files
from fnatool.files.atomic import write_text
from fnatool.files.metrics import metric_rows
from fnatool.model.analysed import read_spec
from fnatool.model.headed import HeadOptions, attach_to_model
from fnatool.tasks import scenes as writing
from fnatool.training.config import parse_config
from passes.graph.view import view
from passes.target.spec import Spec

RESULTS = Path(__file__).parent / "results"
RATES = {"sgd": (0.003, 0.01, 0.03), "adamw": (0.0003, 0.001, 0.003)}
"""Learning rates to choose from. By SGD at any of these, so few steps of segmentation leave every pixel background."""
SEEDS = (0, 1, 2)
KEPT_BACK = 5  # one training scene in so many chooses the rate
EPOCHS = 2  # between looks at the figure
METRIC = {"classification": "top1", "segmentation": "mIoU", "detection": "mAP"}
HEADS = {
    "classification": HeadOptions(task="classification", classes="10", verify=False),
    "segmentation": HeadOptions(task="segmentation", classes="11", verify=False),
    "detection": HeadOptions(task="detection", style="ssdlite", classes="10", levels=4, verify=False),
}
SPECS = {"classification": "fna-retinanet", "segmentation": "fna-seg", "detection": "fna-ssdlite"}
SECONDS = {"classification": 0.3, "segmentation": 0.5, "detection": 0.5}  # a step of 16 at 96×96, on one CPU core
ASIDE = 20.0  # seconds that a run takes beside its steps


@dataclass(frozen=True)
class Row:
    """One table: a task, so many labelled scenes, steps of training, a batch and an image size; `kind` is what is
    compared.
    """

    kind: str = "remap"
    task: str = "segmentation"
    labels: int = 500
    steps: int = 300
    batch: int = 16
    size: int = 96

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.task}-{self.labels}-{self.steps}x{self.batch}-{self.size}"

    @property
    def optimiser(self) -> Mapping[str, object]:
        """That of the task, in `fnatool finetune`."""
        return parse_config({"task": self.task}).optimiser.model_dump(mode="json")

    @property
    def rates(self) -> tuple[float, ...]:
        """Learning rates to choose from."""
        return RATES[str(self.optimiser["name"])]


@dataclass(frozen=True)
class Run:
    """One training: an arm with a learning rate and a seed; `choosing` runs see the kept-back scenes instead of the
    real validation.
    """

    row: Row
    arm: str
    rate: float
    seed: int
    choosing: bool

    @property
    def name(self) -> str:
        return f"{self.arm.replace(' ', '-')}-lr{self.rate}-seed{self.seed}{'-choosing' if self.choosing else ''}"


# --- the arms -----------------------------------------------------------------------------------


def remapped(row: Row, seed: int, strategy: str) -> files.Model:
    """The target with the seed's parameters."""
    spec = read_spec(Path(specs.find(SPECS[row.task])))
    spec = replace(spec, knobs={**spec.knobs, "input.size": (row.size, row.size)})
    made = fnatool.remap(seeds.DEFAULT, spec, options=fnatool.RemapOptions(strategy=strategy, seed=seed))
    return made.model


def randomised(model: files.Model, seed: int) -> files.Model:
    """The same graph with He-initialised weights (fan-out) and fresh BatchNorms."""
    rng = np.random.default_rng(seed)
    graph = model.graph.copy()
    tensors: Mapping[str, gs.Tensor] = graph.tensors()
    for node in view(graph).nodes:
        if node.op in ("Conv", "Gemm"):
            weight = tensors[node.inputs[1]]
            fan = weight.values.shape[0] * int(np.prod(weight.values.shape[2:])) // max(node.int("group", 1), 1)
            weight.values = (rng.standard_normal(weight.values.shape) * np.sqrt(2 / fan)).astype(weight.values.dtype)
        if node.op == "BatchNormalization":
            for name, value in zip(node.inputs[1:5], (1, 0, 0, 1), strict=True):
                tensors[name].values = np.full_like(tensors[name].values, value)
    return replace(model, graph=graph)


def same_architecture(row: Row, seed: int) -> files.Model:
    """The seed itself, at the image size and with the output stride of the target."""
    spec = read_spec(Path(specs.find(SPECS[row.task])))
    knobs = {key: value for key, value in spec.knobs.items() if key == "output_stride"}
    own = replace(spec, knobs={**knobs, "input.size": (row.size, row.size)})
    return fnatool.remap(seeds.DEFAULT, own, options=fnatool.RemapOptions(seed=seed)).model


def folded(row: Row) -> files.Model:
    """The seed as exporters leave it: BatchNorm folded into the convolutions."""
    sized = Spec({"input.size": (row.size, row.size)})
    return fnatool.fold(fnatool.remap(seeds.DEFAULT, sized).model, options=fnatool.FoldOptions(verify=False)).model


def unfolded(row: Row, seed: int, data: Path) -> files.Model:
    """The same with BatchNorm put in again, its statistics those of the training scenes."""
    mean, scale = seeds.PIXELS[seeds.NAMES[0]]
    options = fnatool.UnfoldOptions(data=data / "train", images=256, seed=seed, mean=mean, scale=scale)
    return fnatool.unfold(folded(row), options=options).model


Arm = Callable[[Row, int, Path], files.Model]  # of a row, a seed and the data
ARMS: Mapping[str, Mapping[str, Arm]] = {
    "remap": {
        "remap fna": lambda row, seed, data: remapped(row, seed, "fna"),
        "remap preserve": lambda row, seed, data: remapped(row, seed, "preserve"),
        "random": lambda row, seed, data: randomised(remapped(row, seed, "fna"), seed),
        "the seed's own": lambda row, seed, data: same_architecture(row, seed),
    },
    "unfold": {"unfolded": unfolded, "folded": lambda row, seed, data: folded(row)},
}
BASE = {"remap": "random", "unfold": "folded"}  # what the others are compared with


# --- runs ---------------------------------------------------------------------------------------


def plan(row: Row) -> Iterator[Run]:
    """All runs; the rate of those that do not choose one is not known yet."""
    yield from choosing(row)
    yield from chosen(row, dict.fromkeys(ARMS[row.kind], row.rates[1]))


def choosing(row: Row) -> list[Run]:
    """The runs that choose the rates."""
    return [Run(row, arm, rate, 0, choosing=True) for arm in ARMS[row.kind] for rate in row.rates]


def chosen(row: Row, rates: Mapping[str, float]) -> list[Run]:
    """The runs with the rate of each arm."""
    return [Run(row, arm, rate, seed, choosing=False) for arm, rate in rates.items() for seed in SEEDS]


def perform_all(runs: Sequence[Run], folder: Path, jobs: int) -> list[dict[str, object]]:
    """The results of runs, so many at a time, each on one thread."""
    for run in runs:
        scenes(run.row, folder, choosing=run.choosing)
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(perform, runs, [folder] * len(runs)))


def perform(run: Run, folder: Path) -> dict[str, object]:
    """The result of a run, performed unless it has been before: its figure, and the figure at every evaluation."""
    home = folder / run.row.name / run.name
    done = home / "result.json"
    if not done.exists():
        home.mkdir(parents=True, exist_ok=True)
        data = scenes(run.row, folder, choosing=run.choosing)
        model = replace(ARMS[run.row.kind][run.arm](run.row, run.seed, data), path=home / "seed.onnx")
        mean, scale = seeds.PIXELS[seeds.NAMES[0]]
        headed = attach_to_model(model, replace(HEADS[run.row.task], seed=run.seed, mean=mean, scale=scale))
        headed.write(home / "start.onnx", force=True)
        config = parse_config(
            {
                "task": run.row.task,
                "data": {"path": str(data), "workers": 0},
                "optimiser": {**run.row.optimiser, "lr": run.rate},
                "run": {
                    "steps": run.row.steps,
                    "batch": run.row.batch,
                    "seed": run.seed,
                    "evaluate": EPOCHS,
                    "threads": 1,
                },
            }
        )
        options = fnatool.FinetuneOptions(folder=home / "run", force=True)
        tuned = fnatool.finetune(home / "start.onnx", config, home / "tuned.onnx", options=options)
        assert tuned is not None
        curve = [
            (row["step"], row[tuned.metric]) for row in metric_rows(home / "run/metrics.jsonl") if row["kind"] == "val"
        ]
        result = {**asdict(run), "figure": tuned.in_runtime[tuned.metric], "curve": curve}
        write_text(done, json.dumps(result) + "\n", force=True)
    found: dict[str, object] = json.loads(done.read_text(encoding="utf-8"))
    return found


def scenes(row: Row, folder: Path, *, choosing: bool) -> Path:
    """The data: all training scenes and others to validate; or to choose by, the training scenes alone, one in
    KEPT_BACK kept back.
    """
    whole = folder / f"scenes-{row.task}-{row.labels}-{row.size}"
    if not whole.exists():
        writing.write_scenes(whole, writing.SceneOptions(row.task, row.size, row.labels, 200, 0))
    if not choosing:
        return whole
    part = whole.with_name(whole.name + "-choosing")
    if not part.exists():
        draft = part.with_name(part.name + ".draft")
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(whole, draft)
        _keep_back(draft, row.task)
        draft.rename(part)
    return part


def _keep_back(folder: Path, task: str) -> None:
    """One training scene in KEPT_BACK becomes the validation, in place of the real one."""
    if task == "classification":
        for path in (folder / "val").rglob("*.jpg"):
            path.unlink()
        for path in sorted((folder / "train").rglob("*.jpg"))[::KEPT_BACK]:
            path.rename(folder / "val" / path.relative_to(folder / "train"))
        return
    if task == "segmentation":
        lists = folder / "ImageSets" / "Segmentation"
        names = (lists / "train.txt").read_text().splitlines()
        (lists / "val.txt").write_text("\n".join(names[::KEPT_BACK]) + "\n")
        (lists / "train.txt").write_text("\n".join(name for k, name in enumerate(names) if k % KEPT_BACK) + "\n")
        return
    path = folder / "annotations" / "instances_train.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    for split, wanted in (("val", True), ("train", False)):
        images = [image for k, image in enumerate(document["images"]) if (k % KEPT_BACK == 0) == wanted]
        ids = {image["id"] for image in images}
        boxes = [box for box in document["annotations"] if box["image_id"] in ids]
        (path.parent / f"instances_{split}.json").write_text(
            json.dumps({**document, "images": images, "annotations": boxes})
        )
        if wanted:
            for image in images:
                (folder / "val").mkdir(exist_ok=True)
                shutil.copy(folder / "train" / image["file_name"], folder / "val" / image["file_name"])


# --- what came of it ----------------------------------------------------------------------------


def study(row: Row, folder: Path, jobs: int) -> dict[str, object]:
    """The table of a row: for each arm its rate, figures, mean ± deviation, and the steps to reach the best of the
    base.
    """
    found: dict[str, dict[str, object]] = {}
    tries = perform_all(choosing(row), folder, jobs)
    tried = {arm: {one["rate"]: one["figure"] for one in tries if one["arm"] == arm} for arm in ARMS[row.kind]}
    rates = {arm: max(figures, key=lambda rate: (figures[rate], -rate)) for arm, figures in tried.items()}
    done = perform_all(chosen(row, rates), folder, jobs)
    for arm, rate in rates.items():
        results = [result for result in done if result["arm"] == arm]
        figures = [result["figure"] for result in results]
        found[arm] = {
            "rate": rate,
            "tried": tried[arm],
            "figures": figures,
            "mean": statistics.mean(figures),
            "deviation": statistics.stdev(figures),
            "curves": [result["curve"] for result in results],
        }
    best = max(found[BASE[row.kind]]["figures"])  # type: ignore[call-overload]
    for arm in found.values():
        reached = [next((step for step, value in curve if value >= best), None) for curve in arm["curves"]]  # type: ignore[union-attr,operator]
        arm["steps_to_best_of_base"] = reached
    return {"row": asdict(row), "metric": METRIC[row.task], "arms": found, "base": BASE[row.kind], "best_of_base": best}


def separated(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """The means differ by more than the deviations of both together (root of the sum of squares)."""
    return abs(one["mean"] - other["mean"]) > float(np.hypot(one["deviation"], other["deviation"]))


def table(found: Mapping[str, object]) -> str:
    """The table as Markdown."""
    arms: Mapping[str, dict[str, object]] = found["arms"]  # type: ignore[assignment]
    base = arms[str(found["base"])]
    lines = [
        f"| started from | learning rate | {found['metric']} | against {found['base']} | steps to its best |",
        "|---|---|---|---|---|",
    ]
    for name, arm in arms.items():
        difference = float(arm["mean"]) - float(base["mean"])  # type: ignore[arg-type]
        apart = f"{difference:+.3f}" if separated(arm, base) else "not separated"  # type: ignore[arg-type]
        steps = ", ".join("–" if step is None else str(step) for step in arm["steps_to_best_of_base"])  # type: ignore[attr-defined]
        lines.append(
            f"| {name} | {arm['rate']} | {arm['mean']:.3f} ± {arm['deviation']:.3f} | "
            f"{'' if arm is base else apart} | {steps} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Perform the study and print its tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.remap_study", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--plan", action="store_true", help="print the runs and how long they may take, and do nothing")
    parser.add_argument(
        "--rows",
        nargs="*",
        default=["segmentation"],
        metavar="TASK|unfold[:LABELS[:STEPS[:BATCH[:SIZE]]]]",
        help="tables to make",
    )
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="runs at a time, each on one thread")
    parser.add_argument(
        "--folder", type=Path, default=Path("build/remap_study"), metavar="DIR", help="where runs are kept"
    )
    parser.add_argument(
        "--output", type=Path, default=RESULTS / "remap_study.json", metavar="FILE", help="where the figures go"
    )
    options = parser.parse_args()
    rows = [_row(text) for text in options.rows]
    if options.plan:
        for row in rows:
            show_plan(row, options.folder, options.jobs)
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    found = [study(row, options.folder, options.jobs) for row in rows]
    versions = {name: metadata.version(name) for name in ("torch", "onnxruntime-gpu", "numpy")}
    machine = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions,
    }
    write_text(options.output, json.dumps({**machine, "tables": found}, indent=1) + "\n", force=True)
    for one in found:
        print(table(one))


def _row(text: str) -> Row:
    task, *numbers = text.split(":")
    names = ("labels", "steps", "batch", "size")
    row = Row("unfold", "classification") if task == "unfold" else Row(task=task)
    return replace(row, **dict(zip(names, map(int, numbers), strict=False)))


def show_plan(row: Row, folder: Path, jobs: int) -> None:
    """The runs of a row and their minutes, estimated for CPU cores."""
    minutes = (row.steps * SECONDS[row.task] * row.batch / 16 * (row.size / 96) ** 2 + ASIDE) / 60
    left = 0.0
    for run in plan(row):
        what = (
            f"learning rate {run.rate}, to choose by" if run.choosing else f"the chosen learning rate, seed {run.seed}"
        )
        done = (folder / row.name / run.name / "result.json").exists()
        left += 0 if done else minutes
        print(f"{row.name}: {run.arm}, {what}: {'done' if done else f'{minutes:.1f} min'}")
    print(f"{row.name}: {left / jobs:.0f} minutes left on {jobs} CPU cores, as estimated")


if __name__ == "__main__":
    main()
