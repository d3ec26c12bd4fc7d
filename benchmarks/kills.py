"""remap, finetune and search, killed at random moments: the same command again comes to the same bits, and nothing is
left behind.

`python -m benchmarks.kills --count 100`. Half of the kills come at a random time, half right before a random operation
on a file, of which a run has hundreds: there it counts. Every command runs in a child of this process, in a session of
its own, on a tiny network; now and then its repetition is killed too. After a kill is looked for: other bits than those
of a run that nobody disturbed, other rows in metrics.jsonl, files that such a run does not have, and processes of the
killed session that are still there five seconds later.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import fnatool
from fnatool.cli import main as cli
from fnatool.files.runfolder import MARK
from fnatool.model.headed import HeadOptions
from fnatool.search import run as searching  # so that no child has to import them
from fnatool.training import finetune as finetuning

RESULTS = Path(__file__).parent / "results" / "kills.json"
PATIENCE = 5.0  # seconds that what a killed process started may live
AGAIN = 0.25  # how often the repetition is killed too
READY = (finetuning, searching)
# dates or process numbers are in them, or are theirs to say
NAMES_ONLY = ("events.out.tfevents", "checkpoint.pt", "best.pt", MARK)
OPERATIONS = {"os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "os.truncate", "open"}


# --- what is run --------------------------------------------------------------------------------


def network() -> onnx.ModelProto:
    """x [N, 3, 32, 32] → a stem, two stages of inverted bottlenecks, a classifier of five."""
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def weight(name: str, *shape: int) -> str:
        values = (
            rng.uniform(0.5, 1.5, shape)
            if len(shape) < 2
            else rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        )
        weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def add(kind: str, out: str, *inputs: str, **how: object) -> str:
        nodes.append(helper.make_node(kind, list(inputs), [out], name=out, **how))
        return out

    def conv(
        x: str, out: str, sizes: tuple[int, int, int], *, stride: int = 1, group: int = 1, active: bool = True
    ) -> str:
        before, width, kernel = sizes
        shape = (width, before // group, kernel, kernel)
        how = {"kernel_shape": [kernel] * 2, "pads": [kernel // 2] * 4, "strides": [stride] * 2, "group": group}
        y = add("Conv", out, x, weight(f"{out}.w", *shape), **how)
        y = add(
            "BatchNormalization",
            f"{out}.n",
            y,
            *(weight(f"{out}.{part}", width) for part in ("gamma", "beta", "mean", "var")),
        )
        return add("Relu", f"{out}.r", y) if active else y

    y, channels = conv("x", "stem", (3, 6, 3), stride=2), 6
    for stage, (width, depth) in enumerate(((8, 2), (10, 2))):
        for block in range(depth):
            name, hidden = f"s{stage}b{block}", 3 * channels
            inner = conv(y, f"{name}e", (channels, hidden, 1))
            inner = conv(inner, f"{name}d", (hidden, hidden, 3), stride=1 if block else 2, group=hidden)
            out = conv(inner, f"{name}p", (hidden, width, 1), active=False)
            y = add("Add", f"{name}a", y, out) if block else out
            channels = width
    add("GlobalAveragePool", "pool", y)
    add("Flatten", "flat", "pool")
    add("Gemm", "y", "flat", weight("fc.w", 5, channels), weight("fc.b", 5), transB=1)
    ends = (
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 32, 32])],
        [helper.make_tensor_value_info("y", 1, ["N", 5])],
    )
    graph = helper.make_graph(nodes, "tiny", *ends, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def pictures(root: Path) -> None:
    """Images of two classes, darker and brighter noise, in folders."""
    rng = np.random.default_rng(1)
    for split, count in (("train", 8), ("val", 4)):
        for label, name in enumerate(("dark", "light")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for k in range(count):
                pixels = rng.integers(0, 160, (32, 32, 3)) + 90 * label
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{k}.png")


FINETUNE = """
task = "classification"
[data]
path = "{root}/data"
workers = 1
[run]
batch = 4
steps = 8
checkpoint = 2
evaluate = 1
keep = "best"
threads = 1
[averages]
ema = 0.9
"""

SEARCH = """
task = "classification"
model = "{root}/seed.onnx"
[data]
path = "{root}/data"
workers = 0
[space]
choices = "{root}/space.json"
[search]
method = "gradient"
steps = 6
finalists = 2
[run]
batch = 4
checkpoint = 2
threads = 1
[score]
images = 8
calibration = 8
[finetune.run]
batch = 4
steps = 3
checkpoint = 2
"""

DISTANCE = """
task = "classification"
model = "{root}/seed.onnx"
[data]
path = "{root}/data"
workers = 0
[space]
choices = "{root}/space.json"
[distance]
images = 8
batch = 4
members = 4
[run]
threads = 1
[cost]
budget = ["madds=85%"]
[finetune.run]
batch = 4
steps = 3
checkpoint = 2
"""


def prepare(root: Path) -> None:
    """What the commands read is in root."""
    (root / "seed.onnx").write_bytes(network().SerializeToString())
    (root / "narrow.json").write_text(json.dumps({"version": 1, "knobs": {"**.hidden": "x0.5", "stage0.depth": "+1"}}))
    (root / "space.json").write_text(json.dumps({"version": 1, "knobs": {"stage*.*.hidden": ["x0.5", "x1"]}}))
    pictures(root / "data")
    (root / "finetune.toml").write_text(FINETUNE.format(root=root))
    (root / "search.toml").write_text(SEARCH.format(root=root))
    (root / "distance.toml").write_text(DISTANCE.format(root=root))
    fnatool.head(
        root / "seed.onnx", root / "headed.onnx", options=HeadOptions(task="classification", classes="2", verify=False)
    )


def commands(root: Path) -> dict[str, list[str]]:
    """The command of each kind, to be run in a folder of its own."""
    return {
        "remap": [
            "remap",
            f"{root}/seed.onnx",
            "--spec",
            f"{root}/narrow.json",
            "-o",
            "out.onnx",
            "--report",
            "out.json",
        ],
        "finetune": ["finetune", f"{root}/headed.onnx", "--config", f"{root}/finetune.toml", "-o", "out.onnx"],
        "search": ["search", "--config", f"{root}/search.toml", "-o", "run"],
        "distance": ["search", "--config", f"{root}/distance.toml", "-o", "run"],
    }


# --- a command in a child -----------------------------------------------------------------------


@dataclass
class Ran:
    """A child that has ended: its session, when, its exit code (None: killed), how long it took, and how many file
    operations it did.
    """

    session: int
    ended: float
    code: int | None
    seconds: float
    operations: int = 0


def run(command: Sequence[str], folder: Path, *, after: float | None = None, operation: int | None = None) -> Ran:
    """The command in the folder; killed after so many seconds, or right before so many of its file operations, where it
    gets that far.
    """
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        _live(command, folder, operation)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if after is not None and time.monotonic() - start > after:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            break
        time.sleep(0.001)
    log = folder.with_suffix(".operations")
    count = int(log.read_text()) if log.exists() else 0
    code = None if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return Ran(child, time.monotonic(), code, time.monotonic() - start, count)


def _live(command: Sequence[str], folder: Path, operation: int | None) -> None:
    """The life of the child."""
    os.setsid()
    os.chdir(folder)
    for name in ("tmp", "cache"):
        Path(name).mkdir(exist_ok=True)
    os.environ.update(TMPDIR=str(folder / "tmp"), XDG_CACHE_HOME=str(folder / "cache"))
    tempfile.tempdir = None
    log = os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    count, own = 0, os.getpid()

    def seen(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event not in OPERATIONS or os.getpid() != own or not _counts(event, arguments, str(folder)):
            return
        count += 1
        if count == operation:
            os.kill(own, signal.SIGKILL)

    sys.addaudithook(seen)
    code = cli.run(list(command))
    folder.with_suffix(".operations").write_text(str(count))
    os._exit(code)


def _counts(event: str, arguments: tuple[object, ...], folder: str) -> bool:
    """The operation changes something in the folder."""
    path = arguments[0] if arguments else None
    if not isinstance(path, str | os.PathLike) or (Path(path).is_absolute() and not str(path).startswith(folder)):
        return False
    flags = arguments[2] if event == "open" and len(arguments) > 2 else 0
    return event != "open" or (isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)))


# --- what is found ------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, str]:
    """Every file in the folder and what is in it, in short."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.name.startswith("events.out.tfevents"):  # one for every time that the command went on
            continue
        named = name.startswith("cache/") or path.name.startswith(NAMES_ONLY) or not path.is_file()
        found[name] = "" if named else hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return found


