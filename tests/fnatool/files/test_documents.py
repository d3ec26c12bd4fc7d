"""JSON that people write: what is read, and what is refused in one line before it takes time or memory."""

from __future__ import annotations

import json
import os
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fnatool.files import documents
from fnatool.model.analysed import read_spec
from passes.errors import UserError

QUICK = 4.0  # seconds of this process; most of them parse the JSON


def refused(path: Path, read: Callable[[Path], object] = documents.read) -> str:
    """Why the document is not read: one short line, said quickly."""
    start = time.process_time()
    with pytest.raises(UserError) as caught:
        read(path)
    assert time.process_time() - start < QUICK
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


def test_a_document_is_what_json_says(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, "é", null], "b": {"a": 2}}', encoding="utf-8")
    assert documents.read(path) == {"a": [1, "é", None], "b": {"a": 2}}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not JSON: Expecting value"),
        (b'{"a": 1, "a": 2}', "the key 'a' stands twice"),
        (b'{"b": [{"a": 1, "a": 1}]}', "the key 'a' stands twice"),
        (b'{"' + b"k" * 10**6 + b'": 1, "' + b"k" * 10**6 + b'": 1}', "stands twice"),
        (b"\xff\xfe{}", "invalid start byte at byte 0; it must be UTF-8 text"),
        (b"[" * 10**6, "is not JSON: "),
        (b'{"a":' * 10**6, "is not JSON: "),
        (b"9" * 10**6, "is not JSON: "),
        (b" " * (documents.LARGEST + 1), "is larger than 16 MiB"),
    ],
    ids=["empty", "twice", "twice within", "twice, long", "binary", "lists", "objects", "digits", "large"],
)
def test_what_is_no_document_is_refused_in_one_line(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(data)
    assert message in refused(tmp_path / "a.json")


def test_a_device_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (Path("/dev/zero"), Path("/dev/null"), tmp_path):
        assert "is not a file that can be read" in refused(path)


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    text = json.dumps({"a": "x" * 300_000})  # more than a pipe holds at once
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=(text,))
    # so that the writer has begun before the reader looks
    handle = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    writer.start()
    while writer.ident is None or not _waiting(handle):
        time.sleep(0.01)
    found = documents.read(tmp_path / "pipe")
    writer.join()
    os.close(handle)
    assert found == {"a": "x" * 300_000}


def _waiting(handle: int) -> bool:
    """There is something in the pipe."""
    return bool(select.select([handle], [], [], 0)[0])


def test_a_pipe_that_never_ends_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "PATIENCE", 0.2)
    os.mkfifo(tmp_path / "pipe")
    handle = os.open(tmp_path / "pipe", os.O_RDWR)  # a writer that stays
    assert "is a pipe that has not ended within 0.2 seconds" in refused(tmp_path / "pipe")
    os.close(handle)


# --- specs that nobody wrote --------------------------------------------------------------------


def spec(tmp_path: Path, document: object) -> Path:
    """The file of a spec."""
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({f"k{k}": 1 for k in range(1_000_000)}, "the spec has 1000000 knobs, at most 100000"),
        ({f"*k{k}": 1 for k in range(2000)}, "the spec has 2000 patterns, at most 1000"),
        ({"k" * 10**6: 1}, "is a key of 1000000 characters"),
        ({"a": "x" + "9" * 10**6}, "is a value of 1000001 characters"),
        ({"a": [1] * 10**6}, "must be an integer or a string"),
    ],
    ids=["a million keys", "patterns", "a long key", "a long value", "a long list"],
)
def test_a_spec_of_much_is_refused_in_one_line(knobs: dict[str, object], message: str, tmp_path: Path) -> None:
    assert message in refused(spec(tmp_path, {"version": 1, "knobs": knobs}), read_spec)


def test_a_document_of_many_keys_names_a_few(tmp_path: Path) -> None:
    assert "and 99997 more" in refused(
        spec(tmp_path, {"version": 1, **{f"k{k}": 1 for k in range(100_000)}}), read_spec
    )


def test_a_spec_of_many_knobs_is_read(tmp_path: Path) -> None:
    knobs: dict[str, object] = {f"stage{k}.width": 8 for k in range(20_000)}
    assert read_spec(spec(tmp_path, {"version": 1, "knobs": knobs})).knobs == knobs
