"""Whether a batch fits into memory, from the shapes of the network alone: nothing of it has run yet."""

from __future__ import annotations

import torch

from fnatool.nn.memory import GIB, free_memory, held, largest
from fnatool.nn.reading import Reading
from passes.errors import UserError


def require_room(
    reading: Reading, batch: int, device: torch.device, *, key: str, learns: bool = True, halved: bool = False
) -> None:
    """What so many images take at the least is free on the device. Raises UserError otherwise, naming the key of the
    config to lower.

    learns: their gradients are asked for; halved: values are of two bytes. What is taken beyond the least is not
    foreseen.
    """
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
    each = (held if learns else largest)(reading.view, reading.shapes, reading.facts.data) / reading.facts.batch
    least = each * batch / (2 if halved else 1)
    if free and least > free:
        does = "learning from" if learns else "running"
        raise UserError(
            f"{does} {batch:,} images at a time takes {least / GIB:,.1f} GiB of memory at the least "
            f"({each / 2**20:,.1f} MiB each), and "
            f"{free / GIB:,.1f} GiB are free; lower '{key}' or the size of the images"
        )
