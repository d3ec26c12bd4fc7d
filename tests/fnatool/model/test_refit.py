"""Layers solved anew against the seed: what was lost without need comes back, what helps nobody stays, and what is said
of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from nets import Net
from PIL import Image
from remaps import Knobs, document, weights
from tiny import save

import fnatool
from fnatool.cli.main import run
from fnatool.model.remapped import RemapOptions, Remapped
from passes.errors import UserError

Build = Callable[[Net, str, str, int], str]


def blocks(*, norms: bool, kernel: int = 1, count: int = 2) -> Net:
    """A stem, residual blocks e → d (depthwise) → l and a classifier; in l only the first half of the hidden channels
    differs.
    """
    net = Net()

    def conv(x: str, out: str, width: int, kernel: int = 1, group: int = 1) -> str:
        made = net.conv(x, out, width, kernel, group=group, bias=not norms)
        return net.bn(made) if norms else made

    y = net.relu(conv("x", "stem", 6, 3))
    for k in range(count):
        inner = net.relu(conv(net.relu(conv(y, f"e{k}", 16)), f"d{k}", 16, 3, group=0))
        y = net.op("Add", f"s{k}", y, conv(inner, f"l{k}", 6, kernel))
    net.classifier(y)
    return net


def doubled(net: Net, *names: str) -> Net:
    """The second half of the channels that these make and that their norms scale is like the first."""
    for name, values in net.weights.items():
        if name.startswith(names):
            values[len(values) // 2 :] = values[: len(values) // 2]
    return net


def samples(folder: Path, count: int = 12, shape: tuple[int, ...] = (3, 8, 8)) -> Path:
    folder.mkdir(exist_ok=True)
    for k in range(count):
        np.save(folder / f"{k}.npy", np.random.default_rng(k).standard_normal(shape).astype(np.float32))
    return folder


def refit(net: Net | onnx.ModelProto, knobs: Knobs, folder: Path, **how: object) -> Remapped:
    proto = net.model(batch="N") if isinstance(net, Net) else net
    options = RemapOptions(refit=samples(folder / "data"), **how)  # type: ignore[arg-type]
    return fnatool.remap(save(proto, folder / "seed.onnx"), document(knobs), folder / "out.onnx", options=options)


def output(made: Remapped) -> tuple[float, float]:
    """How far the one output is from the seed's, before and after."""
    assert made.refit is not None
    (found,) = made.refit.outputs
    return found.before, found.after


HALF: Knobs = {"stage0.*.hidden": 8}


# --- what was lost without need comes back ---


@pytest.mark.parametrize("norms", [True, False])
@pytest.mark.parametrize("kernel", [1, 3])
def test_twins_of_channels_that_stay_are_made_up_for(tmp_path: Path, norms: bool, kernel: int) -> None:
    net = doubled(blocks(norms=norms, kernel=kernel), "e", "d")
    before, after = output(refit(net, HALF, tmp_path))
    assert before > 0.03
    assert after < 1e-4 * before


def test_it_is_the_seed_that_is_learnt(tmp_path: Path) -> None:
    """The twin of the test above: no channel stands for those that go, so some distance stays."""
    before, after = output(refit(blocks(norms=True), HALF, tmp_path))
    assert 1e-3 * before < after < 0.5 * before


def test_a_dense_layer_behind_a_product_learns_too(tmp_path: Path) -> None:
    net = doubled(Net(), "none")
    y = net.op("Flatten", "f", net.op("GlobalAveragePool", "p", net.conv_bn_relu("x", "c", 16, 3)))
    net.op("Add", "y", net.op("MatMul", "m", y, net.constant("w", np.random.default_rng(0).standard_normal((16, 5)))),
           net.constant("b", np.ones(5)))  # fmt: skip
    doubled(net, "c")
    before, after = output(refit(net, {"node:c.width": 8}, tmp_path))
    assert before > 0.03
    assert after < 1e-3 * before


