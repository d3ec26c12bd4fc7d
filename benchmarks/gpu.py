"""`python -m benchmarks.gpu` (`make gpu`): what only a device can show, a line a check; under ten minutes on one GPU.

Every check runs in a process of its own, so that one that dies takes no other with it. Figures and the machine go to
results/gpu.json. `--dry` goes through the same code on the CPU with next to nothing to do: it says that the script is
whole, and measures nothing. Exit code 1 where a check fails. A check that this machine cannot do (a second device,
timm) says so and is no failure.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import itertools
import json
import math
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from PIL import Image

import fnatool
from benchmarks import zoo
from fnatool import nn, seeds
from fnatool.files import model as files
from fnatool.files.atomic import write_text
from fnatool.files.metrics import metric_rows
from fnatool.model.headed import HeadOptions
from fnatool.search.config import parse_search
from fnatool.tasks import scenes
from fnatool.training import learner, loop, machine, watching
from fnatool.training.config import Config, parse_config
from fnatool.training.finetune import prepare_training
from fnatool.training.loading import AHEAD
from fnatool.training.order import TrainOrder
from fnatool.training.processes import World
from fnatool.training.stepping import dealt
from passes.errors import UserError

RESULTS = Path(__file__).parent / "results"
HEADS = {
    "classification": HeadOptions(task="classification", classes="10"),
    "segmentation": HeadOptions(task="segmentation", classes="11", width=32),
    "detection": HeadOptions(task="detection", classes="10", width=32, levels=3),
    "pose": HeadOptions(task="pose", joints="5", width=32),
}
BACKBONES = ("seed", "resnet50")  # the bundled MobileNetV2, and onnx's own graph with drawn weights
SECONDS = {
    "provider": 30, "forward": 50, "tasks": 100, "resume": 40, "search": 80, "idle": 70, "too large": 20, "steps": 160,
    "processes": 50,
}  # fmt: skip
"""That each check may take, on a device: ten minutes together."""
DRY_SECONDS = 300  # on a processor that is busy with other things
TOLERANCE = 1e-4  # of float32 on two devices, of the spread
DOUBLE = 1e-9
SYNCS = 4
ALPHA = 1e-3
IDLE = 0.15  # of the device, with 16 workers
EAGER, COMPILED = 1.05, 1.0  # a training step beside native timm's
ENTANGLED = 1.35  # an architecture step beside one of the largest member
KILLED = 30  # seconds after which the others have ended


@dataclass(frozen=True)
class Verdict:
    """What a check found: whether it holds (None: it cannot be done here), a line, and the numbers behind it."""

    holds: bool | None
    said: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """Where checks run: the device, how much there is to do, and a folder for what they need."""

    device: str
    dry: bool
    folder: Path

    def few(self, many: int, dry: int) -> int:
        """So many, or so few."""
        return dry if self.dry else many

    @property
    def size(self) -> int:
        """The side of images; the bundled seed's."""
        return 96

    def world(self) -> World:
        return World(0, 1, torch.device(self.device, 0) if self.device == "cuda" else torch.device("cpu"))

    def photographs(self) -> Path:
        """Scenes enlarged to JPEG files of 640×480, in two classes."""
        place = self.folder / "photographs"
        if not place.exists():
            files_of = sorted(self.data("classification").rglob("*.[pj][np]g"))[: self.few(64, 12)]
            for number in range(self.few(1024, 12)):
                path = place / f"{'train' if number % 8 else 'val'}/{'ab'[number % 2]}/{number}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                if number < len(files_of):
                    Image.open(files_of[number]).convert("RGB").resize((640, 480), Image.Resampling.BICUBIC).save(
                        path, quality=90
                    )
                    files_of[number] = path
                else:
                    path.write_bytes(files_of[number % len(files_of)].read_bytes())
        return place

    def data(self, task: str) -> Path:
        """Scenes of the task."""
        place = self.folder / f"{task}-scenes"
        if not place.exists():
            scenes.write_scenes(place, scenes.SceneOptions(task, self.size, self.few(512, 12), self.few(64, 10), 0))
        return place

    def model(
        self, task: str, backbone: str = BACKBONES[0], *, size: int | None = None, classes: str | None = None
    ) -> Path:
        """A backbone with the head of a task; size: another one than its own."""
        place = self.folder / f"{task}-{backbone}-{size}-{classes}.onnx"
        if not place.exists():
            seed = self.sized(self.seed(backbone), size)
            options = replace(HEADS[task], verify=False)
            fnatool.head(seed, place, options=options if classes is None else replace(options, classes=classes))
        return place

    def seed(self, backbone: str) -> Path:
        """The file of a backbone."""
        place = self.folder / f"{backbone}.onnx"
        if backbone == BACKBONES[0]:
            found: Path = seeds.find(seeds.DEFAULT)
            return found
        if not place.exists():
            onnx.save(zoo.build(zoo.Export(f"light:{backbone}", "wheel", 9)), place)
        return place

    def sized(self, seed: Path, size: int | None) -> Path:
        """The file of the seed for images of that size."""
        if size is None:
            return seed
        spec, place = self.folder / f"{size}.json", self.folder / f"{seed.stem}-{size}.onnx"
        spec.write_text(json.dumps({"version": 1, "knobs": {"input.size": [size, size]}}))
        if not place.exists():
            fnatool.remap(seed, spec, place)
        return place

    def config(self, task: str, **run: object) -> Config:
        """A short run on the scenes."""
        how = {"batch": self.few(32, 2), "steps": self.few(30, 2), "device": self.device, **run}
        return parse_config(
            {
                "task": task,
                "data": {"path": str(self.data(task)), "workers": self.few(4, 0)},
                "run": how,
                "optimiser": {"warmup": self.few(5, 0)},
            }
        )


