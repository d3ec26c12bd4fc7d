"""Where the timings in a folder were taken, as the script there wrote it down."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fnatool.files.documents import read_json
from fnatool.latency.timing import RecordedDevice, TimingDevice
from passes.errors import UserError


def recorded_place(path: Path, wanted: TimingDevice | RecordedDevice) -> tuple[RecordedDevice, tuple[float, float]]:
    """The one place in the file, or of several the one with the provider that is wanted; and the load of its machine,
    before and after.

    Raises UserError where there is none, or none alone.
    """
    if not path.is_file():
        raise UserError(f"'{path}' does not exist: run the script in that folder first")
    document = read_json(path, "file of timings")
    places = document.get("places") if isinstance(document, Mapping) else None
    if not isinstance(places, Mapping) or not places or not all(map(_is_place, places.values())):
        raise UserError(f"'{path}' does not hold what the script in that folder writes; run it again")
    fitting = (
        places if len(places) == 1 else {key: row for key, row in places.items() if row["provider"] == wanted.provider}
    )
    if len(fitting) != 1:
        raise UserError(
            f"'{path}' holds the timings of {'; '.join(places)}: say which with --provider, or time in a folder "
            "of its own"
        )
    ((key, row),) = fitting.items()
    return RecordedDevice(row["provider"], row["clock"], key), (float(row["load"][0]), float(row["load"][1]))


def _is_place(row: object) -> bool:
    if not isinstance(row, Mapping) or not all(isinstance(row.get(key), str) for key in ("provider", "clock")):
        return False
    load = row.get("load")
    return (
        isinstance(load, list)
        and len(load) == 2
        and all(type(value) in (int, float) and abs(value) < 1e9 for value in load)
    )