def alive(session: int) -> list[str]:
    """The processes of a session that are still there."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[3]) == session and words[0] not in "ZX":
            found.append(path.name)
    return found


@dataclass
class Found:
    """What went wrong, in words: by kind of fault."""

    kills: Counter[str] = field(default_factory=Counter)
    differing: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Nothing did."""
        return not (self.differing or self.leftovers or self.orphans or self.refused)


@dataclass(frozen=True)
class Whole:
    """A run that nobody disturbed: its command, what it leaves, and how long it takes."""

    command: Sequence[str]
    contents: Mapping[str, str]
    ran: Ran


def undisturbed(kind: str, command: Sequence[str], place: Path) -> Whole:
    """The whole run of a kind, twice: the second is what the others are timed by."""
    for k in range(2):
        folder = place / f"{kind}-whole{k}"
        folder.mkdir()
        ran = run(command, folder)
        if ran.code != 0:
            raise SystemExit(f"{kind} ends with {ran.code}: {folder.with_suffix('.log').read_text()[-2000:]}")
    return Whole(command, contents(folder), ran)


def trial(name: str, whole: Whole, folder: Path, rng: random.Random) -> tuple[Found, list[Ran]]:
    """The command killed, once or more, and run to its end. Returned are its faults and the runs that were killed."""
    found, killed = Found(), []
    folder.mkdir()
    while True:
        if rng.random() < 0.5:
            moment = f"after {(after := rng.uniform(0, whole.ran.seconds)):.3f} s"
            ran = run(whole.command, folder, after=after)
        else:
            operation = rng.randint(1, whole.ran.operations)
            moment, ran = f"at file operation {operation}", run(whole.command, folder, operation=operation)
        if ran.code is not None:
            break  # it was faster
        found.kills[name.partition("-")[0]] += 1
        killed.append(ran)
        name = f"{name}, {moment}"
        if rng.random() >= AGAIN:
            break
    last = run(whole.command, folder) if ran.code is None else ran
    now = contents(folder)
    wrong = [path for path, what in whole.contents.items() if now.get(path) != what]
    if last.code != 0 and (wrong or last.code != 2):  # a command whose result is there may say so
        found.refused.append(f"{name}: exit code {last.code}: {folder.with_suffix('.log').read_text()[-300:].strip()}")
    found.differing += [f"{name}: {path}" for path in wrong]
    found.leftovers += [f"{name}: {path}" for path in now if path not in whole.contents]
    return found, killed


