"""Files that take their places whole, and never that of another; what a killed process leaves is cleared away."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fnatool.files import atomic, locks
from passes.errors import UserError


def killed(life: Callable[[], None]) -> None:
    """A child lived, and ended as by `kill -9` where its life sends that."""
    child = os.fork()
    if child == 0:
        life()
        os._exit(0)
    os.waitpid(child, 0)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"

    def both() -> None:
        with atomic.replacing(other, one, force=False) as (file, _):
            file.write(b"ours")
            other.write_bytes(b"theirs")

    with pytest.raises(UserError, match=r"'.*other' has appeared meanwhile"):
        both()
    assert other.read_bytes() == b"theirs"
    assert names(tmp_path) == ["other"]


def test_where_a_file_system_has_no_links_it_is_not_replaced_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted", str(source))

    monkeypatch.setattr(os, "link", refused)
    with atomic.replacing(tmp_path / "a", force=False) as (file,):
        file.write(b"ours")
    with (
        pytest.raises(UserError, match="has appeared meanwhile"),
        atomic.replacing(tmp_path / "b", force=False) as (file,),
    ):
        (tmp_path / "b").write_bytes(b"theirs")
    assert [(tmp_path / name).read_bytes() for name in names(tmp_path)] == [b"ours", b"theirs"]


def test_a_draft_of_a_killed_process_goes_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "out"

    def life() -> None:
        with atomic.replacing(path) as (file,):
            file.write(b"half")
            die()

    killed(life)
    assert len(names(tmp_path)) == 1
    with atomic.replacing(path) as (file,):
        file.write(b"first")
        assert len(names(tmp_path)) == 1
        with atomic.replacing(path) as (other,):
            other.write(b"second")
        assert path.read_bytes() == b"second"
    assert path.read_bytes() == b"first"
    assert names(tmp_path) == ["out"]


def test_files_that_are_none_of_ours_stay(tmp_path: Path) -> None:
    kept = [".out.tmp", ".out.mine.tmp", ".outer.0123abcd.tmp", ".out.0123abcd.txt"]
    for name in kept:
        (tmp_path / name).write_text("mine")
    atomic.write_text(tmp_path / "out", "ours")
    assert names(tmp_path) == sorted([*kept, "out"])


@pytest.mark.parametrize("links", [1, 2])
def test_of_two_files_that_belong_together_a_kill_leaves_both_or_none(links: int, tmp_path: Path) -> None:
    """Killed after so many have taken their places."""
    one, other = tmp_path / "a" / "one", tmp_path / "b" / "other"
    one.parent.mkdir()
    other.parent.mkdir()
    link, done = os.link, []

    def linked(source: Path, target: Path) -> None:
        link(source, target)
        done.append(target)
        if len(done) == links:
            die()

    def life() -> None:
        os.link = linked  # type: ignore[assignment]
        with atomic.replacing(one, other, force=False):
            pass

    killed(life)
    assert one.exists() == (links == 2)
    assert other.exists()
    atomic.recover(one, other)
    assert one.exists() == other.exists() == (links == 2)
    assert len([*one.parent.iterdir(), *other.parent.iterdir()]) == (2 if links == 2 else 0)


def test_the_longest_name_has_a_draft(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 127)
    atomic.write_text(path, "whole")
    assert path.read_text() == "whole"
    assert names(tmp_path) == [path.name]


@pytest.mark.parametrize("place", ["workplace", "temporary"])
def test_a_place_for_drafts_goes_with_its_process(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    make = {"workplace": lambda: atomic.workplace(tmp_path), "temporary": atomic.temporary}[place]

    def life() -> None:
        with make() as folder:
            (folder / "draft").write_text("half")
            die()

    killed(life)
    assert len(names(tmp_path)) == 1
    with make(), make():
        assert len(names(tmp_path)) == 2
    assert names(tmp_path) == []


@pytest.mark.parametrize("renames", [1, 2])
def test_a_folder_that_was_set_aside_is_there_after_a_kill(renames: int, tmp_path: Path) -> None:
    path = tmp_path / "scenes"
    path.mkdir()
    (path / "old").write_text("old")
    replace, done = Path.replace, []

    def replaced(self: Path, target: Path) -> Path:
        found = replace(self, target)
        done.append(target)
        if len(done) == renames:
            die()
        return found

    def life() -> None:
        Path.replace = replaced  # type: ignore[assignment,method-assign]
        with atomic.replacing_folder(path) as made:
            (made / "new").write_text("new")

    killed(life)
    with pytest.raises(KeyError), atomic.replacing_folder(path):
        raise KeyError
    assert names(path) == ["old" if renames == 1 else "new"]
    assert names(tmp_path) == ["scenes"]


def test_a_lock_is_not_kept_by_a_child(tmp_path: Path) -> None:
    handle = os.open(tmp_path, os.O_RDONLY)
    assert locks.take_lock(handle)
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGSTOP)  # lives on
        os._exit(0)
    os.waitpid(child, os.WUNTRACED)
    with locks.abandoned(tmp_path) as gone:
        assert not gone
    locks.let_go(handle)
    with locks.abandoned(tmp_path) as gone:
        assert gone
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_finding_the_place_for_temporary_files_writes_nothing_into_it(tmp_path: Path) -> None:
    line = (
        "import sys\n"
        "opened = []\n"
        "sys.addaudithook(lambda event, values: opened.append(str(values[0])) if event == 'open' else None)\n"
        "from fnatool.files import atomic\n"
        "with atomic.temporary() as place:\n"
        "    assert place.parent.samefile(sys.argv[1])\n"
        "    others = [name for name in opened if name.startswith(sys.argv[1]) and name != str(place)]\n"
        "assert not others, others\n"
    )
    subprocess.run([sys.executable, "-c", line, str(tmp_path)], check=True, env={**os.environ, "TMPDIR": str(tmp_path)})
