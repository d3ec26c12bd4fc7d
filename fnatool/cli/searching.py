"""Commands on the shape itself: search, derive, latency-table."""

from __future__ import annotations

from pathlib import Path

import click

from fnatool.cli import options
from fnatool.cli.app import cli, require_search
from fnatool.cli.options import Inputs, KnobValues
from fnatool.cli.types import FILE, MODEL


@cli.command()
@click.argument("model", metavar="[SEED]", required=False, type=MODEL)
@options.file(
    "--config",
    dest="how",
    metavar="TOML",
    help_="Task, data, space, steps; 'fnatool config --search' writes one. Default: search.toml, or a small one "
    "for fashion-scenes.",
)
@options.settings(
    "Set one key of the config, on top of the file: finetune.run.epochs=3; or the values of a knob, on top of "
    "the space: "
    "stage2.*.hidden=x0.5,x1. Repeatable."
)
@click.option(
    "-o", "--output", "folder", type=FILE, default=Path("search.run"), show_default=True, metavar="RUN",
    help="The folder of the run; an earlier one there goes on.",
)  # fmt: skip
@options.file(
    "--images",
    dest="images",
    metavar="DIR",
    help_="Search without a task: the result is to compute what SEED computes, on pictures (or .npy, .npz files) "
    "like these.",
)
@options.budgets("What the result may cost (params= too). Repeatable.")
@click.option(
    "--dry-run", is_flag=True, help="Check everything, show the space and what its members cost; train nothing."
)
@options.restart()
@options.as_json()
def search(
    model: Path | None,
    how: Path | None,
    settings: tuple[str, ...],
    folder: Path,
    images: Path | None,
    budgets: tuple[str, ...],
    dry_run: bool,
    restart: bool,
    as_json: bool,
) -> None:
    """Find the shape of SEED that is best for a task within a budget, and write that network: architecture adaptation,
    as in FNA++.

    By gradient a super network is made by remapping; it warms up; its weights and the preferences for candidates learn
    in turn; of a few architectures within the budget the best in the super network is found. By distance
    ('search.method' in the config) nothing learns and no label is read: what is found keeps the seed's features best.
    It is remapped from the seed and fine-tuned.

    With --images there is no task, no head and no label: any network comes to a budget, and learns to compute what SEED
    computes.

    RUN holds target.onnx, spec.json, report.md, and all that is needed to go on after an interruption, to the same
    result. Several processes: torchrun --nproc-per-node N -m fnatool search …
    """
    require_search("search")
    import fnatool
    from fnatool.cli.show.documents import show_report, show_space
    from fnatool.cli.show.page import written_page
    from fnatool.cli.show.searched import show_found
    from fnatool.search.config import settings_of_search

    asked = fnatool.SearchOptions(
        settings=settings_of_search(settings), images=images, budgets=budgets, restart=restart, dry_run=dry_run
    )
    found = fnatool.search(model, how, folder, options=asked)
    if dry_run and as_json:
        show_space(folder)
    if found is None:
        return
    page = written_page(found.folder)
    if as_json:
        show_report(found.folder)
    else:
        show_found(found, page)


