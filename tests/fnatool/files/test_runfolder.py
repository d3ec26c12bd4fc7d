"""The folder of a run: whose it is, who works in it, what goes when it begins anew, and what a kill leaves."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from fnatool.files import locks, runfolder
from fnatool.files.runfolder import CONFIG, MARK, METRICS, TUNING, empty_folder, hold_folder, kind_of
from fnatool.search.folder import SEARCH
from passes.errors import UserError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run that has ended."""
    folder = tmp_path / "run"
    with hold_folder(folder, TUNING):
        for name in ("checkpoint.pt", "config.json", "metrics.jsonl"):
            (folder / name).write_text(name)
        (folder / "events").mkdir()
        (folder / "events" / "events.out.tfevents.1").write_text("event")
    return folder


def contents(folder: Path) -> Mapping[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and path.name != MARK
    }


def refused(folder: Path, *parts: str, layout: runfolder.RunLayout = TUNING) -> None:
    before = contents(folder)
    with pytest.raises(UserError) as caught, hold_folder(folder, layout):
        pass
    for part in parts:
        assert part in str(caught.value)
    assert contents(folder) == before


def in_child(life: Callable[[], None]) -> int:
    """The exit code of a child that lived; −9 where it was killed."""
    child = os.fork()
    if child == 0:
        try:
            life()
        except UserError:
            os._exit(2)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("name", ["config.json", "events", "target.onnx", "spec.json", "report.md", "thesis.tex"])
@pytest.mark.parametrize("layout", [TUNING, SEARCH])
def test_a_folder_without_our_mark_is_left_alone_whatever_its_files_are_called(
    name: str, layout: runfolder.RunLayout, tmp_path: Path
) -> None:
    (tmp_path / name).write_text("mine")
    refused(tmp_path, f"holds '{name}'", "give another folder", layout=layout)


def test_a_folder_of_hidden_files_is_new_and_keeps_them(tmp_path: Path) -> None:
    for name in (".keep", ".work.mine.tmp", ".checkpoint.pt.tmp", ".old"):
        (tmp_path / name).write_text("mine")
    before = contents(tmp_path)
    with hold_folder(tmp_path, TUNING):
        (tmp_path / "checkpoint.pt").write_text("ours")
        empty_folder(tmp_path, TUNING)
    assert contents(tmp_path) == before


def test_what_is_refused_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a budget that cannot be"), hold_folder(tmp_path / "a" / "b", TUNING):
        raise UserError("a budget that cannot be")
    assert list(tmp_path.iterdir()) == []
    own = tmp_path / "own"
    own.mkdir()
    (own / ".gitkeep").touch()
    with pytest.raises(UserError), hold_folder(own, TUNING):
        raise UserError("a budget that cannot be")
    assert [path.name for path in own.iterdir()] == [".gitkeep"]


