"""A table of latencies on the terminal."""

from __future__ import annotations

from pathlib import Path

from fnatool import terminal
from fnatool.latency.measure import SCRIPT, Subject, store_path
from fnatool.latency.table import LatencyTable
from passes.space.costs import extremes
from passes.space.space import own_member


def show_latencies(made: LatencyTable, of: Subject, output: Path, *, kept: Path | None = None) -> None:
    """The smallest, the seed and the largest member, how the table was fitted, and where it is."""
    console = terminal.console()
    low, high = extremes(made.table, of.found)
    own = own_member(of.analysis, of.found)
    rows = terminal.table("member", terminal.right("latency"))
    rows.add_row("smallest", milliseconds(low))
    if own is not None:
        rows.add_row("the seed", milliseconds(made.table.of(own)))
    rows.add_row("largest", milliseconds(high))
    console.print(rows)
    blocks, candidates = len(of.found.blocks), sum(len(block.candidates) for block in of.found.blocks)
    console.print()
    console.print(f"{candidates} candidates in {blocks} blocks and what no block holds, on {made.place}")
    console.print(
        f"t = {milliseconds(made.fit.a)} + {made.fit.b:.3f} · Σ of the parts, fitted on {len(made.members)} "
        "whole members"
    )
    left_out = f"{made.fit.error_left_out:.1%} where a member is predicted without itself"
    console.print(
        f"mean error {made.fit.error:.1%}, {left_out}; load of the machine {made.load[0]:.1f} to {made.load[1]:.1f}"
    )
    if made.fit.error_left_out > POOR:
        console.print(
            "that is much: the machine may be too busy; more --rounds, with --force, adds to what is measured",
            style="yellow",
        )
    console.print(f"→ {output}, every timing in {(kept or store_path(output)).name}")


def show_packed(pieces: int, folder: Path) -> None:
    """What is in the folder, and what to do with it."""
    terminal.say(f"{pieces} pieces in {folder}: take it to the device and run there")
    terminal.say(f"  python {folder.name}/{SCRIPT} --provider NAME --threads N")
    terminal.say("then take it back, and give the same command line with --unpack instead of --pack, and -o")


POOR = 0.1


def milliseconds(nanoseconds_: float) -> str:
    """A time as text: 3.141 ms."""
    return f"{nanoseconds_ / 1e6:.3f} ms"
