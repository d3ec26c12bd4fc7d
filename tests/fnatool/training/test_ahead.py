"""Batches on their way to a device, on streams that do what they are asked for only when somebody waits for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import torch

from fnatool.training.ahead import ahead

CUDA = torch.device("cuda", 0)


@dataclass
class Event:
    """So much of a stream's work."""

    stream: Stream
    work: int


@dataclass
class Stream:
    """Work that is done when a later piece of it, or another stream, needs it."""

    name: str
    todo: list[Callable[[], None]] = field(default_factory=list)
    done: int = 0

    def record_event(self) -> Event:
        return Event(self, len(self.todo))

    def wait_event(self, event: Event) -> None:
        while event.stream.done < event.work:
            event.stream.todo[event.stream.done]()
            event.stream.done += 1


@dataclass
class Placed:
    """A number on the device: there once its copy is done; and the streams that its memory is kept for."""

    value: int | None = None
    kept_for: list[str] = field(default_factory=list)

    def record_stream(self, stream: Stream) -> None:
        self.kept_for.append(stream.name)


class Streams:
    """Those of the device, and which one is asked now."""

    def __init__(self) -> None:
        self.main = Stream("main")
        self.now = self.main
        self.all: list[Stream] = []

    def made(self, device: torch.device) -> Stream:
        self.all.append(Stream(f"stream {len(self.all)} of {device}"))
        return self.all[-1]

    @contextmanager
    def within(self, stream: Stream) -> Iterator[None]:
        self.now, before = stream, self.now
        yield
        self.now = before

    def place(self, number: int) -> Placed:
        placed = Placed()

        def copy() -> None:
            placed.value = number

        self.now.todo.append(copy)
        return placed


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Streams:
    made = Streams()
    monkeypatch.setattr(torch.cuda, "Stream", made.made)
    monkeypatch.setattr(torch.cuda, "stream", made.within)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: made.now)
    return made


def placed(streams: Streams, count: int, asked: list[int]) -> Iterator[Placed]:
    def numbers() -> Iterator[int]:
        for number in range(count):
            asked.append(number)
            yield number

    return ahead(numbers(), streams.place, tensors=lambda found: (found,), device=CUDA)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_every_batch_is_there_when_it_is_handed_out_and_in_order(count: int, streams: Streams) -> None:
    assert [found.value for found in placed(streams, count, [])] == list(range(count))


def test_the_next_batch_is_on_its_way_and_not_waited_for(streams: Streams) -> None:
    asked: list[int] = []
    found = placed(streams, 3, asked)
    next(found)
    (beside,) = streams.all
    assert asked == [0, 1]
    assert (len(beside.todo), beside.done) == (2, 1)
    assert not streams.main.todo


def test_memory_is_kept_for_the_stream_that_computes(streams: Streams) -> None:
    assert [found.kept_for for found in placed(streams, 3, [])] == [["main"]] * 3


def test_the_processor_makes_a_batch_when_it_is_asked_for() -> None:
    asked: list[int] = []
    made = ahead(
        iter(range(3)), lambda number: asked.append(number) or number, tensors=lambda _: (), device=torch.device("cpu")
    )
    next(made)
    assert asked == [0]
