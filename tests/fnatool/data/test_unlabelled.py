"""Samples without labels: pictures and arrays in folders, which of them are used, and what is said of those that cannot
be.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import model, net, save

from fnatool.data.arrays import Arrays
from fnatool.data.inputs import SampleInput
from fnatool.data.pictures import Pictures, Preparation
from fnatool.data.pixels import Pixels
from fnatool.data.split import BadData
from fnatool.data.unlabelled import Unlabelled, drawn, find, parted
from fnatool.files.model import read
from fnatool.model.analysed import analyse_model
from fnatool.model.unlabelled import UnlabelledOptions, find_unlabelled, folder_options
from passes.errors import UserError

FLOAT = np.dtype(np.float32)
RGB = Preparation(Pixels((100.0,) * 3, (50.0,) * 3, "RGB", "here"), channels_last=False)
PICTURES = Pictures(SampleInput("x", FLOAT, (3, 8, 6)), RGB)
TWO = Arrays((SampleInput("x", FLOAT, (2, 4)), SampleInput("n", np.dtype(np.int64), (1,))))


def picture(path: Path, colour: tuple[int, int, int] = (200, 100, 50), size: tuple[int, int] = (12, 16)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def pictures(root: Path, count: int) -> Path:
    for k in range(count):
        picture(root / f"{k}.png", (k, 0, 0))
    return root


def names(data: Unlabelled) -> list[str]:
    return [place.name for place in data.places]


# --- pictures ---


def test_pictures_are_found_at_any_depth_and_by_any_suffix(tmp_path: Path) -> None:
    picture(tmp_path / "a.JPG")
    picture(tmp_path / "deep" / "er" / "b.webp")
    assert names(find(tmp_path, PICTURES)) == ["a.JPG", "deep/er/b.webp"]


def test_what_is_hidden_or_of_tools_is_no_sample_and_what_is_no_picture_is_noted(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / ".thumbs" / "b.png")
    picture(tmp_path / "__MACOSX" / "c.png")
    (tmp_path / "readme.txt").write_text("x")
    found = find(tmp_path, PICTURES)
    assert names(found) == ["a.png"]
    assert found.notes == ("1 file(s) of kinds that are not read (1 .txt), as 'readme.txt'",)


def test_a_picture_is_scaled_to_cover_the_input_and_its_pixels_become_values(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", (200, 100, 50), (60, 20))
    (batch,) = find(tmp_path, PICTURES).batches(4)
    assert batch["x"].shape == (1, 3, 8, 6)
    assert batch["x"].dtype == np.float32
    np.testing.assert_array_equal(batch["x"][0, :, 3, 3], np.array([2, 0, -1], np.float32))


def test_channels_come_last_where_the_network_has_them_there(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    last = Pictures(SampleInput("x", FLOAT, (8, 6, 3)), Preparation(RGB.pixels, channels_last=True))
    (batch,) = find(tmp_path, last).batches(4)
    assert batch["x"].shape == (1, 8, 6, 3)


def test_batches_are_in_order_and_the_last_is_what_is_left(tmp_path: Path) -> None:
    found = find(pictures(tmp_path, 5), PICTURES)
    assert [len(batch["x"]) for batch in found.batches(2)] == [2, 2, 1]
    reds = np.concatenate([batch["x"][:, 0, 0, 0] for batch in found.batches(2)])
    np.testing.assert_allclose(reds * 50 + 100, range(5), atol=1e-4)


def test_a_single_sample_is_what_it_is_in_its_batch(tmp_path: Path) -> None:
    found = find(pictures(tmp_path, 3), PICTURES)
    (batch,) = found.batches(3)
    np.testing.assert_array_equal(found.sample(2)["x"], batch["x"][2])


def test_no_file_is_read_before_a_batch_needs_it(tmp_path: Path) -> None:
    found = find(pictures(tmp_path, 4), PICTURES)
    batches = found.batches(2)
    next(batches)
    (tmp_path / "3.png").write_bytes(b"gone")
    with pytest.raises(UserError, match=r"3\.png' was whole when it was checked, and now it is not an image"):
        next(batches)


@pytest.mark.parametrize("content", [None, "notes.txt"])
def test_a_folder_without_pictures_is_refused(tmp_path: Path, content: str | None) -> None:
    if content:
        (tmp_path / content).write_text("x")
    with pytest.raises(UserError, match="there are no pictures in"):
        find(tmp_path, PICTURES)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist; give a folder of pictures"):
        find(tmp_path / "none", PICTURES)
    with pytest.raises(UserError, match="is not a folder; give a folder of pictures"):
        find(picture(tmp_path / "a.png"), PICTURES)


# --- which are used ---


def test_the_seed_draws_the_same_samples_and_another_draws_others(tmp_path: Path) -> None:
    found = find(pictures(tmp_path, 30), PICTURES)
    one = drawn(found, 8, seed=1)
    assert len(one) == 8
    assert names(one) == names(drawn(found, 8, seed=1)) == sorted(names(one))
    assert names(one) != names(drawn(found, 8, seed=2))


def test_all_samples_are_drawn_where_there_are_no_more(tmp_path: Path) -> None:
    found = find(pictures(tmp_path, 4), PICTURES)
    assert names(drawn(found)) == names(drawn(found, 100)) == names(found)


def test_a_sample_that_comes_changes_no_more_than_one_that_is_drawn(tmp_path: Path) -> None:
    before = set(names(drawn(find(pictures(tmp_path, 30), PICTURES), 8)))
    picture(tmp_path / "another.png")
    after = set(names(drawn(find(tmp_path, PICTURES), 8)))
    assert len(before - after) <= 1


def test_a_broken_picture_is_named_with_what_to_do(tmp_path: Path) -> None:
    pictures(tmp_path, 3)
    (tmp_path / "7.png").write_bytes(b"no picture")
    with pytest.raises(BadData, match=r"7\.png: it is not an image of a known kind(.|\n)*--skip-bad") as error:
        drawn(find(tmp_path, PICTURES))
    assert [finding.where for finding in error.value.findings] == ["7.png"]


def test_a_named_pipe_is_a_broken_picture_and_not_waited_for(tmp_path: Path) -> None:
    pictures(tmp_path, 1)
    os.mkfifo(tmp_path / "p.png")
    with pytest.raises(BadData, match=r"p\.png: it is a named pipe"):
        drawn(find(tmp_path, PICTURES))


def test_broken_pictures_are_left_out_and_others_take_their_place(tmp_path: Path) -> None:
    pictures(tmp_path, 10)
    for k in range(10, 20):
        (tmp_path / f"{k}.png").write_bytes(b"no picture")
    left = drawn(find(tmp_path, PICTURES), 10, skip_bad=True)
    assert names(left) == sorted(f"{k}.png" for k in range(10))
    assert left.summary() == f"10 pictures in '{tmp_path}' ({len(left.findings)} left out)"


def test_nothing_left_is_an_error_that_names_the_first(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"nothing is left of the 1 pictures in .*; a\.png: it is not an image"):
        drawn(find(tmp_path, PICTURES), skip_bad=True)


def test_a_share_is_kept_back_and_no_sample_is_both(tmp_path: Path) -> None:
    found = find(pictures(tmp_path, 60), PICTURES)
    used, kept = parted(found, 0.25)
    assert sorted(names(used) + names(kept)) == names(found)
    assert 6 <= len(kept) <= 24


def test_what_is_kept_back_stays_so_when_others_come(tmp_path: Path) -> None:
    _, before = parted(find(pictures(tmp_path, 30), PICTURES), 0.25)
    _, after = parted(find(pictures(tmp_path, 60), PICTURES), 0.25)
    assert set(names(before)) <= set(names(after))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_at_least_one_is_used_and_one_kept_back(tmp_path: Path, share: float) -> None:
    used, kept = parted(find(pictures(tmp_path, 2), PICTURES), share)
    assert len(used) == len(kept) == 1


def test_one_sample_cannot_be_parted(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has 1 of the pictures that are needed: one to use and one to keep back"):
        parted(find(pictures(tmp_path, 1), PICTURES), 0.5)


# --- arrays ---


def test_an_archive_holds_an_array_per_input(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones((2, 4), np.float32), n=np.array([7]))
    (batch,) = find(tmp_path, TWO).batches(8)
    assert {name: (value.shape, value.dtype) for name, value in batch.items()} == {
        "x": ((1, 2, 4), np.float32),
        "n": ((1, 1), np.int64),
    }


def test_an_axis_before_counts_samples(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.float32).reshape(3, 2, 4)
    np.savez(tmp_path / "a.npz", x=values, n=np.array([[1], [2], [3]]))
    found = find(tmp_path, TWO)
    assert names(found) == ["a.npz", "a.npz[1]", "a.npz[2]"]
    np.testing.assert_array_equal(np.concatenate([batch["x"] for batch in found.batches(2)]), values)


def test_a_plain_array_is_the_one_input(tmp_path: Path) -> None:
    one = Arrays((SampleInput("x", FLOAT, (2, 4)),))
    np.save(tmp_path / "a.npy", np.ones((2, 4)))  # double precision
    np.save(tmp_path / "b.npy", np.ones((5, 2, 4), np.float16))
    (batch,) = find(tmp_path, one).batches(8)
    assert batch["x"].shape == (6, 2, 4)
    assert batch["x"].dtype == np.float32


def test_an_input_without_samples_of_its_own_makes_batches_of_one(tmp_path: Path) -> None:
    sizes = SampleInput("sizes", np.dtype(np.int64), (2,), batched=False)
    np.savez(tmp_path / "a.npz", x=np.ones((3, 4), np.float32), sizes=np.array([5, 6]))
    batches = list(find(tmp_path, Arrays((SampleInput("x", FLOAT, (4,)), sizes))).batches(8))
    assert [(batch["x"].shape, batch["sizes"].tolist()) for batch in batches] == [((1, 4), [5, 6])] * 3


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.ones((2, 4)), "m": np.array([1])}, r"it holds 'x', 'm', but the inputs of the network are 'x', 'n'"),
        (
            {"x": np.ones((2, 4)), "n": np.array([1]), "label": np.array(3)},
            r"it holds 'x', 'n', 'label', but the inputs",
        ),
        (
            {"x": np.ones((4, 2)), "n": np.array([1])},
            r"'x' is float64 4×2; the network takes float32 2×4, with an axis of samples",
        ),
        ({"x": np.ones((2, 4), np.uint8), "n": np.array([1])}, r"'x' is uint8 2×4; the network takes float32 2×4"),
        ({"x": np.ones((2, 4)), "n": np.array([1.0])}, r"'n' is float64 1; the network takes int64 1"),
        (
            {"x": np.ones((3, 2, 4)), "n": np.array([[1], [2]])},
            r"its arrays have other numbers of samples: 'x' 3, 'n' 2",
        ),
        ({"x": np.ones((0, 2, 4)), "n": np.ones((0, 1), int)}, r"it holds no sample"),
        ({"x": np.full((2, 4), np.nan), "n": np.array([1])}, r"'x' holds what is no finite number"),
        ({"x": np.full((2, 4), 1e300), "n": np.array([1])}, r"'x' holds numbers beyond float32"),
        ({"x": np.array([None] * 8).reshape(2, 4), "n": np.array([1])}, r"'x' is object 2×4"),
    ],
)
def test_arrays_that_do_not_fit_the_network_are_said(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(BadData, match=message):
        drawn(find(tmp_path, TWO))


def test_an_integer_that_the_network_cannot_take_is_said(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([300]))
    with pytest.raises(BadData, match="'n' holds numbers that uint8 cannot"):
        drawn(find(tmp_path, Arrays((SampleInput("n", np.dtype(np.uint8), (1,)),))))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"\x93NUMPY\x09\x00"])
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_a_damaged_file_of_arrays_is_said(tmp_path: Path, suffix: str, content: bytes) -> None:
    (tmp_path / f"a.{suffix}").write_bytes(content)
    with pytest.raises(BadData, match="it holds no arrays that can be read"):
        drawn(find(tmp_path, Arrays((SampleInput("x", FLOAT, (2, 4)),))))


def test_a_plain_array_is_none_of_several_inputs(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((2, 4), np.float32))
    with pytest.raises(BadData, match=r"the network has the inputs 'x', 'n'; save them by their names as \.npz"):
        drawn(find(tmp_path, TWO))


# --- for a network ---

SUM = """
net (float[N,3,8,8] x, float[N,3,8,8] z) => (float[N,3,8,8] y) {
    c = Conv <kernel_shape = [1, 1]> (x, w)
    y = Add (c, z)
}
"""


def found_for(path: Path, options: UnlabelledOptions) -> Unlabelled:
    read_model = read(path)
    return find_unlabelled(read_model, analyse_model(read_model), options)


def test_a_network_takes_pictures_by_what_is_known_of_its_pixels(tmp_path: Path) -> None:
    picture(tmp_path / "photos" / "a.png", (255, 0, 0))
    options = UnlabelledOptions(images=tmp_path / "photos", mean=(0,), scale=(255,))
    (batch,) = found_for(save(net(), tmp_path / "m.onnx"), options).batches(1)
    np.testing.assert_array_equal(batch["x"][0, :, 0, 0], np.array([1, 0, 0], np.float32))


def test_pictures_alone_do_not_fill_two_inputs_but_arrays_do(tmp_path: Path) -> None:
    path = save(model(SUM, {"w": (3, 3, 1, 1)}), tmp_path / "m.onnx")
    picture(tmp_path / "photos" / "a.png")
    (tmp_path / "arrays").mkdir()
    np.savez(tmp_path / "arrays" / "a.npz", x=np.ones((3, 8, 8), np.float32), z=np.ones((3, 8, 8), np.float32))
    with pytest.raises(
        UserError, match=r"pictures fill one input, but the network has 'x', 'z'; give all of them as arrays"
    ):
        found_for(path, UnlabelledOptions(images=tmp_path / "photos"))
    (batch,) = found_for(path, UnlabelledOptions(arrays=tmp_path / "arrays")).batches(2)
    assert batch.keys() == {"x", "z"}


def test_a_network_that_looks_at_no_picture_takes_arrays(tmp_path: Path) -> None:
    dense = "net (float[N,5] x) => (float[N,4] y) { y = MatMul (x, m) }"
    path = save(model(dense, {"m": (5, 4)}), tmp_path / "m.onnx")
    picture(tmp_path / "photos" / "a.png")
    with pytest.raises(UserError, match=r"the input 'x' takes float32 5, which is no grey or RGB picture; give arrays"):
        found_for(path, UnlabelledOptions(images=tmp_path / "photos"))


def test_a_folder_tells_by_its_files_whether_it_holds_pictures_or_arrays(tmp_path: Path) -> None:
    picture(tmp_path / "p" / "a.png")
    (tmp_path / "a").mkdir()
    np.save(tmp_path / "a" / "a.npy", np.ones(3))
    assert folder_options(tmp_path / "p").images == tmp_path / "p"
    assert folder_options(tmp_path / "a").arrays == tmp_path / "a"
    with pytest.raises(UserError, match="holds both pictures and arrays; give a folder with one kind"):
        folder_options(tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="holds neither pictures nor arrays"):
        folder_options(tmp_path / "none")
