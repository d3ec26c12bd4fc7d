"""The shared libraries that a provider of ONNX Runtime stands on: loaded from where pip puts them, and those that are
not to be found.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import struct
from pathlib import Path
from typing import BinaryIO

import onnxruntime as ort

OF_PROVIDER = {"cuda": "libonnxruntime_providers_cuda.so", "tensorrt": "libonnxruntime_providers_tensorrt.so"}
DRIVER = "libcuda.so."
QUIET = 4  # the severity that ONNX Runtime says nothing of


@functools.cache
def preload() -> None:
    """What pip has installed for CUDA is loaded, so that ONNX Runtime finds it, and what ONNX Runtime says of failures
    is not shown.
    """
    ort.set_default_logger_severity(QUIET)
    if hasattr(ort, "preload_dlls"):  # from 1.21 on
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
            ort.preload_dlls()


def why_absent(provider: str) -> str:
    """Why ONNX Runtime does not have the provider (a key of OF_PROVIDER), and what to do, in words."""
    library = Path(ort.__file__).parent / "capi" / OF_PROVIDER[provider]
    if not library.is_file():
        return (
            f"it has been built without {provider}; install 'fnatool[cuda]', and no package onnxruntime beside "
            "onnxruntime-gpu"
        )
    lacking = missing(library)
    driver = [name for name in lacking if name.startswith(DRIVER)]
    tensorrt = [name for name in lacking if name.startswith("libnv") and ("infer" in name or "onnxparser" in name)]
    others = [name for name in lacking if name not in (*driver, *tensorrt)]
    found = [
        *([f"it does not find {', '.join(others)}: install 'fnatool[cuda]'"] if others else []),
        *([f"it does not find {', '.join(tensorrt)}: install TensorRT"] if tensorrt else []),
        *([f"it does not find {', '.join(driver)}, which comes with the driver of an NVIDIA GPU"] if driver else []),
    ]
    return (
        "; ".join(found)
        or "all libraries are there: 'nvidia-smi' says whether there is a GPU, and whether its driver is new enough"
    )


def missing(library: Path) -> list[str]:
    """The libraries that this one needs and that cannot be loaded, in its own order."""
    return [name for name in needed(library) if not _is_loadable(name)]


def _is_loadable(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


LOAD, DYNAMIC = 1, 2  # kinds of segments
END, NEEDED, STRINGS = 0, 1, 5  # tags of the dynamic section


def needed(library: Path) -> list[str]:
    """The libraries that a 64-bit ELF file names as needed; none of another file. (System V ABI, chapter 5)"""
    with library.open("rb") as file:
        head = file.read(64)
        if head[:6] != b"\x7fELF\x02\x01":
            return []
        (at,) = struct.unpack_from("<Q", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
        file.seek(at)
        rows = file.read(size * count)
        # kind, flags, offset in the file, address, physical address, bytes in the file …
        segments = [struct.unpack_from("<IIQQQQ", rows, size * k) for k in range(count)]
        loads = [(address, offset, length) for kind, _, offset, address, _, length in segments if kind == LOAD]
        dynamic = [(offset, length) for kind, _, offset, _, _, length in segments if kind == DYNAMIC]
        if not dynamic:
            return []
        file.seek(dynamic[0][0])
        entries = list(struct.iter_unpack("<QQ", file.read(dynamic[0][1] // 16 * 16)))
        entries = entries[: [tag for tag, _ in entries].index(END)]
        strings = dict(entries)[STRINGS]
        start = next(
            strings - address + offset for address, offset, length in loads if address <= strings < address + length
        )
        return [_word(file, start + value) for tag, value in entries if tag == NEEDED]


def _word(file: BinaryIO, place: int) -> str:
    file.seek(place)
    return file.read(256).partition(b"\0")[0].decode("ascii", "replace")
