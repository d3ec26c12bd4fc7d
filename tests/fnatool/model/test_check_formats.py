"""`fnatool check` for continuous integration: GitHub's annotations, SARIF, a pre-commit hook; and a word for every code
of a finding.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import onnx
import pytest
import yaml
from check_rules import RULES as RULE_LINES
from check_rules import one
from pre_commit.clientlib import load_manifest
from tiny import model, net, save

from fnatool import __version__, seeds
from fnatool.cli.main import run
from fnatool.model import check as checking
from fnatool.model import faults
from fnatool.model.check import CODES, Report
from fnatool.model.check_formats import to_github, to_sarif
from passes.check import graph as check
from passes.check.finding import CODES as STATIC
from passes.check.finding import Finding

ROOT = Path(__file__).parent.parent.parent.parent
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a good and a bad model."""
    monkeypatch.chdir(tmp_path)
    save(net(), Path("good.onnx"))
    bad = net(b=(7,))
    bad.graph.node[0].name = "stem"
    bad.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(2, np.float32), "spare"))
    save(bad, Path("bad.onnx"))
    return tmp_path


def report(*findings: Finding, name: str = "a.onnx") -> list[Report]:
    return [Report(Path(name), findings)]


# --- GitHub ---


def unescaped(text: str) -> str:
    """What the runner makes of escaped text."""
    for code, character in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        text = text.replace(code, character)
    return text


def parsed(line: str) -> tuple[str, dict[str, str], str]:
    """Command, properties and message as the runner reads them: the properties end at the next '::'."""
    assert line.startswith("::")
    head, _, message = line[2:].partition("::")
    command, _, properties = head.partition(" ")
    return (
        command,
        {k: unescaped(v) for k, v in (entry.split("=", 1) for entry in properties.split(","))},
        unescaped(message),
    )


def test_every_finding_is_a_command_of_its_severity(capsys: Capture) -> None:
    assert run(["check", "--format", "github", "good.onnx", "bad.onnx"]) == 1
    commands = [parsed(line) for line in capsys.readouterr().out.splitlines()]
    levels = [command for command, _, _ in commands]
    assert levels == sorted(levels, key=["error", "warning", "notice"].index)
    assert {properties["file"] for _, properties, _ in commands} == {"bad.onnx"}
    (bias,) = (message for _, properties, message in commands if properties["title"] == "fnatool bias-length")
    assert bias == "Conv 'stem': its bias 'b' is 7, the weight makes 8 channels; give the bias 8 values"
    assert [c for c, properties, _ in commands if properties["title"] == "fnatool unused-initializer"] == ["warning"]
    assert [c for c, properties, _ in commands if properties["title"] == "fnatool run"] == ["notice"]  # guessed sizes


def test_a_note_is_a_notice_and_a_good_model_says_nothing(capsys: Capture) -> None:
    assert run(["check", "--format", "github", "good.onnx"]) == 0
    assert capsys.readouterr().out == ""
    assert to_github(report(Finding("note", "not-run", "ONNX Runtime", "not run"))).startswith("::notice ")


def test_what_would_end_a_property_or_a_line_is_escaped() -> None:
    nasty = "100% a:b,c\r\nd::error file=x::y"
    line = to_github(report(Finding("error", "run", nasty, nasty, nasty), name=f"dir/{nasty}.onnx"))
    assert "\n" not in line
    assert "\r" not in line
    command, properties, message = parsed(line)
    assert (command, properties) == ("error", {"file": f"dir/{nasty}.onnx", "title": "fnatool run"})
    assert message == f"{nasty}: {nasty}; {nasty}"
    assert "file=dir/100%25 a%3Ab%2Cc%0D%0Ad%3A%3Aerror file=x%3A%3Ay.onnx," in line


def test_files_are_named_as_seen_from_the_repository(folder: Path) -> None:
    finding = Finding("error", "run", "model", "no")
    for name, told in (
        ("a/../b.onnx", "b.onnx"),
        (str(folder / "c" / "d.onnx"), "c/d.onnx"),
        ("../e.onnx", f"{folder.parent}/e.onnx"),
    ):
        assert parsed(to_github(report(finding, name=name)))[1]["file"] == told


