"""Reads the huge ones of the bad inputs in this process, and tells the most memory that it has had.

`python -m tests.data.readers.bad_inputs.heavy FOLDER` reads every file of the
folder and prints a line of JSON for each.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

from chat_app.data.readers import Located, iterate
from chat_app.errors import DataError

NUMBERS = 1_000


def peak_megabytes() -> float:
    """The most memory that this process has had so far."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says on Linux begins with the peak of the process that started this one
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1e3
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1e6 if sys.platform == "darwin" else 1e3)


def result(path: Path) -> dict[str, object]:
    """What became of one file, and the peak before and after it."""
    before = peak_megabytes()
    count, error, numbers = 0, "", set()
    try:
        for item in iterate(path):
            count += isinstance(item, Located)
            if len(numbers) < NUMBERS:
                numbers.add(item.line)
    except DataError as refused:
        error = refused.sentence()
    facts = {"name": path.name, "conversations": count, "error": error, "numbers": list(numbers)}
    return {**facts, "before": before, "peak": peak_megabytes()}


def main() -> None:
    """Read them all."""
    for path in sorted(Path(sys.argv[1]).iterdir()):
        print(json.dumps(result(path)), flush=True)


if __name__ == "__main__":
    main()
