"""The command that shows what was made, as a page: report."""

from __future__ import annotations

from pathlib import Path

import click

from fnatool.cli import options
from fnatool.cli.app import cli
from fnatool.cli.types import FILE, MODEL
from fnatool.escaping import shown


@cli.command()
@click.argument("run", metavar="[RUN]", required=False, type=FILE)
@click.option("--before", type=MODEL, metavar="MODEL", help="In place of a run: a network …")
@click.option("--after", type=MODEL, metavar="MODEL", help="… and what was made of it.")
@click.option(
    "-o",
    "--output",
    "out",
    type=FILE,
    metavar="HTML",
    help="The page to write [default: report.html, in RUN if there is one].",
)
@options.file("--data", metavar="DIR", help_="The data set that pictures come from [default: the run's own].")
@options.file("--model", metavar="MODEL", help_="What the fine-tuning in RUN wrote [default: RUN with .onnx].")
@click.option("--no-pictures", is_flag=True, help="Leave out pictures with answers.")
@options.file("--png", metavar="PNG", help_="A picture of the page too, for slides; needs Chromium.")
@options.force("Overwrite existing files.")
def report(
    run: Path | None,
    before: Path | None,
    after: Path | None,
    out: Path | None,
    data: Path | None,
    model: Path | None,
    no_pictures: bool,
    png: Path | None,
    force: bool,
) -> None:
    """Show in one HTML file what a search or fine-tuning in RUN came to, or what --before became in --after.

    The architecture before and after, what each stage costs, how it was chosen, how it was trained, answers on
    validation images (the worst first), and how to do it again. The page needs no network and no other file.
    """
    import fnatool
    from fnatool.report.browser import find_browser, write_picture

    pair = (before, after)
    if any(pair) == (run is not None) or any(pair) != all(pair):
        raise click.UsageError("give the folder of a run, or both --before MODEL and --after MODEL")
    if png is not None:
        find_browser()
    asked = fnatool.ReportOptions(data=data, model=model, pictures=not no_pictures, force=force)
    if before is not None and after is not None:
        page = fnatool.report_pair(before, after, out or Path("report.html"), options=asked)
    else:
        assert run is not None
        page = fnatool.report(run, out, options=asked)
    click.echo(f"→ {shown(str(page))}")
    if png is not None:
        write_picture(page, png, force=force)
        click.echo(f"→ {shown(str(png))}")
