"""The commands together: each a thin call of a function that Python has too, whose options mean the same everywhere."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import ModuleType

import onnx
import pytest
from nets import Net
from sources import ROOT, SOURCES
from tiny import save

import fnatool
from fnatool import seeds
from fnatool.cli.main import cli, run
from fnatool.files import model as files
from fnatool.tasks import scenes as writing
from passes.errors import UserError
from passes.graph.normalise import normalise
from passes.network.analyse import analyse
from passes.network.profile import profile

Capture = pytest.CaptureFixture[str]
SEED = "mobilenetv2_bn"
SPEC = {"version": 1, "knobs": {"stage3.depth": 5, "stage2.width": "x1.25"}}
FUNCTIONS = [name for name in fnatool.__all__ if not name[0].isupper()]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Path("spec.json").write_text(json.dumps(SPEC))
    return tmp_path


# --- from Python --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with scenes, a small seed of their size with a head, and configs of one step."""
    root = tmp_path_factory.mktemp("learnt")
    writing.write_scenes(root / "scenes", writing.SceneOptions("classification", 32, 12, 4, 0))
    sized = fnatool.remap(SEED, {"version": 1, "knobs": {"input.size": [32, 32]}}, root / "small.onnx")
    fnatool.head(sized.model, root / "start.onnx", options=fnatool.HeadOptions(task="classification", classes="10"))
    data = f'[data]\npath = "{root / "scenes"}"\nworkers = 0\n'
    run_ = "[run]\nbatch = 4\nsteps = 1\nthreads = 1\n"
    (root / "tune.toml").write_text(f'task = "classification"\n{data}{run_}')
    (root / "space.json").write_text(json.dumps({"version": 1, "knobs": {"stage2.*.kernel": [3, 5]}}))
    space = (
        f'[space]\nchoices = "{root / "space.json"}"\n[search]\nmethod = "gradient"\nsteps = 3\n[score]\nimages '
        "= 4\ncalibration = 4\n"
    )
    search = f'task = "classification"\nmodel = "{root / "small.onnx"}"\n{data}{space}[run]\nbatch = 4\nthreads = 1\n'
    (root / "search.toml").write_text(f"{search}[finetune]\nenabled = false\n")
    return root