# --- one device ---------------------------------------------------------------------------------


def provider(bench: Bench) -> Verdict:
    """ONNX Runtime opens the provider, and a model is as good there as on the CPU."""
    found = {}
    for name in ("cpu", bench.device):
        options = fnatool.EvaluateOptions(provider=name, batch=bench.few(32, 2), workers=0)
        found[name] = fnatool.evaluate(
            bench.model("classification"), bench.data("classification"), options=options
        ).figures
    apart = max(abs(found["cpu"][key] - found[bench.device][key]) for key in found["cpu"])
    return Verdict(apart <= 0.02, f"evaluate on {bench.device} is {apart:.4f} from the CPU", {"apart": apart})


def forward(bench: Bench) -> Verdict:
    """Four heads on two backbones: outputs in single precision, gradients in double, beside the CPU's."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    worst = {"outputs": 0.0, "gradients": 0.0}
    for task in list(HEADS)[: bench.few(4, 1)]:
        for backbone, size in zip(BACKBONES[: bench.few(2, 1)], (bench.size, 224), strict=False):
            here, there = (nn.load(bench.model(task, backbone)) for _ in range(2))
            there = there.to(bench.world().device)
            x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
            worst["outputs"] = max(
                worst["outputs"], _apart(_outputs(here, x), _outputs(there, x.to(bench.world().device)))
            )
            gradients = [_gradients(module.double(), x.double()) for module in (here, there)]
            worst["gradients"] = max(worst["gradients"], _apart(*gradients))
    holds = worst["outputs"] <= TOLERANCE and worst["gradients"] <= DOUBLE
    return Verdict(
        holds,
        f"outputs {worst['outputs']:.1e} (float32), gradients {worst['gradients']:.1e} (double) from the CPU",
        worst,
    )


def _outputs(module: torch.nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    made = module(x)
    return [made] if isinstance(made, torch.Tensor) else list(made)


def _gradients(module: torch.nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    device = next(module.parameters()).device
    torch.stack([value.square().mean() for value in _outputs(module, x.to(device))]).sum().backward()
    return [parameter.grad for parameter in module.parameters() if parameter.grad is not None]


def _apart(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    """The largest difference, of the spread of what it is in."""
    found = 0.0
    for one, other in zip(ours, theirs, strict=True):
        one, other = one.detach(), other.detach().cpu()
        found = max(found, float((one - other).abs().max()) / max(float(one.max() - one.min()), 1e-3))
    return found


@contextmanager
def _precision(kind: torch.dtype | None) -> Iterator[None]:
    """Mixed precision is of this type on a device, whatever it has."""
    before = machine.amp_type
    for module in (machine, learner):
        module.amp_type = lambda wanted: kind if wanted else None  # type: ignore[assignment]
    try:
        yield
    finally:
        for module in (machine, learner):
            module.amp_type = before


def tasks(bench: Bench) -> Verdict:
    """Four tasks learn in bfloat16 and in float16: the loss falls, all is finite, ONNX Runtime says what training
    said.
    """
    numbers: dict[str, Any] = {}
    wrong = []
    for task in list(HEADS)[: bench.few(4, 1)]:
        for kind in (torch.bfloat16, torch.float16)[: bench.few(2, 1)]:
            name = f"{task}, {str(kind).removeprefix('torch.')}"
            out = bench.folder / f"{task}-{str(kind)[-3:]}.onnx"
            with _precision(kind):
                tuned = fnatool.finetune(bench.model(task), bench.config(task), out)
            assert tuned is not None
            losses = [
                row["loss"] for row in metric_rows(out.with_suffix(".run") / "metrics.jsonl") if row["kind"] == "train"
            ]
            edge = max(len(losses) // 6, 1)
            falls = statistics.mean(losses[-edge:]) < statistics.mean(losses[:edge])
            apart = abs(tuned.figures[tuned.metric] - tuned.in_runtime[tuned.metric])
            numbers[name] = {"first": losses[0], "last": losses[-1], "apart": apart}
            if not (all(map(math.isfinite, losses)) and (falls or bench.dry) and apart <= 0.03):
                wrong.append(name)
    return Verdict(
        not wrong, f"{len(numbers)} runs learn, {len(wrong)} do not" + f": {'; '.join(wrong)}" * bool(wrong), numbers
    )


class _Enough(Exception):
    """A run has come as far as it was to."""


def resume(bench: Bench) -> Verdict:
    """A run that ends in the middle goes on at the same speed, and no step waits for the device more often than it has
    to.
    """
    steps, stop = bench.few(40, 4), bench.few(20, 2)
    folder = bench.folder / "resume"
    folder.mkdir()
    how = bench.config("classification", steps=steps, checkpoint=1, evaluate=1000)
    how = how.model_copy(update={"optimiser": how.optimiser.model_copy(update={"name": "adamw", "lr": 1e-3})})
    job = prepare_training(files.read(bench.model("classification")), how, folder, bench.world())

    def timed(end: int) -> list[float]:
        times = [time.perf_counter()]

        def stepped(step: int, values: Mapping[str, float]) -> None:
            times.append(time.perf_counter())
            if step == end and end < steps:
                raise _Enough

        silent = watching.silent()
        with _uncaught():
            loop.finetune(job, bench.world(), replace(silent, stepped=stepped))
        taken = [after - before for before, after in itertools.pairwise(times)]
        return taken[len(taken) // 4 :]

    first, second = statistics.median(timed(stop)), statistics.median(timed(steps))
    waits = _waits(bench)
    ratio = second / first
    holds = (0.9 <= ratio <= 1.1 or bench.dry) and waits <= SYNCS
    return Verdict(
        holds, f"a step after a resume takes {ratio:.2f}×; {waits} waits a step", {"ratio": ratio, "waits": waits}
    )


@contextmanager
def _uncaught() -> Iterator[None]:
    try:
        yield
    except _Enough:
        return


def _waits(bench: Bench) -> int:
    """How often a training step makes the host wait, as torch counts it on CUDA; 0 on the CPU."""
    if bench.device == "cpu":
        return 0
    how = bench.config("classification")
    job = prepare_training(files.read(bench.model("classification")), how, bench.folder / "waits", bench.world())
    made = learner.Learner(job.model, how, bench.world())
    batches = loop._batches(job, made, 6)  # so many that one is fetched ahead in the step that is looked at
    for _ in range(2):
        loop._step(made, job, next(batches), (1e-3, 0.0))
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop._step(made, job, next(batches), (1e-3, 0.0))
    torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


def search(bench: Bench) -> Verdict:
    """Both methods and both relaxations find something; α under mixed precision is what it is without. Peak memory is
    of each.
    """
    numbers: dict[str, Any] = {}
    for method, relaxation in (("distance", "entangled"), ("gradient", "entangled"), ("gradient", "paths"))[
        : bench.few(3, 1)
    ]:
        alphas = {}
        for amp in (True, False) if method == "gradient" else (True,):
            name = f"{method}-{relaxation}{'' if amp else '-float32'}"
            out = bench.folder / name
            if bench.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            found = fnatool.search(None, _search_config(bench, method, relaxation, amp), out)
            assert found is not None
            numbers[f"{name}, MB"] = torch.cuda.max_memory_allocated() / 1e6 if bench.device == "cuda" else 0.0
            if method == "gradient":
                state = torch.load(out / "checkpoint.pt", weights_only=True, map_location="cpu")["state"]["network"]
                alphas[amp] = torch.cat([value.flatten() for key, value in state.items() if "alphas" in key])
        if alphas:
            numbers[f"{method}-{relaxation}, alpha"] = float((alphas[True] - alphas[False]).abs().max())
    apart = max((value for key, value in numbers.items() if key.endswith("alpha")), default=0.0)
    return Verdict(apart <= ALPHA, f"α moves {apart:.1e} by mixed precision; {len(numbers)} figures", numbers)


def _search_config(bench: Bench, method: str, relaxation: str, amp: bool) -> Any:
    steps = bench.few(20, 2)
    return parse_search(
        {
            "task": "classification",
            "model": seeds.NAMES[0],
            "data": {"path": str(bench.data("classification")), "workers": bench.few(4, 0)},
            "space": {"choices": "coarse"},
            "search": {"method": method, "relaxation": relaxation, "steps": steps, "alpha_from": 0.0, "finalists": 1},
            "distance": {"images": bench.few(32, 2), "batch": bench.few(32, 2), "members": bench.few(8, 1)},
            # Adam goes its rate whatever the gradient is: where that is nothing but rounding, twenty steps part by it
            # at most
            "alpha": {"lr": ALPHA / 20},
            "cost": {"budget": ["madds=80%"]},
            "refit": {"enabled": "no"},
            "run": {"batch": bench.few(16, 2), "device": bench.device, "amp": amp},
            "score": {"images": bench.few(32, 2), "calibration": bench.few(32, 2)},
            "finetune": {"enabled": False},
        }
    )


def idle(bench: Bench) -> Verdict:
    """The share of a step in which the device waits for samples, by the number of processes that load them; photographs
    at 224×224.
    """
    size, many = bench.few(224, 96), bench.few(128, 2)
    how = bench.config("classification", batch=many)
    data = how.data.model_copy(update={"path": str(bench.photographs())})
    model = bench.model("classification", size=None if bench.dry else size, classes="2")
    how = how.model_copy(update={"data": data})
    job = prepare_training(files.read(model), how, bench.folder / "idle", bench.world())
    made = learner.Learner(job.model, how, bench.world())
    steps = bench.few(24, 2)
    numbers: dict[str, float] = {}
    train, device = job.objective.train, bench.world().device  # type: ignore[attr-defined]
    batch = next(dealt(train, TrainOrder(len(job.objective), many, 1, 0), device, workers=0))
    _seconds(made, job, [batch] * 2, bench)
    synthetic = _seconds(made, job, [batch] * steps, bench)
    for workers in (2, 8, 16)[: bench.few(3, 1)]:
        # batches that the processes make before anybody asks: without these, what they make in the time
        kept = AHEAD * workers + 2
        order = TrainOrder(len(job.objective), many, kept + steps, 0)
        batches = dealt(train, order, device, workers=0 if bench.dry else workers)
        for _ in range(kept):
            next(batches)
        real = _seconds(made, job, batches, bench)
        numbers |= {
            f"{workers}, images/s": many / real,
            f"{workers}, idle": max(1 - synthetic / real, 0.0),
            "images/s, synthetic": many / synthetic,
        }
    said = ", ".join(
        f"{value:.0%} with {name.partition(',')[0]}" for name, value in numbers.items() if name.endswith("idle")
    )
    few = (os.cpu_count() or 1) < 16
    holds = bench.dry or few or numbers["16, idle"] <= IDLE
    return Verdict(holds, f"the device is idle {said} workers, at {size}×{size}, on {os.cpu_count()} cores", numbers)


def _seconds(made: learner.Learner, job: loop.TrainingJob, batches: Any, bench: Bench) -> float:
    """A step, in the mean."""
    start, count = time.perf_counter(), 0
    for batch in batches:
        loop._step(made, job, batch, (1e-3, 0.0))
        count += 1
    if bench.device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / max(count, 1)


def too_large(bench: Bench) -> Verdict:
    """A batch that no device holds is refused with what to lower."""
    how = bench.config("classification", batch=1 << 16, steps=1)
    how = how.model_copy(update={"data": how.data.model_copy(update={"augment": False})})
    out = bench.folder / "large.onnx"
    try:
        job = prepare_training(files.read(bench.model("classification")), how, bench.folder / "large", bench.world())
        job = replace(job, objective=_Many(job.objective))  # type: ignore[arg-type]
        loop.finetune(job, bench.world(), watching.silent())
    except UserError as error:
        return Verdict("run.batch" in str(error), f"refused: {str(error)[:80]}…")
    return Verdict(False, f"a batch of {1 << 16} was learnt, or {out.name} failed otherwise")


class _Many:
    """An objective that says it has samples for any batch."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __len__(self) -> int:
        return 1 << 20

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


