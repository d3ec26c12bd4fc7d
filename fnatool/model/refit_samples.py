"""The pictures, or arrays, that layers of a remap are solved anew with."""

from __future__ import annotations

from pathlib import Path

from fnatool import terminal
from fnatool.data.pictures import Pictures
from fnatool.data.unlabelled import Unlabelled, drawn, parted
from fnatool.model import pixels
from fnatool.model.pixels import PixelOptions
from fnatool.model.refit import KEPT, refit, require_torch
from fnatool.model.remapped import RemapOptions, Remapped
from fnatool.model.unlabelled import find_unlabelled, folder_options
from passes.errors import UserError


def refitted_on(made: Remapped, options: RemapOptions) -> Remapped:
    """The remap with its layers solved anew on the folder that the options name."""
    return refit(made, _samples(made, options))


def require_data(folder: Path | str, count: int) -> None:
    """There is a folder with data, enough of it is asked for, and torch is there. Raises UserError."""
    if count < 2:
        raise UserError(f"{count} samples are too few to solve layers with and to keep some back; ask for at least 2")
    folder_options(folder)
    require_torch()


def _samples(made: Remapped, options: RemapOptions) -> tuple[Unlabelled, Unlabelled]:
    """The samples that layers are solved with, and those kept back; said in a line."""
    assert options.refit is not None
    asked = folder_options(options.refit, PixelOptions(options.mean, options.scale, options.channels))
    whole = find_unlabelled(made.seed, made.analysis, asked, sizes=made.plan.sizes)
    count = min(options.refit_samples, len(whole))
    with terminal.progress("looking at the data", count) as advance:
        data = drawn(whole, count, seed=options.seed, skip_bad=options.skip_bad, done=advance)
    used, kept = parted(data, KEPT)
    for line in (f"{data.summary()}: {len(used):,} used, {len(kept):,} kept back", *data.notes):
        terminal.console().print(line, markup=False)
    if isinstance(data.form, Pictures):
        pixels.say(data.form.how.pixels)
    return used, kept
