"""`python -m benchmarks.deploy_study`: a model of each task deployed in fp32, fp16 and int8: its figures, its file, its
speed on this CPU.

The models are the bundled seed at 96×96 with a head, tuned for a few hundred steps on 500 scenes of garments. Figures
are of 200 scenes of other garments, end to end, from the bytes of a picture to the answer, in ONNX Runtime; speed is
that of the network alone, as `fnatool bench` compares, on one thread. `--models DIR` keeps models and data (task.onnx
and a folder task), and takes those that are there.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import fnatool
from fnatool.deploy.document import Document
from fnatool.deploy.options import PRECISIONS
from fnatool.files.atomic import write_text
from fnatool.model.headed import HeadOptions
from fnatool.runtime.quantising import has_int8_instructions
from fnatool.tasks import scenes
from fnatool.tasks.table import TASKS
from passes.errors import RefusedModel

RESULTS = Path(__file__).parent / "results" / "deploy_study.json"
SIZE, TRAIN, VAL = 96, 500, 200
MARKS = ("<!-- deployed: generated -->", "<!-- deployed: end -->")


@dataclass(frozen=True)
class Recipe:
    """A model that is worth deploying: the head, how many steps it is tuned for, and knobs of the seed beside its
    size.
    """

    steps: int
    head: HeadOptions
    knobs: Mapping[str, int] = field(default_factory=dict)


RECIPES = {
    "classification": Recipe(200, HeadOptions(task="classification", classes="10", verify=False)),
    "segmentation": Recipe(600, HeadOptions(task="segmentation", classes="11", verify=False), {"output_stride": 16}),
    "detection": Recipe(500, HeadOptions(task="detection", classes="10", levels=3, width=64, verify=False)),
    "pose": Recipe(200, HeadOptions(task="pose", classes="1", joints="5", verify=False)),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """The tables printed, and the JSON written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models", type=Path, default=Path("build/deploy_study"), help="where models and data are, or go"
    )
    parser.add_argument(
        "--steps", type=int, help="of training, for models that are not there; default: enough for sensible figures"
    )
    parser.add_argument(
        "--train-only", action="store_true", help="make the models that are not there, and measure nothing"
    )
    parser.add_argument("--task", choices=list(TASKS), action="append", help="only this one; repeatable")
    parser.add_argument("--seconds", type=float, default=10.0, help="of timing a model")
    parser.add_argument("--page", type=Path, help="a page of the documentation, whose table is written anew")
    asked = parser.parse_args(arguments)
    asked.models.mkdir(parents=True, exist_ok=True)
    held = json.loads(RESULTS.read_text())["tasks"] if RESULTS.is_file() else {}
    for task in asked.task or TASKS:
        model, data = made(task, asked.models, asked.steps)
        if asked.train_only:
            continue
        held[task] = row(task, model, data, asked.seconds)
        text = json.dumps({"place": place(), "size": SIZE, "tasks": held}, indent=1) + "\n"
        write_text(RESULTS, text.replace(f"{asked.models}/", ""), force=True)  # no folder of this machine
    lines = list(table(held))
    print("\n".join(lines))
    if asked.page is not None:
        text = asked.page.read_text()
        before, after = text.split(MARKS[0])[0], text.split(MARKS[1])[1]
        asked.page.write_text(f"{before}{MARKS[0]}\n\n" + "\n".join(lines) + f"\n\n{MARKS[1]}{after}")