# --- the same steps elsewhere -------------------------------------------------------------------


TRAINING = ["--models", "timm:mobilenetv2_100", "--orders", "NCHW", "NHWC", "--no-memory"]
STEPS = {
    "training_step": [*TRAINING, "--modes", "eager"],
    "architecture_step": ["--alpha-only", "--order", "NHWC"],
    "training_step, compiled": [*TRAINING, "--modes", "compiled"],
    "architecture_step, compiled": ["--alpha-only", "--order", "NHWC", "--compile"],
}
REST = 15  # seconds in which a check says what it has found


def steps(bench: Bench) -> Verdict:
    """A training step beside native timm's, eager and compiled, NCHW and NHWC; an architecture step beside the largest
    member's.
    """
    if bench.dry:
        return Verdict(None, "not in a dry run: `python -m benchmarks.training_step` is the same on the CPU")
    said: list[str] = []
    numbers: dict[str, Any] = {}
    late: list[str] = []
    end = time.monotonic() + SECONDS["steps"] - REST
    for name, more in STEPS.items():
        script = name.partition(",")[0]
        if script == "training_step" and importlib.util.find_spec("timm") is None:
            said.append("timm is not installed")
            continue
        place = bench.folder / f"{script}.json"
        place.unlink(missing_ok=True)
        command = [
            sys.executable,
            "-m",
            f"benchmarks.{script}",
            "--device",
            bench.device,
            "--output",
            str(place),
            "--batch",
            "64",
            *more,
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=max(end - time.monotonic(), 1))
        except subprocess.TimeoutExpired:
            late.append(name)
            continue
        numbers[name] = json.loads(place.read_text()) if place.exists() else done.stderr.strip()[-200:]
        told = "; ".join(re.findall(r"[0-9.]+×", done.stdout)[:8])
        said.append(f"{name}: {told or done.stderr.strip()[-80:]}")
    said += [f"{name}: not in time" for name in late]
    holds = _within(numbers)
    return Verdict(None if holds and late else holds, " | ".join(said), numbers)


