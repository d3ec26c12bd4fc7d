"""Commands that say what a model is and write nothing: inspect, profile, bench, diff, check."""

from __future__ import annotations

import json
from pathlib import Path

import click

from fnatool.cli import options
from fnatool.cli.app import FAILED, SUCCESS, cli
from fnatool.cli.options import Inputs, Knobs
from fnatool.cli.types import MODEL, SPEC


@cli.command()
@click.argument("model", type=MODEL)
@click.option("--json", "form", flag_value="json", help="Everything as JSON.")
@click.option("--spec", "form", flag_value="spec", help="The network's own Spec, to edit and give to remap.")
@click.option("--group", metavar="KNOB", help="Every weight axis that moves with this knob.")
@click.option(
    "--taps", is_flag=True, help="The places that a head can tap and that 'fnatool cut' can cut at, by stage."
)
@options.inputs()
def inspect(model: Path, form: str | None, group: str | None, taps: bool, inputs: Inputs) -> None:
    """Show stages, blocks, and every knob: its value, its range, whether growth is exact, and why not."""
    import fnatool
    from fnatool import terminal
    from fnatool.cli.show import analysis as showing
    from fnatool.cli.show.places import show_places

    if sum((group is not None, taps, form == "spec")) > 1:
        raise click.UsageError("--group shows weights, --taps places and --spec knobs; ask for one of them")
    found = fnatool.inspect(model, options=fnatool.InspectOptions(inputs=inputs))
    if group is not None:
        rows = found.group(group)
        if form == "json":
            terminal.document(json.dumps(rows, indent=2))
        else:
            showing.show_group(rows, group)
    elif taps:
        if form == "json":
            terminal.document(json.dumps(found.places(), indent=2))
        else:
            show_places(found.places(), str(model))
    elif form == "json":
        terminal.document(json.dumps(found.to_json(), indent=2))
    elif form == "spec":
        terminal.document(found.spec_text())
    else:
        showing.show_analysis(found.analysis, str(model), found.model.notes)


@cli.command()
@click.argument("model", type=MODEL)
@click.option("--nodes", is_flag=True, help="Every node too.")
@options.as_json()
@click.option(
    "--convention",
    type=click.Choice(["conv", "paper"]),
    default="conv",
    show_default=True,
    help="What multiply-adds are. conv: those of convolutions and matrix products. paper: the biases of "
    "convolutions too, as in FNA.",
)
@options.inputs()
def profile(model: Path, nodes: bool, as_json: bool, convention: str, inputs: Inputs) -> None:
    """Show multiply-adds, parameters and activation memory: in all, of the stem, every stage and the head, and by node.

    A layer between two stages belongs to the later one, what no stage needs to the head; without stages everything is
    head. Activations are the tensors the nodes compute, all of them and those that exist at once.
    """
    import fnatool
    from fnatool import terminal
    from fnatool.cli.show.profile import show_profile

    found = fnatool.profile(model, options=fnatool.ProfileOptions(inputs=inputs, convention=convention))
    if as_json:
        terminal.document(json.dumps(found.to_json(), indent=2))
    else:
        show_profile(found.profile, str(model), convention, nodes=nodes)


@cli.command()
@click.argument("models", metavar="MODEL...", nargs=-1, required=True, type=MODEL)
@options.provider()
@options.threads()
@click.option(
    "--batch",
    type=click.IntRange(1, 1 << 16),
    metavar="N",
    help="Samples at once [default: as many as a model fixes, else 1].",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.01, 1e5),
    default=10.0,
    show_default=True,
    metavar="S",
    help="How long each model is timed.",
)
@options.seed("For the inputs, and the order in every round.")
@options.as_json()
@options.inputs("The shape of an input whose size is free; its name where models have several. Repeatable.")
def bench(
    models: tuple[Path, ...],
    provider: str,
    threads: int,
    batch: int | None,
    seconds: float,
    seed: int,
    as_json: bool,
    inputs: Inputs,
) -> None:
    """Time models side by side in ONNX Runtime: latency, throughput, memory, and how each compares with the first.

    In twenty rounds each model has its turn, alone, in a process of its own, so that what disturbs the machine hits all
    alike; ratios are those of the fastest rounds. Memory is the machine's, not a graphics card's.
    """
    import fnatool
    from fnatool import terminal
    from fnatool.cli.show.benchmark import show_benchmark

    how = fnatool.BenchOptions(
        provider=provider, threads=threads, batch=batch, seconds=seconds, seed=seed, inputs=inputs
    )
    made = fnatool.bench(*models, options=how)
    if as_json:
        terminal.document(json.dumps(made.to_json(), indent=2))
    else:
        show_benchmark(made)


