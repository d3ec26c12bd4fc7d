"""The command line. Every command imports what it needs when it runs, so that --help answers at once."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import click

from fnatool.cli.app import FAILED, SUCCESS, Mistake, cli
from fnatool.cli.types import FILE, INPUT_SHAPE, MODEL, NUMBERS, SHAPE, SPEC, TASK, Names, NumbersType
from fnatool.escaping import document


@cli.command()
@click.argument("model", type=MODEL)
@click.option("--json", "form", flag_value="json", help="Everything as JSON.")
@click.option("--spec", "form", flag_value="spec", help="The network's own Spec, to edit and give to remap.")
@click.option("--group", metavar="KNOB", help="Every weight axis that moves with this knob.")
@click.option(
    "--input", "inputs", type=INPUT_SHAPE, multiple=True, metavar="NAME=1x3x224x224", help="The shape of a dynamic input. Repeatable."
)
def inspect(model: Path, form: str | None, group: str | None, inputs: tuple[tuple[str, tuple[int, ...]], ...]) -> None:
    """Show stages, blocks, and every knob: its value, its range, whether growth is exact, and why not."""
    import json

    from fnatool.files import model as files
    from fnatool.model import inspect as inspecting
    from fnatool.model.analysed import analyse_model

    if group is not None and form == "spec":
        raise click.UsageError("--group shows weights and --spec knobs; ask for one of them")
    read = files.read(model, dict(inputs))
    analysis = analyse_model(read, dict(inputs) or None)
    if group is not None:
        rows = inspecting.group_rows(analysis, group)
        if form == "json":
            click.echo(document(json.dumps(rows, indent=2)))
        else:
            inspecting.show_group(rows, group)
    elif form == "json":
        click.echo(document(json.dumps(inspecting.as_json(analysis), indent=2)))
    elif form == "spec":
        click.echo(document(inspecting.spec_text(analysis, read.sha256)))
    else:
        inspecting.show(analysis, str(model), read.notes)


@cli.command()
@click.argument("model", type=MODEL)
@click.option("--nodes", is_flag=True, help="Every node too.")
@click.option("--json", "as_json", is_flag=True, help="Everything as JSON.")
@click.option(
    "--convention", type=click.Choice(["conv", "paper"]), default="conv", show_default=True,
    help="What multiply-adds are. conv: those of convolutions and matrix products. paper: the biases of convolutions too, as in FNA.",
)  # fmt: skip
@click.option(
    "--input", "inputs", type=INPUT_SHAPE, multiple=True, metavar="NAME=1x3x224x224", help="The shape of a dynamic input. Repeatable."
)
def profile(model: Path, nodes: bool, as_json: bool, convention: str, inputs: tuple[tuple[str, tuple[int, ...]], ...]) -> None:
    """Show multiply-adds, parameters and activation memory: in all, of the stem, every stage and the head, and by node.

    A layer between two stages belongs to the later one, what no stage needs to the head; without stages everything is head. Activations
    are the tensors the nodes compute, all of them and those that exist at once.
    """
    import json

    from fnatool.files import model as files
    from fnatool.model import profile as profiling

    found = profiling.profile_model(files.read(model, dict(inputs)), dict(inputs) or None, convention=convention)
    if as_json:
        click.echo(document(json.dumps(profiling.as_json(found, str(model), convention), indent=2)))
    else:
        profiling.show(found, str(model), convention, nodes=nodes)


@cli.command()
@click.argument("model", metavar="SEED", type=MODEL)
@click.option(
    "--spec", type=SPEC, required=True, metavar="SPEC",
    help="The shape asked for; 'fnatool inspect SEED --spec' writes one to edit. Or fna-seg, fna-retinanet, fna-ssdlite: what FNA found.",
)  # fmt: skip
@click.option("-o", "--output", type=FILE, metavar="OUT", help="The ONNX file to write (needed unless --dry-run).")
@click.option(
    "--strategy", type=click.Choice(["fna", "preserve"]), default="fna", show_default=True,
    help="fna: the paper's rules. preserve: growth never changes the function, and what is new can learn.",
)  # fmt: skip
@click.option("--allow-drift", is_flag=True, help="Let preserve grow what cannot grow exactly by the fna rule, and say how far it drifts.")
@click.option(
    "--select", type=click.Choice(["first", "bn", "l1", "std"]), default="first", show_default=True,
    help="Which channels stay where a width shrinks.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="For the noise of fresh weights.")
@click.option(
    "--input", "inputs", type=INPUT_SHAPE, multiple=True, metavar="NAME=1x3x224x224", help="The shape of a dynamic input. Repeatable."
)
@click.option("--dry-run", is_flag=True, help="Say what would change; write nothing.")
@click.option("--report", type=FILE, metavar="FILE", help="Write what happened to every tensor as JSON.")
@click.option("--no-verify", is_flag=True, help="Skip the comparison of inner values in ONNX Runtime.")
@click.option("--force", is_flag=True, help="Overwrite existing files (never the seed).")
def remap(
    model: Path,
    spec: Path,
    output: Path | None,
    strategy: str,
    allow_drift: bool,
    select: str,
    seed: int,
    inputs: tuple[tuple[str, tuple[int, ...]], ...],
    dry_run: bool,
    report: Path | None,
    no_verify: bool,
    force: bool,
) -> None:
    """Write SEED in the shape SPEC asks for, with what it knows in it.

    The result is verified in ONNX Runtime on inner values: a remap that must be exact and is not is refused, naming the first tensor.
    """
    import json

    from fnatool import specs
    from fnatool.files import atomic
    from fnatool.files import model as files
    from fnatool.files.atomic import require_writable, write_text
    from fnatool.model import remap as remapping
    from fnatool.model import remap_report as reports
    from fnatool.model.analysed import read_spec

    if output is None and not dry_run:
        raise click.UsageError("say where the result goes with -o OUT, or try it with --dry-run")
    read = files.read(model, dict(inputs))
    if not dry_run:
        atomic.recovered(*(path for path in (output, report) if path is not None))
    inputs_of_user = (read.path, *read.data, spec)
    for target in (output, report):
        if target is not None and not (dry_run and target is output):
            require_writable(target, force=force, forbid=inputs_of_user)
    if output is not None and report is not None and report.resolve() in (output.resolve(), files.data_path(output).resolve()):
        raise click.UsageError(f"'{report}' cannot be both part of the result and its report")
    options = remapping.RemapOptions(strategy, select, seed, allow_drift, not (no_verify or dry_run), dict(inputs) or None)
    with specs.fitting(spec):
        made = remapping.remap_model(read, read_spec(spec), options)
    texts = {} if report is None else {report: json.dumps(reports.as_json(made), indent=1)}
    if output is not None and not dry_run:
        made.write(output, force=force, beside=texts)  # all of them or none
    else:
        for path, text in texts.items():
            write_text(path, text, force=force)
    reports.show(made, "nothing written (--dry-run)" if dry_run else str(output))


@cli.command()
@click.argument("model", type=MODEL)
@click.option("--task", type=TASK, required=True, help="What the network is to do.")
@click.option(
    "--style", metavar="NAME",
    help="The kind of head; for detection retinanet (default) or ssdlite, one for each other task.",
)  # fmt: skip
@click.option("--classes", metavar="N|FILE", help="How many classes, or a file with a name on every line.")
@click.option(
    "--joints", metavar="N|coco|FILE", help="The joints of a pose: how many, COCO's, or a JSON file (joints, sigmas, flip_pairs)."
)
@click.option(
    "--taps", type=Names(), default=(), metavar="NAME,...",
    help="What the head reads: stageI.exit, stageI.blockJ.hidden, a node; from fine to coarse. Default: by the style.",
)  # fmt: skip
@click.option("--width", type=click.IntRange(max=1 << 16), metavar="N", help="Channels inside the head (256; not for ssdlite and linear).")
@click.option("--levels", type=click.IntRange(max=32), metavar="N", help="Maps a detector looks at (retinanet 5, ssdlite 6).")
@click.option(
    "--keep-rows",
    type=NumbersType(int),
    default=(),
    metavar="3,5,7",
    help="Rows of the seed's own classifier that become the first classes.",
)
@click.option("--mean", type=NumbersType(float), metavar="R,G,B", help="Of the pixels 0…255: an input value is (pixel − mean) / scale.")
@click.option("--scale", type=NumbersType(float), metavar="R,G,B", help="What they are divided by. One number stands for all colours.")
@click.option(
    "--channels", type=click.Choice(["RGB", "BGR"]),
    help="The order of colours that the network takes, and of --mean and --scale [default: as its metadata says, else RGB].",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="For the weights of the head.")
@click.option(
    "--input", "inputs", type=INPUT_SHAPE, multiple=True, metavar="NAME=1x3x224x224", help="The shape of a dynamic input. Repeatable."
)
@click.option("-o", "--output", type=FILE, required=True, metavar="OUT", help="The ONNX file to write.")
@click.option("--no-verify", is_flag=True, help="Skip the comparison with the seed and the check of the result.")
@click.option("--force", is_flag=True, help="Overwrite an existing file (never the model).")
def head(
    model: Path,
    task: str,
    style: str | None,
    classes: str | None,
    joints: str | None,
    taps: tuple[str, ...],
    width: int | None,
    levels: int | None,
    keep_rows: tuple[int, ...],
    mean: tuple[float, ...] | None,
    scale: tuple[float, ...] | None,
    channels: str | None,
    seed: int,
    inputs: tuple[tuple[str, tuple[int, ...]], ...],
    output: Path,
    no_verify: bool,
    force: bool,
) -> None:
    """Put a task's head on MODEL, its weights fresh; what is behind the taps goes, all else stays.

    The result says in its metadata what it is for. Its outputs: logits; mask_logits; cls_logits and boxes; heatmaps. How pixels are scaled
    is what --mean and --scale say; else what the metadata of MODEL say; else nothing where its input takes whole numbers or its first
    nodes scale; else ImageNet's, with a warning.
    """
    from fnatool.files import model as files
    from fnatool.files.atomic import require_writable
    from fnatool.model import head as heading

    read = files.read(model, dict(inputs))
    named = [Path(text) for text in (classes, joints) if text is not None]
    require_writable(output, force=force, forbid=(read.path, *read.data, *named))
    shapes = dict(inputs) or None
    options = heading.HeadOptions(
        task, style, classes, joints, taps, width, levels, keep_rows, mean, scale, seed, shapes, not no_verify, channels
    )
    made = heading.attach_to_model(read, options)
    made.write(output, force=force)
    heading.show(made, str(output))


@cli.command()
@click.argument("a", metavar="A", type=MODEL)
@click.argument("b", metavar="B", type=MODEL)
@click.option("--all", "everything", is_flag=True, help="Every difference, not the first few of each kind.")
@click.option("--json", "as_json", is_flag=True, help="Everything as JSON.")
@click.option(
    "--input", "inputs", type=INPUT_SHAPE, multiple=True, metavar="NAME=1x3x224x224", help="The shape of a dynamic input. Repeatable."
)
def diff(a: Path, b: Path, everything: bool, as_json: bool, inputs: tuple[tuple[str, tuple[int, ...]], ...]) -> int:
    """Show in what two models differ, by name: knobs, stages, inputs and outputs, nodes, and the values of tensors.

    A change of values is relative to the spread of the tensor in A. Exit code 0: equal, 1: different, 2: a mistake, or a file that cannot
    be read.
    """
    import json

    from fnatool.model import diff as comparing

    found = comparing.compare_files(a, b, dict(inputs))
    if as_json:
        click.echo(document(json.dumps(comparing.as_json(found), indent=2)))
    else:
        comparing.show(found, everything=everything)
    return SUCCESS if found.equal else FAILED


@cli.command()
@click.argument("models", metavar="MODEL...", nargs=-1, required=True, type=MODEL)
@click.option("--against", type=MODEL, metavar="SEED", help="Demand the inputs and outputs of this model: names, types and shapes.")
@click.option("--spec", type=SPEC, metavar="SPEC", help="Demand that the model realises this spec, a file or a bundled one.")
@click.option("--max-macs", type=click.IntRange(min=1), metavar="N", help="Demand at most N multiply-accumulates.")
@click.option("--max-params", type=click.IntRange(min=1), metavar="N", help="Demand at most N parameters.")
@click.option(
    "--input", "inputs", type=INPUT_SHAPE, multiple=True, metavar="NAME=1x3x224x224", help="The shape of a dynamic input. Repeatable."
)
@click.option(
    "--timeout",
    type=click.FloatRange(1, 1e6),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="Of processor time, for each step of the check.",
)
@click.option(
    "--format", "form", type=click.Choice(["text", "json", "github", "sarif"]), default="text", show_default=True,
    help="github: annotations of a workflow run. sarif: SARIF 2.1.0, for code scanning.",
)  # fmt: skip
def check(
    models: tuple[Path, ...],
    against: Path | None,
    spec: Path | None,
    max_macs: int | None,
    max_params: int | None,
    inputs: tuple[tuple[str, tuple[int, ...]], ...],
    timeout: float,
    form: str,
) -> int:
    """Report everything wrong with the models; exit 1 if anything is an error, 2 if a model could not be looked at.

    The static rules, the ONNX checker, strict shape inference and a run in ONNX Runtime, then what the options demand.
    """
    from fnatool.model import check as checking
    from fnatool.model import check_formats as annotating

    demands = checking.Demands(against, spec, max_macs, max_params, dict(inputs), timeout)
    reports, mistakes = checking.check_files(models, demands)
    if form == "json":
        click.echo(document(checking.to_json(reports)))
    elif form == "sarif":
        click.echo(document(annotating.to_sarif(reports, complete=not mistakes)))
    elif form == "github":
        click.echo(annotating.to_github(reports), nl=any(report.findings for report in reports))
    else:
        checking.show(reports)
    if mistakes:
        raise mistakes[0]
    return SUCCESS if all(report.passed for report in reports) else FAILED


@cli.command()
@click.argument("source", metavar="SOURCE")
@click.option("-o", "--output", type=FILE, required=True, metavar="OUT", help="The ONNX file to write.")
@click.option("--weights", metavar="TAG", help="Trained weights by their tag, or DEFAULT; downloaded by torchvision or timm.")
@click.option("--checkpoint", type=FILE, metavar="FILE", help="A state_dict (.pt, .pth, .safetensors); no code in it is run.")
@click.option("--input", "shape", type=SHAPE, metavar="1x3x224x224", help="The shape of the input [default: what the model says].")
@click.option("--classes", type=click.IntRange(1, 1 << 16), metavar="N", help="Outputs of the classifier.")
@click.option("--opset", type=int, default=18, show_default=True, metavar="N")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def export(
    source: str,
    output: Path,
    weights: str | None,
    checkpoint: Path | None,
    shape: tuple[int, ...] | None,
    classes: int | None,
    opset: int,
    force: bool,
) -> None:
    """Write a torch model as a seed: BatchNorm kept, batch axis free, nodes named after modules, checked against the model.

    SOURCE is torchvision:NAME, timm:NAME, or path/to/file.py:FUNCTION, a function without arguments that returns a torch.nn.Module. The
    file is run: give only one that you trust.
    """
    from fnatool.export.torch import show_export
    from fnatool.files.atomic import require_writable

    require_writable(output, force=force, forbid=() if checkpoint is None else (checkpoint,))
    if importlib.util.find_spec("torch") is None:
        raise Mistake("export needs torch, which is not installed; pip install 'fnatool[export]'")
    from fnatool.export import sources
    from fnatool.export import torch as exporting

    found = sources.load(source, weights=weights, checkpoint=checkpoint, classes=classes)
    made = exporting.export(
        found.module,
        output,
        example=exporting.zeros(found.module, shape or (1, *found.size)),
        opset=opset,
        source=found.metadata(),
        force=force,
    )
    show_export(made, found.notes, str(output))


@cli.command()
@click.argument("model", type=MODEL)
@click.option("-o", "--output", type=FILE, required=True, metavar="OUT", help="The ONNX file to write.")
@click.option(
    "--input", "inputs", type=INPUT_SHAPE, multiple=True, metavar="NAME=1x3x224x224", help="The shape of a dynamic input. Repeatable."
)
@click.option("--no-verify", is_flag=True, help="Skip the comparison of inner values in ONNX Runtime.")
@click.option("--force", is_flag=True, help="Overwrite an existing file (never the model).")
def fold(model: Path, output: Path, inputs: tuple[tuple[str, tuple[int, ...]], ...], no_verify: bool, force: bool) -> None:
    """Write MODEL with every BatchNorm folded into the convolution beside it: the same function, for deployment.

    What cannot be folded exactly stays, and is listed with the reason.
    """
    from fnatool.files import model as files
    from fnatool.files.atomic import require_writable
    from fnatool.model import fold as folding
    from fnatool.model.fold import show_folding

    read = files.read(model, dict(inputs))
    require_writable(output, force=force, forbid=(read.path, *read.data))
    made = folding.fold_model(read, verify=not no_verify, inputs=dict(inputs) or None)
    made.write(output, force=force)
    show_folding(made, ("folded", "into"), str(output))


@cli.command()
@click.argument("model", type=MODEL)
@click.option(
    "--data", required=True, metavar="FOLDER|random", help="Images for the statistics, at any depth; or noise, which fits no data."
)
@click.option("-o", "--output", type=FILE, required=True, metavar="OUT", help="The ONNX file to write.")
@click.option("--only", multiple=True, metavar="PATTERN", help="Only behind the convolutions of these names; * is any text. Repeatable.")
@click.option("--images", type=click.IntRange(1, 10**9), default=256, show_default=True, metavar="N", help="How many images to look at.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="For the choice of images, or the noise.")
@click.option("--mean", type=NUMBERS, metavar="R,G,B", help="An input is (pixel − mean) / scale, pixels from 0 to 255 …")
@click.option("--scale", type=NUMBERS, metavar="R,G,B", help="… [default: as for 'fnatool head']")
@click.option("--channels", type=click.Choice(["RGB", "BGR"]), help="The order of colours that the network takes.")
@click.option(
    "--input", "inputs", type=INPUT_SHAPE, multiple=True, metavar="NAME=1x3x224x224", help="The shape of a dynamic input. Repeatable."
)
@click.option("--no-verify", is_flag=True, help="Skip the comparison of inner values in ONNX Runtime.")
@click.option("--force", is_flag=True, help="Overwrite an existing file (never the model).")
def unfold(
    model: Path,
    data: str,
    output: Path,
    only: tuple[str, ...],
    images: int,
    seed: int,
    mean: tuple[float, ...] | None,
    scale: tuple[float, ...] | None,
    channels: str | None,
    inputs: tuple[tuple[str, tuple[int, ...]], ...],
    no_verify: bool,
    force: bool,
) -> None:
    """Write MODEL with a BatchNorm behind its convolutions: the same function, for training.

    Exporters fold BatchNorm away, and a folded network trains badly. The statistics are those of the data, so that the function stays.
    """
    from fnatool.files import model as files
    from fnatool.files.atomic import require_writable
    from fnatool.model import fold as folding
    from fnatool.model.fold import show_folding

    read = files.read(model, dict(inputs))
    require_writable(output, force=force, forbid=(read.path, *read.data))
    made = folding.unfold_model(
        read,
        folding.StatisticsOptions(data, images, seed, mean, scale, channels),
        only=only,
        verify=not no_verify,
        inputs=dict(inputs) or None,
    )
    made.write(output, force=force)
    show_folding(made, ("put in", "behind"), str(output))
