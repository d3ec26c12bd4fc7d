"""The Python API on files: what a remapped file holds, what is said about it, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from nets import Net
from remaps import GROWN, Knobs, document, everything_in, normalised, plant, residual, save_external, weights
from tiny import save

import fnatool
from fnatool import seeds
from fnatool.files import model as files
from fnatool.model import remap_report as report
from fnatool.model.analysed import SPEC_KEY, STAGES_KEY, analyse_model, metadata, realises, stored_stages
from fnatool.model.remapped import RemapOptions, Remapped
from passes import Spec
from passes.errors import RefusedModel, UserError
from passes.target.spec import parse

# --- bytes ---


def test_a_spec_that_changes_nothing_gives_the_bytes_of_the_seed(tmp_path: Path) -> None:
    seed = save(residual(), tmp_path / "seed.onnx")
    for k, spec in enumerate(
        (document({}), document({"stage0.width": 6, "**.kernel": "x1"}), document({"stage*.depth": "+0"}))
    ):
        made = fnatool.remap(seed, spec, tmp_path / f"{k}.onnx")
        assert made.plan.identity
        assert made.verified is None
        assert (tmp_path / f"{k}.onnx").read_bytes() == seed.read_bytes()


def test_the_bundled_seed_under_its_own_spec_stays_byte_for_byte(tmp_path: Path) -> None:
    fnatool.remap(seeds.DEFAULT, document({}), tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() == seeds.DEFAULT.read_bytes()


def test_there_and_back_again_gives_every_initializer_bit_for_bit(tmp_path: Path) -> None:
    seed = save(residual(), tmp_path / "seed.onnx")
    fnatool.remap(seed, document(GROWN), tmp_path / "grown.onnx", options=RemapOptions(strategy="preserve"))
    own: Knobs = {"stage0.depth": 2, "stage0.width": 6, "stage0.block0.hidden": 10, "stage0.block1.kernel": 3}
    fnatool.remap(tmp_path / "grown.onnx", document(own), tmp_path / "back.onnx")
    before, after = weights(seed), weights(tmp_path / "back.onnx")
    assert before.keys() == after.keys()
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values, err_msg=name)


def test_one_input_one_spec_and_one_seed_give_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    seed = save(residual(), tmp_path / "seed.onnx")
    for strategy in ("fna", "preserve"):
        made = []
        for name, number in (("a", 0), ("b", 0), ("c", 1)):
            out = tmp_path / f"{strategy}-{name}.onnx"
            fnatool.remap(seed, document(GROWN), out, options=RemapOptions(strategy=strategy, seed=number))
            made.append(out.read_bytes())
        assert made[0] == made[1]
        assert made[0] != made[2]


def test_the_bytes_do_not_depend_on_the_process(tmp_path: Path) -> None:
    seed = save(residual(), tmp_path / "seed.onnx")
    (tmp_path / "spec.json").write_text(json.dumps(document(GROWN)))
    made = []
    for number in ("1", "2"):
        out = tmp_path / f"{number}.onnx"
        line = [
            sys.executable,
            "-m",
            "fnatool",
            "remap",
            seed,
            "--spec",
            tmp_path / "spec.json",
            "-o",
            out,
            "--no-verify",
        ]
        subprocess.run(line, env={**os.environ, "PYTHONHASHSEED": number}, check=True, capture_output=True)
        made.append(out.read_bytes())
    assert made[0] == made[1]


def test_the_seed_as_a_file_is_not_touched(tmp_path: Path) -> None:
    seed = save(residual(), tmp_path / "seed.onnx")
    before = seed.read_bytes()
    fnatool.remap(seed, document(GROWN), tmp_path / "out.onnx")
    assert seed.read_bytes() == before
    assert sorted(everything_in(tmp_path)) == ["out.onnx", "seed.onnx"]


def test_nothing_is_written_unless_an_output_is_named(tmp_path: Path) -> None:
    seed = save(residual(), tmp_path / "seed.onnx")
    made = fnatool.remap(seed, document(GROWN))
    assert isinstance(made, Remapped)
    assert sorted(everything_in(tmp_path)) == ["seed.onnx"]
    made.write(tmp_path / "later.onnx")
    onnx.checker.check_model(tmp_path / "later.onnx", full_check=True)


# --- a spec in all its forms ---


def test_a_spec_may_be_an_object_a_document_or_a_path(tmp_path: Path) -> None:
    seed = save(residual(), tmp_path / "seed.onnx")
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(document(GROWN)))
    for k, spec in enumerate((Spec(GROWN), document(GROWN), path, str(path))):
        fnatool.remap(str(seed), spec, str(tmp_path / f"{k}.onnx"))
    assert len({(tmp_path / f"{k}.onnx").read_bytes() for k in range(4)}) == 1


def test_a_spec_for_another_seed_is_refused(tmp_path: Path) -> None:
    seed = save(residual(), tmp_path / "seed.onnx")
    spec = {**document({"stage0.width": 8}), "seed": "sha256:" + "0" * 64}
    with pytest.raises(UserError, match=r"made for another seed.*remove its 'seed' to use it all the same"):
        fnatool.remap(seed, spec, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


# --- what the file says ---


def test_metadata_holds_the_stages_and_the_resolved_spec_with_the_sha_of_the_seed(tmp_path: Path) -> None:
    proto = residual()
    proto.metadata_props.add(key="owner", value="me")
    seed = save(proto, tmp_path / "seed.onnx")
    fnatool.remap(seed, document({"stage*.width": "x1.34", "stage0.depth": "+1"}), tmp_path / "out.onnx")
    found = metadata(onnx.load(tmp_path / "out.onnx"))
    assert list(found) == ["owner", STAGES_KEY, SPEC_KEY]
    spec = json.loads(found[SPEC_KEY])
    assert spec["seed"] == f"sha256:{files.read(seed).sha256}"
    assert spec["knobs"]["stage0.width"] == 8
    assert spec["knobs"]["stage0.depth"] == 3
    assert spec["knobs"].pop("input.size") == [8, 8]
    assert all(isinstance(value, int) for value in spec["knobs"].values())
    stages = json.loads(found[STAGES_KEY])
    assert [len(stage) for stage in stages] == [3]
    assert set(stages[0][0]) == {"kind", "entry", "exit", "merge"}


def test_the_stored_spec_makes_the_same_bytes_again(tmp_path: Path) -> None:
    seed = save(residual(), tmp_path / "seed.onnx")
    relative: Knobs = {"stage*.width": "x1.34", "stage0.depth": "+1", "stage0.block2.from": 0, "**.kernel": "+2"}
    fnatool.remap(seed, document(relative), tmp_path / "one.onnx")
    stored = json.loads(metadata(onnx.load(tmp_path / "one.onnx"))[SPEC_KEY])
    fnatool.remap(seed, stored, tmp_path / "two.onnx")
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


def test_a_remap_of_a_remap_tells_of_its_own_seed(tmp_path: Path) -> None:
    seed = save(residual(), tmp_path / "seed.onnx")
    fnatool.remap(seed, document({"stage0.depth": 4}), tmp_path / "one.onnx")
    fnatool.remap(tmp_path / "one.onnx", document({"stage0.width": 4}), tmp_path / "two.onnx")
    found = metadata(onnx.load(tmp_path / "two.onnx"))
    assert list(found) == [STAGES_KEY, SPEC_KEY]
    spec = json.loads(found[SPEC_KEY])
    assert spec["seed"] == f"sha256:{files.read(tmp_path / 'one.onnx').sha256}"
    assert (spec["knobs"]["stage0.depth"], spec["knobs"]["stage0.width"]) == (4, 4)


@pytest.mark.parametrize(
    "text",
    [
        "", "nonsense", "[]", "[[]]", "{}", "null", "[[[]]]", '[[{"kind": "residual"}]]', '[["kind"]]', "[" * 100_000,
        '[[{"kind": "residual", "entry": "no", "exit": "such", "merge": "tensor"}]]',
        '[[{"kind": "residual", "entry": "s1", "exit": "stem", "merge": "s0"}]]',
        '[[{"kind": "what", "entry": "", "exit": "", "merge": ""}]]',
    ],
)  # fmt: skip
def test_a_damaged_stage_table_in_the_metadata_does_no_harm(text: str, tmp_path: Path) -> None:
    proto = residual()
    proto.metadata_props.add(key=STAGES_KEY, value=text)
    seed = save(proto, tmp_path / "seed.onnx")
    made = fnatool.remap(seed, document({"node:stem.kernel": 5}), options=RemapOptions(strategy="preserve"))
    assert made.verified is not None
    assert made.verified.exact


@pytest.mark.parametrize("order", [("s0 s1 s1", "stem.n.r s0 s0"), ("stem.n.r s0 s0", "stem.n.r s0 s0")])
def test_a_stage_table_that_does_not_fit_the_graph_is_not_believed(order: tuple[str, str], tmp_path: Path) -> None:
    table = [[dict(zip(("kind", "entry", "exit", "merge"), ("residual", *row.split()), strict=True)) for row in order]]
    proto = residual()
    proto.metadata_props.add(key=STAGES_KEY, value=json.dumps(table))
    made = fnatool.remap(save(proto, tmp_path / "seed.onnx"), document({"node:stem.kernel": 5}))
    assert (
        made.plan.table
        == fnatool.remap(save(residual(), tmp_path / "plain.onnx"), document({"node:stem.kernel": 5})).plan.table
    )


def test_stages_are_read_back_as_they_were_stored(tmp_path: Path) -> None:
    seed = save(residual(), tmp_path / "seed.onnx")
    made = fnatool.remap(seed, document({"stage0.depth": 3}), tmp_path / "out.onnx")
    assert stored_stages(files.read(seed).envelope) is None
    assert stored_stages(files.read(tmp_path / "out.onnx").envelope) == made.plan.table


def documented() -> onnx.ModelProto:
    """The residual network with documentation wherever the format has room for it."""
    proto = residual(batch="N")
    proto.doc_string, proto.domain, proto.model_version = "doc", "org.example", 7
    proto.producer_name, proto.producer_version = "someone", "1.2"
    proto.opset_import.add(domain="com.example", version=3)
    proto.graph.doc_string = "graph doc"
    proto.graph.metadata_props.add(key="g", value="1")
    proto.graph.input[0].doc_string = "an image"
    proto.graph.input[0].type.tensor_type.shape.dim[1].denotation = "DATA_CHANNEL"
    for node in proto.graph.node:
        node.doc_string = f"doc of {node.name}"
        node.metadata_props.add(key="scope", value=f"scope of {node.name}")
    for tensor in proto.graph.initializer:
        tensor.doc_string = f"doc of {tensor.name}"
    return proto


def test_what_survives_keeps_its_documentation_names_versions_and_producer(tmp_path: Path) -> None:
    proto = documented()
    fnatool.remap(save(proto, tmp_path / "seed.onnx"), document(GROWN), tmp_path / "out.onnx")
    out = onnx.load(tmp_path / "out.onnx")
    for field in (
        "doc_string",
        "domain",
        "model_version",
        "producer_name",
        "producer_version",
        "ir_version",
        "opset_import",
    ):
        assert getattr(out, field) == getattr(proto, field), field
    assert (out.graph.name, out.graph.doc_string, out.graph.metadata_props) == (
        "net",
        "graph doc",
        proto.graph.metadata_props,
    )
    assert out.graph.input == proto.graph.input
    assert out.graph.output == proto.graph.output
    made = {node.name: node for node in out.graph.node}
    for node in proto.graph.node:
        assert (made[node.name].op_type, made[node.name].doc_string) == (node.op_type, node.doc_string)
        assert made[node.name].metadata_props == node.metadata_props
        assert made[node.name].output == node.output
    described = {tensor.name: tensor.doc_string for tensor in out.graph.initializer}
    assert all(described[tensor.name] == tensor.doc_string for tensor in proto.graph.initializer)


def test_a_copied_node_has_the_documentation_of_the_node_it_copies(tmp_path: Path) -> None:
    proto = documented()
    made = fnatool.remap(save(proto, tmp_path / "seed.onnx"), document({"stage0.depth": 4}), tmp_path / "out.onnx")
    out = onnx.load(tmp_path / "out.onnx")
    origin = made.plan.origin()
    new = [node for node in out.graph.node if node.name not in {old.name for old in proto.graph.node}]
    assert len(new) == 12
    assert len({node.name for node in out.graph.node}) == len(out.graph.node)
    for node in new:
        assert node.doc_string == f"doc of {origin[node.name]}"
        assert [(entry.key, entry.value) for entry in node.metadata_props] == [
            ("scope", f"scope of {origin[node.name]}")
        ]


# --- external data ---


def test_external_data_stays_external_beside_the_result(tmp_path: Path) -> None:
    seed = save_external(residual(hidden=64), tmp_path / "seed.onnx")
    (tmp_path / "out").mkdir()
    out = tmp_path / "out" / "target.onnx"
    fnatool.remap(seed, document({"stage0.block0.hidden": 80}), out, options=RemapOptions(strategy="preserve"))
    assert sorted(everything_in(out.parent)) == ["target.onnx", "target.onnx.data"]
    proto = onnx.load(out, load_external_data=False)
    outside = {t.name: t for t in proto.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL}
    assert "e0.w" in outside
    assert {entry.key: entry.value for entry in outside["e0.w"].external_data}["location"] == "target.onnx.data"
    onnx.checker.check_model(out, full_check=True)
    assert weights(out)["e0.w"].shape == (80, 6, 3, 3)
    np.testing.assert_array_equal(weights(out)["e0.w"][:64], weights(seed)["e0.w"])


def test_external_and_internal_weights_give_the_same_weights(tmp_path: Path) -> None:
    inside, outside = save(residual(), tmp_path / "in.onnx"), save_external(residual(), tmp_path / "ex.onnx")
    for seed in (inside, outside):
        fnatool.remap(seed, document(GROWN), tmp_path / f"{seed.stem}-out.onnx")
    one, two = weights(tmp_path / "in-out.onnx"), weights(tmp_path / "ex-out.onnx")
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_neither_the_result_nor_its_data_overwrite_a_file(tmp_path: Path) -> None:
    seed = save_external(residual(hidden=64), tmp_path / "seed.onnx")
    (tmp_path / "out.onnx.data").write_text("precious")
    before = everything_in(tmp_path)
    with pytest.raises(UserError, match=r"out\.onnx\.data' exists"):
        fnatool.remap(seed, document({"stage0.width": 8}), tmp_path / "out.onnx")
    with pytest.raises(UserError, match="never overwritten"):
        fnatool.remap(seed, document({"stage0.width": 8}), tmp_path / "seed.onnx.data")
    assert everything_in(tmp_path) == before


# --- the report ---


def rebuilt(row: dict[str, object], old: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a row of the report says of its tensor: the values from the seed, and where they stand."""
    new, known = old, np.ones((1,) * old.ndim, bool)
    for axis, index in row["indices"].items():  # type: ignore[attr-defined]
        positions = np.array(index)
        new = np.take(new, np.maximum(positions, 0), int(axis))
        known = known & (positions >= 0).reshape([-1 if k == int(axis) else 1 for k in range(old.ndim)])
    return new, np.broadcast_to(known, new.shape)


