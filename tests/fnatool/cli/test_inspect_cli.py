"""`fnatool inspect` as its user meets it: the tables, the JSON for programs, the Spec to edit, and the weights behind a
knob.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from remaps import document, normalised, residual, save_external
from tiny import model, save

from fnatool import seeds
from fnatool.cli.main import run
from fnatool.cli.show.analysis import ranges
from fnatool.files import model as files

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A residual network in the working directory, and a terminal wide enough for its tables."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    save(residual(), tmp_path / "seed.onnx")
    return "seed.onnx"


def told(capsys: Capture, *arguments: str) -> str:
    """What inspect prints; it must succeed and have nothing to complain about."""
    assert run(["inspect", *arguments]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


# --- the tables ---


def test_the_table_shows_stages_and_every_knob_with_its_range(seed: str, capsys: Capture) -> None:
    out = told(capsys, seed)
    assert out.startswith("seed.onnx  1.473K parameters, 87.198K MAdds\n")
    found = rows(out)
    assert ["stage", "depth", "width", "space", "parameters", "MAdds"] in found
    assert ["stage0", "2", "6", "8×8", "1.264K", "76.800K"] in found
    assert ["stem", "and", "head", "209", "10.398K"] in found
    assert ["knob", "value", "min", "max", "multiple", "growth", "why"] in found
    assert ["stage0.depth", "2", "1", "256", "exact"] in found
    assert ["stage0.block0.hidden", "10", "2", "65536", "exact"] in found
    assert any(row[:5] == ["stage0.block1.from", "1", "0", "1", "approximate"] for row in found)
    assert ["node:stem.kernel", "3", "3", "31", "exact"] in found
    assert ["node:y.width", "5", "frozen", "graph", "output", "'y'"] in found
    assert [row[:7] for row in found if ".groups" in row] == [["4", "×", ".groups", "1", "1", "2", "approximate"]]
    assert (
        " ".join(found[-1])
        == "18 knobs: 10 grow exactly, 0 approximately, 2 are frozen; 1 choose a block, 5 set groups"
    )


def test_the_table_says_why_growth_is_approximate_and_when_there_are_no_stages(seed: str, capsys: Capture) -> None:
    save(normalised(), Path("lrn.onnx"))
    out = told(capsys, "lrn.onnx")
    assert "no stages: no addition closes a block" in out
    assert "approximate  'lrn' (LRN) looks at neighbouring channels" in out


def test_the_table_shows_what_reading_changed(seed: str, capsys: Capture) -> None:
    proto = residual()
    nodes = list(reversed(proto.graph.node))
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    save(proto, Path("shuffled.onnx"))
    assert "sorted the nodes topologically" in told(capsys, "shuffled.onnx")


def test_the_bundled_seed_goes_by_its_name(seed: str, capsys: Capture) -> None:
    out = told(capsys, "mobilenetv2_bn")
    assert "2.248M parameters, 152.828M MAdds" in out
    assert len([row for row in rows(out) if row and row[0].startswith("stage") and "." not in row[0]]) == 8


def test_a_file_of_that_name_comes_before_the_bundled_seed(seed: str, capsys: Capture) -> None:
    Path(seed).rename("mobilenetv2_bn")
    assert told(capsys, "mobilenetv2_bn").startswith("mobilenetv2_bn  1.473K parameters")


def test_names_that_look_like_markup_are_shown_as_they_are(seed: str, capsys: Capture) -> None:
    proto = residual()
    next(node for node in proto.graph.node if node.name == "stem").name = "[red]stem[/red]"
    save(proto, Path("[bold]a.onnx"))
    out = told(capsys, "[bold]a.onnx")
    assert out.startswith("[bold]a.onnx  1.473K")
    assert "node:[red]stem[/red].kernel" in out


def test_inspect_leaves_the_model_alone(seed: str, capsys: Capture) -> None:
    before = Path(seed).read_bytes()
    for form in ([], ["--json"], ["--spec"], ["--group", "stage0.width"]):
        told(capsys, seed, *form)
    assert Path(seed).read_bytes() == before
    assert [path.name for path in Path().iterdir()] == [seed]


def test_names_that_look_like_emoji_codes_are_shown_as_they_are(seed: str, capsys: Capture) -> None:
    proto = residual()
    next(node for node in proto.graph.node if node.name == "stem").name = "ring:0"
    save(proto, Path("a.onnx"))
    assert "node:ring:0.kernel" in told(capsys, "a.onnx")


# --- JSON ---


def test_the_json_has_the_keys_that_programs_rely_on(seed: str, capsys: Capture) -> None:
    found = json.loads(told(capsys, seed, "--json"))
    assert {"params", "macs", "stages", "blocks", "knobs", "atoms", "frozen"} <= set(found)
    assert found["params"] == sum(knob["params"] for knob in found["stages"]) + 209
    assert found["macs"] == 87_198
    assert found["stages"] == [
        {"name": "stage0", "depth": 2, "width": 6, "space": [8, 8], "params": 1264, "macs": 76_800}
    ]
    assert [block["name"] for block in found["blocks"]] == ["stage0.block0", "stage0.block1"]
    assert found["blocks"][1]["nodes"] == ["e1", "e1.n", "e1.n.r", "l1", "l1.n", "s1"]
    assert found["blocks"][1] | {"nodes": []} == {
        "name": "stage0.block1", "kind": "residual", "entry": "s0", "exit": "s1", "nodes": [], "params": 632,
        "macs": 38_400
    }  # fmt: skip
    assert found["frozen"] == [
        {"name": "output_stride", "why": "no map of this network has a stride"},
        {"name": "node:y.width", "why": "graph output 'y'"},
        {"name": "node:stem.groups", "why": "the channels that 'stem' reads are no weight's"},
    ]


def test_parameters_and_multiply_adds_are_those_counted_by_hand(seed: str, capsys: Capture) -> None:
    found = json.loads(told(capsys, seed, "--json"))
    convolutions = 6 * 3 * 9 + 2 * (10 * 6 * 9 + 6 * 10)
    norms = 2 * (6 + 2 * (10 + 6))  # gamma and beta; mean and variance are no parameters
    assert found["params"] == convolutions + norms + 5 * 6 + 5
    assert found["macs"] == convolutions * 64 + 5 * 6


def test_every_knob_says_all_there_is_to_know(seed: str, capsys: Capture) -> None:
    save(normalised(), Path("lrn.onnx"))
    found = [
        knob
        for path in (seed, "lrn.onnx", "mobilenetv2_bn")
        for knob in json.loads(told(capsys, path, "--json"))["knobs"]
    ]
    assert all(
        list(knob) == ["name", "kind", "value", "min", "max", "multiple", "growth", "why", "values"] for knob in found
    )
    assert {knob["kind"] for knob in found} <= {
        "depth",
        "width",
        "kernel",
        "groups",
        "from",
        "size",
        "stride",
        "batch",
        "channels",
    }
    assert {knob["growth"] for knob in found} == {"exact", "approximate", "frozen"}
    for knob in found:
        assert knob["value"] == "free" or knob["min"] <= knob["value"] <= knob["max"], knob
        assert (knob["why"] is None) == (knob["growth"] == "exact"), knob
        assert (knob["growth"] == "frozen") <= (knob["min"] == knob["max"]), knob
    assert {
        "name": "stage0.width",
        "kind": "width",
        "value": 6,
        "min": 2,
        "max": 65536,
        "multiple": 1,
        "growth": "exact",
        "why": None,
        "values": [],
    } in found
    assert {
        "name": "input.size",
        "kind": "size",
        "value": [160, 160],
        "min": [1, 1],
        "max": [32768, 32768],
        "multiple": 1,
        "growth": "exact",
        "why": None,
        "values": [],
    } in found


def test_every_width_knob_is_an_atom(seed: str, capsys: Capture) -> None:
    found = json.loads(told(capsys, "mobilenetv2_bn", "--json"))
    assert {atom["name"] for atom in found["atoms"]} == {
        knob["name"] for knob in found["knobs"] if knob["kind"] == "width"
    }
    values = {knob["name"]: knob["value"] for knob in found["knobs"]}
    assert all(atom["channels"] == values[atom["name"]] for atom in found["atoms"])


def test_macs_are_null_while_the_image_size_is_free(seed: str, capsys: Capture) -> None:
    proto = residual(batch="N")
    for axis in proto.graph.input[0].type.tensor_type.shape.dim[2:]:
        axis.dim_param = "extent"
    save(proto, Path("free.onnx"))
    found = json.loads(told(capsys, "free.onnx", "--json"))
    assert (found["params"], found["macs"]) == (1473, None)
    assert all(row["macs"] is None for row in (*found["stages"], *found["blocks"]))
    assert next(knob["value"] for knob in found["knobs"] if knob["kind"] == "size") is None
    assert "MAdds unknown: the image size is free, give one with --input" in told(capsys, "free.onnx")
    sized = json.loads(told(capsys, "free.onnx", "--json", "--input", "x=1x3x16x4"))
    assert sized["macs"] == 87_198
    assert sized["stages"][0]["space"] == [16, 4]


def test_a_free_batch_counts_as_one_image(seed: str, capsys: Capture) -> None:
    save(residual(batch="N"), Path("batch.onnx"))
    assert json.loads(told(capsys, "batch.onnx", "--json"))["macs"] == 87_198


# --- the spec ---


def test_the_spec_names_its_seed_and_every_knob_but_the_defaults(seed: str, capsys: Capture) -> None:
    spec = json.loads(told(capsys, seed, "--spec"))
    assert list(spec) == ["version", "seed", "knobs"]
    assert spec["seed"] == f"sha256:{files.read(seed).sha256}"
    assert spec["knobs"] == {
        "input.size": [8, 8], "input.channels": 3, "batch": 1, "output_stride": 1, "stage0.depth": 2, "stage0.width": 6,
        "stage0.block0.kernel": 3, "stage0.block0.groups": 1, "stage0.block0.groups2": 1, "stage0.block0.hidden": 10,
        "stage0.block1.kernel": 3, "stage0.block1.groups": 1, "stage0.block1.groups2": 1, "stage0.block1.hidden": 10,
        "node:y.width": 5, "node:stem.kernel": 3, "node:stem.groups": 1,
    }  # fmt: skip


@pytest.mark.parametrize("external", [False, True])
def test_the_spec_of_a_model_is_realised_by_it(external: bool, seed: str, capsys: Capture) -> None:
    (save_external if external else save)(residual(), Path("a.onnx"))
    Path("spec.json").write_text(told(capsys, "a.onnx", "--spec"))
    assert run(["check", "a.onnx", "--spec", "spec.json"]) == 0
    assert run(["remap", "a.onnx", "--spec", "spec.json", "--dry-run"]) == 0
    assert "nothing changes" in capsys.readouterr().out


def test_an_edited_spec_remaps_and_one_for_another_file_does_not(seed: str, capsys: Capture) -> None:
    spec = json.loads(told(capsys, seed, "--spec"))
    spec["knobs"]["stage0.width"] = 8
    Path("spec.json").write_text(json.dumps(spec))
    assert run(["remap", seed, "--spec", "spec.json", "-o", "out.onnx"]) == 0
    assert json.loads(told_after(capsys, "out.onnx", "--spec"))["knobs"] == spec["knobs"]
    assert run(["remap", "out.onnx", "--spec", "spec.json", "-o", "twice.onnx"]) == 2
    assert "made for another seed" in capsys.readouterr().err


def told_after(capsys: Capture, *arguments: str) -> str:
    """The same, whatever was printed before."""
    capsys.readouterr()
    return told(capsys, *arguments)


def test_stages_and_their_numbers_stay_when_a_network_is_remapped(seed: str, capsys: Capture) -> None:
    Path("spec.json").write_text(json.dumps(document({"stage0.depth": 1})))
    assert run(["remap", seed, "--spec", "spec.json", "-o", "out.onnx"]) == 0
    found = json.loads(told_after(capsys, "out.onnx", "--json"))
    assert [(stage["name"], stage["depth"]) for stage in found["stages"]] == [("stage0", 1)]
    (depth,) = (knob for knob in found["knobs"] if knob["name"] == "stage0.depth")
    assert (depth["value"], depth["growth"]) == (1, "exact")


# --- groups ---


def test_a_group_lists_every_weight_axis_that_moves_with_the_knob(seed: str, capsys: Capture) -> None:
    found = json.loads(told(capsys, seed, "--group", "stage0.block0.hidden", "--json"))
    assert all(set(row) == {"initializer", "axis", "indices", "role"} for row in found)
    assert all(row["indices"] == list(range(10)) for row in found)
    assert {(row["initializer"], row["axis"], row["role"]) for row in found} == {
        ("e0.w", 0, "creates"), ("e0.n.gamma", 0, "creates"), ("e0.n.beta", 0, "creates"),
        ("e0.n.mean", 0, "creates"), ("e0.n.var", 0, "creates"), ("l0.w", 1, "consumes"),
    }  # fmt: skip


def test_the_group_of_a_trunk_holds_all_its_producers_and_consumers(seed: str, capsys: Capture) -> None:
    found = json.loads(told(capsys, seed, "--json", "--group", "stage0.width"))
    weights = {(row["initializer"], row["axis"], row["role"]) for row in found if row["initializer"].endswith(".w")}
    made = {(name, 0, "creates") for name in ("stem.w", "l0.w", "l1.w")}
    assert weights == made | {(name, 1, "consumes") for name in ("e0.w", "e1.w", "fc.w")}


def test_a_group_as_a_table(seed: str, capsys: Capture) -> None:
    out = told(capsys, seed, "--group", "stage0.block0.hidden")
    assert out.startswith("stage0.block0.hidden moves 6 weight axes together\n")
    assert ["initializer", "axis", "role", "positions"] in rows(out)
    assert ["e0.w", "0", "creates", "0-9"] in rows(out)
    assert ["l0.w", "1", "consumes", "0-9"] in rows(out)


def test_the_group_of_a_kernel_is_its_spatial_axes(seed: str, capsys: Capture) -> None:
    found = json.loads(told(capsys, seed, "--group", "node:stem.kernel", "--json"))
    assert found == [{"initializer": "stem.w", "axis": axis, "indices": [0, 1, 2], "role": "kernel"} for axis in (2, 3)]


def test_every_width_and_kernel_of_the_bundled_seed_has_a_group(seed: str, capsys: Capture) -> None:
    shapes = {tensor.name: tuple(tensor.dims) for tensor in onnx.load(seeds.DEFAULT).graph.initializer}
    for knob in ("stage3.width", "stage3.block1.hidden", "stage0.width", "stage5.block0.kernel"):
        found = json.loads(told(capsys, "mobilenetv2_bn", "--group", knob, "--json"))
        assert found
        for row in found:
            assert max(row["indices"]) < shapes[row["initializer"]][row["axis"]]


def test_positions_are_shown_in_short() -> None:
    assert ranges([]) == ""
    assert ranges([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8"


# --- mistakes ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no.onnx"], "'no.onnx' does not exist; give the path of an ONNX file"),
        (["."], "'.' is a folder; give the ONNX file in it"),
        (
            ["seed.onnx", "--group", "stage0.widht"],
            "'stage0.widht' is not a knob of this model; did you mean 'stage0.width'?",
        ),
        (
            ["seed.onnx", "--group", "stage0.depth"],
            "'stage0.depth' repeats whole blocks; --group shows the weights of width and kernel",
        ),
        (["seed.onnx", "--input", "z=1x3x8x8"], "--input names 'z', but the inputs are: x"),
        (["seed.onnx", "--input", "x=1x4x8x8"], "--input gives 'x' size 4 on axis 1, but the model fixes it to 3"),
        (["seed.onnx", "--input", "x=1x3x8"], "--input gives 'x' 3 dimensions, the model has 4"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(
    arguments: list[str], message: str, seed: str, capsys: Capture
) -> None:
    assert run(["inspect", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("fnatool: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_a_model_with_nothing_to_adapt_is_refused(seed: str, capsys: Capture) -> None:
    save(model("g (float[3] x) => (float[3] y) { y = Relu (x) }"), Path("a.onnx"))
    for form in ([], ["--json"], ["--spec"], ["--group", "stage0.width"]):
        assert run(["inspect", "a.onnx", *form]) == 1
        captured = capsys.readouterr()
        assert (captured.out, captured.err.count("\n")) == ("", 1)
        assert "nothing to adapt" in captured.err


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "fnatool", "inspect", *arguments]


@pytest.mark.parametrize("form", ["", "--json", "--spec"])
def test_a_reader_that_leaves_early_is_no_error(form: str) -> None:
    line = f"{' '.join(command('mobilenetv2_bn', form))} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_terminal_that_knows_only_ascii_is_no_error() -> None:
    done = subprocess.run(
        command("mobilenetv2_bn"), env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


LIBRARIES = "import onnx, onnx_graphsurgeon, numpy, scipy.sparse.csgraph, click, rich.console"


def processor_seconds(line: list[str]) -> float:
    """Of one run of a command, by the processor: others may keep it busy."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(line, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_the_bundled_seed_is_inspected_at_once() -> None:
    ratios = []
    for _ in range(3):  # in turns, so that a busy processor slows both; the first compiles
        imports = processor_seconds([sys.executable, "-c", LIBRARIES])
        ratios.append(processor_seconds(command("mobilenetv2_bn")) / imports)
    assert min(ratios) < 2.5
