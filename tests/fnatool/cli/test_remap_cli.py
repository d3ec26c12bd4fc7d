"""`fnatool remap` as its user meets it: messages, exit codes, and what lies in the folder afterwards; and `fnatool
check` of a result.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
import pytest
from refusals import Capture, refused
from remaps import GROWN, Knobs, document, everything_in, normalised, plant, residual, save_external, weights
from tiny import model, save

from fnatool import seeds
from fnatool.cli.main import run
from fnatool.files import model as files
from fnatool.files import wire
from fnatool.model.analysed import SPEC_KEY, metadata


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a seed, and specs to remap it by."""
    monkeypatch.chdir(tmp_path)
    save(residual(), tmp_path / "seed.onnx")
    specify("grown.json", GROWN)
    specify("wider.json", {"stage0.block0.hidden": 14})
    specify("same.json", {})
    return tmp_path


def specify(name: str, values: Knobs, seed: str | None = None) -> None:
    Path(name).write_text(json.dumps(document(values) | ({} if seed is None else {"seed": seed})))


def remap(*arguments: str, spec: str = "wider.json", seed: str = "seed.onnx", out: str = "out.onnx") -> int:
    return run(["remap", seed, "--spec", spec, "-o", out, *arguments])


# --- what it does ---


def test_a_remap_says_what_changed_what_it_costs_and_that_it_is_exact(folder: Path, capsys: Capture) -> None:
    assert remap("--strategy", "preserve") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.splitlines()[:3] == [
        "  stage0.block0.hidden: 10 → 14",
        "parameters 1,473 → 1,721",
        "MAdds 87,198 → 102,558",
    ]
    assert "exact: 6 inner tensors compared with the seed in ONNX Runtime, worst drift " in captured.out
    assert captured.out.splitlines()[-1] == "→ out.onnx"
    assert sum(values.size for name, values in weights(folder / "out.onnx").items() if name.endswith(".w")) > 0
    onnx.checker.check_model(folder / "out.onnx", full_check=True)


def test_fna_states_the_drift(folder: Path, capsys: Capture) -> None:
    assert remap() == 0
    assert (
        "the function changes (stage0.block0.hidden grows from 10 to 14 by the fna rule): 6 inner tensors"
        in capsys.readouterr().out
    )


def test_what_is_not_verified_is_not_called_exact(folder: Path, capsys: Capture) -> None:
    assert remap("--strategy", "preserve", "--no-verify") == 0
    out = capsys.readouterr().out
    assert "not verified" in out
    assert "exact" not in out


def test_a_spec_that_changes_nothing_copies_the_seed(folder: Path, capsys: Capture) -> None:
    assert remap(spec="same.json") == 0
    assert (folder / "out.onnx").read_bytes() == (folder / "seed.onnx").read_bytes()
    assert "nothing changes: the result is the seed, byte for byte (out.onnx)" in capsys.readouterr().out


def test_the_bundled_seed_goes_by_its_name(folder: Path, capsys: Capture) -> None:
    specify("narrow.json", {"**.hidden": "x0.5", "stage1.depth": "+1"})
    assert remap("--strategy", "preserve", seed="mobilenetv2_bn", spec="narrow.json") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "exact on what stays: 53 inner tensors" in out
    assert "without what is dropped the outputs move by up to" in out
    assert run(["check", "out.onnx", "--spec", "narrow.json", "--against", "mobilenetv2_bn"]) == 0


def test_seed_and_spec_fix_the_bytes(folder: Path) -> None:
    for name, number in (("a", "7"), ("b", "7"), ("c", "8")):
        assert remap("--seed", number, "--no-verify", out=f"{name}.onnx", spec="grown.json") == 0
    made = everything_in(folder)
    assert made["a.onnx"] == made["b.onnx"] != made["c.onnx"]


