"""`python -m benchmarks.architecture_step`: what a step of the search costs, beside plain training steps of the same
networks.

MobileNetV2 (the bundled seed), the published space for detection. In every round all kinds take one whole step each
(forward, backward, optimiser), in turn; a time is the median of the rounds, a ratio the median of the rounds' ratios.
On a CPU it is the processor's time, on one thread unless said otherwise: others use the machine. Memory is what
autograd saves for the backward pass, every storage once, parameters left out. Exit code 1 where a bar is missed.

As published, an architecture step computes the gradients of the weights too and drops them: the bars are for that. With
--alpha-only both relaxations spare them, as a search does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import fnatool.nn
from fnatool import seeds
from fnatool.files import model as files
from fnatool.files.atomic import write_text
from fnatool.model.analysed import analyse_model
from fnatool.search.sampling import sample, uniform
from fnatool.supernet.network import SuperNetwork, build
from passes import apply, plan
from passes.space.presets import preset
from passes.space.space import Choices, choices

RESULTS = Path(__file__).parent / "results"
SPACE = "fna-detection"
BARS = {
    "paths / entangled, time": (2.2, "at least"),
    "paths / entangled, memory": (4.0, "at least"),
    "entangled / largest, time": (1.35, "at most"),
    "weight step / alone, time": (1.15, "at most"),
}


@dataclass
class Kind:
    """Something that takes steps: the loss of a batch, and the optimiser of what learns."""

    loss: Callable[[Tensor, Tensor], Tensor]
    optimiser: torch.optim.Optimizer

    def step(self, images: Tensor, labels: Tensor) -> float:
        """Seconds of one step."""
        now = _clock(images)
        start = now()
        self.optimiser.zero_grad(set_to_none=True)
        self.loss(images, labels).backward()
        self.optimiser.step()
        return now() - start

    def saved(self, images: Tensor, labels: Tensor, parameters: set[int]) -> int:
        """Bytes of the storages that the forward pass saves for the backward pass."""
        storages: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in parameters:
                storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = self.loss(images, labels)
        total = sum(storages.values())
        del loss
        return total


def _clock(tensor: Tensor) -> Callable[[], float]:
    """Seconds of the processor, or where it is a GPU that works, on the clock."""
    if not tensor.is_cuda:
        return time.process_time

    def waited() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return waited


def kinds(options: argparse.Namespace) -> tuple[dict[str, Kind], set[int]]:
    """All kinds by name, and the storages of their parameters."""
    seed = files.read(seeds.DEFAULT)
    analysis = analyse_model(seed)
    found = choices(analysis, preset(SPACE, analysis))
    member = sample(found, uniform(found), seed=0, step=0)
    kind = torch.channels_last if options.order == "NHWC" else torch.contiguous_format

    def placed(module: torch.nn.Module) -> Any:
        return module.to(options.device, memory_format=kind).train()  # type: ignore[call-overload]

    networks = {name: placed(build(seed.graph, analysis, found, relaxation=name)) for name in ("entangled", "paths")}
    largest, alone = (placed(_loaded(seed, found, one)) for one in (found.largest(), member))
    if options.compile:
        for module in (largest, alone):
            module.compile(dynamic=False)
        for network in networks.values():
            network.compile_runs(partial(torch.compile, dynamic=False), torch.device(options.device))
    table = {
        "largest": Kind(lambda x, y: F.cross_entropy(largest(x), y), _sgd(largest.parameters())),
        "entangled": _architecture(networks["entangled"], train_weights=not options.alpha_only),
        "paths": _architecture(networks["paths"], train_weights=not options.alpha_only),
        "alone": Kind(lambda x, y: F.cross_entropy(alone(x), y), _sgd(alone.parameters())),
        "weight step": _weights(networks["entangled"], member),
    }
    modules = (largest, alone, *networks.values())
    return table, {
        value.untyped_storage().data_ptr() for one in modules for value in (*one.parameters(), *one.buffers())
    }


def _loaded(seed: files.Model, found: Choices, member: tuple[int, ...]) -> torch.nn.Module:
    """The member by itself, as training would load it."""
    target = apply(seed.graph, plan(analyse_model(seed), found.spec(member)))
    return fnatool.nn.load(replace(seed, graph=target)).train()


def _sgd(parameters: object) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, 0.01, momentum=0.9)  # type: ignore[arg-type]


def _architecture(network: SuperNetwork, *, train_weights: bool) -> Kind:
    """A step on α over all candidates."""

    def loss(x: Tensor, y: Tensor) -> Tensor:
        mixed = network(x) if not train_weights else network.forward_mixed(x, train_weights=True)
        return F.cross_entropy(mixed["logits"], y)

    return Kind(loss, torch.optim.Adam(network.alphas, 3e-4, betas=(0.5, 0.999), weight_decay=1e-3))


def _weights(network: SuperNetwork, member: tuple[int, ...]) -> Kind:
    """A step on the weights of one member."""

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(network(x, member)["logits"], y)

    return Kind(loss, _sgd(network.weight_parameters()))


def measure(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Seconds and saved bytes of each kind, and the ratios."""
    images = torch.randn(options.batch, 3, options.size, options.size, generator=torch.Generator().manual_seed(0)).to(
        options.device
    )
    images = images.to(memory_format=torch.channels_last) if options.order == "NHWC" else images
    labels = (torch.arange(options.batch) % 1000).to(options.device)
    table, parameters = kinds(options)
    saved = {name: kind.saved(images, labels, parameters) for name, kind in table.items()}
    rounds: list[dict[str, float]] = []
    for run in range(options.warm + options.runs):
        names = list(table)[:: 1 if run % 2 else -1]
        found = {name: table[name].step(images, labels) for name in names}
        if run >= options.warm:
            rounds.append(found)

    def ratio(a: str, b: str) -> float:
        return statistics.median(found[a] / found[b] for found in rounds)

    ratios = {
        "paths / entangled, time": ratio("paths", "entangled"),
        "paths / entangled, memory": saved["paths"] / saved["entangled"],
        "entangled / largest, time": ratio("entangled", "largest"),
        "weight step / alone, time": ratio("weight step", "alone"),
    }
    seconds = {name: statistics.median(found[name] for found in rounds) for name in table}
    return {"seconds": seconds, "saved": {name: float(value) for name, value in saved.items()}, "ratios": ratios}


