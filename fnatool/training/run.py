"""Fine-tuning a model, from a file to a file that has learnt: the order of `fnatool finetune`."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from fnatool import terminal
from fnatool.files import model as files
from fnatool.files.atomic import recover, require_writable
from fnatool.files.runfolder import TUNING, hold_folder
from fnatool.model.source import Source, open_model
from fnatool.tasks.table import TASKS
from fnatool.training.config import Config, parse_config, read_config
from fnatool.training.finetune import RunPlaces, finished, is_unevaluated, tune
from fnatool.training.machine import arranged, require_compiler, say
from fnatool.training.processes import joined
from fnatool.training.said import Tuned
from fnatool.training.sections import merged
from fnatool.training.settings import Settings
from passes.batch.freeing import freed


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions:
    """Where the run is kept (beside the result, unless said), and whether an older run there is removed and begun anew.

    `settings` are keys of the config, by sections, on top of what it says; `skip_bad` leaves out samples that cannot be
    used, whatever the config says; `force` lets the result replace another file (never the model).
    """

    settings: Settings = field(default_factory=dict)
    folder: Path | None = None
    restart: bool = False
    skip_bad: bool = False
    force: bool = False


def finetune(
    model: Source, config: Path | str | Config, out: Path | str, *, options: FinetuneOptions | None = None
) -> Tuned | None:
    """The model, which has a head, at `out` with what it learnt; a run that was interrupted goes on from where it was.

    model: a path, the bundled seed's name, or a model in memory; config: a file, or one in memory. Under torchrun all
    processes work together; the first one writes, and the others get None. Raises UserError, before anything is
    trained, for a config, a model or data that do not fit; later where the loss is not finite or memory is out. The
    last checkpoint is never lost.
    """
    options, out = options or FinetuneOptions(), Path(out)
    read, _ = open_model(model)
    read = replace(read, graph=freed(read.graph))
    if isinstance(config, Config):
        how = parse_config(merged(config.model_dump(mode="json"), options.settings)) if options.settings else config
    else:
        how = read_config(Path(config), options.settings)
    if options.skip_bad:
        how = how.model_copy(update={"data": how.data.model_copy(update={"skip_bad": True})})
    folder = options.folder or out.with_suffix(".run")
    recover(out, files.data_path(out))
    places = RunPlaces(out, folder, options.force, options.restart)
    done = None if options.force or options.restart else finished(read, how, places, TASKS[how.task].metric)
    if done is None:
        again = options.force or is_unevaluated(read, how, places)
        require_writable(out, force=again, forbid=(read.path, *read.data))
    with (
        arranged(how.run),
        joined(how.run.device) as world,
        hold_folder(folder, TUNING) if world.first else nullcontext(),
    ):
        if done is not None:
            if world.first:
                terminal.console().print(
                    f"'{out}' is what this run came to: nothing is left to do; --restart trains anew"
                )
            return done if world.first else None
        say(world, how.run)
        require_compiler(world, how.run)
        return tune(read, how, places, world)
