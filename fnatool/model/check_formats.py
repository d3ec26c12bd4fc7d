"""Findings in the forms that services for continuous integration read: GitHub's workflow commands, and SARIF 2.1.0.

Workflow commands: docs.github.com, "Workflow commands for GitHub Actions". SARIF: OASIS Standard "Static Analysis
Results Interchange Format Version 2.1.0"; GitHub's code scanning wants a first line for every place, so a model file,
which has no lines, gets line 1.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import fnatool
from fnatool.escaping import printable
from fnatool.model.check import CODES, Report
from passes.check.finding import Finding

Json = dict[str, object]

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
COMMANDS = {"error": "error", "warning": "warning", "note": "notice"}
ROOT = "%SRCROOT%"  # by convention the root of the repository


def _words(finding: Finding) -> str:
    return f"{finding.where}: {finding.message}" + (f"; {finding.fix}" if finding.fix else "")


def to_json(reports: Sequence[Report]) -> str:
    """The reports for programs: `passed` for all, then a row per model."""
    return json.dumps(
        {"passed": all(report.passed for report in reports), "models": [report.to_json() for report in reports]},
        indent=2,
    )


# --- GitHub ---


def to_github(reports: Sequence[Report]) -> str:
    """A workflow command per finding, which GitHub shows beside the file; nothing for a model without findings."""
    return "\n".join(_command(report.model, finding) for report in reports for finding in report.findings)


def _command(model: Path, finding: Finding) -> str:
    properties = {"file": _relative(model), "title": f"fnatool {finding.code}"}
    told = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
    return f"::{COMMANDS[finding.severity]} {told}::{_data(_words(finding))}"


def _data(text: str) -> str:
    """Lines keep their ends, in the runner's own code; other control characters would reach a terminal and are shown
    escaped.
    """
    parts = re.split(r"([\r\n])", text.replace("%", "%25"))
    return "".join(ENDS.get(part) or printable(part).replace("##", "#\\x23") for part in parts)


ENDS = {"\r": "%0D", "\n": "%0A"}


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _relative(path: Path) -> str:
    """The path as seen from here, where the repository is; an absolute one where the file lies elsewhere."""
    here, there = Path.cwd(), Path(os.path.normpath(path.absolute()))
    return there.relative_to(here).as_posix() if there.is_relative_to(here) else there.as_posix()


# --- SARIF ---


def to_sarif(reports: Sequence[Report], *, complete: bool) -> str:
    """All findings as one SARIF log with one run; complete is False where a model could not be looked at."""
    rules = list(CODES)
    run: Json = {
        "tool": {
            "driver": {"name": "fnatool", "version": fnatool.__version__, "rules": [_rule(code) for code in rules]}
        },
        "invocations": [{"executionSuccessful": complete}],
        "results": [row for report in reports for row in _results(report, rules)],
        "columnKind": "unicodeCodePoints",
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2)


def _rule(code: str) -> Json:
    """The rule of a code; its name is the code as a word."""
    name = "".join(part.capitalize() for part in code.split("-"))
    text = f"{CODES[code][0].upper()}{CODES[code][1:]}."
    return {"id": code, "name": name, "shortDescription": {"text": text}}


def _results(report: Report, rules: Sequence[str]) -> list[Json]:
    repeats: Counter[str] = Counter()
    rows: list[Json] = []
    for finding in report.findings:
        same = hashlib.sha256(f"{finding.code}\0{finding.where}".encode()).hexdigest()[:16]
        repeats[same] += 1
        rows.append(
            {
                "ruleId": finding.code,
                "ruleIndex": rules.index(finding.code),
                "level": finding.severity,
                "message": {"text": _words(finding)},
                "locations": [_location(report.model, finding)],
                # every finding of a file is in its line 1: this tells them apart, and knows them again
                "partialFingerprints": {"primaryLocationLineHash": f"{same}:{repeats[same]}"},
            }
        )
    return rows


def _location(model: Path, finding: Finding) -> Json:
    return {
        "physicalLocation": {"artifactLocation": _artifact(model), "region": {"startLine": 1}},
        "logicalLocations": _logical(finding.where),
    }


def _artifact(model: Path) -> Json:
    """A URI relative to the repository, or an absolute one for a file outside it."""
    told = _relative(model)
    if Path(told).is_absolute():
        return {"uri": Path(told).as_uri()}
    return {"uri": quote(os.fsencode(told)), "uriBaseId": ROOT}


NAMED = re.compile(r"(\S+) '([^']*)'")  # Conv 'features.0', initializer 'w'


def _logical(where: str) -> list[Json]:
    """The nodes, initializers, inputs … that where names; itself where it names none."""
    named = NAMED.findall(where)
    if not named or ", ".join(f"{kind} '{name}'" for kind, name in named) != where:
        return [{"name": where, "fullyQualifiedName": where}]
    return [
        {"name": name or kind, "fullyQualifiedName": f"{kind} '{name}'", "kind": kind if kind in PARTS else "node"}
        for kind, name in named
    ]


PARTS = frozenset({"initializer", "input", "output", "tensor"})
