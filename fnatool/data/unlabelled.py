"""Data without labels: the samples in a folder, as a network takes them, read when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

from fnatool.data import folders
from fnatool.data.inputs import Sample, SampleInput, Unreadable, Values, stacked
from fnatool.data.split import SHOWN, BadData
from passes.check.finding import Finding
from passes.errors import UserError


class Form(Protocol):
    """What kind of files samples are, and how they are read."""

    @property
    def inputs(self) -> tuple[SampleInput, ...]:
        """Of the network."""

    @property
    def plural(self) -> str:
        """What the samples are called."""

    @property
    def kinds(self) -> str:
        """The suffixes of such files, in words."""

    def takes(self, name: str) -> bool:
        """Whether a file of that name is one."""

    def count(self, path: Path) -> int:
        """How many samples are in a file, as far as that is seen without reading it whole. Raises Unreadable."""

    def opened(self, path: Path) -> Callable[[int], Sample]:
        """What gives the sample of each row of a file. Raises Unreadable, and so may what is returned."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sample lies: its file, relative to the folder, and its number in it."""

    file: str
    row: int = 0

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.file}[{self.row}]" if self.row else self.file


@dataclass(frozen=True)
class Unlabelled:
    """Samples without labels, sorted by where they lie. Of the `found` ones those are left out that `findings` speaks
    of.

    Only what a batch holds is in memory, and of a .npz file the whole.
    """

    root: Path
    form: Form
    places: tuple[Place, ...]
    found: int
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    def __len__(self) -> int:
        return len(self.places)

    @property
    def digest(self) -> str:
        """The same for the same names, rows and sizes of files."""
        found = blake2b(digest_size=16)
        sizes = {file: (self.root / file).stat().st_size for file in dict.fromkeys(place.file for place in self.places)}
        for place in self.places:
            found.update(f"{place.file}\n{place.row}\n{sizes[place.file]}\n".encode("utf-8", "surrogateescape"))
        return found.hexdigest()

    def sample(self, index: int) -> Sample:
        """By input the values of one sample. Raises UserError where its file has changed and cannot be read any
        more.
        """
        return next(self._samples(self.places[index : index + 1]))

    def batches(self, size: int) -> Iterator[dict[str, Values]]:
        """All samples in order, as the network takes them, so many at a time; one, where an input has no axis of
        samples.
        """
        inputs = self.form.inputs
        size = size if all(given.batched for given in inputs) else 1
        held: list[Sample] = []
        for one in self._samples(self.places):
            held.append(one)
            if len(held) == size:
                yield stacked(held, inputs)
                held = []
        if held:
            yield stacked(held, inputs)

    def _samples(self, places: Sequence[Place]) -> Iterator[Sample]:
        for place, found in _read(self, places):
            if isinstance(found, Unreadable):
                raise UserError(
                    f"'{self.root / place.file}' was whole when it was checked, and now {found}; has it been changed?"
                )
            yield found

    def summary(self) -> str:
        """'240 pictures in 'photos' (3 left out)'"""
        lost = len({finding.where for finding in self.findings})
        return f"{len(self.places):,} {self.form.plural} in '{self.root}'" + (f" ({lost:,} left out)" if lost else "")


def _read(data: Unlabelled, places: Sequence[Place]) -> Iterator[tuple[Place, Sample | Unreadable]]:
    """Each of the places with its sample, or with why there is none; a file whose samples follow each other is opened
    once.
    """
    file, opened = "", None
    for place in places:
        try:
            if opened is None or place.file != file:
                file, opened = place.file, None
                opened = data.form.opened(data.root / place.file)
            yield place, opened(place.row)
        except Unreadable as error:
            yield place, error


# --- finding and choosing -----------------------------------------------------------------------


