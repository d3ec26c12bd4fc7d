"""Commands on data and learning: data, config, finetune, evaluate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fnatool.cli import options
from fnatool.cli.app import FAILED, SUCCESS, cli, require_search
from fnatool.cli.types import FILE, MODEL, TASK
from fnatool.escaping import shown

if TYPE_CHECKING:
    from fnatool.data.options import DataOptions


@cli.group()
def data() -> None:
    """Data sets to train and evaluate on."""


@data.command("fashion-scenes")
@click.argument("folder", metavar="DIR", type=FILE)
@click.option(
    "--task", type=TASK, required=True,
    help="What is labelled, and so the format: ImageFolder, Pascal VOC masks, COCO boxes, COCO keypoints.",
)  # fmt: skip
@click.option("--size", type=click.IntRange(32, 1024), default=96, show_default=True, help="Pixels a side.")
@click.option(
    "--train", type=click.IntRange(1, 10**6), default=2000, show_default=True, metavar="N", help="Scenes to train on."
)
@click.option(
    "--val",
    type=click.IntRange(1, 10**6),
    default=500,
    show_default=True,
    metavar="N",
    help="Scenes of other garments.",
)
@options.seed("The same seed gives the same bytes.")
@options.force("Replace an older folder of scenes (never any other).")
def fashion_scenes(folder: Path, task: str, size: int, train: int, val: int, seed: int, force: bool) -> None:
    """Write a small real data set to DIR: garments on textured grounds, labelled for a task.

    The garments are 12,000 images of Fashion-MNIST that come with fnatool, scaled, turned, coloured and partly hidden;
    those of the training scenes and those of the others are different ones.
    """
    from fnatool import terminal
    from fnatool.tasks import scenes

    with terminal.progress(f"scenes for {task}", train + val) as advance:
        scenes.write_scenes(
            folder, scenes.SceneOptions(task, size, train, val, seed), force=force, done=lambda: advance(1)
        )
    click.echo(f"{train:,} scenes to train on and {val:,} to validate, {size}×{size} → {shown(str(folder))}")


@data.command("check")
@click.argument("folder", metavar="DIR", type=FILE)
@click.option(
    "--task", type=TASK, help="What the labels are for [default: told by the layout, where it leaves no choice]."
)
@options.reading()
@options.file(
    "--sheet", metavar="OUT.png", help_="Write a contact sheet: the labels drawn on a few pictures of each split."
)
@options.seed("Which pictures are on the sheet.")
@options.as_json()
@options.force("Replace an older sheet.")
def check_data(
    folder: Path, task: str | None, reading: DataOptions, sheet: Path | None, seed: int, as_json: bool, force: bool
) -> int:  # fmt: skip
    """Look at every file of the data set in DIR; exit 1 if anything is wrong with it, 2 if it cannot be looked at.

    Said are the format, pictures and labels of each class and split, every fault with its file, and what --skip-bad
    would leave out. DIR may also be COCO's json or YOLO's data.yaml. What is whole is remembered: later commands do not
    look at it again.
    """
    require_search("data check")
    import fnatool
    from fnatool import terminal
    from fnatool.cli.show.data import show_data

    asked = fnatool.CheckDataOptions(task=task, reading=reading, sheet=sheet, seed=seed, force=force)
    found = fnatool.check_data(folder, options=asked)
    if as_json:
        terminal.document(json.dumps(found.to_json(), indent=1))
    else:
        show_data(found)
    return SUCCESS if found.passed else FAILED


@cli.command()
@click.argument("path", metavar="FILE", type=FILE)
@click.option("--task", type=TASK)
@click.option("--like", is_flag=True, help="In place of a task: to be like another network, without labels.")
@options.file("--data", dest="folder", metavar="DIR", help_="The data set, as seen from here.")
@click.option("--search", "searches", is_flag=True, help="For a search.")
@options.force()
def config(path: Path, task: str | None, like: bool, folder: Path | None, searches: bool, force: bool) -> None:
    """Write a config for finetune, or for search, to FILE: every key at its default, with what it means."""
    from fnatool.search import config as searching
    from fnatool.training import config as training

    if (task is None) != like:
        raise click.UsageError("give either --task, or --like for learning without labels")
    if task is None and not searches:
        if folder is not None:
            raise click.UsageError(
                "--data: where the samples are is said to 'fnatool finetune --like', with --images or --inputs"
            )
        training.write_like_template(path, force=force)
        click.echo(f"a config for learning without labels → {shown(str(path))}")
        return
    task = task or searching.UNLABELLED
    (searching if searches else training).write_template(path, task, data=folder, force=force)
    click.echo(f"a config for {'a search, ' if searches else ''}{task} → {shown(str(path))}")


@cli.command()
@click.argument("model", type=MODEL)
@options.file(
    "--config",
    dest="how",
    metavar="TOML",
    help_="What to learn, and how; 'fnatool config' writes one. Needed unless --like.",
)
@options.settings("Set one key of the config, on top of the file: run.epochs=3, data.size=[96,96]. Repeatable.")
@options.like("Learn to be like SEED, without labels.")
@options.output()
@options.file(
    "--work-dir", dest="folder", metavar="DIR", help_="Where checkpoints and metrics are kept [default: OUT with .run]."
)
@options.restart()
@options.skip_bad("Leave out samples that cannot be used, whatever the config says.")
@options.force("Overwrite an existing file (never the model).")
@options.as_json()
def finetune(
    model: Path,
    how: Path | None,
    settings: tuple[str, ...],
    like: Path | None,
    images: Path | None,
    arrays: Path | None,
    output: Path,
    folder: Path | None,
    restart: bool,
    skip_bad: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Train MODEL, which has a head, on a data set, and write the same graph with what it learnt.

    With --like it needs no head and no labels: it learns to compute what SEED computes, on pictures (--images) or
    arrays (--inputs).

    A run that was interrupted goes on where it was, to the same result, by the same command line. On several devices or
    machines: torchrun --nproc-per-node N -m fnatool finetune …
    """
    require_search("finetune")
    import fnatool
    from fnatool.cli.show.curve import show_curve
    from fnatool.cli.show.documents import show_report
    from fnatool.cli.show.learnt import show_tuned
    from fnatool.cli.show.page import written_page
    from fnatool.training.settings import settings_of

    said = settings_of(settings)
    if like is not None:
        data = options.samples(images, arrays)
        wanted = fnatool.LikeOptions(
            data=data, config=how, settings=said, folder=folder, restart=restart, skip_bad=skip_bad, force=force
        )
        tuned = fnatool.finetune_like(model, like, output, wanted)
    else:
        options.refuse_samples(images, arrays)
        if how is None:
            raise click.UsageError("give --config TOML, or --like SEED to learn without labels")
        asked = fnatool.FinetuneOptions(settings=said, folder=folder, restart=restart, skip_bad=skip_bad, force=force)
        tuned = fnatool.finetune(model, how, output, options=asked)
    if tuned is None:
        return
    run = folder or output.with_suffix(".run")
    if as_json:
        show_report(run)
    else:
        show_curve(run, tuned.metric, falls=like is not None)
        show_tuned(tuned, output)
    written_page(run, model=output)


