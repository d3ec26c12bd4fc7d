"""The study of searches: its plan, its cells on a small seed, and its tables of whatever is done."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from seeds_of_heads import mobile
from tiny import save

from benchmarks.study import cells, shapes, table
from benchmarks.study.bisection import OverBudget, largest
from benchmarks.study.cells import Asked, Cell
from benchmarks.study.pruning import Layered, NotPruned, ending, pruned
from benchmarks.study.rows import ROWS
from benchmarks.study.shapes import MODEL, Shape, ShapeJob
from benchmarks.study.tasks import StudyTask, alike, labelled, prepared
from fnatool.files import model as files
from fnatool.model.analysed import analyse_model
from fnatool.nn.network import load
from fnatool.search.emitting import with_head
from fnatool.tasks import scenes as writing
from passes.space.costs import whole_costs
from passes.target.spec import Spec

SIZE = 64
QUICK = {
    "data": {"size": [SIZE, SIZE], "workers": 0},
    "search": {"steps": 4, "finalists": 2},
    "distance": {"images": 8, "batch": 8, "members": 2},
    "run": {"batch": 4},
    "score": {"images": 4, "calibration": 4},
    "finetune": {"run": {"batch": 4}},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def seed(root: Path) -> str:
    return str(save(mobile(SIZE).model(batch="N"), root / "seed.onnx"))


@pytest.fixture(scope="module")
def classification(root: Path, seed: str) -> StudyTask:
    scenes = writing.SceneOptions("classification", SIZE, 24, 8, 0)
    return labelled("classification", root / "data", quick={**QUICK, "model": seed}, scenes=scenes)


@pytest.fixture(scope="module")
def like(root: Path, seed: str) -> StudyTask:
    photos = root / "pictures"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for k in range(24):
        Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)).save(photos / f"{k}.png")
    return alike(seed, photos)


@pytest.fixture(autouse=True)
def _quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(shapes, "GRAIN", 32)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


# --- the plan -----------------------------------------------------------------------------------


def test_the_plan_has_the_first_seed_of_all_rows_before_the_second_of_any(classification: StudyTask) -> None:
    found = cells.plan([classification], Asked(budgets=(80, 50)))
    assert [cell.seed for cell in found] == sorted(cell.seed for cell in found)
    assert {cell.budget for cell in found if cell.row == "seed"} == {100}
    assert sum(cell.row == "random" for cell in found) == 12
    assert len(set(found)) == len(found)


def test_without_labels_no_row_is_planned_that_needs_them(like: StudyTask) -> None:
    assert {cell.row for cell in cells.plan([like], Asked())} == {
        "distance", "distance+refit", "uniform-l1", "torch-pruning", "near", "random",
    }  # fmt: skip


def test_a_part_of_the_plan_can_be_asked_for(classification: StudyTask) -> None:
    asked = Asked(budgets=(65,), rows=("near", "uniform-l1"), seeds=(4,), steps=7)
    assert cells.plan([classification], asked) == [
        Cell("classification", 65, "uniform-l1", 4, 7), Cell("classification", 65, "near", 4, 7),
    ]  # fmt: skip


def test_a_shape_that_rows_share_is_counted_once_and_what_is_done_not_at_all(
    classification: StudyTask, tmp_path: Path
) -> None:
    asked = Asked(budgets=(65,), rows=("distance", "distance+imitate", "near"), seeds=(0,))
    plan = cells.plan([classification], asked)
    ready = cells.done(plan[2], tmp_path)
    ready.parent.mkdir(parents=True)
    ready.write_text("{}")
    first, second, last = cells.minutes(plan, {classification.name: classification}, tmp_path)
    assert first is not None
    assert second is not None
    assert first - second == pytest.approx(ROWS["distance"].minutes)
    assert last is None


# --- shapes -------------------------------------------------------------------------------------


def test_the_largest_number_within_a_budget_is_found() -> None:
    asked: list[int] = []

    def cost(k: int) -> int:
        asked.append(k)
        return k * k

    assert largest(cost, 200, 1, 100) == 14
    assert len(asked) < 12
    assert largest(cost, 10_000, 1, 100) == 100
    with pytest.raises(OverBudget, match="the least it can cost is 16"):
        largest(cost, 10, 4, 100)


def job(task: StudyTask, folder: Path, budget: int = 60) -> ShapeJob:
    return ShapeJob(task, budget, 0, 2, folder, folder)


def cost_of(task: StudyTask, knobs: dict[str, object]) -> int:
    return whole_costs(with_head(prepared(task, 0).ground, Spec(knobs), verify=False)[1])["madds"]  # type: ignore[arg-type]


def test_one_factor_for_all_hidden_widths_is_the_largest_that_keeps_the_budget(
    classification: StudyTask, tmp_path: Path
) -> None:
    asked = job(classification, tmp_path)
    found = shapes.uniform(asked)
    assert found.knobs is not None
    assert found.select == "l1"
    assert all(name.endswith(".hidden") for name in found.knobs)
    factor = found.known["factor"]
    assert set(found.knobs.values()) == {f"x{factor}"}
    more = dict.fromkeys(found.knobs, f"x{factor + 1 / shapes.GRAIN}")
    assert cost_of(classification, dict(found.knobs)) <= asked.limit < cost_of(classification, more)


def test_a_smaller_image_keeps_the_budget_and_one_pixel_more_does_not(
    classification: StudyTask, tmp_path: Path
) -> None:
    asked = job(classification, tmp_path)
    found = shapes.smaller_input(asked)
    side = int(found.known["side"])
    assert cost_of(classification, {"input.size": (side, side)}) <= asked.limit
    assert cost_of(classification, {"input.size": (side + 1, side + 1)}) > asked.limit


def test_members_by_chance_keep_the_budget_and_another_seed_has_another(
    classification: StudyTask, tmp_path: Path
) -> None:
    asked = job(classification, tmp_path)
    for shape in (shapes.random, shapes.near):
        found = shape(asked)
        assert cost_of(classification, dict(found.knobs or {})) <= asked.limit
    other = ShapeJob(classification, 60, 1, 2, tmp_path, tmp_path)
    assert shapes.random(asked).knobs != shapes.random(other).knobs


def test_a_shape_is_what_it_was_after_it_has_been_written_down() -> None:
    shape = Shape({"input.size": (40, 40), "stage1.block0.hidden": "x0.5"}, "l1", known={"side": 40.0}, spent=3)
    assert Shape.of_json(json.loads(json.dumps(asdict(shape)))) == shape


# --- Torch-Pruning ------------------------------------------------------------------------------


def test_layers_of_torch_compute_what_the_graph_does(seed: str) -> None:
    model = files.read(seed)
    network, made = load(model), Layered(model.graph).eval()
    x = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(made(x)[0], network(x))
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in made.layers.values()) == 20
    assert len(ending(made.reading.view, made.layers)) == 1


def test_torch_pruning_leaves_a_network_of_ours_within_the_budget(classification: StudyTask, tmp_path: Path) -> None:
    asked = job(classification, tmp_path)
    found = shapes.torch_pruning(asked)
    assert found.knobs is None
    left = files.read(tmp_path / MODEL)
    _, analysis = asked.made.ground.finish(left, True, None)  # verified in ONNX Runtime
    assert 0.85 * asked.limit < whole_costs(analysis)["madds"] <= asked.limit
    assert len(analysis.stages) == len(asked.made.analysis.stages)


def test_what_is_pruned_by_nothing_is_the_seed(seed: str) -> None:
    model = files.read(seed)
    assert whole_costs(analyse_model(pruned(model, 0.0))) == whole_costs(analyse_model(model))


def test_what_torch_pruning_does_not_do_is_said(seed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # an output that it does not know of
    monkeypatch.setattr(Layered, "forward", lambda self, x: (self.layers["stem"](x),))
    with pytest.raises(NotPruned, match="the outputs have shapes"):
        pruned(files.read(seed), 0.5)


# --- cells --------------------------------------------------------------------------------------


def test_a_cell_is_done_once_and_goes_on_where_it_was(
    classification: StudyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = Cell("classification", 60, "near", 0, 2)
    with monkeypatch.context() as killed:
        killed.setattr(cells, "tune", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            cells.perform(cell, classification, tmp_path)
    assert not cells.done(cell, tmp_path).exists()
    monkeypatch.setattr(cells, "started", None)  # neither shape nor start is made again
    found = cells.perform(cell, classification, tmp_path)
    assert 0 <= found["figure"] <= 1
    assert found["metric"] == "top1"
    assert found["share"] <= 0.6
    assert found["before"]["features/batch"] > 0
    monkeypatch.setattr(cells, "tune", None)
    assert cells.perform(cell, classification, tmp_path) == found
    assert not (tmp_path / "runs" / cell.name).exists()


def test_a_budget_that_a_row_cannot_reach_is_told_and_not_tried_again(
    classification: StudyTask, tmp_path: Path
) -> None:
    found = cells.perform(Cell("classification", 1, "smaller-input", 0, 2), classification, tmp_path)
    assert found["impossible"].startswith("the least it can cost")


def test_without_labels_the_figure_is_how_far_outputs_are(like: StudyTask, tmp_path: Path) -> None:
    found = cells.perform(Cell(like.name, 70, "distance+refit", 0, 2), like, tmp_path)
    assert found["metric"] == "distance"
    assert found["figure"] > 0
    assert found["share"] <= 0.7
    assert set(found["before"]) >= {"distance", "features/batch", "features/running"}


def test_the_seed_tuned_first_has_its_share_of_the_steps(classification: StudyTask, tmp_path: Path) -> None:
    cell = Cell("classification", 70, "tuned-first", 0, 4)
    shape, _ = cells.shaped(cell, classification, tmp_path)
    assert shape.spent == 2
    found = cells.perform(cell, classification, tmp_path)
    assert found["share"] <= 0.7
    assert found["spec"] is None


# --- tables -------------------------------------------------------------------------------------


def cell(row: str, budget: int, seed: int, figure: float, **more: object) -> dict[str, object]:
    base = {"task": "t", "steps": 200, "metric": "top1", "better": 1, "before": {}, "share": budget / 100}
    return {**base, "row": row, "budget": budget, "seed": seed, "figure": figure, **more}


def test_a_table_is_of_the_cells_that_are_there() -> None:
    found = [
        cell("seed", 100, 0, 0.5),
        cell("distance", 80, 0, 0.48),
        cell("distance", 80, 1, 0.5),
        cell("random", 80, 0, 0.2),
        cell("random", 80, 1, 0.4),
        {**cell("torch-pruning", 65, 0, 0), "impossible": "no"},
    ]
    del found[-1]["figure"]
    lines = table.tables(found).splitlines()
    assert lines[0] == "**t**, 200 steps: top1, more is better; the seed's own, at its own cost: 0.500 (1)"
    assert "| search by distance | **0.490 ± 0.014 (2)** | – |" in lines
    assert "| … the best of them | 0.400 | – |" in lines
    assert "| Torch-Pruning 1.6.1, global, isomorphic | – | impossible |" in lines
    assert table.tables([]) == ""


def test_less_is_better_where_a_figure_is_a_distance() -> None:
    found = [cell("distance", 80, 0, 0.1, better=-1), cell("near", 80, 0, 0.3, better=-1)]
    assert "| **0.100 (1)** |" in table.tables(found)
    assert "| 0.300 (1) |" in table.tables(found)


def test_ranks_are_of_what_was_known_before_training() -> None:
    found = [
        cell("random", 80, k, figure, before={"features/batch": far})
        for k, (figure, far) in enumerate(((4, 1), (3, 2), (2, 4), (1, 3)))
    ]
    assert table.ranks(found) == {"t, 200 steps, 80 %": {"features/batch": 0.8}}
    assert table.ranks(found[:3]) == {}
    assert table.ranks([{**one, "better": -1} for one in found])["t, 200 steps, 80 %"]["features/batch"] == -0.8


def test_networks_over_their_budget_are_told() -> None:
    assert table.over_budget([cell("near", 80, 0, 1, share=0.8), cell("near", 65, 0, 1, share=0.66)]) == [
        cell("near", 65, 0, 1, share=0.66)
    ]


def test_a_page_has_the_tables_between_its_marks() -> None:
    page = f"a\n{table.BEGIN}\nold\n{table.END}\nb"
    once = table.placed(page, "new")
    assert once == f"a\n{table.BEGIN}\n\nnew\n\n{table.END}\nb"
    assert table.placed(once, "new") == once
    with pytest.raises(ValueError, match="has no"):
        table.placed("a", "new")
