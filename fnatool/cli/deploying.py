"""Commands on what a finished model is for: predict."""

from __future__ import annotations

import json
from pathlib import Path

import click

from fnatool.cli import options
from fnatool.cli.app import cli, require_search
from fnatool.cli.types import FILE, MODEL


@cli.command()
@click.argument("model", type=MODEL)
@click.argument("pictures", metavar="IMAGE...", nargs=-1, required=True, type=FILE)
@click.option("-o", "--output", type=FILE, metavar="OUT", help="A folder for PNGs, or a .png file for one picture (needed unless --json).")
@options.provider()
@options.skip_bad("Leave out pictures that cannot be read.")
@options.as_json("The answers as JSON.")
@options.force("Replace an older result.")
def predict(
    model: Path, pictures: tuple[Path, ...], output: Path | None, provider: str, skip_bad: bool, as_json: bool, force: bool
) -> None:  # fmt: skip
    """Draw what MODEL, which has a head, says of pictures: class, mask, boxes or joints. IMAGE is a file or a folder of them.

    MODEL sees what 'fnatool evaluate' shows it; a pose is looked for in the whole picture. In the folder OUT are a PNG for each picture,
    contact-sheet.png where there are several, and predictions.json. Small pictures are enlarged, so that words can be read.
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
