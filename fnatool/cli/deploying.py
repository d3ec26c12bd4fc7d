"""Commands on what a finished model is for: deploy, predict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fnatool.cli import options
from fnatool.cli.app import cli, require_search
from fnatool.cli.options import Inputs
from fnatool.cli.types import FILE, MODEL, PAIR

if TYPE_CHECKING:
    from fnatool.data.options import DataOptions


@cli.command()
@click.argument("model", type=MODEL)
@click.argument("pictures", metavar="IMAGE...", nargs=-1, required=True, type=FILE)
@click.option(
    "-o",
    "--output",
    type=FILE,
    metavar="OUT",
    help="A folder for PNGs, or a .png file for one picture (needed unless --json).",
)
@options.provider()
@options.skip_bad("Leave out pictures that cannot be read.")
@options.as_json("The answers as JSON.")
@options.force("Replace an older result.")
def predict(
    model: Path, pictures: tuple[Path, ...], output: Path | None, provider: str, skip_bad: bool, as_json: bool,
    force: bool
) -> None:  # fmt: skip
    """Draw what MODEL, which has a head, says of pictures: class, mask, boxes or joints. IMAGE is a file or a folder of
    them.

    MODEL sees what 'fnatool evaluate' shows it; a pose is looked for in the whole picture. In the folder OUT are a PNG
    for each picture, contact-sheet.png where there are several, and predictions.json. Small pictures are enlarged, so
    that words can be read.
    """
    require_search("predict")
    import fnatool
    from fnatool import terminal
    from fnatool.cli.show.predicted import show_predictions

    if output is None and not as_json:
        raise click.UsageError("say where the pictures go with -o OUT, or ask for the answers with --json")
    asked = fnatool.PredictOptions(provider=provider, skip_bad=skip_bad, force=force)
    found = fnatool.predict(model, pictures, output, options=asked)
    if as_json:
        terminal.document(json.dumps(found.to_json(), indent=1))
    else:
        show_predictions(found, str(output))


@cli.command()
@click.argument("model", type=MODEL)
@click.option(
    "--target", type=click.Choice(["onnxruntime", "tensorrt", "tensorrt-rtx"]), required=True,
    help="What it is to run on. tensorrt-rtx builds an engine too, and needs the extra fnatool[tensorrt-rtx].",
)  # fmt: skip
@click.option("-o", "--output", type=FILE, required=True, metavar="DIR", help="The folder to write.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    default="fp32",
    show_default=True,
    help="Of the network itself.",
)
@click.option(
    "--batch",
    metavar="N|1:8:32",
    help="Images at a time, or the least, the usual and the most [default: as the file says, else 1].",
)
@click.option("--size", type=PAIR, metavar="H,W", help="Of the network's input, where the file leaves it open.")
@click.option("--image-size", type=PAIR, metavar="H,W", help="Of the images, where all have one [default: any].")
@click.option("--layout", type=click.Choice(["NHWC", "NCHW"]), default="NHWC", show_default=True, help="Of the images.")
@click.option("--no-preprocessing", is_flag=True, help="Leave resizing and scaling of pixels out of the graph.")
@click.option("--no-postprocessing", is_flag=True, help="Leave the way from outputs to answers out of the graph.")
@options.file(
    "--data", dest="folder", metavar="DIR", help_="A data set of the task: its figures before and after are told."
)
@options.file(
    "--images",
    metavar="DIR",
    help_="With int8: pictures that values are looked at on [default: training data of --data].",
)
@click.option(
    "--samples", type=click.IntRange(1, 100_000), default=128, show_default=True, metavar="N", help="How many of them."
)
@options.seed("For the choice of pictures.")
@options.reading()
@click.option(
    "--reduce-range/--no-reduce-range",
    default=None,
    help="With int8: weights of 7 bits [default: where this processor has no instructions for int8, and 8 bits are "
    "too far off].",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="How much of an answer may be another, or with --data in fp16 and int8 of the first figure be lost "
    "[default: by precision].",
)
@options.inputs()
@options.no_verify("Skip the comparison of answers.")
@options.force("Replace an older deployed folder.")
@options.as_json()
def deploy(
    model: Path,
    target: str,
    output: Path,
    precision: str,
    batch: str | None,
    size: tuple[int, int] | None,
    image_size: tuple[int, int] | None,
    layout: str,
    no_preprocessing: bool,
    no_postprocessing: bool,
    folder: Path | None,
    images: Path | None,
    samples: int,
    seed: int,
    reduce_range: bool | None,
    reading: DataOptions,
    tolerance: float | None,
    inputs: Inputs,
    no_verify: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Write MODEL as a folder to deploy: DIR/model.onnx, DIR/deploy.json, and for tensorrt-rtx DIR/engine.plan.

    BatchNorm is folded and dead nodes go. Of a model with a task the graph takes images, uint8 and of any size, and
    gives answers: class and probability, a mask, boxes or joints, in pixels of the image. They are compared with those
    of MODEL before anything is written.
    """
    require_search("deploy")
    import fnatool
    from fnatool import terminal
    from fnatool.cli.show.deployed import show_deployed

    asked = fnatool.DeployOptions(
        target=target,
        precision=precision,
        batch=batch,
        size=size,
        image_size=image_size,
        layout=layout,
        preprocessing=not no_preprocessing,
        postprocessing=not no_postprocessing,
        data=folder,
        images=images,
        samples=samples,
        seed=seed,
        reduce_range=reduce_range,
        reading=reading,
        tolerance=tolerance,
        inputs=inputs,
        verify=not no_verify,
        force=force,
    )
    made = fnatool.deploy(model, output, options=asked)
    if as_json:
        terminal.document(made.document.to_json().rstrip("\n"))
    else:
        show_deployed(made.document, made.folder)