@cli.command()
@click.argument("model", type=MODEL)
@options.file("--data", dest="folder", metavar="DIR", help_="The data set. Needed unless --like.")
@options.like("Compare with SEED, without labels.")
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="val", show_default=True)
@click.option("--batch", type=click.IntRange(1, 1 << 16), default=32, show_default=True, metavar="N")
@click.option(
    "--workers",
    type=click.IntRange(0, 256),
    default=2,
    show_default=True,
    metavar="N",
    help="Processes that load samples.",
)
@options.provider()
@options.skip_bad("Leave out samples that cannot be used, and say how many.")
@options.reading()
@options.as_json("As JSON.")
def evaluate(
    model: Path,
    folder: Path | None,
    like: Path | None,
    images: Path | None,
    arrays: Path | None,
    split: str,
    batch: int,
    workers: int,
    provider: str,
    skip_bad: bool,
    reading: DataOptions,
    as_json: bool,
) -> None:
    """Say how good MODEL is on a data set, as it runs in ONNX Runtime: top-1, mIoU, mAP, or OKS AP and PCK.

    With --like: how like its outputs are to those of SEED, on pictures (--images) or arrays (--inputs). A distance of 0
    is the same, 1 as far as samples are from each other.
    """
    require_search("evaluate")
    import fnatool
    from fnatool import terminal
    from fnatool.cli.show.learnt import show_compared, show_evaluated

    if like is not None:
        if folder is not None:
            raise click.UsageError("--data is a data set with labels; with --like give --images or --inputs")
        data = options.samples(images, arrays)
        wanted = fnatool.LikenessOptions(data=data, batch=batch, provider=provider, skip_bad=skip_bad)
        compared = fnatool.evaluate_like(model, like, wanted)
        if as_json:
            terminal.document(json.dumps(compared.to_json(), indent=1))
        else:
            show_compared(compared)
        return
    options.refuse_samples(images, arrays)
    if folder is None:
        raise click.UsageError("give --data DIR, or --like SEED to compare without labels")
    asked = fnatool.EvaluateOptions(
        split=split, batch=batch, workers=workers, provider=provider, skip_bad=skip_bad, reading=reading
    )
    found = fnatool.evaluate(model, folder, options=asked)
    if as_json:
        terminal.document(json.dumps(found.to_json(), indent=1))
    else:
        show_evaluated(found)