def kills(
    count: int, seed: int, place: Path, *, kinds: Sequence[str] = (), said: Callable[[str], None] = print
) -> Found:
    """At least so many kills, dealt to the kinds in turn, and all that was found."""
    root = place / "root"
    root.mkdir(parents=True)
    prepare(root)
    wholes = {
        kind: undisturbed(kind, command, place)
        for kind, command in commands(root).items()
        if not kinds or kind in kinds
    }
    for kind, whole in wholes.items():
        said(f"{kind}: {whole.ran.seconds:.1f} s, {whole.ran.operations} file operations")
    total, waiting, number = Found(), [], 0
    while sum(total.kills.values()) < count:
        kind = list(wholes)[number % len(wholes)]
        name = f"{kind}-{number}"
        found, killed = trial(name, wholes[kind], place / name, random.Random(f"{seed} {number}"))
        waiting += [(name, ran) for ran in killed]
        total.kills += found.kills
        for words in ("differing", "leftovers", "refused"):
            for line in getattr(found, words):
                said(f"{words}: {line}")
            getattr(total, words).extend(getattr(found, words))
        number += 1
    for name, ran in waiting:
        time.sleep(max(ran.ended + PATIENCE - time.monotonic(), 0))
        total.orphans += [f"{name}: process {process}" for process in alive(ran.session)]
    return total


def main() -> None:
    """The figures are in benchmarks/results/kills.json, and the exit code is 1 where anything was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--count", type=int, default=100, help="kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="kinds with commas between them")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    asked = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kills-") as place:
        found = kills(asked.count, asked.seed, Path(place), kinds=[kind for kind in asked.only.split(",") if kind])
    document = {
        "kills": dict(found.kills),
        "seed": asked.seed,
        "patience": PATIENCE,
        "seconds": round(time.monotonic() - start),
    }
    document |= {name: getattr(found, name) for name in ("differing", "leftovers", "orphans", "refused")}
    asked.output.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1))
    sys.exit(0 if found.good else 1)


if __name__ == "__main__":
    main()
