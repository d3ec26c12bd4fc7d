"""Reports of checks on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from fnatool import terminal
from fnatool.model.check import Report


def show_reports(reports: Sequence[Report]) -> None:
    """The reports for people, on the terminal."""
    console = terminal.console()
    colours = {"error": "bold red", "warning": "yellow", "note": "cyan"}
    for report in reports:
        verdict = ("passed", "bold green") if report.passed else ("failed", "bold red")
        counts = [(kind, sum(finding.severity == kind for finding in report.findings)) for kind in colours]
        summary = ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in counts if count)
        console.print(terminal.styled(str(report.model), ": ", verdict, f" ({summary})" if summary else ""))
        for finding in report.findings:
            line = f" {finding.where}: {finding.message}" + (f"; {finding.fix}" if finding.fix else "")
            console.print(
                terminal.styled("  ", (finding.severity, colours[finding.severity]), f" [{finding.code}]", line)
            )
