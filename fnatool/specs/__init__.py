"""The specs that come with the package: the networks FNA found for three tasks, for a MobileNetV2 seed.

Kernels and expansions are those of the released configurations (JaminFong/FNA at 32298e0: fna_seg/…/config.py,
fna_det/configs/ fna_retinanet_fpn_retrain.py, fna_ssdlite_retrain.py); an expansion of 6 is written as 6 × the channels
that enter the block. Layers that were skipped are left out, so layer i comes from the seed's layer min(i, last), as in
the paper.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from passes.errors import UserError

FOLDER = Path(__file__).parent
NAMES = ("fna-seg", "fna-retinanet", "fna-ssdlite")


def bundled(name: str) -> Path | None:
    """The file of the bundled spec of that name (without `.json`), or None where there is none."""
    return FOLDER / f"{name}.json" if name in NAMES else None


def find(spec: Path | str) -> Path:
    """The path of a spec, or that of the bundled one of this name where no file has it."""
    path = Path(spec)
    return path if path.exists() else bundled(str(spec)) or path


@contextmanager
def fitting(spec: Path) -> Iterator[None]:
    """Within it, a mistake made with a bundled spec says what the spec is for."""
    try:
        yield
    except UserError as error:
        if spec.parent == FOLDER:
            raise UserError(
                f"{error}; the bundled spec '{spec.stem}' is for MobileNetV2, with its seven stages"
            ) from error
        raise
