"""Commands that make a model of a model: remap, head, task, fold, unfold, cut; and export, of a torch model."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from fnatool.cli import options
from fnatool.cli.app import Mistake, cli
from fnatool.cli.options import Inputs, Knobs
from fnatool.cli.types import LIST, MODEL, ROWS, SPEC, TASK

if TYPE_CHECKING:
    from fnatool.data.options import DataOptions

OVERWRITE = "Overwrite an existing file (never the model)."


@cli.command()
@click.argument("model", metavar="SEED", type=MODEL)
@click.option(
    "--spec",
    type=SPEC,
    metavar="SPEC",
    help="The shape asked for; 'fnatool inspect SEED --spec' writes one to edit. Or fna-seg, fna-retinanet, "
    "fna-ssdlite: what FNA found. "
    "- is standard input.",
)
@options.knobs("Set one knob, on top of SPEC or alone: stage2.depth=4, input.size=512x1024, batch=free. Repeatable.")
@click.option(
    "--multiple",
    type=click.IntRange(1, 1024),
    default=1,
    metavar="N",
    help="What a width given by a factor, as x0.75, is a multiple of: 8, 16 or 32, as devices like [default: as "
    "the seed's is, up to 8].",
)
@options.output("The ONNX file to write (needed unless --dry-run).", required=False)
@click.option(
    "--strategy", type=click.Choice(["fna", "preserve"]), default="fna", show_default=True,
    help="fna: the paper's rules. preserve: growth never changes the function, and what is new can learn.",
)  # fmt: skip
@click.option(
    "--allow-drift",
    is_flag=True,
    help="Let preserve grow what cannot grow exactly by the fna rule, and say how far it drifts.",
)
@click.option(
    "--select", type=click.Choice(["first", "bn", "l1", "std"]), default="first", show_default=True,
    help="Which channels stay where a width shrinks.",
)  # fmt: skip
@options.seed("For the noise of fresh weights.")
@options.inputs()
@click.option("--dry-run", is_flag=True, help="Say what would change; write nothing.")
@options.file(
    "--refit",
    metavar="DIR",
    help_="Solve layers that lost something anew, so that they come close to the seed's on the pictures in DIR, or "
    "on the arrays "
    "(.npy, .npz) for its inputs. No labels are needed.",
)
@click.option(
    "--refit-samples", type=click.IntRange(2, 10**9), default=1000, show_default=True, metavar="N",
    help="How many of them, drawn with --seed; a fifth is kept back and decides how much is solved.",
)  # fmt: skip
@options.pixels(
    "For --refit: an input is (pixel − mean) / scale, pixels from 0 to 255 …",
    "… [default: as for 'fnatool head']",
    "The order of colours that the network takes.",
)
@options.skip_bad("Leave out what --refit cannot read, and say how much.")
@options.file("--report", metavar="FILE", help_="Write what happened to every tensor as JSON.")
@options.no_verify()
@options.force("Overwrite existing files (never the seed).")
@options.as_json()
def remap(
    model: Path,
    spec: Path | None,
    knobs: Knobs,
    multiple: int,
    output: Path | None,
    strategy: str,
    allow_drift: bool,
    select: str,
    seed: int,
    inputs: Inputs,
    dry_run: bool,
    refit: Path | None,
    refit_samples: int,
    mean: tuple[float, ...] | None,
    scale: tuple[float, ...] | None,
    channels: str | None,
    skip_bad: bool,
    report: Path | None,
    no_verify: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Write SEED in the shape that SPEC and --set ask for, with what it knows in it.

    The result is verified in ONNX Runtime on inner values: a remap that must be exact and is not is refused, naming the
    first tensor. With --refit layers are solved anew after that, by least squares against the seed.
    """
    import fnatool
    from fnatool.cli.show.documents import show_json
    from fnatool.cli.show.remapped import show_remapped
    from fnatool.model.remap_report import report as report_of

    if output is None and not dry_run:
        raise click.UsageError("say where the result goes with -o OUT, or try it with --dry-run")
    if spec is None and not knobs:
        raise click.UsageError("say the shape asked for with --spec SPEC, or knob by knob with --set KNOB=VALUE")
    how = fnatool.RemapOptions(
        knobs=knobs,
        multiple=multiple,
        strategy=strategy,
        select=select,
        seed=seed,
        allow_drift=allow_drift,
        verify=not (no_verify or dry_run),
        inputs=inputs,
        report=report,
        force=force,
        refit=None if dry_run else refit,
        refit_samples=refit_samples,
        mean=mean,
        scale=scale,
        channels=channels,
        skip_bad=skip_bad,
    )
    made = fnatool.remap(model, spec, None if dry_run else output, options=how)
    if as_json:
        show_json(report_of(made))
    else:
        show_remapped(made, "nothing written (--dry-run)" if dry_run else str(output))


