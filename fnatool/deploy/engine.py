"""Engines of TensorRT for RTX: built of the deployed file, without a GPU; its library is an extra."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fnatool.runtime import isolate
from passes.errors import RefusedModel, UserError

MODULE, EXTRA = "tensorrt_rtx", "fnatool[tensorrt-rtx]"
SECONDS = 1800.0
Profile = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]  # the least, usual and largest shape of an input


def require_installed() -> None:
    """Raises UserError where the library is not there, with what brings it."""
    if importlib.util.find_spec(MODULE) is None:
        raise UserError(
            f"the target tensorrt-rtx builds an engine, which needs {MODULE}, and that is not installed; pip install '{EXTRA}' "
            "(NVIDIA's own licence)"
        )


def build_engine(model: Path, profiles: Mapping[str, Profile]) -> bytes:
    """The engine of an ONNX file. profiles: for inputs with free axes. Raises RefusedModel where it cannot be parsed or built."""
    try:
        made = isolate.run(_build, model, dict(profiles), seconds=SECONDS, memory=64 * isolate.GIB)
    except isolate.Died as error:
        raise RefusedModel(f"tensorrt-rtx died on this graph: {error}") from error
    if isinstance(made, str):
        raise RefusedModel(f"tensorrt-rtx cannot build this graph: {made}")
    return made


def _build(model: Path, profiles: Mapping[str, Profile]) -> bytes | str:
    """In the child: the engine, or why there is none."""
    trt: Any = importlib.import_module(MODULE)
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(model)):
        return str(parser.get_error(0).desc()) if parser.num_errors else "it cannot be parsed"
    config = builder.create_builder_config()
    if profiles:
        profile = builder.create_optimization_profile()
        for name, (least, usual, most) in profiles.items():
            profile.set_shape(name, least, usual, most)
        config.add_optimization_profile(profile)
    made = builder.build_serialized_network(network, config)
    return "it parses, but no engine can be built of it" if made is None else bytes(made)