@pytest.mark.parametrize("strategy", ["fna", "preserve"])
@pytest.mark.parametrize("select", ["first", "l1"])
def test_the_indices_of_the_report_make_the_weights_of_the_target_from_those_of_the_seed(
    strategy: str, select: str, tmp_path: Path
) -> None:
    seed = save(residual(), tmp_path / "seed.onnx")
    spec: Knobs = {
        "stage0.depth": 3,
        "stage0.width": 8,
        "stage0.block0.hidden": 4,
        "stage0.block1.kernel": 5,
        "node:stem.kernel": 5,
    }
    made = report.report(
        fnatool.remap(
            seed, document(spec), tmp_path / "out.onnx", options=RemapOptions(strategy=strategy, select=select)
        )
    )
    told = json.loads(json.dumps(made))
    old, new = weights(seed), weights(tmp_path / "out.onnx")
    assert {row["target"] for row in told["tensors"]} == set(new)
    for row in told["tensors"]:
        values, known = rebuilt(row, old[row["source"]])
        target = new[row["target"]]
        assert list(target.shape) == row["to"] == list(values.shape), row["target"]
        assert list(old[row["source"]].shape) == row["from"]
        if "silenced" in row["what"]:
            assert not target[known].any()
        else:
            np.testing.assert_array_equal(target[known], values[known], err_msg=row["target"])