def test_every_selection_is_a_valid_network(folder: Path) -> None:
    specify("narrow.json", {"stage0.block*.hidden": 4, "stage0.width": 4})
    made = set()
    for select in ("first", "bn", "l1", "std"):
        assert remap("--select", select, spec="narrow.json", out=f"{select}.onnx") == 0
        assert run(["check", f"{select}.onnx", "--against", "seed.onnx", "--spec", "narrow.json"]) == 0
        made.add((folder / f"{select}.onnx").read_bytes())
    assert len(made) > 1


def test_a_dry_run_says_it_all_and_writes_nothing(folder: Path, capsys: Capture) -> None:
    before = everything_in(folder)
    assert run(["remap", "seed.onnx", "--spec", "wider.json", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "stage0.block0.hidden: 10 → 14" in out
    assert "parameters 1,473 → 1,721" in out
    assert "nothing written (--dry-run)" in out
    assert remap("--dry-run") == 0
    assert remap("--dry-run", spec="same.json") == 0
    assert everything_in(folder) == before


def test_a_dry_run_that_changes_nothing_claims_no_file(folder: Path, capsys: Capture) -> None:
    assert remap("--dry-run", spec="same.json") == 0
    assert "holds the bytes" not in capsys.readouterr().out


def test_a_dry_run_refuses_what_the_run_would_refuse(folder: Path, capsys: Capture) -> None:
    save(normalised(), folder / "lrn.onnx")
    specify("c1.json", {"node:c1.width": 12})
    assert remap("--dry-run", "--strategy", "preserve", seed="lrn.onnx", spec="c1.json") == 2
    assert "'node:c1.width' cannot grow from 8 to 12 exactly" in refused(capsys)


def test_a_dry_run_writes_the_report_that_was_asked_for(folder: Path) -> None:
    assert remap("--dry-run", "--report", "r.json") == 0
    assert not (folder / "out.onnx").exists()
    assert json.loads((folder / "r.json").read_text())["verified"] is None


def test_the_report_rebuilds_the_old_part_of_every_weight(folder: Path) -> None:
    assert remap("--strategy", "preserve", "--report", "r.json", spec="grown.json") == 0
    told = json.loads((folder / "r.json").read_text())
    assert {"seed", "strategy", "spec", "changes", "drifts", "notes", "verified", "tensors"} <= set(told)
    assert told["spec"] == json.loads(metadata(onnx.load("out.onnx"))[SPEC_KEY])["knobs"]
    old, new = weights(folder / "seed.onnx"), weights(folder / "out.onnx")
    for row in told["tensors"]:
        where, whence = [np.arange(size) for size in row["to"]], [np.arange(size) for size in row["to"]]
        for axis, index in row["indices"].items():
            positions = np.array(index)
            where[int(axis)] = np.flatnonzero(positions >= 0)
            whence[int(axis)] = positions[positions >= 0]
        expected = (
            np.zeros_like(old[row["source"]][np.ix_(*whence)])
            if "silenced" in row["what"]
            else old[row["source"]][np.ix_(*whence)]
        )
        np.testing.assert_array_equal(new[row["target"]][np.ix_(*where)], expected, err_msg=row["target"])


def test_preserve_with_drift_allowed_names_the_knob_and_why(folder: Path, capsys: Capture) -> None:
    save(normalised(), folder / "lrn.onnx")
    specify("c1.json", {"node:c1.width": 12})
    assert remap("--strategy", "preserve", seed="lrn.onnx", spec="c1.json") == 2
    message = refused(capsys)
    assert "'lrn' (LRN) looks at neighbouring channels" in message
    assert "--allow-drift" in message
    assert not (folder / "out.onnx").exists()
    assert remap("--strategy", "preserve", "--allow-drift", seed="lrn.onnx", spec="c1.json") == 0
    assert (
        "the function changes ('node:c1.width' cannot grow from 8 to 12 exactly: 'lrn' (LRN) looks"
        in capsys.readouterr().out
    )


def test_a_frozen_knob_under_a_pattern_is_noted(folder: Path, capsys: Capture) -> None:
    specify("all.json", {"**.width": "x1.34"})
    assert remap(spec="all.json") == 0
    assert "note: pattern '**.width' skipped 1 frozen knob(s): node:y.width" in capsys.readouterr().out


def test_the_spec_of_inspect_remaps_to_the_same_bytes(folder: Path, capsys: Capture) -> None:
    assert run(["inspect", "seed.onnx", "--spec"]) == 0
    (folder / "own.json").write_text(capsys.readouterr().out)
    assert remap(spec="own.json") == 0
    assert (folder / "out.onnx").read_bytes() == (folder / "seed.onnx").read_bytes()


def test_inspect_of_a_result_gives_its_resolved_spec(folder: Path, capsys: Capture) -> None:
    specify(
        "relative.json", {"stage*.width": "x1.34", "stage0.depth": "+2", "stage0.block3.hidden": 4, "**.kernel": "+2"}
    )
    assert remap(spec="relative.json") == 0
    capsys.readouterr()
    assert run(["inspect", "out.onnx", "--spec"]) == 0
    own = json.loads(capsys.readouterr().out)
    stored = json.loads(metadata(onnx.load("out.onnx"))[SPEC_KEY])
    assert own["knobs"] == stored["knobs"]
    assert own["seed"] == f"sha256:{files.read('out.onnx').sha256}"
    assert stored["seed"] == f"sha256:{files.read('seed.onnx').sha256}"


def test_a_dynamic_input_is_verified_at_the_sizes_given(folder: Path, capsys: Capture) -> None:
    proto = residual(batch="N")
    for axis in proto.graph.input[0].type.tensor_type.shape.dim[2:]:
        axis.dim_param = "extent"
    save(proto, folder / "free.onnx")
    assert remap("--strategy", "preserve", seed="free.onnx", out="a.onnx") == 0
    assert "MAdds" not in capsys.readouterr().out
    assert remap("--strategy", "preserve", "--input", "x=1x3x12x20", seed="free.onnx", out="b.onnx") == 0
    assert "MAdds" in capsys.readouterr().out
    assert (folder / "a.onnx").read_bytes() == (folder / "b.onnx").read_bytes()
    assert [axis.dim_param for axis in onnx.load("a.onnx").graph.input[0].type.tensor_type.shape.dim] == [
        "N",
        "",
        "extent",
        "extent",
    ]


# --- existing files ---


def test_an_existing_output_stays_unless_forced(folder: Path, capsys: Capture) -> None:
    (folder / "out.onnx").write_text("precious")
    before = everything_in(folder)
    assert remap() == 2
    assert "'out.onnx' exists; choose another output or pass --force to overwrite it" in refused(capsys)
    assert everything_in(folder) == before
    assert remap("--force") == 0
    assert onnx.load("out.onnx").graph.node


@pytest.mark.parametrize("force", [[], ["--force"]])
@pytest.mark.parametrize("spec", ["wider.json", "same.json"])
def test_the_seed_is_never_overwritten(spec: str, force: list[str], folder: Path, capsys: Capture) -> None:
    (folder / "link.onnx").symlink_to(folder / "seed.onnx")
    (folder / "hard.onnx").hardlink_to(folder / "seed.onnx")
    before = everything_in(folder)
    for out in ("seed.onnx", "./seed.onnx", "link.onnx", "hard.onnx"):
        assert remap(*force, out=out, spec=spec) == 2
        assert "which is never overwritten; choose another output" in refused(capsys)
        assert remap(*force, "--report", out, spec=spec) == 2
        assert "which is never overwritten; choose another output" in refused(capsys)
    assert everything_in(folder) == before


def test_an_existing_report_stays_unless_forced_and_then_no_output_is_written_either(
    folder: Path, capsys: Capture
) -> None:
    (folder / "r.json").write_text("precious")
    before = everything_in(folder)
    assert remap("--report", "r.json") == 2
    assert "'r.json' exists" in refused(capsys)
    assert everything_in(folder) == before
    assert remap("--report", "r.json", "--force") == 0
    assert json.loads((folder / "r.json").read_text())["strategy"] == "fna"


def test_external_weights_that_nothing_changes_are_to_be_copied_by_hand(folder: Path, capsys: Capture) -> None:
    save_external(residual(), folder / "ex.onnx")
    before = everything_in(folder)
    assert remap(seed="ex.onnx", spec="same.json") == 2
    assert "nothing changes, and " in refused(capsys)
    assert everything_in(folder) == before


def test_the_data_file_of_another_model_is_not_overwritten(folder: Path, capsys: Capture) -> None:
    save_external(residual(), folder / "ex.onnx")
    (folder / "out.onnx.data").write_text("precious")
    before = everything_in(folder)
    assert remap(seed="ex.onnx") == 2
    assert "out.onnx.data' exists" in refused(capsys)
    assert everything_in(folder) == before


def test_the_report_never_replaces_the_data_file_of_the_result(folder: Path) -> None:
    save_external(residual(hidden=64), folder / "ex.onnx")
    assert remap("--report", "out.onnx.data", "--force", seed="ex.onnx") == 2
    assert not (folder / "out.onnx").exists()


@pytest.mark.parametrize("arguments", [["-o", "wider.json"], ["-o", "out.onnx", "--report", "wider.json"]])
def test_the_spec_is_never_overwritten(arguments: list[str], folder: Path, capsys: Capture) -> None:
    before = everything_in(folder)
    assert run(["remap", "seed.onnx", "--spec", "wider.json", "--force", *arguments]) == 2
    assert "never overwritten" in refused(capsys)
    assert everything_in(folder) == before


# --- mistakes: exit code 2 ---


SPECS = [
    ("not JSON", "{", "is not JSON: "),
    ("empty", "", "is not JSON: "),
    ("a list", "[]", "a spec is a JSON object with 'version' and 'knobs', not a list"),
    ("no version", '{"knobs": {}}', "this spec has version None; this fnatool reads version 1"),
    ("another version", '{"version": 2, "knobs": {}}', "this spec has version 2"),
    ("unknown key", '{"version": 1, "knob": {}}', "a spec has the keys 'version', 'seed' and 'knobs', not 'knob'"),
    ("knobs outside", '{"version": 1, "stage0.width": 8}', "knobs go inside 'knobs'"),
    (
        "twice",
        '{"version": 1, "knobs": {"stage0.width": 8, "stage0.width": 10}}',
        "the key 'stage0.width' stands twice",
    ),
    ("fraction", '{"version": 1, "knobs": {"stage0.width": 1.5}}', "must be an integer or a string"),
    ("true", '{"version": 1, "knobs": {"stage0.width": true}}', "must be an integer or a string"),
    ("null", '{"version": 1, "knobs": {"stage0.width": null}}', "must be an integer or a string"),
    ("NaN", '{"version": 1, "knobs": {"stage0.width": NaN}}', "is not JSON: NaN is no number"),
    (
        "no number",
        '{"version": 1, "knobs": {"stage0.width": "big"}}',
        "is neither an integer nor relative to the seed's value",
    ),
    (
        "typo",
        '{"version": 1, "knobs": {"stage0.block0.kernal": 5}}',
        "is not a knob of this model; did you mean 'stage0.block0.kernel'?",
    ),
    ("pattern", '{"version": 1, "knobs": {"stage7.*": 5}}', "pattern 'stage7.*' matches no knob of this model"),
    ("block", '{"version": 1, "knobs": {"stage0.block5.hidden": 4}}', "set 'stage0.depth' to 6 or more"),
    (
        "too small",
        '{"version": 1, "knobs": {"stage0.width": 1}}',
        "1 is out of range for 'stage0.width', which goes from 2 to 65536",
    ),
    ("negative", '{"version": 1, "knobs": {"stage0.width": -8}}', "-8 is out of range"),
    ("zero", '{"version": 1, "knobs": {"stage0.depth": 0}}', "0 is out of range"),
    ("even kernel", '{"version": 1, "knobs": {"node:stem.kernel": 4}}', "a kernel of 3 stays odd"),
    ("frozen", '{"version": 1, "knobs": {"node:y.width": 7}}', "'node:y.width' is frozen at 5: graph output 'y'"),
    ("another seed", '{"version": 1, "seed": "sha256:0", "knobs": {}}', "made for another seed"),
    ("seed no text", '{"version": 1, "seed": 3, "knobs": {}}', "'seed' is the string 'sha256:…'"),
    (
        "huge",
        '{"version": 1, "knobs": {"stage0.width": 65536, "stage0.block*.hidden": 65536}}',
        "GiB of weights, or more; the most is",
    ),
    ("deep", '{"version": 1, "knobs": ' + "[" * 100_000 + "}", "is not JSON: "),
]


@pytest.mark.parametrize(("text", "message"), [row[1:] for row in SPECS], ids=[row[0] for row in SPECS])
def test_a_wrong_spec_is_one_message_and_exit_code_2(text: str, message: str, folder: Path, capsys: Capture) -> None:
    (folder / "spec.json").write_text(text)
    before = everything_in(folder)
    assert remap("--no-verify", spec="spec.json") == 2
    assert message in refused(capsys)
    assert everything_in(folder) == before


def test_a_spec_that_cannot_be_read_is_a_mistake(folder: Path, capsys: Capture) -> None:
    (folder / "binary.json").write_bytes(b"\xff\xfe{}")
    (folder / "specs").mkdir()
    for spec, message in (
        ("no.json", "there is no spec 'no.json'; 'fnatool inspect MODEL --spec > no.json' writes one to edit"),
        ("binary.json", "'binary.json' cannot be read: invalid start byte at byte 0; it must be UTF-8 text"),
        ("specs", "'specs' is not a file that can be read; give the path of a JSON file"),
    ):
        assert remap(spec=spec) == 2
        assert message in refused(capsys)
    assert not (folder / "out.onnx").exists()


def test_an_impossible_output_is_a_mistake(folder: Path, capsys: Capture) -> None:
    before = everything_in(folder)
    for out, message in (
        ("no/out.onnx", "'no', the folder for 'out.onnx', does not exist; create it first"),
        ("seed.onnx/out.onnx", "the folder for 'out.onnx', does not exist"),
        (".", "is a folder; give the name of a file in it"),
        ("/dev/null", "is not a regular file; choose another output"),
    ):
        assert remap("--force", out=out) == 2
        assert message in refused(capsys)
        assert remap("--force", "--report", out) == 2
        assert message in refused(capsys)
    assert everything_in(folder) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["remap"], "Missing argument 'SEED'"),
        (
            ["remap", "seed.onnx", "-o", "out.onnx"],
            "say the shape asked for with --spec SPEC, or knob by knob with --set KNOB=VALUE",
        ),
        (
            ["remap", "seed.onnx", "--spec", "wider.json"],
            "say where the result goes with -o OUT, or try it with --dry-run",
        ),
        (
            ["remap", "seed.onnx", "--spec", "wider.json", "-o", "a", "--report", "./a"],
            "cannot be both part of the result and its report",
        ),
        (
            ["remap", "seed.onnx", "--spec", "wider.json", "-o", "a", "--strategy", "best"],
            "'best' is not one of 'fna', 'preserve'",
        ),
        (["remap", "seed.onnx", "--spec", "wider.json", "-o", "a", "--select", "last"], "'last' is not one of"),
        (["remap", "seed.onnx", "--spec", "wider.json", "-o", "a", "--seed", "-1"], "-1 is not in the range"),
        (
            ["remap", "seed.onnx", "--spec", "wider.json", "-o", "a", "--input", "x=8"],
            "--input gives 'x' 1 dimensions, the model has 4",
        ),
        (
            ["remap", "seed.onnx", "--spec", "wider.json", "-o", "a", "--input", "z=1x3x8x8"],
            "--input names 'z', but the inputs are: x",
        ),
        (["remap", "seed.onnx", "--spec", "wider.json", "-o", "a", "--input", "x=1x4x8x8"], "the model fixes it to 3"),
        (
            ["remap", "no.onnx", "--spec", "wider.json", "-o", "a"],
            "fnatool: 'no.onnx' does not exist; give the path of an ONNX file",
        ),
        (["remap", ".", "--spec", "wider.json", "-o", "a"], "fnatool: '.' is a folder; give the ONNX file in it"),
        (
            ["remap", "seed.onnx", "--spec", "wider.json", "-o", "a", "--forse"],
            "No such option '--forse'. (Did you mean one of: '--force'",
        ),
    ],
)
def test_a_mistake_on_the_command_line_is_exit_code_2(
    arguments: list[str], message: str, folder: Path, capsys: Capture
) -> None:
    before = everything_in(folder)
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert everything_in(folder) == before


