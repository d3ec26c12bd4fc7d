"""A picture of a page, made by a Chromium that is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from fnatool.files.atomic import replacing, require_writable
from passes.errors import UserError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SECONDS = 120
WIDTH, HEIGHT = 1400, 2400  # pixels
PATIENCE = 5000  # of the page's own time, in milliseconds, for its curves


def find_browser() -> str:
    """The path of a Chromium. Raises UserError where there is none."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        raise UserError(
            f"a picture of the page needs Chromium, and none is installed ({', '.join(BROWSERS)}); the page "
            "itself needs none"
        )
    return found


def write_picture(page: Path, png: Path, *, force: bool = False, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    """A PNG of the upper part of the page, so many pixels wide and high. Raises UserError where no Chromium can make
    one.
    """
    browser = find_browser()
    require_writable(png, force=force)
    with tempfile.TemporaryDirectory(prefix="fnatool-") as folder:
        shot = Path(folder) / "page.png"
        command = [
            browser, "--headless=new", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-extensions",
            f"--user-data-dir={folder}/profile", f"--window-size={size[0]},{size[1]}",
            f"--virtual-time-budget={PATIENCE}", f"--screenshot={shot}", *unconfined(), page.resolve().as_uri(),
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise UserError(f"'{browser}' made no picture of the page within {SECONDS} s") from error
        if not shot.exists():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UserError(f"'{browser}' made no picture of the page: {last}")
        with replacing(png, force=force) as (file,):
            file.write(shot.read_bytes())


def unconfined() -> list[str]:
    """Chromium refuses to start its sandbox for root, as in a container; the page is our own and loads nothing."""
    return ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