def test_the_report_says_in_a_word_what_happened_to_a_tensor(tmp_path: Path) -> None:
    seed = save(residual(), tmp_path / "seed.onnx")
    spec: Knobs = {"stage0.depth": 3, "stage0.block0.hidden": 4, "stage0.block1.hidden": 12, "stage0.block1.kernel": 5}
    made = fnatool.remap(seed, document(spec), options=RemapOptions(strategy="preserve"))
    told = report.report(made)
    rows = {row["target"]: row for row in told["tensors"]}  # type: ignore[attr-defined]
    assert rows["stem.w"] == {
        "target": "stem.w", "source": "stem.w", "from": [6, 3, 3, 3], "to": [6, 3, 3, 3], "indices": {},
        "what": ["copied"]
    }  # fmt: skip
    assert rows["e0.w"]["what"] == ["copied", "cropped"]
    assert rows["e0.w"]["indices"] == {"0": [0, 1, 2, 3]}
    assert rows["e1.w"]["what"] == ["copied", "fresh", "padded"]
    assert rows["e1.w"]["indices"] == {"0": [*range(10), -1, -1], "2": [-1, 0, 1, 2, -1], "3": [-1, 0, 1, 2, -1]}
    copies = [row for row in rows.values() if row["target"] != row["source"]]
    assert {row["source"] for row in copies} >= {"e1.w", "l1.w"}
    assert all(row["what"][0] == "duplicated" for row in copies)
    assert any("silenced" in row["what"] for row in copies)


