"""`fnatool cut` and `fnatool inspect --taps` as their user meets them: what they say and write, and what they
refuse.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from nets import Net
from refusals import refused
from seeds_of_heads import mobile
from tiny import save

import fnatool
from fnatool.cli.main import run
from fnatool.files import model as files
from fnatool.files.interface import SOURCE_KEY, TASK_KEY
from fnatool.model import cut as cutting
from fnatool.model.analysed import SPEC_KEY, STAGES_KEY, metadata
from fnatool.runtime.verify import run_inner
from passes.errors import RefusedModel, UserError

Capture = pytest.CaptureFixture[str]
IMAGE = {"x": np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a network of four stages with a word about it."""
    monkeypatch.chdir(tmp_path)
    proto = mobile().model(batch="N")
    proto.doc_string = "a test"
    proto.metadata_props.add(key="author", value="somebody")
    save(proto, tmp_path / "net.onnx")
    return tmp_path


def cut(*arguments: str, seed: str = "net.onnx", out: str = "out.onnx") -> int:
    return run(["cut", seed, *arguments, "-o", out])


def headed(*arguments: str, seed: str = "net.onnx", out: str = "h.onnx") -> int:
    return run(["head", seed, "--task", "classification", "--classes", "3", *arguments, "-o", out])


def about(path: str = "out.onnx") -> dict[str, str]:
    return metadata(files.read(path).envelope)


def stages(path: str) -> list[int]:
    return [len(stage.blocks) for stage in fnatool.inspect(path).analysis.stages]


def test_a_network_ends_at_the_exit_of_a_stage(folder: Path, capsys: Capture) -> None:
    assert cut("--outputs", "stage1.exit,stage2.exit") == 0
    assert capsys.readouterr().out.splitlines() == [
        "  takes x Nx3x64x64",
        "  gives s1b0p.n Nx8x8x8",
        "  gives s2b1a Nx10x4x4",
        "45 of 59 nodes",
        "what it gives is the whole's, bit for bit, in ONNX Runtime; the result runs and passes 'fnatool check'",
        "→ out.onnx",
    ]
    assert run(["check", "out.onnx"]) == 0
    assert stages("out.onnx") == [2, 1, 2]
    assert onnx.load("out.onnx").doc_string == "a test"
    assert about()["author"] == "somebody"
    whole, part = (files.read(path).graph for path in ("net.onnx", "out.onnx"))
    names = ["s1b0p.n", "s2b1a"]
    inner, own = (run_inner(graph, IMAGE, names, "it", optimised=False) for graph in (whole, part))
    assert all(inner[name].tobytes() == own[name].tobytes() for name in names)


@pytest.mark.parametrize("name", ["s2b1a", "stage2.exit", "stage2.block1.exit"])
def test_a_place_has_several_names(name: str, folder: Path) -> None:
    made = fnatool.cut("net.onnx", options=fnatool.CutOptions(outputs=(name,), verify=False))
    assert [tensor.name for tensor in made.model.graph.outputs] == ["s2b1a"]


def test_a_network_begins_behind_a_stage(folder: Path, capsys: Capture) -> None:
    assert cut("--inputs", "stage2.exit") == 0
    assert "  takes s2b1a Nx10x4x4\n  gives y Nx5\n" in capsys.readouterr().out
    assert stages("out.onnx") == [1]


def test_the_record_of_the_stages_names_those_that_are_whole(folder: Path) -> None:
    assert cut("--outputs", "s2b1d") == 0  # inside the second block of stage 2
    assert [len(stage) for stage in json.loads(about()[STAGES_KEY])] == [2, 1, 1]
    assert stages("out.onnx") == [2, 1, 1]


def test_a_task_goes_with_its_head_and_its_pixels_stay_known(folder: Path, capsys: Capture) -> None:
    assert headed("--mean", "1,2,3", "--scale", "4,5,6", "--channels", "BGR") == 0
    assert cut("--outputs", "stage1.exit", seed="h.onnx") == 0
    assert "note: it is for no task any more" in capsys.readouterr().out
    assert TASK_KEY not in about()
    assert json.loads(about()[SOURCE_KEY]) == {"mean": [1.0, 2.0, 3.0], "scale": [4.0, 5.0, 6.0], "channels": "BGR"}
    assert headed(seed="out.onnx", out="again.onnx") == 0
    assert json.loads(about("again.onnx")[TASK_KEY])["input"]["mean"] == [1.0, 2.0, 3.0]


def test_a_task_stays_where_its_outputs_do(folder: Path) -> None:
    assert headed() == 0
    assert cut("--outputs", "logits,stage1.exit", seed="h.onnx") == 0
    assert about()[TASK_KEY] == about("h.onnx")[TASK_KEY]


def test_a_spec_keeps_the_knobs_that_are_there(folder: Path) -> None:
    fnatool.remap("net.onnx", {"version": 1, "knobs": {"stage2.depth": 3}}, "deep.onnx")
    assert cut("--outputs", "stage1.exit", seed="deep.onnx") == 0
    spec, before = (json.loads(about(path)[SPEC_KEY]) for path in ("out.onnx", "deep.onnx"))
    assert spec["seed"] == before["seed"]
    assert {name.partition(".")[0] for name in spec["knobs"]} & {"stage2", "stage3"} == set()
    assert "stage1.block0.hidden" in spec["knobs"]


# --- inference ----------------------------------------------------------------------------------


