"""The folder of a run: what is in it, and whether what is there is the same run."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fnatool.atomic import write_text
from passes.errors import UserError

VERSION = 3  # 1 knew no lead of the seed's own choices, 2 nothing of the data but its counts
RUN, SPACE, COSTS, SEED = "run.json", "space.json", "costs.json", "seed.onnx"
SPEC, REMAPPED, TARGET, CHOSEN = "spec.json", "remapped.onnx", "target.onnx", "chosen.json"
REPORT, PAGE = "report.json", "report.md"
TUNING, DERIVED, SCENES, LATENCY = "finetune", "derived", "scenes", "latency.json"
JOURNAL = ("checkpoint.pt", "metrics.jsonl", "events")
OWN = frozenset({RUN, SPACE, COSTS, SEED, SPEC, REMAPPED, TARGET, CHOSEN, REPORT, PAGE, TUNING, DERIVED, SCENES, LATENCY, *JOURNAL})
FREE = ("data.workers", "run.checkpoint", "run.threads", "finetune.run.checkpoint", "finetune.run.threads")
"""Keys of the config that do not change what comes out."""


@dataclass(frozen=True)
class Facts:
    """What a run is of: the seed file and its digest, the processes that share the work, the samples to learn from and to validate with,

    the config, the knobs of the space (None: not known yet), and what the samples of both splits are (`Split.digest`).
    """

    model: str
    sha256: str
    processes: int
    samples: tuple[int, int]
    config: Mapping[str, Any]
    knobs: Mapping[str, Any] | None
    data: tuple[str, str]

    @property
    def key(self) -> str:
        """The same for runs that come to the same result."""
        told = [self.sha256, self.processes, *self.samples, *self.data, sorted(_telling(self).items())]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """As it stands in run.json."""
        return {"version": VERSION, **vars(self)}


def opened(folder: Path, needed: Iterable[Path]) -> None:
    """The folder is there. Raises UserError where it holds anything else than a run, or a file that is needed and would be lost."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"'{folder}', where the run is to be kept, is not a folder; give another one with -o")
    if folder.is_dir() and (others := {path.name for path in folder.iterdir() if not path.name.startswith(".")} - OWN):
        raise UserError(f"'{folder}' holds '{min(others)}', which is of no search; give another folder with -o")
    for path in needed:
        if folder.resolve() in path.resolve().parents:
            raise UserError(f"'{path}' lies where the run is kept and would be overwritten; give another folder with -o")
    folder.mkdir(parents=True, exist_ok=True)


def draft(folder: Path) -> Path:
    """Where a run that begins anew is prepared, so that the earlier one stays until nothing can be refused any more."""
    whole = folder.resolve()  # '.' has no name
    return whole.with_name(f".{whole.name}.new")


def cleared(place: Path) -> None:
    """The folder is there, and empty."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)


def replaced(folder: Path, by: Path) -> None:
    """The folder holds what was prepared elsewhere, and of the earlier run no more than its scenes."""
    for name in OWN - {SCENES}:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for path in by.iterdir():
        path.rename(folder / path.name)
    by.rmdir()


def read(folder: Path) -> Facts:
    """What the run in a folder is of. Raises UserError where there is none, or one of another version."""
    path = folder / RUN
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"'{folder}' holds no search; 'fnatool search -o {folder}' begins one") from None
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise UserError(f"'{path}' cannot be read: {error}; --restart begins anew") from error
    version = document.get("version") if isinstance(document, dict) else None
    if version != VERSION:
        raise UserError(
            f"'{folder}' is a run of version {version!r}, this fnatool reads version {VERSION}; --restart begins anew, "
            "-o names another folder"
        )
    try:
        train, val = document["samples"]
        learnt, measured = document["data"]
        return Facts(
            str(document["model"]),
            str(document["sha256"]),
            int(document["processes"]),
            (int(train), int(val)),
            dict(document["config"]),
            dict(document["knobs"]),
            (str(learnt), str(measured)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"'{path}' is damaged; --restart begins anew") from error


def require_same(folder: Path, facts: Facts) -> None:
    """The run in the folder, if there is one, is this one. Raises UserError where it is another, with what is different."""
    if (folder / RUN).exists():
        differences = list(_differences(read(folder), facts))
        if differences:
            raise UserError(
                f"'{folder}' is of another run: {'; '.join(differences[:3])}; --restart begins anew, -o names another folder, "
                "'fnatool derive' takes other budgets"
            )


def claimed(folder: Path, facts: Facts, latency: str | None) -> None:
    """The folder is of this run, says so from now on, and keeps its latency table. Raises UserError where it is of another."""
    require_same(folder, facts)
    if latency is not None and not (folder / LATENCY).exists():
        write_text(folder / LATENCY, Path(latency).read_text(encoding="utf-8"))
    write_text(folder / RUN, json.dumps(facts.to_json(), indent=1) + "\n", force=True)


def _differences(old: Facts, new: Facts) -> Iterator[str]:
    if old.sha256 != new.sha256:
        yield f"its seed was '{old.model}' (sha256:{old.sha256[:12]}…), not this '{new.model}' (sha256:{new.sha256[:12]}…)"
    if old.processes != new.processes:
        yield f"it had {old.processes} process(es), not {new.processes}"
    if tuple(old.samples) != tuple(new.samples):
        yield f"its data had {old.samples[0]} and {old.samples[1]} samples, not {new.samples[0]} and {new.samples[1]}"
    elif tuple(old.data) != tuple(new.data):
        yield "its data had other names, sizes or labels than now"
    before, after = _telling(replace(old, knobs=None) if new.knobs is None else old), _telling(new)
    for key in sorted({*before, *after}):
        if before.get(key) != after.get(key):
            yield f"'{key}' was {json.dumps(before.get(key))}, not {json.dumps(after.get(key))}"


def _telling(facts: Facts) -> dict[str, Any]:
    """Every key of the config and every knob of the space that changes what comes out."""
    whole = json.loads(json.dumps({**facts.config, "knobs": facts.knobs or {}}))
    return {key: value for key, value in _flat(whole) if not any(key == free or key.startswith(f"{free}.") for free in FREE)}


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
