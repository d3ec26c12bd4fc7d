"""The command line. Every command imports what it needs when it runs, so that --help answers at once."""

from __future__ import annotations

import gc
import importlib.util
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import click

import fnatool
from fnatool.escaping import document, shown

EXTRA = {"torch", "torchvision", "pycocotools", "PIL"}  # what `pip install fnatool` leaves out
SUCCESS, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130


class Mistake(click.ClickException):
    """The user asked for something that cannot be: one message, of one line or a list of them, exit code 2."""

    exit_code = MISUSED

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines

    def show(self, file: IO[str] | None = None) -> None:
        click.echo("\n".join(map(shown, (f"fnatool: {self.lines[0]}", *self.lines[1:]))), file=file, err=True)


class Refusal(Mistake):
    """The model is not one to work on: one message, exit code 1."""

    exit_code = FAILED


class Command(click.Command):
    """A command whose UserError and RefusedModel become messages and exit codes."""

    def invoke(self, ctx: click.Context) -> object:
        from passes.errors import Listed, RefusedModel, UserError  # not above: --help would wait for all the passes

        try:
            return super().invoke(ctx)
        except UserError as error:
            raise Mistake(*(error.lines if isinstance(error, Listed) else (str(error),))) from error
        except RefusedModel as error:
            raise Refusal(str(error)) from error
        except ModuleNotFoundError as error:
            if error.name not in EXTRA:
                raise
            raise Mistake(f"this needs {error.name}, which is not installed; pip install 'fnatool[search]' brings it") from error
        except BrokenPipeError as error:  # before click makes exit code 1 of it
            raise ReaderLeft from error


class ReaderLeft(Exception):
    """The reader of our output has gone, as in `fnatool inspect … | head`."""


class Commands(click.Group):
    """Subcommands are of the class above, in groups of groups too."""

    command_class = Command
    group_class = type