# --- models that are refused: exit code 1 ---


def truncated(folder: Path) -> None:
    content = seeds.DEFAULT.read_bytes()
    (folder / "bad.onnx").write_bytes(content[: len(content) // 2])


def without_cnn() -> onnx.ModelProto:
    return model("g (float[3] x) => (float[3] y) { a = Relu (x) y = Neg (a) }")


def cyclic() -> onnx.ModelProto:
    proto = residual()
    proto.graph.node[0].input[0] = proto.graph.node[2].output[0]
    return proto


def outside(folder: Path) -> None:
    (folder / "models").mkdir()
    save_external(residual(hidden=64), folder / "models" / "ex.onnx")
    proto = onnx.load(folder / "models" / "ex.onnx", load_external_data=False)
    (folder / "models" / "ex.onnx.data").rename(folder / "ex.data")
    for tensor in proto.graph.initializer:
        next(entry for entry in tensor.external_data if entry.key == "location").value = "../ex.data"
    save(proto, folder / "models" / "ex.onnx").rename(folder / "models" / "bad.onnx")
    (folder / "bad.onnx").symlink_to(folder / "models" / "bad.onnx")


def missing(folder: Path) -> None:
    save_external(residual(hidden=64), folder / "bad.onnx").with_name("bad.onnx.data").unlink()


REFUSED: list[tuple[str, Callable[[Path], object], str]] = [
    (
        "no protobuf",
        lambda folder: (folder / "bad.onnx").write_bytes(b"hello, this is no model"),
        "not an ONNX model, or not a whole one",
    ),
    ("empty", lambda folder: (folder / "bad.onnx").write_bytes(b""), "not an ONNX model"),
    ("truncated", truncated, "not a whole one"),
    (
        "no CNN",
        lambda folder: save(without_cnn(), folder / "bad.onnx"),
        "there is no convolution or matrix product with a weight",
    ),
    ("cyclic", lambda folder: save(cyclic(), folder / "bad.onnx"), "wait for each other"),
    ("data missing", missing, "is missing; copy it beside the model"),
    ("data outside", outside, "must be a path within the model's folder"),
]


@pytest.mark.parametrize("command", ["remap", "inspect"])
@pytest.mark.parametrize(("make", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_model_that_cannot_be_worked_on_is_one_message_and_exit_code_1(
    make: Callable[[Path], object], message: str, command: str, folder: Path, capsys: Capture
) -> None:
    make(folder)
    before = sorted(folder.iterdir())
    assert (
        run(
            ["inspect", "bad.onnx"]
            if command == "inspect"
            else ["remap", "bad.onnx", "--spec", "same.json", "-o", "out.onnx"]
        )
        == 1
    )
    assert message in refused(capsys)
    assert sorted(folder.iterdir()) == before


def test_a_wiring_error_is_refused_naming_the_first_tensor_and_nothing_is_written(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything_in(folder)
    plant(monkeypatch, "l0.w")
    assert remap("--strategy", "preserve", "--report", "r.json") == 1
    message = refused(capsys)
    assert "this remap must be exact but is not: 'l0' of node 'l0' is the first to drift" in message
    assert "nothing was written" in message
    assert everything_in(folder) == before


@pytest.mark.parametrize("weight", ["blocks.1.project.weight", "blocks.12.project.bn.gamma", "head.weight"])
def test_a_wiring_error_in_the_bundled_seed_is_noticed(
    weight: str, folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    specify("all.json", {"stage*.width": "x1.25"})
    plant(monkeypatch, weight)
    assert remap("--strategy", "preserve", seed="mobilenetv2_bn", spec="all.json") == 1
    assert "is the first to drift" in refused(capsys)
    assert not (folder / "out.onnx").exists()


# --- disks and interruptions ---


def process(script: str, *arguments: str, limit: int | None = None) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, after the script has prepared it, in a session of its own."""

    def prepare() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    lines = f"import os, signal, time\n{textwrap.dedent(script)}\nfrom fnatool.cli.main import main\nmain()"
    return subprocess.run(
        [sys.executable, "-c", lines, *arguments],
        capture_output=True, text=True, check=False, timeout=60, preexec_fn=prepare, start_new_session=True,
    )  # fmt: skip


LINE = ("remap", "seed.onnx", "--spec", "grown.json", "-o", "out.onnx", "--report", "r.json")


@pytest.mark.parametrize("external", [False, True])
def test_a_full_disk_is_one_message_and_leaves_nothing(external: bool, folder: Path) -> None:
    (save_external if external else save)(residual(hidden=64), folder / "seed.onnx")
    before = everything_in(folder)
    done = process("", *LINE, limit=4096)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("fnatool: ")
    assert "File too large" in done.stderr
    assert done.stderr.count("\n") == 1
    assert everything_in(folder) == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_result_that_cannot_be_announced_is_still_whole(folder: Path) -> None:
    with Path("/dev/full").open("w") as full:
        line = [sys.executable, "-m", "fnatool", "remap", "seed.onnx", "--spec", "wider.json", "-o", "out.onnx"]
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "fnatool: No space left on device\n")
    onnx.checker.check_model(folder / "out.onnx", full_check=True)


def test_a_folder_that_may_not_be_written_is_one_message(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything_in(folder)
    right = os.open

    def guarded(path: str | Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT:
            raise PermissionError(13, "Permission denied", str(path))
        return right(path, flags, mode)

    monkeypatch.setattr("fnatool.files.atomic.os.open", guarded)
    assert remap() == 2
    assert "Permission denied" in refused(capsys)
    monkeypatch.undo()
    assert everything_in(folder) == before


def test_a_disk_that_is_full_before_the_report_leaves_neither_file(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything_in(folder)

    kept = os.fsync
    synced: list[int] = []

    def full(handle: int) -> None:
        synced.append(handle)
        if len(synced) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        kept(handle)

    monkeypatch.setattr("fnatool.files.atomic.os.fsync", full)
    assert remap("--report", "r.json") == 2
    assert "No space left on device" in refused(capsys)
    assert everything_in(folder) == before


def test_a_remap_that_fails_keeps_the_older_report(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("r.json").write_text("older")
    Path("out.onnx").write_text("older")
    before = everything_in(folder)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("fnatool.files.atomic.os.fsync", full)
    assert remap("--report", "r.json", "--force") == 2
    assert "No space left on device" in refused(capsys)
    assert everything_in(folder) == before


@pytest.mark.parametrize("name", ["out.onnx", "r.json"])
def test_what_another_has_written_meanwhile_is_not_replaced(
    name: str, folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = wire.write

    def slowly(file: BinaryIO, proto: onnx.ModelProto, weights: Iterable[wire.WireInitializer]) -> None:
        (folder / name).write_text("another's")
        write(file, proto, weights)

    before = everything_in(folder)
    monkeypatch.setattr(wire, "write", slowly)
    assert remap("--no-verify", "--report", "r.json") == 2
    assert f"'{name}' has appeared meanwhile; choose another output or pass --force" in refused(capsys)
    assert (folder / name).read_text() == "another's"
    (folder / name).unlink()
    assert everything_in(folder) == before


def test_a_message_about_an_output_names_the_output(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def denied(path: str | Path, flags: int, *rest: int) -> int:
        if flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, flags, *rest)

    monkeypatch.setattr("fnatool.files.atomic.os.open", denied)
    assert remap("--no-verify") == 2
    message = refused(capsys)
    assert "'out.onnx'" in message
    assert ".tmp" not in message


def test_a_terminal_that_knows_only_ascii_is_no_error(folder: Path) -> None:
    line = [sys.executable, "-m", "fnatool", "remap", "seed.onnx", "--spec", "wider.json", "-o", "out.onnx"]
    done = subprocess.run(line, env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


INTERRUPTIONS = {
    "while reading": """
        import fnatool.files.model as module
        module.load = lambda path: os.kill(os.getpid(), signal.SIGINT) or time.sleep(60)
    """,
    "while planning": """
        import fnatool.model.remapped as module
        module.apply = lambda *_: os.kill(os.getpid(), signal.SIGINT) or time.sleep(60)
    """,
    "while the child verifies": """
        import fnatool.runtime.verify as module
        module.verify = lambda *_: os.kill(os.getppid(), signal.SIGINT) or time.sleep(60)
    """,
    "while the child verifies, at the terminal": """
        import fnatool.runtime.verify as module
        module.verify = lambda *_: os.killpg(0, signal.SIGINT) or time.sleep(60)
    """,
    "while writing": """
        import fnatool.files.wire as module
        right = module.write
        module.write = lambda *given: right(*given) or os.kill(os.getpid(), signal.SIGINT) or time.sleep(60)
    """,
    "before the file takes its place": """
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGINT) or time.sleep(60)
    """,
}


@pytest.mark.parametrize("when", INTERRUPTIONS)
def test_ctrl_c_leaves_nothing_behind_and_is_exit_code_130(when: str, folder: Path) -> None:
    before = everything_in(folder)
    done = process(INTERRUPTIONS[when], *LINE)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "fnatool: interrupted")
    assert everything_in(folder) == before


# --- check of a result ---


def test_a_result_passes_check_against_its_seed_and_spec(folder: Path, capsys: Capture) -> None:
    specify(
        "relative.json", {"stage0.width": "x1.34", "stage0.depth": "+1", "stage0.block2.from": 0, "**.kernel": "+2"}
    )
    assert remap(spec="relative.json") == 0
    capsys.readouterr()
    assert run(["check", "out.onnx", "--against", "seed.onnx", "--spec", "relative.json"]) == 0
    assert capsys.readouterr().out == "out.onnx: passed\n"
    (folder / "stored.json").write_text(metadata(onnx.load("out.onnx"))[SPEC_KEY])
    assert run(["check", "out.onnx", "--spec", "stored.json"]) == 0


def test_a_result_that_is_not_what_the_spec_says_fails_check(folder: Path, capsys: Capture) -> None:
    assert remap() == 0
    capsys.readouterr()
    for values, message in (
        ({"stage0.block0.hidden": 12}, "'stage0.block0.hidden' should be 12, the model has 14"),
        ({"stage0.block0.hidden": "x2"}, "'stage0.block0.hidden' should be 20, the model has 14"),
        ({}, "'stage0.block0.hidden' should be 10, the model has 14"),
    ):
        specify("wrong.json", values)
        assert run(["check", "out.onnx", "--against", "seed.onnx", "--spec", "wrong.json", "--format", "json"]) == 1
        (found,) = json.loads(capsys.readouterr().out)["models"][0]["findings"]
        assert (found["severity"], found["code"], found["message"]) == ("error", "spec", message)


def test_a_relative_value_needs_the_seed_to_be_checked(folder: Path, capsys: Capture) -> None:
    specify("relative.json", {"stage0.block0.hidden": "x1.4"})
    assert remap(spec="relative.json") == 0
    capsys.readouterr()
    assert run(["check", "out.onnx", "--spec", "relative.json"]) == 1
    assert "name the seed with --against" in capsys.readouterr().out
    assert run(["check", "out.onnx", "--spec", "relative.json", "--against", "seed.onnx"]) == 0


def test_check_with_a_broken_spec_is_a_mistake(folder: Path, capsys: Capture) -> None:
    (folder / "spec.json").write_text("{")
    for spec in ("spec.json", "no.json"):
        assert run(["check", "seed.onnx", "--spec", spec]) == 2
        refused(capsys)
