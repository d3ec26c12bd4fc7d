"""torch is here, or the error says how to get it."""

from __future__ import annotations

from passes.errors import UserError


class MissingTorch(UserError, ImportError):
    """torch is not installed; `pip install fnatool` alone does not bring it."""


try:
    import torch  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingTorch("fnatool.nn needs torch, which is not installed: pip install 'fnatool[search]'") from error