def test_the_report_names_seed_strategy_spec_changes_drift_and_verification(tmp_path: Path) -> None:
    seed = save(residual(), tmp_path / "seed.onnx")
    told = report.report(
        fnatool.remap(seed, document({"stage0.width": "x1.34"}), options=RemapOptions(strategy="preserve"))
    )
    assert told["seed"] == f"sha256:{files.read(seed).sha256}"
    assert told["strategy"] == "preserve"
    assert told["changes"] == [{"knob": "stage0.width", "from": 6, "to": 8}]
    assert told["drifts"] == []
    assert told["verified"]["worst"] <= told["verified"]["tolerance"] == 1e-4  # type: ignore[index]
    assert told["verified"]["compared"] == 6  # type: ignore[index]
    told = report.report(
        fnatool.remap(seed, document({"stage0.width": 8}), options=RemapOptions(strategy="fna", verify=False))
    )
    assert told["drifts"] == ["stage0.width grows from 6 to 8 by the fna rule"]
    assert told["verified"] is None


# --- strategies and selections ---


def test_preserve_is_exact_on_inner_values_and_says_so(tmp_path: Path) -> None:
    made = fnatool.remap(
        save(residual(), tmp_path / "seed.onnx"), document(GROWN), options=RemapOptions(strategy="preserve")
    )
    assert made.plan.drifts == ()
    assert made.verified is not None
    assert made.verified.exact
    assert made.verified.first is None
    assert made.verified.compared == 6
    assert made.verified.worst <= 1e-4


