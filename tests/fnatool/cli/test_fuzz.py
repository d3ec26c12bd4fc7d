"""A slice of `make fuzz`: damaged files and wild specs end in a result that passes the check, or in a message; and the
judge is awake.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from benchmarks import fuzz, hostile
from benchmarks.attempt import attempt
from passes.errors import RefusedModel

SEED = 1
FILES = range(24)
SPECS = range(24)
HOSTILE = (
    "a constant of gigabytes by Expand",
    "functions that double forty times",
    "stored stages nested without end",
    "a spec of many patterns",
    "a spec of a pattern that backtracks",
    "a spec of objects without end",
)


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    fuzz.warm_up()


@pytest.mark.parametrize("number", FILES)
def test_a_damaged_file_is_remapped_or_refused(number: int, tmp_path: Path) -> None:
    case = fuzz.file_case(SEED, number, tmp_path)
    assert case.problems == (), case.about


@pytest.mark.parametrize("number", SPECS)
def test_a_wild_spec_is_done_or_refused(number: int, tmp_path: Path) -> None:
    case = fuzz.spec_case(SEED, number, tmp_path)
    assert case.problems == (), case.about


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_made_to_hurt_does_not(name: str, tmp_path: Path) -> None:
    assert fuzz.hostile_case(SEED, list(hostile.CASES).index(name), tmp_path).problems == ()


# --- the judge ----------------------------------------------------------------------------------


def test_a_planted_traceback_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr("fnatool.files.model.load", broken)
    case = fuzz.file_case(SEED, 0, tmp_path)
    assert [problem.split(" model.py")[0] for problem in case.problems[:2]] == [
        f"{command}: traceback: ZeroDivisionError: planted" for command in ("inspect", "remap")
    ]


def test_a_planted_refusal_of_a_sound_spec_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(*_: object, **__: object) -> None:
        raise RefusedModel("planted")

    monkeypatch.setattr("fnatool.model.remap.remap_model", refusing)
    cases = [fuzz.run_case(("specs", number), seed=SEED, root=tmp_path) for number in SPECS[:8]]
    assert "a sound spec is refused: fnatool: planted" in [problem for case in cases for problem in case.problems]


def test_a_command_without_end_is_noticed() -> None:
    assert attempt(["inspect", "mobilenetv2_bn"], seconds=0.05).bad == "hang: killed after 0.05 s"


def test_a_planted_crash_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.attempt.run", lambda _: os.kill(os.getpid(), signal.SIGSEGV))
    assert attempt(["inspect", "mobilenetv2_bn"]).bad == "crash: SIGSEGV"