def main() -> None:
    """Measure and print times, memory and ratios beside their bars."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.architecture_step", description=__doc__.partition("\n\n")[0]
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=96, help="side of the images in pixels")
    parser.add_argument("--runs", type=int, default=7, help="timed rounds")
    parser.add_argument("--warm", type=int, default=2, help="rounds before them")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--alpha-only", action="store_true", help="architecture steps compute no gradients of the weights"
    )
    parser.add_argument("--order", default="NCHW", choices=("NCHW", "NHWC"), help="of memory")
    parser.add_argument(
        "--compile", action="store_true", help="torch compiles all of them, with --alpha-only the mixture too"
    )
    parser.add_argument("--output", type=Path, default=RESULTS / "architecture_step.json", metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = measure(options)
    for name, seconds in found["seconds"].items():
        print(f"{name:12} {seconds:7.3f} s   {found['saved'][name] / 1e6:6.0f} MB saved")
    missed = False
    for name, (bar, side) in BARS.items():
        value = found["ratios"][name]
        missed |= value < bar if side == "at least" else value > bar
        print(f"{name:28} {value:.2f}×  (bar: {side} {bar})")
    _write(options, found)
    raise SystemExit(1 if missed and not options.alpha_only else 0)


def _write(options: argparse.Namespace, found: dict[str, dict[str, float]]) -> None:
    """The figures of this device in the file, those of another kept."""
    device = (
        torch.cuda.get_device_name() if options.device == "cuda" else f"{platform.machine()}, {os.cpu_count()} cores"
    )
    settings = {key: getattr(options, key) for key in ("batch", "size", "runs", "threads", "alpha_only")}
    document = json.loads(options.output.read_text()) if options.output.exists() else {}
    more = [
        word
        for word, said in (
            ("α only", options.alpha_only),
            ("NHWC", options.order == "NHWC"),
            ("compiled", options.compile),
        )
        if said
    ]
    key = ", ".join([options.device, *more])
    document[key] = {"device": device, "torch": metadata.version("torch"), **settings, **found}
    write_text(options.output, json.dumps(document, indent=1) + "\n", force=True)


if __name__ == "__main__":
    main()