def test_a_product_with_several_matrices_is_left_alone(tmp_path: Path) -> None:
    net = Net()
    y = net.conv_bn(net.conv_bn_relu("x", "c", 16, 3), "d", 4)
    flat = net.op("Reshape", "maps", y, net.constant("to", [0, 1, 1, 256], np.int64))
    net.op("MatMul", "y", flat, net.constant("w", np.random.default_rng(0).standard_normal((3, 256, 5))))
    made = refit(net, {"node:c.width": 8}, tmp_path)
    assert made.refit is not None
    assert [row.node for row in made.refit.layers] == ["d"]


def test_a_grouped_layer_learns_within_its_groups(tmp_path: Path) -> None:
    net = Net()
    y = net.conv_bn_relu("x", "c", 16, 3)
    net.op(
        "Conv",
        "y",
        y,
        net.constant("y.w", np.random.default_rng(0).standard_normal((6, 8, 1, 1))),
        group=2,
        kernel_shape=[1, 1],
    )
    for name in net.weights:  # channels 4 … 7 are like 0 … 3, in the other group too
        if name.startswith("c."):
            net.weights[name][4:8], net.weights[name][12:] = net.weights[name][:4], net.weights[name][8:12]
    before, after = output(refit(net, {"node:c.width": 8}, tmp_path))
    assert before > 0.03
    assert after < 0.3 * before


def test_a_squeeze_and_its_excitation_learn_in_their_turn(tmp_path: Path) -> None:
    net = Net()
    y = net.conv_bn_relu("x", "stem", 6, 3)
    inner = net.conv_bn_relu(y, "e", 16, 3)
    gate = net.relu(net.conv(net.op("GlobalAveragePool", "g", inner), "q", 8, bias=True))
    gate = net.op("Sigmoid", "gate", net.conv(gate, "r", 16, bias=True))
    net.classifier(net.op("Add", "s", y, net.conv_bn(net.op("Mul", "m", inner, gate), "l", 6)))
    made = refit(doubled(net, "e", "q", "r"), {"stage0.block0.hidden": 8}, tmp_path)
    assert made.refit is not None
    assert [row.node for row in made.refit.layers] == ["q", "l", "y"]
    before, after = output(made)
    assert after < 0.1 * before


def test_dropped_blocks_are_learnt_by_the_one_before(tmp_path: Path) -> None:
    net = blocks(norms=True, count=3)
    for part in ("gamma", "beta"):
        net.weights[f"l2.n.{part}"] *= 0.2
    made = refit(net, {"stage0.depth": 2}, tmp_path)
    assert made.refit is not None
    assert [(row.node, row.distance.tensor) for row in made.refit.layers] == [("l1", "s1"), ("y", "y")]
    before, after = output(made)
    assert after < 0.5 * before


def test_a_lost_ring_of_a_kernel_is_made_up_for(tmp_path: Path) -> None:
    net = Net()
    y = net.conv_bn_relu("x", "stem", 6, 3)
    inner = net.conv_bn_relu(net.conv_bn_relu(y, "e", 16), "d", 16, 5, group=0)
    net.classifier(net.op("Add", "s", y, net.conv_bn(inner, "l", 6)))
    made = refit(net, {"stage0.block0.kernel": 3}, tmp_path)
    assert made.refit is not None
    assert [row.node for row in made.refit.layers] == ["d", "l", "y"]
    assert made.refit.layers[0].distance.after < 0.8 * made.refit.layers[0].distance.before


def test_a_folded_seed_learns_like_one_with_norms(tmp_path: Path) -> None:
    net = doubled(blocks(norms=True), "e", "d")
    seed = save(net.model(batch="N"), tmp_path / "bn.onnx")
    fnatool.fold(seed, tmp_path / "folded.onnx")
    made = refit(onnx.load(tmp_path / "folded.onnx"), HALF, tmp_path)
    before, after = output(made)
    assert after < 1e-4 * before


# --- what stays ---


