"""The page in a real browser: Chromium without a window."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fnatool.cli.main import run
from fnatool.report import browser

pytestmark = pytest.mark.skipif(not any(map(shutil.which, browser.BROWSERS)), reason="no Chromium is installed")

EARS = """<script>
window.heard = [];
addEventListener("error", (event) => heard.push(String(event.message)));
addEventListener("securitypolicyviolation", (event) => heard.push("blocked " + event.blockedURI));
for (const name of ["error", "warn"]) console[name] = (...said) => heard.push(said.join(" "));
</script>"""
PROBE = """<script>
addEventListener("load", () => setTimeout(() => {
  const figures = [...document.querySelectorAll(".curve")].map((place) => JSON.parse(place.nextElementSibling.textContent));
  const seen = {
    heard, figures: figures.length,
    wrong: figures.flatMap((one) => (Plotly.validate(one.data, one.layout) || []).map((fault) => fault.msg)),
    drawn: document.querySelectorAll(".curve svg").length,
    requests: performance.getEntriesByType("resource").filter((one) => !one.name.startsWith("data:")).map((one) => one.name),
    beyond: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    small: Math.min(...[...document.querySelectorAll(".panel text, td, p, li")].map((one) => parseFloat(getComputedStyle(one).fontSize))),
    paper: getComputedStyle(document.body).backgroundColor,
  };
  document.body.innerHTML = "<pre id=seen></pre>";
  document.getElementById("seen").textContent = JSON.stringify(seen);
}, 1500));
</script>"""


def look(page: Path, width: int, *, dark: bool = False) -> dict[str, Any]:
    """What a browser with a window of that width sees."""
    before, end, after = page.read_text(encoding="utf-8").replace("<head>", "<head>" + EARS, 1).rpartition("</body>")
    text = before + PROBE + end + after
    probed = Path("probed.html")
    probed.write_text(text, encoding="utf-8")
    command = [
        browser.find_browser(), "--headless=new", "--disable-gpu", "--no-first-run",
        f"--user-data-dir={Path('profile').resolve()}", f"--window-size={width},1600", "--virtual-time-budget=8000",
        "--dump-dom", *browser.unconfined(), *(["--blink-settings=preferredColorScheme=0"] if dark else []),
        probed.resolve().as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None, done.stderr[-2000:]
    seen: dict[str, Any] = json.loads(html.unescape(found[1]))
    return seen


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1400, False), (390, True)])
def test_it_is_drawn_without_an_error_or_a_request_and_fits(done: Path, width: int, dark: bool) -> None:
    seen = look(done / "report.html", max(width, 500), dark=dark)  # Chromium's windows are 500 pixels wide at least
    assert seen["heard"] == []
    assert seen["requests"] == []
    assert seen["wrong"] == []
    assert seen["figures"] >= 3
    assert seen["drawn"] >= seen["figures"]
    assert seen["beyond"] <= 0
    assert seen["small"] >= 10
    assert (seen["paper"] == "rgb(20, 24, 31)") == dark


def test_a_page_with_a_fault_is_noticed(done: Path, tmp_path: Path) -> None:
    text = (done / "report.html").read_text(encoding="utf-8")
    worse = text.replace('"use strict";', 'console.error("broken"); fetch("http://127.0.0.1:9/x").catch(() => {});', 1)
    Path("worse.html").write_text(worse.replace('"type": "scatter"', '"type": "scattered"', 1), encoding="utf-8")
    seen = look(Path("worse.html"), 800)
    assert "broken" in seen["heard"]
    assert any(said.startswith("blocked ") for said in seen["heard"])


def test_a_picture_for_slides(done: Path) -> None:
    assert run(["report", str(done), "-o", "page.html", "--png", "page.png", "--no-pictures"]) == 0
    assert Path("page.png").read_bytes().startswith(b"\x89PNG")


def test_without_a_browser_that_is_said_before_anything_is_written(done: Path) -> None:
    script = "import sys; from fnatool.cli.main import run; sys.exit(run(sys.argv[1:]))"
    command = [sys.executable, "-c", script, "report", str(done), "-o", "page.html", "--png", "page.png"]
    ended = subprocess.run(
        command, env={"PATH": "/nowhere", "PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert "needs Chromium" in ended.stderr
    assert not Path("page.html").exists()