def test_preserve_refuses_an_approximate_knob_with_the_reason_unless_drift_is_allowed(tmp_path: Path) -> None:
    seed = save(normalised(), tmp_path / "seed.onnx")
    spec = document({"node:c1.width": 12})
    message = (
        r"'node:c1.width' cannot grow from 8 to 12 exactly: 'lrn' \(LRN\) looks at neighbouring channels; "
        r".*--allow-drift"
    )
    with pytest.raises(UserError, match=message):
        fnatool.remap(seed, spec, tmp_path / "out.onnx", options=RemapOptions(strategy="preserve"))
    assert not (tmp_path / "out.onnx").exists()
    made = fnatool.remap(seed, spec, tmp_path / "out.onnx", options=RemapOptions(strategy="preserve", allow_drift=True))
    assert len(made.plan.drifts) == 1
    assert made.verified is not None
    assert not made.verified.exact
    assert weights(tmp_path / "out.onnx")["c1.w"].shape[0] == 12


def test_the_cost_of_the_result_is_known_before_it_is_written(tmp_path: Path) -> None:
    seed = save(residual(), tmp_path / "seed.onnx")
    made = fnatool.remap(seed, document(GROWN), tmp_path / "out.onnx")
    again = fnatool.remap(tmp_path / "out.onnx", document({}))
    assert made.cost().params == again.analysis.cost.params
    assert made.cost().macs == again.analysis.cost.macs