def test_nothing_but_the_layers_and_their_shifts_is_another(tmp_path: Path) -> None:
    net = blocks(norms=True)
    made = refit(net, HALF, tmp_path)
    assert made.refit is not None
    fnatool.remap(tmp_path / "seed.onnx", document(HALF), tmp_path / "plain.onnx")
    before, after = weights(tmp_path / "plain.onnx"), weights(tmp_path / "out.onnx")
    solved = [row.node for row in made.refit.layers if row.strength is not None]
    assert solved
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {
        name for node in solved for name in ((f"{node}.w", f"{node}.n.beta") if node != "y" else ("fc.w", "fc.b"))
    }


def test_a_layer_that_no_strength_helps_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fnatool.model.least_squares.HELPS", 0.0)
    made = refit(blocks(norms=True), HALF, tmp_path)
    assert made.refit is not None
    assert [row.strength for row in made.refit.layers] == [None] * 3
    assert all(row.distance.before == row.distance.after for row in made.refit.layers)
    fnatool.remap(tmp_path / "seed.onnx", document(HALF), tmp_path / "plain.onnx")
    assert (tmp_path / "plain.onnx").read_bytes() == (tmp_path / "out.onnx").read_bytes()


def test_a_layer_that_reads_too_much_is_left_alone_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fnatool.model.refit.MOST_READS", 7)
    made = refit(blocks(norms=True), HALF, tmp_path)
    assert made.refit is not None
    assert [row.node for row in made.refit.layers] == ["y"]
    assert made.refit.skipped == dict.fromkeys(("l0", "l1"), "it reads more than 7 numbers at a position")


def test_a_spec_that_changes_nothing_reads_no_data(tmp_path: Path) -> None:
    made = refit(blocks(norms=True), {}, tmp_path)
    assert made.plan.identity
    assert made.refit is None


def test_the_same_samples_and_seed_give_the_same_bytes(tmp_path: Path) -> None:
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        refit(blocks(norms=True), HALF, tmp_path / name)
        made.append((tmp_path / name / "out.onnx").read_bytes())
    assert made[0] == made[1]


def test_the_distance_said_is_that_of_the_file(tmp_path: Path) -> None:
    made = refit(blocks(norms=True), HALF, tmp_path)
    assert made.refit is not None
    from fnatool.data import unlabelled
    from fnatool.model.analysed import analyse_model
    from fnatool.model.unlabelled import UnlabelledOptions, find_unlabelled
    from fnatool.runtime.verify import outputs

    read = fnatool.read(tmp_path / "seed.onnx")
    data = find_unlabelled(read, analyse_model(read), UnlabelledOptions(arrays=tmp_path / "data"))
    _, kept = unlabelled.parted(data, 0.2)
    assert len(kept) == made.refit.kept
    (batch,) = kept.batches(100)
    of, plain = (outputs(tmp_path / name, batch)["y"].astype(float) for name in ("seed.onnx", "out.onnx"))
    assert output(made)[1] == pytest.approx(np.square(of - plain).sum() / np.square(of - of.mean(0)).sum(), rel=1e-3)


def test_another_image_size_is_learnt_from_the_seed_at_that_size(tmp_path: Path) -> None:
    net = doubled(blocks(norms=True), "e", "d")
    samples(tmp_path / "data", shape=(3, 12, 12))
    options = RemapOptions(refit=tmp_path / "data")
    spec = {"version": 1, "knobs": {**HALF, "input.size": [12, 12]}}
    made = fnatool.remap(
        save(net.model(batch="N"), tmp_path / "seed.onnx"), spec, tmp_path / "out.onnx", options=options
    )
    before, after = output(made)
    assert before > 0.03
    assert after < 1e-4 * before


