"""Names in a model file are others' text: no command gives them to a terminal, a log or a page as orders."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from nets import Net
from sources import SOURCES, imported
from tiny import save

from fnatool import terminal
from fnatool.cli.main import run
from fnatool.cli.show.learnt import show_evaluated
from fnatool.escaping import code, markdown, shown
from fnatool.terminal import document, heard
from fnatool.training.evaluate import Evaluated

Capture = pytest.CaptureFixture[str]

NASTY = "a\n::error file=x::pwned\r\x1b[31m\x9b\u202e\u2028[bold]|[/nope] ##vso[task.setvariable]"


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain, é → × −", "plain, é → × −"),
        ("a\nb\tc\rd", r"a\nb\tc\rd"),
        ("\x1b[31m\x9b\x7f\x00", r"\x1b[31m\x9b\x7f\x00"),
        ("\u202eabc\u2066\u200b\ufeff\u2028\xa0", r"\u202eabc\u2066\u200b\ufeff\u2028\xa0"),
        ("\U000e0041", r"\U000e0041"),
        ("caf\udce9.onnx", r"caf\xe9.onnx"),
        ("\ud800", r"\ud800"),
        ("::error::x", r"\x3a:error::x"),
        ("  ::warning file=a::x", r"  \x3a:warning file=a::x"),
        ("a very long word::error::x", r"a very long word\x3a:error::x"),
        ("##[error]x", r"#\x23[error]x"),
        ("com.microsoft::FusedConv", "com.microsoft::FusedConv"),
        ("[bold]x[/bold] :smile:", "[bold]x[/bold] :smile:"),
    ],
)
def test_text_is_shown_in_printable_characters_and_orders_nothing(text: str, seen: str) -> None:
    assert shown(text) == seen
    assert shown(seen) == seen


def test_a_page_holds_text_as_text() -> None:
    assert markdown("a|b\n<img> [x](y) `c`") == r"a\|b\\n\<img\> \[x\](y) \`c\`"
    assert code("node:a`b\n") == r"``node:a`b\n``"
    assert code("`x") == "`` `x ``"


def test_a_console_reads_no_markup_and_cells_are_shown_too(capsys: Capture) -> None:
    with heard():
        console = terminal.console(wrap=False)
    console.print("[red]x[/nope]\n::error::y")
    grid = terminal.table("a\nb", terminal.whole("c"))
    grid.add_row("[bold]d\n::error::e", "\x1b[1mf")
    console.print(grid)
    console.print(terminal.styled(("g\n", "bold"), "\x1b"))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == r"[red]x[/nope]\n\x3a:error::y"
    assert lines[1].split() == [r"a\nb", "c"]
    assert lines[2].split() == [r"[bold]d\n\x3a:error::e", r"\x1b[1mf"]
    assert lines[3] == r"g\n\x1b"


def test_a_plain_line_is_escaped_and_heard_only_where_the_terminal_is(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.say("unheard")
    with heard():
        terminal.say("[red]x[/nope]\n::error::y \x1b ü")
    assert capsys.readouterr().out == "[red]x[/nope]\\n\\x3a:error::y \\x1b ü\n"


def test_a_plain_line_does_not_wait_for_rich() -> None:
    code = "import sys; from fnatool import terminal as t\nwith t.heard(): t.say('x')\nsys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


SCRIPT = "fnatool/latency/time_pieces.py"  # it runs alone on other machines, without fnatool


def test_only_the_terminal_module_knows_rich_and_only_the_command_line_echoes() -> None:
    for name, path in SOURCES.items():
        tree = ast.parse(path.read_text())
        if not name.startswith("fnatool/terminal/"):
            assert not any(full.split(".")[0] == "rich" for full in imported(tree)), name
        if not name.startswith("fnatool/cli/"):
            assert not any(full.split(".")[0] == "click" for full in imported(tree)), name
        if not name.startswith(("fnatool/terminal/", SCRIPT)):
            assert not re.search(r"std(out|err)\.(buffer\.)?write|__stdout__|__stderr__", path.read_text()), name


# --- every command ------------------------------------------------------------------------------


def network(*, spoilt: bool = False) -> onnx.ModelProto:
    """Two residual blocks, in which every name is nasty: nodes, tensors, inputs, outputs, dimensions, metadata."""
    net = Net()
    y = net.conv_bn_relu("x", "stem", 6, 3)
    for k in range(2):
        inner = net.relu(net.conv_bn(y, f"b{k}.one", 8, 3))
        y = net.relu(net.op("Add", f"b{k}.add", net.conv_bn(inner, f"b{k}.two", 6), y))
    net.classifier(y)
    made = net.model(batch="N")
    for node in made.graph.node:
        node.name = f"{NASTY}{node.name}"
        node.doc_string = NASTY
        for names in (node.input, node.output):
            names[:] = [f"{NASTY}{name}" for name in names]
    for value in (*made.graph.initializer, *made.graph.input, *made.graph.output):
        value.name = f"{NASTY}{value.name}"
    made.graph.input[0].type.tensor_type.shape.dim[0].dim_param = f"{NASTY}N"
    made.graph.name = NASTY
    made.metadata_props.add(key=NASTY, value=NASTY)
    made.graph.initializer.append(onnx.helper.make_tensor(f"{NASTY}unused", 1, [1], [0.0]))
    if spoilt:
        made.graph.node[0].op_type = NASTY
        made.graph.node[1].attribute.append(onnx.helper.make_attribute(NASTY, NASTY))
        made.graph.output[0].name = f"{NASTY}none"
    return made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a nasty model and a nasty one that is broken, too, under nasty names."""
    monkeypatch.chdir(tmp_path)
    save(network(), Path("in.onnx"))
    save(network(), Path(f"{NASTY.replace('/', '')}.onnx"))
    save(network(spoilt=True), Path("broken.onnx"))
    Path("spec.json").write_text(json.dumps({"version": 1, "knobs": {"stage0.width": 8, "stage0.*.kernel": 5}}))
    Path("odd.json").write_text(json.dumps({"version": 1, "knobs": {f"node:{NASTY}stem.width": 8, NASTY: 3}}))
    Path("space.json").write_text(json.dumps({"version": 1, "knobs": {f"stage0.{NASTY}": [3, 5]}}))
    Path("classes.txt").write_text("\x1b[31mred\n::error::x\n[bold]y[/nope]\n")
    return tmp_path