def find(root: Path, form: Form) -> Unlabelled:
    """The samples of this form in a folder and the folders in it, without what is hidden or of tools; what is not of
    the form is noted.

    A file whose head says that it cannot be used is in `findings`. Raises UserError where there is no such folder, or
    nothing in it.
    """
    if not root.is_dir():
        raise UserError(
            f"'{root}' {'is not a folder' if root.exists() else 'does not exist'}; give a folder of {form.plural}"
        )
    files = folders.below([root])[0]
    names = [path.relative_to(root).as_posix() for path in files if form.takes(path.name)]
    notes = folders.left_out(root, (path for path in files if not form.takes(path.name)))
    if not names:
        raise UserError(f"there are no {form.plural} in '{root}' (looked for {form.kinds}, also in the folders in it)")
    places: list[Place] = []
    findings: list[Finding] = []
    for name in names:
        try:
            places += [Place(name, row) for row in range(form.count(root / name))]
        except Unreadable as error:
            findings.append(Finding("error", "sample", name, str(error)))
    return Unlabelled(root, form, tuple(places), len(places) + len(findings), notes, tuple(findings))


def drawn(
    data: Unlabelled,
    count: int | None = None,
    *,
    seed: int = 0,
    skip_bad: bool = False,
    done: Callable[[int], None] = lambda read: None,
) -> Unlabelled:
    """So many of the samples, drawn with the seed, each read once to see that it can be; all where count is None or
    larger.

    A sample is drawn by its name: as long as it is there, others that come or go hardly change which ones are. Without
    skip_bad raises BadData with everything that cannot be used; with it that is left out, and others take its place.
    Raises UserError where nothing is left.
    """
    order = sorted(data.places, key=lambda place: _number(place, f"draw {seed}"))
    wanted = len(order) if count is None else min(count, len(order))
    good: list[Place] = []
    findings = list(data.findings)
    while len(good) < wanted and order:
        part, order = sorted(order[: wanted - len(good)], key=_by_place), order[wanted - len(good) :]
        for place, found in _read(data, part):
            if isinstance(found, Unreadable):
                findings.append(Finding("error", "sample", place.name, str(found)))
            else:
                good.append(place)
            done(1)
        if findings and not skip_bad:
            break
    if findings and not skip_bad:
        raise _bad(data, findings)
    if not good:
        raise UserError(
            f"nothing is left of the {data.found:,} {data.form.plural} in '{data.root}'; {findings[0].where}: "
            f"{findings[0].message}"
        )
    return replace(data, places=tuple(sorted(good, key=_by_place)), findings=tuple(findings))


def parted(data: Unlabelled, share: float, *, use: str = "part") -> tuple[Unlabelled, Unlabelled]:
    """The samples that are used, and those kept back: about this share, at least one of each. Raises UserError where
    there is only one.

    By its name a sample is one or the other, whatever else is in the folder; another `use` parts independently of that.
    """
    if len(data.places) < 2:
        raise UserError(
            f"'{data.root}' has {len(data.places)} of the {data.form.plural} that are needed: one to use and "
            "one to keep back at least"
        )
    order = sorted(data.places, key=lambda place: _number(place, use))
    below = sum(_number(place, use) < share for place in order)
    count = min(max(below, 1), len(order) - 1)
    back, used = (sorted(part, key=_by_place) for part in (order[:count], order[count:]))
    return replace(data, places=tuple(used)), replace(data, places=tuple(back))


def _by_place(place: Place) -> tuple[str, int]:
    return place.file, place.row


def _number(place: Place, use: str) -> float:
    """A number from 0 to 1 for a sample, another one for each use."""
    text = f"{use}\n{place.row}\n{place.file}".encode("utf-8", "surrogateescape")
    return int.from_bytes(blake2b(text, digest_size=7).digest(), "big") / 2.0**56


def _bad(data: Unlabelled, findings: Sequence[Finding]) -> BadData:
    plural = "s" if len(findings) > 1 else ""
    lines = [f"'{data.root}' has {len(findings):,} file{plural} that cannot be used:"]
    lines += [f"  {finding.where}: {finding.message}" for finding in findings[:SHOWN]]
    lines += [f"  and {len(findings) - SHOWN:,} more"] if len(findings) > SHOWN else []
    return BadData([*lines, "mend the data, or go on without what is broken: --skip-bad"], findings)
