"""Models side by side, on the terminal."""

from __future__ import annotations

from fnatool import terminal
from fnatool.latency.bench import Benchmark, Timing


def show_benchmark(made: Benchmark) -> None:
    """One row per model, and where and how it was timed."""
    columns = ("latency", "spread", "samples/s", "memory", "ratio")
    table = terminal.table(terminal.whole("model"), *map(terminal.right, columns))
    for row in made.timings:
        table.add_row(*_cells(row))
    console = terminal.console(wrap=False)
    console.print(table)
    console.print()
    batches = ", ".join(dict.fromkeys(str(row.batch) for row in made.timings))
    runs = min(row.runs for row in made.timings)
    console.print(
        f"batch {batches}; medians of {made.rounds} rounds, {runs} runs or more, by the {made.clock} clock, on "
        f"{made.place}"
    )
    console.print(f"load of the machine {made.load[0]:.1f} to {made.load[1]:.1f}")


def _cells(row: Timing) -> tuple[str, ...]:
    memory = "?" if row.memory is None else terminal.size(row.memory)
    ratio = f"{row.ratio:.2f} ± {row.ratio_spread:.2f}"
    return row.model, f"{row.median / 1e6:.3f} ms", f"± {row.spread:.1%}", f"{row.throughput:,.1f}", memory, ratio