@pytest.fixture
def silent(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """What is called from Python prints nothing."""
    yield
    assert tuple(capfd.readouterr()) == ("", "")


@pytest.mark.usefixtures("silent")
def test_what_a_model_is(folder: Path) -> None:
    model = fnatool.read(SEED)
    found = fnatool.inspect(model)
    assert found.analysis.knobs["stage3.depth"].value == 4
    found.write("own.json")
    assert json.loads(Path("own.json").read_text())["seed"] == f"sha256:{model.sha256}"
    assert found.group("stage3.block1.kernel")
    told = fnatool.profile(model, options=fnatool.ProfileOptions(convention="paper"))
    told.write("profile.json")
    assert json.loads(Path("profile.json").read_text())["macs"] == told.profile.whole.macs
    report = fnatool.check(SEED, options=fnatool.CheckOptions(against=SEED, max_params=10**7))
    report.write("report.json")
    assert report.passed
    assert json.loads(Path("report.json").read_text())["passed"]
    assert fnatool.diff(SEED, seeds.DEFAULT).equal


@pytest.mark.usefixtures("silent")
def test_models_of_a_model_go_on_in_memory(folder: Path) -> None:
    made = fnatool.remap(SEED, SPEC, options=fnatool.RemapOptions(strategy="preserve", report=Path("report.json")))
    assert made.verified is not None
    assert json.loads(Path("report.json").read_text())["strategy"] == "preserve"
    made.write("target.onnx")
    assert not fnatool.diff(SEED, "target.onnx").equal
    headed = fnatool.head(made.model, options=fnatool.HeadOptions(task="segmentation", classes="3", width=8))
    assert [tensor.name for tensor in headed.model.graph.outputs] == ["mask_logits"]
    folded = fnatool.fold(made.model, "folded.onnx")
    assert folded.changed
    assert fnatool.check(folded.model).passed
    back = fnatool.unfold("folded.onnx", options=fnatool.UnfoldOptions(data="random", images=2))
    back.write("back.onnx")
    assert back.changed


def test_what_is_made_in_memory_is_what_is_made_of_files(folder: Path) -> None:
    quick = fnatool.RemapOptions(verify=False)
    head = fnatool.HeadOptions(task="segmentation", classes="3", width=8, verify=False)
    made = fnatool.remap(
        SEED, {**SPEC, "knobs": {"stage3.depth": 5, "stage3.block4.from": 2}}, "body.onnx", options=quick
    )
    for source, name in ((made.model, "one.onnx"), (Path("body.onnx"), "two.onnx")):
        fnatool.head(source, name, options=head)
    assert Path("one.onnx").read_bytes() == Path("two.onnx").read_bytes()
    fold = fnatool.FoldOptions(verify=False)
    for source, name in ((made.model, "three.onnx"), (Path("body.onnx"), "four.onnx")):
        fnatool.fold(source, name, options=fold)
    assert Path("three.onnx").read_bytes() == Path("four.onnx").read_bytes()


@pytest.mark.usefixtures("silent")
def test_a_torch_model_is_exported(folder: Path) -> None:
    torch = importlib.import_module("torch")
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    made = fnatool.export(module, "out.onnx", options=fnatool.ExportOptions(inputs=(1, 3, 8, 8)))
    assert made.norms == 1
    assert fnatool.check("out.onnx").passed
    with pytest.raises(UserError, match="for models by name"):
        fnatool.export(module, options=fnatool.ExportOptions(classes=3))


@pytest.mark.usefixtures("silent")
def test_a_task_is_learnt_and_searched(learnt: Path, folder: Path) -> None:
    tuned = fnatool.finetune(learnt / "start.onnx", learnt / "tune.toml", "tuned.onnx")
    assert tuned is not None
    evaluated = fnatool.evaluate("tuned.onnx", learnt / "scenes", options=fnatool.EvaluateOptions(workers=0))
    assert evaluated.figures["top1"] == pytest.approx(tuned.in_runtime["top1"])
    found = fnatool.search(None, learnt / "search.toml", "run")
    assert found is not None
    assert found.folder == Path("run")
    (best,) = fnatool.derive("run", options=fnatool.DeriveOptions(argmax=True, images=0))
    assert best.emitted.path.exists()


def test_every_function_has_its_options_and_its_types() -> None:
    stub = ast.parse((ROOT / "fnatool/__init__.pyi").read_text())
    homes = {alias.name: node.module for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert {name: f"fnatool.{home}" for name, home in fnatool.HOMES.items()} == {
        name: home for name, home in homes.items() if name in fnatool.HOMES
    }
    for name in fnatool.__all__:
        found = getattr(fnatool, name)
        assert inspect.getdoc(getattr(importlib.import_module(f"fnatool.{fnatool.HOMES[name]}"), name)), name
        if name.endswith("Options"):
            assert is_dataclass(found)
            assert all(field.kw_only for field in fields(found)), name


def test_a_function_is_called_whatever_was_imported_before() -> None:
    line = (
        "import fnatool, fnatool.search.folder, fnatool.export.readable; assert callable(fnatool.search) and "
        "callable(fnatool.export)"
    )
    subprocess.run([sys.executable, "-c", f"{line}; fnatool.export; fnatool.search.folder"], check=True, cwd=ROOT)


def test_importing_fnatool_brings_nothing_heavy() -> None:
    line = "import sys, fnatool; assert not {'numpy', 'onnx', 'torch', 'click', 'rich'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", line], check=True, cwd=ROOT)


# --- how the code lies --------------------------------------------------------------------------


