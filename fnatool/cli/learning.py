"""Commands that need torch or data: data, config, finetune, evaluate, search, derive, latency-table."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import click

from fnatool.cli.app import Mistake, cli
from fnatool.cli.types import FILE, INPUT_SHAPE, MODEL, TASK
from fnatool.escaping import shown


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
@click.option("--train", type=click.IntRange(1, 10**6), default=2000, show_default=True, metavar="N", help="Scenes to train on.")
@click.option("--val", type=click.IntRange(1, 10**6), default=500, show_default=True, metavar="N", help="Scenes of other garments.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="The same seed gives the same bytes.")
@click.option("--force", is_flag=True, help="Replace an older folder of scenes (never any other).")
def fashion_scenes(folder: Path, task: str, size: int, train: int, val: int, seed: int, force: bool) -> None:
    """Write a small real data set to DIR: garments on textured grounds, labelled for a task.

    The garments are 12,000 images of Fashion-MNIST that come with fnatool, scaled, turned, coloured and partly hidden; those of the
    training scenes and those of the others are different ones.
    """
    from fnatool import terminal
    from fnatool.tasks import scenes

    with terminal.progress(f"scenes for {task}", train + val) as advance:
        scenes.write_scenes(folder, scenes.SceneOptions(task, size, train, val, seed), force=force, done=lambda: advance(1))
    click.echo(f"{train:,} scenes to train on and {val:,} to validate, {size}×{size} → {shown(str(folder))}")


@cli.command()
@click.argument("path", metavar="FILE", type=FILE)
@click.option("--task", type=TASK, required=True)
@click.option("--data", "folder", type=FILE, metavar="DIR", help="The data set, as seen from here.")
@click.option("--search", "searches", is_flag=True, help="For a search.")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def config(path: Path, task: str, folder: Path | None, searches: bool, force: bool) -> None:
    """Write a config for finetune, or for search, to FILE: every key at its default, with what it means."""
    from fnatool.search import config as searching
    from fnatool.training import config as training

    (searching if searches else training).write_template(path, task, data=folder, force=force)
    click.echo(f"a config for {'a search, ' if searches else ''}{task} → {shown(str(path))}")


@cli.command()
@click.argument("model", type=MODEL)
@click.option("--config", "how", type=FILE, required=True, metavar="TOML", help="What to learn, and how; 'fnatool config' writes one.")
@click.option("-o", "--output", type=FILE, required=True, metavar="OUT", help="The ONNX file to write.")
@click.option("--work-dir", "folder", type=FILE, metavar="DIR", help="Where checkpoints and metrics are kept [default: OUT with .run].")
@click.option("--restart", is_flag=True, help="Begin anew, where the folder holds an earlier run.")
@click.option("--skip-bad", is_flag=True, help="Leave out samples that cannot be used, whatever the config says.")
@click.option("--force", is_flag=True, help="Overwrite an existing file (never the model).")
def finetune(model: Path, how: Path, output: Path, folder: Path | None, restart: bool, skip_bad: bool, force: bool) -> None:
    """Train MODEL, which has a head, on a data set, and write the same graph with what it learnt.

    A run that was interrupted goes on where it was, to the same result, by the same command line. On several devices or machines:
    torchrun --nproc-per-node N -m fnatool finetune …
    """
    _require_search("finetune")
    from fnatool.training import finetune as finetuning

    tuned = finetuning.finetune_file(model, how, output, run=folder, restart=restart, skip_bad=skip_bad, force=force)
    if tuned is not None:
        finetuning.show(tuned, output)


@cli.command()
@click.argument("model", type=MODEL)
@click.option("--data", "folder", type=FILE, required=True, metavar="DIR", help="The data set.")
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="val", show_default=True)
@click.option("--batch", type=click.IntRange(1, 1 << 16), default=32, show_default=True, metavar="N")
@click.option("--workers", type=click.IntRange(0, 256), default=2, show_default=True, metavar="N", help="Processes that load samples.")
@click.option("--provider", type=click.Choice(["cpu", "cuda", "tensorrt"]), default="cpu", show_default=True, help="Of ONNX Runtime.")
@click.option("--skip-bad", is_flag=True, help="Leave out samples that cannot be used, and say how many.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def evaluate(
    model: Path, folder: Path, split: str, batch: int, workers: int, provider: str, skip_bad: bool, as_json: bool
) -> None:  # fmt: skip
    """Say how good MODEL is on a data set, as it runs in ONNX Runtime: top-1, mIoU, mAP, or OKS AP and PCK."""
    _require_search("evaluate")
    from fnatool.training import evaluate as evaluating

    figures = evaluating.evaluate_on(model, folder, split=split, batch=batch, workers=workers, provider=provider, skip_bad=skip_bad)
    evaluating.show(figures, as_json=as_json)


@cli.command()
@click.argument("model", metavar="[SEED]", required=False, type=MODEL)
@click.option(
    "--config", "how", type=FILE, metavar="TOML",
    help="Task, data, space, steps; 'fnatool config --search' writes one. Default: search.toml, or a small one for fashion-scenes.",
)  # fmt: skip
@click.option(
    "-o", "--output", "folder", type=FILE, default=Path("search.run"), show_default=True, metavar="RUN",
    help="The folder of the run; an earlier one there goes on.",
)  # fmt: skip
@click.option("--budget", "budgets", multiple=True, metavar="madds=200M", help="What the result may cost (params= too). Repeatable.")
@click.option("--dry-run", is_flag=True, help="Check everything, show the space and what its members cost; train nothing.")
@click.option("--restart", is_flag=True, help="Begin anew, where the folder holds an earlier run.")
def search(model: Path | None, how: Path | None, folder: Path, budgets: tuple[str, ...], dry_run: bool, restart: bool) -> None:
    """Find the shape of SEED that is best for a task within a budget, and write that network: architecture adaptation, as in FNA++.

    Phases: a super network is made by remapping; it warms up; its weights and the preferences for candidates learn in turn; of a few
    architectures within the budget the best in the super network is found, remapped from the seed and fine-tuned. RUN holds
    target.onnx, spec.json, report.md, and all that is needed to go on after an interruption, to the same result. Several processes:
    torchrun --nproc-per-node N -m fnatool search …
    """
    _require_search("search")
    from fnatool.search import run as searching

    found = searching.search_file(how, folder, searching.SearchOptions(model, budgets, restart, dry_run))
    if found is not None:
        searching.show(found)


@cli.command()
@click.argument("folder", metavar="RUN", type=FILE)
@click.option("--budget", "budgets", multiple=True, metavar="madds=200M", help="What a network may cost with its head. Repeatable.")
@click.option("--pareto", type=click.IntRange(2, 1000), metavar="N", help="N architectures, from the cheapest to the best.")
@click.option("--argmax", is_flag=True, help="The best choice of every block by itself, as published.")
@click.option("--images", type=click.IntRange(0, 10**9), metavar="N", help="Of the validation data, for the score; 0: no score.")
@click.option("-o", "--output", "out", type=FILE, metavar="DIR", help="Where they go [default: RUN/derived].")
@click.option("--force", is_flag=True, help="Overwrite existing files.")
def derive(
    folder: Path, budgets: tuple[str, ...], pareto: int | None, argmax: bool, images: int | None, out: Path | None, force: bool
) -> None:  # fmt: skip
    """Write other architectures that the search in RUN has learnt, for other budgets, without training again.

    Each is a spec and an ONNX file, remapped from the seed, with a fresh head, ready for finetune; it never costs more than its budget,
    as 'fnatool profile' counts. For a budget it is chosen as the search chose; --pareto and --images 0 go by the preferences alone. The
    score is that of the super network with inherited weights and statistics taken anew.
    """
    _require_search("derive")
    from fnatool.search import derive as deriving

    deriving.show(deriving.derive_run(folder, deriving.DeriveOptions(budgets, pareto, argmax, images, out, force)))


@cli.command("latency-table")
@click.argument("model", metavar="SEED", type=MODEL)
@click.option(
    "--space", required=True, metavar="SPACE",
    help="What may be chosen: fna-detection, fna-segmentation or auto, or a JSON file.",
)  # fmt: skip
@click.option("-o", "--output", type=FILE, required=True, metavar="OUT", help="The JSON file to write.")
@click.option("--provider", type=click.Choice(["cpu", "cuda", "tensorrt"]), default="cpu", show_default=True, help="Of ONNX Runtime.")
@click.option("--threads", type=click.IntRange(1, 1024), default=1, show_default=True, metavar="N", help="Of ONNX Runtime.")
@click.option(
    "--rounds", type=click.IntRange(1, 1000), default=8, show_default=True, metavar="N",
    help="How often everything is timed; the busier the machine, the more.",
)  # fmt: skip
@click.option("--seed", "rng", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="For the members that are drawn.")
@click.option(
    "--input", "inputs", type=INPUT_SHAPE, multiple=True, metavar="NAME=1x3x224x224", help="The shape of a dynamic input. Repeatable."
)
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def latency_table(
    model: Path,
    space: str,
    output: Path,
    provider: str,
    threads: int,
    rounds: int,
    rng: int,
    inputs: tuple[tuple[str, tuple[int, ...]], ...],
    force: bool,
) -> None:
    """Time every candidate of every block of SEED in ONNX Runtime: a table of latencies that a search reads as it reads multiply-adds.

    Each is cut out as a network of its own; t = a + b·Σ is fitted on members timed whole. Every timing is kept beside OUT: what was
    interrupted goes on where it was, by the same command line.
    """
    from fnatool.latency import measure as making
    from fnatool.latency import timing

    options = making.LatencyOptions(timing.TimingDevice(provider, threads), rounds, rng, dict(inputs) or None)
    made, of = making.make_table(model, space, output, options, force=force)
    making.show(made, of, output)


def _require_search(command: str) -> None:
    needed = ("torch", "torchvision", "PIL", "pycocotools", "tensorboard")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise Mistake(f"{command} needs what is not installed: {', '.join(missing)}; pip install 'fnatool[search]'")
