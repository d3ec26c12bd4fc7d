"""What a provider of ONNX Runtime stands on, and which of it is missing."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest
from tiny import net, save

from fnatool.runtime import libraries, session
from fnatool.runtime.session import Runner, make_session
from passes.errors import UserError

FOLDER = Path(onnxruntime.__file__).parent / "capi"
SHARED = FOLDER / "libonnxruntime_providers_shared.so"  # a small library that is in every build for Linux
LINUX = pytest.mark.skipif(sys.platform != "linux" or not SHARED.exists(), reason="ELF files, and the build for GPUs")


@LINUX
def test_the_libraries_that_a_file_needs_are_read_from_it() -> None:
    assert "libc.so.6" in libraries.needed(SHARED)
    provider = FOLDER / libraries.OF_PROVIDER["cuda"]
    if provider.exists() and shutil.which("readelf"):
        said = subprocess.run(["readelf", "-d", str(provider)], capture_output=True, text=True, check=True).stdout
        assert libraries.needed(provider) == re.findall(r"Shared library: \[(.+?)\]", said)


def test_another_file_needs_none(tmp_path: Path) -> None:
    (tmp_path / "text.so").write_text("no library")
    assert libraries.needed(tmp_path / "text.so") == []


@LINUX
def test_what_cannot_be_loaded_is_missing(tmp_path: Path) -> None:
    assert libraries.missing(SHARED) == []
    other = tmp_path / "other.so"
    other.write_bytes(SHARED.read_bytes().replace(b"libc.so.6\0", b"libQ.so.6\0"))
    assert libraries.missing(other) == ["libQ.so.6"]


@pytest.mark.parametrize(
    ("lacking", "said"),
    [
        (
            ["libcublas.so.13", "libcurand.so.10"],
            "it does not find libcublas.so.13, libcurand.so.10: install 'fnatool[cuda]'",
        ),
        (["libcuda.so.1"], "it does not find libcuda.so.1, which comes with the driver of an NVIDIA GPU"),
        (["libnvinfer.so.10"], "it does not find libnvinfer.so.10: install TensorRT"),
        (
            ["libcudnn.so.9", "libcuda.so.1"],
            "libcudnn.so.9: install 'fnatool[cuda]'; it does not find libcuda.so.1, which comes",
        ),
        ([], "all libraries are there: 'nvidia-smi' says whether there is a GPU"),
    ],
)
@LINUX
def test_it_is_said_what_is_missing_and_where_it_comes_from(
    lacking: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libraries, "missing", lambda library: lacking)
    assert said in libraries.why_absent("cuda")


def test_a_build_without_the_provider_is_told_from_one_that_lacks_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(libraries.OF_PROVIDER, "cuda", "libnone.so")
    assert "it has been built without cuda; install 'fnatool[cuda]'" in libraries.why_absent("cuda")


def test_what_pip_has_installed_is_loaded_before_the_first_session_and_nothing_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    order = []

    def preload() -> None:
        order.append("libraries")
        print("Failed to load libcurand.so.10")  # noqa: T201 - as ONNX Runtime does

    made = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "preload_dlls", preload, raising=False)
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda *given, **more: order.append("session") or made(*given, **more)
    )
    monkeypatch.setitem(session.PROVIDERS, "cuda", "CPUExecutionProvider")  # as if it were there
    libraries.preload.cache_clear()
    path = str(save(net(), tmp_path / "net.onnx"))
    make_session(path, "cpu")
    make_session(path, "cuda")
    make_session(path, "cuda")
    libraries.preload.cache_clear()
    assert order == ["session", "libraries", "session", "session"]
    assert capfd.readouterr() == ("", "")


def test_nodes_that_are_left_to_the_processor_are_counted_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info"):
        pytest.skip("a version that does not say")
    path = save(net(), tmp_path / "net.onnx")
    assert Runner(path).left is None
    monkeypatch.setitem(session.PROVIDERS, "cuda", "CPUExecutionProvider")
    left = Runner(path, "cuda").left
    assert left is not None
    assert re.match(r"(\d+) of \1 nodes run on the CPU, where the provider has nothing for them: ", left)
    assert "(GlobalAveragePool)" in left


def test_a_provider_that_does_not_load_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers() and Path("/dev/nvidia0").exists():
        pytest.skip("a GPU is here")
    monkeypatch.setattr(libraries, "why_absent", lambda provider: f"no {provider}, because")
    with pytest.raises(UserError, match="fell back to CPUExecutionProvider: no cuda, because"):
        make_session(str(save(net(), tmp_path / "net.onnx")), "cuda")