def test_several_inputs_come_as_arrays_by_their_names(tmp_path: Path) -> None:
    net = doubled(blocks(norms=True), "e", "d")
    proto = net.model(batch="N")
    proto.graph.input.append(onnx.helper.make_tensor_value_info("shift", onnx.TensorProto.FLOAT, ["N", 5]))
    proto.graph.node.append(onnx.helper.make_node("Add", ["y", "shift"], ["z"], name="z"))
    proto.graph.output[0].name = "z"
    (tmp_path / "data").mkdir()
    rng = np.random.default_rng(0)
    x, shift = rng.standard_normal((12, 3, 8, 8)), rng.standard_normal((12, 5))
    np.savez(tmp_path / "data" / "all.npz", x=x, shift=shift)
    options = RemapOptions(refit=tmp_path / "data")
    made = fnatool.remap(save(proto, tmp_path / "seed.onnx"), document(HALF), tmp_path / "out.onnx", options=options)
    before, after = output(made)
    assert after < 1e-4 * before


def test_what_is_not_finite_leaves_its_layer_alone_and_is_said(tmp_path: Path) -> None:
    net = blocks(norms=True, count=1)
    net.weights["l0.n.var"][0] = 1e-30
    net.weights["l0.n.gamma"][0] = 3e38
    proto = net.model(batch="N")
    made = refit(proto, HALF, tmp_path, verify=False)
    assert made.refit is not None
    assert made.refit.skipped["l0"] == "what it reads or is to make is not finite on these samples"
    assert made.refit.layers[0].strength is None


def test_memory_of_the_state_is_on_the_disk_and_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    refit(blocks(norms=True), HALF, tmp_path)
    assert list((tmp_path / "tmp").iterdir()) == []


# --- for users ---


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a seed, a spec that halves its hidden widths, and twelve pictures."""
    monkeypatch.chdir(tmp_path)
    save(blocks(norms=True).model(batch="N"), tmp_path / "seed.onnx")
    (tmp_path / "spec.json").write_text(json.dumps(document(HALF)))
    (tmp_path / "photos").mkdir()
    for k in range(12):
        pixels = np.random.default_rng(k).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{k}.png")
    return tmp_path


LINE = ["remap", "seed.onnx", "--spec", "spec.json", "-o", "out.onnx", "--mean", "127.5", "--scale", "60"]


def test_pictures_refit_on_the_command_line_and_the_result_passes_the_check(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*LINE, "--refit", "photos", "--report", "report.json"]) == 0
    said = capsys.readouterr().out
    assert "12 pictures in 'photos'" in said
    assert "layers solved anew" in said
    found = json.loads((folder / "report.json").read_text())["refit"]
    assert found["used"] + found["kept_back"] == 12
    assert [row["node"] for row in found["layers"]] == ["l0", "l1", "y"]
    assert found["outputs"][0]["after"] < found["outputs"][0]["before"]
    assert run(["check", "out.onnx", "--spec", "spec.json", "--against", "seed.onnx"]) == 0


def test_a_dry_run_reads_no_pictures(folder: Path) -> None:
    assert run([*LINE, "--refit", "nowhere", "--dry-run"]) == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--refit", "nowhere"], "'nowhere' does not exist; give a folder of pictures, or of arrays"),
        (["--refit", "empty"], "'empty' holds neither pictures nor arrays"),
        (["--refit", "bad"], "no.png: it is not an image of a known kind"),
        (["--refit", "one"], "has 1 of the pictures that are needed"),
        (["--refit", "photos", "--refit-samples", "1"], "1"),
    ],
)
def test_data_that_cannot_be_used_is_one_message_and_nothing_is_written(
    folder: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "empty").mkdir()
    for name in ("bad", "one"):
        (folder / name).mkdir()
        (folder / name / "0.png").write_bytes((folder / "photos" / "0.png").read_bytes())
    (folder / "bad" / "no.png").write_bytes(b"none")
    assert run([*LINE, *more]) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "out.onnx").exists()


def test_broken_pictures_are_left_out_if_asked_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "photos" / "no.png").write_bytes(b"none")
    assert run([*LINE, "--refit", "photos", "--skip-bad"]) == 0
    assert "12 pictures in 'photos' (1 left out)" in capsys.readouterr().out


def test_one_sample_is_too_few_from_python_too(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1 samples are too few"):
        refit(blocks(norms=True), HALF, tmp_path, refit_samples=1)
