"""Batches on their way to a device: the next one is copied while the device computes on this one.

Only where the device has streams and fetches from the host's memory by itself; the processor makes a batch when it is
asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
U = TypeVar("U")


def is_fetching(device: torch.device) -> bool:
    """The device copies from pinned memory of the host while both go on."""
    return device.type == "cuda"


def ahead(
    batches: Iterable[T], place: Callable[[T], U], *, tensors: Callable[[U], Iterable[Tensor]], device: torch.device
) -> Iterator[U]:
    """What `place` makes of every batch, in order; tensors: what of that lies on the device.

    On a device that fetches, the next batch is placed before this one is handed out, on a stream of its own: the stream
    of whoever asks waits for its own batch alone, and nothing of it is given to others before the work on it is done.
    """
    if not is_fetching(device):
        yield from map(place, batches)
        return
    beside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    waiting: list[tuple[U, torch.cuda.Event]] = []
    for batch in batches:
        with torch.cuda.stream(beside):
            waiting.append((place(batch), beside.record_event()))
        if len(waiting) > 1:
            yield _handed(waiting.pop(0), tensors, device)
    while waiting:
        yield _handed(waiting.pop(0), tensors, device)


def _handed(placed: tuple[U, torch.cuda.Event], tensors: Callable[[U], Iterable[Tensor]], device: torch.device) -> U:
    """A batch that the current stream may work on."""
    found, is_there = placed
    stream = torch.cuda.current_stream(device)
    stream.wait_event(is_there)
    for tensor in tensors(found):
        # otherwise its memory is the other stream's again as soon as the host lets go of it
        tensor.record_stream(stream)
    return found
