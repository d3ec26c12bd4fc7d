"""`--set` as its user meets it: one knob, or one key of a config, without a file; and the batch, which is set so most
often.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from refusals import Capture
from remaps import everything_in, residual
from tiny import model, save

from fnatool.cli.main import run
from fnatool.files import model as files
from fnatool.model.analysed import SPEC_KEY, metadata
from fnatool.search.config import settings_of_search
from fnatool.training.config import read_config, read_like_config
from fnatool.training.settings import settings_of
from passes import UserError

CLASSIFIER = """
net (float[1,3,8,8] x) => (float[1,4] y) {
    c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w)
    r = Relu (c)
    p = GlobalAveragePool (r)
    f = Reshape (p, s)
    y = Gemm <transB = 1> (f, m)
}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with networks for one sample."""
    monkeypatch.chdir(tmp_path)
    save(residual(), tmp_path / "seed.onnx")
    weights: dict[str, tuple[int, ...] | np.ndarray] = {"w": (8, 3, 3, 3), "m": (4, 8), "s": np.array([1, 8])}
    save(model(CLASSIFIER, weights), tmp_path / "one.onnx")
    return tmp_path


def remap(*arguments: str, seed: str = "one.onnx") -> int:
    return run(["remap", seed, "-o", "out.onnx", "--force", *arguments])


def outputs(path: str, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def test_a_batch_is_set_free_proven_and_recorded(folder: Path, capsys: Capture) -> None:
    assert remap("--set", "batch=free", "--report", "report.json") == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "  batch: 1 → free"
    assert (
        "1, 2 and 3 samples at once, each computed as it was alone: 2 tensors compared in ONNX Runtime, worst drift"
        in out
    )
    assert json.loads(Path("report.json").read_text())["changes"] == [{"knob": "batch", "from": 1, "to": "free"}]
    assert json.loads(metadata(files.read("out.onnx").envelope)[SPEC_KEY])["knobs"]["batch"] == "free"
    x = np.random.default_rng(0).standard_normal((3, 3, 8, 8)).astype(np.float32)
    alone = np.concatenate([outputs("one.onnx", x[k : k + 1]) for k in range(3)])
    np.testing.assert_allclose(outputs("out.onnx", x), alone, rtol=1e-5)
    assert run(["check", "out.onnx", "--set", "batch=free", "--against", "one.onnx"]) == 0
    assert run(["check", "out.onnx", "--set", "batch=2"]) == 1
    assert "'batch' should be 2, the model has free" in capsys.readouterr().out
    assert remap("--set", "batch=8", seed="out.onnx") == 2  # in place of the seed
    capsys.readouterr()
    assert run(["remap", "out.onnx", "-o", "eight.onnx", "--set", "batch=8"]) == 0
    assert "  batch: free → 8" in capsys.readouterr().out
    eight = onnx.load("eight.onnx").graph
    assert [value.type.tensor_type.shape.dim[0].dim_value for value in (*eight.input, *eight.output)] == [8, 8]
    assert run(["check", "eight.onnx", "--set", "batch=8", "--against", "one.onnx"]) == 0
    assert run(["remap", "eight.onnx", "-o", "again.onnx", "--set", "batch=1"]) == 0
    np.testing.assert_allclose(outputs("again.onnx", x[:1]), alone[:1], rtol=1e-5)


def test_a_batch_goes_with_other_knobs(folder: Path, capsys: Capture) -> None:
    given = [
        "--set",
        "batch=2",
        "--set",
        "stage0.block0.hidden=14",
        "--set",
        "input.size=16x12",
        "--strategy",
        "preserve",
    ]
    assert remap(*given, seed="seed.onnx") == 0
    out = capsys.readouterr().out
    assert [line.strip() for line in out.splitlines()[:3]] == [
        "input.size: 8×8 → 16×12",
        "batch: 1 → 2",
        "stage0.block0.hidden: 10 → 14",
    ]
    assert "exact: 6 inner tensors compared" in out
    assert "2 at once, each computed as it was alone: 6 tensors" in out
    assert (
        run(
            [
                "check",
                "out.onnx",
                "--against",
                "seed.onnx",
                "--set",
                "batch=2",
                "--set",
                "input.size=16x12",
                "--set",
                "**.hidden=14",
            ]
        )
        == 1
    )
    capsys.readouterr()
    assert run(["inspect", "out.onnx", "--spec"]) == 0
    assert json.loads(capsys.readouterr().out)["knobs"]["batch"] == 2


def test_a_set_knob_is_on_top_of_the_spec(folder: Path, capsys: Capture) -> None:
    Path("spec.json").write_text(json.dumps({"version": 1, "knobs": {"stage0.block0.hidden": 12, "stage0.depth": 3}}))
    assert remap("--spec", "spec.json", "--set", "stage0.block0.hidden=14", seed="seed.onnx") == 0
    assert capsys.readouterr().out.splitlines()[:2] == ["  stage0.depth: 2 → 3", "  stage0.block0.hidden: 10 → 14"]


def test_a_spec_comes_through_standard_input(folder: Path) -> None:
    import subprocess

    text = json.dumps({"version": 1, "knobs": {"stage0.depth": 3}})
    command = [sys.executable, "-m", "fnatool", "remap", "seed.onnx", "--spec", "-", "-o", "out.onnx"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("  stage0.depth: 2 → 3")
    broken = subprocess.run([*command, "--force"], input="{", capture_output=True, text=True, check=False)
    assert broken.returncode == 2
    assert len(broken.stderr.splitlines()) == 1


WRONG = {
    "no value": (["--set", "stage0.depth"], "--set stage0.depth: say KNOB=VALUE"),
    "no knob": (["--set", "=3"], "--set =3: say KNOB=VALUE"),
    "twice": (["--set", "batch=2", "--set", "batch=3"], "--set sets 'batch' twice"),
    "unknown": (["--set", "stage0.kernal=3"], "'stage0.kernal' is not a knob of this model"),
    "no number": (["--set", "stage0.depth=many"], "'stage0.depth': 'many' is neither an integer nor relative"),
    "no batch": (["--set", "batch=0"], "'batch': 0 is out of range; it goes from 1 to 65536, or is 'free'"),
    "a batch below 0": (["--set", "batch=-3"], "'batch': -2 is out of range"),
    "a word for a batch": (["--set", "batch=any"], "'batch': 'any' is neither an integer nor relative"),
    "a number for a size": (["--set", "input.size=4x"], "'input.size': '4x' is neither an integer nor relative"),
    "free, of another knob": (
        ["--set", "stage0.depth=free"],
        "'stage0.depth': 'free' is neither an integer nor relative",
    ),
    "nothing": ([], "say the shape asked for with --spec SPEC, or knob by knob with --set KNOB=VALUE"),
}


@pytest.mark.parametrize(("given", "why"), WRONG.values(), ids=WRONG)
def test_a_mistake_in_what_is_set_is_one_message_and_writes_nothing(
    given: list[str], why: str, folder: Path, capsys: Capture
) -> None:
    before = everything_in(folder)
    assert remap(*given, seed="seed.onnx") == 2
    assert why in " ".join(capsys.readouterr().err.split())
    assert everything_in(folder) == before


def test_a_network_that_mixes_its_samples_is_refused_by_name(folder: Path, capsys: Capture) -> None:
    text = CLASSIFIER.replace("r = Relu (c)", "k = ReduceMean <axes = [0, 2, 3]> (c)\n    r = Sub (c, k)")
    weights: dict[str, tuple[int, ...] | np.ndarray] = {"w": (8, 3, 3, 3), "m": (4, 8), "s": np.array([1, 8])}
    save(model(text, weights), folder / "mixing.onnx")
    before = everything_in(folder)
    assert remap("--set", "batch=2", seed="mixing.onnx") == 2
    assert (
        "(ReduceMean) reduces over the samples, so the samples are not computed each by itself"
        in capsys.readouterr().err
    )
    assert everything_in(folder) == before
    assert run(["inspect", "mixing.onnx"]) == 0
    assert "reduces over the samples" in " ".join(capsys.readouterr().out.split())


def test_a_planted_error_in_one_sample_is_found(folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the verification is for: a result in which the second sample gets something of the first."""
    import onnx_graphsurgeon as gs

    from passes.batch import rebatched
    from passes.target import input_axes

    def planted(graph: gs.Graph, shapes: object, batch: int | None) -> gs.Graph:
        made = rebatched.with_samples(graph, shapes, batch)  # type: ignore[arg-type]
        (relu,) = (node for node in made.nodes if node.op == "Relu")
        rolled = gs.Variable("rolled")
        half = [gs.Variable(f"half{k}") for k in range(2)]
        made.nodes.append(gs.Node("Split", "split", {"axis": 0}, [relu.inputs[0]], half))
        made.nodes.append(gs.Node("Concat", "roll", {"axis": 0}, half[::-1], [rolled]))
        relu.inputs[0] = rolled
        return made

    monkeypatch.setattr(input_axes, "with_samples", planted)
    assert remap("--set", "batch=2") == 1
    assert "a sample is not what it is alone" in capsys.readouterr().err
    assert not Path("out.onnx").exists()