@cli.command()
@click.argument("folder", metavar="RUN", type=FILE)
@options.budgets("What a network may cost with its head. Repeatable.")
@click.option(
    "--pareto", type=click.IntRange(2, 1000), metavar="N", help="N architectures, from the cheapest to the best."
)
@click.option("--argmax", is_flag=True, help="The best choice of every block by itself, as published.")
@click.option(
    "--images", type=click.IntRange(0, 10**9), metavar="N", help="Of the validation data, for the score; 0: no score."
)
@click.option("-o", "--output", "out", type=FILE, metavar="DIR", help="Where they go [default: RUN/derived].")
@options.force("Overwrite existing files.")
@options.as_json()
def derive(
    folder: Path,
    budgets: tuple[str, ...],
    pareto: int | None,
    argmax: bool,
    images: int | None,
    out: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write other architectures that the search in RUN knows of, for other budgets, without training again.

    Each is a spec and an ONNX file, remapped from the seed, with a fresh head, ready for finetune; it never costs more
    than its budget, as 'fnatool profile' counts. For a budget it is chosen as the search chose; --pareto and --images 0
    go by the preferences alone, or by the distances of single changes. The score is that of the super network with
    inherited weights and statistics taken anew, or the distance of the whole network.
    """
    require_search("derive")
    import fnatool
    from fnatool.cli.show.documents import show_derived_list
    from fnatool.cli.show.searched import show_derived

    asked = fnatool.DeriveOptions(budgets=budgets, pareto=pareto, argmax=argmax, images=images, out=out, force=force)
    found = fnatool.derive(folder, options=asked)
    if as_json:
        show_derived_list(folder, out)
    else:
        show_derived(found)


@cli.command("latency-table")
@click.argument("model", metavar="SEED", type=MODEL)
@click.option(
    "--space", required=True, metavar="SPACE",
    help="What may be chosen: fna-detection, fna-segmentation, auto or coarse, or a JSON file.",
)  # fmt: skip
@options.knob_values("Values of a knob, on top of the space: stage2.*.hidden=x0.5,x1. Repeatable.")
@options.output("The JSON file to write (needed unless --pack).", required=False)
@options.file(
    "--pack",
    metavar="DIR",
    help_="Time nothing here: write the pieces to DIR, and a script that times them on another machine.",
)
@options.file("--unpack", metavar="DIR", help_="Make the table of what the script in DIR has timed.")
@options.provider()
@options.threads()
@click.option(
    "--rounds", type=click.IntRange(1, 1000), default=8, show_default=True, metavar="N",
    help="How often everything is timed; the busier the machine, the more.",
)  # fmt: skip
@options.seed("For the members that are drawn.")
@options.inputs()
@options.force()
@options.as_json()
def latency_table(
    model: Path,
    space: str,
    knobs: KnobValues,
    output: Path | None,
    pack: Path | None,
    unpack: Path | None,
    provider: str,
    threads: int,
    rounds: int,
    seed: int,
    inputs: Inputs,
    force: bool,
    as_json: bool,
) -> None:
    """Time every candidate of every block of SEED in ONNX Runtime: a table of latencies that a search reads as it reads
    multiply-adds.

    Each is cut out as a network of its own; t = a + b·Σ is fitted on members timed whole. Every timing is kept beside
    OUT: what was interrupted goes on where it was, by the same command line.

    For a device that is not this machine: --pack DIR, there `python DIR/time_pieces.py`, which needs numpy and
    onnxruntime and takes any provider, and here --unpack DIR.
    """
    import fnatool
    from fnatool.cli.show.documents import show_file, show_json
    from fnatool.cli.show.latency import show_latencies, show_packed
    from fnatool.latency.measure import store_path
    from fnatool.latency.timing import TimingDevice

    asked = fnatool.LatencyOptions(
        place=TimingDevice(provider, threads), rounds=rounds, seed=seed, inputs=inputs, knobs=knobs, force=force
    )
    if pack is not None:
        if output is not None or unpack is not None:
            raise click.UsageError("--pack writes the pieces alone: leave -o and --unpack out")
        pieces = fnatool.pack_latency(model, space, pack, options=asked)
        if as_json:
            show_json({"pieces": pieces, "folder": str(pack)})
        else:
            show_packed(pieces, pack)
        return
    if output is None:
        raise click.UsageError("say where the table goes with -o OUT, or write its pieces with --pack DIR")
    if unpack is not None:
        made, of = fnatool.unpack_latency(model, space, unpack, output, options=asked)
    else:
        made, of = fnatool.latency_table(model, space, output, options=asked)
    if as_json:
        show_file(output)
    else:
        show_latencies(made, of, output, kept=store_path(output) if unpack is None else unpack)