@functools.cache
def imports() -> dict[str, set[str]]:
    """Module → the modules of the project that it imports, anywhere in it."""
    names = {path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in SOURCES}
    found: dict[str, set[str]] = {}
    for name, path in names.items():
        rows = found.setdefault(name, set())
        for node in ast.walk(ast.parse(SOURCES[path].read_text())):
            if isinstance(node, ast.Import):
                rows.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                rows.update(f"{node.module}.{alias.name}" for alias in node.names)
                rows.add(node.module)
    return {name: {row for row in rows if row in names} for name, rows in found.items()}


def reached(start: str, arrows: dict[str, set[str]]) -> set[str]:
    found, left = set(), [start]
    while left:
        for name in arrows[left.pop()] - found:
            found.add(name)
            left.append(name)
    return found


def test_no_command_imports_a_command() -> None:
    commands = {f"fnatool.{fnatool.HOMES[name]}" for name in FUNCTIONS if name != "read"}
    arrows = imports()
    assert commands <= arrows.keys()
    assert [(name, other) for name in commands for other in reached(name, arrows) & commands - {name}] == []


def test_an_option_is_declared_once() -> None:
    text = {name: path.read_text() for name, path in SOURCES.items() if name.startswith("fnatool/cli/")}
    for option in (
        "--input",
        "--force",
        "--json",
        "--seed",
        "--no-verify",
        "--restart",
        "--budget",
        "--mean",
        "--scale",
        "--skip-bad",
    ):
        places = [name for name, source in text.items() for _ in range(source.count(f'"{option}"'))]
        # inspect has three forms, one at a time
        assert len(places) == 1 or (option == "--json" and len(places) == 2), (option, places)


def test_commands_leave_the_work_to_functions() -> None:
    """No command reads files, runs a model or asks a pass by itself."""
    found = {
        row
        for name in ("facts", "networks", "learning", "searching", "deploying")
        for row in imports()[f"fnatool.cli.{name}"]
    }
    assert {row for row in found if row.startswith(("fnatool.files", "fnatool.runtime", "fnatool.nn", "passes"))} <= {
        "passes.errors"
    }


# --- options ------------------------------------------------------------------------------------


def test_options_of_a_name_mean_the_same_everywhere() -> None:
    seen: dict[str, tuple[object, ...]] = {}
    for name, command in cli.commands.items():
        for option in command.params:
            if option.opts[0] in ("--input", "--force", "--json", "--seed", "--no-verify"):
                kind = (option.opts, str(option.type), option.multiple, option.required) if name != "inspect" else None
                assert kind is None or seen.setdefault(option.opts[0], kind) == kind, (name, option.opts)
    assert len(seen) == 5


@pytest.fixture
def free(folder: Path) -> Path:
    """A model with one input whose image size is free."""
    net = Net(size=8)
    net.classifier(net.conv_bn_relu("x", "a", 8, 3))
    made = net.model(batch="N")
    for axis in (2, 3):
        made.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"s{axis}"
    return save(made, folder / "free.onnx")


@pytest.mark.parametrize("shape", ["1x3x8x8", "x=1x3x8x8"])
def test_the_shape_of_the_one_input_needs_no_name(shape: str, free: Path, capsys: Capture) -> None:
    for command in ("inspect", "profile"):
        assert run([command, "free.onnx", "--json", "--input", shape]) == 0
        assert json.loads(capsys.readouterr().out)["macs"] == 8 * 27 * 64 + 40
    assert run(["diff", "free.onnx", "free.onnx", "--input", shape]) == 0
    assert run(["check", "free.onnx", "--max-macs", "1", "--input", shape, "--json"]) == 1
    assert "it takes 13,864 multiply-accumulates" in capsys.readouterr().out
    for line in (["fold", "free.onnx"], ["unfold", "free.onnx", "--data", "random", "--images", "1"]):
        assert run([*line, "-o", "out.onnx", "--force", "--input", shape]) == 0


