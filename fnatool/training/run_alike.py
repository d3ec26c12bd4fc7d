"""Fine-tuning a model to be like another one on samples without labels: the order of `fnatool finetune --like`."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from fnatool import terminal
from fnatool.files import model as files
from fnatool.files.atomic import recover, require_writable
from fnatool.files.runfolder import TUNING, hold_folder
from fnatool.imitation.likeness import METRIC
from fnatool.imitation.teacher import paired
from fnatool.model.source import Source, open_model
from fnatool.model.unlabelled import UnlabelledOptions
from fnatool.training.config import LikeConfig, parse_like_config, read_like_config
from fnatool.training.finetune import RunPlaces, finished, is_unevaluated, perform
from fnatool.training.machine import arranged, require_compiler, say
from fnatool.training.prepare_alike import job_alike
from fnatool.training.processes import joined
from fnatool.training.said import Tuned
from fnatool.training.sections import merged
from fnatool.training.settings import Settings
from fnatool.training.unlabelled import samples_of
from passes.batch.freeing import freed


@dataclass(frozen=True, kw_only=True)
class LikeOptions:
    """The samples, and how: a config, a TOML file of one, or the defaults (None), with `settings` (keys by sections) on
    top.

    `folder` is where the run is kept (beside the result, unless said); `restart` removes an older run there and begins
    anew; `force` lets the result replace another file (never one of the models). `skip_bad` leaves out samples that
    cannot be used, whatever the config says.
    """

    data: UnlabelledOptions
    config: LikeConfig | Path | str | None = None
    settings: Settings = field(default_factory=dict)
    folder: Path | None = None
    restart: bool = False
    skip_bad: bool = False
    force: bool = False


def finetune_like(model: Source, like: Source, out: Path | str, options: LikeOptions) -> Tuned | None:
    """The model at `out` with what it learnt of another one, whose outputs it is to have; a run that was interrupted
    goes on.

    Under torchrun all processes work together; the first one writes, and the others get None. Raises UserError, before
    anything is trained, for data or models that do not fit; later where the loss is not finite or memory is out. The
    last checkpoint is never lost.
    """
    out = Path(out)
    read, _ = open_model(model)
    read = replace(read, graph=freed(read.graph))
    teacher, _ = open_model(like)
    how = config_of(options.config, options.settings)
    if options.skip_bad:
        how = how.model_copy(update={"data": how.data.model_copy(update={"skip_bad": True})})
    places = RunPlaces(out, options.folder or out.with_suffix(".run"), options.force, options.restart)
    recover(out, files.data_path(out))
    done = None if options.force or options.restart else finished(read, how, places, METRIC)
    if done is None:
        require_writable(
            out,
            force=options.force or is_unevaluated(read, how, places),
            forbid=(read.path, *read.data, teacher.path, *teacher.data),
        )
    with (
        arranged(how.run),
        joined(how.run.device) as world,
        hold_folder(places.folder, TUNING) if world.first else nullcontext(),
    ):
        if done is not None:
            if world.first:
                terminal.console().print(
                    f"'{out}' is what this run came to: nothing is left to do; --restart trains anew"
                )
            return done if world.first else None
        say(world, how.run)
        require_compiler(world, how.run)
        world.wait()
        pair = paired(read, teacher, resize=False)
        data = samples_of((read, pair.student), options.data, how.data, seed=how.run.seed, world=world)
        return perform(job_alike(pair, read, how, data, places.folder, world), places, world)


def config_of(given: LikeConfig | Path | str | None, settings: Settings) -> LikeConfig:
    """In memory, or of a file, with the settings on top."""
    if isinstance(given, Path | str):
        return read_like_config(Path(given), settings)
    config = LikeConfig() if given is None else given
    return parse_like_config(merged(config.model_dump(mode="json"), settings)) if settings else config