@cli.command()
@click.argument("model", type=MODEL)
@click.option("--task", type=TASK, required=True, help="What the network is to do.")
@click.option(
    "--style", metavar="NAME",
    help="The kind of head; for detection retinanet (default) or ssdlite, one for each other task.",
)  # fmt: skip
@click.option("--classes", metavar="N|FILE", help="How many classes, or a file with a name on every line.")
@click.option(
    "--joints",
    metavar="N|coco|FILE",
    help="The joints of a pose: how many, COCO's, or a JSON file (joints, sigmas, flip_pairs).",
)
@options.file(
    "--data", metavar="DIR", help_="Data of the task, whose classes or joints the head is for, instead of these two."
)
@options.reading()
@click.option(
    "--taps", type=LIST, default=(), metavar="NAME,...",
    help="What the head reads: stageI.exit, stageI.blockJ.hidden, a node; from fine to coarse. Default: by the style.",
)  # fmt: skip
@click.option(
    "--width",
    type=click.IntRange(max=1 << 16),
    metavar="N",
    help="Channels inside the head (256; not for ssdlite and linear).",
)
@click.option(
    "--levels", type=click.IntRange(max=32), metavar="N", help="Maps a detector looks at (retinanet 5, ssdlite 6)."
)
@click.option(
    "--keep-rows", type=ROWS, default=(), metavar="all|0-9,12",
    help="Rows of the seed's own classifier, or of a head that 'fnatool head' has made, that become the first classes.",
)  # fmt: skip
@options.pixels(
    "Of the pixels 0…255: an input value is (pixel − mean) / scale.",
    "What they are divided by. One number stands for all colours.",
    "The order of colours that the network takes, and of --mean and --scale [default: as its metadata says, else RGB].",
)
@options.seed("For the weights of the head.")
@options.inputs()
@options.output()
@options.no_verify("Skip the comparison with the seed and the check of the result.")
@options.force(OVERWRITE)
@options.as_json()
def head(
    model: Path,
    task: str,
    style: str | None,
    classes: str | None,
    joints: str | None,
    data: Path | None,
    reading: DataOptions,
    taps: tuple[str, ...],
    width: int | None,
    levels: int | None,
    keep_rows: tuple[int, ...] | Literal["all"],
    mean: tuple[float, ...] | None,
    scale: tuple[float, ...] | None,
    channels: str | None,
    seed: int,
    inputs: Inputs,
    output: Path,
    no_verify: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Put a task's head on MODEL, its weights fresh; what is behind the taps goes, all else stays.

    Where MODEL has a head of 'fnatool head' of the same style already, and no taps, width or levels are asked for, the
    new one goes on from it: it has all of its weights but those of classes.

    The result says in its metadata what it is for. Its outputs: logits; mask_logits; cls_logits and boxes; heatmaps.
    How pixels are scaled is what --mean and --scale say; else what the metadata of MODEL say; else nothing where its
    input takes whole numbers or its first nodes scale; else ImageNet's, with a warning.
    """
    import fnatool
    from fnatool.cli.show.documents import show_json
    from fnatool.cli.show.headed import show_headed

    asked = fnatool.HeadOptions(
        task=task,
        style=style,
        classes=classes,
        joints=joints,
        data=data,
        reading=reading,
        taps=taps,
        width=width,
        levels=levels,
        keep_rows=keep_rows,
        mean=mean,
        scale=scale,
        channels=channels,
        seed=seed,
        inputs=inputs,
        verify=not no_verify,
        force=force,
    )
    made = fnatool.head(model, output, options=asked)
    if as_json:
        show_json(made.to_json())
    else:
        show_headed(made, str(output))


@cli.command()
@click.argument("model", type=MODEL)
@click.option("--task", type=TASK, required=True, help="What the network does already.")
@click.option(
    "--names",
    metavar="FILE",
    help="Names of its classes, one on every line [default: as its record says, else numbers].",
)
@click.option("--joints", metavar="coco|FILE", help="The joints of a pose: COCO's, or a JSON file [default: likewise].")
@options.file("--record", metavar="FILE", help_="JSON with what else its record says, as the levels of a detector.")
@options.pixels(
    "Of the pixels 0…255: an input value is (pixel − mean) / scale.",
    "What they are divided by. One number stands for all colours [default of both: as for 'fnatool head'].",
    "The order of colours that the network takes, and of --mean and --scale [default: as its metadata says, else RGB].",
)
@options.inputs()
@options.output("The ONNX file to write.", required=False)
@click.option("--in-place", is_flag=True, help="Write into MODEL itself instead.")
@options.force(OVERWRITE)
@options.as_json()
def task(
    model: Path,
    task: str,
    names: str | None,
    joints: str | None,
    record: Path | None,
    mean: tuple[float, ...] | None,
    scale: tuple[float, ...] | None,
    channels: str | None,
    inputs: Inputs,
    output: Path | None,
    in_place: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Say in MODEL's metadata what it is for, so that evaluate, finetune and search know; its graph and weights stay,
    byte for byte.

    For networks that do the task already: a classifier gives [N, K], a segmenter [N, K, h, w], a pose network heatmaps
    [N, J, h, w], whatever their outputs are called; a detector cls_logits and boxes, as our heads do.
    """
    import fnatool
    from fnatool.cli.show.described import show_described
    from fnatool.cli.show.documents import show_json

    if output is None and not in_place:
        raise click.UsageError("say where the result goes with -o OUT, or write into the model itself with --in-place")
    how = fnatool.TaskOptions(
        task=task,
        names=names,
        joints=joints,
        record=record,
        mean=mean,
        scale=scale,
        channels=channels,
        inputs=inputs,
        in_place=in_place,
        force=force,
    )
    made = fnatool.task(model, output, options=how)
    if as_json:
        show_json(made.to_json())
    else:
        show_described(made, str(model if output is None else output))


@cli.command()
@click.argument("source", metavar="SOURCE")
@options.output()
@click.option(
    "--weights", metavar="TAG", help="Trained weights by their tag, or DEFAULT; downloaded by torchvision or timm."
)
@options.file("--checkpoint", metavar="FILE", help_="A state_dict (.pt, .pth, .safetensors); no code in it is run.")
@options.inputs("The shape of the input [default: what the model says]. Of several, by the names input_0, input_1 …")
@click.option("--classes", type=click.IntRange(1, 1 << 16), metavar="N", help="Outputs of the classifier.")
@click.option("--opset", type=int, default=18, show_default=True, metavar="N")
@options.force()
@options.as_json()
def export(
    source: str,
    output: Path,
    weights: str | None,
    checkpoint: Path | None,
    inputs: Inputs,
    classes: int | None,
    opset: int,
    force: bool,
    as_json: bool,
) -> None:
    """Write a torch model as a seed: BatchNorm kept, batch axis free, nodes named after modules, checked against the
    model.

    SOURCE is torchvision:NAME, timm:NAME, or path/to/file.py:FUNCTION, a function without arguments that returns a
    torch.nn.Module. The file is run: give only one that you trust.
    """
    import fnatool

    if importlib.util.find_spec("torch") is None:
        raise Mistake("export needs torch, which is not installed; pip install 'fnatool[export]'")
    how = fnatool.ExportOptions(
        inputs=inputs, weights=weights, checkpoint=checkpoint, classes=classes, opset=opset, force=force
    )
    made = fnatool.export(source, output, options=how)
    from fnatool.cli.show.documents import show_json
    from fnatool.cli.show.exported import show_exported

    if as_json:
        show_json(made.to_json())
    else:
        show_exported(made, str(output))


@cli.command()
@click.argument("model", type=MODEL)
@options.output()
@options.inputs()
@options.no_verify()
@options.force(OVERWRITE)
@options.as_json()
def fold(model: Path, output: Path, inputs: Inputs, no_verify: bool, force: bool, as_json: bool) -> None:
    """Write MODEL with every BatchNorm folded into the convolution beside it: the same function, for deployment.

    What cannot be folded exactly stays, and is listed with the reason.
    """
    import fnatool
    from fnatool.cli.show.batchnorm import show_folding
    from fnatool.cli.show.documents import show_json

    made = fnatool.fold(model, output, options=fnatool.FoldOptions(verify=not no_verify, inputs=inputs, force=force))
    if as_json:
        show_json(made.to_json())
    else:
        show_folding(made, ("folded", "into"), str(output))


@cli.command()
@click.argument("model", type=MODEL)
@click.option(
    "--data",
    required=True,
    metavar="FOLDER|random",
    help="Images for the statistics, at any depth; or noise, which fits no data.",
)
@options.output()
@click.option(
    "--only",
    multiple=True,
    metavar="PATTERN",
    help="Only behind the convolutions of these names; * is any text. Repeatable.",
)
@click.option(
    "--images",
    type=click.IntRange(1, 10**9),
    default=256,
    show_default=True,
    metavar="N",
    help="How many images to look at.",
)
@options.seed("For the choice of images, or the noise.")
@options.pixels(
    "An input is (pixel − mean) / scale, pixels from 0 to 255 …",
    "… [default: as for 'fnatool head']",
    "The order of colours that the network takes.",
)
@options.inputs()
@options.no_verify()
@options.force(OVERWRITE)
@options.as_json()
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
    inputs: Inputs,
    no_verify: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Write MODEL with a BatchNorm behind its convolutions: the same function, for training.

    Exporters fold BatchNorm away, and a folded network trains badly. The statistics are those of the data, so that the
    function stays.
    """
    import fnatool
    from fnatool.cli.show.batchnorm import show_folding
    from fnatool.cli.show.documents import show_json

    how = fnatool.UnfoldOptions(
        data=data,
        images=images,
        seed=seed,
        mean=mean,
        scale=scale,
        channels=channels,
        only=only,
        verify=not no_verify,
        inputs=inputs,
        force=force,
    )
    made = fnatool.unfold(model, output, options=how)
    if as_json:
        show_json(made.to_json())
    else:
        show_folding(made, ("put in", "behind"), str(output))


@cli.command()
@click.argument("model", type=MODEL)
@click.option(
    "--outputs", type=LIST, default=(), metavar="NAME,...",
    help="Where it is to end: tensors, nodes, or places like stage5.exit, which 'fnatool inspect --taps' lists.",
)  # fmt: skip
@click.option(
    "--inputs", "starts", type=LIST, default=(), metavar="NAME,...", help="Where it is to begin, in the same words."
)
@click.option(
    "--inference", is_flag=True, help="Bring Dropout and BatchNormalization that compute as in training to inference."
)
@options.inputs()
@options.output()
@options.no_verify("Skip the comparison with the whole and the check of the result.")
@options.force(OVERWRITE)
@options.as_json()
def cut(
    model: Path,
    outputs: tuple[str, ...],
    starts: tuple[str, ...],
    inference: bool,
    inputs: Inputs,
    output: Path,
    no_verify: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Write the part of MODEL that makes --outputs, from --inputs on: a model of its own that computes there what the
    whole does.

    Names stay, and what of the metadata is still true. Inputs that nothing reads any more go.
    """
    import fnatool
    from fnatool.cli.show.cut import show_cut
    from fnatool.cli.show.documents import show_json

    how = fnatool.CutOptions(
        outputs=outputs, new_inputs=starts, inference=inference, inputs=inputs, verify=not no_verify, force=force
    )
    made = fnatool.cut(model, output, options=how)
    if as_json:
        show_json(made.to_json())
    else:
        show_cut(made, str(output))
