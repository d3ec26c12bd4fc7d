"""What the folder of a run holds, as one document: everything that its page says is in it.

A run is data. Its files are read as such: no path in it is followed out of it, but that of the data set, whose digest
must be the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fnatool import __version__
from fnatool.data.options import USUAL, DataOptions
from fnatool.files import documents
from fnatool.files import model as files
from fnatool.files.metrics import metric_rows
from fnatool.files.runfolder import CONFIG, METRICS, REPORT, kind_of, require_regular
from fnatool.files.runfolder import TUNING as OF_TUNING
from fnatool.report.networks import NetworkPair, ReportedNetwork, network_pair, reported
from fnatool.search import folder as folders
from fnatool.search.words import chosen_words
from fnatool.training.config import DataSection
from fnatool.training.sections import parsed
from passes.errors import UserError
from passes.target.spec import Spec, parse

Json = dict[str, Any]
PACKAGES = ("onnx", "onnxruntime-gpu", "onnxruntime", "onnx-graphsurgeon", "torch", "numpy")
WEIGHTS = ("", ".data")  # a model's file, and where its weights lie if they are external


@dataclass(frozen=True)
class GatheredRun:
    """A run as a document, its networks, and what pictures can be made of: the model, the data set, its digest and how
    it is read.
    """

    document: Json
    networks: NetworkPair | None
    model: Path | None
    data: Path | None
    digest: str | None
    reading: DataOptions = USUAL


def require_run(folder: Path) -> None:
    """The folder is there. Raises UserError where it is not."""
    if not folder.is_dir():
        raise UserError(
            f"'{folder}' is no folder of a run; 'fnatool search -o' and 'fnatool finetune --work-dir' name one"
        )


def gather_run(folder: Path, model: Path | None = None) -> GatheredRun:
    """What a search or a fine-tuning left in its folder. Raises UserError where it is the folder of neither, or not
    finished.

    model: what a fine-tuning wrote; otherwise the file of the folder's name is taken, if it is that.
    """
    require_run(folder)
    kind = kind_of(folder)
    if kind == "search":
        return _search(folder)
    if kind != "finetune":
        raise UserError(f"'{folder}' is no folder of a search or a fine-tuning; --before and --after show two models")
    if model is not None:
        return _finetune(folder, model)
    # of which nothing says that it is what it was
    return replace(_finetune(folder, folder.with_suffix(".onnx")), data=None)


def _search(folder: Path) -> GatheredRun:
    require_regular(folder, folders.SEARCH)
    facts = folders.read(folder)
    if not (folder / REPORT).exists():
        raise UserError(f"the search in '{folder}' is not finished; 'fnatool search -o {folder}' goes on with it")
    found = _object(folder / REPORT)
    tunings = {"found": folder / folders.TUNING}
    tunings |= {name: folder / f"{folders.BASELINE}{name}" / folders.TUNING for name in ("seed", "uniform")}
    before, after = (_network(folder / name) for name in (folders.SEED, folders.TARGET))
    networks = None if after is None else network_pair(before, after, _spec(folder / folders.SPEC))
    config = facts.config
    document = {
        **_beside(folder),
        "kind": "search",
        "run": {
            "model": facts.model,
            "sha256": facts.sha256,
            "samples": list(facts.samples),
            "processes": facts.processes,
        },
        "config": config,
        "search": found,
        "learning": metric_rows(folder / METRICS),
        "tuning": {name: _tuning(path) for name, path in tunings.items() if (path / REPORT).exists()},
        "networks": None if networks is None else _timed(networks.to_json(), found, folder / folders.COSTS),
        "commands": [f"fnatool search --config search.toml -o {folder.name}", f"fnatool report {folder.name}"],
    }
    target = folder / folders.TARGET
    data = None if found.get("task") == "none" else _data(config)
    return GatheredRun(document, networks, target if target.exists() else None, data, facts.data[1], _reading(config))


def _timed(networks: Json, found: Json, path: Path) -> Json:
    """The networks with the latency of their stages, as the search's table has it; without one as they are.

    A stage takes what its blocks take, whose table is that of the seed's own widths outside blocks.
    """
    costs = _object(path) if path.exists() else {}
    table, trunk = costs.get("latency"), found["architecture"].get("trunk", {"number": 0})
    if table is None or trunk["number"]:
        return networks
    chosen = {"before": found["seed"]["blocks"], "after": found["architecture"]["blocks"]}
    for part in networks["parts"]:
        for side, blocks in chosen.items():
            inside = {name: said for name, said in blocks.items() if name.startswith(f"{part['name']}.")}
            there = {piece["name"] for piece in networks["pieces"][side] or ()}
            own = [
                _latency(table["blocks"][name], costs["candidates"][name], said) if name in there else 0
                for name, said in inside.items()
            ]
            if own and part[side] is not None and None not in own:
                part[side]["latency"] = sum(value for value in own if value is not None)
    for side, whole in (("before", found["seed"]["costs"]), ("after", found["architecture"]["costs"])):
        if networks[side] is not None:
            networks[side]["latency"] = whole.get("latency")
    return networks


def _latency(row: Sequence[float], candidates: Sequence[Mapping[str, Any]], said: str) -> float | None:
    """Of the candidate that is said so. None: it is none of them."""
    return next((value for value, one in zip(row, candidates, strict=False) if chosen_words(one) == said), None)


def _finetune(folder: Path, model: Path) -> GatheredRun:
    require_regular(folder, OF_TUNING)
    tuned = _tuning(folder) if (folder / REPORT).exists() else None
    if tuned is None or tuned["report"].get("in_runtime", {}) is None:  # it is written before it is evaluated
        raise UserError(
            f"the fine-tuning in '{folder}' is not finished; the same 'fnatool finetune' command goes on with it"
        )
    config = _object(folder / CONFIG)
    after = _network(model)
    if after is not None and after.model.sha256 != tuned["report"].get("sha256"):
        after = None
    networks = None if after is None else network_pair(None, after)
    document = {
        **_beside(folder),
        "kind": "finetune",
        "run": {},
        "config": config,
        "search": None,
        "learning": [],
        "tuning": {"model": tuned},
        "networks": None if networks is None else networks.to_json(),
        "commands": [f"fnatool finetune MODEL --config config.toml -o {model.name}", f"fnatool report {folder.name}"],
    }
    return GatheredRun(document, networks, None if after is None else model, _data(config), None, _reading(config))


def _data(config: Mapping[str, Any]) -> Path | None:
    """The data set that a config names."""
    section = config.get("data")
    path = section.get("path") if isinstance(section, Mapping) else None
    return Path(path) if isinstance(path, str) and "task" in config else None


def _reading(config: Mapping[str, Any]) -> DataOptions:
    """How a config has labels read; as usual where it says what no config can."""
    section = config.get("data")
    said = {key: section[key] for key in DataSection.later if key in section} if isinstance(section, Mapping) else {}
    try:
        return parsed(DataSection, said, {}).reading
    except UserError:
        return USUAL


def gather_pair(before: files.Model, after: files.Model) -> GatheredRun:
    """Two models without a run."""
    networks = network_pair(reported(before), reported(after))
    document = {
        "made": _made(),
        "files": {model.path.name: model.sha256 for model in (before, after)},
        "kind": "pair",
        "run": {},
        "config": {},
        "search": None,
        "learning": [],
        "tuning": {},
        "networks": networks.to_json(),
        "commands": [f"fnatool report --before {before.path.name} --after {after.path.name}"],
    }
    return GatheredRun(document, networks, None, None, None)


def _tuning(folder: Path) -> Json:
    """The report of a fine-tuning and its rows."""
    return {"report": _object(folder / REPORT), "rows": metric_rows(folder / METRICS)}


def _network(path: Path) -> ReportedNetwork | None:
    return reported(files.read(path)) if path.is_file() else None


def _spec(path: Path) -> Spec | None:
    return parse(_object(path)) if path.exists() else None


def _object(path: Path) -> Json:
    found = documents.read_json(path, "report of a run", pipes=False)
    if not isinstance(found, dict):
        raise UserError(f"'{path}' is damaged: it is no JSON object")
    return found


# --- how to do it again ---


def _beside(folder: Path) -> Json:
    return {"made": _made(), "files": dict(_digests(folder))}


def _digests(folder: Path) -> Iterator[tuple[str, str]]:
    """SHA-256 of every model and document in the folder, by its path in there."""
    for path in sorted(folder.rglob("*")):
        kept = path.suffix in (".onnx", ".json", ".data", ".jsonl") and not path.is_symlink() and path.is_file()
        if kept and not any(part.startswith(".") or part == folders.SCENES for part in path.relative_to(folder).parts):
            with path.open("rb") as file:
                yield path.relative_to(folder).as_posix(), hashlib.file_digest(file, "sha256").hexdigest()


def _made() -> Json:
    """By what this page is made, and where."""
    return {
        "fnatool": __version__,
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name)) is not None},
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """The processor's name as Linux tells it, else as Python does."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "unknown")


def as_toml(config: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The config of a run as lines of TOML; keys without a value are left out, as they stand for a default."""
    found = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            found += as_toml(value, f"{prefix}{key}.")
        elif value is not None:
            found.append(f"{prefix}{key} = {json.dumps(value, ensure_ascii=False)}")
    return found