# --- SARIF ---


def sarif(capsys: Capture, *arguments: str, code: int = 1) -> dict[str, object]:
    """The log that check prints."""
    assert run(["check", "--format", "sarif", *arguments]) == code
    log = json.loads(capsys.readouterr().out)
    assert_is_sarif(log)
    return log["runs"][0]  # type: ignore[no-any-return]


def assert_is_sarif(log: Mapping[str, object]) -> None:
    """What SARIF 2.1.0 demands of the objects we write, and no property that it does not know. Sections are those of
    the standard.
    """
    assert set(log) == {"$schema", "version", "runs"}  # 3.13
    assert log["version"] == "2.1.0"
    assert str(log["$schema"]).startswith("https://")
    assert str(log["$schema"]).endswith("sarif-schema-2.1.0.json")
    (run_,) = log["runs"]  # type: ignore[misc]
    assert set(run_) == {"tool", "invocations", "results", "columnKind"}  # 3.14
    assert run_["columnKind"] in ("utf16CodeUnits", "unicodeCodePoints")
    assert [set(entry) for entry in run_["invocations"]] == [{"executionSuccessful"}]  # 3.20
    assert isinstance(run_["invocations"][0]["executionSuccessful"], bool)
    assert set(run_["tool"]) == {"driver"}  # 3.18
    driver = run_["tool"]["driver"]
    assert set(driver) == {"name", "version", "rules"}  # 3.19
    assert (driver["name"], driver["version"]) == ("fnatool", __version__)
    for rule in driver["rules"]:  # 3.49
        assert set(rule) == {"id", "name", "shortDescription"}
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", rule["id"])
        assert re.fullmatch(r"([A-Z][a-z]+)+", rule["name"])
        assert set(rule["shortDescription"]) == {"text"}  # 3.12
        assert re.fullmatch(r"[A-Z].*\.", rule["shortDescription"]["text"])
    ids = [rule["id"] for rule in driver["rules"]]
    assert len(set(ids)) == len(ids)
    assert isinstance(run_["results"], list)
    for result in run_["results"]:
        assert_is_result(result, ids)
    prints = [(result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"], *result["partialFingerprints"].values())
              for result in run_["results"]]  # fmt: skip
    assert len(set(prints)) == len(prints)


def assert_is_result(result: Mapping[str, object], ids: list[str]) -> None:
    """3.27: a rule by id and index, a level, a message, one place."""
    assert set(result) == {"ruleId", "ruleIndex", "level", "message", "locations", "partialFingerprints"}
    assert ids[result["ruleIndex"]] == result["ruleId"]  # type: ignore[index]
    assert result["level"] in ("none", "note", "warning", "error")
    assert set(result["message"]) == {"text"}  # type: ignore[call-overload]  # 3.11
    assert result["message"]["text"]  # type: ignore[index]
    assert all(isinstance(value, str) and value for value in result["partialFingerprints"].values())  # type: ignore[attr-defined]
    (location,) = result["locations"]  # type: ignore[misc]
    assert set(location) == {"physicalLocation", "logicalLocations"}  # 3.28
    physical = location["physicalLocation"]
    assert set(physical) == {"artifactLocation", "region"}  # 3.29
    assert physical["region"] == {"startLine": 1}  # 3.30; GitHub wants one
    artifact = physical["artifactLocation"]  # 3.4
    assert set(artifact) <= {"uri", "uriBaseId"}
    uri = artifact["uri"]
    assert re.fullmatch(r"([A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-F]{2})+", uri)  # RFC 3986
    assert ".." not in uri.split("/")
    if "uriBaseId" in artifact:
        assert not uri.startswith("/")
        assert not urlsplit(uri).scheme
    else:
        assert uri.startswith("file:///")
    assert location["logicalLocations"]
    for logical in location["logicalLocations"]:  # 3.33
        assert {"name", "fullyQualifiedName"} <= set(logical) <= {"name", "fullyQualifiedName", "kind"}
        assert all(isinstance(value, str) and value for value in logical.values())


def test_findings_are_results_with_their_rule_their_level_and_their_node(capsys: Capture) -> None:
    found = sarif(capsys, "good.onnx", "bad.onnx")
    results = {result["ruleId"]: result for result in found["results"]}  # type: ignore[attr-defined]
    bias = results["bias-length"]
    assert bias["level"] == "error"
    assert (
        bias["message"]["text"] == "Conv 'stem': its bias 'b' is 7, the weight makes 8 channels; give the bias 8 values"
    )
    assert bias["locations"][0]["physicalLocation"]["artifactLocation"] == {"uri": "bad.onnx", "uriBaseId": "%SRCROOT%"}
    assert bias["locations"][0]["logicalLocations"] == [
        {"name": "stem", "fullyQualifiedName": "Conv 'stem'", "kind": "node"}
    ]
    spare = results["unused-initializer"]
    assert spare["level"] == "warning"
    assert spare["locations"][0]["logicalLocations"] == [
        {"name": "spare", "fullyQualifiedName": "initializer 'spare'", "kind": "initializer"}
    ]


def test_a_good_model_has_no_results_and_all_the_rules(capsys: Capture) -> None:
    found = sarif(capsys, "good.onnx", "mobilenetv2_bn", code=0)
    assert found["results"] == []
    assert [rule["id"] for rule in found["tool"]["driver"]["rules"]] == list(CODES)  # type: ignore[index]


def test_uris_are_relative_to_the_repository_and_percent_encoded(folder: Path, capsys: Capture) -> None:
    nasty = "my models/a b%20ü:#?.onnx"
    (folder / "my models").mkdir()
    save(net(b=(7,)), folder / nasty)
    found = sarif(capsys, nasty, str(folder / "my models" / ".." / "bad.onnx"))
    uris = {result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for result in found["results"]}  # type: ignore[attr-defined]
    assert uris == {"my%20models/a%20b%2520%C3%BC%3A%23%3F.onnx", "bad.onnx"}
    assert {unquote(uri) for uri in uris} == {nasty, "bad.onnx"}


def test_a_file_outside_the_repository_has_an_absolute_uri(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "inner").mkdir()
    monkeypatch.chdir(folder / "inner")
    found = sarif(capsys, "../bad.onnx")
    artifact = found["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]  # type: ignore[index]
    assert artifact == {"uri": (folder / "bad.onnx").as_uri()}


def test_places_without_a_name_and_cycles_of_several_nodes_are_places_too() -> None:
    def logical(where: str) -> list[dict[str, str]]:
        log = json.loads(to_sarif(report(Finding("error", "run", where, "no")), complete=True))
        assert_is_sarif(log)
        return log["runs"][0]["results"][0]["locations"][0]["logicalLocations"]  # type: ignore[no-any-return]

    assert logical("ONNX Runtime") == [{"name": "ONNX Runtime", "fullyQualifiedName": "ONNX Runtime"}]
    assert logical("Conv (node 3)") == [{"name": "Conv (node 3)", "fullyQualifiedName": "Conv (node 3)"}]
    assert [place["name"] for place in logical("Conv 'a', Relu 'b'")] == ["a", "b"]
    assert [place["name"] for place in logical("Conv 'it's'")] == ["Conv 'it's'"]
    assert [place["name"] for place in logical("Conv ''")] == ["Conv"]


def test_two_findings_of_one_node_can_be_told_apart_and_are_known_again() -> None:
    findings = (Finding("error", "shape", "Add 'a'", "one"), Finding("error", "shape", "Add 'a'", "two"))
    first, second = (json.loads(to_sarif(report(*findings), complete=True)) for _ in range(2))
    assert_is_sarif(first)
    assert first == second


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('"version": "2.1.0"', '"version": "2.1"'),
        ('"ruleIndex": ', '"ruleIndex": 1'),
        ('"level": "error"', '"level": "fatal"'),
        ('"startLine": 1', '"startLine": 0'),
        ('"uri": "a.onnx"', '"uri": "a b.onnx"'),
        ('"uri": "a.onnx"', '"uri": "/a.onnx"'),
        ('"kind": "node"', '"kind": ""'),
        ('"id": "empty"', '"id": "shape"'),
    ],
)
def test_a_wrong_log_is_noticed(right: str, wrong: str) -> None:
    log = to_sarif(report(Finding("error", "shape", "Add 'a'", "one")), complete=True)
    assert_is_sarif(json.loads(log))
    assert right in log
    with pytest.raises((AssertionError, IndexError)):
        assert_is_sarif(json.loads(log.replace(right, wrong, 1)))