@pytest.fixture
def training(folder: Path) -> Path:
    """A network in which a Dropout is active and a BatchNormalization reads the batch."""
    net = Net(size=8)
    net.constant("ratio", 0.5)
    net.constant("on", True, bool)
    y = net.relu(net.bn(net.conv("x", "a", 8, 3)))
    net.op("Dropout", "drop", net.conv_bn_relu(y, "b", 8, 3), "ratio", "on")
    net.classifier("drop")
    made = net.model(batch="N")
    norm = next(node for node in made.graph.node if node.name == "a.n")
    norm.output.extend(["rm", "rv"])
    norm.attribute.add(name="training_mode", type=onnx.AttributeProto.INT, i=1)
    made.graph.output.add(name="rm").type.tensor_type.elem_type = 1
    save(made, folder / "training.onnx")
    return folder


def test_what_was_exported_for_training_is_brought_to_inference(training: Path, capsys: Capture) -> None:
    assert cut("--inference", seed="training.onnx") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "  brought to inference: a.n and 1 more"
    assert "note: output 'rm', which only training has, is gone" in lines
    assert run(["check", "out.onnx"]) == 0
    made = onnx.load("out.onnx")
    assert [value.name for value in made.graph.output] == ["y"]
    assert {tensor.name for tensor in made.graph.initializer} >= {"a.n.mean", "a.n.var"}


@pytest.mark.parametrize(
    "line",
    [
        "cut MODEL --outputs drop -o out.onnx",
        "remap MODEL --spec spec.json -o out.onnx",
        "head MODEL --task classification --classes 3 --taps b.n.r -o out.onnx",
    ],
)
def test_where_it_would_be_wrong_it_is_refused_with_that_advice(line: str, training: Path, capsys: Capture) -> None:
    Path("spec.json").write_text(json.dumps({"version": 1, "knobs": {"node:a.width": 10}}))
    assert run(line.replace("MODEL", "training.onnx").split()) == 1
    said = refused(capsys)
    assert not Path("out.onnx").exists()
    assert said.startswith("fnatool: 'training.onnx': BatchNormalization 'a.n': it normalises by the batch it sees")
    assert "or bring it to inference with 'fnatool cut --inference'" in said


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            (),
            "say where the model is to end (--outputs) or to begin (--inputs), or bring it to inference (--inference)",
        ),
        (
            ("--outputs", "stage9.exit"),
            "'stage9.exit' is no tensor, node or place of this model; did you mean 'stage3.exit'?",
        ),
        (("--outputs", "x"), "'x' is an input of the model: a network that ends there computes nothing"),
        (("--outputs", "stem.w"), "'stem.w' holds weights"),
        (("--outputs", "stage1.exit", "--inputs", "stage2.exit"), "no output that is kept comes from 's2b1a'"),
        (("--outputs", "s0b1a", "--inputs", "s0b1p"), "also needs the input 'x', by a way beside 's0b1p'"),
        (("--outputs", "y", "--force", "-o", "net.onnx"), "'net.onnx' is the input 'net.onnx' itself"),
    ],
)
def test_bad_input_is_one_message_and_nothing_is_written(
    arguments: tuple[str, ...], said: str, folder: Path, capsys: Capture
) -> None:
    before = Path("net.onnx").read_bytes()
    assert run(["cut", "net.onnx", *(() if "-o" in arguments else ("-o", "out.onnx")), *arguments]) == 2
    assert said in refused(capsys)
    assert not Path("out.onnx").exists()
    assert Path("net.onnx").read_bytes() == before


def test_a_result_that_is_not_the_whole_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = cutting.section

    def planted(*arguments: object, **named: object) -> object:
        made = real(*arguments, **named)  # type: ignore[arg-type]
        for node in made.nodes:
            if node.name == "stem.n":
                node.inputs[1], node.inputs[4] = node.inputs[4], node.inputs[1]
        return made

    monkeypatch.setattr(cutting, "section", planted)
    with pytest.raises(RefusedModel, match=r"'s1b0p\.n' is not what it is in the whole"):
        fnatool.cut("net.onnx", options=fnatool.CutOptions(outputs=("stage1.exit",)))


def test_nothing_to_do_is_a_mistake_in_python_too() -> None:
    with pytest.raises(UserError, match="say where"):
        fnatool.cut("mobilenetv2_bn", options=fnatool.CutOptions())


# --- places -------------------------------------------------------------------------------------


def test_places_to_tap_and_to_cut_are_told_by_stage(folder: Path, capsys: Capture) -> None:
    assert run(["inspect", "net.onnx", "--taps", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["stage2.exit"] == {
        "stage": "stage2",
        "name": "stage2.exit",
        "tensor": "s2b1a",
        "shape": [1, 10, 4, 4],
        "stride": [16.0, 16.0],
        "tap": True,
    }
    assert rows["stem.n.r"]["stage"] is None
    assert (rows["flat"]["tap"], rows["flat"]["shape"]) == (False, [1, 24])  # what the classifier reads
    assert rows["stage1.block0.hidden"]["tensor"] == "s1b0e.n.r"
    assert run(["inspect", "net.onnx", "--taps"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(
        f"  {len(rows)} places to cut at, of which a head can tap the {len(rows) - 1} with a stride"
    )
    assert [line.split()[0] for line in lines[2:] if not line.startswith(" ")] == [
        "stage0",
        "stage1",
        "stage2",
        "stage3",
    ]
    model = fnatool.read("net.onnx")
    for name in ("stem.n.r", "stage1.block0.hidden", "stage3.exit", "flat"):
        assert fnatool.cut(model, options=fnatool.CutOptions(outputs=(name,), verify=False)).left


def test_places_weights_and_knobs_are_shown_one_at_a_time(folder: Path, capsys: Capture) -> None:
    assert run(["inspect", "net.onnx", "--taps", "--spec"]) == 2
    assert "--group shows weights, --taps places and --spec knobs; ask for one of them" in capsys.readouterr().err
