"""Answers for pictures: drawn, as JSON, of files and folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from deployable import headed, pictures
from PIL import Image
from tiny import net, save

import fnatool
from fnatool.cli.main import run
from passes.errors import UserError

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(headed(tmp_path_factory.mktemp("models"), "linear"))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def width(path: str) -> int:
    with Image.open(path) as image:
        return image.width


def test_a_folder_of_pictures_is_drawn_with_a_contact_sheet(model: str, here: Path, capsys: Capture) -> None:
    pictures(here / "photos", (40, 60), (500, 300))
    (here / "photos" / "notes.txt").write_text("no picture")
    assert run(["predict", model, "photos", "-o", "out"]) == 0
    assert "classification: 2 pictures → out" in capsys.readouterr().out
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "contact-sheet.png",
        "p0.png",
        "p1.png",
        "predictions.json",
    ]
    assert width("out/p0.png") == 480
    assert width("out/p1.png") == 300
    rows = json.loads(Path("out/predictions.json").read_text())["images"]
    assert [(row["drawn"], len(row["most_probable"])) for row in rows] == [("p0.png", 3), ("p1.png", 3)]


def test_one_picture_becomes_a_file(model: str, here: Path) -> None:
    (path,) = pictures(here, (40, 60))
    assert run(["predict", model, str(path), "-o", "answer.png"]) == 0
    assert width("answer.png") == 480
    assert run(["predict", model, str(path), "-o", "answer.png"]) == 2
    assert run(["predict", model, str(path), "-o", "answer.png", "--force"]) == 0
    assert run(["predict", model, str(path), "-o", str(path), "--force"]) == 2


def test_answers_come_as_json_alone(model: str, here: Path, capsys: Capture) -> None:
    (path,) = pictures(here, (40, 60))
    assert run(["predict", model, str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["task"] == "classification"
    assert found["images"][0]["image"] == str(path)
    assert found["images"][0]["drawn"] is None


def test_pictures_of_one_name_do_not_replace_each_other(model: str, here: Path) -> None:
    given = [*pictures(here / "a", (20, 20)), *pictures(here / "b", (20, 20))]
    found = fnatool.predict(model, given, "out")
    assert [row.drawn for row in found.answers] == [Path("out/p0.png"), Path("out/p0-2.png")]


BAD = {
    "missing.png -o out": "'missing.png' does not exist",
    "empty -o out": "there is no picture in 'empty'",
    "broken.png -o out": "'broken.png': it is not an image of a known kind; --skip-bad leaves such pictures out",
    "broken.png -o out --skip-bad": "none of the 1 picture(s) can be read",
    "p0.png": "say where the pictures go",
    "p0.png p0.png -o out.png": "is a file, but there are 2 pictures",
    "p0.png -o full": "holds 'mine.txt', which this command has not written",
    "p0.png -o no/where": "is no folder; create it first",
}


@pytest.mark.parametrize("asked", BAD)
def test_bad_asks_are_one_message_and_nothing_is_written(asked: str, model: str, here: Path, capsys: Capture) -> None:
    pictures(here, (20, 20))
    (here / "broken.png").write_bytes(b"nothing")
    (here / "empty").mkdir()
    (here / "full").mkdir()
    (here / "full/mine.txt").write_text("mine")
    before = sorted(here.rglob("*"))
    assert run(["predict", model, *asked.split()]) == 2
    assert BAD[asked] in capsys.readouterr().err
    assert sorted(here.rglob("*")) == before


def test_a_bad_picture_may_be_left_out(model: str, here: Path, capsys: Capture) -> None:
    pictures(here, (20, 20))
    (here / "broken.png").write_bytes(b"nothing")
    assert run(["predict", model, "broken.png", "p0.png", "-o", "out", "--skip-bad"]) == 0
    assert "left out: broken.png: it is not an image of a known kind" in capsys.readouterr().out
    assert not Path("out/broken.png").exists()


def test_a_model_without_a_task_has_no_answers(here: Path) -> None:
    save(net(), here / "net.onnx")
    with pytest.raises(UserError, match="does not say what it is for"):
        fnatool.predict("net.onnx", pictures(here, (8, 8)))