def _within(numbers: Mapping[str, Any]) -> bool:
    """Every step that was taken is within its bar, and none is missing."""
    for name, found in numbers.items():
        if isinstance(found, str):
            return False
        for row in found.values():
            ratios = {key: value["time_ratio"] for key, value in row.get("models", {}).items()}
            if any(ratio > (COMPILED if "compiled" in key else EAGER) for key, ratio in ratios.items()):
                return False
            if name.startswith("architecture") and row["ratios"]["entangled / largest, time"] > ENTANGLED:
                return False
    return True


# --- several processes --------------------------------------------------------------------------


def processes(bench: Bench) -> Verdict:
    """One process averages by NCCL; two on one device are refused; on two devices they learn what one does."""
    if bench.device == "cpu":
        return Verdict(None, "NCCL needs a device")
    place = bench.folder / "meet"
    torch.distributed.init_process_group("nccl", init_method=f"file://{place}", rank=0, world_size=1)
    ones = torch.ones(4, device=bench.world().device)
    torch.distributed.all_reduce(ones)
    torch.distributed.destroy_process_group()
    count = torch.cuda.device_count()
    refused = _together(bench, count + 1, "refused")
    told = (refused.stdout + refused.stderr).count("Error: ")
    said = [
        f"NCCL adds up to {float(ones.sum()):.0f}",
        f"{count + 1} processes on {count} device(s): exit code {refused.returncode}, said {told} time(s)",
    ]
    holds = float(ones.sum()) == 4 and refused.returncode != 0 and "CUDA device" in refused.stdout + refused.stderr
    if count > 1:
        apart = _together_apart(bench)
        seconds = _killed(bench)
        said.append(f"two devices are {apart:.1e} from one; a killed process ends the run in {seconds:.0f} s")
        holds &= apart <= 1e-2 and seconds <= KILLED
    return Verdict(holds, "; ".join(said), {"devices": count})


