"""The folder of a run: what is in it, and whether what is there is the same run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

from fnatool.files import documents
from fnatool.files.atomic import write_text
from fnatool.files.runfolder import CHECKPOINT, EVENTS, METRICS, NEW, OF_EVENTS, REPORT, SHOWN, RunLayout
from fnatool.files.runfolder import TUNING as OF_TUNING
from passes.errors import UserError
from passes.space.costs import KINDS

# 1 knew no lead of the seed's own choices, 2 nothing of the data but its counts, 3 no method, 4 no imitation, 5 no
# trunks
VERSION = 6
RUN, SPACE, COSTS, SEED = "run.json", "space.json", "costs.json", "seed.onnx"
SPEC, REMAPPED, TARGET, CHOSEN = "spec.json", "remapped.onnx", "target.onnx", "chosen.json"
DISTANCES = "distances.json"
PAGE = "report.md"
LIST = "derived.json"  # in the folder of those that were derived
TUNING, DERIVED, SCENES, LATENCY = "finetune", "derived", "scenes", "latency.json"
BASELINE = "baseline-"  # and its name: the folder of one
OF_DERIVED = rf"derived\.json|({'|'.join(kind.name for kind in KINDS)})-.+\.(onnx|onnx\.data|json)"
FILES = {
    RUN,
    SPACE,
    COSTS,
    SEED,
    SPEC,
    REMAPPED,
    TARGET,
    CHOSEN,
    DISTANCES,
    REPORT,
    SHOWN,
    PAGE,
    LATENCY,
    CHECKPOINT,
    METRICS,
}
OF_BASELINE = RunLayout(
    kind="baseline",
    what="baseline",
    option="-o",
    first=REMAPPED,
    files=frozenset({f"{name}{end}" for name in (REMAPPED, TARGET) for end in ("", ".data")}),
    folders={TUNING: OF_TUNING},
)
SEARCH = RunLayout(
    kind="search",
    what="search",
    option="-o",
    first=RUN,
    files=frozenset({*FILES, *(f"{name}.data" for name in (SEED, REMAPPED, TARGET))}),
    folders={
        EVENTS: OF_EVENTS,
        TUNING: OF_TUNING,
        DERIVED: OF_DERIVED,
        f"{BASELINE}seed": OF_BASELINE,
        f"{BASELINE}uniform": OF_BASELINE,
    },
    kept=frozenset({SCENES}),
)
FREE = ("data.workers", "run.checkpoint", "run.threads", "finetune.run.checkpoint", "finetune.run.threads")
"""Keys of the config that do not change what comes out."""


@dataclass(frozen=True)
class RunFacts:
    """What a run is of, as far as it tells what comes out."""

    model: str  # the seed file …
    sha256: str  # … and its digest
    processes: int  # that share the work
    samples: tuple[int, int]  # to learn from and to validate with
    config: Mapping[str, Any]
    knobs: Mapping[str, Any] | None  # of the space; None: not known yet
    data: tuple[str, str]  # `Split.digest` of both splits

    @property
    def key(self) -> str:
        """The same for runs that come to the same result."""
        told = [self.sha256, self.processes, *self.samples, *self.data, sorted(_telling(self).items())]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """As it stands in run.json."""
        return {"version": VERSION, **vars(self)}


def require_outside(folder: Path, needed: Iterable[Path]) -> None:
    """Raises UserError where a file that is needed lies in the folder and would be lost."""
    for path in needed:
        if folder.resolve() in path.resolve().parents:
            raise UserError(
                f"'{path}' lies where the run is kept and would be overwritten; give another folder with -o"
            )


def arrange(folder: Path) -> None:
    """The folder holds what was prepared aside."""
    for path in (folder / NEW).iterdir():
        path.rename(folder / path.name)


def shown(folder: Path) -> Path:
    """The folder as the user knows it, also while it is prepared aside."""
    return folder.parent if folder.name == NEW else folder


def read(folder: Path) -> RunFacts:
    """What the run in a folder is of. Raises UserError where there is none, or one of another version."""
    path = folder / RUN
    if not path.exists():
        raise UserError(f"'{folder}' holds no search; 'fnatool search -o {folder}' begins one")
    try:
        document = documents.read(path, pipes=False)
    except OSError as error:
        raise UserError(f"'{path}' cannot be read: {error.strerror}") from error
    except UserError as error:
        raise UserError(f"{error}; --restart begins anew") from error
    version = document.get("version") if isinstance(document, dict) else None
    if version != VERSION or isinstance(version, bool):
        said = f"a run of version {version}" if isinstance(version, int) else "no run that says its version"
        raise UserError(
            f"'{folder}' is {said}, this fnatool reads version {VERSION}; --restart begins anew, -o names "
            "another folder"
        )
    assert isinstance(document, dict)
    return _facts(document, path)


def _facts(document: Mapping[str, Any], path: Path) -> RunFacts:
    model, sha256, processes = (document.get(key) for key in ("model", "sha256", "processes"))
    samples, config, knobs, data = (document.get(key) for key in ("samples", "config", "knobs", "data"))
    if not (
        isinstance(model, str)
        and model
        and isinstance(sha256, str)
        and isinstance(config, dict)
        and isinstance(knobs, dict)
    ):
        raise UserError(f"'{path}' is damaged; --restart begins anew")
    if not isinstance(samples, list) or len(samples) != 2 or not all(map(_is_count, samples)):
        raise UserError(f"'{path}' is damaged; --restart begins anew")
    if not isinstance(data, list) or len(data) != 2 or not all(isinstance(digest, str) for digest in data):
        raise UserError(f"'{path}' is damaged; --restart begins anew")
    if not _is_count(processes) or processes < 1 or "\0" in model:
        raise UserError(f"'{path}' is damaged; --restart begins anew")
    return RunFacts(
        model=model,
        sha256=sha256,
        processes=processes,
        samples=(samples[0], samples[1]),
        config=config,
        knobs=knobs,
        data=(data[0], data[1]),
    )


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31


def require_same(folder: Path, facts: RunFacts) -> None:
    """The run in the folder, if there is one, is this one. Raises UserError where it is another, with what is
    different.
    """
    if (folder / RUN).exists():
        differences = list(_differences(read(folder), facts))
        if differences:
            raise UserError(
                f"'{folder}' is of another run: {'; '.join(differences[:3])}; --restart begins anew, -o names "
                "another folder, "
                "'fnatool derive' takes other budgets"
            )


def claim(folder: Path, facts: RunFacts, latency: str | None) -> None:
    """The folder is of this run, says so from now on, and keeps its latency table. Raises UserError where it is of
    another.
    """
    require_same(folder, facts)
    if latency is not None and not (folder / LATENCY).exists():
        write_text(folder / LATENCY, documents.text(Path(latency), "a latency table"))
    write_text(folder / RUN, json.dumps(facts.to_json(), indent=1) + "\n", force=True)


def _differences(old: RunFacts, new: RunFacts) -> Iterator[str]:
    if old.sha256 != new.sha256:
        yield (
            f"its seed was '{old.model}' (sha256:{old.sha256[:12]}…), not this '{new.model}' "
            f"(sha256:{new.sha256[:12]}…)"
        )
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


def _telling(facts: RunFacts) -> dict[str, Any]:
    """Every key of the config and every knob of the space that changes what comes out."""
    whole = json.loads(json.dumps({**facts.config, "knobs": facts.knobs or {}}))
    return {
        key: value for key, value in _flat(whole) if not any(key == free or key.startswith(f"{free}.") for free in FREE)
    }


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