# --- exit codes ---


@pytest.mark.parametrize("form", ["github", "sarif"])
def test_a_missing_file_is_a_mistake_and_the_others_are_reported(form: str, capsys: Capture) -> None:
    assert run(["check", "--format", form, "no.onnx", "bad.onnx"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "fnatool: 'no.onnx' does not exist; give the path of an ONNX file\n"
    assert "bias-length" in captured.out
    if form == "sarif":
        log = json.loads(captured.out)
        assert_is_sarif(log)
        assert log["runs"][0]["invocations"] == [{"executionSuccessful": False}]


@pytest.mark.parametrize("form", ["github", "sarif"])
def test_a_broken_file_is_a_finding(form: str, capsys: Capture) -> None:
    Path("broken.onnx").write_bytes(b"no model")
    assert run(["check", "--format", form, "broken.onnx"]) == 1
    captured = capsys.readouterr()
    assert "unreadable" in captured.out
    assert captured.err == ""


def test_a_pointer_of_git_lfs_says_what_to_do(capsys: Capture) -> None:
    Path("lfs.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert run(["check", "lfs.onnx"]) == 1
    assert "'git lfs pull' fetches the model" in capsys.readouterr().out
    assert run(["inspect", "lfs.onnx"]) == 1
    assert "'git lfs pull' fetches the model" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["github", "sarif"])
def test_a_reader_that_leaves_early_is_no_error(form: str) -> None:
    line = f"{sys.executable} -m fnatool check --format {form} good.onnx bad.onnx | true"
    done = subprocess.run(["bash", "-c", line], stderr=subprocess.PIPE, text=True, check=False)
    assert done.stderr == ""


# --- codes and fixes ---


def emitted(path: str) -> set[str]:
    """Every code that a module writes: the second argument of Finding, the first of _error."""
    codes: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        slot = {"Finding": 1, "_error": 0}.get(node.func.id)
        code = node.args[slot] if slot is not None else None
        if isinstance(code, ast.Constant):
            codes.add(str(code.value))
        elif isinstance(code, ast.JoinedStr):
            assert ast.unparse(code) == "f'duplicate-{kind}'"
            codes |= {"duplicate-initializer", "duplicate-input", "duplicate-output"}
    return codes - {"code"}


def test_every_code_has_a_description_and_every_description_a_code() -> None:
    static = {code for name in ("finding", "graph", "message", "engine") for code in emitted(f"passes/check/{name}.py")}
    assert static == set(STATIC)
    assert static | {
        code for name in ("faults", "demands", "targets", "check") for code in emitted(f"fnatool/model/{name}.py")
    } == set(CODES)
    assert all(re.fullmatch(r"[a-zA-Z][^.\n]{10,79}", text) for text in CODES.values())


BROKEN = {
    "cycle": "g (float[3] x) => (float[3] y) { a = Add (x, b) b = Relu (a) y = Relu (b) }",
    "unsorted": "g (float[3] x) => (float[3] y) { y = Relu (a) a = Relu (x) }",
    "dangling": "g (float[3] x) => (float[3] y) { y = Add (x, z) }",
    "duplicate-tensor": "g (float[3] x) => (float[3] y) { y = Relu (x) y = Neg (x) }",
    "duplicate-output": "g (float[3] x) => (float[3] y, float[3] y) { y = Relu (x) }",
    "unused-input": "g (float[3] x, float[3] z) => (float[3] y) { y = Relu (x) }",
    "unused-node": "g (float[3] x) => (float[3] y) { y = Relu (x) z = Neg (x) }",
    "output-shape": "g (float[3] x) => (float[7] y) { b = Greater (x, x) c = NonZero (b) d = Squeeze (c) y = Cast "
    "<to = 1> (d) }",
    "not-run": "g (float[3] x) => (float[3] y) { y = com.example.Magic (x) }",
}


@pytest.mark.parametrize("code", BROKEN)
def test_a_broken_model_has_its_code_in_the_table_and_says_what_to_do(code: str) -> None:
    proto = model(BROKEN[code])
    if code == "not-run":
        proto.opset_import.add(domain="com.example", version=1)
    findings = checking.check(save(proto, Path("a.onnx"))).findings
    assert {finding.code for finding in findings} <= set(CODES)
    assert all(finding.fix for finding in findings if finding.code == code)
    assert code in {finding.code for finding in findings}
    assert_is_sarif(json.loads(to_sarif([Report(Path("a.onnx"), findings)], complete=True)))


@pytest.mark.parametrize(("line", "weights", "code"), [row for row in RULE_LINES if row[2]])
def test_every_static_rule_says_what_to_do(
    line: str, weights: dict[str, tuple[int, ...] | np.ndarray], code: str
) -> None:
    proto = one(line, weights)
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    findings = check.check(checking.files.import_graph(proto, arrays))
    assert all(finding.fix and finding.code in CODES for finding in findings)


def test_demands_say_how_to_meet_them(capsys: Capture) -> None:
    Path("spec.json").write_text('{"version": 1, "knobs": {"stage3.depth": 9}}')
    demands = ["--max-macs", "5", "--max-params", "5", "--spec", "spec.json", "--against", "good.onnx"]
    assert run(["check", "--format", "json", "mobilenetv2_bn", *demands[:-2]]) == 1
    findings = json.loads(capsys.readouterr().out)["models"][0]["findings"]
    assert {finding["code"] for finding in findings} == {"max-macs", "max-params", "spec"}
    assert all(finding["fix"] for finding in findings)
    assert run(["check", "--format", "json", "mobilenetv2_bn", "--against", "good.onnx"]) == 1
    findings = json.loads(capsys.readouterr().out)["models"][0]["findings"]
    assert {finding["code"] for finding in findings} == {"interface"}
    assert all(finding["fix"] for finding in findings)


def test_a_step_that_takes_too_long_says_how_to_give_it_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(*_: object, **__: object) -> None:
        raise faults.isolate.TimedOut("it took more than 1 seconds")

    monkeypatch.setattr(faults.isolate, "run", wait)
    findings = checking.check(seeds.DEFAULT, options=checking.CheckOptions(seconds=1)).findings
    assert {finding.code for finding in findings} == {"checker-died", "shape-inference-died", "run"}
    assert {finding.fix for finding in findings} == {"give it longer with --timeout"}


# --- the hook and the workflow ---


def test_the_pre_commit_hook_checks_onnx_files(capsys: Capture) -> None:
    (hook,) = load_manifest(str(ROOT / ".pre-commit-hooks.yaml"))
    assert (hook["id"], hook["language"], hook["files"]) == ("fnatool-check", "python", r"\.onnx$")
    program, *arguments = [*shlex.split(hook["entry"]), *hook["args"]]
    assert program == "fnatool"
    assert run([*arguments, "good.onnx"]) == 0
    assert run([*arguments, "good.onnx", "bad.onnx"]) == 1
    capsys.readouterr()


def test_the_workflow_of_the_examples_runs(folder: Path) -> None:
    workflow = yaml.safe_load((ROOT / "examples" / "ci.yml").read_text())
    steps = workflow["jobs"]["check"]["steps"]
    commands = [step["run"] for step in steps if "fnatool check" in step.get("run", "")]
    (folder / "models").mkdir()
    save(net(b=(7,)), folder / "models" / "a.onnx")
    fnatool = f'fnatool() {{ {shlex.quote(sys.executable)} -m fnatool "$@"; }}'
    gate, write = (
        subprocess.run(["bash", "-c", f"{fnatool}\n{line}"], capture_output=True, text=True, check=False)
        for line in commands
    )
    assert (gate.returncode, write.returncode) == (1, 1)
    assert gate.stdout.startswith("::error file=models/a.onnx,title=fnatool bias-length::")
    (upload,) = (step["with"]["sarif_file"] for step in steps if "upload-sarif" in step.get("uses", ""))
    assert_is_sarif(json.loads((folder / upload).read_text()))
    assert workflow["permissions"]["security-events"] == "write"