def _together(bench: Bench, count: int, name: str) -> subprocess.CompletedProcess[str]:
    """A run of so many processes; its result is NAME.onnx."""
    return subprocess.run(_command(bench, count, name, 3), capture_output=True, text=True, timeout=SECONDS["processes"])


def _killed(bench: Bench) -> float:
    """Seconds from the death of one of two processes in the middle of a run to the end of the other and of their
    launcher.
    """
    with subprocess.Popen(
        _command(bench, 2, "killed", 10**5), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as launcher:
        rows = bench.folder / "killed.run/metrics.jsonl"
        while not (rows.exists() and rows.read_text().count("train") > 3):
            if launcher.poll() is not None:
                return math.inf
            time.sleep(0.2)
        children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGKILL)
        start = time.monotonic()
        with contextlib.suppress(subprocess.TimeoutExpired):
            launcher.wait(2 * KILLED)
        seconds = time.monotonic() - start
        launcher.kill()
    return seconds


def _command(bench: Bench, count: int, name: str, steps: int) -> list[str]:
    """What starts a run of so many processes."""
    how = bench.config("classification", steps=steps, amp=False)
    how = how.model_copy(update={"averages": how.averages.model_copy(update={"freeze_batchnorm": "yes"})})
    document = json.loads(how.model_dump_json())
    config = bench.folder / "together.toml"
    lines = [f"task = {json.dumps(document.pop('task'))}"]
    for section, keys in document.items():
        lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items() if value is not None)]
    config.write_text("\n".join(lines) + "\n")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    told = [str(bench.model("classification")), "--config", str(config), "-o", str(bench.folder / f"{name}.onnx")]
    return [*launcher, "-m", "fnatool", "finetune", *told]


