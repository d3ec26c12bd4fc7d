"""What became of each block of a network in another one."""

from __future__ import annotations

from pathlib import Path

import pytest
from seeds_of_heads import mobile
from tiny import save

import fnatool
from fnatool.files import model as files
from fnatool.report.architecture import COPIED, DROPPED, FRESH, KEPT, NARROWED, WIDENED
from fnatool.report.drawing import SEED, panels
from fnatool.report.networks import NetworkPair, network_pair, reported


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("seed") / "seed.onnx"
    save(mobile(64).model(batch="N"), path)
    return path


def pair(seed: Path, folder: Path, knobs: dict[str, object]) -> NetworkPair:
    out = folder / "out.onnx"
    fnatool.remap(seed, {"version": 1, "knobs": knobs}, out, options=fnatool.RemapOptions(verify=False))
    return network_pair(reported(files.read(seed)), reported(files.read(out)))


def fates(made: NetworkPair) -> dict[str, str]:
    return {piece.name: piece.fate for piece in made.after.pieces if piece.fate != KEPT}


@pytest.mark.parametrize(
    ("knobs", "expected"),
    [
        ({"stage1.block0.hidden": "x0.5"}, {"stage1.block0": NARROWED}),
        ({"stage1.block0.hidden": "x2"}, {"stage1.block0": WIDENED}),
        ({"stage0.depth": 3}, {"stage0.block2": COPIED}),
        ({"stage0.depth": 1}, {}),
        ({"stage2.*.kernel": 5}, {}),
    ],
)
def test_a_block_is_kept_narrowed_widened_or_copied(
    seed: Path, tmp_path: Path, knobs: dict[str, object], expected: dict[str, str]
) -> None:
    assert fates(pair(seed, tmp_path, knobs)) == expected


def test_a_block_that_is_left_out_is_counted_and_drawn_crossed_out(seed: Path, tmp_path: Path) -> None:
    made = pair(seed, tmp_path, {"stage0.depth": 1})
    assert made.to_json()["fates"][DROPPED] == 1
    part = next(panel for panel in panels(made.parts) if panel.name == "stage0")
    above, below = ([bar.fate for bar in part.bars if bar.base == row] for row in part.rows)
    assert above == [SEED, SEED]
    assert below == [KEPT, DROPPED]


def test_the_block_that_a_spec_takes_from_elsewhere_stands_below_its_source(seed: Path, tmp_path: Path) -> None:
    made = pair(seed, tmp_path, {"stage0.depth": 3, "stage0.block1.from": 1, "stage0.block2.from": 1})
    (part,) = (part for part in made.parts if part.name == "stage0")
    assert [(one and one.name, other and other.name) for one, other in part.pairs] == [
        ("stage0.block0", "stage0.block0"),
        ("stage0.block1", "stage0.block1"),
        (None, "stage0.block2"),
    ]


def test_a_larger_kernel_is_drawn_with_a_larger_mark(seed: Path, tmp_path: Path) -> None:
    made = pair(seed, tmp_path, {"stage1.block0.kernel": 7})
    bars = [
        bar
        for panel in panels(made.parts)
        if panel.name == "stage1"
        for bar in panel.bars
        if bar.title.startswith("stage1.block0")
    ]
    assert [bar.kernels for bar in bars] == ["3×3", "7×7"]
    assert bars[0].mark is not None
    assert bars[1].mark is not None
    assert bars[1].mark > bars[0].mark


def test_a_head_of_another_network_is_new(seed: Path, tmp_path: Path) -> None:
    fnatool.head(
        seed,
        tmp_path / "other.onnx",
        options=fnatool.HeadOptions(task="segmentation", classes=3, width=8, verify=False),
    )
    made = network_pair(reported(files.read(seed)), reported(files.read(tmp_path / "other.onnx")))
    assert FRESH in {piece.fate for piece in made.after.pieces if piece.part == "head"}


def test_the_pieces_of_a_network_share_out_its_multiply_adds(seed: Path) -> None:
    found = reported(files.read(seed))
    assert sum(piece.macs or 0 for piece in found.pieces) == found.profile.whole.macs