def test_what_was_prepared_for_a_search_that_is_refused_is_gone(tmp_path: Path) -> None:
    def search(folder: Path) -> None:
        with hold_folder(folder, SEARCH):
            (folder / "seed.onnx").touch()
            raise UserError("the smallest member is too large")

    with pytest.raises(UserError):
        search(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_what_was_written_stays_where_the_end_is_a_refusal(tmp_path: Path) -> None:
    def train() -> None:
        with hold_folder(tmp_path / "run", TUNING):
            for name in (CONFIG, METRICS):
                (tmp_path / "run" / name).touch()
            raise UserError("the loss is not finite")

    with pytest.raises(UserError):
        train()
    assert {path.name for path in (tmp_path / "run").iterdir()} == {MARK, CONFIG, METRICS}


def test_a_mark_that_was_taken_away_meanwhile_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process opened the mark, and the one that held it left no run before the other could lock it."""
    take, taken = locks.take_lock, []

    def late(handle: int) -> bool:
        if not taken:
            (tmp_path / "run" / MARK).unlink()
            (tmp_path / "run").rmdir()
        taken.append(handle)
        return take(handle)

    monkeypatch.setattr(locks, "take_lock", late)
    with hold_folder(tmp_path / "run", TUNING):
        assert kind_of(tmp_path / "run") == "finetune"
    assert len(taken) == 2


def test_a_run_of_another_kind_or_with_a_strange_mark_is_refused(run: Path) -> None:
    refused(run, "is of a run of 'fnatool finetune'", layout=SEARCH)
    (run / MARK).write_text("something else")
    refused(run, f"{MARK}' is not what fnatool writes there")


def test_one_process_works_in_a_run_at_a_time(run: Path) -> None:
    with hold_folder(run, TUNING):
        refused(run, f"'{run}' is in use by process {os.getpid()}")
        assert in_child(lambda: hold_folder(run, TUNING).__enter__()) == 2
    assert in_child(lambda: hold_folder(run, TUNING).__enter__()) == 0


def test_a_killed_process_does_not_keep_a_run_nor_its_drafts(run: Path) -> None:
    before = contents(run)

    def life() -> None:
        with hold_folder(run, TUNING):
            (run / ".checkpoint.pt.0123abcd.tmp").write_text("half")
            (run / ".work.0123abcd.tmp").mkdir()
            (run / ".work.0123abcd.tmp" / "out.onnx").write_text("half")
            (run / runfolder.NEW).mkdir()
            die()

    assert in_child(life) == -signal.SIGKILL
    assert contents(run) != before
    with hold_folder(run, TUNING):
        assert sorted(path.name for path in run.iterdir()) == [
            MARK,
            "checkpoint.pt",
            "config.json",
            "events",
            "metrics.jsonl",
        ]


def test_beginning_anew_removes_what_was_written_and_nothing_else(run: Path) -> None:
    for name in ("notes.txt", "events/mine", ".hidden"):
        (run / name).write_text("mine")
    with hold_folder(run, TUNING):
        empty_folder(run, TUNING)
    assert contents(run) == {"notes.txt": "mine", "events/mine": "mine", ".hidden": "mine"}


def test_events_on_another_disk_stay_there(run: Path, tmp_path: Path) -> None:
    (run / "events").rename(tmp_path / "disk")
    (run / "events").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "mine").write_text("mine")
    (tmp_path / "elsewhere.pt").write_text("mine too")
    (run / "checkpoint.pt").unlink()
    (run / "checkpoint.pt").symlink_to(tmp_path / "elsewhere.pt")
    with hold_folder(run, TUNING):
        empty_folder(run, TUNING)
    assert contents(run) == {}
    assert contents(tmp_path / "disk") == {"mine": "mine"}
    assert (run / "events").is_symlink()
    assert (tmp_path / "elsewhere.pt").read_text() == "mine too"


@pytest.mark.parametrize("number", range(1, 5))
def test_nothing_is_removed_where_something_cannot_be(number: int, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rename of that number fails."""
    before = contents(run)
    rename, done = Path.rename, []

    def fails(self: Path, target: Path) -> Path:
        done.append(target)
        if len(done) == number:
            raise PermissionError(1, "Operation not permitted", str(self))
        return rename(self, target)

    with hold_folder(run, TUNING):
        monkeypatch.setattr(Path, "rename", fails)
        with pytest.raises(PermissionError):
            empty_folder(run, TUNING)
        monkeypatch.undo()
    assert contents(run) == before
    assert sorted(path.name for path in run.iterdir()) == [
        MARK,
        "checkpoint.pt",
        "config.json",
        "events",
        "metrics.jsonl",
    ]


@pytest.mark.parametrize("number", range(1, 8))
def test_a_kill_while_a_run_begins_anew_leaves_the_old_one_or_none(number: int, run: Path) -> None:
    """Killed after so many renames: of four files, of what is arranged, and of all that was set aside."""
    before = contents(run)

    def arrange() -> None:
        (run / "new").rename(run / "config.json")

    def life() -> None:
        rename, done = Path.rename, []

        def renamed(self: Path, target: Path) -> Path:
            found = rename(self, target)
            done.append(target)
            if len(done) == number:
                die()
            return found

        with hold_folder(run, TUNING):
            (run / "new").write_text("new")
            Path.rename = renamed  # type: ignore[assignment,method-assign]
            empty_folder(run, TUNING, arrange)

    code = in_child(life)
    with hold_folder(run, TUNING):
        (run / "new").unlink(missing_ok=True)
        assert contents(run) == (before if number < 6 else {"config.json": "new"})
        assert code == (-signal.SIGKILL if number < 7 else 0)


@pytest.mark.parametrize("name", ["checkpoint.pt", "metrics.jsonl", "report.json", "events"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "nowhere"])
def test_what_cannot_be_of_a_run_is_refused_before_it_is_opened(name: str, kind: str, run: Path) -> None:
    path = run / name
    if path.is_dir():
        (path / "events.out.tfevents.1").unlink()
        path.rmdir()
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else "gone")
    if name == "events" and kind == "folder":
        with hold_folder(run, TUNING):
            pass
    elif kind == "nowhere" and name != "events":
        with hold_folder(run, TUNING):
            empty_folder(run, TUNING)
        assert not path.is_symlink()
    else:
        refused(run, f"'{path}' is no", "is damaged")