def _together_apart(bench: Bench) -> float:
    """How far the figures of two processes are from those of one."""
    losses = []
    for count in (1, 2):
        done = _together(bench, count, f"by{count}")
        assert done.returncode == 0, done.stderr[-500:]
        found = metric_rows(bench.folder / f"by{count}.run/metrics.jsonl")
        losses.append([row["top1"] for row in found if row["kind"] == "val"])
    return max(abs(one - other) for one, other in zip(*losses, strict=True))


CHECKS: Mapping[str, Callable[[Bench], Verdict]] = {
    "provider": provider,
    "forward": forward,
    "tasks": tasks,
    "resume": resume,
    "search": search,
    "idle": idle,
    "too large": too_large,
    "steps": steps,
    "processes": processes,
}


def machine_named(device: str) -> dict[str, str]:
    """What the figures are of."""
    names = {
        "processor": f"{platform.machine()}, {os.cpu_count()} cores",
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
    if device == "cuda":
        names |= {
            "device": torch.cuda.get_device_name(),
            "devices": str(torch.cuda.device_count()),
            "cuda": str(torch.version.cuda),
        }
    return names


def checked(name: str, options: argparse.Namespace) -> Verdict:
    """A check in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.gpu",
        "--one",
        name,
        "--device",
        options.device,
        *(["--dry"] if options.dry else []),
    ]
    limit = DRY_SECONDS if options.dry else SECONDS[name]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as done:
        try:
            out, err = done.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            # and all that it has started, which would take the device from the next check
            os.killpg(done.pid, signal.SIGKILL)
            done.communicate()
            return Verdict(False, f"it took more than {limit} seconds")
    last = (out.strip().splitlines() or [""])[-1]
    if done.returncode or not last.startswith("{"):
        why = (err.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return Verdict(False, f"it died: {why[:200]}")
    return Verdict(**json.loads(last))


def alone(name: str, device: str, dry: bool) -> Verdict:
    """A check in this process, in a folder that goes afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        return CHECKS[name](Bench(device, dry, Path(folder)))


def main(arguments: list[str] | None = None) -> int:
    """Run the checks, print a line for each, write the file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    parser.add_argument("--dry", action="store_true", help="next to nothing to do, on the CPU")
    parser.add_argument(
        "--only", nargs="+", default=list(CHECKS), choices=list(CHECKS), metavar="CHECK", help=", ".join(CHECKS)
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: results/gpu.json; a dry run writes none")
    parser.add_argument("--one", choices=list(CHECKS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.device = "cpu" if options.dry else options.device
    if options.one is not None:
        print(json.dumps(vars(alone(options.one, options.device, options.dry))))
        return 0
    if options.device == "cuda" and not torch.cuda.is_available():
        print(f"torch finds no CUDA device: {machine.unusable() or 'there is none'}")
        return 2
    plan = ", ".join(f"{name} {SECONDS[name]} s" for name in options.only)
    print(f"on a device at most {sum(SECONDS[name] for name in options.only) / 60:.0f} minutes: {plan}", flush=True)
    found: dict[str, Verdict] = {}
    for name in options.only:
        start = time.perf_counter()
        found[name] = checked(name, options)
        word = {True: "ok", False: "FAILED", None: "skipped"}[found[name].holds]
        print(f"{word:8} {name:10} {found[name].said}  ({time.perf_counter() - start:.0f} s)", flush=True)
    output = options.output or (None if options.dry else RESULTS / "gpu.json")
    if output is not None:
        document = {
            "machine": machine_named(options.device),
            "dry": options.dry,
            "checks": {name: vars(one) for name, one in found.items()},
        }
        write_text(output, json.dumps(document, indent=1) + "\n", force=True)
    return 1 if any(one.holds is False for one in found.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
