"""Ctrl-C: one message and exit code 130, from the first moment on."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

MODULE = [sys.executable, "-X", "importtime", "-m", "fnatool"]  # which says on stderr what has been imported


def interrupted(command: list[str], after: str) -> tuple[int, str]:
    """Exit code and what was said of a command that is interrupted once the module has been imported."""
    with subprocess.Popen(
        [*MODULE, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.rstrip().endswith(f" {after}"):
                process.send_signal(signal.SIGINT)
                break
        said = process.stderr.read()
    return process.returncode, "".join(
        line for line in said.splitlines(keepends=True) if not line.startswith("import time:")
    )


@pytest.mark.parametrize(
    "after", ["click", "fnatool.cli.networks", "numpy", "onnx", "onnx_graphsurgeon", "passes.errors"]
)
def test_an_interrupt_while_modules_are_imported_is_one_message(after: str) -> None:
    code, said = interrupted(["inspect", "mobilenetv2_bn"], after)
    assert (code, said.strip()) == (130, "fnatool: interrupted")


def test_an_interrupt_while_torch_is_imported_is_one_message() -> None:
    code, said = interrupted(["finetune", "a.onnx", "--config", "a.toml", "-o", "b.onnx"], "torch._C")
    assert (code, said.strip()) == (130, "fnatool: interrupted")


def test_who_wants_it_ignored_gets_it_ignored() -> None:
    ignored = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    code = f"{ignored}; import fnatool.__main__; signal.raise_signal(signal.SIGINT); print(1)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"


def test_an_interrupt_in_a_place_that_no_error_leaves_comes_after_it() -> None:
    code = """
import fnatool.__main__, signal, time

class Gone:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

fnatool.__main__._running = True
try:
    Gone()
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == ("interrupted\n", "")