def place() -> str:
    """The processor, and whether it has instructions for int8."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "a CPU")
    return f"{name}, {'with' if has_int8_instructions() else 'without'} instructions for int8, one thread"


def made(task: str, folder: Path, steps: int | None) -> tuple[Path, Path]:
    """The model of a task, and its data."""
    model, data, recipe = folder / f"{task}.onnx", folder / task, RECIPES[task]
    if not data.exists():
        scenes.write_scenes(data, scenes.SceneOptions(task, SIZE, TRAIN, VAL, 0))
    if not model.exists():
        small, start = folder / f"{task}-seed.onnx", folder / f"{task}-start.onnx"
        knobs = {"input.size": [SIZE, SIZE], **recipe.knobs}
        fnatool.remap("mobilenetv2_bn", {"version": 1, "knobs": knobs}, small, options=fnatool.RemapOptions(force=True))
        fnatool.head(small, start, options=replace(recipe.head, force=True))
        config = folder / f"{task}.toml"
        run = f"[run]\nsteps = {steps or recipe.steps}\nbatch = 16\nthreads = 1\nevaluate = 1000\n"
        config.write_text(f'task = "{task}"\n[data]\npath = "{data}"\n{run}')
        fnatool.finetune(start, config, model)
    return model, data


def row(task: str, model: Path, data: Path, seconds: float) -> dict[str, object]:
    """What each precision comes to."""
    metric = TASKS[task].metric
    found: dict[str, object] = {"metric": metric}
    with tempfile.TemporaryDirectory() as name:
        folder, networks = Path(name), []
        for precision in PRECISIONS:
            how = fnatool.DeployOptions(precision=precision, data=data)
            try:
                document = fnatool.deploy(model, folder / precision, options=how).document
            except RefusedModel as error:
                found[precision] = {"refused": str(error)}
                continue
            network = _network(model, data, folder / f"{precision}-network", document)
            found[precision] = _figures(document, metric, network)
            networks.append((precision, network))
        timed = fnatool.bench(*[path for _, path in networks], options=fnatool.BenchOptions(seconds=seconds))
        for (precision, _), timing in zip(networks, timed.timings, strict=True):
            found[precision]["faster"] = 1 / timing.ratio  # type: ignore[index]
            found[precision]["spread"] = timing.ratio_spread / timing.ratio**2  # type: ignore[index]
    return found


def _network(model: Path, data: Path, folder: Path, like: Document) -> Path:
    """The network alone, with the same numbers."""
    reduced = None if like.quantised is None else "7 bits" in like.quantised["scheme"]
    how = fnatool.DeployOptions(
        precision=like.precision, preprocessing=False, postprocessing=False, verify=False, reduce_range=reduced,
        data=data if like.precision == "int8" else None,
    )  # fmt: skip
    return fnatool.deploy(model, folder, options=how).folder / "model.onnx"


def _figures(document: Document, metric: str, network: Path) -> dict[str, object]:
    figures = document.figures or {}
    return {
        "before": figures["before"][metric],
        "after": figures["after"][metric],
        "as written": figures.get("after, as written", figures["after"])[metric],
        "apart": (document.verified or {}).get("apart"),
        "kept": list(document.kept_in_fp32),
        "quantised": document.quantised,
        "bytes": network.stat().st_size,
    }


def table(held: dict[str, dict[str, dict[str, object]]]) -> list[str]:
    """A row a task and precision, in Markdown."""
    lines = [
        "| task | precision | figure | loss, points | answers that differ | stay in fp32 | file | times as fast |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for task, rows in held.items():
        for precision in PRECISIONS:
            cell = rows[precision]
            if "refused" in cell:
                lines.append(f"| {task} | {precision} | refused | – | – | – | – | – |")
                continue
            before, after = float(str(cell["before"])), float(str(cell["after"]))
            kept, size = len(cell["kept"]) or "–", float(str(cell["bytes"])) / 1e6  # type: ignore[arg-type]
            faster = float(str(cell["faster"]))
            lines.append(
                f"| {task} | {precision} | {rows['metric']} {after:.4f} | {100 * (before - after):+.2f} | "
                f"{_share(cell)} | {kept} | "
                f"{size:.1f} MB | {faster:.2f} |"
            )
    return lines


def _share(cell: dict[str, object]) -> str:
    return f"{100 * float(str(cell['apart'])):.2f} %"


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