@pytest.mark.parametrize("select", ["first", "bn", "l1", "std"])
def test_a_selection_keeps_the_channels_it_names_in_their_order(select: str, tmp_path: Path) -> None:
    seed = save(residual(), tmp_path / "seed.onnx")
    fnatool.remap(
        seed, document({"stage0.block0.hidden": 4}), tmp_path / "out.onnx", options=RemapOptions(select=select)
    )
    old, new = weights(seed), weights(tmp_path / "out.onnx")
    made, read = (np.abs(old[name].astype(np.float64)) for name in ("e0.w", "l0.w"))
    scores = {
        "first": -np.arange(10.0),
        "bn": np.abs(old["e0.n.gamma"]),
        "l1": made.sum((1, 2, 3)) / made.sum() + read.sum((0, 2, 3)) / read.sum(),
        "std": old["e0.w"].astype(np.float64).std((1, 2, 3)),
    }
    kept = np.sort(np.argsort(-scores[select], kind="stable")[:4])
    np.testing.assert_array_equal(new["e0.w"], old["e0.w"][kept])
    np.testing.assert_array_equal(new["l0.w"], old["l0.w"][:, kept])
    for part in ("gamma", "beta", "mean", "var"):
        np.testing.assert_array_equal(new[f"e0.n.{part}"], old[f"e0.n.{part}"][kept])