FILE = f"{NASTY.replace('/', '')}.onnx"
COMMANDS = {
    "inspect": ["inspect", "in.onnx"],
    "inspect, the path": ["inspect", FILE],
    "inspect --group": ["inspect", "in.onnx", "--group", "stage0.width"],
    "inspect --group none": ["inspect", "in.onnx", "--group", f"node:{NASTY}"],
    "inspect broken": ["inspect", "broken.onnx"],
    "inspect nothing": ["inspect", f"{NASTY}none"],
    "profile": ["profile", "in.onnx", "--nodes"],
    "profile --input": ["profile", "in.onnx", "--input", f"{NASTY}=1x3"],
    "diff": ["diff", "in.onnx", "broken.onnx", "--all"],
    "diff the path": ["diff", FILE, "broken.onnx"],
    "check": ["check", "broken.onnx", FILE],
    "check --format github": ["check", "broken.onnx", FILE, "--format", "github"],
    "check --format sarif": ["check", "broken.onnx", FILE, "--format", "sarif"],
    "check --against": ["check", "in.onnx", "--against", "broken.onnx", "--spec", "odd.json"],
    "remap": ["remap", "in.onnx", "--spec", "spec.json", "-o", "out.onnx", "--no-verify", "--report", "report.json"],
    "remap, unknown": ["remap", "in.onnx", "--spec", "odd.json", "--dry-run"],
    "remap, a model": ["remap", "in.onnx", "--spec", FILE, "--dry-run"],
    "head": [
        "head",
        "in.onnx",
        "--task",
        "classification",
        "--classes",
        "classes.txt",
        "-o",
        "out.onnx",
        "--no-verify",
    ],
    "head --taps": [
        "head",
        "in.onnx",
        "--task",
        "segmentation",
        "--classes",
        "2",
        "--taps",
        f"{NASTY}one",
        "-o",
        "out.onnx",
    ],
    "fold": ["fold", "in.onnx", "-o", "out.onnx", "--no-verify"],
    "unfold": ["unfold", "in.onnx", "-o", "out.onnx", "--data", "random", "--no-verify"],
    "unfold --only": ["unfold", "in.onnx", "-o", "out.onnx", "--data", "random", "--only", NASTY],
    "finetune": ["finetune", "in.onnx", "--config", f"{NASTY}.toml", "-o", "out.onnx"],
    "evaluate": ["evaluate", "in.onnx", "--data", NASTY.replace("/", "")],
    "search": ["search", "in.onnx", "--config", "classes.txt"],
    "derive": ["derive", NASTY],
    "latency-table": ["latency-table", "in.onnx", "--space", "space.json", "-o", "table.json"],
    "export": ["export", NASTY, "-o", "out.onnx"],
    "an option": [f"--{NASTY}"],
    "a command": [NASTY],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_prints_an_order(name: str, folder: Path, capsys: Capture) -> None:
    assert run(COMMANDS[name]) in (0, 1, 2)
    captured = capsys.readouterr()
    text = captured.out + captured.err
    assert text
    assert "Traceback" not in text
    assert [line for line in text.split("\n") if not line.isprintable()] == []
    assert "##vso" not in text
    ours = ("::error file=", "::warning file=", "::notice file=") if "github" in name else ()
    for line in text.split("\n"):
        found = line.lstrip()
        assert not found.startswith("::") or found.startswith(
            tuple(f"{start}{place}" for start in ours for place in ("broken", "a"))
        )


def test_figures_of_classes_are_shown(capsys: Capture) -> None:
    with heard():
        show_evaluated(Evaluated(Path("a.onnx"), {"mIoU": 0.5}, {f"IoU/{NASTY}": 0.25, f"IoU/no{NASTY}": None}))
    told = capsys.readouterr().out
    assert "0.25" in told
    assert "(no ground truth)" in told
    assert all(line.isprintable() for line in told.split("\n"))
    document(json.dumps({f"IoU/{NASTY}": 0.25}))
    assert json.loads(capsys.readouterr().out) == {f"IoU/{NASTY}": 0.25}


def test_json_says_names_as_they_are(folder: Path, capsys: Capture) -> None:
    assert run(["profile", "in.onnx", "--json"]) == 0
    out = capsys.readouterr().out
    assert all(line.isprintable() for line in out.split("\n"))
    assert f"{NASTY}stem" in [row["name"] for row in json.loads(out)["nodes"]]


def test_a_file_name_that_is_no_text_is_shown_by_its_bytes(folder: Path, capsys: Capture) -> None:
    path = os.fsdecode(b"caf\xe9.onnx")
    save(network(), Path(path))
    assert run(["inspect", path]) == 0
    assert r"caf\xe9.onnx" in capsys.readouterr().out
