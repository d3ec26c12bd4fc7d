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


def is_installed() -> bool:
    """Whether the library is there."""
    return importlib.util.find_spec(MODULE) is not None


def require_installed() -> None:
    """Raises UserError where the library is not there, with what brings it."""
    if not is_installed():
        raise UserError(
            f"the target tensorrt-rtx builds an engine, which needs {MODULE}, and that is not installed; pip "
            f"install '{EXTRA}' "
            "(NVIDIA's own licence)"
        )


def parse(model: Path) -> str:
    """Why the parser does not read an ONNX file; nothing where it does."""
    try:
        return isolate.run(_parse, model, seconds=SECONDS, memory=64 * isolate.GIB)
    except isolate.Died as error:
        return f"it died on this graph: {error}"


def _parse(model: Path) -> str:
    """In the child."""
    trt: Any = importlib.import_module(MODULE)
    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    builder = trt.Builder(logger)
    return _parsed(trt, logger, builder.create_network(0), model)


def _parsed(trt: Any, logger: Any, network: Any, model: Path) -> str:
    """The file is in the network, or why it is not."""
    parser = trt.OnnxParser(network, logger)
    if parser.parse_from_file(str(model)):
        return ""
    return str(parser.get_error(0).desc()) if parser.num_errors else "it cannot be parsed"


def build_engine(model: Path, profiles: Mapping[str, Profile]) -> bytes:
    """The engine of an ONNX file. profiles: for inputs with free axes. Raises RefusedModel where it cannot be parsed or
    built.
    """
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
    said = _parsed(trt, logger, network, model)
    if said:
        return said
    config = builder.create_builder_config()
    if profiles:
        profile = builder.create_optimization_profile()
        for name, (least, usual, most) in profiles.items():
            profile.set_shape(name, least, usual, most)
        config.add_optimization_profile(profile)
    made = builder.build_serialized_network(network, config)
    return "it parses, but no engine can be built of it" if made is None else bytes(made)