@pytest.mark.parametrize(
    ("options", "message"),
    [(RemapOptions(strategy="other"), "'other' is not one of fna, preserve"), (RemapOptions(select="x"), "'x'")],
)
def test_an_unknown_strategy_or_selection_is_the_users_mistake(
    options: RemapOptions, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        fnatool.remap(save(residual(), tmp_path / "seed.onnx"), document({"stage0.width": 8}), options=options)


@pytest.mark.parametrize(
    ("tensor", "spec", "first"),
    [
        ("e0.w", {"stage0.block0.hidden": 14}, "e0"),
        ("l0.w", {"stage0.block0.hidden": 14}, "l0"),
        ("e0.n.gamma", {"stage0.block0.hidden": 14}, "l0"),
        ("l1.w", {"stage0.block1.hidden": 6}, "l1"),
        ("stem.w", {"node:stem.kernel": 5}, "stem"),
        ("fc.w", {"stage0.width": 8}, "y"),
    ],
)
def test_a_planted_wiring_error_is_refused_naming_the_first_tensor(
    tensor: str, spec: Knobs, first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = save(residual(), tmp_path / "seed.onnx")
    plant(monkeypatch, tensor)
    with pytest.raises(
        RefusedModel, match=f"must be exact but is not: '{first}' of node '{first}' is the first to drift"
    ):
        fnatool.remap(seed, document(spec), tmp_path / "out.onnx", options=RemapOptions(strategy="preserve"))
    assert sorted(everything_in(tmp_path)) == ["seed.onnx"]


def test_a_planted_error_in_a_remap_that_narrows_is_refused_under_fna_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = save(residual(), tmp_path / "seed.onnx")
    plant(monkeypatch, "e1.w")
    with pytest.raises(RefusedModel, match="'e1' of node 'e1' is the first to drift"):
        fnatool.remap(seed, document({"stage0.block1.hidden": 6}), tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_a_verification_that_dies_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fnatool.runtime.verify.verify", lambda *_: os.kill(os.getpid(), 9))
    with pytest.raises(RefusedModel, match=r"verification in ONNX Runtime died: .*--no-verify"):
        fnatool.remap(save(residual(), tmp_path / "seed.onnx"), document(GROWN), tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_a_node_that_the_runtime_does_not_know_is_refused_unless_not_verified(tmp_path: Path) -> None:
    net = Net()
    y = net.op("Magic", "m", net.conv_bn_relu("x", "c1", 8, 3), domain="com.example")
    net.channels[y] = 8
    net.classifier(net.conv_bn_relu(net.conv_bn_relu("x", "c2", 6, 3), "c3", 8))
    proto = net.model("y", "m")
    seed = save(proto, tmp_path / "seed.onnx")
    with pytest.raises(RefusedModel, match="ONNX Runtime cannot run the seed"):
        fnatool.remap(seed, document({"node:c2.width": 8}), tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()
    fnatool.remap(seed, document({"node:c2.width": 8}), tmp_path / "out.onnx", options=RemapOptions(verify=False))
    assert weights(tmp_path / "out.onnx")["c2.w"].shape[0] == 8


# --- realising a spec ---


def test_a_result_realises_the_spec_it_was_made_for_and_no_other(tmp_path: Path) -> None:
    seed = save(residual(), tmp_path / "seed.onnx")
    made = fnatool.remap(seed, document({"stage0.width": "x1.34", "stage0.depth": 3}), tmp_path / "out.onnx")
    out = files.read(tmp_path / "out.onnx")
    assert realises(out, made.plan.resolved.spec()) == []
    assert realises(out, Spec({"stage0.width": "x1.34", "stage0.depth": 3}), files.read(seed)) == []
    assert realises(out, Spec({"stage0.depth": 2}), None) == ["'stage0.depth' should be 2, the model has 3"]
    unnamed = realises(out, Spec({"stage0.depth": 3}), files.read(seed))
    assert unnamed == ["'stage0.width' should be 6, the model has 8"]


def joined() -> onnx.ModelProto:
    """Two convolutions of 10 channels, joined before a third one."""
    net = Net()
    net.op("Concat", "j", net.conv_bn_relu("x", "a", 10), net.conv_bn_relu("x", "b", 10), axis=1)
    net.channels["j"] = 20
    net.classifier(net.conv_bn_relu("j", "c", 9, 3))
    return net.model()


def test_the_stored_spec_names_no_groups_of_what_reads_one_channel_now(tmp_path: Path) -> None:
    net = Net(size=8)
    net.classifier(net.conv_bn_relu("x", "a", 8, 3))
    seed = save(net.model(), tmp_path / "seed.onnx")
    made = fnatool.remap(seed, document({"input.channels": 1}), tmp_path / "grey.onnx").model
    stored = parse(json.loads(metadata(made.envelope)[SPEC_KEY]))
    gone = {name for name in analyse_model(files.read(seed)).knobs if name.endswith(".groups")} - analyse_model(
        made
    ).knobs.keys()
    assert gone
    assert not gone & stored.knobs.keys()
    assert realises(made, stored) == []
    assert realises(made, stored, files.read(seed)) == []


def test_a_result_whose_groups_have_split_a_knob_realises_its_spec(tmp_path: Path) -> None:
    seed, spec = save(joined(), tmp_path / "seed.onnx"), {"node:a.width": 12, "node:b.width": 12, "node:c.groups": 3}
    fnatool.remap(seed, document(spec), tmp_path / "out.onnx")
    out = files.read(tmp_path / "out.onnx")
    assert analyse_model(out).knobs["node:a.width"].value == 8  # the other 4 are tied to others
    assert realises(out, Spec(spec), files.read(seed)) == []
    assert realises(out, Spec({**spec, "node:a.width": 9, "node:b.width": 15}), files.read(seed)) != []
    hint = "; groups may have split it or tied it to others, which --against SEED looks at"
    assert realises(out, Spec({"node:a.width3": 1, "node:c.groups": 3})) == [
        f"'node:a.width3' should be 1, but the model has no such knob{hint}"
    ]


@pytest.mark.parametrize(
    ("spec", "lossy"), [({"node:c.groups": 5}, True), ({"node:a.width": 5}, True), ({"node:a.width": 12}, False)]
)
def test_what_is_dropped_is_said_beside_what_stays_exact(spec: dict[str, int], lossy: bool, tmp_path: Path) -> None:
    net = Net()
    net.classifier(net.conv_bn_relu(net.conv_bn_relu("x", "a", 10), "c", 10, 3))
    options = RemapOptions(strategy="preserve", allow_drift=True)
    made = fnatool.remap(save(net.model(), tmp_path / "seed.onnx"), document(spec), options=options)
    assert made.verified is not None
    assert made.verified.exact
    assert made.verified.first is None
    assert (made.verified.whole or 0) > 0.01 if lossy else made.verified.whole is None
    told = report.report(made)["verified"]
    assert ("whole" in told) == lossy  # type: ignore[operator]


# --- paths ---


def test_a_bad_output_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = save(residual(), tmp_path / "seed.onnx")
    (tmp_path / "there.onnx").write_text("precious")
    (tmp_path / "link.onnx").symlink_to(seed)
    before = everything_in(tmp_path)
    monkeypatch.setattr("fnatool.model.remap.remap_model", lambda *_: pytest.fail("it began to work"))
    for out, message in (
        (tmp_path / "there.onnx", "exists"),
        (seed, "is the input .* itself, which is never overwritten"),
        (tmp_path / "link.onnx", "never overwritten"),
        (tmp_path / "no" / "out.onnx", "the folder for 'out.onnx', does not exist; create it first"),
        (tmp_path, "is a folder"),
    ):
        with pytest.raises(UserError, match=message):
            fnatool.remap(seed, document(GROWN), out)
    assert everything_in(tmp_path) == before


def test_a_remap_is_frozen(tmp_path: Path) -> None:
    made = fnatool.remap(save(residual(), tmp_path / "seed.onnx"), document({}))
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.verified = None  # type: ignore[misc]


# --- native code that dies ----------------------------------------------------------------------


def gathering(batch_dims: int) -> onnx.ModelProto:
    """A GatherND behind a convolution; with negative batch dimensions its shape inference crashes (onnx 1.23, opset
    12).
    """
    net = Net(opset=12)
    net.constant("indices", [[0, 1]], np.int64)
    net.op("GatherND", "picked", net.conv_bn_relu("x", "c", 8), "indices", batch_dims=batch_dims)
    nodes, net.nodes = net.nodes, []  # Net infers shapes, too
    made = net.model("picked")
    made.graph.node.extend(nodes)
    return made


def test_a_crash_of_shape_inference_is_a_refusal(tmp_path: Path) -> None:
    sound, crashing = (files.read(save(gathering(dims), tmp_path / f"{dims}.onnx")) for dims in (0, -5))
    assert "node:c.width" in analyse_model(sound).knobs
    with pytest.raises(RefusedModel, match=r"(died|does not fit)"):
        analyse_model(crashing)
