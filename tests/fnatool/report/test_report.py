"""The page about a run or two networks: it says what the files say, loads nothing, and damaged or foreign folders are
refused.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from pages import Page, look_up, read_page
from searches import refused

import fnatool
from fnatool.cli.main import run

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def page(done: Path) -> Page:
    return read_page(done / "report.html")


def test_every_number_is_the_one_at_its_place_in_the_document(page: Page) -> None:
    assert len(page.numbers) > 60
    for value, pointer, _ in page.numbers:
        assert value == repr(look_up(page.document, pointer)), pointer


def test_the_document_is_what_the_files_of_the_run_say(page: Page, done: Path) -> None:
    assert page.document["search"] == json.loads((done / "report.json").read_text())
    for name, folder in (("found", done / "finetune"), ("seed", done / "baseline-seed/finetune")):
        assert page.document["tuning"][name]["report"] == json.loads((folder / "report.json").read_text())
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        assert page.document["tuning"][name]["rows"] == [json.loads(line) for line in lines]
    profile = fnatool.profile(done / "target.onnx")
    assert page.document["networks"]["after"]["macs"] == profile.profile.whole.macs
    assert page.document["networks"]["after"]["params"] == profile.profile.whole.params
    parts = page.document["networks"]["parts"]
    assert sum(part["after"]["macs"] for part in parts) == profile.profile.whole.macs


def test_it_loads_nothing(page: Page) -> None:
    assert all(link.startswith(("#", "data:image/")) for link in page.links)


def test_it_shows_the_worst_answers_first(page: Page) -> None:
    said = page.text.partition("Answers")[2]
    figures = [float(part.split()[0]) for part in page.text.split("top1 ")[-8:] if part[:1].isdigit()]
    assert "the worst first" in said
    assert figures == sorted(figures)
    assert len([link for link in page.links if link.startswith("data:image/jpeg")]) == 2 * 8


def test_what_was_chosen_is_framed_once_in_every_block(page: Page) -> None:
    assert page.classes.count("chosen") == len(page.document["search"]["architecture"]["blocks"])


def test_the_terminal_says_what_decides_and_where_the_page_is(done: Path, capsys: Capture) -> None:
    assert run(["search", "--config", str(done.parent / "search.toml"), "--budget", "madds=500k", "-o", str(done)]) == 0
    said = capsys.readouterr().out
    found = json.loads((done / "report.json").read_text())
    own = found["seed"]["costs"]["madds"]
    assert f"{found['architecture']['costs']['madds'] / own:.1%} of the seed's (budget 500k)" in said
    assert f"distance from the seed before training: {found['architecture']['distance']:.3f}" in said
    assert f"the seed's own shape {found['baselines']['seed']['in_runtime']['top1']:.4f}" in said
    assert "report.html" in said
    assert "next: fnatool derive" in said


def test_a_page_of_a_run_whose_data_is_gone_says_so(done: Path, tmp_path: Path, capsys: Capture) -> None:
    data = done.parent / "classification"
    data.rename(done.parent / "elsewhere")
    try:
        assert run(["report", str(done), "-o", "page.html"]) == 0
    finally:
        (done.parent / "elsewhere").rename(data)
    assert "No pictures: " in read_page("page.html").text
    assert run(["report", str(done), "-o", "other.html", "--data", "nowhere"]) == 2
    refused(capsys, "nowhere")
    assert not Path("other.html").exists()


def test_two_networks_are_shown_without_a_run(done: Path) -> None:
    assert (
        run(["report", "--before", str(done / "seed.onnx"), "--after", str(done / "target.onnx"), "-o", "page.html"])
        == 0
    )
    page = read_page("page.html")
    assert page.document["networks"]["before"]["sha256"] != page.document["networks"]["after"]["sha256"]
    for value, pointer, _ in page.numbers:
        assert value == repr(look_up(page.document, pointer)), pointer
    assert "curve" not in page.classes


def test_names_in_a_model_are_text(tmp_path: Path) -> None:
    name = "</script><img src=x onerror=alert(1)>{{ 1 + 1 }}\n::error::"
    weight = numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name=name, pads=[1] * 4)]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, c, 8, 8]) for n, c in (("x", 3), ("y", 4))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "odd.onnx"
    )
    assert run(["report", "--before", "odd.onnx", "--after", "odd.onnx", "-o", "page.html"]) == 0
    page = read_page("page.html")
    assert page.links == ["#architecture", "#cost", "#again"]
    assert name in json.dumps(page.document, ensure_ascii=False).replace("\\n", "\n")
    assert "{{ 1 + 1 }}" in page.text


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        (lambda folder: (folder / "report.json").unlink(), "is not finished"),
        (lambda folder: (folder / "report.json").write_text("[]"), "no JSON object"),
        (lambda folder: (folder / "report.json").write_text("{"), "is not JSON"),
        (lambda folder: (folder / "report.json").write_text('{"architecture": {}}'), "is damaged"),
        (lambda folder: (folder / "finetune/metrics.jsonl").write_text("no\nrows\n"), "damaged in line 1"),
        (lambda folder: (folder / ".fnatool-run").unlink(), "no folder of a search"),
    ],
)
def test_a_folder_that_holds_no_whole_run_is_refused(done: Path, damage: object, part: str, capsys: Capture) -> None:
    assert callable(damage)
    folder = Path("copy")
    shutil.copytree(done, folder)
    (folder / "report.html").unlink()
    damage(folder)
    assert run(["report", "copy", "--no-pictures"]) == 2
    refused(capsys, part)
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize(
    "given",
    [[], ["nothing-here"], ["--before", "a.onnx"], [".", "--before", "a.onnx", "--after", "b.onnx"]],
    ids=["none", "absent", "one", "both"],
)
def test_what_is_to_be_shown_must_be_said(given: list[str], capsys: Capture) -> None:
    assert run(["report", *given]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert list(Path().iterdir()) == []


def test_a_run_that_is_not_there_is_named(capsys: Capture) -> None:
    assert run(["report", "nothing-here"]) == 2
    refused(capsys, "'nothing-here' is no folder of a run")


def test_another_file_is_not_overwritten(done: Path, capsys: Capture) -> None:
    Path("mine.html").write_text("mine")
    assert run(["report", str(done), "-o", "mine.html"]) == 2
    refused(capsys, "--force")
    assert Path("mine.html").read_text() == "mine"
    assert run(["report", str(done), "-o", "mine.html", "--force", "--no-pictures"]) == 0


def test_a_fine_tuning_has_a_page_of_its_own(done: Path) -> None:
    data, how = done.parent / "classification", "[run]\nsteps = 2\nbatch = 4\nthreads = 1\n"
    Path("config.toml").write_text(f'task = "classification"\n[data]\npath = "{data}"\nworkers = 0\n{how}')
    assert run(["finetune", str(done / "target.onnx"), "--config", "config.toml", "-o", "tuned.onnx"]) == 0
    page = read_page("tuned.run/report.html")
    assert page.document["kind"] == "finetune"
    assert page.document["networks"]["after"]["file"] == "tuned.onnx"
    assert "the worst first" in page.text
    assert run(["report", "tuned.run", "-o", "again.html"]) == 0
    assert "give the data set with --data" in read_page("again.html").text
    assert run(["report", "tuned.run", "-o", "again.html", "--data", str(data), "--force"]) == 0
    assert read_page("again.html").document == page.document
    assert page.document["networks"]["before"] is None
    assert "Training" in page.text