def test_a_shape_without_a_name_is_for_one_input(folder: Path, capsys: Capture) -> None:
    net = Net(size=8)
    net.classifier(net.conv_bn_relu("x", "a", 8, 3))
    made = net.model()
    made.graph.input.append(onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [1]))
    save(made, folder / "two.onnx")
    assert run(["inspect", "two.onnx", "--input", "1x3x8x8"]) == 2
    assert "its inputs are x, z: say which, as in x=1x3x8x8" in capsys.readouterr().err
    assert run(["inspect", "two.onnx", "--input", "1x3x8x8", "--input", "z=1"]) == 2
    assert "a shape without a name stands alone" in capsys.readouterr().err


# --- once ---------------------------------------------------------------------------------------


def loaded() -> list[ModuleType]:
    for name in fnatool.__all__:
        getattr(fnatool, name)
    return [module for name, module in sys.modules.items() if name.startswith(("fnatool", "passes"))]


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often a file is read, a graph brought into normal form, analysed or profiled, and a file written, in this
    process.
    """
    counted_ones = {
        "load": files.load,
        "normalise": normalise,
        "analyse": analyse,
        "profile": profile,
        "write": files.write,
    }
    found = dict.fromkeys(counted_ones, 0)

    def counted(name: str, function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            found[name] += 1
            return function(*arguments, **named)

        return call

    for module in loaded():
        for name, function in counted_ones.items():
            for key in [key for key, value in vars(module).items() if value is function]:
                monkeypatch.setattr(module, key, counted(name, function))
    return found


ONCE = {
    "inspect SEED": (1, 1, 1, 0, 0),
    "profile SEED": (1, 1, 0, 1, 0),
    "remap SEED --spec spec.json -o out.onnx": (1, 1, 1, 0, 1),
    # of the result too, which is checked as a file
    "head SEED --task classification --classes 3 -o out.onnx": (2, 2, 2, 0, 2),
    "fold SEED -o out.onnx": (1, 2, 2, 0, 1),  # of the result, which may have other stages
    "cut SEED --outputs stage5.exit -o out.onnx": (2, 1, 1, 0, 2),  # of the result too, which is checked as a file
    "task SEED --task classification -o out.onnx": (1, 1, 1, 0, 0),  # its bytes are copied
    "unfold SEED --data random --images 1 -o out.onnx": (1, 1, 1, 0, 0),  # nothing to put in: its bytes are copied
    "diff SEED wide.onnx": (2, 2, 2, 0, 0),
    "check SEED": (1, 0, 0, 0, 0),
    "check wide.onnx --against SEED --spec spec.json --max-macs 1000000000": (2, 2, 2, 0, 0),
    # of the seed, of it with its head, of the super network
    "search --config LEARNT/search.toml -o run --dry-run": (1, 3, 3, 0, 1),
}
"""command → how often it reads a file, makes a normal form, analyses, profiles, writes a model: once for each
network.
"""


@pytest.mark.parametrize("line", ONCE)
def test_a_network_is_read_and_analysed_once(line: str, counts: dict[str, int], learnt: Path, capsys: Capture) -> None:
    if "wide.onnx" in line:
        fnatool.remap(SEED, SPEC, "wide.onnx", options=fnatool.RemapOptions(verify=False))
    counts.update(dict.fromkeys(counts, 0))
    code = run(line.replace("SEED", SEED).replace("LEARNT", str(learnt)).split())
    assert code == (1 if line.startswith("diff") else 0)
    assert tuple(counts.values()) == ONCE[line]


# --- light --------------------------------------------------------------------------------------


def test_help_imports_no_library_but_click() -> None:
    code = "import sys\nfrom fnatool.cli.main import run\nrun(['--help'])\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True, env={**os.environ}
    )
    names = {name.split(".")[0] for name in done.stderr.split()}
    assert not names & {"numpy", "onnx", "onnxruntime", "torch", "rich", "pydantic", "passes"}
    assert "latency-table" in done.stdout
