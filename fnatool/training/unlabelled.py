"""The samples without labels that a run learns from and keeps back, the same in all of its processes."""

from __future__ import annotations

from fnatool import terminal
from fnatool.data.unlabelled import Unlabelled, drawn, parted
from fnatool.files import model as files
from fnatool.model.unlabelled import UnlabelledOptions, find_unlabelled
from fnatool.training.config import LikeData
from fnatool.training.processes import World
from passes.network.analysis import Analysis


def samples_of(
    of: tuple[files.Model, Analysis], where: UnlabelledOptions, how: LikeData, *, seed: int, world: World
) -> tuple[Unlabelled, Unlabelled]:
    """The samples to learn from and those kept back; the first process looks at every file and speaks. of: the model,
    and its analysis.
    """
    found = find_unlabelled(*of, where)
    if world.first:
        count = len(found) if how.images is None else min(how.images, len(found))
        with terminal.progress("looking at the data", count) as advance:
            found = drawn(found, how.images, seed=seed, skip_bad=how.skip_bad, done=advance)
        for line in (*found.notes, found.summary()):
            terminal.console().print(line, markup=False)
    shared = world.gather(found)[0]
    assert isinstance(shared, Unlabelled)
    return parted(shared, how.kept)