# --- channels of the image ----------------------------------------------------------------------


def test_an_image_becomes_grey_and_the_description_follows(folder: Path, capsys: Capture) -> None:
    assert (
        run(
            [
                "head",
                "seed.onnx",
                "--task",
                "classification",
                "--classes",
                "2",
                "--mean",
                "100,110,120",
                "--scale",
                "50,60,70",
                "-o",
                "h.onnx",
            ]
        )
        == 0
    )
    capsys.readouterr()
    assert remap("--set", "input.channels=1", "--report", "report.json", seed="h.onnx") == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "  input.channels: 3 → 1"
    assert "1 channel repeated: " in out
    assert "compared in ONNX Runtime, worst drift" in out
    grey = files.read("out.onnx")
    assert json.loads(metadata(grey.envelope)["fnatool.task"])["input"] | {"size": None} == {
        "layout": "NCHW", "channels": "GREY", "mean": [110.0], "scale": [60.0], "size": None,
    }  # fmt: skip
    x = np.random.default_rng(0).standard_normal((1, 1, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(outputs("out.onnx", x), outputs("h.onnx", np.repeat(x, 3, 1)), rtol=1e-4, atol=1e-5)
    assert run(["check", "out.onnx", "--set", "input.channels=1", "--against", "h.onnx"]) == 0
    assert run(["check", "out.onnx", "--set", "input.channels=3"]) == 1
    assert "'input.channels' should be 3, the model has 1" in capsys.readouterr().out
    assert run(["remap", "out.onnx", "--set", "input.channels=3", "-o", "back.onnx"]) == 0
    assert "3 channels by their luminance" in capsys.readouterr().out
    assert json.loads(metadata(files.read("back.onnx").envelope)["fnatool.task"])["input"]["mean"] == [
        110.0,
        110.0,
        110.0,
    ]


def test_more_channels_are_read_as_the_strategy_says(folder: Path, capsys: Capture) -> None:
    assert remap("--set", "input.channels=+1", "--strategy", "preserve", seed="seed.onnx") == 0
    assert "4 channels of which 3 are the seed's: " in capsys.readouterr().out
    assert remap("--set", "input.channels=4", seed="seed.onnx") == 0
    assert "the function changes: drift up to" in capsys.readouterr().out
    for given, why in {"0": "0 is out of range", "4097": "4097 is out of range", "many": "neither an integer"}.items():
        assert remap("--set", f"input.channels={given}", seed="seed.onnx") == 2
        assert f"'input.channels': {'' if given != 'many' else repr(given) + ' is '}{why}" in capsys.readouterr().err


def test_channels_go_with_a_size_a_batch_and_a_width(folder: Path, capsys: Capture) -> None:
    given = ["input.channels=4", "batch=2", "input.size=12x16", "stage0.block0.hidden=14"]
    assert remap(*(word for text in given for word in ("--set", text)), "--strategy", "preserve", seed="seed.onnx") == 0
    capsys.readouterr()
    (x,) = onnx.load("out.onnx").graph.input
    assert [axis.dim_value for axis in x.type.tensor_type.shape.dim] == [2, 4, 12, 16]
    assert run(["profile", "out.onnx", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (
        remap(
            *(word for text in given for word in ("--set", text)),
            "--strategy",
            "preserve",
            "--dry-run",
            seed="seed.onnx",
        )
        == 0
    )
    out = capsys.readouterr().out
    assert f"→ {told['params']:,}\n" in out
    assert f"→ {told['macs']:,}\n" in out


# --- widths a device likes ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factor", "multiple", "width"),
    [
        ("x0.75", 8, 72),
        ("x0.75", 16, 64),
        ("x0.7", 32, 64),
        ("x1.3", 16, 128),
        ("x1.01", 32, 96),
        ("x0.99", 64, 64),
        ("x1", 64, 96),
        ("x0.1", 64, 64),
        ("-5", 16, 91),
    ],
)
def test_a_factor_gives_a_multiple_on_its_side_of_the_seeds(factor: str, multiple: int, width: int) -> None:
    from fnatool import seeds
    from passes import Spec, analyse, resolve

    analysis = analyse(files.read(seeds.find("mobilenetv2_bn")).graph)
    assert resolve(analysis, Spec({"stage4.width": factor}), multiple=multiple).values["stage4.width"] == width


def test_widths_are_multiples_and_check_warns_of_others(folder: Path, capsys: Capture) -> None:
    assert remap("--set", "stage0.block0.hidden=x1.5", "--multiple", "16", seed="seed.onnx") == 0
    assert "stage0.block0.hidden: 10 → 16" in capsys.readouterr().out
    assert run(["check", "out.onnx", "--multiple", "16"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "'stage0.block1.hidden': 10 channels cost as much as 16 where 16 are computed at a time" in out
    assert "block0.hidden" not in out
    assert run(["check", "out.onnx", "--multiple", "1"]) == 2
    assert run(["remap", "seed.onnx", "--set", "stage0.depth=3", "--multiple", "0", "-o", "x.onnx"]) == 2
    assert not Path("x.onnx").exists()


# --- keys of a config ---------------------------------------------------------------------------


def test_a_key_is_set_on_top_of_a_config(folder: Path) -> None:
    Path("sub").mkdir()
    Path("sub/tune.toml").write_text('task = "segmentation"\n[data]\npath = "mine"\n[run]\nepochs = 7\nbatch = 4\n')
    given = ["run.epochs=3", "data.size=[96, 128]", "optimiser.name=adamw", "optimiser.lr=1e-3", "data.augment=false"]
    read = read_config(Path("sub/tune.toml"), settings_of(given))
    assert (read.run.epochs, read.run.batch, read.data.size, read.data.augment) == (3, 4, (96, 128), False)
    assert (read.optimiser.name, read.optimiser.lr, read.data.path) == ("adamw", 1e-3, "sub/mine")
    assert read_config(Path("sub/tune.toml"), settings_of(["data.path=mine"])).data.path == str(folder / "mine")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("run.epochs", "say section.key=value"),
        ("run epochs=3", "say section.key=value"),
        ("run.epoch=3", "'run.epoch' is no key of a config; did you mean 'run.epochs'"),
        ("run.epochs=many", "'run.epochs' is 'many'"),
        ("run.epochs=0", "'run.epochs' is 0"),
        ("run=3", "'run' is 3"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_key_is_said(given: str, why: str, folder: Path) -> None:
    Path("tune.toml").write_text("")
    with pytest.raises(UserError, match=why.replace("(", "\\(")):
        read_config(Path("tune.toml"), settings_of([given]))


def test_a_key_set_twice_is_said() -> None:
    with pytest.raises(UserError, match=r"--set sets 'run\.epochs' twice"):
        settings_of(["run.epochs=1", "run.epochs=2"])
    with pytest.raises(UserError, match=r"--set sets 'run' and 'run\.epochs'"):
        settings_of(["run=1", "run.epochs=2"])


def test_a_search_is_given_keys_and_knobs_of_its_space() -> None:
    found = settings_of_search(["finetune.run.epochs=2", "stage2.*.hidden=x0.5,x1", "stage1.depth=[1, 2]"])
    assert found == {
        "finetune": {"run": {"epochs": 2}},
        "space": {"knobs": {"stage2.*.hidden": ["x0.5", "x1"], "stage1.depth": [1, 2]}},
    }


def test_the_config_of_learning_without_labels_is_set_too(folder: Path) -> None:
    Path("like.toml").write_text("[run]\nbatch = 4\n")
    assert read_like_config(Path("like.toml"), settings_of(["run.epochs=2"])).run.epochs == 2
