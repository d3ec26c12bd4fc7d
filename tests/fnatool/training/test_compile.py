"""`run.compile`: what torch compiles is one graph, comes to the same, and leaves no trace in what is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from objectives import job
from supers import images, network
from torch import fx

from fnatool import nn, seeds
from fnatool.search.config import parse_search
from fnatool.search.sampling import sample, uniform
from fnatool.search.searcher import Searcher
from fnatool.supernet import mixing, variants
from fnatool.supernet.network import RELAXATIONS, Relaxation, build
from fnatool.training import loop, machine
from fnatool.training.checkpoint import read
from fnatool.training.config import RunSection
from fnatool.training.processes import World
from fnatool.training.watching import silent
from passes.errors import UserError
from passes.space.space import SKIP

HERE = World(0, 1, torch.device("cpu"))


class Counting:
    """A backend that compiles nothing and counts the graphs and their runs."""

    def __init__(self) -> None:
        self.graphs = self.runs = 0

    def __call__(self, graph: fx.GraphModule, inputs: Any) -> Any:
        self.graphs += 1

        def run(*values: Any) -> Any:
            self.runs += 1
            return graph.forward(*values)

        return run

    def wrap(self, function: Any) -> Any:
        return torch.compile(function, backend=self, dynamic=False)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Counting:
    torch._dynamo.reset()
    found = Counting()
    monkeypatch.setattr(machine, "BACKEND", found)
    return found


def test_the_loaded_network_is_one_graph_and_comes_to_the_same(backend: Counting) -> None:
    net, x = nn.load(seeds.DEFAULT).train(), torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    compiled = machine.compiling(RunSection(compile=True))
    assert compiled is not None
    found = compiled(net)(x)
    found.sum().backward()
    gradients = [parameter.grad.clone() for parameter in net.parameters() if parameter.grad is not None]
    assert (backend.graphs, backend.runs) == (1, 1)
    net.zero_grad()
    plain = net(x)
    plain.sum().backward()
    assert torch.equal(found, plain)
    assert all(
        torch.equal(*pair)
        for pair in zip(gradients, (p.grad for p in net.parameters() if p.grad is not None), strict=True)
    )


def test_nothing_is_compiled_that_nobody_asked_for() -> None:
    assert machine.compiling(RunSection()) is None
    assert "compile" not in RunSection().model_dump()


def test_a_run_that_is_compiled_goes_on_and_writes_as_any_other(tmp_path: Path, backend: Counting) -> None:
    how: dict[str, Any] = {"averages": {"ema": 0.9, "freeze_batchnorm": "no"}}
    plain = loop.finetune(job(tmp_path / "plain", run={"steps": 4, "checkpoint": 1}, **how), HERE, silent())
    assert backend.graphs == 0
    compiled = job(tmp_path / "compiled", run={"steps": 4, "checkpoint": 1, "compile": True}, **how)
    seen: list[int] = []

    def stepped(step: int, values: object) -> None:
        seen.append(step)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.finetune(compiled, HERE, silent().__class__(lambda *_: None, stepped, lambda *_: None))
    assert (backend.graphs, backend.runs) == (1, 2)
    learnt = loop.finetune(compiled, HERE, silent().__class__(lambda *_: None, stepped, lambda *_: None))
    assert seen == [1, 2, 2, 3, 4]
    states = [read(tmp_path / name / "checkpoint.pt", key="key") for name in ("plain", "compiled")]
    for part in ("network", "average"):
        assert states[0][part].keys() == states[1][part].keys()
        assert all(torch.equal(states[0][part][name], states[1][part][name]) for name in states[0][part])
    assert learnt.figures == plain.figures


@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_the_mixture_is_one_graph(relaxation: Relaxation, backend: Counting) -> None:
    net, x = network("residual", relaxation), images("residual")
    plain = net(x)
    net.compile_runs(backend.wrap, x.device)
    try:
        found = net(x)
        sum(value.sum() for value in found.values()).backward()
    finally:
        net._compiled = None
    assert (backend.graphs, backend.runs) == (1, 1)
    assert all(torch.equal(found[name], plain[name]) for name in plain)
    assert any(row.grad is not None and bool(row.grad.abs().sum()) for row in net.alphas)
    for row in net.alphas:
        row.grad = None


def test_a_mixture_that_is_prepared_makes_nothing_in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = build_like("residual")
    fresh.prepare_mixture(torch.device("cpu"))
    for module, name in ((mixing, "_mask"), (variants, "compiled")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("something is made in a run"))
    fresh(images("residual"))


def build_like(name: str) -> Any:
    """A super network that has not run yet."""
    from supers import seed

    return build(*seed(name)).train()


@pytest.mark.filterwarnings(f"ignore:{machine.NOT_A_LEAF}")  # as a run does
@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_of_members_every_part_is_compiled_once(relaxation: Relaxation, backend: Counting) -> None:
    net, x = network("residual", relaxation), images("residual")
    members = [sample(net.choices, uniform(net.choices), seed=3, step=step) for step in range(12)]
    plain = [net(x, member) for member in members]
    net.compile_runs(backend.wrap, x.device)
    try:
        found = [net(x, member) for member in members]
        graphs, runs = backend.graphs, backend.runs
        again = [net(x, member) for member in members]
    finally:
        net._compiled = None
    parts = {
        (*net.variants.key(s, m), s.number)
        for m in members
        for s in net.segments
        if s.block is None or m[s.block] != SKIP
    }
    assert graphs == len(parts) < runs
    assert (backend.graphs, backend.runs) == (graphs, 2 * runs)
    for one, other, third in zip(plain, found, again, strict=True):
        assert all(torch.equal(one[name], other[name]) and torch.equal(one[name], third[name]) for name in one)


def test_where_torch_cannot_compile_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()

    def broken(graph: fx.GraphModule, inputs: Any) -> Any:
        raise RuntimeError("No working C++ compiler found in CXX\nand a long trace")

    monkeypatch.setattr(machine, "BACKEND", broken)
    machine.require_compiler(HERE, RunSection())
    with pytest.raises(
        UserError,
        match=r"'run.compile' is true, but torch cannot compile here: No working C\+\+ compiler found in CXX; set it",
    ):
        machine.require_compiler(HERE, RunSection(compile=True))


def test_inner_tensors_come_out_of_the_same_graph(backend: Counting) -> None:
    net, x = nn.load(seeds.DEFAULT).train(), torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    reading = net.origin.reading
    tap = next(node.outputs[0] for node in reading.view.nodes if node.op == "Conv")
    reading.program((tap,))
    plain, inner = net(x, taps=(tap,))
    compiled = machine.compiling(RunSection(compile=True))
    assert compiled is not None
    found, theirs = compiled(net)(x, taps=(tap,))
    assert backend.graphs == 1
    assert torch.equal(found, plain)
    assert torch.equal(theirs[tap], inner[tap])


def test_a_search_compiles_its_super_network(backend: Counting) -> None:
    net, x = build_like("residual"), images("residual")
    config = parse_search(
        {"task": "classification", "search": {"method": "gradient"}, "run": {"batch": 4, "compile": True}}
    )
    searcher = Searcher(net, config, HERE, alpha_steps=4)
    names = set(searcher.state()["network"])
    searcher.network(x)
    assert backend.graphs == 1
    assert names == set(build_like("residual").state_dict())