@cli.command()
@click.argument("a", metavar="A", type=MODEL)
@click.argument("b", metavar="B", type=MODEL)
@click.option("--all", "everything", is_flag=True, help="Every difference, not the first few of each kind.")
@options.as_json()
@options.inputs()
def diff(a: Path, b: Path, everything: bool, as_json: bool, inputs: Inputs) -> int:
    """Show in what two models differ, by name: knobs, stages, inputs and outputs, nodes, and the values of tensors.

    A change of values is relative to the spread of the tensor in A. Exit code 0: equal, 1: different, 2: a mistake, or
    a file that cannot be read.
    """
    import fnatool
    from fnatool import terminal
    from fnatool.cli.show.comparison import show_comparison

    found = fnatool.diff(a, b, options=fnatool.DiffOptions(inputs=inputs))
    if as_json:
        terminal.document(json.dumps(found.to_json(), indent=2))
    else:
        show_comparison(found, everything=everything)
    return SUCCESS if found.equal else FAILED


@cli.command()
@click.argument("models", metavar="MODEL...", nargs=-1, required=True, type=MODEL)
@click.option(
    "--against",
    type=MODEL,
    metavar="SEED",
    help="Demand the inputs and outputs of this model: names, types and shapes.",
)
@click.option(
    "--spec", type=SPEC, metavar="SPEC", help="Demand that the model realises this spec, a file, - or a bundled one."
)
@options.knobs("Demand this value of a knob, on top of SPEC or alone. Repeatable.")
@click.option(
    "--multiple",
    type=click.IntRange(2, 1024),
    metavar="N",
    help="Warn of widths that are no multiple of N: a device that works on N channels at a time computes the rest "
    "for nothing.",
)
@click.option("--max-macs", type=click.IntRange(min=1), metavar="N", help="Demand at most N multiply-accumulates.")
@click.option("--max-params", type=click.IntRange(min=1), metavar="N", help="Demand at most N parameters.")
@click.option(
    "--target", type=click.Choice(["onnxruntime", "tensorrt", "tensorrt-rtx"]),
    help="Report what keeps the model from an engine of it; tensorrt-rtx also parses it where that is installed.",
)  # fmt: skip
@options.inputs()
@click.option(
    "--timeout", type=click.FloatRange(1, 1e6), default=120.0, show_default=True, metavar="SECONDS",
    help="Of processor time, for each step of the check.",
)  # fmt: skip
@click.option(
    "--format", "form", type=click.Choice(["text", "json", "github", "sarif"]), default="text", show_default=True,
    help="github: annotations of a workflow run. sarif: SARIF 2.1.0, for code scanning.",
)  # fmt: skip
@options.as_json("The same as --format json.")
def check(
    models: tuple[Path, ...],
    against: Path | None,
    spec: Path | None,
    knobs: Knobs,
    multiple: int | None,
    max_macs: int | None,
    max_params: int | None,
    target: str | None,
    inputs: Inputs,
    timeout: float,
    form: str,
    as_json: bool,
) -> int:
    """Report everything wrong with the models; exit 1 if anything is an error, 2 if a model could not be looked at.

    The static rules, the ONNX checker, strict shape inference and a run in ONNX Runtime, then what the options demand.
    """
    import fnatool
    from fnatool import terminal
    from fnatool.cli.show.reports import show_reports
    from fnatool.model import check_formats
    from passes.errors import UserError

    asked = fnatool.CheckOptions(
        against=against,
        spec=spec,
        knobs=knobs,
        multiple=multiple,
        max_macs=max_macs,
        max_params=max_params,
        target=target,
        inputs=inputs,
        seconds=timeout,
    )
    reports, mistakes = [], []
    for model in models:
        try:
            reports.append(fnatool.check(model, options=asked))
        except UserError as error:
            mistakes.append(error)
    if as_json or form == "json":
        terminal.document(check_formats.to_json(reports))
    elif form == "sarif":
        terminal.document(check_formats.to_sarif(reports, complete=not mistakes))
    elif form == "github":
        click.echo(check_formats.to_github(reports), nl=any(report.findings for report in reports))
    else:
        show_reports(reports)
    if mistakes:
        raise mistakes[0]
    return SUCCESS if all(report.passed for report in reports) else FAILED