class ModelPath(click.ParamType[Path]):
    """The path of an ONNX file, or the name of a bundled seed where no file has that name."""

    name = "model"

    def convert(self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        from fnatool import seeds

        path = Path(value)
        return path if path.exists() else seeds.bundled(str(value)) or path


class SpecPath(click.ParamType[Path]):
    """The path of a spec's JSON file, or the name of a bundled spec where no file has that name."""

    name = "spec"

    def convert(self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        from fnatool import specs

        return specs.find(value)


class InputShape(click.ParamType[tuple[str, tuple[int, ...]]]):
    """NAME=1x3x224x224."""

    name = "name=shape"

    def convert(
        self, value: str | tuple[str, tuple[int, ...]], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[int, ...]]:
        if isinstance(value, tuple):
            return value
        name, _, text = value.rpartition("=")
        sizes = _sizes(text)
        if not name or sizes is None:
            self.fail(f"'{value}' is not of the form NAME=1x3x224x224 (all sizes positive)", param, ctx)
        return name, sizes


class Shape(click.ParamType[tuple[int, ...]]):
    """1x3x224x224."""

    name = "shape"

    def convert(self, value: str | tuple[int, ...], param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        sizes = _sizes(value)
        if sizes is None or len(sizes) < 2:
            self.fail(f"'{value}' is not of the form 1x3x224x224 (all sizes positive)", param, ctx)
        return sizes


def _sizes(text: str) -> tuple[int, ...] | None:
    """The sizes in 1x3x224x224; None where it is not of that form."""
    sizes = text.split("x")
    good = all(size.isascii() and size.isdigit() and 0 < int(size) < 2**31 for size in sizes)
    return tuple(int(size) for size in sizes) if good else None


class Numbers(click.ParamType[tuple[float, ...]]):
    """Numbers with commas between them, as in 123.7,116.3,103.5."""

    name = "numbers"

    def __init__(self, kind: type[int] | type[float]) -> None:
        self.kind = kind

    def convert(self, value: str | tuple[float, ...], param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(self.kind(part) for part in value.split(","))
        except ValueError:
            self.fail(f"'{value}' is not a list of {'whole ' if self.kind is int else ''}numbers with commas between them", param, ctx)
        if not all(abs(number) < 1e12 for number in numbers):
            self.fail(f"'{value}' holds a number that is not finite or far too large", param, ctx)
        return numbers


class Names(click.ParamType[tuple[str, ...]]):
    """Names with commas between them."""

    name = "names"

    def convert(self, value: str | tuple[str, ...], param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        return tuple(part.strip() for part in value.split(","))


MODEL = ModelPath()
SPEC = SpecPath()
INPUT_SHAPE = InputShape()
SHAPE = Shape()
NUMBERS = Numbers(float)
FILE = click.Path(path_type=Path)
TASK = click.Choice(["classification", "segmentation", "detection", "pose"])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(fnatool.__version__, prog_name="fnatool")
def cli() -> None:
    """Give it any pretrained CNN as ONNX and the shape you need; get back that network, in that shape, with what the seed knows.

    MODEL is the path of an ONNX file or the name of the bundled seed, mobilenetv2_bn.
    """


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

    from fnatool import files, inspecting, remapping

    if group is not None and form == "spec":
        raise click.UsageError("--group shows weights and --spec knobs; ask for one of them")
    read = files.read(model, dict(inputs))
    analysis = remapping.analyse_model(read, dict(inputs) or None)
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

    from fnatool import files, profiling

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

    from fnatool import atomic, files, remapping, specs
    from fnatool import report as reports

    if output is None and not dry_run:
        raise click.UsageError("say where the result goes with -o OUT, or try it with --dry-run")
    read = files.read(model, dict(inputs))
    if not dry_run:
        atomic.recovered(*(path for path in (output, report) if path is not None))
    inputs_of_user = (read.path, *read.data, spec)
    for target in (output, report):
        if target is not None and not (dry_run and target is output):
            files.require_writable(target, force=force, forbid=inputs_of_user)
    if output is not None and report is not None and report.resolve() in (output.resolve(), files.data_path(output).resolve()):
        raise click.UsageError(f"'{report}' cannot be both part of the result and its report")
    options = remapping.Options(strategy, select, seed, allow_drift, not (no_verify or dry_run), dict(inputs) or None)
    with specs.fitting(spec):
        made = remapping.remap_model(read, remapping.read_spec(spec), options)
    texts = {} if report is None else {report: json.dumps(reports.as_json(made), indent=1)}
    if output is not None and not dry_run:
        made.write(output, force=force, beside=texts)  # all of them or none
    else:
        for path, text in texts.items():
            files.write_text(path, text, force=force)
    reports.show(made, "nothing written (--dry-run)" if dry_run else str(output))


@cli.command()
@click.argument("model", type=MODEL)
@click.option("--task", type=TASK, required=True, help="What the network is to do.")
@click.option(
    "--style", type=click.Choice(["linear", "deeplabv3", "retinanet", "ssdlite", "simplebaseline"]),
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
    "--keep-rows", type=Numbers(int), default=(), metavar="3,5,7", help="Rows of the seed's own classifier that become the first classes."
)
@click.option("--mean", type=Numbers(float), metavar="R,G,B", help="Of the pixels 0…255: an input value is (pixel − mean) / scale.")
@click.option("--scale", type=Numbers(float), metavar="R,G,B", help="What they are divided by. One number stands for all colours.")
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
    from fnatool import files, heading

    read = files.read(model, dict(inputs))
    named = [Path(text) for text in (classes, joints) if text is not None]
    files.require_writable(output, force=force, forbid=(read.path, *read.data, *named))
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

    from fnatool import comparing

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
    from fnatool import annotating, checking

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
    from fnatool.data.fashion import writing

    with terminal.progress(f"scenes for {task}", train + val) as advance:
        writing.write_scenes(folder, writing.Wanted(task, size, train, val, seed), force=force, done=lambda: advance(1))
    click.echo(f"{train:,} scenes to train on and {val:,} to validate, {size}×{size} → {shown(str(folder))}")


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
    from fnatool import files
    from fnatool import report as reports

    files.require_writable(output, force=force, forbid=() if checkpoint is None else (checkpoint,))
    if importlib.util.find_spec("torch") is None:
        raise Mistake("export needs torch, which is not installed; pip install 'fnatool[export]'")
    from fnatool import exporting, sources

    found = sources.load(source, weights=weights, checkpoint=checkpoint, classes=classes)
    made = exporting.export(
        found.module,
        output,
        example=exporting.zeros(found.module, shape or (1, *found.size)),
        opset=opset,
        source=found.metadata(),
        force=force,
    )
    reports.show_export(made, found.notes, str(output))


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
    from fnatool import files, folding
    from fnatool import report as reports

    read = files.read(model, dict(inputs))
    files.require_writable(output, force=force, forbid=(read.path, *read.data))
    made = folding.fold_model(read, verify=not no_verify, inputs=dict(inputs) or None)
    made.write(output, force=force)
    reports.show_folding(made, ("folded", "into"), str(output))


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
    from fnatool import files, folding
    from fnatool import report as reports

    read = files.read(model, dict(inputs))
    files.require_writable(output, force=force, forbid=(read.path, *read.data))
    made = folding.unfold_model(
        read, folding.Data(data, images, seed, mean, scale, channels), only=only, verify=not no_verify, inputs=dict(inputs) or None
    )
    made.write(output, force=force)
    reports.show_folding(made, ("put in", "behind"), str(output))


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
    from fnatool import finetuning

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
    from fnatool import evaluating

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
    from fnatool import searching

    found = searching.search_file(how, folder, searching.Asked(model, budgets, restart, dry_run))
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
    from fnatool import deriving

    deriving.show(deriving.derive_run(folder, deriving.Wanted(budgets, pareto, argmax, images, out, force)))


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
    from fnatool.latency import making, timing

    options = making.Options(timing.Place(provider, threads), rounds, rng, dict(inputs) or None)
    made, of = making.make_table(model, space, output, options, force=force)
    making.show(made, of, output)


def _require_search(command: str) -> None:
    needed = ("torch", "torchvision", "PIL", "pycocotools", "tensorboard")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise Mistake(f"{command} needs what is not installed: {', '.join(missing)}; pip install 'fnatool[search]'")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 success, 1 a failed check or a refused model, 2 a mistake in what was asked, 130 Ctrl-C."""
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character shows a question mark
    gc.set_threshold(200_000, 20, 20)  # a graph is many small objects that live long: collecting them often takes a third of the time
    sys.exit(run(arguments))


def _open_streams() -> None:
    """Standard input, output and error are open: a closed one leads nowhere, and no file or pipe of ours takes its number."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if mode == "r" else os.O_WRONLY)  # the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def run(arguments: Sequence[str] | None = None) -> int:
    """The exit code of the command; whatever goes wrong is one message on stderr."""
    try:
        result = cli.main(args=arguments, prog_name="fnatool", standalone_mode=False)
        sys.stdout.flush()  # a full disk shows here rather than in a traceback at exit
    except click.ClickException as error:
        text = io.StringIO()
        error.show(text)
        click.echo("\n".join(shown(line.expandtabs(4)) for line in text.getvalue().rstrip("\n").split("\n")), err=True)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):  # click turns the first into the second
        click.echo("fnatool: interrupted", err=True)
        return INTERRUPTED
    except (ReaderLeft, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to fail when Python flushes at exit
        return SUCCESS
    except MemoryError:
        return _say("not enough memory", MISUSED)
    except OSError as error:
        where = f"'{error.filename}': " if error.filename else ""
        return _say(f"{where}{error.strerror or error}", MISUSED)
    return result if isinstance(result, int) else SUCCESS


def _say(message: object, code: int) -> int:
    click.echo(f"fnatool: {shown(str(message))}", err=True)
    return code


if __name__ == "__main__":
    main()
