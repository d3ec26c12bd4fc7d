"""Configs and spaces that ask for the impossible are refused in one line, before anything is made of them."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from supers import residual

from fnatool.search.config import parse_search, read_search
from fnatool.training.config import read_config
from passes.errors import UserError
from passes.space.space import Space, choices, parse_space


def refused(path: Path) -> str:
    start = time.process_time()
    with pytest.raises(UserError) as caught:
        read_config(path)
    assert time.process_time() - start < 2
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 1500
    return message


DEEP = ".".join("a" * 3000)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (f"{DEEP} = 1", "too deeply"),
        ("a = " + "[" * 5000, "is not TOML"),
        (f"[run]\nsteps = {'9' * 5000}", "thousands of digits"),
        (f"[run]\nsteps = 0x{'f' * 5000}", "thousands of digits"),
        (f"[run]\nsteps = {'9' * 4000}", "'run.steps' is 9999"),
        ("[run]\nsteps = 1000000001", "less than or equal to 1000000000"),
        ("[run]\nseed = 4294967296", "'run.seed'"),
        ("[run]\nbatch = 100000", "'run.batch'"),
        ("[run]\nthreads = 100000", "'run.threads'"),
        ("[data]\nworkers = 100000", "'data.workers'"),
        ("[data]\nsize = [100000, 1]", "'data.size.0'"),
        ("[optimiser]\nlr = inf", "'optimiser.lr'"),
        ("[optimiser]\nlr = nan", "'optimiser.lr'"),
        ('[data]\npath = "a\\u0000b"', "\\u0000"),
        (f'[run]\nkeep = "{"x" * 10**6}"', "xxx…"),
        ("\n".join(f"k{k} = 1" for k in range(20_000)), "and 19992 more"),
        ("[optimiser]\nfresh = [" + '"a", ' * 2000 + "]", "'optimiser.fresh'"),
        ("a = 1979-05-27", "no dates"),
    ],
    ids=range(18),
)
def test_a_config_out_of_bounds_is_refused_in_one_line(text: str, part: str, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(text)
    assert part in refused(tmp_path / "a.toml")


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("search", "finalists", 257),
        ("run", "seed", 2**32),
        ("score", "images", 2 * 10**9),
        ("score", "calibration", 10**9),
        ("head", "levels", 1000),
        ("head", "width", 10**6),
        ("cost", "base", float("inf")),
        ("cost", "scale", float("inf")),
        ("cost", "budget", ["madds=1M"] * 2000),
    ],
)
def test_a_search_out_of_bounds_is_refused(section: str, key: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"'{section}\.{key}' is "):
        parse_search({"task": "detection", section: {key: value}})


def test_a_config_is_read_from_a_pipe_but_from_no_device(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    handle = os.open(tmp_path / "pipe", os.O_RDWR)
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=('task = "pose"\n',))
    writer.start()
    writer.join()
    closer = threading.Timer(0.3, os.close, (handle,))
    closer.start()
    assert read_search(tmp_path / "pipe").task == "pose"
    closer.join()
    for path in (Path("/dev/zero"), tmp_path):
        assert "is not a file that can be read; give the path of a TOML file" in refused(path)


def test_a_space_of_too_many_candidates_is_refused_before_they_are_made() -> None:
    analysis = residual(blocks=1).analysis()
    values = {"kernel": range(3, 32, 2), "kernel2": range(3, 32, 2), "hidden": range(8, 64)}
    wide = {f"stage0.block0.{knob}": tuple(row) for knob, row in values.items()}
    with pytest.raises(UserError, match=r"stage0.block0 has 12,600 candidates, the most is 256"):
        choices(analysis, Space(wide))
    with pytest.raises(UserError, match=r"'stage0\.depth' has 1000 values, the most is 256"):
        parse_space({"version": 1, "knobs": {"stage0.depth": list(range(1, 1001))}})
    with pytest.raises(UserError, match="at most 100000 are supported"):
        parse_space({"version": 1, "knobs": {f"k{k}": 1 for k in range(100_001)}})
